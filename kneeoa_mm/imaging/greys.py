"""The greys of one film, decoded in a process of its own, as ``preprocess`` decodes all films."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from kneeoa_mm.errors import ItemError
from kneeoa_mm.imaging.apart import read_apart
from kneeoa_mm.imaging.films import read_greys
from kneeoa_mm.imaging.radiograph import Pixels
from kneeoa_mm.settings import PreprocessConfig


def read_greys_apart(path: Path, config: PreprocessConfig) -> Pixels:
    """Read a film where a decoder that crashes or hangs costs this film alone.

    Args:
        path: The film, a DICOM file or a picture.
        config: Limits, and which films are refused.

    Raises:
        ItemError: The film is refused, or its process crashed or took too long.
    """
    (result,) = read_apart(partial(read_greys, config=config), [path], config)
    if isinstance(result, ItemError):
        raise result
    return result
