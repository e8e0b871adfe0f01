"""Averaged views are the image, moved and scaled by what is stated, and mirrored if asked."""

import pytest
import torch
from pydantic import ValidationError

from kneeoa_mm.learning.views import CROPS, Views
from kneeoa_mm.settings import AugmentConfig, PretrainKLConfig


def ramps(size_px=100):
    """Two images: one grows to the right, one downwards, both by 1 a pixel, 0 in the middle."""
    ramp = torch.arange(size_px) - (size_px - 1) / 2
    across = ramp.expand(size_px, size_px)
    return torch.stack([across, across.T]).unsqueeze(1)


def inner(images):
    """What no border reaches."""
    return images[:, 0, 20:80, 20:80]


def test_without_averaging_there_is_the_image_alone():
    images = ramps()
    (only,) = Views().of(images)
    assert only is images


@pytest.mark.parametrize(("flip", "crops"), [(False, 10), (True, 10), (True, 4)])
def test_each_crop_shows_the_image_at_its_stated_place_and_scale(flip, crops):
    images = ramps()
    views = list(Views(flip=flip, crops=crops).of(images))
    assert len(views) == (crops + 1) * (2 if flip else 1)
    for view, (across, down, scale) in zip(views, CROPS[: crops + 1], strict=False):
        expected = inner(images) * scale
        expected[0] += 100 * across
        expected[1] += 100 * down
        torch.testing.assert_close(inner(view), expected, atol=1e-3, rtol=0)
    for straight, mirrored in zip(views[: crops + 1], views[crops + 1 :], strict=flip):
        torch.testing.assert_close(mirrored, straight.flip(-1))


@pytest.mark.parametrize("crops", range(0, 11, 2))
def test_the_crops_balance_out_so_that_averaging_moves_no_knee(crops):
    assert PretrainKLConfig(test_time_crops=crops).test_time_crops < len(CROPS)
    averaged = CROPS[: crops + 1]
    across, down, scale = (sum(values) / len(averaged) for values in zip(*averaged, strict=True))
    assert (across, down, scale) == pytest.approx((0, 0, 1))


@pytest.mark.parametrize("crops", [-2, 1, 12])
def test_a_number_of_crops_that_does_not_balance_or_is_not_there_is_refused(crops):
    with pytest.raises(ValidationError, match="test_time_crops"):
        PretrainKLConfig(test_time_crops=crops)


def test_networks_meet_such_crops_in_training():
    augment = AugmentConfig()
    for across, down, scale in CROPS:
        assert max(abs(across), abs(down)) <= augment.translation
        assert abs(scale - 1) <= augment.scale


@pytest.mark.parametrize("size_px", [128, 160, 192, 224, 256, 299, 320, 384])
def test_crops_meet_the_strides_of_a_network_at_many_phases(size_px):
    """Shifts by a multiple of the stride are no other view to a network that halves its maps."""
    stride = 16
    phases = {
        (round(across * size_px) % stride, round(down * size_px) % stride)
        for across, down, _ in CROPS
    }
    assert len(phases) >= len(CROPS) - 2
