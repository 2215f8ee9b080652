"""Each stage's script understands what the program tells it."""

import importlib

import pytest

from pipeline.stages import STAGES, Stage
from tests.unit.test_settings import local


@pytest.mark.parametrize("stage", STAGES, ids=[stage.name for stage in STAGES])
def test_each_script_understands_the_arguments_it_is_given(stage: Stage) -> None:
    script = importlib.import_module(stage.script.removesuffix(".py").replace("/", "."))
    options = {"storage": "/storage", **stage.arguments(local(datasetDir="/data", datasetUrl="http://host/x"))}
    if stage.calls is not None:
        options["endpoint"] = "localhost:8001"
    parsed = vars(script.parser().parse_args([f"--{key}={value}" for key, value in options.items()]))
    assert {key.replace("-", "_") for key in options} <= set(parsed), "every option is one the script knows"
