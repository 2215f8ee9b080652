"""Faults while serving and storing, made for real: killed servers, bad versions, full disks, two runs at once."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

import client
import export
import prepare
from mnist import data
from mnist.cli import last_finished
from mnist.errors import ServerError
from mnist.inference import Pixels, ServedModel
from mnist.repository import ModelRepository, ServingConfig
from mnist.storage import Storage
from tests.faults import ruin
from tests.load import Load
from tests.storages import QUICK
from tests.support import WORKLOADS, free_ports, gone, refusal, run_main, small_disk, succeeded
from tests.workloads.triton import MODEL, Triton, running_triton

Copy = Callable[[Storage], Storage]
SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture(autouse=True)
def few_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SINGLES", 20)


@pytest.fixture
def pixels(exported_storage: Storage) -> Pixels:
    images, _ = data.load(exported_storage.data, "t10k")
    return images[:64, None].astype(np.float32) / np.float32(255)


def tritonserver(triton: Triton) -> psutil.Process:
    [server] = [process for process in triton.family() if process.name() == "tritonserver"]
    return server


def test_a_triton_killed_under_load_comes_back_and_no_request_fails(
    exported_storage: Storage, pixels: Pixels, tmp_path: Path
) -> None:
    with (
        running_triton(exported_storage.root, tmp_path / "log") as triton,
        Load(triton.endpoint, MODEL, pixels[:1]) as load,
    ):
        load.go_on(50)
        killed = tritonserver(triton)
        family = [killed, *killed.children(recursive=True)]
        memory = set(SHARED_MEMORY.glob(f"triton-{triton.process.pid}-*"))
        killed.kill()
        load.go_on(50)
        assert gone(family) == [], "the killed server's backends must not stay"
        assert not memory & set(SHARED_MEMORY.glob("*")), "nor its shared memory"
    load.assert_none_failed()  # the library asks again until the server is back
    assert "tritonserver ended with signal 9: starting it again" in (tmp_path / "log").read_text(), "the log says so"


def test_a_killed_backend_process_has_triton_started_again(
    exported_storage: Storage, pixels: Pixels, tmp_path: Path
) -> None:
    """By itself Triton would go on, call itself ready, and fail every other request."""
    with running_triton(exported_storage.root, tmp_path / "log") as triton:
        first = tritonserver(triton)
        first.children(recursive=True)[0].kill()
        deadline = time.monotonic() + 30
        while first.is_running() and first.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "the maimed server must be ended"
            time.sleep(0.05)
        with Load(triton.endpoint, MODEL, pixels[:1]) as load:
            load.go_on(50)
        load.assert_none_failed()
    assert "one of Triton's backend processes ended" in (tmp_path / "log").read_text(), "the log says why"


def test_a_triton_that_stays_away_is_an_error_when_patience_ends(pixels: Pixels) -> None:
    endpoint = f"127.0.0.1:{free_ports(1)[0]}"
    with ServedModel(endpoint, MODEL, patience=0.5) as model:
        with pytest.raises(ServerError, match=f"{MODEL} at {endpoint}"):
            model.infer(pixels[:1])
        with pytest.raises(ServerError, match=f"{MODEL} at {endpoint}"):
            model.infer_concurrently([pixels[:1]] * 4, 2)


def publish_a_bad_version(storage: Storage) -> None:
    repository = ModelRepository(storage.models, MODEL)
    staging, metadata = repository.staging(), repository.metadata(1)
    shutil.copytree(repository.version_directory(1), staging, dirs_exist_ok=True)
    ruin(repository.version_directory(repository.publish(staging, metadata)))


def check(storage: Storage, triton: Triton, *options: object) -> list[object]:
    return ["--storage", storage.root, "--endpoint", triton.endpoint, "--min-accuracy", 0.3, *options]


@pytest.fixture
def two_versions(exported_storage: Storage, copy_of: Copy, tmp_path: Path) -> Iterator[tuple[Storage, Triton]]:
    """Version 1 has passed its check; then a bad version 2 was published and is served."""
    storage = copy_of(exported_storage)
    with running_triton(storage.root, tmp_path / "first") as triton:
        succeeded(run_main(client.main, *check(storage, triton)))
    publish_a_bad_version(storage)
    with running_triton(storage.root, tmp_path / "second") as triton:
        yield storage, triton


def test_a_failed_check_names_the_last_good_version_and_the_command_to_go_back(
    two_versions: tuple[Storage, Triton],
) -> None:
    storage, triton = two_versions
    message = refusal(run_main(client.main, *check(storage, triton)))
    assert "version 2: accuracy" in message and "is below minAccuracy 0.3" in message, "what failed"
    assert "the last good version is 1: `pulumi config set mnist:servedVersion 1`" in message, "the way back"
    assert ModelRepository(storage.models, MODEL).served() == 2, "going back is not done unasked"


def test_auto_rollback_serves_the_last_good_version_under_load_and_still_fails(
    two_versions: tuple[Storage, Triton], pixels: Pixels
) -> None:
    storage, triton = two_versions
    with Load(triton.endpoint, MODEL, pixels[:1]) as load:
        message = refusal(run_main(client.main, *check(storage, triton, "--auto-rollback", "true")))
        load.go_on(20)
    assert "rolled back: version 1, the last good one, is served again" in message, "says what it did"
    load.assert_none_failed()
    assert load.versions == {1, 2}, "every answer is from the one or the other"
    with ServedModel(triton.endpoint, MODEL) as model:
        assert model.version() == 1, "by the running server"
    said = succeeded(run_main(client.main, *check(storage, triton)))
    assert "warning: version 1 is served, version 2 is newer" in said, "it is not forgotten"
    repository = ModelRepository(storage.models, MODEL)
    repository.serve(None, ServingConfig(cpus=1))
    assert repository.served() == 1, "what was rolled back does not come back as the newest"
    repository.serve(2, ServingConfig(cpus=1))
    assert repository.served() == 2, "only when it is asked for"


def test_without_a_good_version_a_failed_check_says_so(two_versions: tuple[Storage, Triton]) -> None:
    storage, triton = two_versions
    message = refusal(run_main(client.main, *check(storage, triton, "--min-accuracy", 1, "--auto-rollback", "true")))
    assert "no other kept version has passed this check" in message, "version 1 would not pass this gate either"
    assert ModelRepository(storage.models, MODEL).served() == 2, "nothing is gained by going back"


@pytest.fixture
def training(small_storage: Storage, copy_of: Copy) -> Iterator[tuple[Storage, "subprocess.Popen[str]"]]:
    """A training in its middle."""
    storage = copy_of(small_storage)
    command = [sys.executable, str(WORKLOADS / "train.py"), "--storage", str(storage.root), *map(str, QUICK)]
    with subprocess.Popen([*command, "--epochs", "100"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line.startswith("step 2/") for line in process.stdout), "it runs"
        yield storage, process
        process.kill()


def test_a_second_run_on_a_storage_is_refused_until_the_first_is_gone(
    training: tuple[Storage, "subprocess.Popen[str]"], small_storage: Storage
) -> None:
    storage, process = training
    again = ("--storage", storage.root, "--dataset", "custom", "--dataset-dir", small_storage.data)
    before = (storage.data / "dataset.json").stat().st_mtime_ns
    message = refusal(run_main(prepare.main, *again))
    assert f"{storage.root} is in use by stage train (process {process.pid} on " in message, "by whom"
    assert (storage.data / "dataset.json").stat().st_mtime_ns == before, "nothing was touched"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    succeeded(run_main(prepare.main, *again))  # a dead owner holds no lock


def fill(disk: Path, leave: int) -> None:
    with (disk / "filler").open("wb") as file:
        file.truncate(0)
        free = shutil.disk_usage(disk).free - leave
        file.write(bytes(max(0, free)))


def test_a_disk_that_fills_up_during_the_export_leaves_what_was_published(
    exported_storage: Storage, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "400m") as disk:
        storage = Storage(disk / "storage")
        shutil.copytree(exported_storage.root, storage.root, symlinks=True)
        repository = ModelRepository(storage.models, MODEL)
        command = [sys.executable, str(WORKLOADS / "export.py"), "--storage", str(storage.root)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            while not list(repository.directory.glob(".staging-*")):
                time.sleep(0.01)
            fill(disk, 8 << 20)
            errors = (process.communicate()[1]).splitlines()
        assert process.returncode == 1, f"the export must fail: {errors}"
        assert len(errors) == 1 and "the disk is full: free some space" in errors[0], errors
        assert repository.versions() == [1] and repository.served() == 1, "the published version stays"
        assert not list(repository.directory.glob(".staging-*")), "nothing half-written stays"
        (disk / "filler").unlink()
        succeeded(run_main(export.main, "--storage", storage.root))


def test_a_disk_that_is_full_when_results_are_written_keeps_the_earlier_ones(
    exported_storage: Storage, tmp_path: Path
) -> None:
    with (
        small_disk(tmp_path / "disk", "300m") as disk,
        running_triton(exported_storage.root, tmp_path / "log") as triton,
    ):
        storage = Storage(disk / "storage")
        shutil.copytree(exported_storage.root, storage.root, symlinks=True)
        succeeded(run_main(client.main, *check(storage, triton)))
        before = storage.latest_results.resolve()
        results = json.loads((before / "results.json").read_text())
        fill(disk, 16 << 10)
        message = refusal(run_main(client.main, *check(storage, triton)))
        assert "the disk is full: free some space" in message, "what to do"
        assert storage.latest_results.resolve() == before, "the latest results are the earlier ones"
        assert json.loads((before / "results.json").read_text()) == results, "and whole"
        (disk / "filler").unlink()
        succeeded(run_main(client.main, *check(storage, triton)))
        assert last_finished(storage, "client") is not None, "with space again, it goes on"
