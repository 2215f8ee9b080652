"""Every command in README.md, CONTRIBUTING.md and docs/ is run by a test, or says what it needs.

A block of commands (```sh, or without a language) or of Python is one of these:

- in a page that a test runs as it stands (RUN_AS_THEY_STAND);
- made of commands that a test of another name runs (RUN_BY);
- preceded by a line `<!-- needs: a cluster -->`, with what it needs and no test has;
- preceded by a line `<!-- not commands -->`, where it only shows something. Other languages (```text) show, too.
"""

import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, PYTHON, Block, blocks, blocks_to_run
from tests.support import ROOT

RUN_AS_THEY_STAND = {
    "docs/how-to/change-the-model.md": "test_another_model_is_trained_and_exported_as_the_page_says",
    "docs/how-to/http-client.md": "test_the_page_on_curl_works_as_it_stands",
    "docs/how-to/python-client.md": "test_the_page_on_python_clients_works_as_it_stands",
    "docs/how-to/use-your-own-data.md": "test_the_page_on_own_data_works_as_it_stands",
    "docs/how-to/roll-back.md": "test_one_up_goes_back_to_a_kept_version_and_forth_again",
}
RUN_BY = {
    "make up": "test_the_page_on_own_data_works_as_it_stands",
    "make report": "test_the_page_on_own_data_works_as_it_stands",
    "make output": "test_the_endpoint_is_printed_alone_and_answers",
    "make play": "test_a_drawn_one_gets_ten_probabilities_from_the_served_version",
    "make down": "test_down_stops_everything_and_removes_the_storage",
    "export ENDPOINT=$(make output)": "test_the_endpoint_is_printed_alone_and_answers",
    "export ENDPOINT=$(pulumi stack output triton_http_endpoint -s local)": (
        "test_the_endpoint_is_printed_alone_and_answers"
    ),
    'eval "$(make env)"': "test_the_page_on_own_data_works_as_it_stands",
    # These run the tests themselves, this one among them.
    "make lint": "test_the_commands_run_by_tests_elsewhere_are_what_make_runs",
    "make test": "test_the_commands_run_by_tests_elsewhere_are_what_make_runs",
    ".venv/bin/python -m pytest tests/unit/test_stages.py": "test_the_order_is_the_documented_one",
    ".venv/bin/python -m pytest tests -k diagram": "test_a_diagram_is_what_the_program_declares",
}
# What the tests that are named above run in place of `make`.
MAKES = {
    "up": "tools/stack.py up local",
    "output": "tools/stack.py output local",
    "down": "tools/stack.py down local",
    "play": ".venv/bin/python -m play local",
    "lint": ".venv/bin/mypy",
    "test": "-m pytest tests --ignore tests/cluster",
}
ALL = [block for path in PAGES for block in blocks(path)]
WAYS = (
    "have a test run the page (RUN_AS_THEY_STAND), name the test that runs the command (RUN_BY, in "
    "tests/docs/test_commands.py), put `<!-- needs: … -->` with what it needs before the block, "
    "or `<!-- not commands -->` where it is none"
)


@pytest.mark.parametrize("block", [block for block in ALL if block.is_to_run], ids=str)
def test_every_command_is_run_by_a_test_or_says_what_it_needs(block: Block) -> None:
    if block.page in RUN_AS_THEY_STAND and block in blocks_to_run(block.page):
        return
    assert block.language != PYTHON, f"{block}: no test runs this script; {WAYS}"
    unknown = [command for command in block.commands if command not in RUN_BY]
    assert unknown == [], f"{block}: no test runs `{unknown[0]}`; {WAYS}"


@pytest.mark.parametrize("name", sorted({*RUN_AS_THEY_STAND.values(), *RUN_BY.values()}))
def test_the_test_that_is_said_to_run_commands_exists(name: str) -> None:
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert any(f"def {name}(" in source for source in sources), "the list would claim what nothing tests"


@pytest.mark.parametrize("target", MAKES)
def test_the_commands_run_by_tests_elsewhere_are_what_make_runs(target: str) -> None:
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True)
    assert MAKES[target] in done.stdout, "those tests call the tool, not make"


def test_nothing_is_listed_that_no_page_has() -> None:
    found = {command for block in ALL for command in block.commands}
    assert set(RUN_BY) - found == set(), "the list is for commands that readers see"
    assert set(RUN_AS_THEY_STAND) - {block.page for block in ALL} == set(), "and pages that are there"


@pytest.mark.parametrize(
    ("marker", "language", "expected"),
    [
        ("", "sh", True),
        ("", "", True),
        ("", "python", True),
        ("<!-- a remark -->", "sh", True),
        ("", "text", False),
        ("<!-- not commands -->", "", False),
        ("<!-- needs: a cluster -->", "sh", False),
    ],
)
def test_only_marked_blocks_are_let_pass(
    marker: str, language: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.docs.pages.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(f"Text.\n\n{marker}\n```{language}\nrm -rf / # all of it\nls \\\n  -l\n```\n")
    [block] = blocks(page)
    assert block.is_to_run is expected, f"{marker} before {language}"
    assert block.commands == ["rm -rf /", "ls -l"], "one a command, without comments"
    assert str(block) == "page.md:4", "so that it can be found"
