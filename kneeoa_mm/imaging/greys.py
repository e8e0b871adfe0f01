"""The greys of one film, decoded in a process of its own, as ``preprocess`` decodes all films."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from kneeoa_mm.errors import ItemError
from kneeoa_mm.imaging.films import read_greys
from kneeoa_mm.imaging.limits import die_with_parent, memory_limit, silence
from kneeoa_mm.imaging.radiograph import Pixels
from kneeoa_mm.imaging.runner import run_films
from kneeoa_mm.imaging.worker import rejected
from kneeoa_mm.records import Reject
from kneeoa_mm.settings import PreprocessConfig


def read_greys_apart(path: Path, config: PreprocessConfig) -> Pixels:
    """Read a film where a decoder that crashes or hangs costs this film alone.

    Args:
        path: The film, a DICOM file or a picture.
        config: Limits, and which films are refused.

    Raises:
        ItemError: The film is refused, or its process crashed or took too long.
    """
    work = partial(_read, config=config)
    (result,) = run_films(work, [path], jobs=1, timeout_s=config.film_timeout_s, prepare=_prepare)
    if isinstance(result, ItemError):
        raise result
    if isinstance(result, Reject):
        raise ItemError(result.code, result.message, stage=result.stage)
    return result


def _prepare() -> None:
    die_with_parent()
    silence()


def _read(path: Path, config: PreprocessConfig) -> Pixels | Reject:
    # an ItemError does not travel between processes
    try:
        with memory_limit(config.film_memory_mb):
            return read_greys(path, config)
    except ItemError as error:
        return rejected("", error)
