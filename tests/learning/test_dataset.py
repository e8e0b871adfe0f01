"""Images reach the network in the form that the contract states, and in an order seeds decide."""

import numpy as np
import pandas as pd
import phantoms
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional

from kneeoa_mm.errors import ItemError
from kneeoa_mm.learning import dataset
from kneeoa_mm.learning.augmentation import draw_amounts, mix, vary, warp
from kneeoa_mm.learning.batches import Batches
from kneeoa_mm.learning.dataset import is_negative, load_images, read_grey, to_input
from kneeoa_mm.learning.framing import Framing
from kneeoa_mm.learning.processes import interleaved
from kneeoa_mm.model_folder import Preprocessing
from kneeoa_mm.settings import AugmentConfig

CONTRACT = Preprocessing(
    image_size_px=32, mean=0.5, std=0.5, clip_percentiles=(0, 100), reinvert_negatives=True
)


def prepare(pixels, contract, *, mirror=False, field_of_view=None):
    """The prepared image without how it was framed."""
    return dataset.prepare(pixels, contract, mirror=mirror, field_of_view=field_of_view)[0]


STILL = AugmentConfig(rotation_deg=0, scale=0, translation=0, contrast=0, brightness=0)


def knee(bright_half="left"):
    """Bone in the middle, a bright spot in one half."""
    pixels = np.full((64, 64), 20, dtype=np.float32)
    pixels[:, 16:48] = 150
    columns = slice(18, 24) if bright_half == "left" else slice(40, 46)
    pixels[20:30, columns] = 255
    return pixels


SIXTEEN_BITS = np.array([[0, 300, 7], [40000, 65535, 9]], dtype=np.uint16)


