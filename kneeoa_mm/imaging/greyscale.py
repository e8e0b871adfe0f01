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
_MOST_SAMPLES = 1_000_000


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
        """Whether the standard allows this width."""
        least = 1.0 if self.function == "LINEAR" else np.nextafter(0.0, 1.0)
        return bool(np.isfinite([self.centre, self.width]).all() and self.width >= least)

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
class GreyScale:
    """From stored values to display grey, in which bone is bright.

    Attributes:
        modality: Modality LUT or rescale; None is the identity.
        voi: VOI LUT or window; None is the identity.
        is_inverted: MONOCHROME1, whose low values are bright.
    """

    modality: Lut | Rescale | None = None
    voi: Lut | Window | None = None
    is_inverted: bool = False

    def __call__(self, stored: NDArray[np.integer]) -> NDArray[np.float32]:
        """Display grey of ``stored``, integers of at most 16 bits and any shape.

        The greys have no unit; the darkest is 0, so that a film and its negative with the other
        polarity give the same numbers.
        """
        low, high = (int(bound) for bound in (stored.min(), stored.max()))
        grey = np.arange(low, high + 1, dtype=np.float64)
        for step in (self.modality, self.voi):
            grey = grey if step is None else step(grey)
        if self.is_inverted:
            grey = -grey
        grey -= grey.min()
        return grey.astype(np.float32)[stored.astype(np.int32) - low]


def grey_range(pixels: NDArray[np.float32]) -> tuple[float, float]:
    """The 0.1 and 99.9 percentiles of a film, from at most a million of its pixels.

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
    scaled = (pixels.astype(np.float64) - low) / (high - low)
    return np.floor(np.clip(scaled, 0, 1) * 65535 + 0.5).astype(np.uint16)
