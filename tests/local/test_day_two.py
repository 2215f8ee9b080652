"""Stack local after its first day: interrupted runs, versions, and going back.

The tests of this file run in order on one stack: each goes on from what the one before left.
"""

import functools
import shutil

import pytest
from tests.checkout import WITHOUT_SETUP, Checkout, Done, interrupt, wait_until
from tests.docs.pages import blocks_to_run, run
from tests.faults import ruin

from pipeline.stages import STAGES, Stage

QUICK = {"dataset": "digits", "epochs": 2, "batchSize": 64, "minAccuracy": "0.3", "keepData": "true"}


def runs_of(checkout: Checkout, stage: Stage) -> bool:
    lines = (" ".join(process.info["cmdline"] or []) for process in checkout.processes())
    return any(f"workloads/{stage.script}" in line for line in lines)


def finished(checkout: Checkout, stage: str) -> int:
    return sum(event["event"] == "finished" for event in checkout.events(stage))


def up(checkout: Checkout, **settings: object) -> Done:
    checkout.configure(**QUICK | settings)
    return checkout.run("up")


def versions(checkout: Checkout) -> list[str]:
    """The rows of `make versions`, below its heading."""
    done = checkout.tool("versions", "versions")
    assert done.status == 0, done.output
    return [line.strip() for line in done.output.strip().splitlines()[2:]]


def test_an_up_interrupted_at_every_stage_goes_on_without_repeating_any(checkout: Checkout) -> None:
    checkout.configure(**QUICK)
    for stage in STAGES:
        process = checkout.start("up")
        wait_until(functools.partial(runs_of, checkout, stage), 600, f"{stage.name} runs")
        interrupt(process)
        output, _ = process.communicate(timeout=60)
        assert process.returncode != 0, f"interrupted at {stage.name}, it is no success:\n{output}"
        assert "Traceback" not in output, f"at {stage.name}:\n{output}"
    done = checkout.run("up")
    assert done.status == 0, done.output
    for stage in STAGES:
        if stage.kind == "job":
            assert finished(checkout, stage.name) == 1, f"{stage.name} must not be repeated once it has finished"
    assert checkout.results()["verdict"] == "passed", "the pipeline is whole"


def test_a_better_model_becomes_the_next_version(checkout: Checkout) -> None:
    done = up(checkout, epochs=3)
    assert done.status == 0, done.output
    assert checkout.results()["served_version"] == 2, "more training is better"
    second, first = versions(checkout)
    assert second.startswith("2 ") and second.endswith("served"), second
    assert first.startswith("1 ") and not first.endswith("served"), first
    for row in (second, first):
        assert all(text in row for text in ("0.", "fp32", "digits", "checkpoints/")), f"each fact is listed: {row}"


@pytest.mark.parametrize(("way", "served"), [("back", 1), ("forth", 2)])
def test_one_up_goes_back_to_a_kept_version_and_forth_again(checkout: Checkout, way: str, served: int) -> None:
    """With the commands of the page on it, as they stand."""
    trained = finished(checkout, "train")
    listing, back, forth = blocks_to_run("docs/how-to/roll-back.md")
    printed = run([listing, back if way == "back" else forth], checkout.root, WITHOUT_SETUP)
    assert "source" in printed and "served" in printed, f"the versions are listed: {printed}"
    assert checkout.results()["served_version"] == served, "what was asked for"
    assert checkout.results()["equal_to_pytorch"] == 359, "and it is that version's model"
    assert finished(checkout, "train") == trained, "nothing is trained for it"


def test_a_version_that_does_not_exist_is_refused_with_those_that_do(checkout: Checkout) -> None:
    done = up(checkout, epochs=3, servedVersion=7)
    assert done.status != 0, "there is no version 7"
    assert "servedVersion 7 does not exist; published versions: 1, 2" in done, done.output
    assert up(checkout, epochs=3).status == 0, "with the setting right again, up goes on"


def test_a_bad_version_is_rolled_back_by_itself_and_up_still_fails(checkout: Checkout) -> None:
    """Version 3 is ruined between its publishing and its serving."""
    assert up(checkout, epochs=14, runThrough="export").status == 0, "it trains and publishes"
    assert len(versions(checkout)) == 3, "a better one still"
    ruin(checkout.storage / "models/resnet18_mnist/3")
    done = up(checkout, epochs=14, autoRollback="true")
    assert done.status != 0, "a rollback is no success"
    assert "is below minAccuracy 0.3; rolled back: version 2, the last good one, is served again" in done, done.output
    third, second, _ = versions(checkout)
    assert third.endswith("rolled back") and second.endswith("served"), [third, second]
    done = up(checkout, epochs=14, autoRollback="true")
    assert done.status == 0, done.output
    assert "version 2 is served, version 3 is newer" in done, "it stays visible"


def test_runs_under_a_clock_that_went_back_overwrite_nothing(checkout: Checkout) -> None:
    """What lies there was written later than now, as far as the clock knows."""
    results = checkout.storage / "results"
    latest = (results / "latest").resolve()
    future = results / "29991231-235959"
    latest.rename(future)
    (results / "latest").unlink()
    (results / "latest").symlink_to(future.name)
    before = (future / "results.json").read_bytes()
    checkout.edit("workloads/client.py", lambda code: code + "# changed\n")
    assert checkout.run("up").status == 0, "the client runs again"
    assert (future / "results.json").read_bytes() == before, "the earlier results stay as they were"
    assert (results / "latest").resolve() != future, "the latest are the ones written last"
    shutil.rmtree(future)
