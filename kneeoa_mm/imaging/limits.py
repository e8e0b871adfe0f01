"""What a worker process may take, and where it may write."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection, parent_process
from pathlib import Path

_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
_STDERR = 2
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MOST_BLOCK_BYTES, _MOST_KEPT_BYTES = 2**25, 2**28
"""Larger blocks, and what is free beyond this, are given back all the same; glibc takes no more
than the former."""


@contextmanager
def memory_limit(headroom_mb: int) -> Iterator[None]:
    """Let this process grow by so much and no more; beyond it, Python raises MemoryError.

    The limit is one of address space (RLIMIT_AS), counted from what the process holds already,
    such as the libraries of a detector. Linux alone keeps it; elsewhere nothing is limited.

    Args:
        headroom_mb: Mebibytes.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limits = [used + headroom_mb * 2**20, *(each for each in (soft, hard) if each >= 0)]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def single_threaded_children() -> Iterator[None]:
    """Processes that start within compute in one thread.

    Workers share the cores already, and a sum in several threads depends on their number.
    """
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def keep_freed_memory() -> None:
    """Let the C library keep what a film gave back, for the next film (glibc alone).

    It returns blocks as large as a film's to the system at once, which fills the next ones with
    zeros, page by page: a twelfth of the time of a film.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _MOST_BLOCK_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT_BYTES)


def silence() -> None:
    """Close stderr of this process: decoders write what they like to it, headers included."""
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDERR)
    os.close(nowhere)


def die_with_parent() -> None:
    """End this worker when its parent is gone: nobody would end a film that hangs."""
    parent = parent_process()
    if parent is None:
        return

    def watch(sentinel: int) -> None:
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()
