"""What the page needs is listed and installed apart: gradio asks for an older Pillow than the rest has."""

import re
from pathlib import Path

from lock_packages import ROOT
from tests.unit.test_packages import HASH, PINNED, locked, versions

LIST = Path("constraints-play.txt")
REST = [Path("constraints.txt"), Path("constraints-dev.txt")]


def test_every_package_is_pinned_and_has_sums_and_the_list_names_no_server() -> None:
    for line, entry in locked(LIST).items():
        assert PINNED.match(line), f"one version, and no option: {line}"
        hashes = entry.splitlines()[1:]
        assert hashes and all(HASH.match(one) for one in hashes), f"{line} must have its sums and nothing else"
    assert "://" not in (ROOT / LIST).read_text(encoding="utf-8"), "where packages come from is the user's to say"


def test_the_list_holds_what_the_requirements_ask_for() -> None:
    for line in (ROOT / "requirements-play.txt").read_text(encoding="utf-8").splitlines():
        wanted = re.sub(r"\[.*\]", "", line.partition("#")[0].strip())
        found = [version for version in versions(LIST) if version == wanted or version.startswith(f"{wanted}==")]
        assert not wanted or found, f"{line} is not in {LIST}: run `make constraints`"


def test_the_page_calls_triton_with_the_versions_that_the_client_has() -> None:
    rest = dict(version.split("==") for path in REST for version in versions(path))
    page = dict(version.split("==") for version in versions(LIST))
    for package in ("grpcio", "numpy", "protobuf", "tenacity", "tritonclient"):
        assert page[package] == rest[package], f"{package} differs: the tests of the client say nothing about the page"


def test_nothing_of_the_page_is_installed_with_the_rest() -> None:
    assert not [version for path in REST for version in versions(path) if version.startswith("gradio")], (
        "`make up` and `make test` would wait for it"
    )