@pytest.mark.parametrize("name", ["knee.png", "knee.tif"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bits_are_read_whole_in_any_order_of_bytes(tmp_path, name, order):
    Image.fromarray(SIXTEEN_BITS.astype(order)).save(tmp_path / name)
    np.testing.assert_array_equal(read_grey(tmp_path / name), SIXTEEN_BITS)


@pytest.mark.parametrize("pixels", [SIXTEEN_BITS, (SIXTEEN_BITS >> 8).astype(np.uint8)])
def test_a_picture_that_says_how_it_is_turned_is_turned(tmp_path, pixels):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    Image.fromarray(np.rot90(pixels).copy()).save(tmp_path / "knee.png", exif=exif)
    np.testing.assert_array_equal(read_grey(tmp_path / "knee.png"), pixels)


@pytest.mark.parametrize("with_alpha", [False, True])
def test_sixteen_bits_in_several_channels_are_refused_not_halved(tmp_path, with_alpha):
    """Pillow gives 16 of 4,096 greys back, and says nothing."""
    knee = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    phantoms.write_deep_png(tmp_path / "knee.png", np.dstack([knee] * (2 if with_alpha else 3)))
    with pytest.raises(ItemError, match="E_DEEP_COLOUR"):
        read_grey(tmp_path / "knee.png")


@pytest.mark.parametrize("suffix", ["bmp", "tif", "png"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_eight_bits_are_read_at_any_width(tmp_path, suffix, mode):
    """A row of 160 or of 1,600 bytes is no sign of 16 bits."""
    pixels = np.arange(160 * 20, dtype=np.uint32).reshape(20, 160).astype(np.uint8)
    for wide in (pixels, np.tile(pixels, 10)):
        Image.fromarray(wide).convert(mode).save(tmp_path / f"knee.{suffix}")
        np.testing.assert_array_equal(read_grey(tmp_path / f"knee.{suffix}"), wide)


def test_the_same_picture_in_8_and_16_bits_is_the_same_to_a_network(tmp_path):
    eight = knee().astype(np.uint8)
    Image.fromarray(eight).save(tmp_path / "8.png")
    Image.fromarray(eight.astype(np.uint16) * 257).save(tmp_path / "16.png")
    first, second = (
        prepare(read_grey(tmp_path / name), CONTRACT, mirror=False) for name in ("8.png", "16.png")
    )
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n trunc"])
def test_what_is_no_image_is_an_item_error(tmp_path, content):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(ItemError, match="E_UNREADABLE"):
        read_grey(tmp_path / "bad.png")


def test_a_negative_is_recognised_and_turned_back():
    assert not is_negative(knee())
    assert is_negative(255 - knee())
    as_positive = prepare(knee(), CONTRACT, mirror=False)
    np.testing.assert_allclose(prepare(255 - knee(), CONTRACT, mirror=False), as_positive, atol=1)


def test_a_left_knee_is_mirrored():
    mirrored = prepare(knee("left"), CONTRACT, mirror=True)
    np.testing.assert_array_equal(mirrored, prepare(knee("right")[:, :], CONTRACT, mirror=False))


def test_a_flat_image_is_an_item_error():
    with pytest.raises(ItemError, match="E_FLAT"):
        prepare(np.full((8, 8), 7, dtype=np.float32), CONTRACT, mirror=False)


def test_an_oblong_image_keeps_its_proportions():
    pixels = np.zeros((40, 80), dtype=np.float32)
    pixels[10:30, 30:50] = 1  # a square of 20
    prepared = prepare(pixels, CONTRACT, mirror=False) > 127
    assert prepared.any(axis=0).sum() == prepared.any(axis=1).sum() == 8


def test_one_bad_image_costs_one_row_and_is_named(tmp_path):
    Image.fromarray(knee().astype(np.uint8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"")
    paths = [str(tmp_path / name) for name in ("bad.png", "good.png")]
    unknown = {"mirror": False, "field_of_view_plateau_widths": np.nan}
    loaded = load_images(pd.DataFrame({"image_path": paths} | unknown), CONTRACT)
    assert loaded.framing == (None, Framing.WHOLE)
    assert loaded.pixels[1].max() > 0
    assert [(r.source, r.code) for r in loaded.rejects] == [("bad.png", "E_UNREADABLE")]


def rows_seen(batches):
    return torch.cat([batch["row"] for batch in batches]).tolist()


def make_batches(n, size, **settings):
    arrays = {"images": torch.zeros(n, 4, 4, dtype=torch.uint8), "row": torch.arange(n)}
    return Batches(arrays, np.arange(n), CONTRACT, batch_size=size, **settings)


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 9), st.booleans())
def test_each_pass_shows_every_row_once(n, size, training):
    batches = make_batches(n, size, augment=STILL if training else None, seed=(1,))
    assert sorted(rows_seen(batches)) == list(range(n))
    assert len(list(batches)) == len(batches)


def test_a_training_batch_never_holds_a_single_row_where_there_are_more():
    sizes = [len(batch["row"]) for batch in make_batches(9, 4, augment=STILL, seed=(0,))]
    assert sizes == [4, 5]


def test_the_seed_decides_order_and_augmentation():
    def draw(seed):
        return rows_seen(make_batches(30, 8, augment=AugmentConfig(), seed=seed))

    assert draw((1, 2)) == draw((1, 2)) != draw((1, 3))


def test_rows_are_drawn_as_often_as_they_weigh_and_none_without_weight():
    """Of 4,000 draws; the counts of a fair one lie within five standard deviations."""
    weights = torch.tensor([0.0, 1.0, 3.0, 6.0]).repeat(1000)
    seen = rows_seen(make_batches(4000, 50, augment=STILL, weights=weights, seed=(0,)))
    assert len(seen) == 4000, "as many are drawn as there are"
    drawn = np.bincount(np.array(seen) % 4, minlength=4) / 4000
    expected = np.array([0, 0.1, 0.3, 0.6])
    assert drawn[0] == 0
    assert (np.abs(drawn - expected) <= 5 * np.sqrt(expected * (1 - expected) / 4000)).all()


def shares_of_a_pass(n, size, processes, **settings):
    """What each of several processes makes of one pass; a row's image is of its own grey."""
    images = torch.arange(n, dtype=torch.uint8).view(-1, 1, 1).repeat(1, 4, 4)
    arrays = {"images": images, "row": torch.arange(n)}
    rows = np.arange(n)
    return [
        list(Batches(arrays, rows, CONTRACT, batch_size=size, share=(k, processes), **settings))
        for k in range(processes)
    ]


@settings(max_examples=40)
@given(st.integers(1, 5), st.integers(2, 4), st.integers(1, 4))
def test_processes_share_the_batches_that_one_would_make_and_vary_them_alike(n, size, processes):
    n *= size * processes  # whole batches
    training = {"augment": AugmentConfig(), "seed": (n,)}
    (alone,) = shares_of_a_pass(n, size * processes, 1, **training)
    shares = shares_of_a_pass(n, size, processes, **training)
    for whole, parts in zip(alone, zip(*shares, strict=True), strict=True):
        assert interleaved([part["row"] for part in parts]).tolist() == whole["row"].tolist()
        together = interleaved([part["images"] for part in parts])
        torch.testing.assert_close(together, whole["images"])


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 4))
def test_processes_learn_from_equal_shares_and_leave_out_less_than_a_row_each(n, size, processes):
    shares = shares_of_a_pass(n, size, processes, augment=STILL, seed=(n,))
    assert len({tuple(len(batch["row"]) for batch in share) for share in shares}) == 1
    seen = [row for share in shares for batch in share for row in batch["row"].tolist()]
    assert len(set(seen)) == len(seen) == n - n % processes


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 4))
def test_processes_evaluate_every_row_once_and_in_turn(n, size, processes):
    shares = [share for share in shares_of_a_pass(n, size, processes) if share]
    rows = interleaved([torch.cat([batch["row"] for batch in share]) for share in shares])
    assert rows.tolist() == list(range(n))


