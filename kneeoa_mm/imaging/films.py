"""One film to its knees: read, find the joints, tell the sides, cut, judge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kneeoa_mm.config import PreprocessConfig
from kneeoa_mm.errors import ItemError
from kneeoa_mm.imaging.detector import PLATEAU_MM, JointDetector
from kneeoa_mm.imaging.dicom import read_film
from kneeoa_mm.imaging.greyscale import grey_range, to_uint16
from kneeoa_mm.imaging.identity import FilmIdentity, Naming
from kneeoa_mm.imaging.laterality import SidedJoint, assign_sides
from kneeoa_mm.imaging.quality import QCFlag, image_flags, place_flags
from kneeoa_mm.imaging.radiograph import Radiograph, crop
from kneeoa_mm.records import Box, Laterality, PixelSpacing, SpacingSource, View

_FRONTAL_VIEWS = {View.PA_FIXED_FLEXION, View.AP, View.UNKNOWN}


@dataclass(frozen=True, eq=False)
class Knee:
    """One knee cut from a film.

    Attributes:
        image: (side, side), uint16, in the orientation of a right knee where the side is known.
        laterality: Which knee, or None.
        box: The part of the film that the image shows, in the film's pixels.
        is_flipped: Whether the image is mirrored against the film.
        score: Of the detector, 0 to 1.
        flags: Doubts about film and knee.
    """

    image: NDArray[np.uint16]
    laterality: Laterality | None
    box: Box
    is_flipped: bool
    score: float
    flags: tuple[QCFlag, ...]


@dataclass(frozen=True, eq=False)
class FilmKnees:
    """The knees of one film, from its left to its right.

    Attributes:
        identity: Whose film.
        view: Projection.
        spacing: Of the film.
        spacing_source: Where the millimetres come from.
        detector: Name of the detector.
        knees: One or two.
        is_incomplete: The header promises both knees and one was found.
    """

    identity: FilmIdentity
    view: View
    spacing: PixelSpacing | None
    spacing_source: SpacingSource
    detector: str
    knees: tuple[Knee, ...]
    is_incomplete: bool


def process_film(
    path: Path,
    source: str,
    *,
    config: PreprocessConfig,
    naming: Naming,
    detector: JointDetector,
) -> FilmKnees:
    """Cut the knees from one film.

    Args:
        path: The film.
        source: Its path relative to the studies, with ``/``.
        config: Field of view, resolution, limits.
        naming: How films are identified.
        detector: Finds the joints.

    Raises:
        ItemError: The film is refused, or shows no knee; ``code`` says why.
    """
    film = read_film(path, max_pixels=config.max_pixels)
    if film.view not in _FRONTAL_VIEWS:
        message = f"the header calls it a {film.view} view; knees are cut from frontal views"
        raise ItemError("E_VIEW", message, stage="header")
    identity = naming.identify(source, film)
    joints = detector.detect(film.pixels, film.spacing)
    if not joints:
        message = f"no joint with a score of {detector.min_score:g} or more was found"
        raise ItemError("E_NO_JOINT", message, stage="detect")
    sided = assign_sides(joints, film, identity.path_side)
    film_flags = film.flags
    if film.spacing is None:
        film_flags += (QCFlag.SPACING_NONE,)
    if identity.subject_id is None:
        film_flags += (QCFlag.SUBJECT_UNKNOWN,)
    return FilmKnees(
        identity,
        film.view,
        film.spacing,
        film.spacing_source,
        detector.name,
        tuple(cut_knees(film, sided, config, film_flags)),
        len(film.stated_sides) > len(joints),
    )


def cut_knees(
    film: Radiograph,
    joints: list[SidedJoint],
    config: PreprocessConfig,
    film_flags: tuple[QCFlag, ...] = (),
) -> list[Knee]:
    """Cut a square of ``crop_mm`` around each joint and bring it to 16 bits.

    Without millimetres the square is ``crop_mm / 76`` of the joint's box, which is as wide as the
    plateau: 76 mm in an average knee. Greys run from the film's 0.1 to its 99.9 percentile, the same
    for both knees: the mapping is monotone and spends no range on dead pixels or bright rims.
    """
    low, high = grey_range(film.pixels)
    if high <= low:
        raise ItemError("E_FLAT", "99.8 % of the film is a single grey", stage="cut")
    side_px = round(config.crop_mm / config.pixel_spacing_mm)
    knees = []
    for sided in joints:
        box = sided.joint.box
        if film.spacing is None:
            factor = config.crop_mm / PLATEAU_MM
            size_px = (box.width_px * factor, box.height_px * factor)
        else:
            size_px = (
                config.crop_mm / film.spacing.column_mm,
                config.crop_mm / film.spacing.row_mm,
            )
        cut = crop(film.pixels, box.centre_px, size_px, side_px, outside=low)
        # a left knee is the mirror image of a right one; as hung, its lateral side is on the right
        is_flipped = _is_lateral_on_the_right(sided.laterality, film.row_direction)
        image = to_uint16(cut.pixels[:, ::-1] if is_flipped else cut.pixels, low, high)
        flags = (
            *film_flags,
            *sided.flags,
            *([QCFlag.BOX_CLIPPED] if cut.is_clipped else []),
            *place_flags(box, film_rows=film.pixels.shape[0]),
            *image_flags(image),
        )
        unique = tuple(dict.fromkeys(flags))
        knees.append(Knee(image, sided.laterality, cut.box, is_flipped, sided.joint.score, unique))
    return knees


def _is_lateral_on_the_right(laterality: Laterality | None, row_direction: str | None) -> bool:
    is_film_mirrored = (row_direction or "").upper().startswith("R")
    return laterality is not None and (laterality is Laterality.LEFT) != is_film_mirrored
