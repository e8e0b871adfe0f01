"""What the header of a film refuses: no radiograph, no knee, or more than memory should hold."""

from __future__ import annotations

import re
from typing import NoReturn

from kneeoa_mm.errors import ItemError
from kneeoa_mm.imaging.attributes import Attributes
from kneeoa_mm.records import Photometric

LEAST_SIDE_PX = 32
"""A thumbnail has more; noise of fewer pixels passes for a joint."""

_PROJECTION_MODALITIES = {"CR", "DX", "RG"}
_STANDARD_CLASSES = "1.2.840.10008."
_FILM_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography Image Storage
    "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray, for presentation
    "1.2.840.10008.5.1.4.1.1.1.1.1",  # Digital X-Ray, for processing
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture, as of film digitisers
    "1.2.840.10008.5.1.4.1.1.7.2",  # the same in 8 bits, with room for several frames
    "1.2.840.10008.5.1.4.1.1.7.3",  # the same in 16 bits
}
_OTHER_PART = re.compile(
    r"\b(ABDOM|ANKLE|ARM\b|BREAST|CALCANE|CERVIC|CHEST|CLAVIC|COCCYX|[CLST]?SPINE|ELBOW|FACE\b|FEET"
    r"|FINGER|FOOT|FOREARM|HANDS?\b|HEAD|HEART|HEEL|HIPS?\b|HUMERUS|JAW|LUMBAR|LUNG|MANDIB|NECK"
    r"|PELVI|RIBS?\b|SACR|SCAPUL|SHOULDER|SINUS|SKULL|STERN|TEETH|THORA|THUMB|TOES?\b"
    r"|UPPER ?(EXTREMITY|LIMB)|WRIST)"
)
"""Body parts without a knee, after DICOM PS3.16 Table L-1."""
_WITH_KNEE = re.compile(r"KNEE|PATELL|\bLEGS?\b")
_KNEE = re.compile(r"knee", re.IGNORECASE)
_DESCRIPTIONS = ("SeriesDescription", "StudyDescription", "ProtocolName")


def refuse_what_is_no_film(header: Attributes, max_pixels: int) -> None:
    """Refuse, before anything is decoded, what cannot be one greyscale film of a knee.

    Args:
        header: The film's header.
        max_pixels: Films of more pixels are refused.

    Raises:
        ItemError: The header rules the film out; ``code`` says why.
    """
    if not _is_projection(header):
        _refuse("the object is no projection radiograph (modality CR, DX or RG)")
    rows, columns = header.integer("Rows"), header.integer("Columns")
    if not rows or not columns:
        _refuse("the object holds no image", "E_NO_PIXELS")
    if (header.integer("NumberOfFrames") or 1) > 1:
        _refuse("the object has several frames")
    if (header.integer("SamplesPerPixel") or 1) > 1:
        _refuse("the image is in colour")
    if header.text("PhotometricInterpretation") not in set(Photometric):
        _refuse("the image is not MONOCHROME1 or MONOCHROME2")
    refuse_size(rows, columns, max_pixels)
    allocated, stored = header.integer("BitsAllocated"), header.integer("BitsStored")
    if allocated not in {8, 16}:
        _refuse("pixels must take 8 or 16 bits", "E_DECODE")
    if stored is None or not 1 < stored <= allocated:
        _refuse("Bits Stored contradicts Bits Allocated", "E_DECODE")
    if shows_another_part(header):
        _refuse("the header names another part of the body", "E_NOT_KNEE")


def refuse_size(rows: int, columns: int, max_pixels: int) -> None:
    """Refuse what memory should not hold, and what is too small to show a knee.

    Raises:
        ItemError: ``E_TOO_LARGE`` or ``E_TOO_SMALL``.
    """
    if rows * columns > max_pixels:
        _refuse(f"{columns} x {rows} px is more than {max_pixels} (max_pixels)", "E_TOO_LARGE")
    if min(rows, columns) < LEAST_SIDE_PX:
        _refuse(f"{columns} x {rows} px is too small to show a knee", "E_TOO_SMALL")


def shows_another_part(header: Attributes) -> bool:
    """Whether Body Part Examined (0018,0015) or the Anatomic Region (0008,2218) rules out a knee.

    A word that is no known body part rules nothing out, and neither does another part where a
    description of the film speaks of a knee: technicians pick the part from a list in haste.
    """
    stated = (header.text("BodyPartExamined"), header.meaning("AnatomicRegionSequence"))
    part = re.sub("[^A-Z]+", " ", " ".join(filter(None, stated)).upper())
    if _WITH_KNEE.search(part) or not _OTHER_PART.search(part):
        return False
    described = (header.text(name) for name in _DESCRIPTIONS)
    return not any(text and _KNEE.search(text) for text in described)


def _is_projection(header: Attributes) -> bool:
    modality, sop_class = header.text("Modality"), header.text("SOPClassUID")
    if modality in _PROJECTION_MODALITIES:
        is_foreign = sop_class is not None and sop_class.startswith(_STANDARD_CLASSES)
        return not is_foreign or sop_class in _FILM_CLASSES
    return modality in {None, "OT"} and sop_class in _FILM_CLASSES


def _refuse(message: str, code: str = "E_NOT_PROJECTION_XR") -> NoReturn:
    raise ItemError(code, message, stage="header")
