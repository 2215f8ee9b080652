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


def test_a_registry_password_is_never_shown() -> None:
    assert "hunter2" not in refused(registryPassword="hunter2"), "not in an error"
    loaded = settings(registryUser="me", registryPassword="hunter2")
    assert "hunter2" not in repr(loaded), "nor where the settings are printed"


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
