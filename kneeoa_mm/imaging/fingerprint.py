"""Whether a film is still the one that was read, without reading all of them again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

_HEX_DIGITS = 16


class Fingerprint(NamedTuple):
    """What a film was when it was read."""

    sha256: str
    """Of its bytes."""
    stamp: str
    """Of the same and the file's time, which by itself may be the day of the examination."""

    @classmethod
    def of(cls, path: Path) -> Fingerprint:
        """Read a film.

        Raises:
            OSError: It cannot be read.
        """
        modified_ns = path.stat().st_mtime_ns
        sha256 = _sha256(path)
        return cls(sha256, _stamp(sha256, modified_ns))

    def fits(self, path: Path, modified_ns: int) -> bool:
        """Whether a film is the same still; it is read only where its file has another time.

        Raises:
            OSError: It cannot be read.
        """
        return self.stamp == _stamp(self.sha256, modified_ns) or self.sha256 == _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _stamp(sha256: str, modified_ns: int) -> str:
    return hashlib.sha256(f"{sha256} {modified_ns}".encode()).hexdigest()[:_HEX_DIGITS]
