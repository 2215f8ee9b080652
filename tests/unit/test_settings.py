"""The one reader of configuration: what it takes, and how it refuses what is wrong."""

from pathlib import Path

import pytest
import yaml
from pydantic.alias_generators import to_camel

from pipeline.errors import ConfigurationError
from pipeline.settings import ROOT, Settings, load_settings


def defaults() -> dict[str, str]:
    """Pulumi.yaml's defaults, as text: what Pulumi hands to the program on a stack that sets nothing."""
    schema = yaml.safe_load((ROOT / "Pulumi.yaml").read_text(encoding="utf-8"))["config"]
    values = {key: entry["default"] for key, entry in schema.items()}
    return {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in values.items()}


def settings(**changes: str) -> Settings:
    return load_settings({**defaults(), **{f"mnist:{key}": value for key, value in changes.items()}}, {})


def local(**changes: str) -> Settings:
    return settings(platform="local", **changes)


def refused(**changes: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        settings(**changes)
    return str(caught.value)


def test_the_defaults_are_valid() -> None:
    loaded = settings()
    assert (loaded.platform, loaded.dataset, loaded.run_through) == ("kubernetes", "mnist", "report"), "as documented"
    assert loaded.min_accuracy == 0.97, "numbers are read from text"
    assert loaded.keep_data is False, "booleans are read from text"


def test_pulumi_yaml_and_the_settings_name_the_same_keys() -> None:
    named = {key.removeprefix("mnist:") for key in defaults()}
    fields = {to_camel(name) for name in Settings.model_fields} - {"kubeContext"}  # kubernetes:context
    assert named - fields == set(), "every key of Pulumi.yaml is read"
    assert fields - named == set(), "every setting has a default in Pulumi.yaml"


def test_every_key_of_pulumi_yaml_says_what_it_is_for() -> None:
    schema = yaml.safe_load((ROOT / "Pulumi.yaml").read_text(encoding="utf-8"))["config"]
    silent = [key for key, entry in schema.items() if not entry.get("description")]
    assert silent == [], "a setting without a description cannot be used"


@pytest.mark.parametrize(
    ("key", "value", "accepted"),
    [
        ("namespace", "Job_NS", "match pattern"),
        ("registry", "http://localhost:5000", "match pattern"),
        ("tritonReplicas", "0", "greater than or equal to 1"),
        ("trainMemory", "4 GB", "match pattern"),
        ("serviceType", "Ingress", "'ClusterIP', 'NodePort' or 'LoadBalancer'"),
        ("platform", "docker", "'kubernetes' or 'local'"),
        ("runThrough", "deploy", "prepare-data, train, export, triton, client, report"),
        ("dataset", "fashion", "'mnist', 'digits', 'custom' or 'auto'"),
        ("datasetDir", "a\nb", "control characters"),
        ("datasetDir", "~no-such-user/mnist", "home directory"),
        ("datasetUrl", "ftp://example.org", "https?://"),
        ("epochs", "-1", "greater than or equal to 0"),
        ("epochs", "1001", "less than or equal to 1000"),
        ("epochs", "many", "valid integer"),
        ("epochs", "1.5", "valid integer"),
        ("epochs", "", "valid integer"),
        ("batchSize", "1", "greater than or equal to 2"),
        ("batchSize", "8193", "less than or equal to 8192"),
        ("learningRate", "0", "greater than 0"),
        ("learningRate", "1.5", "less than or equal to 1"),
        ("learningRate", "nan", "finite number"),
        ("seed", "-1", "greater than or equal to 0"),
        ("seed", str(2**31), f"less than or equal to {2**31 - 1}"),
        ("targetAccuracy", "1.01", "less than or equal to 1"),
        ("checkpointEvery", "0", "greater than or equal to 1"),
        ("modelName", "../outside", "match pattern"),
        ("modelName", "", "match pattern"),
        ("modelName", "two words", "match pattern"),
        ("minAccuracy", "97", "less than or equal to 1"),
        ("minAccuracy", "97%", "valid number"),
        ("minAccuracy", "-0.1", "greater than or equal to 0"),
        ("keepVersions", "0", "greater than or equal to 1"),
        ("servedVersion", "-1", "greater than or equal to 0"),
        ("tritonCpus", "-1", "greater than or equal to 0"),
        ("queueDelayMicroseconds", "1000001", "less than or equal to 1000000"),
        ("maxLatencyMs", "inf", "finite number"),
        ("maxLatencyMs", "-1", "greater than or equal to 0"),
        ("storageDir", "a\tb", "control characters"),
        ("storageDir", "~no-such-user/storage", "home directory"),
        ("keepData", "maybe", "valid boolean"),
        ("stageTimeoutMinutes", "0", "greater than or equal to 1"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key_and_what_is_accepted(key: str, value: str, accepted: str) -> None:
    message = refused(**{key: value})
    assert f"mnist:{key} is {value!r}" in message, "key and value are named"
    assert accepted in message, "what is accepted is named"
    assert "\n" not in message, "one line"


def test_all_wrong_values_are_named_at_once() -> None:
    message = refused(epochs="x", seed="y")
    assert "mnist:epochs is 'x'" in message, "the first one is named"
    assert "mnist:seed is 'y'" in message, "one need not run again to learn of the second"


@pytest.mark.parametrize(
    ("key", "meant"), [("epoch", "epochs"), ("batchsize", "batchSize"), ("batch_size", "batchSize")]
)
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(key: str, meant: str) -> None:
    message = refused(**{key: "1"})
    assert f"mnist:{key} is not a setting; did you mean mnist:{meant}?" in message, "a slip is mended, not ignored"


def test_an_unknown_key_like_no_other_points_to_the_list() -> None:
    assert "mnist:qqq is not a setting; Pulumi.yaml lists the settings" in refused(qqq="1"), "says where to look"


def test_a_missing_default_is_named() -> None:
    config = defaults()
    del config["mnist:epochs"]
    with pytest.raises(ConfigurationError, match="mnist:epochs is not set"):
        load_settings(config, {})


def test_other_namespaces_are_left_alone() -> None:
    loaded = load_settings({**defaults(), "kubernetes:context": "minikube", "aws:epochs": "many"}, {})
    assert loaded.epochs == 0, "only mnist: keys are this project's"


def test_mnist_dir_is_the_default_of_dataset_dir() -> None:
    config = {**defaults(), "mnist:platform": "local"}
    assert load_settings(config, {"MNIST_DIR": "/data/mnist"}).dataset_dir == "/data/mnist", "taken when unset"


def test_mnist_dir_is_not_for_pods() -> None:
    assert load_settings(defaults(), {"MNIST_DIR": "/data/mnist"}).dataset_dir == "", "they cannot read this machine"
    assert "use datasetUrl" in refused(datasetDir="/data/mnist"), "the way out is named"


def test_dataset_dir_wins_over_mnist_dir() -> None:
    config = {**defaults(), "mnist:platform": "local", "mnist:datasetDir": "/mine"}
    assert load_settings(config, {"MNIST_DIR": "/data/mnist"}).dataset_dir == "/mine", "configuration comes first"


def test_the_context_is_kubernetes_own_key() -> None:
    loaded = load_settings({**defaults(), "kubernetes:context": "minikube"}, {})
    assert loaded.kube_context == "minikube", "as Pulumi's provider has it"


def test_lists_are_read_as_pulumi_hands_them_over() -> None:
    loaded = settings(buildArgs='["TORCH_BACKEND=cpu", "A=b=c"]', clientNamespaces='["apps"]')
    assert loaded.build_args == ("TORCH_BACKEND=cpu", "A=b=c"), "JSON"
    assert "mnist:buildArgs" in refused(buildArgs='["no-value"]'), "an entry without = is refused"


def test_a_registry_password_is_never_shown() -> None:
    assert "hunter2" not in refused(registryPassword="hunter2"), "not in an error"
    loaded = settings(registryUser="me", registryPassword="hunter2")
    assert "hunter2" not in repr(loaded), "nor where the settings are printed"


def test_custom_needs_a_source() -> None:
    message = refused(dataset="custom")
    assert "datasetDir" in message, "one way out is named"
    assert "datasetUrl" in message, "the other way out is named"


@pytest.mark.parametrize("source", [{"datasetDir": "/mine"}, {"datasetUrl": "https://example.org/mnist"}])
def test_custom_with_a_source_is_accepted(source: dict[str, str]) -> None:
    assert local(dataset="custom", **source).dataset == "custom", "either source will do"


def test_relative_paths_count_from_the_root_of_the_project() -> None:
    loaded = local(storageDir="elsewhere", datasetDir="../mnist")
    assert loaded.storage_path("local") == ROOT / "elsewhere", "not from where one stands"
    assert loaded.dataset_path() == ROOT.parent / "mnist", "not from where one stands"


def test_each_stack_has_its_own_storage() -> None:
    assert settings().storage_path("one") == ROOT / "storage" / "one", "two stacks do not share a storage"


def test_an_absolute_storage_stays_as_it_is(tmp_path: Path) -> None:
    assert settings(storageDir=str(tmp_path)).storage_path("local") == tmp_path, "absolute paths are kept"


def test_without_a_dataset_dir_there_is_no_path() -> None:
    assert settings().dataset_path() is None, "then the mirrors are asked"
