"""Views of one image over which a prediction is averaged.

A detector finds a joint to a few per cent of its size, and a grade that hangs on so little is a
grade of the detector's error. Averaged over crops that differ by as much, it is steadier.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

_SHIFTS = (0.0, -0.05, 0.05)
CROPS = (
    *((across, down, 1.0) for across in _SHIFTS for down in _SHIFTS),
    (0.0, 0.0, 0.94),
    (0.0, 0.0, 1.06),
)
"""Shift across and down as shares of the image, and scale, the image itself first. All lie inside
the default augmentation, so that a network has met such crops in training."""


@dataclass(frozen=True)
class Views:
    """Which views are averaged, beside the image itself.

    Attributes:
        flip: The mirror images.
        crops: The image moved and scaled a little, as ``CROPS`` says.
    """

    flip: bool = False
    crops: bool = False

    def of(self, images: Tensor) -> Iterator[Tensor]:
        """The views of a batch (B, 1, S, S), the images themselves first."""
        yield images
        moved = [_move(images, *crop) for crop in CROPS[1:]] if self.crops else []
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
