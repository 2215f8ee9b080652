"""What holds for any input: a right result or one error of ours, and no path that leads out of the storage."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import export
import report
from mnist.data import MANIFEST, read_manifest
from mnist.errors import DataError, ModelError
from mnist.repository import METADATA_FILE, PREDICTIONS_FILE, ModelRepository
from mnist.storage import Storage
from pipeline.errors import ConfigurationError
from pipeline.settings import ROOT, Settings, load_settings
from pipeline.stages import STAGES
from tests.support import refusal, run_main
from tests.unit.test_repository import METADATA
from tests.unit.test_settings import defaults

DEFAULTS = defaults()
KEYS = sorted(key.removeprefix("mnist:") for key in DEFAULTS)
TEXTS = st.text() | st.sampled_from(
    ["../..", "/", "~", ".", "..", "a/../../b", "%2e%2e", "a\0b", "[", '["../x"]', "{model}"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
shared_directory = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
slow = settings(shared_directory, max_examples=40)  # each runs a stage


def loaded(**changes: str) -> Settings | str:
    """The settings with these changes, or the line that refuses them."""
    try:
        return load_settings({**DEFAULTS, **{f"mnist:{key}": text for key, text in changes.items()}}, {})
    except ConfigurationError as error:
        return str(error)


@given(key=st.sampled_from(KEYS), text=TEXTS)
def test_any_text_for_any_setting_is_taken_or_refused_with_its_key(key: str, text: str) -> None:
    result = loaded(**{key: text})
    if isinstance(result, str):
        assert key in result, "which one is wrong"
        assert len(result.splitlines()) == 1, "one line"


@given(key=st.text().filter(lambda key: key not in KEYS), text=TEXTS)
def test_any_other_key_is_refused_in_one_line(key: str, text: str) -> None:
    result = loaded(**{key: text})
    assert isinstance(result, str) and "is not a setting" in result, "a slip is not ignored"
    assert len(result.splitlines()) == 1, "whatever the key holds"


@given(text=TEXTS, user=st.sampled_from(["", "me"]))
def test_no_password_is_ever_shown(text: str, user: str) -> None:
    result = loaded(registryPassword=f"hunter2{text}", registryUser=user)
    assert "hunter2" not in repr(result), "neither by an error nor by the settings"


@given(
    name=TEXTS | st.from_regex(r"[A-Za-z0-9_-]{1,70}", fullmatch=True),
    directory=TEXTS,
    stack=st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True),
)
def test_what_the_stages_make_lies_below_the_storage(name: str, directory: str, stack: str) -> None:
    chosen = loaded(modelName=name, storageDir=directory)
    if isinstance(chosen, str):
        return
    root = chosen.storage_path(stack)
    assert root.is_absolute(), "wherever one stands"
    assert directory or root == ROOT / "storage" / stack, "a stack has its own"
    made = [root / path.format(model=chosen.model_name) for stage in STAGES for path in stage.produces]
    made += [ModelRepository(Storage(root).models, chosen.model_name).version_directory(1)]
    outside = [path for path in made if not Path(path).resolve().is_relative_to(root.resolve())]
    assert outside == [], "nothing leads out of it"


@given(name=TEXTS | st.from_regex(r"[A-Za-z0-9_-]{1,70}", fullmatch=True))
def test_settings_and_stages_accept_the_same_model_names(name: str) -> None:
    try:
        accepted = ModelRepository(Path("models"), name).directory == Path("models", name)
    except ModelError:
        accepted = False
    assert accepted == isinstance(loaded(modelName=name), Settings), "what is deployed can be run"


@slow
@given(name=TEXTS, stage=st.sampled_from([export.main, report.main]))
def test_a_stage_writes_nothing_outside_its_storage(tmp_path: Path, name: str, stage: Any) -> None:
    root = tmp_path / "around" / "storage"
    refusal(run_main(stage, f"--storage={root}", f"--model-name={name}"))
    assert [path.name for path in (tmp_path / "around").iterdir()] == ["storage"], "whatever the name"
    assert [path.name for path in tmp_path.iterdir()] == ["around"], "whatever the name"


@shared_directory
@given(content=JSON | st.fixed_dictionaries(dict.fromkeys(["dataset", "source", "sha256"], JSON)) | st.binary())
def test_a_manifest_of_others_is_refused(tmp_path: Path, content: Any) -> None:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    (tmp_path / MANIFEST).write_bytes(raw)
    with pytest.raises(DataError, match="is damaged: remove it"):
        read_manifest(tmp_path)


@shared_directory
@given(field=st.sampled_from(sorted(vars(METADATA))), value=JSON)
def test_metadata_are_of_their_types_or_refused(tmp_path: Path, field: str, value: Any) -> None:
    repository = ModelRepository(tmp_path, "digits")
    repository.version_directory(1).mkdir(parents=True, exist_ok=True)
    content = json.dumps({**vars(METADATA), field: value})
    (repository.version_directory(1) / METADATA_FILE).write_text(content, encoding="utf-8")
    try:
        metadata = repository.metadata(1)
    except ModelError:
        return
    assert isinstance(getattr(metadata, field), (type(getattr(METADATA, field)), int)), "what is compared is comparable"
    assert 0 <= metadata.accuracy <= 1, "and a share"


@shared_directory
@given(content=st.binary(), header=st.text(max_size=60), whole=st.booleans())
def test_predictions_of_others_are_refused(tmp_path: Path, content: bytes, header: str, whole: bool) -> None:
    repository = ModelRepository(tmp_path, "digits")
    repository.version_directory(1).mkdir(parents=True, exist_ok=True)
    text = header.encode()
    array = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content
    (repository.version_directory(1) / PREDICTIONS_FILE).write_bytes(array if whole else content)
    with pytest.raises(ModelError, match="is missing or damaged"):
        repository.predictions(1)
