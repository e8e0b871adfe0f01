"""A network meets knees of the scale and at the place that it learnt, whatever the crop."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kneeoa_mm.learning.dataset import load_images, prepare
from kneeoa_mm.learning.framing import Framing, frame, framing_notes
from kneeoa_mm.model_folder import Preprocessing

SIZE_PX = 112
CONTRACT = Preprocessing(
    image_size_px=SIZE_PX,
    mean=0.5,
    std=0.5,
    clip_percentiles=(0, 100),
    reinvert_negatives=False,
    field_of_view_plateau_widths=1.25,
    joint_row=0.58,
)


def knee_image(plateau_mm, *, crop_mm=140.0, pixel_mm=0.2):
    """A bright plateau of known width below the joint, which stands in the middle of the image."""
    side_px = round(crop_mm / pixel_mm)
    across, down = np.meshgrid(*[(np.arange(side_px) + 0.5 - side_px / 2) * pixel_mm] * 2)
    is_tibia = (np.abs(across) < plateau_mm / 2) & (down > 0)
    return is_tibia.astype(np.float32) * 900 + 100


def measured(prepared):
    """Width of the plateau in pixels, and the row of the joint, to a fraction of a pixel."""
    share = prepared.astype(float) / 255
    return share[-10:].mean(axis=0).sum(), SIZE_PX - share[:, SIZE_PX // 2].sum()


@settings(max_examples=40, deadline=None)
@given(
    plateau_mm=st.floats(62, 90),
    crop_mm=st.floats(136, 200),
    pixel_mm=st.floats(0.15, 0.4),
)
def test_a_plateau_of_any_size_fills_the_share_that_the_contract_states(
    plateau_mm, crop_mm, pixel_mm
):
    image = knee_image(plateau_mm, crop_mm=crop_mm, pixel_mm=pixel_mm)
    prepared, framing = prepare(
        image, CONTRACT, mirror=False, field_of_view=image.shape[0] * pixel_mm / plateau_mm
    )
    assert framing is Framing.MATCHED
    width_px, joint_px = measured(prepared)
    # the phantom's own edges are sharp to a pixel of the film
    tolerance_px = SIZE_PX / 1.25 * pixel_mm / plateau_mm + 0.3
    assert width_px == pytest.approx(SIZE_PX / 1.25, abs=tolerance_px)
    assert joint_px == pytest.approx(0.58 * SIZE_PX, abs=tolerance_px)


def test_an_image_of_unknown_field_of_view_is_used_whole():
    image = knee_image(76.0)
    blind = CONTRACT.model_copy(update={"field_of_view_plateau_widths": None})
    whole, framing = prepare(image, CONTRACT, mirror=False, field_of_view=None)
    assert framing is Framing.WHOLE
    width_px, joint_px = measured(whole)
    assert width_px == pytest.approx(SIZE_PX * 76 / 140, abs=0.5)
    assert joint_px == pytest.approx(SIZE_PX / 2, abs=0.5)
    for field_of_view in (None, 1.8):
        as_ever, framing = prepare(image, blind, mirror=False, field_of_view=field_of_view)
        assert framing is Framing.WHOLE
        np.testing.assert_array_equal(as_ever, whole)


def test_an_image_that_shows_too_little_is_used_whole_and_named():
    image = knee_image(76.0, crop_mm=80.0)
    prepared, framing = prepare(image, CONTRACT, mirror=False, field_of_view=80 / 76)
    assert framing is Framing.TOO_NARROW
    whole, _ = prepare(image, CONTRACT, mirror=False)
    np.testing.assert_array_equal(prepared, whole)


def test_a_part_that_reaches_beyond_the_image_is_moved_inside_at_its_scale():
    """1.3 of 1.35 widths are there, but not with the joint at 58 % of the height."""
    square, framing = frame((700, 700), 1.35, CONTRACT)
    assert framing is Framing.TOO_NARROW
    assert square.side == pytest.approx(700 * 1.25 / 1.35)
    assert square.top == 0


@given(
    rows=st.integers(20, 900),
    columns=st.integers(20, 900),
    field_of_view=st.floats(0.2, 8),
    joint_row=st.floats(0, 1),
)
def test_what_is_kept_never_leaves_a_square_image(rows, columns, field_of_view, joint_row):
    contract = CONTRACT.model_copy(update={"joint_row": joint_row})
    square, _ = frame((rows, columns), field_of_view, contract)
    for first, length in ((square.top, rows), (square.left, columns)):
        if square.side <= length:
            assert first >= 0
            assert first + square.side <= length + 1e-9
        else:
            assert first == pytest.approx((length - square.side) / 2), "padded alike on both sides"


def test_greys_are_stretched_by_what_the_network_sees():
    image = knee_image(76.0)
    with_plate = image.copy()
    with_plate[:20, :60] = 60_000  # a marker in a corner that is cut away
    plain, marked = (
        prepare(pixels, CONTRACT, mirror=False, field_of_view=140 / 76)[0]
        for pixels in (image, with_plate)
    )
    np.testing.assert_array_equal(plain, marked)


@pytest.mark.parametrize("side_px", [701, 700, 333])
def test_framing_a_mirrored_image_is_mirroring_a_framed_one(side_px):
    pixels = np.random.default_rng(0).random((side_px, side_px), dtype=np.float32)
    straight, _ = prepare(pixels, CONTRACT, mirror=True, field_of_view=1.83)
    mirrored, _ = prepare(
        np.ascontiguousarray(pixels[:, ::-1]), CONTRACT, mirror=False, field_of_view=1.83
    )
    np.testing.assert_allclose(straight.astype(int), mirrored.astype(int), atol=1)


def test_each_row_of_a_table_is_cut_by_its_own_field_of_view(tmp_path):
    rows = []
    for name, plateau_mm, known in (("a", 64.0, True), ("b", 88.0, True), ("c", 76.0, False)):
        path = tmp_path / f"{name}.png"
        Image.fromarray(knee_image(plateau_mm).astype(np.uint16)).save(path)
        width = 140 / plateau_mm if known else np.nan
        rows.append((str(path), False, width))
    columns = ["image_path", "mirror", "field_of_view_plateau_widths"]
    loaded = load_images(pd.DataFrame(rows, columns=columns), CONTRACT)
    assert loaded.framing == (Framing.MATCHED, Framing.MATCHED, Framing.WHOLE)
    widths_px = [measured(pixels)[0] for pixels in loaded.pixels]
    whole_px = SIZE_PX * 76 / 140
    assert widths_px == pytest.approx([SIZE_PX / 1.25, SIZE_PX / 1.25, whole_px], abs=0.6)


def test_notes_count_what_was_not_matched_and_are_silent_without_a_statement():
    framings = [Framing.MATCHED, "whole", "whole", Framing.TOO_NARROW, None, pd.NA]
    whole, narrow = framing_notes(framings, 1.25)
    assert whole.startswith("2 images do not tell")
    assert narrow.startswith("1 images show less than the 1.25 widths")
    assert framing_notes(framings, None) == framing_notes([Framing.MATCHED], 1.25) == ()
