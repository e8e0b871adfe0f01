"""The cohort's tables in the shape of the OAI's text release: codes, labels and what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kneeoa_mm.atomic_files import atomic_path
from kneeoa_mm.records import Laterality
from kneeoa_mm.synthetic.population import (
    DAYS_PER_MONTH,
    FOLLOW_UP_MONTHS,
    VISIT_MONTHS,
    Array,
    Population,
)

Row = dict[str, str]
Rows = dict[str, list[Row]]

VISIT_DIGITS = ("00", "01", "03", "05", "06")
"""OAI's codes of the visits at 0, 12, 24, 36 and 48 months."""
SIDES = (Laterality.RIGHT, Laterality.LEFT)

MISSING_FORM = ".: Missing Form/Incomplete Workbook"
NOT_EXPECTED = ".A: Not Expected"
TECHNICAL = ".T: Technical Problems"
BLANK = ""

CONTACT_MONTHS = (0, 12, 18, 24, 30, 36, 48, 60, 72, 84, 96, 108)
"""Months of each visit code of V99RNTCNT."""

_LOWER_CASE_FILE = "kxr_sq_bu05.txt"
_RACES = ("0: Other Non-white", "1: White or Caucasian", "2: Black or African American", "3: Asian")
_RACE_SHARES = (0.02, 0.79, 0.18, 0.01)
_NO_YES = ("0: No", "1: Yes")
_SIDE_LABELS = ("1: Right", "2: Left")

_COLUMNS: dict[str, tuple[str, ...]] = {
    "Enrollees.txt": ("ID", "VERSION", "P02SEX", "P02RACE", "P02HISP", "V00SITE", "V00COHORT"),
    "SubjectChar00.txt": ("ID", "VERSION", "V00AGE"),
    "AllClinical00.txt": (
        "ID", "VERSION", "P01BMI", "P01HEIGHT", "P01WEIGHT", "P01INJR", "P01INJL", "P01KSURGR",
        "P01KSURGL", "V00WOMTSR", "V00WOMTSL",
    ),
    "KXR_FTA_DURYEA00.txt": ("ID", "SIDE", "READPRJ", "VERSION", "V00FTANGLE", "FTAFLAG"),
    "Outcomes99.txt": (
        "id", "VERSION",
        *(
            f"V99E{side}K{what}"
            for side in SIDES
            for what in ("BLRP", "RPCF", "RPSN", "DAYS", "TLPR")
        ),
        "V99EDDCF", "V99EDDDAYS", "V99RNTCNT",
    ),
    **{
        f"kxr_sq_bu{visit}.txt": (
            "ID", "SIDE", "READPRJ", "VERSION",
            *(
                f"V{visit}{what}"
                for what in ("XRKL", "XRJSM", "XRJSL", "XROSTM", "XROSFM", "BARCDBU")
            ),
        )
        for visit in VISIT_DIGITS
    },
    **{
        f"kxr_qjsw_duryea{visit}.txt": (
            "ID", "SIDE", "READPRJ", "VERSION",
            *(
                f"V{visit}{what}"
                for what in ("MCMJSW", "JSW250", "NOMMJSW", "INCSTPS", "MJSWBB", "BARCDJD")
            ),
        )
        for visit in VISIT_DIGITS
    },
}  # fmt: skip


def subject_rows(
    subject_id: str, person: Population, jsw250_mm: Array, rng: np.random.Generator
) -> Rows:
    """All rows of one person, by file.

    Args:
        subject_id: Seven digits.
        person: A population of one.
        jsw250_mm: Joint-space width at x = 0.250 by side and visit, (2, 5).
        rng: Decides what the progression model leaves open, such as race, and what is missing.
    """
    rows: Rows = {name: [] for name in _COLUMNS}
    rows["Enrollees.txt"].append(_enrollee(subject_id, person, rng))
    age = f"{person.age_years[0]:.0f}"
    rows["SubjectChar00.txt"].append(
        {"ID": subject_id, "V00AGE": _or_missing(age, BLANK, 0.005, rng)}
    )
    rows["AllClinical00.txt"].append(_clinical(subject_id, person, rng))
    rows["KXR_FTA_DURYEA00.txt"] += _alignment(subject_id, person, rng)
    rows["Outcomes99.txt"].append(_outcomes(subject_id, person))
    second_project = rng.choice(("", "37", "42"), p=(0.7, 0.25, 0.05))
    for visit, digits in enumerate(VISIT_DIGITS):
        if not person.attended[0, visit]:
            continue
        barcode = f"0166{rng.integers(10**8):08d}"
        for side in range(2):
            grades = _grades(subject_id, person, side, visit, second_project, rng)
            widths = _widths(subject_id, person, side, visit, jsw250_mm)
            for row in grades:
                row[f"V{digits}BARCDBU"] = barcode
            widths[f"V{digits}BARCDJD"] = barcode
            rows[f"kxr_sq_bu{digits}.txt"] += grades
            rows[f"kxr_qjsw_duryea{digits}.txt"].append(widths)
    return rows


