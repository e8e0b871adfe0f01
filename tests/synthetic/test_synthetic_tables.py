"""Tables have the OAI's shape and codes, and their widths tell the true outcome."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kneeoa_mm.synthetic.oai_tables import subject_rows, write_tables
from kneeoa_mm.synthetic.population import VISIT_MONTHS
from kneeoa_mm.synthetic.progression import simulate
from kneeoa_mm.synthetic.subject import model_draws, subject_id
from kneeoa_mm.synthetic.truth import progress_columns

SUBJECTS = 400
SEED = 3


def read(path: Path) -> list[dict[str, str]]:
    header, *lines = path.read_text(encoding="latin-1").splitlines()
    columns = header.upper().split("|")
    return [dict(zip(columns, line.split("|"), strict=True)) for line in lines]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, str], Any]]:
    """A folder of tables, and the truth of each knee at baseline."""
    folder = tmp_path_factory.mktemp("tables")
    rows, truth = [], {}
    for index in range(SUBJECTS):
        person = simulate(model_draws(SEED, index))
        widths_mm = np.full((2, len(VISIT_MONTHS)), 4.0)
        rows.append(
            subject_rows(subject_id(index), person, widths_mm, np.random.default_rng(index))
        )
        for side, label in enumerate(("1: Right", "2: Left")):
            truth[subject_id(index), label] = progress_columns(person, side)
    write_tables(folder, rows)
    return folder, truth


def test_every_subject_is_enrolled_once_under_seven_digits(
    made: tuple[Path, dict[tuple[str, str], Any]],
) -> None:
    ids = [row["ID"] for row in read(made[0] / "Enrollees.txt")]
    assert len(set(ids)) == len(ids) == SUBJECTS
    assert all(len(subject) == 7 and subject.startswith("9") for subject in ids)


def test_label_recomputed_from_printed_widths_is_the_truth(
    made: tuple[Path, dict[tuple[str, str], Any]],
) -> None:
    """Widths of 0 and 48 months as a reader of the files sees them, in decimal arithmetic."""
    folder, truth = made
    widths_um: dict[tuple[str, str], dict[str, int]] = {}
    flagged = set()
    for visit in ("00", "06"):
        for row in read(folder / f"kxr_qjsw_duryea{visit}.txt"):
            knee, cell = (row["ID"], row["SIDE"]), row[f"V{visit}MCMJSW"]
            if not cell.startswith("."):
                millimetres, _, decimals = cell.partition(".")
                widths_um.setdefault(knee, {})[visit] = int(millimetres) * 1000 + int(decimals)
            if row[f"V{visit}INCSTPS"].startswith("1"):
                flagged.add(knee)
    grades = {
        (row["ID"], row["SIDE"]): row["V00XRKL"]
        for row in read(folder / "kxr_sq_bu00.txt")
        if row["READPRJ"] == "15"
    }
    found = {}
    for knee, width in widths_um.items():
        is_graded = grades[knee] in set("0123")
        at_risk = is_graded and width.get("00", 0) >= 700
        if at_risk and "06" in width and knee not in flagged:
            found[knee] = int(width["00"] - width["06"] >= 700)
    expected = {knee: row["jsl_48m"] for knee, row in truth.items() if row["jsl_48m"] is not None}
    assert found == expected
    assert 0.1 < np.mean(list(found.values())) < 0.4


def test_every_knee_has_an_outcome_or_a_reason(
    made: tuple[Path, dict[tuple[str, str], Any]],
) -> None:
    for row in made[1].values():
        assert (row["jsl_48m"] is None) == (row["jsl_48m_reason"] is not None)
    reasons = Counter(row["jsl_48m_reason"] for row in made[1].values())
    assert {"lost", "died", "replaced", "baseline_kl_4", "no_reading"} <= set(reasons)


@pytest.mark.parametrize(
    ("file", "column", "code"),
    [
        ("AllClinical00.txt", "P01BMI", ".: Missing Form/Incomplete Workbook"),
        ("AllClinical00.txt", "P01INJR", ".: Missing Form/Incomplete Workbook"),
        ("AllClinical00.txt", "V00WOMTSL", ""),
        ("KXR_FTA_DURYEA00.txt", "V00FTANGLE", ".T: Technical Problems"),
        ("kxr_qjsw_duryea06.txt", "V06MCMJSW", ".T: Technical Problems"),
        ("Outcomes99.txt", "V99ERKDAYS", ".A: Not Expected"),
    ],
)
def test_missing_codes_are_planted_but_rare_among_factors(
    made: tuple[Path, dict[tuple[str, str], Any]], file: str, column: str, code: str
) -> None:
    cells = [row[column] for row in read(made[0] / file)]
    share = cells.count(code) / len(cells)
    assert share > 0
    assert share < 0.10 or column == "V99ERKDAYS"


def test_some_knees_have_a_second_reading_that_sometimes_differs(
    made: tuple[Path, dict[tuple[str, str], Any]],
) -> None:
    rows = read(made[0] / "kxr_sq_bu00.txt") + read(made[0] / "kxr_sq_bu06.txt")
    first = {(r["ID"], r["SIDE"], "V06XRKL" in r): r for r in rows if r["READPRJ"] == "15"}
    others = [row for row in rows if row["READPRJ"] in {"37", "42"}]
    assert {row["READPRJ"] for row in others} == {"37", "42"}
    differences = []
    for row in others:
        column = "V06XRKL" if "V06XRKL" in row else "V00XRKL"
        twin = first[row["ID"], row["SIDE"], "V06XRKL" in row]
        differences.append(abs(int(row[column]) - int(twin[column])))
    assert max(differences) == 1
    assert 0 < np.mean(differences) < 0.06


def test_one_file_has_a_lower_case_header(made: tuple[Path, dict[tuple[str, str], Any]]) -> None:
    headers = [path.read_text("latin-1").splitlines()[0] for path in made[0].glob("kxr_sq_bu*.txt")]
    assert sum(header == header.lower() for header in headers) == 1
    assert (made[0] / "Outcomes99.txt").read_text("latin-1").startswith("id|")


def test_bone_on_bone_is_flagged_and_zero(made: tuple[Path, dict[tuple[str, str], Any]]) -> None:
    rows = [row for row in read(made[0] / "kxr_qjsw_duryea06.txt") if row["V06MJSWBB"] == "1: Yes"]
    assert rows
    assert {float(row["V06MCMJSW"]) for row in rows} == {0.0}


def test_last_contact_is_a_visit_code_and_the_dead_are_not_seen_again(
    made: tuple[Path, dict[tuple[str, str], Any]],
) -> None:
    months = (0, 12, 18, 24, 30, 36, 48, 60, 72, 84, 96, 108)
    for row in read(made[0] / "Outcomes99.txt"):
        code = int(row["V99RNTCNT"])
        assert 0 <= code <= 11
        if row["V99EDDCF"].startswith("3"):
            assert months[code] * 365.25 / 12 <= float(row["V99EDDDAYS"])


def test_replaced_knees_have_a_day_and_no_grade_afterwards(
    made: tuple[Path, dict[tuple[str, str], Any]],
) -> None:
    folder, _ = made
    grades = {
        (row["ID"], row["SIDE"]): row["V06XRKL"]
        for row in read(folder / "kxr_sq_bu06.txt")
        if row["READPRJ"] == "15"
    }
    seen = 0
    for row in read(folder / "Outcomes99.txt"):
        for side, label in (("R", "1: Right"), ("L", "2: Left")):
            days = row[f"V99E{side}KDAYS"]
            if days.isdigit() and int(days) < 1461 and (row["ID"], label) in grades:
                assert grades[row["ID"], label] == ".A: Not Expected"
                assert row[f"V99E{side}KRPSN"] == "1: Yes"
                seen += 1
    assert seen > 0
