"""Images as a network sees them: read, prepared by its contract, and kept as bytes."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from kneeoa_mm.errors import ItemError
from kneeoa_mm.greys import DEEP_MODES, deep_greys, loses_bits
from kneeoa_mm.learning.framing import Framing, frame
from kneeoa_mm.model_folder import Preprocessing
from kneeoa_mm.progress import track
from kneeoa_mm.records import Reject

_EDGE_FRACTION = 0.1
_MIDDLE = (0.3, 0.7)


def read_grey(path: Path) -> NDArray[np.float32]:
    """Read an image of 8 or 16 bits upright, in grey and its own units, shape (rows, columns).

    Raises:
        ItemError: The file is no image that can be read, is damaged, or has 16 bits in several
            channels.
    """
    try:
        with Image.open(path) as image:
            pixels = _greys(image).astype(np.float32)
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise ItemError("E_UNREADABLE", type(error).__name__, stage="read image") from error
    except Image.DecompressionBombError as error:
        raise ItemError("E_TOO_LARGE", "more pixels than are safe", stage="read image") from error
    return pixels


def _greys(image: Image.Image) -> NDArray[Any]:
    if loses_bits(image):
        message = "the picture has 16 bits in several channels; save it in grey"
        raise ItemError("E_DEEP_COLOUR", message, stage="read image")
    if image.mode in DEEP_MODES:
        return deep_greys(image)[0]
    upright = ImageOps.exif_transpose(image)
    return np.asarray(upright if upright.mode in {"L", "F"} else upright.convert("L"))


def is_negative(pixels: NDArray[np.float32]) -> bool:
    """Whether a knee image is a photometric negative.

    Bone stands in the middle and attenuates most; in a positive it is brighter than the soft tissue
    and air at the left and right edge.

    Args:
        pixels: Grey values, shape (rows, columns).
    """
    columns = pixels.shape[1]
    edge = max(1, round(columns * _EDGE_FRACTION))
    left, right = (round(columns * share) for share in _MIDDLE)
    middle = np.median(pixels[:, left:right])
    sides = np.median(np.concatenate([pixels[:, :edge], pixels[:, -edge:]], axis=1))
    return bool(middle < sides)


def prepare(
    pixels: NDArray[np.float32],
    contract: Preprocessing,
    *,
    mirror: bool,
    field_of_view: float | None = None,
) -> tuple[NDArray[np.uint8], Framing]:
    """Bring an image into the form that a model's contract states.

    The image is cut to the model's field of view first: its greys are stretched by what the
    network sees, not by what lies around it.

    Args:
        pixels: Grey values in any unit, shape (rows, columns).
        contract: The model's preprocessing.
        mirror: The image is a left knee in native orientation.
        field_of_view: Longer side of the image in tibial-plateau widths; None where unknown, and
            the image is used whole.

    Returns:
        Shape (image_size_px, image_size_px), and how the image was framed.

    Raises:
        ItemError: The image is flat.
    """
    square, framing = frame((pixels.shape[0], pixels.shape[1]), field_of_view, contract)
    low, high = np.percentile(square.inside(pixels), contract.clip_percentiles)
    if not high > low:
        raise ItemError("E_FLAT", "all pixels have the same value", stage="prepare image")
    grey = np.clip((pixels - low) / (high - low), 0, 1).astype(np.float32)
    if contract.reinvert_negatives and is_negative(square.inside(grey)):
        grey = 1 - grey
    resized = square.resample(grey, contract.image_size_px)
    return np.round((resized[:, ::-1] if mirror else resized) * 255).astype(np.uint8), framing


@dataclass(frozen=True, eq=False)
class LoadedImages:
    """The images of some knees, in the form that one contract states.

    Attributes:
        pixels: Shape (n, size, size), zero where an image could not be read.
        framing: How each was framed, (n,); None where it could not be read.
        rejects: Why the others could not be read.
    """

    pixels: NDArray[np.uint8]
    framing: tuple[Framing | None, ...]
    rejects: tuple[Reject, ...]


def load_images(
    knees: pd.DataFrame, contract: Preprocessing, pixels: NDArray[np.uint8] | None = None
) -> LoadedImages:
    """Read and prepare the images of all knees.

    Args:
        knees: Rows of ``sources.read_knees``.
        contract: The model's preprocessing.
        pixels: Zeros of shape (n, size, size) to fill; without, they are made in memory.
    """
    if pixels is None:
        pixels = np.zeros((len(knees), *[contract.image_size_px] * 2), dtype=np.uint8)
    framing: list[Framing | None] = [None] * len(knees)
    rejects: list[Reject] = []

    def load(
        item: tuple[str, bool, float],
    ) -> tuple[NDArray[np.uint8], Framing] | ItemError:
        path, mirror, field_of_view = item
        try:
            grey = read_grey(Path(path))
            known = None if np.isnan(field_of_view) else field_of_view
            return prepare(grey, contract, mirror=mirror, field_of_view=known)
        except ItemError as error:
            return error

    items = list(
        zip(
            knees["image_path"], knees["mirror"], knees["field_of_view_plateau_widths"], strict=True
        )
    )
    with ThreadPoolExecutor() as pool:
        loaded = track(pool.map(load, items), total=len(items), label="read images")
        for i, result in enumerate(loaded):
            if isinstance(result, ItemError):
                source = Path(items[i][0]).name
                rejects.append(Reject(source, result.stage, result.code, result.message))
            else:
                pixels[i], framing[i] = result
    return LoadedImages(pixels, tuple(framing), tuple(rejects))


def to_input(images: Tensor, contract: Preprocessing) -> Tensor:
    """Bytes (B, S, S) to the network's input (B, 1, S, S)."""
    grey = images.unsqueeze(1).float() / 255
    return (grey - contract.mean) / contract.std
