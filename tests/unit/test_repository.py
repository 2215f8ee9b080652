"""The model repository: versions, which one is served, and the configuration Triton reads."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from mnist.errors import ModelError
from mnist.repository import MODEL_FILE, Metadata, ModelRepository, ServingConfig, render_config

METADATA = Metadata(
    export_date="2026-01-01T00:00:00+00:00",
    accuracy=0.99,
    source_model="checkpoints/one/checkpoint.pth",
    dataset="mnist",
    test_digest="d",
    test_images=10000,
    precision="fp32",
    opset=17,
    ir_version=8,
    sha256="s",
    bytes=1,
    parity={"max_absolute_difference": 0.0, "equal_predictions": 1.0},
    versions={"torch": "2"},
)
SERVING = ServingConfig(cpus=3)


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    return ModelRepository(tmp_path / "models", "digits")


def publish(repository: ModelRepository, **changes: Any) -> int:
    staging = repository.staging()
    (staging / MODEL_FILE).write_bytes(b"model")
    return repository.publish(staging, replace(METADATA, **changes))


def parsed(version: int | None, serving: ServingConfig = SERVING) -> Any:
    return text_format.Parse(render_config("digits", version, serving), model_config_pb2.ModelConfig())


def test_nothing_is_published_at_first(repository: ModelRepository) -> None:
    assert repository.versions() == [], "no directory, no versions"
    assert repository.served() is None, "nothing to serve"


def test_versions_count_up_and_the_newest_is_served(repository: ModelRepository) -> None:
    assert [publish(repository, accuracy=accuracy) for accuracy in (0.97, 0.98)] == [1, 2], "one after the other"
    repository.serve(None, SERVING)
    assert repository.served() == 2, "the newest"
    assert repository.metadata(1).accuracy == 0.97, "each keeps its metadata"


def test_versions_sort_as_numbers(repository: ModelRepository) -> None:
    for version in ("1", "9", "10"):
        (repository.directory / version).mkdir(parents=True)
    assert repository.versions() == [1, 9, 10], "10 comes after 9"
    assert publish(repository) == 11, "the next one"


def test_other_names_are_no_versions(repository: ModelRepository) -> None:
    publish(repository)
    for name in ("0", "01", "1.old", ".staging-x"):
        (repository.directory / name).mkdir()
    assert repository.versions() == [1], "neither Triton nor we take them for one"


def test_a_pinned_version_is_served(repository: ModelRepository) -> None:
    publish(repository)
    publish(repository)
    repository.serve(1, SERVING)
    assert repository.served() == 1, "the configuration names it"
    repository.serve(None, SERVING)
    assert repository.served() == 2, "back to the newest"


def test_a_pinned_version_that_is_gone_gives_way_to_the_newest(repository: ModelRepository) -> None:
    publish(repository)
    repository.serve(7, SERVING)
    assert repository.served() == 1, "what is not there cannot be served"


def test_pruning_removes_the_oldest(repository: ModelRepository) -> None:
    for _ in range(4):
        publish(repository)
    repository.serve(None, SERVING)
    assert repository.prune(keep=2) == [1, 2], "says what it removed"
    assert repository.versions() == [3, 4], "the newest stay"
    assert repository.prune(keep=2) == [], "nothing more to do"


def test_pruning_never_removes_the_served_version(repository: ModelRepository) -> None:
    for _ in range(4):
        publish(repository)
    repository.serve(1, SERVING)
    assert repository.prune(keep=1) == [2, 3, 4], "the others go"
    assert repository.versions() == [1], "what is served stays"


def test_what_a_killed_export_left_is_cleared_away(repository: ModelRepository) -> None:
    left_over = repository.staging()
    staging = repository.staging()
    assert not left_over.exists(), "it would fill the disk over time"
    assert staging.stat().st_mode & 0o055 == 0o055, "Triton may run as another user"


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"accuracy": 1}', json.dumps({**asdict(METADATA), "more": 1}).encode()],
)
def test_damaged_metadata_are_named(repository: ModelRepository, damage: bytes) -> None:
    publish(repository)
    path = repository.version_directory(1) / "metadata.json"
    path.write_bytes(damage)
    with pytest.raises(ModelError, match=f"{path} is missing or damaged: remove version 1"):
        repository.metadata(1)


def test_a_damaged_configuration_pins_nothing(repository: ModelRepository) -> None:
    publish(repository)
    repository.config_path.write_bytes(b"\xff\xfe\x00")
    assert repository.served() == 1, "it is written anew by the next export"


def test_the_configuration_is_what_the_contract_says() -> None:
    config = parsed(None)
    assert (config.name, config.platform, config.max_batch_size) == ("digits", "onnxruntime_onnx", 16), "the interface"
    tensors = [(t.name, t.data_type, list(t.dims)) for t in (config.input[0], config.output[0])]
    fp32 = model_config_pb2.TYPE_FP32
    assert tensors == [("input", fp32, [1, 28, 28]), ("output", fp32, [10])], "pixels in, logits out"
    assert config.HasField("dynamic_batching"), "requests are brought together"
    assert config.optimization.input_pinned_memory.enable, "pinned input memory"
    assert config.optimization.output_pinned_memory.enable, "pinned output memory"


@pytest.mark.parametrize("cpus", [1, 2, 7])
def test_instances_times_threads_are_the_cpus(cpus: int) -> None:
    config = parsed(None, ServingConfig(cpus=cpus))
    (group,) = config.instance_group
    threads = int(config.parameters["intra_op_thread_count"].string_value)
    assert group.kind == model_config_pb2.ModelInstanceGroup.KIND_CPU, "on the CPU"
    assert group.count * threads == cpus, "no core idle, none oversubscribed"


def test_settings_reach_the_configuration() -> None:
    config = parsed(None, ServingConfig(cpus=1, queue_delay_us=250, pinned_memory=False))
    assert config.dynamic_batching.max_queue_delay_microseconds == 250, "the queue's delay"
    assert not config.optimization.input_pinned_memory.enable, "pinned memory"


def test_warm_up_covers_the_smallest_and_the_largest_batch() -> None:
    assert [warmup.batch_size for warmup in parsed(None).model_warmup] == [1, 16], "ready means fast"


def test_the_version_policy_is_the_newest_or_the_pinned_one() -> None:
    assert parsed(None).version_policy.latest.num_versions == 1, "the newest"
    assert list(parsed(4).version_policy.specific.versions) == [4], "the pinned one"
