"""Views of one image over which a prediction is averaged.

A detector finds a joint to a few per cent of its size, and a grade that hangs on so little is a
grade of the detector's error. Averaged over crops that differ by as much, it is steadier.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

_LARGEST = (0.05, 0.05, 0.06)
"""Of the shifts across and down, as shares of the image, and of the change of scale."""
_SPREAD = 1.2207440846057596
"""The root of x**4 = x + 1, whose powers spread points evenly in three dimensions (Roberts 2018,
The unreasonable effectiveness of quasirandom sequences)."""


def _crops(pairs: int) -> tuple[tuple[float, float, float], ...]:
    """The image itself, then pairs of opposite moves, which together move no knee.

    Steps of one size will not do. A network halves its maps again and again, and sees an image
    moved by a multiple of its whole stride, such as 16 px, in the same grid as before: what that
    grid makes of fine detail, which moves a grade, is then never averaged out (Zhang 2019, ICML,
    Making convolutional networks shift-invariant again).
    """
    found = [(0.0, 0.0, 1.0)]
    for number in range(1, pairs + 1):
        place = [(0.5 + number / _SPREAD**power) % 1 for power in (1, 2, 3)]
        across, down, scale = (
            (2 * at - 1) * most for at, most in zip(place, _LARGEST, strict=True)
        )
        found += [(across, down, 1 + scale), (-across, -down, 1 - scale)]
    return tuple(found)


CROPS = _crops(pairs=5)
"""Shift across and down as shares of the image, and scale, the image itself first. The first few
are spread as evenly as all of them, and all lie inside the default augmentation, so that a network
has met such crops in training."""


@dataclass(frozen=True)
class Views:
    """Which views are averaged, beside the image itself.

    Attributes:
        flip: The mirror images.
        crops: How many times the image is moved and scaled a little, as ``CROPS`` says.
    """

    flip: bool = False
    crops: int = 0

    def of(self, images: Tensor) -> Iterator[Tensor]:
        """The views of a batch (B, 1, S, S), the images themselves first."""
        yield images
        moved = [_move(images, *crop) for crop in CROPS[1 : self.crops + 1]]
        yield from moved
        if self.flip:
            yield from (view.flip(-1) for view in (images, *moved))


ITSELF = Views()
"""No averaging."""


def _move(images: Tensor, across: float, down: float, scale: float) -> Tensor:
    # grid coordinates run from -1 to 1, so a share of the width is twice that
    matrix = images.new_tensor([[scale, 0, 2 * across], [0, scale, 2 * down]])
    # the grid of one image serves all: making one costs more than sampling by it
    grid = functional.affine_grid(matrix[None], [1, *images.shape[1:]], align_corners=False)
    grid = grid.expand(len(images), -1, -1, -1)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
