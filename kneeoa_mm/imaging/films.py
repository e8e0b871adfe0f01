"""One film to its knees: read, find the joints, tell the sides, cut, judge."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kneeoa_mm.errors import ItemError
from kneeoa_mm.imaging.closeup import close_up, picture_flags
from kneeoa_mm.imaging.detector import PLATEAU_MM, JointDetection, JointDetector
from kneeoa_mm.imaging.dicom import read_film
from kneeoa_mm.imaging.faults import as_item_errors
from kneeoa_mm.imaging.greyscale import grey_range, to_uint16
from kneeoa_mm.imaging.identity import FilmIdentity, Naming
from kneeoa_mm.imaging.laterality import SidedJoint, assign_sides, is_made_for_two, is_mirrored
from kneeoa_mm.imaging.lettering import shows_text
from kneeoa_mm.imaging.pictures import is_picture, read_picture
from kneeoa_mm.imaging.quality import QCFlag, image_flags, is_cut_off, place_flags
from kneeoa_mm.imaging.radiograph import Pixels, Radiograph, crop, pixel_digest
from kneeoa_mm.records import (
    FRONTAL_VIEWS,
    Box,
    Laterality,
    PixelSpacing,
    SpacingSource,
    View,
)
from kneeoa_mm.settings import PreprocessConfig

_MOST_WIDTHS_OF_ONE_KNEE = 1.4
_MIDDLE = (0.25, 0.75)


@dataclass(frozen=True, eq=False)
class Knee:
    """One knee cut from a film.

    Attributes:
        image: (rows, columns), uint16, in the orientation of a right knee where the side is known;
            square, unless the film was an image of one knee already.
        laterality: Which knee, or None.
        box: The part of the film that the image shows, in the film's pixels.
        is_flipped: Whether the image is mirrored against the film.
        score: Of the detector, 0 to 1.
        flags: Doubts about film and knee.
        field_of_view_plateau_widths: Side of the image in widths of this knee's tibial plateau, or
            None where the joint does not stand in the image's middle.
    """

    image: NDArray[np.uint16]
    laterality: Laterality | None
    box: Box
    is_flipped: bool
    score: float
    flags: tuple[QCFlag, ...]
    field_of_view_plateau_widths: float | None = None


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
        digests: What films that are copies of each other share, by the flag that says so.
    """

    identity: FilmIdentity
    view: View
    spacing: PixelSpacing | None
    spacing_source: SpacingSource
    detector: str
    knees: tuple[Knee, ...]
    is_incomplete: bool
    digests: dict[str, str]


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
        path: The film, a DICOM file or a picture.
        source: Its path relative to the studies, with ``/``.
        config: Field of view, resolution, limits.
        naming: How films are identified.
        detector: Finds the joints.

    Raises:
        ItemError: The film is refused, or shows no knee; ``code`` says why.
    """
    film = _read(path, config)
    _refuse(film, config, naming.views)
    identity = naming.identify(source, film)
    joints = detector.detect(film.pixels, film.spacing)
    if not joints:
        message = f"no joint with a score of {detector.min_score:g} or more was found"
        raise ItemError("E_NO_JOINT", message, stage="detect")
    sided = assign_sides(joints, film, identity.path_side)
    film_flags = _film_flags(film, identity)
    if shows_one_knee(film, joints):
        knees = [keep_whole(film, sided[0], film_flags)]
    else:
        knees = cut_knees(film, sided, config, film_flags)
    return FilmKnees(
        identity,
        film.view,
        film.spacing,
        film.spacing_source,
        detector.name,
        tuple(knees),
        len(film.stated_sides) > len(joints),
        _digests(film),
    )


def read_greys(path: Path, config: PreprocessConfig) -> Pixels:
    """The greys of a film, as the boxes of its knees lie on it, (rows, columns).

    Raises:
        ItemError: The film is refused, as in :func:`process_film`.
    """
    film = _read(path, config)
    _refuse(film, config, FRONTAL_VIEWS)
    return film.pixels


def _digests(film: Radiograph) -> dict[str, str]:
    digests = {str(QCFlag.DUPLICATE_PIXELS): pixel_digest(film)}
    if film.instance_digest is not None:
        digests[str(QCFlag.DUPLICATE_INSTANCE)] = film.instance_digest
    return digests


def _read(path: Path, config: PreprocessConfig) -> Radiograph:
    with as_item_errors("read", "E_READ"):
        read = read_picture if is_picture(path) else read_film
    return read(path, max_pixels=config.max_pixels, user_spacing_mm=config.film_pixel_spacing_mm)


def _refuse(film: Radiograph, config: PreprocessConfig, views: Collection[View]) -> None:
    if film.view not in views:
        of_header = "names no view" if film.view is View.UNKNOWN else f"calls it a {film.view} view"
        message = f"the header {of_header}; knees are cut from {', '.join(views)} (films.views)"
        raise ItemError("E_VIEW", message, stage="header")
    if film.has_burned_in_text and not config.allow_burned_in:
        message = "the header says that text which may name the patient is burned into the film \
(allow_burned_in)"
        raise ItemError("E_BURNED_IN", message, stage="header")


def _film_flags(film: Radiograph, identity: FilmIdentity) -> tuple[QCFlag, ...]:
    found = {
        QCFlag.SPACING_NONE: film.spacing is None,
        QCFlag.SUBJECT_UNKNOWN: identity.subject_id is None,
        QCFlag.IDENTITY_CONFLICT: identity.is_contradicted,
        QCFlag.VISIT_UNLISTED: identity.is_visit_unlisted,
        QCFlag.BURNED_IN_TEXT: film.has_burned_in_text is True,
        QCFlag.TEXT_SUSPECTED: shows_text(film.pixels),
    }
    return (*film.flags, *(flag for flag, is_found in found.items() if is_found))


def shows_one_knee(film: Radiograph, joints: list[JointDetection]) -> bool:
    """Whether a film is an image of one knee already, so that there is nothing to cut away.

    It has one joint near its middle and no millimetres, and spans fewer than 1.4 widths of the
    tibial plateau: those of public collections span 1.1 to 1.3, a crop of 140 mm about 1.8. What is
    wider is cut like any film, so that a grader meets the knee at the size that it learnt.
    """
    if len(joints) != 1 or film.spacing is not None:
        return False
    box = joints[0].box
    rows, columns = film.pixels.shape
    places = (box.centre_px[0] / columns, box.centre_px[1] / rows)
    low, high = _MIDDLE
    widths = max(columns / box.width_px, rows / box.height_px)
    return widths < _MOST_WIDTHS_OF_ONE_KNEE and all(low <= place <= high for place in places)


def keep_whole(film: Radiograph, sided: SidedJoint, film_flags: tuple[QCFlag, ...] = ()) -> Knee:
    """Take an image of one knee as it is, at its own size; a picture also in its own greys.

    Its field of view is left open: nobody says where in the frame the joint was meant to stand.
    """
    low, high = film.display_range or _grey_range(film)
    is_flipped = _is_lateral_on_the_right(sided.laterality, film)
    image = to_uint16(film.pixels[:, ::-1] if is_flipped else film.pixels, low, high)
    flags = (
        QCFlag.ALREADY_CROPPED,
        *film_flags,
        *sided.flags,
        *_joint_flags(film, sided.joint.box, grey_range(film.pixels)),
        *image_flags(image),
    )
    rows, columns = film.pixels.shape
    whole, score = Box(0, 0, columns, rows), sided.joint.score
    return Knee(image, sided.laterality, whole, is_flipped, score, tuple(dict.fromkeys(flags)))


def cut_knees(
    film: Radiograph,
    joints: list[SidedJoint],
    config: PreprocessConfig,
    film_flags: tuple[QCFlag, ...] = (),
) -> list[Knee]:
    """Cut a square of ``crop_mm`` around each joint and bring it to 16 bits.

    Without millimetres the square is ``crop_mm / 76`` of the joint's box, which is as wide as the
    plateau: 76 mm in an average knee. Greys run from the film's 0.1 to its 99.9 percentile, the
    same for both knees: the mapping is monotone and spends no range on dead pixels or bright rims.
    """
    low, high = _grey_range(film)
    side_px = round(config.crop_mm / config.pixel_spacing_mm)
    knees = []
    for sided in joints:
        box = sided.joint.box
        size_px = _crop_size_px(film, box, config.crop_mm)
        cut = crop(film.pixels, box.centre_px, size_px, side_px, outside=low)
        # a left knee is the mirror image of a right one; as hung, its lateral side is on the right
        is_flipped = _is_lateral_on_the_right(sided.laterality, film)
        image = to_uint16(cut.pixels[:, ::-1] if is_flipped else cut.pixels, low, high)
        flags = (
            *film_flags,
            *sided.flags,
            *([QCFlag.BOX_CLIPPED] if cut.is_clipped else []),
            *place_flags(box, film.pixels.shape, is_made_for_two=is_made_for_two(film)),
            *_joint_flags(film, box, (low, high)),
            *image_flags(image),
        )
        knees.append(
            Knee(
                image,
                sided.laterality,
                cut.box,
                is_flipped,
                sided.joint.score,
                tuple(dict.fromkeys(flags)),
                size_px[0] / box.width_px,
            )
        )
    return knees


def _grey_range(film: Radiograph) -> tuple[float, float]:
    low, high = grey_range(film.pixels)
    if high <= low:
        raise ItemError("E_FLAT", "99.8 % of the film is a single grey", stage="cut")
    return low, high


def _crop_size_px(film: Radiograph, joint: Box, crop_mm: float) -> tuple[float, float]:
    if film.spacing is not None:
        return crop_mm / film.spacing.column_mm, crop_mm / film.spacing.row_mm
    factor = crop_mm / PLATEAU_MM
    return joint.width_px * factor, joint.height_px * factor


def _joint_flags(film: Radiograph, joint: Box, grey: tuple[float, float]) -> list[QCFlag]:
    cut_off = [QCFlag.JOINT_CUT_OFF] if is_cut_off(film.pixels, joint, grey) else []
    return cut_off + picture_flags(close_up(film.pixels, joint))


def _is_lateral_on_the_right(laterality: Laterality | None, film: Radiograph) -> bool:
    return laterality is not None and (laterality is Laterality.LEFT) != is_mirrored(film)
