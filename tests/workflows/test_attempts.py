"""A stage that the data do not allow leaves the others alone, and the report says why."""

from __future__ import annotations

import pytest

from kneeoa_mm.analysis.report import report
from kneeoa_mm.errors import InputError, LeakError, TableError
from kneeoa_mm.records import StageResult
from kneeoa_mm.workflows.attempts import Attempts


def test_what_cannot_be_computed_is_kept_with_its_reason_and_reported(tmp_path):
    attempts = Attempts()
    done = attempts.attempt("fine", lambda: StageResult("fine", tmp_path))
    assert done.command == "fine"

    def fails() -> StageResult:
        raise InputError("No knee has the event.", found="none among 40 <rows>")

    assert attempts.attempt("survival tkr", fails) is None
    (folder,) = attempts.write(tmp_path / "not_computed")
    report([folder], tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "No knee has the event. (none among 40 &lt;rows&gt;)" in page
    assert "survival tkr" in page


def test_nothing_is_written_where_all_went_well(tmp_path):
    assert Attempts().write(tmp_path / "not_computed") == []
    assert not (tmp_path / "not_computed").exists()


@pytest.mark.parametrize(
    "error", [LeakError("A person is on both sides."), TableError("Faulty.", ["row 1"])]
)
def test_a_leak_or_a_faulty_table_still_stops_the_analysis(error):
    def fails() -> StageResult:
        raise error

    with pytest.raises(type(error)):
        Attempts().attempt("compare", fails)
