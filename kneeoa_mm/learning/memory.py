"""Memory that runs out, told apart from other faults and said in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kneeoa_mm.errors import KneeOAError

_CPU_ALLOCATOR = "DefaultCPUAllocator"


@contextmanager
def enough_memory(fix: str) -> Iterator[None]:
    """Say what to do where the memory of the machine or of its GPU does not suffice.

    Args:
        fix: What needs less.

    Raises:
        KneeOAError: Memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        is_gpu = isinstance(error, torch.OutOfMemoryError)
        # on a CPU torch raises a plain RuntimeError
        if not (is_gpu or isinstance(error, MemoryError) or _CPU_ALLOCATOR in str(error)):
            raise
        raise KneeOAError(
            "There is not enough memory.",
            found=str(error).splitlines()[0] if str(error) else "",
            where="the GPU" if is_gpu else "this machine",
            fix=fix,
        ) from error
