"""Images that a label table names: where they are, and the table of knees that points to them."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from kneeoa_mm.errors import InputError
from kneeoa_mm.records import View

_MAX_TRIED = 50


def find_images(folder: Path, names: pd.Series) -> pd.Series:
    """Find the image of each knee.

    Args:
        folder: Where the images lie, directly or in one of its folders.
        names: Path of each image as the labels have it, such as ``train/2/9000099R.png``.

    Returns:
        The file of each, None where there is none.

    Raises:
        InputError: None of the first images is there.
    """
    below = sorted(path for path in folder.iterdir() if path.is_dir())
    some = names.dropna().head(_MAX_TRIED)
    found = {root: sum((root / name).is_file() for name in some) for root in (folder, *below)}
    root = max(found, key=lambda each: found[each])
    if not found[root]:
        raise InputError(
            "The labels name images that are not there.",
            expected=f"{some.iloc[0] if len(some) else 'an image'} below this folder",
            found=f"{len(below)} folder(s), none with any of the first {len(some)} images",
            where=folder,
            fix="put the label table beside the folder of images, or the other way round",
        )
    paths = [root / name if isinstance(name, str) else None for name in names]
    return pd.Series(
        [str(path) if path is not None and path.is_file() else None for path in paths],
        index=names.index,
        dtype=object,
    )


def knee_images(cohort: pd.DataFrame, images: pd.Series, out: Path) -> pd.DataFrame:
    """Rows of a table of knees, which training and prediction read.

    Args:
        cohort: The cohort's rows.
        images: File of each knee's image.
        out: Folder of the table; paths are relative to it.
    """
    columns = ["knee_id", "subject_id", "laterality", "months", "kl_grade"]
    knees = cohort[[*columns, *(name for name in ("split",) if name in cohort)]].copy()
    knees["view"] = str(View.UNKNOWN)
    knees["image_path"] = [
        Path(os.path.relpath(image, out.resolve())).as_posix()
        for image in (Path(each).resolve() for each in images)
    ]
    return knees
