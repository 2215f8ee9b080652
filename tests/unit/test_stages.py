"""The pipeline's order, and what each stage is told."""

from dataclasses import replace

import pytest

from pipeline.stages import STAGES, Stage, stages_through
from tests.support import WORKLOADS
from tests.unit.test_settings import settings

BY_NAME = {stage.name: stage for stage in STAGES}


def test_the_order_is_the_documented_one() -> None:
    order = [stage.name for stage in stages_through("report")]
    assert order == ["prepare-data", "train", "export", "triton", "client", "report"], "the README's diagram"


def test_each_stage_needs_the_one_before_it() -> None:
    needs = {stage.name: stage.needs for stage in STAGES}
    assert needs == {
        "prepare-data": (),
        "train": ("prepare-data",),
        "export": ("train",),
        "triton": ("export",),
        "client": ("triton",),
        "report": ("client",),
    }, "these become depends_on"


@pytest.mark.parametrize("count", range(1, len(STAGES) + 1))
def test_stages_through_stops_after_the_named_stage(count: int) -> None:
    assert stages_through(STAGES[count - 1].name) == STAGES[:count], "that stage and what it needs, nothing after it"


def test_the_order_follows_the_needs_not_the_listing() -> None:
    shuffled = STAGES[::-1]
    assert stages_through("report", shuffled) == STAGES, "needs decide"


def test_a_need_of_two_stages_comes_once_and_first() -> None:
    base = BY_NAME["prepare-data"]
    left, right = replace(base, name="left", needs=("base",)), replace(base, name="right", needs=("base",))
    top = replace(base, name="top", needs=("left", "right"))
    order = [stage.name for stage in stages_through("top", (top, left, right, replace(base, name="base")))]
    assert order == ["base", "left", "right", "top"], "each once, needs before those that need them"


def test_an_unknown_stage_is_an_error() -> None:
    with pytest.raises(KeyError):
        stages_through("deploy")


@pytest.mark.parametrize("stage", STAGES, ids=BY_NAME)
def test_the_files_of_each_stage_exist(stage: Stage) -> None:
    missing = [name for name in (stage.script, *stage.other_code) if not (WORKLOADS / name).is_file()]
    assert missing == [], "what a stage names is there"


@pytest.mark.parametrize(
    ("key", "value", "changed"),
    [
        ("batchSize", "64", {"train"}),
        ("seed", "7", {"train"}),
        ("servedVersion", "3", {"export"}),
        ("minAccuracy", "0.5", {"export", "client"}),
        ("maxLatencyMs", "20", {"client"}),
        ("dataset", "digits", {"prepare-data"}),
        ("keepData", "true", set()),
        ("stageTimeoutMinutes", "5", set()),
    ],
)
def test_a_setting_changes_only_the_stages_it_concerns(key: str, value: str, changed: set[str]) -> None:
    before, after = settings(), settings(**{key: value})
    differing = {stage.name for stage in STAGES if stage.arguments(before) != stage.arguments(after)}
    assert differing == changed, "those run again, with what follows them"
