"""Where maps lie on crops and films, and joint spaces on maps."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kneeoa_mm.errors import InputError
from kneeoa_mm.learning.framing import Square
from kneeoa_mm.learning.saliency.joint_spaces import read_joint_spaces
from kneeoa_mm.learning.saliency.mean_maps import MeanMaps
from kneeoa_mm.learning.saliency.overlays import bars, overlay, scaled, sheet
from kneeoa_mm.learning.saliency.placement import Placement
from kneeoa_mm.learning.saliency.question import Attribution, Method
from kneeoa_mm.records import Box

FILM, BOX = (200, 300), Box(120, 40, 220, 140)


@pytest.mark.parametrize("is_flipped", [False, True], ids=["right", "left"])
def test_a_spot_on_the_film_is_found_there_again_by_way_of_the_crop(is_flipped):
    """Cut a film as ``preprocess`` does, frame it as a network sees it, and lay the map back."""
    film = np.zeros(FILM, np.float32)
    film[80:84, 140:144] = 1
    crop = film[BOX.top_px : BOX.bottom_px, BOX.left_px : BOX.right_px]
    image = np.kron(crop[:, ::-1] if is_flipped else crop, np.ones((2, 2), np.float32))
    square = Square(10, 20, 160)
    seen = image[20:180, 10:170][::4, ::4]
    place = Placement.on_image(square, is_mirrored=False)
    place = place.on_film(image.shape, BOX, is_flipped=is_flipped)
    assert place.is_mirrored is is_flipped
    back = place.lay(seen, FILM)
    rows, columns = np.nonzero(back > 0.5)
    assert (rows.mean(), columns.mean()) == pytest.approx((81.5, 141.5), abs=1)
    assert back.sum() == pytest.approx(film.sum(), rel=0.3)


def test_a_map_that_reaches_beyond_the_film_is_cut_at_its_rim():
    place = Placement(-10, -10, 40, 40, is_mirrored=False)
    laid = place.lay(np.ones((8, 8), np.float32), (20, 50))
    assert (laid[:, :30] == 1).all()
    assert (laid[:, 30:] == 0).all()


@given(
    left=st.floats(-50, 50),
    side=st.floats(20, 200),
    is_mirrored=st.booleans(),
    is_flipped=st.booleans(),
    x=st.floats(0, 300),
)
def test_a_point_comes_to_the_same_pixel_from_the_film_and_from_the_crop(
    left, side, is_mirrored, is_flipped, x
):
    shape = (100, 160)
    place = Placement(left, 5.0, side, side, is_mirrored)
    on_film = place.on_film(shape, BOX, is_flipped=is_flipped)
    share = (x - BOX.left_px) / BOX.width_px
    on_image = np.array([[(1 - share if is_flipped else share) * shape[1], 30.0]])
    on_whole = np.array([[x, BOX.top_px + 30.0 / shape[0] * BOX.height_px]])
    np.testing.assert_allclose(
        place.to_input(on_image, 64), on_film.to_input(on_whole, 64), atol=1e-6
    )


def test_a_mask_has_the_area_of_its_polygon_and_is_mirrored_with_the_map():
    corners = np.array([[10.0, 10.0], [20.0, 10.0], [20.0, 15.0], [10.0, 15.0]])
    place = Placement(0, 0, 40, 40, is_mirrored=False)
    mask = place.mask([corners], 80)
    assert mask.sum() == pytest.approx(20 * 10, rel=0.06)
    assert mask[22:28, 22:38].min() == 1
    mirrored = Placement(0, 0, 40, 40, is_mirrored=True).mask([corners], 80)
    np.testing.assert_allclose(mirrored, mask[:, ::-1], atol=0.3)


def test_a_map_moves_into_the_place_of_another_and_is_zero_beside_it():
    wide = Placement(0, 0, 80, 80, is_mirrored=False)
    close = Placement(20, 20, 40, 40, is_mirrored=False)
    heat = np.zeros((8, 8), np.float32)
    heat[3, 5] = 1
    np.testing.assert_array_equal(wide.take(wide, heat), heat)
    taken = close.take(wide, heat)
    assert (taken[2:4, 6:8] == 1).all()
    assert taken.sum() == 4
    back = wide.take(close, np.ones((8, 8), np.float32))
    assert back[2:6, 2:6].min() == 1
    assert back.sum() == 16


def test_colours_tell_for_from_against_and_spare_the_rest():
    grey = np.full((2, 2), 100, np.uint8)
    red, green, blue = np.moveaxis(overlay(grey, np.array([[1, -1], [0, 0]], np.float32)), 2, 0)
    assert red[0, 0] > 150 > blue[0, 0]
    assert blue[0, 1] > 150 > red[0, 1]
    assert red[1, 0] == green[1, 0] == blue[1, 0] == 100


def test_a_drawn_map_keeps_its_signs_but_an_input_gradient_its_size():
    pixels = np.array([[-2.0, 1.0], [0.0, 0.5]], np.float32)
    drawn = scaled(Attribution(Method.INTEGRATED_GRADIENTS, pixels))
    assert (np.sign(drawn) == np.sign(pixels)).all()
    assert (scaled(Attribution(Method.SALIENCY, pixels)) >= 0).all()
    assert (scaled(Attribution(Method.GRADCAM, np.zeros((2, 2), np.float32))) == 0).all()
    one = np.zeros((40, 40), np.float32)
    one[3, 3] = -5
    assert scaled(Attribution(Method.GRADCAM, one)).min() == -1, "a single pixel is still drawn"


def test_a_single_pixel_of_a_fine_map_is_drawn_large_enough_to_be_seen():
    one = np.zeros((320, 320), np.float32)
    one[100, 100] = -5
    drawn = scaled(Attribution(Method.INTEGRATED_GRADIENTS, one))
    assert (drawn < -0.3).sum() > 50
    assert not (drawn > 0).any()


def test_bars_are_as_long_as_their_values_and_coloured_by_their_sign():
    red, _, blue = np.moveaxis(bars({"picture": 2.0, "age_years": -1.0}).astype(int), 2, 0)
    speaks_for, against = (red - blue > 200), (blue - red > 200)
    lengths = speaks_for.any(axis=0).sum(), against.any(axis=0).sum()
    assert lengths[0] == pytest.approx(2 * lengths[1], rel=0.05)
    assert np.nonzero(against)[1].max() <= np.nonzero(speaks_for)[1].min(), "zero is in the middle"


def test_a_sheet_has_a_row_for_each_member():
    tile = ("map", np.zeros((10, 10), np.uint8))
    assert sheet([("mean", [tile, tile]), ("a", [tile])]).size == (480, 2 * 276)


def test_mean_maps_count_each_person_once():
    means = MeanMaps({"p": 2, "q": 1})
    for person, value in (("p", 1.0), ("p", 3.0), ("q", 8.0)):
        found = Attribution(Method.INTEGRATED_GRADIENTS, np.full((4, 4), value, np.float32))
        grey = np.full((4, 4), int(value), np.uint8)
        means.add(person, ["all", "true_kl_2"], grey, [found])
    arrays = means.arrays()
    assert arrays["all/integrated_gradients"] == pytest.approx((2 + 8) / 2)
    assert arrays["true_kl_2/image"] == pytest.approx((2 + 8) / 2)


def test_a_person_whose_other_knee_is_of_another_group_counts_as_much_as_any():
    """The weight is shared by the knees of a group, and not by all that were explained."""
    means = MeanMaps({"p": 2, "q": 1})
    knees = [("p", "true_kl_2", 2.0), ("q", "true_kl_2", 8.0), ("p", "true_kl_3", 4.0)]
    for person, group, value in knees:
        found = Attribution(Method.INTEGRATED_GRADIENTS, np.full((4, 4), value, np.float32))
        means.add(person, ["all", group], np.full((4, 4), int(value), np.uint8), [found])
    arrays = means.arrays()
    for name in ("integrated_gradients", "image"):
        assert arrays[f"true_kl_2/{name}"] == pytest.approx((2 + 8) / 2)
        assert arrays[f"true_kl_3/{name}"] == pytest.approx(4)
        assert arrays[f"all/{name}"] == pytest.approx(((2 + 4) / 2 + 8) / 2)


def test_a_person_one_of_whose_maps_is_lost_counts_as_much_as_any():
    means = MeanMaps({"p": 2, "q": 1})
    for person, value, status in (("p", 2.0, "ok"), ("p", 9.0, "not finite"), ("q", 8.0, "ok")):
        pixels = np.full((2, 2), value, np.float32)
        found = Attribution(Method.INTEGRATED_GRADIENTS, pixels, status)
        means.add(person, ["all"], np.zeros((2, 2), np.uint8), [found])
    assert means.arrays()["all/integrated_gradients"] == pytest.approx((2 + 8) / 2)


def test_mean_maps_leave_out_what_is_no_map_and_take_the_size_of_gradients():
    means = MeanMaps({"p": 1, "q": 1})
    grey = np.zeros((2, 2), np.uint8)
    for person, sign in (("p", 1), ("q", -1)):
        gradient = Attribution(Method.SALIENCY, np.full((2, 2), sign, np.float32))
        lost = Attribution(Method.GRADCAM, grey.astype(np.float32), "not finite")
        means.add(person, ["all"], grey, [gradient, lost])
    assert means.arrays()["all/saliency"] == pytest.approx(1)
    assert "all/gradcam" not in means.arrays()


def test_drawn_joint_spaces_leave_out_the_bone(tmp_path):
    square = [[0, 0], [10, 0], [10, 10], [0, 10]]
    shapes = [{"label": "Knee_Bone", "points": square}, {"label": "Healthy", "points": square[:3]}]
    path = tmp_path / "spaces.json"
    path.write_text(json.dumps({"1L": {"width": 20, "height": 10, "shapes": shapes}}))
    (polygon,) = read_joint_spaces(path).on_images["1L"]
    assert polygon.tolist() == [[0, 0], [0.5, 0], [0.5, 1]]


@pytest.mark.real_data
def test_real_outlines_lie_in_the_middle_of_the_knee_and_are_a_small_part_of_it(real_data):
    """Of every fifth outlined knee: between a tenth and nine tenths of its height.

    Oracle: the shoelace formula on the points as they were drawn, for the mask's area.
    """
    path = real_data / "joint_polygons.json"
    drawn, read = json.loads(path.read_text()), read_joint_spaces(path).on_images
    assert set(read) == set(drawn)
    for name in sorted(drawn)[::5]:
        (polygon,) = read[name]
        points = [s["points"] for s in drawn[name]["shapes"] if s["label"] != "Knee_Bone"]
        x, y = np.array(points[0]).T
        width, height = drawn[name]["width"], drawn[name]["height"]
        shoelace = abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2 / (width * height)
        whole = Placement(0, 0, width, height, is_mirrored=False)
        mask = whole.mask([polygon * [width, height]], 224)
        assert mask.mean() == pytest.approx(shoelace, rel=0.1, abs=0.002), name
        assert 0.002 < shoelace < 0.25, name
        assert 0.1 < polygon[:, 1].min() < polygon[:, 1].max() < 0.9, name


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_joint_spaces_on_films_come_from_a_table(tmp_path, suffix):
    frame = pd.DataFrame({"knee_id": ["a:1:0:L", "a:2:0:L"], "joint_space_px": ["[[1,2]]", None]})
    path = tmp_path / f"truth{suffix}"
    frame.to_csv(path) if suffix == ".csv" else frame.to_parquet(path)
    found = read_joint_spaces(path).on_films
    assert list(found) == ["a:1:0:L"]
    assert found["a:1:0:L"][0].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", "no"), ("b.json", '{"1L": {"width": 2}}'), ("c.csv", "knee_id\nx\n")],
)
def test_a_file_that_holds_no_joint_spaces_is_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="joint spaces"):
        read_joint_spaces(tmp_path / name)
    with pytest.raises(InputError, match="not there"):
        read_joint_spaces(tmp_path / "absent.json")
