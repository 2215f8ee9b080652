"""The storage directory is removed only if it is ours; records survive whatever happened to them."""

from pathlib import Path

import pytest

from process import records
from process.directories import MARKER, create_directory, delete_directory
from process.errors import ProcessError
from tests.support import make_read_only, small_disk


def test_a_new_directory_is_made_and_marked(tmp_path: Path) -> None:
    path = tmp_path / "a" / "storage"
    assert create_directory({"path": str(path)}) == {"path": str(path)}, "the outputs are the inputs"
    assert (path / MARKER).exists(), "so that it is known as ours"


def test_an_empty_directory_is_taken_over(tmp_path: Path) -> None:
    create_directory({"path": str(tmp_path)})
    assert (tmp_path / MARKER).exists(), "nobody's files are in danger"


def test_our_own_directory_is_taken_over_with_what_it_holds(tmp_path: Path) -> None:
    create_directory({"path": str(tmp_path)})
    (tmp_path / "checkpoint").write_text("kept", encoding="utf-8")
    create_directory({"path": str(tmp_path)})
    assert (tmp_path / "checkpoint").read_text(encoding="utf-8") == "kept", "data kept on destroy are used again"


def test_a_directory_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ProcessError, match="holds other files: choose another mnist:storageDir"):
        create_directory({"path": str(tmp_path)})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"], "it was left as it was"


def test_a_file_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "storage").touch()
    with pytest.raises(ProcessError, match=f"cannot use {tmp_path / 'storage'}: file exists"):
        create_directory({"path": str(tmp_path / "storage")})


@pytest.mark.parametrize("ours", [True, False])
def test_a_read_only_directory_is_named(tmp_path: Path, ours: bool) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        if ours:
            create_directory({"path": str(disk)})
        make_read_only(disk)
        with pytest.raises(ProcessError, match=rf"{disk}.* read-only.*choose another mnist:storageDir"):
            create_directory({"path": str(disk)})


def test_deleting_removes_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "storage"
    create_directory({"path": str(path)})
    (path / "data").mkdir()
    (path / "link").symlink_to(tmp_path)
    delete_directory({"path": str(path)})
    assert not path.exists(), "nothing stays"
    assert tmp_path.exists(), "links are not followed"
    delete_directory({"path": str(path)})  # once more: removed by hand is fine


def test_a_directory_without_our_mark_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ProcessError, match=f"was not made by this stack \\({MARKER} is missing\\)"):
        delete_directory({"path": str(tmp_path)})
    assert (tmp_path / "thesis.tex").exists(), "somebody's files"


def test_a_record_is_read_back(tmp_path: Path) -> None:
    records.write(str(tmp_path), "train", {"run": "r", "ports": {"http": 8000}})
    assert records.read(str(tmp_path), "train") == {"run": "r", "ports": {"http": 8000}}, "as written"
    records.remove(str(tmp_path), "train")
    records.remove(str(tmp_path), "train")
    assert records.read(str(tmp_path), "train") is None, "gone, also when removed twice"


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b"\xff\xfe"])
def test_a_damaged_record_counts_as_none(tmp_path: Path, damage: bytes) -> None:
    records.write(str(tmp_path), "train", {"run": "r"})
    records.record_path(str(tmp_path), "train").write_bytes(damage)
    assert records.read(str(tmp_path), "train") is None, "it never ran, as far as is known"


def test_a_record_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        make_read_only(disk)
        with pytest.raises(ProcessError, match=r"train: cannot write .*train.json: read-only file system"):
            records.write(str(disk), "train", {})
