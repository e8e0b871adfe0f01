"""Grey scale: pydicom is the oracle of LUTs and windows; polarity and mapping are properties."""

from __future__ import annotations

from typing import Any

import numpy as np
import phantoms
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi, apply_windowing

from kneeoa_mm.imaging.greyscale import (
    GreyScale,
    Lut,
    Padding,
    Rescale,
    Window,
    grey_range,
    is_flat,
    own_bits,
    to_uint16,
)

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


_NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
_STEPS = st.floats(-4000, 4000) | _NUMBERS


@given(
    slope=_STEPS,
    intercept=_STEPS,
    centre=_STEPS,
    width=_STEPS,
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    is_inverted=st.booleans(),
    is_signed=st.booleans(),
)
def test_whatever_a_header_states_greys_are_numbers(
    slope: float,
    intercept: float,
    centre: float,
    width: float,
    function: Any,
    is_inverted: bool,
    is_signed: bool,
) -> None:
    rescale, window = Rescale(slope, intercept), Window(centre, width, function)
    scale = GreyScale(
        rescale if rescale.is_valid else None, window if window.is_valid else None, is_inverted
    )
    ends = [-(2**15), 0, 2**15 - 1] if is_signed else [0, 1, 2**16 - 1]
    greys = scale(np.array([ends], dtype=np.int16 if is_signed else np.uint16))
    assert np.isfinite(greys).all()
    assert greys.min() == 0


@given(
    values=st.lists(st.integers(0, 4095), min_size=2, max_size=40),
    slope=st.sampled_from([1.0, -1.0, 0.25, -3.7]),
    is_inverted=st.booleans(),
    is_signed=st.booleans(),
)
def test_greys_in_even_steps_are_those_of_the_look_up(
    values: list[int], slope: float, is_inverted: bool, is_signed: bool
) -> None:
    """Where no window clips, arithmetic stands for the look-up: it must give the same film."""
    stored = np.array([values], dtype=np.int16 if is_signed else np.uint16)
    if is_signed:
        stored -= 2048
    window = Window(0.0, 80_000.0, "LINEAR_EXACT")
    shown = (-1 if is_inverted else 1) * window(slope * stored.astype(float) + 5)
    grey = GreyScale(Rescale(slope, 5.0), window, is_inverted)(stored)
    np.testing.assert_allclose(grey, shown - shown.min(), atol=1e-7)


def test_a_film_is_flat_only_without_a_second_grey() -> None:
    film = np.full((30, 40), 7.5, dtype=np.float32)
    assert is_flat(film)
    film[-1, -1] = 8
    assert not is_flat(film)


@given(
    values=st.lists(st.integers(0, 4095), min_size=2, max_size=40),
    padding=st.integers(0, 4095),
    window=st.sampled_from([None, Window(1500, 900), Window(1500, 900, "SIGMOID")]),
)
def test_polarity_twins_agree_whatever_the_padding(
    values: list[int], padding: int, window: Window | None
) -> None:
    """A film and its negative, each with its own polarity, window and padding."""
    stored = np.array([values], dtype=np.uint16)
    twin_window = window and Window(4095 - window.centre + 1, window.width, window.function)
    if window and window.function == "SIGMOID":
        twin_window = Window(4095 - window.centre, window.width, window.function)
    plain = GreyScale(None, window, False, Padding(padding, padding))(stored)
    twin = GreyScale(None, twin_window, True, Padding(4095 - padding, 4095 - padding))(
        4095 - stored
    )
    np.testing.assert_allclose(plain, twin, atol=1e-6)


@given(st.integers(1, 16), st.integers(0, 15), st.integers(0, 2**16 - 1))
def test_own_bits_are_those_from_the_high_bit_down(bits: int, high_bit: int, word: int) -> None:
    found = own_bits(np.array([word], dtype=np.uint16), bits, high_bit)[0]
    low_bit = high_bit + 1 - bits if high_bit + 1 >= bits else 0
    assert found == (word >> low_bit) % 2**bits


@given(st.integers(-2048, 2047))
def test_own_bits_keep_the_sign(value: int) -> None:
    stored = np.array([value % 2**12], dtype=np.int16)
    assert own_bits(stored, 12, 11)[0] == value


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
