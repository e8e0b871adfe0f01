"""Stored values to display grey: modality LUT, VOI LUT or window, polarity, sixteen bits.

A stored value has at most 16 bits, so the whole chain is worked out once for every possible value
and applied to the film as one look-up. The order is that of the DICOM pipeline (PS3.4 N.2):
modality, VOI, and only then polarity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.float64]

LOW_PERCENTILE = 0.1
_EVEN = 1e-6
"""Steps between greys are the same if they differ by less than this share of themselves."""
_MOST_SAMPLES = 250_000
_LEAST_FACTOR, _LARGEST_FACTOR = 1e-6, 1e6
_LARGEST_OFFSET = 1e9
"""Beyond these a header is in error, and arithmetic with 65,536 greys no longer exact."""


def own_bits(stored: NDArray[np.integer], bits: int, high_bit: int) -> NDArray[np.integer]:
    """Drop what stands above High Bit (0028,0102) and below the Bits Stored (0028,0101).

    Old films keep overlays or garbage there (PS3.5 8.1.1). Negative values keep their sign.

    Example:
        >>> own_bits(np.array([0x7ABC], dtype=np.uint16), 12, 11).tolist() == [0xABC]
        True
    """
    allocated = 8 * stored.dtype.itemsize
    if not bits - 1 <= high_bit < allocated:
        high_bit = bits - 1
    if stored.dtype.kind == "u" and high_bit == bits - 1 and int(stored.max()) < 1 << bits:
        return stored
    values: NDArray[np.integer] = (stored << (allocated - 1 - high_bit)) >> (allocated - bits)
    return values


@dataclass(frozen=True)
class Lut:
    """A look-up table, DICOM (0028,3002) and (0028,3006).

    Attributes:
        first: Input value that maps to the first entry.
        entries: Outputs of consecutive inputs; inputs beyond either end get the end's entry.
    """

    first: int
    entries: tuple[int, ...]

    def __call__(self, values: Grey) -> Grey:
        """Look up ``values``, rounded to integers."""
        position = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        outputs: Grey = np.asarray(self.entries, dtype=np.float64)[position.astype(np.intp)]
        return outputs


@dataclass(frozen=True)
class Rescale:
    """Rescale Slope (0028,1053) and Intercept (0028,1052)."""

    slope: float
    intercept: float

    @property
    def is_valid(self) -> bool:
        """Whether the greys stay apart, and finite."""
        is_factor = _LEAST_FACTOR <= abs(self.slope) <= _LARGEST_FACTOR
        return is_factor and abs(self.intercept) <= _LARGEST_OFFSET

    def __call__(self, values: Grey) -> Grey:
        """``slope * values + intercept``."""
        return values * self.slope + self.intercept


@dataclass(frozen=True)
class Window:
    """Window Center (0028,1050), Width (0028,1051) and VOI LUT Function (0028,1056).

    Source: DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3, with an output range of 0 to 1.

    Example:
        >>> Window(50.5, 101.0)(np.array([-10.0, 50.0, 200.0])).tolist()
        [0.0, 0.5, 1.0]
    """

    centre: float
    width: float
    function: Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"] = "LINEAR"

    @property
    def is_valid(self) -> bool:
        """Whether the standard allows this width, and arithmetic does."""
        least = 1.0 if self.function == "LINEAR" else _LEAST_FACTOR
        return abs(self.centre) <= _LARGEST_OFFSET and least <= self.width <= _LARGEST_OFFSET

    def __call__(self, values: Grey) -> Grey:
        """Window ``values`` to 0 to 1."""
        if self.function == "SIGMOID":
            exponent = np.clip(-4 * (values - self.centre) / self.width, -700, 700)
            return 1 / (1 + np.exp(exponent))
        centre, width = self.centre, self.width
        if self.function == "LINEAR":
            centre, width = centre - 0.5, width - 1
        if width == 0:
            return (values > centre).astype(np.float64)
        return np.clip((values - centre) / width + 0.5, 0, 1)


@dataclass(frozen=True)
class Padding:
    """Pixel Padding Value (0028,0120) and Range Limit (0028,0121): stored values of no tissue.

    Attributes:
        first: Lowest padding value.
        last: Highest padding value.
    """

    first: int
    last: int

    def __call__(self, stored: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which pixels are padding."""
        return (stored >= self.first) & (stored <= self.last)


