"""QC flags: each fires on what it names and stays silent on a good knee."""

from __future__ import annotations

import numpy as np
import pytest

from kneeoa_mm.imaging.quality import QCFlag, image_flags, place_flags
from kneeoa_mm.records import Box

GOOD = np.linspace(3000, 60000, 10_000).reshape(100, 100).astype(np.uint16)


def _with_white(share: float) -> np.ndarray:
    image = GOOD.copy()
    image.flat[: round(share * image.size)] = 65535
    return image


@pytest.mark.parametrize(
    ("image", "flags"),
    [
        (GOOD, []),
        (np.full_like(GOOD, 1234), [QCFlag.FLAT]),
        ((GOOD // 20 + 20000).astype(np.uint16), [QCFlag.LOW_CONTRAST]),
        (_with_white(0.04), []),
        (_with_white(0.08), [QCFlag.SATURATED]),
    ],
)
def test_greys_of_a_knee_image(image: np.ndarray, flags: list[QCFlag]) -> None:
    assert image_flags(image) == flags


@pytest.mark.parametrize(
    ("row", "is_flagged"), [(500, False), (250, False), (150, True), (900, True)]
)
def test_joints_at_the_upper_and_lower_border_are_off_centre(row: int, is_flagged: bool) -> None:
    joint = Box(0, row - 50, 100, row + 50)
    assert place_flags(joint, film_rows=1000) == ([QCFlag.OFF_CENTRE] if is_flagged else [])
