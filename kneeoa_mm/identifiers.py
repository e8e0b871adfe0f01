"""Subject identifiers: kept where they are pseudonyms already, otherwise replaced by an HMAC."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from kneeoa_mm.atomic_files import write_text
from kneeoa_mm.errors import InputError

KEEP = "keep"
_HEX_DIGITS = 16


def keyed_hash(key: bytes, text: str) -> str:
    """HMAC-SHA-256 of ``text``, its first 16 hexadecimal digits (64 bits)."""
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:_HEX_DIGITS]


def is_hash(text: str) -> bool:
    """Whether a text could be one of :func:`keyed_hash`.

    Example:
        >>> is_hash("08b69a17fadbdfb0"), is_hash("9003175")
        (True, False)
    """
    return re.fullmatch(rf"[0-9a-f]{{{_HEX_DIGITS}}}", text) is not None


@dataclass(frozen=True)
class Identifiers:
    """Turns the identifiers of the source into those of our outputs.

    Attributes:
        key: Secret of the HMAC; None keeps identifiers as they are.
    """

    key: bytes | None

    def subject_id(self, source_id: str) -> str:
        """The subject identifier that outputs carry."""
        return source_id if self.key is None else keyed_hash(self.key, source_id)


def read_identifiers(ids: str) -> Identifiers:
    """Interpret ``--ids``: ``keep``, or the path of a key file.

    Raises:
        InputError: There is no such key file, or it holds no key.
    """
    if ids == KEEP:
        return Identifiers(None)
    path = Path(ids)
    expected = "`keep`, or a file with a key of at least 32 hexadecimal digits"
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except OSError as error:
        raise InputError("The key file cannot be read.", expected=expected, where=path) from error
    except ValueError as error:
        raise InputError("The key file holds no key.", expected=expected, where=path) from error
    if len(key) < 16:
        raise InputError("The key is too short.", expected=expected, where=path)
    return Identifiers(key)


def new_key_file(path: Path) -> Identifiers:
    """Make a fresh key, write it to ``path`` readable by its owner alone, and use it."""
    key = secrets.token_bytes(32)
    write_text(path, key.hex() + "\n")
    path.chmod(0o600)
    return Identifiers(key)
