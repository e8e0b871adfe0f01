"""Films read in a process of their own: a decoder that hangs or aborts costs its film alone."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar

from kneeoa_mm.errors import ItemError
from kneeoa_mm.imaging.faults import as_item_errors
from kneeoa_mm.imaging.limits import die_with_parent, memory_limit, silence
from kneeoa_mm.imaging.runner import run_films
from kneeoa_mm.imaging.worker import rejected
from kneeoa_mm.records import Reject
from kneeoa_mm.settings import PreprocessConfig

Read = TypeVar("Read")


def read_apart(
    read: Callable[[Path], Read], paths: Iterable[Path], config: PreprocessConfig
) -> Generator[Read | ItemError, None, None]:
    """Read films one after another, and yield what came of each in their order.

    Args:
        read: Reads one film; a function of a module, or a partial of one.
        paths: The films.
        config: How long a film may take, and how much memory.

    Yields:
        What ``read`` returned, or the fault: its ItemError, or that of a process that crashed,
        took too long or took too much.
    """
    work = partial(_read, read, memory_mb=config.film_memory_mb)
    for result in run_films(work, paths, jobs=1, timeout_s=config.film_timeout_s, prepare=_prepare):
        if isinstance(result, Reject):
            yield ItemError(result.code, result.message, stage=result.stage)
        else:
            yield result


def _prepare() -> None:
    die_with_parent()
    silence()


def _read(read: Callable[[Path], Read], path: Path, *, memory_mb: int) -> Read | Reject:
    # an ItemError does not travel between processes
    try:
        with memory_limit(memory_mb), as_item_errors("process", "E_UNEXPECTED"):
            return read(path)
    except ItemError as error:
        return rejected("", error)
