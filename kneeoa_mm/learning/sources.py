"""Which knees to learn from or to grade: a folder of PNGs, graded or not, or a table of knees."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from kneeoa_mm import schemas, tables
from kneeoa_mm.errors import InputError
from kneeoa_mm.folds import SPLITS, parts_of, refuse_shared_subjects
from kneeoa_mm.metrics import persons_of
from kneeoa_mm.progress import say
from kneeoa_mm.records import UNKNOWN, KLGrade, KneeKey, Laterality, subject_and_side

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}
_GRADE_FOLDER = re.compile(r"^(?P<grade>\d+)(?:\D.*)?$")
_GRADES = set(map(int, KLGrade))
_MAX_LISTED = 5


def read_knees(
    data: Path, *, allow_ungrouped: bool = False, grades_optional: bool = False
) -> pd.DataFrame:
    """List the knees in ``data``.

    Args:
        data: A folder of images, ``[split/]grade/NAME.png`` or without grades; one image; a table
            of knees (``.parquet`` or ``.csv``); or the output folder of ``preprocess``.
        allow_ungrouped: Take images whose name tells no subject, each as a subject of its own.
        grades_optional: Where some folder is no grade, such as ``2024``, none is; otherwise a
            number beyond 4 is refused.

    Returns:
        One row a knee: ``knee_id``, ``subject_id``, ``laterality``, ``image_path`` (absolute),
        ``subject_known`` (false where ``subject_id`` stands for an image, whose name tells none),
        ``mirror`` (the image must be mirrored to look like a right knee),
        ``field_of_view_plateau_widths`` (missing where unknown, as in any folder of images),
        ``kl_grade`` where known, and ``split`` where the folder or table has one.

    Raises:
        InputError: There are no images, a grade is impossible, a knee has two grades, a name tells
            no subject, a part of the split is none, a subject stands in two parts, or images of
            ``preprocess`` come without their table.
    """
    if not data.exists():
        raise InputError("The input is not there.", where=data)
    if data.is_file() and data.suffix.lower() in IMAGE_SUFFIXES:
        _refuse_without_table(data.parent)
        return _read_image(data)
    if data.is_file() or (data / "knees.parquet").is_file():
        return _read_table(data if data.is_file() else data / "knees.parquet")
    _refuse_without_table(data)
    return _read_folder(data, allow_ungrouped=allow_ungrouped, grades_optional=grades_optional)


def _refuse_without_table(images: Path) -> None:
    """Raise for the images of ``preprocess`` by themselves: they look like right knees already."""
    folder = images.resolve().parent
    if images.resolve().name == "images" and (folder / "knees.parquet").is_file():
        raise InputError(
            "These images belong to a table: by their names alone, left knees that are mirrored "
            "already would be mirrored again.",
            expected="the table, or its folder",
            found="the images alone",
            where=images,
            fix=f"give {folder}; or move the images elsewhere, if they are not those of the table",
        )


def _read_table(path: Path) -> pd.DataFrame:
    knees = tables.read_table(path, schemas.KNEES)
    # Path.joinpath keeps a path that is absolute already
    knees["image_path"] = [str(path.parent.joinpath(image)) for image in knees["image_path"]]
    as_taken = pd.Series(False, index=knees.index)
    as_right = knees.get("as_right_knee", knees.get("flipped", as_taken))
    knees["mirror"] = (knees["laterality"] == Laterality.LEFT) & ~as_right
    knees["subject_known"] = knees["subject_id"] != UNKNOWN
    if "field_of_view_plateau_widths" not in knees:
        knees["field_of_view_plateau_widths"] = np.nan
    if knees.empty:
        raise InputError("The table has no knees.", where=path)
    if "split" in knees:
        knees["split"] = parts_of(knees["split"], where=path)
    _refuse_leaks(knees, path)
    return knees


def _refuse_leaks(knees: pd.DataFrame, where: Path) -> None:
    if "split" in knees:
        # the unknown subject is no person who could stand in two parts
        told = knees[knees["subject_id"] != UNKNOWN]
        parts = told.groupby("split")["subject_id"].unique()
        refuse_shared_subjects({name: list(parts[name]) for name in parts.index}, where=where)


def _read_image(image: Path) -> pd.DataFrame:
    # the folder of a single image is any folder, and no grade
    knees = pd.DataFrame([_row(image, image.parent)]).drop(columns=["kl_grade", "split"])
    knees["knee_id"] = _number_copies(knees)
    return knees


def _read_folder(folder: Path, *, allow_ungrouped: bool, grades_optional: bool) -> pd.DataFrame:
    images = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise InputError(
            "There are no images here.",
            expected="[split/]grade/NAME.png, a table of knees, or the output of preprocess",
            where=folder,
        )
    rows = [_row(image, folder) for image in images]
    if grades_optional:
        rows = _graded_or_not(rows)
    _refuse_impossible_grades(rows, folder)
    if not allow_ungrouped:
        _refuse_nameless(rows, folder)
    _refuse_two_grades(rows, folder)
    knees = pd.DataFrame(rows)
    knees["kl_grade"] = knees["kl_grade"].astype("Int64")
    knees["knee_id"] = _number_copies(knees)
    # a column without a value would stand in the way of a table that has them
    knees = knees.drop(columns=[c for c in ("kl_grade", "split") if knees[c].isna().all()])
    _refuse_leaks(knees, folder)
    return knees


def _row(image: Path, folder: Path) -> dict[str, object]:
    *parents, _ = image.relative_to(folder).parts
    # the folder itself may be one part of a split, or one grade
    nearest = [*parents][::-1] or [folder.name]
    grade = _GRADE_FOLDER.match(nearest[0])
    split = next((SPLITS[name.lower()] for name in nearest if name.lower() in SPLITS), None)
    subject, side = subject_and_side(image.stem)
    return {
        "subject_id": subject or _own_subject(image.relative_to(folder)),
        "laterality": side or UNKNOWN,
        "kl_grade": int(grade["grade"]) if grade else None,
        "image_path": str(image),
        "mirror": side is Laterality.LEFT,
        "field_of_view_plateau_widths": np.nan,
        "split": split,
        "subject_known": subject is not None,
    }


def _own_subject(image: Path) -> str:
    """A subject for an image whose name tells none, such as 1.png, which each folder may have."""
    return re.sub("[/:]", "_", image.with_suffix("").as_posix())


def _graded_or_not(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """The rows with their grades if all folders are grades, else without any."""
    strange = [row["image_path"] for row in rows if row["kl_grade"] not in _GRADES]
    if strange and len(strange) < len(rows):
        say(f"no folder is taken for a grade, since not all are grades: {strange[0]} is in none")
    return [row | {"kl_grade": None} for row in rows] if strange else rows


def _refuse_impossible_grades(rows: list[dict[str, object]], folder: Path) -> None:
    wrong = [r["image_path"] for r in rows if r["kl_grade"] not in {None, *_GRADES}]
    if wrong:
        raise InputError(
            "A folder names an impossible grade.",
            expected="folders 0 to 4",
            found=f"{len(wrong)} images elsewhere, such as {wrong[0]}",
            where=folder,
            fix="rename or remove these folders",
        )


def _refuse_two_grades(rows: list[dict[str, object]], folder: Path) -> None:
    grades: dict[tuple[object, object], set[object]] = {}
    for row in rows:
        # a name without a subject, such as 1.png, may be of another knee in each folder
        if row["subject_known"] and row["kl_grade"] is not None:
            grades.setdefault((row["subject_id"], row["laterality"]), set()).add(row["kl_grade"])
    doubtful = [f"{subject}{side}" for (subject, side), found in grades.items() if len(found) > 1]
    if doubtful:
        raise InputError(
            "A knee has two grades.",
            expected="each knee in one grade folder",
            found=f"{len(doubtful)} in several, such as {', '.join(doubtful[:_MAX_LISTED])}",
            where=folder,
            fix="keep the right one; for films of several visits give a table, whose knee_id has "
            "the months",
        )


def _refuse_nameless(rows: list[dict[str, object]], folder: Path) -> None:
    nameless = [Path(str(r["image_path"])).name for r in rows if not r["subject_known"]]
    if nameless:
        raise InputError(
            "Some names tell no subject, so the knees of a person could be split apart.",
            expected="<subject><L|R>.png, or <subject>_<1|2>.png with 1 for right and 2 for left",
            found=f"{len(nameless)} other names, such as {', '.join(nameless[:_MAX_LISTED])}",
            where=folder,
            fix="rename them, or add --allow-ungrouped to count each image as a person",
        )


def _number_copies(knees: pd.DataFrame) -> list[str]:
    copy = knees.groupby(["subject_id", "laterality"]).cumcount() + 1
    sides = [None if side == UNKNOWN else Laterality(side) for side in knees["laterality"]]
    return [
        str(KneeKey(None, subject, None, side, number))
        for subject, side, number in zip(knees["subject_id"], sides, copy, strict=True)
    ]


def told_apart(knees: pd.DataFrame, *, allow_ungrouped: bool, where: Path) -> pd.DataFrame:
    """Knees to learn from, of which each with an unknown subject is a person of its own.

    Args:
        knees: Rows of ``read_knees``.
        allow_ungrouped: Take knees whose subject is unknown.
        where: Named in the error.

    Raises:
        InputError: There are such knees, and they are not allowed: as one person they would all
            come into one part, and as many the knees of a person may be split apart.
    """
    unknown = knees["subject_id"] == UNKNOWN
    if not unknown.any():
        return knees
    if not allow_ungrouped:
        raise InputError(
            "Some knees tell no subject, so the knees of a person could be split apart.",
            expected=f"a subject_id other than {UNKNOWN}",
            found=f"{int(unknown.sum())} of {len(knees)} knees without, such as "
            f"{knees.loc[unknown, 'knee_id'].iloc[0]}",
            where=where,
            fix="say whose they are, or add --allow-ungrouped to count each knee as a person",
        )
    return knees.assign(subject_id=persons_of(knees["subject_id"], knees["knee_id"]))


def add_kl_readings(knees: pd.DataFrame, cohort: Path) -> pd.DataFrame:
    """Take the grade of each knee and visit from the ``kl_readings.parquet`` of a cohort.

    Raises:
        InputError: The cohort has no readings, or none of these knees.
    """
    readings = tables.read_table(cohort / "kl_readings.parquet", schemas.KL_READINGS)
    grades = readings.set_index("knee_id")["kl_grade"]
    without_copy = [str(KneeKey.parse(knee)).split(":")[:4] for knee in knees["knee_id"]]
    graded = knees.assign(kl_grade=[grades.get(":".join(parts)) for parts in without_copy])
    graded["kl_grade"] = graded["kl_grade"].astype("Int64")
    if graded["kl_grade"].isna().all():
        raise InputError(
            "No knee of the images has a reading in the cohort.",
            expected=f"knee_id such as {readings['knee_id'].iloc[0]}",
            found=f"such as {knees['knee_id'].iloc[0]}",
            where=cohort,
            fix="preprocess and cohort must use the same --cohort name and the same --ids",
        )
    return graded
