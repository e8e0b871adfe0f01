"""DeepKnee: one small network looks at both sides of the joint (Tiulpin et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

_PATCH = 128 / 300
"""Side of a patch as a share of the image: 128 px of 300."""


class DeepKnee(nn.Module):
    """Siamese network on a lateral patch and the mirrored medial patch.

    Both patches pass the same convolutions, so what is learned of one compartment serves the
    other. They lie at the outer edges of the image, from a third of its height down. The image is
    in the orientation of a right knee as on film: lateral is left.

    Each convolution is padded by one pixel, and batch statistics are of both patches together.

    Source: Tiulpin et al. 2018, Sci Rep 8:1727.
    """

    feature_width = 512

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            _convolution(1, 64, stride=2),
            _convolution(64, 64),
            _convolution(64, 64),
            nn.MaxPool2d(2),
            _convolution(64, 128),
            _convolution(128, 128),
            nn.MaxPool2d(2),
            _convolution(128, 256),
        )
        self.feature_map = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 512) of grey images in any number of equal channels (B, C, S, S)."""
        size = images.shape[-1]
        side, top = round(size * _PATCH), size // 3
        band = images[:, :1, top : top + side]
        patches = torch.cat([band[..., :side], band[..., -side:].flip(-1)])
        lateral, medial = self.branch(patches).chunk(2)
        height, width = lateral.shape[-2:]
        whole, above = round(size * width / side), round(top * height / side)
        joint = self.feature_map(_in_place(lateral, medial.flip(-1), whole, above))
        return joint.sum(dim=(2, 3)) / (height * width)


def _in_place(lateral: Tensor, medial: Tensor, whole: int, above: int) -> Tensor:
    """Both maps where they lie in the image, to a cell, so that Grad-CAM draws them there.

    Args:
        lateral: Shape (B, 256, h, w).
        medial: Shape (B, 256, h, w).
        whole: Cells on a side of the image.
        above: Cells above the maps.

    Returns:
        Shape (B, 512, whole, whole): lateral channels, then medial ones, zero elsewhere.
    """
    height, width = lateral.shape[-2:]
    beside, below = whole - width, whole - height - above
    placed = pad(lateral, (0, beside, above, below)), pad(medial, (beside, 0, above, below))
    return torch.cat(placed, dim=1)


def _convolution(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )
