"""JPEG Lossless and 12-bit JPEG for pydicom, by libjpeg-turbo; the one door of imagecodecs.

A plugin in pydicom's sense: a module with ``is_available``, ``DECODER_DEPENDENCIES`` and a
function that decodes one frame.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

SYNTAXES = (
    "1.2.840.10008.1.2.4.51",  # JPEG Extended, 12 bits
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless, first-order prediction
)
DECODER_DEPENDENCIES = dict.fromkeys(SYNTAXES, ("imagecodecs",))


def is_available(syntax: str) -> bool:
    """Whether frames of a transfer syntax can be decoded here."""
    return syntax in SYNTAXES and find_spec("imagecodecs") is not None


def decode_frame(frame: bytes, runner: Any) -> bytes:
    """Decode one image.

    Args:
        frame: JPEG of 2 to 16 bits, lossless or with 12 bits lossy.
        runner: pydicom's DecodeRunner; it learns how many bits a sample takes.
    """
    import imagecodecs

    pixels = imagecodecs.jpeg8_decode(frame)
    runner.set_option("bits_allocated", 8 * pixels.dtype.itemsize)
    return bytes(pixels.tobytes())
