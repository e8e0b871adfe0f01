"""Cutting knees: millimetres survive, whatever the film's pixels are."""

from __future__ import annotations

import numpy as np
import phantoms
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kneeoa_mm.imaging.radiograph import Radiograph, crop, pixel_digest, resize
from kneeoa_mm.records import Box, Laterality

SOFT_TISSUE, BONE = 0.33, 0.75
OUT_MM = 0.25


def _knee(spacing_mm: tuple[float, float], gap_mm: float, turn: float = 0.0) -> np.ndarray:
    joint = ((60.0, 60.0, Laterality.RIGHT),)
    film = phantoms.knee_film(
        joint, size_mm=(120, 120), spacing_mm=spacing_mm, gap_mm=gap_mm, noise=0, rotation_deg=turn
    )
    row_mm, column_mm = spacing_mm
    centre = (60 / column_mm, 60 / row_mm)
    size = (100 / column_mm, 100 / row_mm)
    return crop(film.astype(np.float32), centre, size, round(100 / OUT_MM), outside=0).pixels


def _gap_mm(knee: np.ndarray) -> float:
    """Height of soft tissue between the lowest point of a condyle and the plateau."""
    middle = round(50 / OUT_MM)
    column = middle - round(20 / OUT_MM)
    rows = slice(middle - round(12 / OUT_MM), middle + round(12 / OUT_MM))
    line = np.minimum(knee[rows, column - 2 : column + 2].mean(axis=1), BONE)
    return float(((BONE - line) / (BONE - SOFT_TISSUE)).sum() * OUT_MM)


@settings(max_examples=10, deadline=None)
@given(
    row_mm=st.floats(0.15, 0.6),
    column_mm=st.floats(0.15, 0.6),
    gap_mm=st.floats(2.0, 7.0),
)
def test_a_joint_space_keeps_its_millimetres(
    row_mm: float, column_mm: float, gap_mm: float
) -> None:
    assert _gap_mm(_knee((row_mm, column_mm), gap_mm)) == pytest.approx(gap_mm, abs=0.25)


def test_anisotropic_films_become_isotropic() -> None:
    """The same knee from pixels of 0.2 x 0.4 mm and of 0.4 x 0.2 mm."""
    tall, wide = _knee((0.2, 0.4), 5), _knee((0.4, 0.2), 5)
    inner = np.s_[8:-8, 8:-8]
    assert np.corrcoef(tall[inner].ravel(), wide[inner].ravel())[0, 1] > 0.998


def test_detail_finer_than_a_pixel_is_averaged_and_not_aliased() -> None:
    lines = np.tile(np.array([0, 1], dtype=np.float32), (400, 200))
    assert np.ptp(crop(lines, (200, 200), (300, 300), 60, outside=0).pixels[5:-5, 5:-5]) < 0.02


def test_a_crop_within_the_film_is_the_film_itself() -> None:
    film = np.random.default_rng(0).random((50, 60), dtype=np.float32)
    cut = crop(film, (30, 20), (20, 20), 20, outside=0)
    np.testing.assert_allclose(cut.pixels, film[10:30, 20:40], atol=1e-6)
    assert (cut.box, cut.is_clipped) == (Box(20, 10, 40, 30), False)


@given(st.floats(-30, 130), st.floats(-30, 130), st.floats(10, 80))
def test_what_lies_beyond_the_film_is_padded_and_said(x: float, y: float, size: float) -> None:
    film = np.ones((100, 100), dtype=np.float32)
    cut = crop(film, (x, y), (size, size), 16, outside=0)
    reaches_beyond = min(x, y) - size / 2 < 0 or max(x, y) + size / 2 > 100
    assert cut.is_clipped == reaches_beyond
    assert 0 <= cut.box.left_px <= cut.box.right_px <= 100
    assert 0 <= cut.box.top_px <= cut.box.bottom_px <= 100
    if not reaches_beyond:
        assert cut.pixels.min() > 0.99


def test_cutting_commutes_with_mirroring() -> None:
    film = phantoms.knee_film(noise=0.02).astype(np.float32)
    width = film.shape[1]
    plain = crop(film, (176.5, 280.25), (280, 280), 200, outside=0)
    mirrored = crop(film[:, ::-1], (width - 176.5, 280.25), (280, 280), 200, outside=0)
    np.testing.assert_allclose(mirrored.pixels[:, ::-1], plain.pixels, atol=1e-5)
    assert mirrored.box.left_px == width - plain.box.right_px


def test_area_averages_keep_the_mean() -> None:
    film = np.random.default_rng(0).random((120, 90), dtype=np.float32)
    assert resize(film, 12, 9).mean() == pytest.approx(film.mean(), abs=1e-5)


def test_copies_have_the_same_digest_and_other_films_have_not() -> None:
    film = Radiograph(phantoms.knee_film(spacing_mm=(4, 4)).astype(np.float32))
    copy = Radiograph(np.asfortranarray(film.pixels), patient_id="9000017")
    assert pixel_digest(copy) == pixel_digest(film)
    changed = film.pixels.copy()
    changed[3:5, 5:7] += np.float32(1e-3)
    assert pixel_digest(Radiograph(changed)) != pixel_digest(film)
    assert pixel_digest(Radiograph(film.pixels.T)) != pixel_digest(film)