def write_tables(folder: Path, subjects: Iterable[Rows]) -> list[Path]:
    """Write every table: ``|`` between cells, latin-1, a header in the first line."""
    subjects = list(subjects)
    paths = []
    for name, columns in _COLUMNS.items():
        path = folder / name
        with atomic_path(path) as temporary:
            lines = _lines(columns, (row for rows in subjects for row in rows[name]))
            text = "".join(f"{line}\n" for line in lines)
            if name == _LOWER_CASE_FILE:
                header, _, body = text.partition("\n")
                text = f"{header.lower()}\n{body}"
            temporary.write_text(text, encoding="latin-1", newline="\n")
        paths.append(path)
    return paths


def _lines(columns: tuple[str, ...], rows: Iterable[Row]) -> Iterator[str]:
    yield "|".join(columns)
    for row in rows:
        yield "|".join({"VERSION": "0.1", **row}.get(column, BLANK) for column in columns)


def _or_missing(cell: str, code: str, share: float, rng: np.random.Generator) -> str:
    return code if rng.random() < share else cell


def _enrollee(subject_id: str, person: Population, rng: np.random.Generator) -> Row:
    race = _or_missing(str(rng.choice(_RACES, p=_RACE_SHARES)), MISSING_FORM, 0.01, rng)
    hispanic = _or_missing(_NO_YES[int(rng.random() < 0.01)], MISSING_FORM, 0.01, rng)
    is_affected = (person.kl_grade[0, :, 0] >= 2) & (person.womac_total[0] >= 8)
    cohort = "1: Progression" if is_affected.any() else "2: Incidence"
    if person.womac_total[0].max() == 0 and person.kl_grade[0, :, 0].max() == 0:
        cohort = "3: Non-exposed control group"
    return {
        "ID": subject_id,
        "P02SEX": "2: Female" if person.female[0] else "1: Male",
        "P02RACE": race,
        "P02HISP": hispanic,
        "V00SITE": str(rng.choice(list("ABCDE"))),
        "V00COHORT": cohort,
    }


def _clinical(subject_id: str, person: Population, rng: np.random.Generator) -> Row:
    bmi = person.bmi_kg_m2[0]
    height_mm = round(rng.normal(1625.0 if person.female[0] else 1760.0, 65.0))
    weight_kg = bmi * (height_mm / 1000) ** 2
    row = {"ID": subject_id, "P01HEIGHT": str(height_mm)}
    is_weighed = rng.random() >= 0.02
    row["P01BMI"] = f"{bmi:.1f}" if is_weighed else MISSING_FORM
    row["P01WEIGHT"] = f"{weight_kg:.1f}" if is_weighed else MISSING_FORM
    for index, side in enumerate(SIDES):
        is_injured = bool(person.knee_injury[0, index])
        operated = rng.random() < (0.3 if is_injured else 0.05)
        womac = f"{person.womac_total[0, index]:.1f}"
        row[f"P01INJ{side}"] = _or_missing(_NO_YES[is_injured], MISSING_FORM, 0.03, rng)
        row[f"P01KSURG{side}"] = _or_missing(_NO_YES[int(operated)], MISSING_FORM, 0.02, rng)
        row[f"V00WOMTS{side}"] = _or_missing(womac, BLANK, 0.02, rng)
    return row


def _alignment(subject_id: str, person: Population, rng: np.random.Generator) -> list[Row]:
    rows = []
    for index in range(2):
        failed = bool(rng.random() < 0.04)
        expected = TECHNICAL if failed else f"{person.fta_deg[0, index]:.2f}"
        rows.append(
            {
                "ID": subject_id,
                "SIDE": _SIDE_LABELS[index],
                "READPRJ": "16",
                "V00FTANGLE": NOT_EXPECTED if person.replaced_before[0, index] else expected,
                "FTAFLAG": _NO_YES[failed],
            }
        )
    return rows


