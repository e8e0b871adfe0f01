"""Grey scale: pydicom is the oracle of LUTs and windows; polarity and mapping are properties."""

from __future__ import annotations

import numpy as np
import phantoms
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi, apply_windowing

from kneeoa_mm.imaging.greyscale import GreyScale, Lut, Rescale, Window, grey_range, to_uint16

STORED = np.arange(4096, dtype=np.uint16)


def _header(**elements: object) -> Dataset:
    return phantoms.dataset(STORED[None], **elements)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@given(centre=st.floats(-500, 5000), width=st.floats(2, 8000))
def test_windows_agree_with_pydicom(function: str, centre: float, width: float) -> None:
    header = _header(WindowCenter=centre, WindowWidth=width, VOILUTFunction=function)
    centre, width = float(header.WindowCenter), float(header.WindowWidth)
    with np.errstate(over="ignore"):
        theirs = apply_windowing(STORED, header) / 4095
    ours = Window(centre, width, function)(STORED.astype(float))  # type: ignore[arg-type]
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


def _lut_item(first: int, entries: list[int]) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, 16])
    item.add_new("LUTData", "US", entries)
    return item


@given(
    first=st.integers(0, 5000), entries=st.lists(st.integers(0, 65535), min_size=2, max_size=300)
)
def test_luts_agree_with_pydicom(first: int, entries: list[int]) -> None:
    ours = Lut(first, tuple(entries))(STORED.astype(float))
    item = _lut_item(first, entries)
    np.testing.assert_array_equal(
        ours, apply_modality_lut(STORED, _header(ModalityLUTSequence=[item]))
    )
    np.testing.assert_array_equal(ours, apply_voi(STORED, _header(VOILUTSequence=[item])))


def test_modality_comes_before_voi() -> None:
    """A window is stated in rescaled units, so the other order would show another picture."""
    scale = GreyScale(Rescale(2.0, -100.0), Window(1000.5, 1001.0))
    header = _header(RescaleSlope=2, RescaleIntercept=-100, WindowCenter=1000.5, WindowWidth=1001)
    theirs = apply_windowing(apply_modality_lut(STORED, header), header)
    theirs = (theirs - theirs.min()) / (theirs.max() - theirs.min())
    np.testing.assert_allclose(scale(STORED), theirs, atol=1e-6)


def test_a_negative_slope_darkens_what_the_detector_read_as_high() -> None:
    """The rescale may invert by itself; the window must not undo that."""
    grey = GreyScale(Rescale(-1.0, 4095.0), Window(2048, 1000))(STORED)
    assert grey[0] > grey[-1]
    assert (np.diff(grey) <= 0).all()


@given(st.sampled_from([None, Window(1500, 900), Window(1500, 900, "SIGMOID")]))
def test_monochrome1_inverts_after_the_voi_and_only_once(window: Window | None) -> None:
    plain = GreyScale(None, window)(STORED)
    inverted = GreyScale(None, window, is_inverted=True)(STORED)
    np.testing.assert_allclose(inverted, plain.max() - plain, atol=1e-6)


def test_negative_stored_values_keep_their_order() -> None:
    stored = np.array([[-2048, -1, 0, 2047]], dtype=np.int16)
    assert (np.diff(GreyScale()(stored)) > 0).all()


def test_a_film_and_its_negative_have_the_same_grey_range() -> None:
    film = np.random.default_rng(0).normal(0, 1, (300, 400)).astype(np.float32)
    low, high = grey_range(film)
    assert grey_range(-film) == (-high, -low)
    assert (film < low).mean() == pytest.approx(0.001, abs=2e-4)


@given(st.lists(st.floats(-10, 10, width=32), min_size=2, max_size=50))
def test_sixteen_bits_keep_the_order_of_greys(greys: list[float]) -> None:
    ordered = np.sort(np.array([greys], dtype=np.float32))
    mapped = to_uint16(ordered, -5.0, 5.0).astype(int)
    assert (np.diff(mapped) >= 0).all()
    assert (mapped[ordered <= -5] == 0).all()
    assert (mapped[ordered >= 5] == 65535).all()