def varied(images, config):
    amounts = draw_amounts(len(images), config, torch.Generator().manual_seed(0))
    return vary(images, amounts)


def test_a_warp_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(5, 1, 33, 33, generator=generator)
    matrices = torch.eye(2, 3) + 0.3 * torch.randn(5, 2, 3, generator=generator)
    grid = functional.affine_grid(matrices, [5, 1, 33, 33], align_corners=False)
    oracle = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(warp(images, matrices), oracle, atol=1e-5, rtol=0)


def test_augmentation_of_no_amount_changes_nothing():
    images = to_input(torch.randint(0, 255, (3, 16, 16), dtype=torch.uint8), CONTRACT)
    still = varied(images, STILL)
    torch.testing.assert_close(still, images)


def test_a_flip_leaves_each_image_or_gives_its_mirror_image_and_does_both():
    images = torch.rand(64, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    flipped = varied(images, STILL.model_copy(update={"horizontal_flip": True}))

    def alike(others):
        return torch.isclose(flipped, others, atol=1e-5).flatten(1).all(dim=1)

    as_it_was, mirrored = alike(images), alike(images.flip(3))
    assert (as_it_was ^ mirrored).all()
    assert 16 < mirrored.sum() < 48


@settings(max_examples=40)
@given(st.integers(1, 9), st.floats(0.05, 5), st.integers(0, 99))
def test_a_mixed_knee_has_of_its_partners_label_what_it_has_of_its_image(n, alpha, seed):
    """One-hot labels, and images that are as bright as their row is high, so both can be told."""
    batch = {"images": torch.arange(n).double().view(n, 1, 1, 1), "label": torch.eye(n).double()}
    mixed = mix(batch, alpha, torch.Generator().manual_seed(seed))
    rows = torch.arange(n).double()
    torch.testing.assert_close(mixed["label"].sum(dim=1), torch.ones(n).double())
    torch.testing.assert_close(mixed["label"] @ rows, mixed["images"].flatten())
    # every knee is a partner once, so nothing of the batch is lost or doubled
    torch.testing.assert_close(mixed["label"].sum(dim=0), torch.ones(n).double())
    assert ((mixed["label"] > 0).sum(dim=1) <= 2).all()


def test_shares_of_mixed_knees_vary_and_unknown_labels_stay_unknown():
    batch = {"images": torch.arange(8.0), "event": torch.tensor([float("nan")] * 4 + [1.0] * 4)}
    mixes = [mix(batch, 0.4, torch.Generator().manual_seed(seed)) for seed in range(20)]
    assert len({tuple(each["images"].tolist()) for each in mixes}) == 20
    assert all(each["event"][:4].isnan().all() for each in mixes)


def test_rotation_turns_about_the_centre_and_by_no_more_than_asked():
    images = torch.zeros(64, 1, 65, 65)
    images[:, :, 28:37, 60:64] = 1  # at three o'clock
    config = STILL.model_copy(update={"rotation_deg": 30.0})
    turned = varied(images, config)[:, 0]
    grid = torch.arange(65.0) - 32
    mass = turned.sum(dim=(1, 2))
    across = (turned.sum(dim=1) * grid).sum(dim=1) / mass
    down = (turned.sum(dim=2) * grid).sum(dim=1) / mass
    degrees = torch.rad2deg(torch.atan2(down, across))
    assert degrees.abs().max() < 31
    assert degrees.max() > 20
    assert degrees.min() < -20
    torch.testing.assert_close(torch.hypot(across, down), torch.full((64,), 29.5), atol=1, rtol=0)
