"""Where a network's input lies on the knee image, and on the film that the image was cut from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from kneeoa_mm.learning.framing import Square
from kneeoa_mm.records import Box

_FINER = 4

Points = NDArray[np.float64]
"""Corners (x, y) in pixels, whose edges are integers, shape (n, 2)."""


@dataclass(frozen=True)
class Placement:
    """A network's input on a picture; nothing is turned, but left and right may change places.

    Attributes:
        left: First column of the picture that the input shows; may lie beyond the picture.
        top: First row.
        width: Columns that it shows.
        height: Rows.
        is_mirrored: The input is the mirror image of the picture.
    """

    left: float
    top: float
    width: float
    height: float
    is_mirrored: bool

    @property
    def area(self) -> float:
        """Pixels of the picture that it covers."""
        return self.width * self.height

    @classmethod
    def on_image(cls, square: Square, *, is_mirrored: bool) -> Placement:
        """On a knee image, of which the network sees a square."""
        return cls(square.left, square.top, square.side, square.side, is_mirrored)

    def on_film(self, shape: tuple[int, int], box: Box, *, is_flipped: bool) -> Placement:
        """On the film, where this is the place on the knee image.

        Args:
            shape: Rows and columns of the knee image.
            box: What the image shows of the film.
            is_flipped: The image is the mirror image of the film.
        """
        rows, columns = shape
        left = columns - self.left - self.width if is_flipped else self.left
        across, down = box.width_px / columns, box.height_px / rows
        return Placement(
            box.left_px + left * across,
            box.top_px + self.top * down,
            self.width * across,
            self.height * down,
            self.is_mirrored != is_flipped,
        )

    def to_input(self, points: Points, size_px: int) -> Points:
        """Points of the picture in pixels of the network's input."""
        shares = (points - [self.left, self.top]) / [self.width, self.height]
        if self.is_mirrored:
            shares = np.stack([1 - shares[:, 0], shares[:, 1]], axis=1)
        return shares * size_px

    def mask(self, polygons: list[Points], size_px: int) -> NDArray[np.float32]:
        """How much of each pixel of the input lies in polygons of the picture, (S, S)."""
        canvas = Image.new("L", (size_px * _FINER,) * 2)
        for polygon in polygons:
            corners = self.to_input(polygon, size_px) * _FINER - 0.5
            ImageDraw.Draw(canvas).polygon(corners.ravel().tolist(), fill=255)
        return np.asarray(canvas.reduce(_FINER), dtype=np.float32) / np.float32(255)

    def lay(self, heat: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
        """A map of the input on the picture, zero beside it.

        Args:
            heat: Shape (S, S).
            shape: Rows and columns of the picture.
        """
        flat = np.ascontiguousarray(heat[:, ::-1] if self.is_mirrored else heat)
        left, top = round(self.left), round(self.top)
        width = max(1, round(self.left + self.width) - left)
        height = max(1, round(self.top + self.height) - top)
        whole = Image.new("F", shape[::-1])
        whole.paste(
            Image.fromarray(flat).resize((width, height), Image.Resampling.BILINEAR), (left, top)
        )
        return np.asarray(whole, dtype=np.float32)

    def take(self, other: Placement, heat: NDArray[np.float32]) -> NDArray[np.float32]:
        """A map of another input, on the same picture, in this one's place; zero beside it.

        Args:
            other: Where the other input lies.
            heat: Its map, (S, S), which keeps its number of pixels.
        """
        if other == self:
            return heat
        size = len(heat)
        middles = (np.arange(size) + 0.5) / size
        columns = 1 - middles if self.is_mirrored else middles
        at = np.stack([self.left + columns * self.width, self.top + middles * self.height], axis=1)
        places = np.floor(other.to_input(at, size)).astype(int)
        inside = (places >= 0) & (places < size)
        x, y = np.clip(places, 0, size - 1).T
        return np.where(np.outer(inside[:, 1], inside[:, 0]), heat[np.ix_(y, x)], np.float32(0))
