"""The table of bad input: whatever it is, it is refused with one clear line, and nothing is lost by it."""

import pytest
from pydantic.alias_generators import to_camel

from pipeline.settings import Settings
from tests.bad_input import checkpoint_cases, data_cases, model_cases, request_cases, settings_cases
from tests.bad_input.case import Bench, Case

CASES = [
    *settings_cases.CASES,
    *data_cases.CASES,
    *checkpoint_cases.CASES,
    *model_cases.CASES,
    *request_cases.CASES,
]
LONGEST_LINE = 700  # characters; Triton's own remarks on batch dimensions are the longest


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_bad_input_is_refused_with_one_clear_line(case: Case, bench: Bench) -> None:
    line = case.provoke(bench)
    assert len(line.splitlines()) == 1 and line.strip(), f"one line: {line!r}"
    assert "Traceback" not in line and len(line) < LONGEST_LINE, f"a line for people: {line!r}"
    for text in case.expected:
        assert text.replace("{root}", str(bench.root)) in line, "it says what is wrong, where, and what to do"
    bench.check_nothing_was_lost()


def test_every_setting_is_in_the_table() -> None:
    settings = {to_camel(name) for name in Settings.model_fields} - {"kubeContext"}  # kubernetes:context
    assert settings - settings_cases.COVERED == set(), "each setting can be wrong, so each must be refused once"


def test_no_two_cases_have_the_same_name() -> None:
    names = [case.name for case in CASES]
    assert sorted({name for name in names if names.count(name) > 1}) == [], "a failure names its case"
