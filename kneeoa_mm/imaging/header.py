"""What header values mean: grey scale, millimetres, sides, projection, visit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from kneeoa_mm.imaging.attributes import Attributes
from kneeoa_mm.imaging.greyscale import GreyScale, Lut, Padding, Rescale, Window
from kneeoa_mm.imaging.quality import QCFlag
from kneeoa_mm.records import Laterality, Photometric, PixelSpacing, SpacingSource, View

LEAST_SPACING_MM, LARGEST_SPACING_MM = 0.02, 1.0
"""Radiography detectors and film digitisers lie well within; anything else is a mistake."""
_LARGEST_MAGNIFICATION = 2.0
_ROUNDING = 1e-3
_AT_DETECTOR = ("ImagerPixelSpacing", "NominalScannedPixelSpacing")
_FOR_PROCESSING_CLASS = "1.2.840.10008.5.1.4.1.1.1.1.1"
_DAYS_PER_MONTH = 365.25 / 12

_SIDES = {"R": {Laterality.RIGHT}, "L": {Laterality.LEFT}, "B": set(Laterality)}
_FIXED_FLEXION = re.compile(r"fixed[ _-]*flexion|\bPA[ _-]*FF\b|synaflexer", re.IGNORECASE)
_PROJECTIONS = {
    name: re.compile(f"(?<![a-z])({words})(?![a-z])", re.IGNORECASE)
    for name, words in {
        "AP": "AP|antero-?posterior",
        "PA": "PA|postero-?anterior",
        "LATERAL": "lat(eral)?|medio-?lateral|latero-?medial|sagittal",
        # along the patella; the last names are of DICOM's CID 4012
        "SKYLINE": "skyline|sunrise|axial|tangential|patell(a|ar|o-?femoral)[ _-]*view|"
        "infero-?superior|supero-?inferior|cranio-?caudal|caudo-?cranial|"
        "laurin|merchant|settegast|hughston",
        "OBLIQUE": "obliques?",
    }.items()
}
_OF_SIDES = re.compile("(?<![a-z])(bi|uni|contra|ipsi)[ _-]*lat(eral)?(?![a-z])", re.IGNORECASE)
"""Words that tell which knees a film shows, not how; some writers split them before `lateral`."""
_BEFORE_AXIAL = re.compile("(patell[a-z]*[ _-]+)(AP|PA)(?=[ _-]+axial)", re.IGNORECASE)
"""Along a patella they tell the way of the beam, and make no frontal film."""
_FRONTAL = {"AP", "PA"}
_OTHER_VIEWS = (View.SKYLINE, View.OBLIQUE, View.LATERAL)
_OF_POSITION = {
    **dict.fromkeys(("LL", "RL", "LLD", "RLD", "LM", "ML"), "LATERAL"),
    **dict.fromkeys(("LLO", "RLO", "LAO", "RAO", "LPO", "RPO"), "OBLIQUE"),
}
"""View Position (0018,5101) in codes that hold no word."""


def read_grey_scale(header: Attributes) -> tuple[GreyScale, list[QCFlag]]:
    """How stored values become display grey, and the doubts about it.

    Of several VOI LUTs or windows the first counts, a LUT before a window: it is what a viewer
    shows unasked. What is not valid is left out, and the percentile window of the knee images
    stands alone.
    """
    flags = []
    modality: Lut | Rescale | None = None
    voi: Lut | Window | None = None
    try:
        modality = header.lut("ModalityLUTSequence") or _rescale(header)
    except ValueError:
        flags.append(QCFlag.MODALITY_IGNORED)
    try:
        voi = header.lut("VOILUTSequence") or _window(header)
    except ValueError:
        flags.append(QCFlag.VOI_IGNORED)
    is_inverted = header.text("PhotometricInterpretation") == Photometric.MONOCHROME1
    shape = header.text("PresentationLUTShape")
    if shape in {"INVERSE", "IDENTITY"} and (shape == "INVERSE") != is_inverted:
        flags.append(QCFlag.POLARITY_CONFLICT)
    return GreyScale(modality, voi, is_inverted, _padding(header)), flags


def is_for_processing(header: Attributes) -> bool:
    """Whether the film is the detector's raw image, which the maker meant nobody to read.

    Its polarity is that of Photometric Interpretation, like any other film's. Pixel Intensity
    Relationship Sign (0028,1041) tells how values follow the beam and "does not define a
    transformation" for display (PS3.3 C.8.11.3.1.2), so it inverts nothing.
    """
    is_raw_class = header.text("SOPClassUID") == _FOR_PROCESSING_CLASS
    return is_raw_class or header.text("PresentationIntentType") == "FOR PROCESSING"


def _rescale(header: Attributes) -> Rescale | None:
    slope, intercept = header.numbers("RescaleSlope"), header.numbers("RescaleIntercept")
    if slope is None and intercept is None:
        return None
    if slope is not None and len(slope) == 1 and intercept != ():
        rescale = Rescale(slope[0], intercept[0] if intercept else 0.0)
        if rescale.is_valid:
            return rescale
    raise ValueError("the rescale is not valid")


def _padding(header: Attributes) -> Padding | None:
    bounds = [header.integer(f"PixelPadding{name}") for name in ("Value", "RangeLimit")]
    stated = [bound for bound in bounds if bound is not None]
    if bounds[0] is None:
        return None
    # the VR is ambiguous, and writers choose the one that the pixels do not have
    is_signed = header.integer("PixelRepresentation") == 1
    first, *_, last = sorted(
        (bound + 2**15) % 2**16 - 2**15 if is_signed else bound % 2**16
        for bound in (*stated, bounds[0])
    )
    return Padding(first, last)


def _window(header: Attributes) -> Window | None:
    centre, width = header.numbers("WindowCenter"), header.numbers("WindowWidth")
    if centre is None and width is None:
        return None
    function = header.text("VOILUTFunction") or "LINEAR"
    if centre and width and function in {"LINEAR", "LINEAR_EXACT", "SIGMOID"}:
        window = Window(centre[0], width[0], function)  # type: ignore[arg-type]
        if window.is_valid:
            return window
    raise ValueError("the window is not valid")


def read_spacing(
    header: Attributes,
) -> tuple[PixelSpacing | None, SpacingSource, list[QCFlag]]:
    """Millimetres of a film, with where they come from; never an invented value.

    Pixel Spacing (0028,0030) is calibrated, unless it only repeats Imager Pixel Spacing
    (0018,1164), as closely as writers round it, without a Pixel Spacing Calibration Type
    (0028,0A02) (DICOM PS3.3 10.7.1.3).
    Imager Pixel Spacing is at the detector; it is divided by the Estimated Radiographic
    Magnification Factor (0018,1114) where that is given. Nominal Scanned Pixel Spacing
    (0018,2010) is on the sheet that was digitised, which lay where a detector lies now.

    Returns:
        Spacing, source and doubts.
    """
    stated = {name: header.numbers(name) for name in ("PixelSpacing", *_AT_DETECTOR)}
    valid = {name: _valid(pair) for name, pair in stated.items() if pair is not None}
    flags = [] if all(valid.values()) else [QCFlag.SPACING_INVALID]
    plane = valid.get("PixelSpacing")
    detector = next((pair for name in _AT_DETECTOR if (pair := valid.get(name))), None)
    is_calibrated = header.text("PixelSpacingCalibrationType") is not None
    if plane and (is_calibrated or not _is_repeated(plane, detector)):
        return plane, SpacingSource.CALIBRATED, flags
    if detector is None:
        return None, SpacingSource.NONE, flags
    magnification = header.numbers("EstimatedRadiographicMagnificationFactor")
    if magnification is None:
        return detector, SpacingSource.DETECTOR, flags
    if len(magnification) != 1 or not 1 <= magnification[0] <= _LARGEST_MAGNIFICATION:
        return detector, SpacingSource.DETECTOR, [QCFlag.SPACING_INVALID]
    in_patient = PixelSpacing(*(distance_mm / magnification[0] for distance_mm in detector))
    return in_patient, SpacingSource.DETECTOR, flags


def _is_repeated(plane: PixelSpacing, detector: PixelSpacing | None) -> bool:
    return detector is not None and all(
        math.isclose(one_mm, other_mm, rel_tol=_ROUNDING)
        for one_mm, other_mm in zip(plane, detector, strict=True)
    )


def user_spacing(spacing_mm: float | None) -> tuple[PixelSpacing | None, SpacingSource]:
    """Millimetres that the user states for films without any, and their source.

    Example:
        >>> user_spacing(0.2)
        (PixelSpacing(row_mm=0.2, column_mm=0.2), <SpacingSource.USER: 'USER'>)
    """
    if spacing_mm is None:
        return None, SpacingSource.NONE
    return PixelSpacing(spacing_mm, spacing_mm), SpacingSource.USER


def _valid(pair: Sequence[float]) -> PixelSpacing | None:
    if len(pair) != 2 or not all(LEAST_SPACING_MM <= mm <= LARGEST_SPACING_MM for mm in pair):
        return None
    return PixelSpacing(*pair)


def read_sides(header: Attributes) -> tuple[frozenset[Laterality], list[QCFlag]]:
    """The knees that a film shows by Image Laterality (0020,0062), else Laterality (0020,0060).

    Returns:
        One side, both, or none where the header does not tell; and the doubts.
    """
    of_image, of_series = (
        frozenset(_SIDES.get((header.text(name) or "").upper(), ()))
        for name in ("ImageLaterality", "Laterality")
    )
    disagree = len(of_image) == len(of_series) == 1 and of_image != of_series
    return of_image or of_series, [QCFlag.LATERALITY_CONFLICT] if disagree else []


def read_view(header: Attributes) -> View:
    """Projection by View Position (0018,5101), else View Code (0054,0220), else Series Description.

    The description of the study names every film that was taken, so no projection is read from it.
    A PA film is called PA_FIXED_FLEXION only where a description says so, be it the study's. Where
    nothing names one kind of projection alone, a film along whose rows Patient Orientation
    (0020,0020) runs to the front or the back is a lateral one.
    """
    series, study = (header.text(name) or "" for name in ("SeriesDescription", "StudyDescription"))
    named = _named_projections(header, series)
    frontal, others = named & _FRONTAL, named - _FRONTAL
    if others and not frontal:
        return next(view for view in _OTHER_VIEWS if view in others)
    is_open = not frontal or bool(others)
    if is_open and (header.text("PatientOrientation") or "").upper()[:1] in {"A", "P"}:
        return View.LATERAL
    if named <= {"PA"} and _FIXED_FLEXION.search(f"{series} {study}"):
        return View.PA_FIXED_FLEXION
    return View.AP if named == {"AP"} else View.UNKNOWN


def _named_projections(header: Attributes, series: str) -> set[str]:
    """What the first source that names any projection names; a text may name several."""
    position = (header.text("ViewPosition") or "").upper()
    if position in _OF_POSITION:
        return {_OF_POSITION[position]}
    code = header.meaning("ViewCodeSequence") or ""
    for text in (position, code, series):
        told = _BEFORE_AXIAL.sub(r"\1", _OF_SIDES.sub(" ", text))
        named = {name for name, words in _PROJECTIONS.items() if words.search(told)}
        if text == code and "OBLIQUE" in named:
            # a code names one projection: "antero-posterior oblique" is not two
            return {"OBLIQUE"}
        if named:
            return named
    return set()


def read_months(
    time_point: str | None, days_since_baseline: float | None, visits: Mapping[str, int]
) -> int | None:
    """Months since baseline, from the visit's code or the offset in days; None if unknown.

    Example:
        >>> read_months("V03", None, {"V00": 0, "V03": 24}), read_months(None, 365.0, {})
        (24, 12)
    """
    if time_point is not None and time_point in visits:
        return visits[time_point]
    if days_since_baseline is None or days_since_baseline < -_DAYS_PER_MONTH / 2:
        return None
    return max(0, round(days_since_baseline / _DAYS_PER_MONTH))
