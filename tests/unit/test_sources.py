"""Downloads from a real HTTP server: whole, resumed, refused."""

import gzip
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist import sources
from mnist.data import FILES, read_idx, read_pair, write_images, write_labels
from mnist.errors import DataError
from mnist.sources import directory_source, download, obtain_all, url_source, write_digits
from tests.support import free_ports

CONTENT = bytes(range(256)) * 4096  # four of the pieces it is written in


@dataclass
class Mirror:
    """What the server has, how it behaves, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    cut_first_answer: bool = False
    ignores_ranges: bool = False
    ranges: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    state = Mirror({"file": CONTENT})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.ranges.append(wanted)
            content = state.files.get(self.path.removeprefix("/"))
            if content is None:
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and not state.ignores_ranges else 0
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            cut = state.cut_first_answer and len(state.ranges) == 1
            self.wfile.write(content[start : len(content) // 2 if cut else None])

        def log_message(self, format: str, *args: Any) -> None:
            """The test's output stays clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    with server:
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def four_files(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    directory.mkdir()
    for (_, part), name in FILES.items():
        if part == "images":
            write_images(directory / name, np.arange(3 * 784, dtype=np.uint8).reshape(3, 28, 28))
        else:
            write_labels(directory / name, np.array([1, 2, 3], np.uint8))
    return directory


def test_a_file_is_downloaded_whole(mirror: Mirror, tmp_path: Path) -> None:
    said: list[str] = []
    download(f"{mirror.url}/file", tmp_path / "file", said.append)
    assert (tmp_path / "file").read_bytes() == CONTENT, "what the server has"
    assert said == [f"downloading {mirror.url}/file"], "says what takes the time"
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "no part stays"


def test_a_download_that_was_cut_off_goes_on_where_it_ended(mirror: Mirror, tmp_path: Path) -> None:
    mirror.cut_first_answer = True
    said: list[str] = []
    download(f"{mirror.url}/file", tmp_path / "file", said.append)
    half = len(CONTENT) // 2
    assert mirror.ranges == [None, f"bytes={half}-"], "only the missing rest is asked for"
    assert (tmp_path / "file").read_bytes() == CONTENT, "the parts fit together"
    assert said[-1].endswith(f"going on at byte {half:,}"), "and it is said"


def test_a_part_of_an_earlier_process_is_gone_on_with(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    download(f"{mirror.url}/file", tmp_path / "file", print)
    assert mirror.ranges == ["bytes=1000-"], "the earlier download was not in vain"
    assert (tmp_path / "file").read_bytes() == CONTENT, "the parts fit together"


def test_a_server_without_ranges_is_asked_for_all_of_it(mirror: Mirror, tmp_path: Path) -> None:
    mirror.ignores_ranges = True
    (tmp_path / "file.part").write_bytes(b"something else")
    download(f"{mirror.url}/file", tmp_path / "file", print)
    assert (tmp_path / "file").read_bytes() == CONTENT, "the whole answer replaces the part"


def test_a_part_that_is_longer_than_the_file_is_dropped(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    download(f"{mirror.url}/file", tmp_path / "file", print)
    assert mirror.ranges == [f"bytes={len(CONTENT) + 4}-", None], "it begins anew after the refusal"
    assert (tmp_path / "file").read_bytes() == CONTENT, "the file is right"


def test_a_file_the_server_lacks_is_named(mirror: Mirror, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        download(f"{mirror.url}/other", tmp_path / "other", print)
    assert str(caught.value) == f"cannot download {mirror.url}/other: the server answered 404", "what and why"
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}/file"
    with pytest.raises(DataError) as caught:
        download(url, tmp_path / "file", print)
    assert str(caught.value) == f"cannot download {url}: the server cannot be reached", "one line, no representation"


def test_an_address_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot download http://:"):
        download("http://:/file", tmp_path / "file", print)


def test_an_endless_answer_is_given_up(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 1000)
    with pytest.raises(DataError, match="larger than 1,000 bytes"):
        download(f"{mirror.url}/file", tmp_path / "file", print)
    assert not (tmp_path / "file").exists(), "it does not count as the file"


def test_all_files_come_from_a_url(mirror: Mirror, four_files: Path, tmp_path: Path) -> None:
    mirror.files = {name: (four_files / name).read_bytes() for name in FILES.values()}
    sums = obtain_all(url_source(f"{mirror.url}/", print), tmp_path, None)
    assert sums == {name: read_idx(four_files / name, part).sha256 for (_, part), name in FILES.items()}, "all four"


def test_a_file_with_a_wrong_sum_does_not_stay(mirror: Mirror, four_files: Path, tmp_path: Path) -> None:
    mirror.files = {name: (four_files / name).read_bytes() for name in FILES.values()}
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=rf"train-images-idx3-ubyte.gz from {mirror.url} is not MNIST's"):
        obtain_all(url_source(mirror.url, print), tmp_path / "data", dict.fromkeys(FILES.values(), "0" * 64))
    assert list((tmp_path / "data").iterdir()) == [], "the next stage cannot find it"


def test_a_damaged_file_of_a_server_is_named_by_its_address(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    mirror.files = dict.fromkeys(FILES.values(), gzip.compress(struct.pack(">I", 7)))
    with pytest.raises(DataError, match=rf"{mirror.url}/train-images-idx3-ubyte.gz is truncated"):
        obtain_all(url_source(mirror.url, print), tmp_path / "data", None)
    assert list((tmp_path / "data").iterdir()) == [], "the next stage cannot find it"


def test_files_that_are_there_and_right_are_not_fetched_again(mirror: Mirror, four_files: Path) -> None:
    sums = {name: read_idx(four_files / name, part).sha256 for (_, part), name in FILES.items()}
    assert obtain_all(url_source(mirror.url, print), four_files, sums) == sums, "they are kept"
    assert mirror.ranges == [], "the server was not asked"


def test_what_an_earlier_try_brought_is_not_fetched_again(mirror: Mirror, four_files: Path, tmp_path: Path) -> None:
    whole = {name: (four_files / name).read_bytes() for name in FILES.values()}
    sums = {name: read_idx(four_files / name, part).sha256 for (_, part), name in FILES.items()}
    last = list(whole)[-1]
    mirror.files = {name: content for name, content in whole.items() if name != last}
    with pytest.raises(DataError, match=f"{last}: the server answered 404"):
        obtain_all(url_source(mirror.url, print), tmp_path / "data", sums)
    assert not (tmp_path / "data" / FILES["train", "images"]).exists(), "three of four take no effect"
    mirror.files, mirror.ranges = whole, []
    assert obtain_all(url_source(mirror.url, print), tmp_path / "data", sums) == sums, "all four"
    assert len(mirror.ranges) == 1, "only the missing one was asked for"


def test_a_file_missing_in_the_directory_is_named(four_files: Path, tmp_path: Path) -> None:
    name = FILES["t10k", "labels"]
    (four_files / name).unlink()
    with pytest.raises(DataError, match=f"{four_files / name} is missing: datasetDir must hold the four files"):
        obtain_all(directory_source(four_files), tmp_path / "data", None)


def test_the_digits_are_like_mnists(tmp_path: Path) -> None:
    sums = write_digits(tmp_path)
    assert write_digits(tmp_path) == sums, "the same files each time"
    counts = {}
    for split in ("train", "t10k"):
        images, labels = read_pair(tmp_path, "train" if split == "train" else "t10k")
        counts[split] = len(images.values)
        assert set(labels.values.tolist()) == set(range(10)), "every digit occurs"
        assert images.values[:, :4].max() == 0, "framed as MNIST's: 20 x 20 in 28 x 28"
        assert images.values.max() == 255, "the full range of grey"
    assert counts == {"train": 1438, "t10k": 359}, "1,797 digits, every fifth for testing"