def _outcomes(subject_id: str, person: Population) -> Row:
    contact = min(person.dropout_months[0], person.death_months[0], FOLLOW_UP_MONTHS)
    row = {"ID": subject_id, "id": subject_id}
    for index, side in enumerate(SIDES):
        months = person.replacement_months[0, index]
        cells = dict.fromkeys(("RPCF", "RPSN", "DAYS", "TLPR"), NOT_EXPECTED)
        cells["BLRP"] = _NO_YES[bool(person.replaced_before[0, index])]
        if is_replacement_known(person)[0, index]:
            seen = any(
                person.attended[0, visit] and visit_months >= months
                for visit, visit_months in enumerate(VISIT_MONTHS)
            )
            cells |= {
                "RPCF": "3: Replacement adjudicated, confirmed",
                "RPSN": _NO_YES[seen],
                "DAYS": str(_days(months)),
                "TLPR": "1: Total",
            }
        row |= {f"V99E{side}K{what}": cell for what, cell in cells.items()}
    is_death_known = bool(is_death_recorded(person)[0])
    row["V99EDDCF"] = "3: Death adjudicated, confirmed" if is_death_known else NOT_EXPECTED
    row["V99EDDDAYS"] = str(_days(person.death_months[0])) if is_death_known else NOT_EXPECTED
    row["V99RNTCNT"] = str(sum(month <= contact for month in CONTACT_MONTHS) - 1)
    return row


def _days(months: float) -> int:
    return round(months * DAYS_PER_MONTH)


def is_death_recorded(population: Population) -> np.ndarray:
    """Deaths that the study heard of, (n,): those of persons still in contact."""
    heard = np.minimum(population.dropout_months, FOLLOW_UP_MONTHS + 12)
    return np.asarray(population.death_months < heard)


def is_replacement_known(population: Population) -> np.ndarray:
    """Replacements after enrolment that the study heard of, (n, 2)."""
    until = np.minimum(population.dropout_months, population.death_months)[:, None]
    return (population.replacement_months < until) & ~population.replaced_before


def _cut(value: float, cuts: tuple[float, ...]) -> str:
    return str(int(np.digitize(value, cuts)))


def _grades(
    subject_id: str,
    person: Population,
    side: int,
    visit: int,
    second_project: str,
    rng: np.random.Generator,
) -> list[Row]:
    """Semi-quantitative readings: project 15, and for some a second project at 0 and 48 months."""
    prefix = f"V{VISIT_DIGITS[visit]}"
    key = {"ID": subject_id, "SIDE": _SIDE_LABELS[side]}
    names = ("XRKL", "XRJSM", "XRJSL", "XROSTM", "XROSFM")
    nothing = None
    if not person.filmed[0, side, visit]:
        nothing = NOT_EXPECTED
    elif not person.grade_readable[0, side, visit]:
        nothing = TECHNICAL
    if nothing is not None:
        return [key | {"READPRJ": "15"} | {f"{prefix}{name}": nothing for name in names}]
    grade = int(person.kl_grade[0, side, visit])
    width_mm = person.jsw_medial_um[0, side, visit] / 1000
    size_mm = person.osteophyte_mm[0, side, visit]
    read = {
        "XRKL": str(grade),
        "XRJSM": str(3 - int(np.digitize(width_mm, (0.5, 2.2, 3.4)))),
        "XRJSL": "0",
        "XROSTM": _cut(size_mm * np.exp(rng.normal(0.0, 0.15)), (1.5, 3.0, 5.0)),
        "XROSFM": _cut(size_mm * np.exp(rng.normal(0.0, 0.15)), (1.7, 3.3, 5.5)),
    }
    rows = [key | {"READPRJ": "15"} | {f"{prefix}{name}": cell for name, cell in read.items()}]
    if second_project and VISIT_MONTHS[visit] in (0, 48):
        if rng.random() < 0.023:
            grade += int(rng.choice((-1, 1))) if 0 < grade < 4 else (1 if grade == 0 else -1)
        second = read | {"XRKL": str(grade)}
        cells = {f"{prefix}{name}": cell for name, cell in second.items()}
        rows.append(key | {"READPRJ": second_project} | cells)
    return rows


def _widths(subject_id: str, person: Population, side: int, visit: int, jsw250_mm: Array) -> Row:
    """Quantitative joint-space widths of project 16, in mm to three decimals."""
    prefix = f"V{VISIT_DIGITS[visit]}"
    width_um = int(person.jsw_medial_um[0, side, visit])
    cells: Mapping[str, Any]
    if not person.filmed[0, side, visit]:
        cells = dict.fromkeys(("MCMJSW", "JSW250", "NOMMJSW", "INCSTPS", "MJSWBB"), NOT_EXPECTED)
    else:
        is_read = bool(person.width_readable[0, side, visit])
        cells = {
            "MCMJSW": f"{width_um / 1000:.3f}" if is_read else TECHNICAL,
            "JSW250": f"{jsw250_mm[side, visit]:.3f}" if is_read else TECHNICAL,
            "NOMMJSW": _NO_YES[not is_read],
            "INCSTPS": _NO_YES[bool(person.position_differs[0, side, visit])],
            "MJSWBB": _NO_YES[is_read and width_um == 0],
        }
    key = {"ID": subject_id, "SIDE": _SIDE_LABELS[side], "READPRJ": "16"}
    return key | {f"{prefix}{name}": cell for name, cell in cells.items()}
