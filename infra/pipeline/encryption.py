"""A secret in the configuration is only as safe as the passphrase it is encrypted with."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import ConfigurationError


def check_passphrase(setting: str, stack_file: Path, environment: Mapping[str, str]) -> None:
    """Refuse secrets that anybody can decrypt. `make up` sets an empty passphrase where the user set none.

    Args:
        setting: The secret's name.
        stack_file: Pulumi.<stack>.yaml; it holds a salt if its secrets are encrypted with a passphrase.

    Raises:
        ConfigurationError: the passphrase is empty.
    """
    with_passphrase = stack_file.is_file() and "encryptionsalt:" in stack_file.read_text(encoding="utf-8")
    empty = environment.get("PULUMI_CONFIG_PASSPHRASE") == "" and not environment.get("PULUMI_CONFIG_PASSPHRASE_FILE")
    if with_passphrase and empty:
        raise ConfigurationError(
            f"mnist:{setting} is encrypted with an empty passphrase, anybody can read it: "
            "run `pulumi stack change-secrets-provider passphrase`, then set PULUMI_CONFIG_PASSPHRASE or "
            "PULUMI_CONFIG_PASSPHRASE_FILE"
        )
