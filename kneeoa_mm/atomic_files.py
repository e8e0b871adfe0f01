"""Files that are whole or not there: written under another name, seen onto the disk, renamed."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

UNFINISHED = ".unfinished-"
"""Prefix of a file that is being written; one that stays was left by a killed process."""
_STEM_KEPT = 40


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and rename it onto ``path`` on success.

    A reader sees the old file or the whole new one; after an error the old one stays.

    Args:
        path: Final place of the file; missing parent folders are made.
    """
    with _unfinished(path) as temporary:
        yield temporary
        _complete(temporary)
        temporary.replace(path)
        flush_names(path.parent)


@contextmanager
def _unfinished(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path``, which goes away unless it was renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(
        prefix=f"{UNFINISHED}{path.stem[:_STEM_KEPT]}.", suffix=path.suffix, dir=path.parent
    )
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _complete(temporary: Path) -> None:
    _flush_to_disk(temporary)
    # mkstemp makes private files; outputs get what the umask of the user says
    temporary.chmod(0o666 & ~_umask())


def _flush_to_disk(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def flush_names(folder: Path) -> None:
    """See new names of files in ``folder`` onto the disk, where the system knows how.

    A file that is safe under a name that is not would be gone after a power cut.
    """
    # Windows opens no folders, and some network file systems flush none
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text atomically with Unix line ends and return ``path``."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return path


def write_json(path: Path, document: Any) -> Path:
    """Write ``document`` atomically as strict JSON (no NaN) and return ``path``."""
    return write_text(path, _as_json(document))


def _as_json(document: Any) -> str:
    return json.dumps(document, indent=2, allow_nan=False, default=str) + "\n"


def write_new_json(path: Path, document: Any) -> None:
    """Write ``document`` as :func:`write_json` does, where ``path`` is not there yet.

    Raises:
        FileExistsError: ``path`` is there.
    """
    write_new(path, _as_json(document))


def write_new(path: Path, text: str) -> None:
    """Write ``text`` as :func:`write_text` does, where ``path`` is not there yet.

    Of several processes that do so at once, on whatever machine, one succeeds.

    Raises:
        FileExistsError: ``path`` is there.
    """
    with _unfinished(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        _complete(temporary)
        try:
            # unlike a rename, a link never replaces a file, and it shows the file when it is whole
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:
            # not every file system has links; without, the file is empty for a moment
            with path.open("x", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
        flush_names(path.parent)