@dataclass(frozen=True)
class GreyScale:
    """From stored values to display grey, in which bone is bright.

    Attributes:
        modality: Modality LUT or rescale; None is the identity.
        voi: VOI LUT or window; None is the identity.
        is_inverted: MONOCHROME1, whose low values are bright.
        padding: Stored values that fill the frame around the film.
    """

    modality: Lut | Rescale | None = None
    voi: Lut | Window | None = None
    is_inverted: bool = False
    padding: Padding | None = None

    def __call__(self, stored: NDArray[np.integer]) -> NDArray[np.float32]:
        """Display grey of ``stored``, integers of at most 16 bits and two dimensions.

        The greys have no unit; the darkest is 0, so that a film and its negative with the other
        polarity give the same numbers. Padding gets the film's dark end, whatever the polarity:
        it neither glares nor moves the film's own range of greys.
        """
        if self.padding is None or not (is_padding := self.padding(stored)).any():
            return self._shown(stored)
        grey = np.zeros(stored.shape, dtype=np.float32)
        if not is_padding.all():
            shown = self._shown(stored[~is_padding])
            grey[~is_padding] = shown
            grey[is_padding] = grey_range(shown[None])[0]
        return grey

    def _shown(self, stored: NDArray[np.integer]) -> NDArray[np.float32]:
        low, high = (int(bound) for bound in (stored.min(), stored.max()))
        grey = np.arange(low, high + 1, dtype=np.float64)
        for step in (self.modality, self.voi):
            grey = grey if step is None else step(grey)
        if self.is_inverted:
            grey = -grey
        grey -= grey.min()
        # narrow integers are worked on several times as fast as wide ones
        narrow = stored.astype(np.int32) if low < 0 else stored
        bounds = narrow.dtype.type(low), narrow.dtype.type(high)
        rise = _even_step(grey)
        if rise is None:
            return grey.astype(np.float32)[narrow - bounds[0]]
        # arithmetic is several times as fast as the look-up that it replaces
        index = narrow - bounds[0] if rise > 0 else bounds[1] - narrow
        shown: NDArray[np.float32] = index.astype(np.float32)
        shown *= np.float32(abs(rise))
        return shown


def _even_step(grey: Grey) -> float | None:
    """By how much each grey differs from the one before, where that is always the same."""
    if grey.size < 2:
        return None
    steps = np.diff(grey)
    step = float(grey[-1] - grey[0]) / (grey.size - 1)
    return step if step and np.abs(steps - step).max() <= _EVEN * abs(step) else None


def is_flat(pixels: NDArray[np.float32]) -> bool:
    """Whether all pixels have one grey; the first row that has two spares the rest a look."""
    first = pixels.flat[0]
    return all((row == first).all() for row in pixels)


def is_blind(pixels: NDArray[np.float32]) -> bool:
    """Whether nothing would be left of a film: its 0.1 and 99.9 percentiles are one grey.

    A marker that is brighter than all else must not pass for a picture.
    """
    low, high = grey_range(pixels)
    return low == high


def grey_range(pixels: NDArray[np.float32]) -> tuple[float, float]:
    """The 0.1 and 99.9 percentiles of a film, from about 250,000 of its pixels.

    They leave out dead pixels and the brightest rims, and are order statistics: a film and its
    negative, inverted, have the same ones.

    Args:
        pixels: Display grey, (rows, columns).
    """
    step = max(1, int(np.sqrt(pixels.size / _MOST_SAMPLES)))
    sample = pixels[::step, ::step]
    last = sample.size - 1
    low = int(last * LOW_PERCENTILE / 100)
    ordered = np.partition(sample, (low, last - low), axis=None)
    return float(ordered[low]), float(ordered[last - low])


def to_uint16(pixels: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint16]:
    """Map ``low`` to 0 and ``high`` to 65535, linearly, clipping what lies beyond.

    Example:
        >>> to_uint16(np.array([[0.0, 1.0, 2.0, 9.0]], dtype=np.float32), 0.0, 2.0).tolist()
        [[0, 32768, 65535, 65535]]
    """
    scaled = (pixels - np.float32(low)) * np.float32(65535 / (high - low))
    rounded: NDArray[np.uint16] = (np.clip(scaled, 0, 65535) + np.float32(0.5)).astype(np.uint16)
    return rounded
