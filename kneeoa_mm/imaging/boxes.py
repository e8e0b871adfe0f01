"""Films whose joints somebody has boxed, as a detector learns from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kneeoa_mm.errors import InputError, ItemError
from kneeoa_mm.imaging.dicom import DICOM_SUFFIXES
from kneeoa_mm.imaging.pictures import PICTURE_SUFFIXES

TABLE = "boxes.csv"
EDGES = ("left_px", "top_px", "right_px", "bottom_px")

_MOST_LISTED = 5


@dataclass(frozen=True)
class JointBox:
    """A box around a joint as fractions of the film: middle and size."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class EdgeBox:
    """A box around a joint by its edges in the film's pixels."""

    left_px: float
    top_px: float
    right_px: float
    bottom_px: float

    def on(self, rows: int, columns: int) -> JointBox:
        """The box as fractions of a film of that size."""
        return JointBox(
            (self.left_px + self.right_px) / 2 / columns,
            (self.top_px + self.bottom_px) / 2 / rows,
            (self.right_px - self.left_px) / columns,
            (self.bottom_px - self.top_px) / rows,
        )


@dataclass(frozen=True)
class LabelledFilm:
    """A film and its joints; none is a film without a knee."""

    path: Path
    boxes: tuple[JointBox | EdgeBox, ...]

    def boxes_on(self, rows: int, columns: int) -> list[JointBox]:
        """The joints as fractions of the film, which has that size.

        Raises:
            ItemError: One lies beside the film: a knee would be learnt as what is none.
        """
        boxes = [box.on(rows, columns) if isinstance(box, EdgeBox) else box for box in self.boxes]
        beside = sum(not (0 <= box.x <= 1 and 0 <= box.y <= 1) for box in boxes)
        if beside:
            message = (
                f"{beside} of {len(boxes)} boxes have their middle outside the film, which has "
                f"{rows} rows and {columns} columns"
            )
            raise ItemError("E_BOX", message, stage="boxes")
        return boxes


def read_labelled_films(source: Path) -> list[LabelledFilm]:
    """List the films that ``source`` labels.

    Args:
        source: A CSV table with the columns ``image`` (relative to the table), ``left_px``,
            ``top_px``, ``right_px`` and ``bottom_px``, a row for each joint and one with empty
            edges for a film without; a folder that holds such a table as ``boxes.csv``; or a folder
            of films with YOLO text files of the same name beside them or in ``labels`` beside
            ``images``: ``0 x y width height`` in fractions, a film without such a file having no
            joint.

    Raises:
        InputError: There are no films, or lines are no box of a joint; they are named.
    """
    if (source / TABLE).is_file():
        return _from_table(source / TABLE)
    if source.is_file():
        return _from_table(source)
    films = _from_text_files(source)
    if not films:
        raise InputError(
            "There are no labelled films.",
            expected=f"a folder with {TABLE}, or films with YOLO text files",
            found="neither" if source.is_dir() else "no such file or folder",
            where=source,
        )
    return films


def _from_table(path: Path) -> list[LabelledFilm]:
    try:
        table = pd.read_csv(path, dtype={"image": str})
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError("The table cannot be read.", found=str(error), where=path) from error
    missing = [name for name in ("image", *EDGES) if name not in table]
    if missing:
        raise InputError(
            "The table of boxes lacks columns.",
            expected=", ".join(("image", *EDGES)),
            found=f"no {', '.join(missing)}",
            where=path,
        )
    edges = table[list(EDGES)].apply(pd.to_numeric, errors="coerce")
    blank = table[list(EDGES)].isna().all(axis=1)
    # fractions in the place of pixels make boxes of less than one
    width_px, height_px = (edges[b] - edges[a] for a, b in (EDGES[::2], EDGES[1::2]))
    possible = np.isfinite(edges).all(axis=1) & (width_px >= 1) & (height_px >= 1)
    wrong = table["image"].isna() | ~(blank | possible)
    _refuse(
        [f"line {index + 2}" for index in table.index[wrong]],
        path,
        expected="a film, and edges in its pixels: left before right and top before bottom",
    )
    films: dict[str, list[EdgeBox]] = {}
    for image, is_blank, row in zip(table["image"], blank, edges.to_numpy(), strict=True):
        boxes = films.setdefault(image, [])
        if not is_blank:
            boxes.append(EdgeBox(*(float(edge) for edge in row)))
    absent = [image for image in films if not (path.parent / image).is_file()]
    if absent:
        raise InputError(
            "The table names films that are not there.",
            expected="paths relative to the table",
            found=f"{len(absent)} of {len(films)} missing: {_listed(absent)}",
            where=path,
        )
    return [LabelledFilm(path.parent / image, tuple(boxes)) for image, boxes in films.items()]


def _from_text_files(folder: Path) -> list[LabelledFilm]:
    films, wrong = [], []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in PICTURE_SUFFIXES | DICOM_SUFFIXES:
            continue
        boxes = []
        labels = _text_file(path)
        lines = labels.read_text(encoding="utf-8").splitlines() if labels else []
        for number, line in enumerate(lines, start=1):
            if line.strip():
                box = _parsed(line)
                boxes += [box] if box else []
                wrong += [] if box else [f"{labels}:{number}"]
        films.append(LabelledFilm(path, tuple(boxes)))
    _refuse(
        wrong,
        folder,
        expected="0 x y width height: the class 0, and fractions of the film from 0 to 1",
    )
    return films


def _text_file(film: Path) -> Path | None:
    beside = film.with_suffix(".txt")
    apart = film.parent.parent / "labels" / beside.name
    return next((path for path in (beside, apart) if path.is_file()), None)


def _parsed(line: str) -> JointBox | None:
    """A line ``0 x y width height`` of fractions, or None where it is not one.

    Pixels in the place of fractions, or other things than joints, would be learnt as knees that
    stand elsewhere.
    """
    try:
        kind, *numbers = (float(word) for word in line.split())
        box = JointBox(*numbers)
    except (ValueError, TypeError):
        return None
    is_on_film = all(0 <= part <= 1 for part in numbers) and min(box.width, box.height) > 0
    return box if kind == 0 and is_on_film else None


def _refuse(wrong: list[str], where: Path, *, expected: str) -> None:
    if wrong:
        raise InputError(
            "Some lines are no box of a joint.",
            expected=expected,
            found=f"{len(wrong)} others: {_listed(wrong)}",
            where=where,
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_MOST_LISTED]) + (" …" if len(names) > _MOST_LISTED else "")
