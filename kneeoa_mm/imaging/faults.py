"""Whatever a damaged file makes a library raise or print becomes an item's fault, or nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from kneeoa_mm.errors import ItemError

_STDERR = 2


@contextmanager
def as_item_errors(stage: str, code: str) -> Iterator[None]:
    """Turn whatever is raised within into an ItemError.

    Decoders written in Rust panic with a BaseException. The library's own message is dropped: it
    may quote the header, and with it a person. What the system refuses, at whatever step, is no
    fault of the film: it is ``E_READ``, and worth another try.

    Args:
        stage: The step that failed, such as ``decode``.
        code: Code of a fault without a better one.

    Raises:
        ItemError: Something was raised within.
    """
    try:
        yield
    except (ItemError, KeyboardInterrupt, SystemExit):
        raise
    except MemoryError:
        raise ItemError("E_TOO_LARGE", "the film does not fit into memory", stage=stage) from None
    except EOFError:
        raise ItemError("E_TRUNCATED", "the file ends too early", stage=stage) from None
    except BaseException as error:
        # libraries raise an OSError for damaged files too, without the number of the system's
        if isinstance(error, OSError) and error.errno is not None:
            name = errno.errorcode.get(error.errno, str(error.errno))
            raise ItemError("E_READ", f"the file cannot be read ({name})", stage="read") from None
        message = f"the film cannot be read ({type(error).__name__})"
        raise ItemError(code, message, stage=stage) from None


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Drop what C libraries write to standard error, which no Python setting reaches.

    The whole process is silent meanwhile; films are read in processes of their own.
    """
    try:
        kept = os.dup(_STDERR)
    except OSError:
        # there is none to be kept silent, as in a service
        yield
        return
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, _STDERR)
        os.close(nowhere)
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)
