"""Meaning of header values: millimetres never invented, faults flagged, nothing guessed."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import numpy as np
import phantoms
import pytest
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts
from pydicom.tag import Tag
from pydicom.uid import DigitalXRayImageStorageForProcessing

from kneeoa_mm.imaging.attributes import Attributes
from kneeoa_mm.imaging.greyscale import Lut, Padding, Window
from kneeoa_mm.imaging.header import (
    is_for_processing,
    read_grey_scale,
    read_months,
    read_sides,
    read_spacing,
    read_view,
)
from kneeoa_mm.imaging.quality import QCFlag
from kneeoa_mm.records import FRONTAL_VIEWS, Laterality, SpacingSource, View

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
        # the same distance as two writers round it; a calibration changes it by percents
        (
            {"PixelSpacing": [0.143, 0.143], "ImagerPixelSpacing": [0.1430001, 0.1430001]},
            (0.1430001, 0.1430001),
            SpacingSource.DETECTOR,
        ),
        (
            {"PixelSpacing": [0.139, 0.143], "ImagerPixelSpacing": [0.143, 0.143]},
            (0.139, 0.143),
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


def test_spacing_of_a_digitised_sheet_is_that_of_the_detector_it_replaced() -> None:
    sheet = _attributes(NominalScannedPixelSpacing=[0.175, 0.175])
    assert read_spacing(sheet) == ((0.175, 0.175), SpacingSource.DETECTOR, [])
    both = _attributes(NominalScannedPixelSpacing=[0.175] * 2, PixelSpacing=[0.175] * 2)
    assert read_spacing(both)[1] is SpacingSource.DETECTOR
    absurd = _attributes(NominalScannedPixelSpacing=[17.5, 17.5])
    assert read_spacing(absurd) == (None, SpacingSource.NONE, [QCFlag.SPACING_INVALID])


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_an_impossible_magnification_is_flagged_and_not_used(factor: float) -> None:
    header = _attributes(
        ImagerPixelSpacing=[0.2, 0.2], EstimatedRadiographicMagnificationFactor=factor
    )
    expected = ((0.2, 0.2), SpacingSource.DETECTOR, [QCFlag.SPACING_INVALID])
    assert read_spacing(header) == expected


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


@pytest.mark.parametrize("empty", ["", [], None])
def test_an_empty_window_is_no_window(empty: Any) -> None:
    scale, flags = read_grey_scale(_attributes(WindowCenter=empty, WindowWidth=empty))
    assert (scale.voi, flags) == (None, [])


@pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
def test_narrow_windows_are_allowed_where_the_standard_allows_them(function: str) -> None:
    header = _attributes(WindowCenter=9, WindowWidth=0.5, VOILUTFunction=function)
    scale, flags = read_grey_scale(header)
    assert (scale.voi, flags) == (Window(9, 0.5, function), [])  # type: ignore[arg-type]


def test_of_several_windows_the_first_is_used() -> None:
    scale, flags = read_grey_scale(_attributes(WindowCenter=[2000, 9], WindowWidth=[400, 9]))
    assert scale.voi == Window(2000, 400)
    assert flags == []


@pytest.mark.parametrize(
    "elements",
    [
        {"RescaleSlope": 1e9, "RescaleIntercept": 0},
        {"RescaleSlope": 1, "RescaleIntercept": 1e12},
        {"RescaleIntercept": -1024},
    ],
)
def test_an_impossible_rescale_is_left_out_and_flagged(elements: dict[str, Any]) -> None:
    scale, flags = read_grey_scale(_attributes(**elements))
    assert scale.modality is None
    assert flags == [QCFlag.MODALITY_IGNORED]


def _lut(descriptor: list[int], data: Any, vr: str) -> Any:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", descriptor)
    item.add_new("LUTData", vr, data)
    return [item]


def test_luts_of_eight_bits_may_be_packed() -> None:
    entries = list(range(250, 244, -1))
    for descriptor, data, vr in [
        ([6, 10, 8], bytes(entries), "OW"),
        ([6, 10, 8], np.array(entries, "<u2").tobytes(), "OW"),
        ([6, 10, 8], entries, "US"),
    ]:
        scale, flags = read_grey_scale(_attributes(VOILUTSequence=_lut(descriptor, data, vr)))
        assert (scale.voi, flags) == (Lut(10, tuple(entries)), [])


def test_a_lut_of_an_odd_number_of_bytes_carries_padding() -> None:
    scale, _ = read_grey_scale(_attributes(VOILUTSequence=_lut([5, 0, 8], bytes(range(6)), "OW")))
    assert scale.voi == Lut(0, (0, 1, 2, 3, 4))


def test_a_lut_that_is_cut_off_is_left_out_and_flagged() -> None:
    header = _attributes(VOILUTSequence=_lut([300, 0, 16], list(range(200)), "US"))
    scale, flags = read_grey_scale(header)
    assert (scale.voi, flags) == (None, [QCFlag.VOI_IGNORED])


def test_a_lut_stands_before_a_window() -> None:
    header = _attributes(
        VOILUTSequence=_lut([3, 0, 16], [5, 6, 7], "US"), WindowCenter=9, WindowWidth=9
    )
    assert read_grey_scale(header)[0].voi == Lut(0, (5, 6, 7))


@pytest.mark.parametrize(
    ("elements", "padding"),
    [
        ({}, None),
        ({"PixelPaddingRangeLimit": 7}, None),
        ({"PixelPaddingValue": 7}, Padding(7, 7)),
        ({"PixelPaddingValue": 9, "PixelPaddingRangeLimit": 7}, Padding(7, 9)),
    ],
)
def test_padding_is_a_value_or_a_range(elements: dict[str, int], padding: Padding | None) -> None:
    assert read_grey_scale(_attributes(**elements))[0].padding == padding


def test_padding_takes_the_sign_of_the_pixels() -> None:
    """Its VR is ambiguous: 63536 and -2000 are the same two bytes."""
    signed = _attributes(PixelRepresentation=1)
    signed._dataset.add_new("PixelPaddingValue", "US", 63536)
    assert read_grey_scale(signed)[0].padding == Padding(-2000, -2000)
    unsigned = _attributes(PixelRepresentation=0)
    unsigned._dataset.add_new("PixelPaddingValue", "SS", -2000)
    assert read_grey_scale(unsigned)[0].padding == Padding(63536, 63536)


def test_a_slope_of_zero_would_blacken_the_film_and_is_left_out() -> None:
    scale, flags = read_grey_scale(_attributes(RescaleSlope=0, RescaleIntercept=5))
    assert scale.modality is None
    assert flags == [QCFlag.MODALITY_IGNORED]


@pytest.mark.parametrize(
    ("elements", "is_raw"),
    [
        ({}, False),
        ({"PresentationIntentType": "FOR PRESENTATION"}, False),
        ({"PresentationIntentType": "FOR PROCESSING"}, True),
        ({"SOPClassUID": DigitalXRayImageStorageForProcessing}, True),
    ],
)
def test_raw_films_are_known_by_intent_or_class(elements: dict[str, str], is_raw: bool) -> None:
    assert is_for_processing(_attributes(**elements)) is is_raw


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
        (None, "KNEE_LAT_LEFT", View.LATERAL),
        (None, "KNEE AP", View.AP),
        # a series of several views leaves open which of them this film is
        (None, "KNEE PA + LATERAL", View.UNKNOWN),
        (None, "KNEE AP LAT SKYLINE", View.UNKNOWN),
        ("AP", "Patella skyline", View.AP),
        (None, "Patella axial", View.SKYLINE),
        (None, "Patella AP axial", View.SKYLINE),
        (None, "PATELLA_TANGENTIAL_LEFT", View.SKYLINE),
        (None, "Patellar view", View.SKYLINE),
        (None, "Inferosuperior", View.SKYLINE),
        (None, "Knee oblique", View.OBLIQUE),
        (None, "Knee lateral oblique", View.OBLIQUE),
        (None, "KNEE AP LAT OBLIQUE", View.UNKNOWN),
        ("RLO", "Knee", View.OBLIQUE),
        # the patella is on every film of a knee, and so are axes
        (None, "KNEE WITH PATELLA", View.UNKNOWN),
        (None, "Patella AP", View.AP),
        (None, "Mechanical axis AP", View.AP),
    ],
)
def test_view_is_only_what_the_header_says(position: Any, description: str, view: View) -> None:
    header = _attributes(ViewPosition=position, SeriesDescription=description)
    assert read_view(header) is view


@pytest.mark.parametrize(
    ("description", "view"),
    [
        ("Bilateral Knees", View.UNKNOWN),
        ("Bi-Lateral Knees", View.UNKNOWN),
        ("Bi lateral", View.UNKNOWN),
        ("KNEES_BI_LATERAL", View.UNKNOWN),
        ("BI-LATERAL STANDING", View.UNKNOWN),
        ("Knees bi-lat", View.UNKNOWN),
        ("Uni-lateral knee", View.UNKNOWN),
        ("contra lateral knee", View.UNKNOWN),
        ("ipsi-lateral knee", View.UNKNOWN),
        ("KNEES BI-LATERAL AP STANDING", View.AP),
        ("Bi-Lateral PA Fixed Flexion", View.PA_FIXED_FLEXION),
        ("Bi-lateral skyline", View.SKYLINE),
        # the word itself still counts beside them, and after what only ends like them
        ("Bi-Lateral Knees Lateral", View.LATERAL),
        ("BILAT LAT", View.LATERAL),
        ("Medio-lateral", View.LATERAL),
        ("Tibi lateral", View.LATERAL),
    ],
)
def test_a_word_for_the_sides_is_no_lateral_view(description: str, view: View) -> None:
    """A film of both knees would be refused as E_VIEW, or lose the view that it names."""
    header = _attributes(ViewPosition=None, SeriesDescription=description)
    assert read_view(header) is view


@pytest.mark.parametrize(
    ("position", "series", "study", "view"),
    [
        ("AP", None, "XR KNEE AP LAT SKYLINE LEFT", View.AP),
        (None, "Bilateral PA Fixed Flexion Knee", "KNEE PA + LATERAL", View.PA_FIXED_FLEXION),
        (None, None, "XR KNEE LATERAL", View.UNKNOWN),
        ("PA", "Knee", "Knees fixed flexion", View.PA_FIXED_FLEXION),
    ],
)
def test_the_description_of_a_study_rules_out_none_of_its_films(
    position: str | None, series: str | None, study: str, view: View
) -> None:
    """It names all that were taken: by it, the frontal film of each study would be lost."""
    header = _attributes(ViewPosition=position, SeriesDescription=series, StudyDescription=study)
    assert read_view(header) is view


@pytest.mark.parametrize(
    ("position", "meaning", "series", "view"),
    [
        (None, "medio-lateral", "Knee", View.LATERAL),
        (None, "antero-posterior", "Knee AP + LAT", View.AP),
        ("AP", "lateral", "Knee", View.AP),
    ],
)
def test_a_view_code_stands_between_position_and_description(
    position: str | None, meaning: str, series: str, view: View
) -> None:
    header = _attributes(
        ViewPosition=position, ViewCodeSequence=phantoms.code(meaning), SeriesDescription=series
    )
    assert read_view(header) is view


def _meanings(context_group: int) -> list[str]:
    """Code meanings of a context group of DICOM PS3.16, as pydicom lists them."""
    return [
        meaning
        for scheme, keywords in cid_concepts[context_group].items()
        for keyword in keywords
        for meaning, _ in concepts[scheme][keyword].values()
    ]


_FRONTAL_CODES = {
    "antero-posterior": View.AP,
    "postero-anterior": View.UNKNOWN,
    "frontal": View.UNKNOWN,
}
_OF_OTHER_PARTS = {
    "acanthioparietal",
    "dorsoplantar",
    "Occlusal projection",
    "orbitoparietal",
    "parieto-orbital",
    "parietoacanthial",
    "plantodorsal",
    "submentovertical",
    "tissue specimen",
    "verticosubmental",
}
"""Codes for skulls, feet and teeth, which Body Part Examined refuses."""


@pytest.mark.parametrize("meaning", sorted({*_meanings(4010)} - _OF_OTHER_PARTS))
def test_of_the_view_codes_of_dicom_only_frontal_ones_are_frontal(meaning: str) -> None:
    """CID 4010, "DX View": from a film of any other kind no knee must be cut."""
    header = _attributes(
        ViewPosition=None, ViewCodeSequence=phantoms.code(meaning), SeriesDescription="Knee"
    )
    view = read_view(header)
    if meaning in _FRONTAL_CODES:
        assert view is _FRONTAL_CODES[meaning]
    else:
        assert view not in FRONTAL_VIEWS
        assert ("oblique" in meaning) == (view is View.OBLIQUE)


@pytest.mark.parametrize(
    ("position", "orientation", "view"),
    [
        (None, ["A", "F"], View.LATERAL),
        (None, ["P", "F"], View.LATERAL),
        (None, ["L", "F"], View.UNKNOWN),
        ("AP", ["A", "F"], View.AP),
    ],
)
def test_rows_that_run_from_front_to_back_show_a_lateral_view(
    position: Any, orientation: list[str], view: View
) -> None:
    """Unless View Position says otherwise: then `orientation_doubtful` says that they disagree."""
    header = _attributes(
        ViewPosition=position, PatientOrientation=orientation, SeriesDescription=""
    )
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
