"""The pages in docs/ name files and tests that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").rglob("*.md")))


FIELDS = {"test_digest", "test_images"}  # of metadata.json


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", PAGES)) - FIELDS))
def test_a_test_that_a_page_names_exists(name: str) -> None:
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert any(f"def {name}(" in source for source in sources), "a page would claim what nothing tests"


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:infra|tests|tools|workloads)/[^`]+)`", PAGES))))
def test_a_file_that_a_page_names_exists(name: str) -> None:
    assert list(ROOT.glob(re.sub(r"<\w+>", "*", name))), "whoever looks it up finds nothing"


@pytest.mark.parametrize(
    "page", sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]), ids=lambda page: page.name
)
def test_every_link_to_a_file_leads_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert broken == [], "whoever follows it finds nothing"
