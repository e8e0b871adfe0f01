"""What a reader should know about a knee image before trusting it."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from kneeoa_mm.records import Box


class QCFlag(StrEnum):
    """A doubt about a film or a knee; the table of knees joins them with ``;``."""

    FLAT = "flat"
    """The knee image shows (almost) one grey."""
    LOW_CONTRAST = "low_contrast"
    """Its greys use less than a tenth of the film's range."""
    SATURATED = "saturated"
    """More than 5 % of the knee image is at full white."""
    NEGATIVE = "negative"
    """Bone is darker than what lies beside the leg: the polarity is very likely wrong."""
    ROTATED = "rotated"
    """The leg leans by more than 10 degrees, or is so lopsided that it seems to. Of 6,604 real
    knees 0.1 % of grade 0 and 11 % of grade 4 carry it: to exclude by it would bias a study."""
    HARDWARE = "hardware"
    """Something as bright and sharp-edged as metal: an implant, a screw, a staple."""
    OFF_CENTRE = "off_centre"
    """The joint lies in the outer fifth of the film, or of its half of a film of two knees."""
    JOINT_CUT_OFF = "joint_cut_off"
    """The edge of the film or of the exposed field cuts through the joint itself."""
    BOX_CLIPPED = "box_clipped"
    """The knee image reaches beyond the film; what is outside is black."""
    ALREADY_CROPPED = "already_cropped"
    """The film is an image of a single knee already: it is kept whole, at its own size."""
    ONE_JOINT = "one_joint"
    """The header promises both knees, or the film is made for two, and one was found."""
    RIVAL_JOINTS = "rival_joints"
    """More places than one looked like the joint of this side; the best one was taken."""
    LATERALITY_CONFLICT = "laterality_conflict"
    """Header, file name and side of the film disagree."""
    LATERALITY_UNKNOWN = "laterality_unknown"
    """Nothing tells left from right; the image is not mirrored."""
    LATERALITY_FROM_POSITION = "laterality_from_position"
    """Only the side of the film tells left from right, and the film shows one knee."""
    ORIENTATION_DOUBTFUL = "orientation_doubtful"
    """The header says that the film was mirrored, turned or turned over, and not how it hangs."""
    SUBJECT_UNKNOWN = "subject_unknown"
    """Neither the path nor the header names the subject."""
    IDENTITY_CONFLICT = "identity_conflict"
    """The path and the header name different people or visits; the path counted."""
    VISIT_UNLISTED = "visit_unlisted"
    """The path names a visit that the cohort does not list; the header's counts, if it has one."""
    BURNED_IN_TEXT = "burned_in_text"
    """The header says that text which may name the patient is burned into the film."""
    TEXT_SUSPECTED = "text_suspected"
    """Near the border of the film stands what looks like a line of text. Its absence promises
    nothing."""
    DUPLICATE_PIXELS = "duplicate_pixels"
    """Another film of the run has the very same pixels."""
    DUPLICATE_INSTANCE = "duplicate_instance"
    """Another film of the run has the same SOP Instance UID, which should name one film alone."""
    FOR_PROCESSING = "for_processing"
    """Raw values, which the maker did not process for display."""
    SPACING_NONE = "spacing_none"
    """There are no millimetres: the image is cut by the joint's box."""
    ASPECT_IGNORED = "aspect_ignored"
    """There are no millimetres, and the header says that pixels are not square: the image is
    stretched."""
    SPACING_INVALID = "spacing_invalid"
    """A pixel spacing in the header is zero, absurd or no number, and was not used."""
    MODALITY_IGNORED = "modality_ignored"
    """The modality LUT or rescale is not valid and was not applied."""
    VOI_IGNORED = "voi_ignored"
    """The VOI LUT or window is not valid; the percentile window alone was applied."""
    POLARITY_CONFLICT = "polarity_conflict"
    """Photometric Interpretation and Presentation LUT Shape disagree; the former was used."""
    HEADER_NONSTANDARD = "header_nonstandard"
    """The header breaks the DICOM standard somewhere that was read."""


REMARKS = frozenset(
    {
        QCFlag.ALREADY_CROPPED,
        QCFlag.FOR_PROCESSING,
        QCFlag.HEADER_NONSTANDARD,
        QCFlag.SPACING_NONE,
        QCFlag.SUBJECT_UNKNOWN,
    }
)
"""Flags that say what a film is, rather than that something may be wrong with a knee."""


_FLAT_SPAN, _LOW_CONTRAST_SPAN = 0.01, 0.10
_SATURATED_SHARE = 0.05
_FULL_WHITE = 65535
_EDGE_SHARE = 0.2
_LARGEST_OVERHANG = 0.02
_STRIP, _STRIP_LENGTH = (0.10, 0.18), (0.25, 0.75)
"""Where in the joint's box a shutter is looked for: depth from each side, and the part along it."""
_SHUTTER_GREY, _SHUTTER_SHARE = 0.02, 0.9


def image_flags(image: NDArray[np.uint16]) -> list[QCFlag]:
    """Judge the greys of a knee image.

    Args:
        image: (rows, columns), 0 and 65535 being the film's darkest and brightest grey.
    """
    # a quarter of the pixels tells as much
    low, high = np.percentile(image[::2, ::2], [5, 95])
    span = (high - low) / _FULL_WHITE
    flags = []
    if span < _FLAT_SPAN:
        flags.append(QCFlag.FLAT)
    elif span < _LOW_CONTRAST_SPAN:
        flags.append(QCFlag.LOW_CONTRAST)
    if np.mean(image == _FULL_WHITE) > _SATURATED_SHARE:
        flags.append(QCFlag.SATURATED)
    return flags


def place_flags(joint: Box, shape: tuple[int, int], *, is_made_for_two: bool) -> list[QCFlag]:
    """Judge where on the film the joint lies.

    Args:
        joint: Box of the joint.
        shape: Rows and columns of the film.
        is_made_for_two: The film has a knee in each half, and the half is what counts.
    """
    rows, columns = shape
    column, row = joint.centre_px
    across = column / columns
    if is_made_for_two:
        across = 2 * across % 1
    is_central = all(_EDGE_SHARE <= place <= 1 - _EDGE_SHARE for place in (across, row / rows))
    return [] if is_central else [QCFlag.OFF_CENTRE]


def is_cut_off(pixels: NDArray[np.float32], joint: Box, grey_range: tuple[float, float]) -> bool:
    """Whether the edge of the film, or of the exposed field, cuts through a joint.

    Behind a shutter all is black; that far inside the box of a joint there is bone on every side.

    Args:
        pixels: The film, (rows, columns).
        joint: Box of the joint.
        grey_range: What counts as black and white on this film.
    """
    rows, columns = pixels.shape
    overhang_px = max(
        -joint.left_px, -joint.top_px, joint.right_px - columns, joint.bottom_px - rows
    )
    if overhang_px > _LARGEST_OVERHANG * joint.width_px:
        return True
    low, high = grey_range
    black = low + _SHUTTER_GREY * (high - low)
    inside = pixels[max(joint.top_px, 0) : joint.bottom_px, max(joint.left_px, 0) : joint.right_px]
    # each side in turn becomes the upper one
    return any(_is_shut(np.rot90(inside, turn), black) for turn in range(4))


def _is_shut(box: NDArray[np.float32], black: float) -> bool:
    depth, length = (
        slice(round(start * size), max(round(stop * size), round(start * size) + 1))
        for (start, stop), size in zip((_STRIP, _STRIP_LENGTH), box.shape, strict=True)
    )
    return bool(np.mean(box[depth, length] <= black) >= _SHUTTER_SHARE)
