"""What a header rules out: another part of the body, or no film at all."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import phantoms
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kneeoa_mm.errors import ItemError
from kneeoa_mm.imaging.attributes import Attributes
from kneeoa_mm.imaging.eligibility import (
    LEAST_SIDE_PX,
    refuse_what_is_no_film,
    shows_another_part,
)

VALUES = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def _attributes(**elements: Any) -> Attributes:
    with warnings.catch_warnings():
        # lower case and hyphens break the standard, and are what real headers hold
        warnings.simplefilter("ignore")
        return Attributes(phantoms.dataset(VALUES, **({"SeriesDescription": None} | elements)))


@pytest.mark.parametrize(
    "part",
    [
        "CHEST", "HAND", "Hands", "HIP", "LSPINE", "L-SPINE", "C_SPINE", "SKULL", "ANKLE", "FOOT",
        "PELVIS", "Upper Extremity", "ELBOW", "HIP PELVIS",
    ],
)  # fmt: skip
def test_another_part_of_the_body_is_no_knee(part: str) -> None:
    assert shows_another_part(_attributes(BodyPartExamined=part))


@pytest.mark.parametrize(
    "part",
    [
        None, "", "KNEE", "KNEES", "LEG", "LOWER LIMB", "LOWER_EXTREMITY", "EXTREMITY", "PATELLA",
        "HIP_KNEE_ANKLE", "KNIE", "GENOU", "JOINT", "FEMUR", "TIBIA FIBULA", "SHIPMENT", "OTHER",
    ],
)  # fmt: skip
def test_knees_legs_and_unknown_words_pass(part: str | None) -> None:
    assert not shows_another_part(_attributes(BodyPartExamined=part))


@pytest.mark.parametrize(
    ("part", "region", "is_other"),
    [
        (None, "Hand", True),
        (None, "Upper limb", True),
        (None, "Knee joint", False),
        ("HAND", "Knee joint", False),
        ("EXTREMITY", "Foot", True),
    ],
)
def test_the_code_of_the_region_speaks_like_the_part(
    part: str | None, region: str, is_other: bool
) -> None:
    """Newer devices fill in the code and leave Body Part Examined empty."""
    header = _attributes(BodyPartExamined=part, AnatomicRegionSequence=phantoms.code(region))
    assert shows_another_part(header) is is_other


@pytest.mark.parametrize("keyword", ["SeriesDescription", "StudyDescription", "ProtocolName"])
def test_a_description_that_speaks_of_knees_outweighs_the_part(keyword: str) -> None:
    header = {"BodyPartExamined": "HAND"}
    assert not shows_another_part(_attributes(**header, **{keyword: "Bilat. Knee PA"}))
    assert shows_another_part(_attributes(**header, **{keyword: "PA both sides"}))


@pytest.mark.parametrize(
    ("elements", "is_film"),
    [
        ({"Modality": "CR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1"}, True),
        ({"Modality": "DX", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1.1"}, True),
        ({"Modality": "RG", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, True),
        ({"Modality": "OT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.3"}, True),
        ({"Modality": None, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, True),
        ({"Modality": "DX", "SOPClassUID": "1.3.6.1.4.1.9999.1"}, True),
        ({"Modality": "OT", "SOPClassUID": "1.3.6.1.4.1.9999.1"}, False),
        ({"Modality": "DX", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, False),
        ({"Modality": "DX", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1"}, False),
        ({"Modality": "MG", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2"}, False),
        ({"Modality": "US", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, False),
    ],
)
def test_only_projection_radiographs_are_films(elements: dict[str, Any], is_film: bool) -> None:
    header = _attributes(**elements)
    if is_film:
        refuse_what_is_no_film(header, 5000)
    else:
        with pytest.raises(ItemError, match="E_NOT_PROJECTION_XR"):
            refuse_what_is_no_film(header, 5000)


@given(rows=st.integers(1, 65535), columns=st.integers(1, 65535))
def test_films_too_small_for_a_knee_are_refused(rows: int, columns: int) -> None:
    header = _attributes(Rows=rows, Columns=columns)
    if min(rows, columns) >= LEAST_SIDE_PX:
        refuse_what_is_no_film(header, 2**32)
    else:
        with pytest.raises(ItemError, match="E_TOO_SMALL"):
            refuse_what_is_no_film(header, 2**32)


@given(rows=st.integers(32, 65535), columns=st.integers(32, 65535), limit=st.integers(1, 2**32))
def test_films_of_more_pixels_than_allowed_are_refused(rows: int, columns: int, limit: int) -> None:
    header = _attributes(Rows=rows, Columns=columns)
    if rows * columns <= limit:
        refuse_what_is_no_film(header, limit)
    else:
        with pytest.raises(ItemError, match="E_TOO_LARGE"):
            refuse_what_is_no_film(header, limit)
