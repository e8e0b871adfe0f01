"""Meaning of header values: millimetres never invented, faults flagged, nothing guessed."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import numpy as np
import phantoms
import pytest
from pydicom.filereader import read_dataset
from pydicom.tag import Tag

from kneeoa_mm.imaging.attributes import Attributes
from kneeoa_mm.imaging.greyscale import Window
from kneeoa_mm.imaging.header import (
    read_grey_scale,
    read_months,
    read_sides,
    read_spacing,
    read_view,
)
from kneeoa_mm.imaging.quality import QCFlag
from kneeoa_mm.records import Laterality, SpacingSource, View

VALUES = np.arange(64, dtype=np.uint16).reshape(8, 8)


def _attributes(**elements: Any) -> Attributes:
    return Attributes(phantoms.dataset(VALUES, **({"ImagerPixelSpacing": None} | elements)))


def _raw(keyword: str, text: bytes) -> Attributes:
    """A header as read from a file whose element holds ``text``."""
    element = struct.pack("<HH2sH", Tag(keyword).group, Tag(keyword).element, b"DS", len(text))
    return Attributes(read_dataset(BytesIO(element + text), False, True))


@pytest.mark.parametrize(
    ("elements", "spacing", "source"),
    [
        ({}, None, SpacingSource.NONE),
        ({"PixelSpacing": [0.2, 0.3]}, (0.2, 0.3), SpacingSource.CALIBRATED),
        ({"ImagerPixelSpacing": [0.2, 0.3]}, (0.2, 0.3), SpacingSource.DETECTOR),
        (
            {"PixelSpacing": [0.18, 0.18], "ImagerPixelSpacing": [0.2, 0.2]},
            (0.18, 0.18),
            SpacingSource.CALIBRATED,
        ),
        (
            {"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [0.2, 0.2]},
            (0.2, 0.2),
            SpacingSource.DETECTOR,
        ),
        (
            {
                "PixelSpacing": [0.2, 0.2],
                "ImagerPixelSpacing": [0.2, 0.2],
                "PixelSpacingCalibrationType": "FIDUCIAL",
            },
            (0.2, 0.2),
            SpacingSource.CALIBRATED,
        ),
    ],
)
def test_spacing_comes_with_its_source(
    elements: dict[str, Any], spacing: Any, source: SpacingSource
) -> None:
    assert read_spacing(_attributes(**elements)) == (spacing, source, [])


def test_spacing_at_the_detector_is_divided_by_the_magnification() -> None:
    header = _attributes(
        ImagerPixelSpacing=[0.22, 0.33], EstimatedRadiographicMagnificationFactor=1.1
    )
    spacing, source, flags = read_spacing(header)
    assert spacing == pytest.approx((0.2, 0.3))
    assert (source, flags) == (SpacingSource.DETECTOR, [])


@pytest.mark.parametrize("pair", [[0, 0], [0.2, 0], [25.4, 25.4], [-0.2, 0.2], [0.2]])
def test_absurd_spacing_is_flagged_and_not_used(pair: list[float]) -> None:
    assert read_spacing(_attributes(PixelSpacing=pair)) == (
        None,
        SpacingSource.NONE,
        [QCFlag.SPACING_INVALID],
    )
    fallback = read_spacing(_attributes(PixelSpacing=pair, ImagerPixelSpacing=[0.2, 0.2]))
    assert fallback == ((0.2, 0.2), SpacingSource.DETECTOR, [QCFlag.SPACING_INVALID])


def test_decimal_commas_are_read_and_other_text_is_no_number() -> None:
    assert _raw("PixelSpacing", b"0,15\\0,25 ").numbers("PixelSpacing") == (0.15, 0.25)
    assert _raw("PixelSpacing", b"0.2mm\\0.2").numbers("PixelSpacing") == ()
    assert _raw("PixelSpacing", b"nan\\0.2").numbers("PixelSpacing") == ()
    assert _raw("PixelSpacing", b"").numbers("PixelSpacing") is None


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": 2000, "WindowWidth": 0},
        {"WindowCenter": 2000, "WindowWidth": 0.5},
        {"WindowWidth": 400},
        {"WindowCenter": 2000, "WindowWidth": 400, "VOILUTFunction": "CUBIC"},
    ],
)
def test_an_impossible_window_is_left_out_and_flagged(elements: dict[str, Any]) -> None:
    scale, flags = read_grey_scale(_attributes(**elements))
    assert scale.voi is None
    assert flags == [QCFlag.VOI_IGNORED]


def test_of_several_windows_the_first_is_used() -> None:
    scale, flags = read_grey_scale(_attributes(WindowCenter=[2000, 9], WindowWidth=[400, 9]))
    assert scale.voi == Window(2000, 400)
    assert flags == []


def test_a_slope_of_zero_would_blacken_the_film_and_is_left_out() -> None:
    scale, flags = read_grey_scale(_attributes(RescaleSlope=0, RescaleIntercept=5))
    assert scale.modality is None
    assert flags == [QCFlag.MODALITY_IGNORED]


def test_a_presentation_lut_shape_that_contradicts_the_photometric_is_flagged() -> None:
    for shape, photometric, flags in [
        ("IDENTITY", "MONOCHROME2", []),
        ("INVERSE", "MONOCHROME1", []),
        ("INVERSE", "MONOCHROME2", [QCFlag.POLARITY_CONFLICT]),
    ]:
        header = _attributes(PresentationLUTShape=shape, PhotometricInterpretation=photometric)
        scale, found = read_grey_scale(header)
        assert (scale.is_inverted, found) == (photometric == "MONOCHROME1", flags)


@pytest.mark.parametrize(
    ("image", "series", "sides", "flags"),
    [
        ("B", None, {"L", "R"}, []),
        ("R", None, {"R"}, []),
        (None, "L", {"L"}, []),
        ("U", None, set(), []),
        ("R", "L", {"R"}, [QCFlag.LATERALITY_CONFLICT]),
    ],
)
def test_sides_of_the_header(image: Any, series: Any, sides: set[str], flags: list[QCFlag]) -> None:
    found = read_sides(_attributes(ImageLaterality=image, Laterality=series))
    assert found == ({Laterality(side) for side in sides}, flags)


@pytest.mark.parametrize(
    ("position", "description", "view"),
    [
        ("PA", "Bilateral PA Fixed Flexion Knee", View.PA_FIXED_FLEXION),
        ("PA", "KNEE", View.UNKNOWN),
        ("AP", "KNEE FIXED FLEXION", View.AP),
        ("LL", "KNEE", View.LATERAL),
        (None, "Knee lateral left", View.LATERAL),
        ("PA", "lateral compartment OA", View.UNKNOWN),
        (None, "Patella skyline", View.SKYLINE),
    ],
)
def test_view_is_only_what_the_header_says(position: Any, description: str, view: View) -> None:
    header = _attributes(ViewPosition=position, SeriesDescription=description)
    assert read_view(header) is view


@pytest.mark.parametrize(
    ("time_point", "days", "months"),
    [
        ("V03", None, 24),
        ("V03", 3.0, 24),
        ("V99", None, None),
        ("V99", 730.0, 24),
        (None, 0.0, 0),
        (None, -5.0, 0),
        (None, -400.0, None),
        (None, None, None),
    ],
)
def test_months_come_from_the_visit_then_from_days(time_point: Any, days: Any, months: Any) -> None:
    assert read_months(time_point, days, {"V00": 0, "V03": 24}) == months
