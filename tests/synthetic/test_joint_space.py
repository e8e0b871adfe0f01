"""The joint space of a phantom as an area, against its widths and its film."""

import json

import numpy as np
import pandas as pd
import pytest

from kneeoa_mm.learning.saliency.placement import Placement
from kneeoa_mm.synthetic.anatomy import (
    State,
    build_knee,
    draw_bones,
    draw_shapes,
    joint_space_at_mm,
    joint_space_mm,
)
from kneeoa_mm.synthetic.cohort import synthesize
from kneeoa_mm.synthetic.joint_space import joint_space_outline


@pytest.mark.parametrize("medial_mm", [0.0, 1.0, 3.0, 5.0])
def test_the_outline_is_as_high_as_the_joint_space_is_wide(medial_mm: float) -> None:
    shape = draw_shapes(np.random.default_rng(4))[0]
    knee = build_knee(draw_bones(shape), State(medial_mm, 6.0, 1.0, 1.0))
    upper, lower = np.split(joint_space_outline(knee), 2)
    height = lower[::-1, 1] - upper[:, 1]
    is_medial = upper[:, 0] > 14 * knee.scale
    assert (height >= 0).all()
    assert height[is_medial].min() == pytest.approx(joint_space_mm(knee), abs=0.1)
    at = knee.plateau_width_mm * 0.25
    assert np.interp(at, upper[:, 0], height) == pytest.approx(
        joint_space_at_mm(knee, 0.25), rel=0.1, abs=0.15
    )


def test_the_truth_tells_where_the_joint_space_lies_within_the_box(tmp_path) -> None:
    synthesize(tmp_path / "a", subjects=2, seed=3, pixel_spacing_mm=0.8)
    truth = pd.read_parquet(tmp_path / "a" / "truth" / "knees.parquet")
    assert truth["joint_space_px"].isna().equals(truth["is_replaced"])
    for _, knee in truth.dropna(subset="joint_space_px").iterrows():
        corners = np.array(json.loads(knee["joint_space_px"]))
        edges = [knee[f"box_{edge}_px"] for edge in ("left", "top", "right", "bottom")]
        assert (corners > edges[:2]).all()
        assert (corners < edges[2:]).all()
        side = edges[2] - edges[0]
        place = Placement(edges[0], edges[1], side, side, is_mirrored=False)
        share = place.mask([corners], 128).mean()
        assert 0.01 < share < 0.06, "a few per cent of the image"
