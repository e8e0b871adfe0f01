"""Cells to values: codes, numbers, dates, and what is refused."""

from __future__ import annotations

from datetime import datetime

import pandas as pd
import pytest

from kneeoa_mm.cohort.columns import convert, refuse_unknown_columns
from kneeoa_mm.cohort.sources import parse_cell
from kneeoa_mm.cohort_spec import CohortSpec, ColumnSpec
from kneeoa_mm.errors import ConfigError


def _convert(texts: list[str], name: str, **spec: object):  # type: ignore[no-untyped-def]
    column = ColumnSpec.model_validate({"column": "X", **spec})
    return convert([parse_cell(text) for text in texts], name, column)


def test_codes_become_our_words_and_missing_codes_stay_as_reasons() -> None:
    converted = _convert(["1: Male", "2", "2.0", ".A: Not Expected"], "sex", codes={1: "M", 2: "F"})
    assert converted.values.tolist() == ["M", "F", "F", None]
    assert converted.reasons.tolist() == [None, None, None, ".A: Not Expected"]
    assert converted.problems == {}


def test_a_code_that_means_missing_keeps_itself_as_the_reason() -> None:
    converted = _convert(["3", "9"], "kl_grade", codes={3: 3, 9: None})
    assert converted.values.tolist() == [3, pd.NA]
    assert converted.reasons.tolist() == [None, "code 9"]


def test_an_unknown_code_is_a_problem_at_its_positions() -> None:
    converted = _convert(["1", "3: Both", "2", "3"], "laterality", codes={1: "R", 2: "L"})
    assert converted.problems == {"code 3 is unknown, expected one of 1, 2": [1, 3]}


@pytest.mark.parametrize("grade", ["1.9", "5", "8", "9", "-1"])
def test_impossible_grades_are_problems(grade: str) -> None:
    converted = _convert(["2", grade], "kl_grade")
    [(problem, positions)] = converted.problems.items()
    assert positions == [1]
    assert grade in problem


def test_a_table_in_the_spec_can_map_special_grades() -> None:
    codes = {**{grade: grade for grade in range(5)}, "1.9": 1, "8": None}
    converted = _convert(["1.9", "8", "4"], "kl_grade", codes=codes)
    assert converted.problems == {}
    assert converted.values.tolist() == [1, pd.NA, 4]


@pytest.mark.parametrize("bmi", ["2.9", "290"])
def test_a_body_mass_index_of_the_wrong_scale_is_a_problem(bmi: str) -> None:
    [(problem, positions)] = _convert(["27", bmi], "bmi_kg_m2").problems.items()
    assert positions == [1]
    assert "10 to 80" in problem


@pytest.mark.parametrize("text", ["27,5", "nan", "1_000", "high", "0x1F"])
def test_what_is_no_plain_number_is_a_problem(text: str) -> None:
    assert list(_convert([text], "bmi_kg_m2").problems.values()) == [[0]]


def test_a_factor_turns_units_and_signs() -> None:
    varus_positive = _convert(["2.5", "-4"], "fta_deg", factor=-1)
    assert varus_positive.values.tolist() == [-2.5, 4.0]


def test_dates_are_read_in_either_form() -> None:
    converted = _convert(["03/05/2009", "12/31/08"], "death_date")
    assert converted.values.tolist() == [datetime(2009, 3, 5), datetime(2008, 12, 31)]
    assert list(_convert(["2009-03-05"], "death_date").problems.values()) == [[0]]


def test_the_code_of_the_last_contact_is_never_taken_for_months() -> None:
    codes = {"0": 0, "3": 24, "11": 108}
    assert _convert(["3", "11"], "last_contact_months", codes=codes).values.tolist() == [24, 108]
    [problem] = _convert(["48"], "last_contact_months", codes=codes).problems
    assert "48 is unknown" in problem


def test_a_column_that_we_do_not_have_is_named_with_its_neighbour() -> None:
    spec = CohortSpec.model_validate(
        {
            "name": "tiny",
            "visits": {"V00": 0},
            "tables": {
                "enrollees": {"file": "A.txt", "columns": {"subject_id": "ID", "agge_years": "A"}}
            },
        }
    )
    with pytest.raises(ConfigError, match=r"agge_years: no such column; did you mean age_years"):
        refuse_unknown_columns(spec)
