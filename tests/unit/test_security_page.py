"""docs/security.md names files and tests that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", PAGE))))
def test_a_test_that_the_page_names_exists(name: str) -> None:
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert any(f"def {name}(" in source for source in sources), "the page would claim what nothing tests"


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:infra|tests|tools|workloads)/[^`]+)`", PAGE))))
def test_a_file_that_the_page_names_exists(name: str) -> None:
    assert list(ROOT.glob(name)), "whoever looks it up finds nothing"
