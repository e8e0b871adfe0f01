"""Where millimetres of anatomy and pixels of a film lie relative to each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt

from kneeoa_mm.synthetic.anatomy import Points

Map = npt.NDArray[np.float32]
"""A quantity at each pixel, (rows, columns)."""


@dataclass(frozen=True)
class Grid:
    """Pixels of a film; pixel (row, column) is centred at (row + 0.5, column + 0.5) spacings."""

    spacing_mm: float
    rows: int
    columns: int


@dataclass(frozen=True)
class Placement:
    """Where a knee lies on the film.

    Attributes:
        centre_mm: Film position (x, y) of the origin of the anatomical frame.
        rotation_rad: Rotation on the film.
        mirrored: True for a left knee.
    """

    centre_mm: tuple[float, float]
    rotation_rad: float
    mirrored: bool

    def to_film_mm(self, points: Points) -> Points:
        """Anatomical to film coordinates, both (n, 2)."""
        x = -points[:, 0] if self.mirrored else points[:, 0]
        cosine, sine = np.cos(self.rotation_rad), np.sin(self.rotation_rad)
        turned = np.stack([cosine * x - sine * points[:, 1], sine * x + cosine * points[:, 1]], 1)
        return np.asarray(turned + np.asarray(self.centre_mm))


@dataclass(frozen=True)
class Window:
    """A rectangle of the film, with film (x, y) and anatomical (u, v) coordinates in mm.

    Attributes:
        rows: Rows of the film.
        columns: Columns of the film.
        x_mm: Film x of each column, (columns,).
        y_mm: Film y of each row, (rows,).
        u_mm: Anatomical x of each pixel, (rows, columns), growing medially.
        v_mm: Anatomical y of each pixel, growing towards the foot.
    """

    rows: slice
    columns: slice
    x_mm: Map
    y_mm: Map
    u_mm: Map
    v_mm: Map

    @classmethod
    def around(cls, grid: Grid, placement: Placement, box_mm: Points) -> Window:
        """The part of ``box_mm`` = (left, top, right, bottom) that lies on the film."""
        left, top, right, bottom = np.rint(np.asarray(box_mm) / grid.spacing_mm).astype(int)
        columns = slice(min(max(left, 0), grid.columns - 1), min(max(right, 1), grid.columns))
        rows = slice(min(max(top, 0), grid.rows - 1), min(max(bottom, 1), grid.rows))
        x = ((np.arange(columns.start, columns.stop) + 0.5) * grid.spacing_mm).astype(np.float32)
        y = ((np.arange(rows.start, rows.stop) + 0.5) * grid.spacing_mm).astype(np.float32)
        across = (x - np.float32(placement.centre_mm[0]))[None, :]
        down = (y - np.float32(placement.centre_mm[1]))[:, None]
        cosine = np.float32(np.cos(placement.rotation_rad))
        sine = np.float32(np.sin(placement.rotation_rad))
        u = cosine * across + sine * down
        return cls(
            rows, columns, x, y, -u if placement.mirrored else u, cosine * down - sine * across
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.u_mm.shape[0], self.u_mm.shape[1]

    def clip(self, other: Window) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The pixels that two windows share, as indices into this one and into the other."""
        shared = [
            slice(max(a.start, b.start), max(min(a.stop, b.stop), max(a.start, b.start)))
            for a, b in ((self.rows, other.rows), (self.columns, other.columns))
        ]

        def inside(window: Window) -> tuple[slice, slice]:
            row, column = window.rows.start, window.columns.start
            rows, columns = shared
            return (
                slice(rows.start - row, rows.stop - row),
                slice(columns.start - column, columns.stop - column),
            )

        return inside(self), inside(other)


def depth_inside_mm(outline_mm: Points, window: Window, spacing_mm: float) -> Map:
    """Signed distance to a closed outline, positive inside; exact where it matters, at the edge.

    Args:
        outline_mm: Film coordinates in equal steps, smaller than the pixels, shape (n, 2).
        window: Where to compute it.
        spacing_mm: Pixel size.
    """
    position = outline_mm / spacing_mm - [window.columns.start, window.rows.start]
    nearest = _nearest_point(position, window.shape)
    outline = outline_mm.astype(np.float32)
    away_x = window.x_mm[None, :] - outline[nearest, 0]
    away_y = window.y_mm[:, None] - outline[nearest, 1]
    distance = np.hypot(away_x, away_y)
    drawing = Image.new("1", window.shape[::-1])
    ImageDraw.Draw(drawing).polygon((position[::3] - 0.5).ravel().tolist(), fill=1)
    inside = np.asarray(drawing)
    depth = np.where(inside, distance, -distance)
    # A drawn polygon is true to a pixel only; near the edge the outline's normal tells the side
    row, column = np.nonzero(distance < 2.5 * spacing_mm)
    pixels = np.stack([window.x_mm[column], window.y_mm[row]], axis=1)
    along_normal = _along_normal(outline, nearest[row, column], pixels)
    if (along_normal * np.where(inside[row, column], 1.0, -1.0)).sum() < 0:
        along_normal = -along_normal
    depth[row, column] = along_normal
    return np.asarray(depth, dtype=np.float32)


def _along_normal(outline: Map, nearest: npt.NDArray[np.int64], pixels: Map) -> Map:
    """Signed distance of ``pixels`` (m, 2) from the outline (n, 2) along its normal, (m,)."""
    step = np.roll(outline, -1, axis=0) - np.roll(outline, 1, axis=0)
    length = np.hypot(step[:, 0], step[:, 1])
    tangent = step / length[:, None]
    # ``nearest`` may be off by a pixel along the outline, which runs in steps of half ``length``
    along = ((pixels - outline[nearest]) * tangent[nearest]).sum(axis=1)
    nearer = (nearest + np.rint(2 * along / length[nearest]).astype(np.int64)) % len(outline)
    away = pixels - outline[nearer]
    return np.asarray(away[:, 1] * tangent[nearer, 0] - away[:, 0] * tangent[nearer, 1])


def _nearest_point(position_px: Points, shape: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Index of the outline point nearest to each pixel, to about a pixel, (rows, columns)."""
    pixel = np.floor(position_px).astype(int)
    inside = np.all((pixel >= 0) & (pixel < np.array(shape[::-1])), axis=1)
    off_centre = np.hypot(*(position_px - pixel - 0.5).T)
    order = np.argsort(-off_centre, kind="stable")
    order = order[inside[order]]
    seeds = np.full(shape, -1, dtype=np.int64)
    # Of several points in one pixel, the last one written, nearest to its centre, stays
    seeds[pixel[order, 1], pixel[order, 0]] = order
    row, column = distance_transform_edt(seeds < 0, return_distances=False, return_indices=True)
    return np.asarray(seeds[row, column])
