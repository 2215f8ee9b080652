"""The one secret, the registry's password: encrypted or not there at all, and never shown."""

import json
import shlex
from pathlib import Path

import pytest

import stack as stack_tool
from pipeline.encryption import check_passphrase
from pipeline.errors import ConfigurationError
from tests.declared import Declared, declare
from tests.unit.test_settings import refused, settings

PASSWORD = "hunter2"
PRIVATE = {"registry": "registry.example.org/team", "registryUser": "me", "registryPassword": PASSWORD}


@pytest.fixture
def private(monkeypatch: pytest.MonkeyPatch) -> Declared:
    return declare(monkeypatch, None, operatorsGroup="ops", **PRIVATE)


def test_the_password_is_encrypted_wherever_it_is_and_is_where_it_is_needed_alone(private: Declared) -> None:
    holders = {
        (name, key)
        for name, inputs in private.inputs.items()
        for key, value in inputs.items()
        if PASSWORD in json.dumps(value, default=str)
    }
    images = {(f"images-{image}", "registry") for image in ("tr-ex-job", "client-job", "triton")}
    assert holders == {("workspace-pull-secret", "stringData"), *images}, "no pod, no command line, no label has it"
    assert holders <= private.secrets, "Pulumi must encrypt it in the state and hide it in what it prints"


def test_the_password_is_in_no_output(private: Declared) -> None:
    assert PASSWORD not in json.dumps(private.outputs, default=str), "outputs are printed by every `up`"


def test_settings_do_not_show_the_password() -> None:
    loaded = settings(**PRIVATE)
    assert PASSWORD not in f"{loaded!r} {loaded} {loaded.model_dump_json()}", "a traceback or a log may hold them"


def test_a_refusal_does_not_show_the_password() -> None:
    assert PASSWORD not in refused(registryPassword=PASSWORD), "registryUser is missing; that is all there is to say"
    assert PASSWORD not in refused(**PRIVATE, tritonReplicas="0"), "another setting is wrong"


@pytest.mark.parametrize(
    "environment",
    [
        {"PULUMI_CONFIG_PASSPHRASE": "correct horse"},
        {"PULUMI_CONFIG_PASSPHRASE": "", "PULUMI_CONFIG_PASSPHRASE_FILE": "/run/passphrase"},
        {},
    ],
)
def test_a_secret_with_a_passphrase_is_taken(tmp_path: Path, environment: dict[str, str]) -> None:
    stack_file = tmp_path / "Pulumi.dev.yaml"
    stack_file.write_text("encryptionsalt: v1:salt\n")
    check_passphrase("registryPassword", stack_file, environment)


def test_a_secret_with_an_empty_passphrase_is_refused_with_the_way_out(tmp_path: Path) -> None:
    stack_file = tmp_path / "Pulumi.dev.yaml"
    stack_file.write_text("encryptionsalt: v1:salt\n")
    with pytest.raises(ConfigurationError, match="change-secrets-provider passphrase"):
        check_passphrase("registryPassword", stack_file, {"PULUMI_CONFIG_PASSPHRASE": ""})


def test_another_secrets_provider_needs_no_passphrase(tmp_path: Path) -> None:
    stack_file = tmp_path / "Pulumi.dev.yaml"
    stack_file.write_text("secretsprovider: awskms://alias/pulumi\nencryptedkey: key\n")
    check_passphrase("registryPassword", stack_file, {"PULUMI_CONFIG_PASSPHRASE": ""})
    check_passphrase("registryPassword", tmp_path / "Pulumi.none.yaml", {"PULUMI_CONFIG_PASSPHRASE": ""})


def test_make_env_does_not_print_the_users_passphrase(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "correct horse")
    monkeypatch.delenv("PULUMI_CONFIG_PASSPHRASE_FILE", raising=False)
    assert stack_tool.env("dev") == 0
    printed = capsys.readouterr().out
    assert "PATH=" in printed, "what the shell lacks is printed"
    assert shlex.quote("correct horse") not in printed, "the shell has it already"
