"""How much of a knee image a network is shown: the field of view of the images that it learnt from.

Public collections cut their crops close (about 1.25 widths of the tibial plateau), films are cut
wide (140 mm are about 1.8), so that a grader of the one would meet every knee of the other too
small. Anatomy is the only scale that both share: crops without millimetres have plateaus too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kneeoa_mm.model_folder import Preprocessing


class Framing(StrEnum):
    """How an image was brought to a model's field of view."""

    MATCHED = "matched"
    """It was cut to the model's field of view, with the joint where the model expects it."""
    WHOLE = "whole"
    """The field of view of the image, or that of the model, is not known: nothing was cut."""
    TOO_NARROW = "too_narrow"
    """It shows less than the model was trained on; what there is was used."""


@dataclass(frozen=True)
class Square:
    """A part of an image in its pixels, whose edges are integers; what is beyond is padded.

    Attributes:
        left: First column.
        top: First row.
        side: Rows and columns.
    """

    left: float
    top: float
    side: float

    def inside(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """The pixels that the square touches, without padding."""
        rows, columns = (
            slice(max(math.floor(first), 0), math.ceil(first + self.side))
            for first in (self.top, self.left)
        )
        return pixels[rows, columns]

    def resample(self, grey: NDArray[np.float32], size_px: int) -> NDArray[np.float32]:
        """The square as an image of (size_px, size_px); black beyond the image.

        Lanczos's kernel is widened by a reduction, so that finer detail is averaged and not
        aliased; it keeps the sharpness that a network was trained on better than softer kernels.
        """
        before = [max(0, math.ceil(-first)) for first in (self.top, self.left)]
        after = [
            max(0, math.ceil(first + self.side) - length)
            for first, length in zip((self.top, self.left), grey.shape, strict=True)
        ]
        if any(before + after):
            grey = np.pad(grey, list(zip(before, after, strict=True)))
        left, top = self.left + before[1], self.top + before[0]
        image = Image.fromarray(np.ascontiguousarray(grey)).resize(
            (size_px, size_px),
            Image.Resampling.LANCZOS,
            box=(left, top, left + self.side, top + self.side),
        )
        return np.clip(np.asarray(image), 0, 1)


def frame(
    shape: tuple[int, int], field_of_view: float | None, contract: Preprocessing
) -> tuple[Square, Framing]:
    """The part of a knee image that a model should see.

    The joint stands in the middle of an image whose field of view is known (``preprocess`` cuts
    it so). Where the part would reach beyond the image it is moved, and if need be shrunk, until
    it lies inside: nothing is invented around a knee.

    Args:
        shape: Rows and columns of the image.
        field_of_view: Longer side of the image in tibial-plateau widths; None where unknown.
        contract: The model's preprocessing.
    """
    longer = float(max(shape))
    rows, columns = shape
    wanted = contract.field_of_view_plateau_widths
    if wanted is None or field_of_view is None:
        return Square((columns - longer) / 2, (rows - longer) / 2, longer), Framing.WHOLE
    side = longer * wanted / field_of_view
    asked = Square(columns / 2 - side / 2, rows / 2 - contract.joint_row * side, side)
    side = min(side, longer)
    kept = Square(
        _move_inside(asked.left, side, columns), _move_inside(asked.top, side, rows), side
    )
    # half a pixel is rounding, not missing anatomy
    moved = max(abs(kept.left - asked.left), abs(kept.top - asked.top), asked.side - kept.side)
    return kept, Framing.MATCHED if moved <= 0.5 else Framing.TOO_NARROW


def _move_inside(first: float, side: float, length: int) -> float:
    if side > length:
        return (length - side) / 2
    return min(max(first, 0.0), length - side)


def framing_notes(
    framings: Iterable[Framing | str | None], field_of_view: float | None
) -> tuple[str, ...]:
    """What a person should know of how the images of a run were framed.

    Args:
        framings: One for each image; None where there is no image.
        field_of_view: What the model sees, in plateau widths; None where it does not say.
    """
    if field_of_view is None:
        return ()
    counts = Counter(framings)
    notes = []
    if counts[Framing.WHOLE]:
        notes.append(
            f"{counts[Framing.WHOLE]} images do not tell their field of view: used whole, as if "
            f"they showed {field_of_view:g} widths of the tibial plateau."
        )
    if counts[Framing.TOO_NARROW]:
        notes.append(
            f"{counts[Framing.TOO_NARROW]} images show less than the {field_of_view:g} widths of "
            "the tibial plateau that the model sees: what there is was used."
        )
    return tuple(notes)
