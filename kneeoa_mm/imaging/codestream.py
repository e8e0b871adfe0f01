"""What a compressed image says of itself, read from its first bytes before anything decodes it.

A decoder allocates what the codestream asks for, whatever the DICOM header promised.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_J2K_START = b"\xff\x4f\xff\x51"
_J2K_SIZE = struct.Struct(">HHIIIIIIIIHBBB")
_MOST_J2K_BOXES = 4096
_JPEG_START, _END = b"\xff\xd8", b"\xff\xd9"
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Start of frame: every process of JPEG (T.81 Table B.1), and JPEG-LS (T.87 C.1.1)."""
_BARE_MARKERS = {0x01, *range(0xD0, 0xD8)}
_SCAN_OR_END = {0xD9, 0xDA}


class Codestream(NamedTuple):
    """What the header of a compressed image states."""

    rows: int
    columns: int
    components: int
    precision: int
    """Bits of a sample."""
    is_complete: bool
    """Whether its end marker is there; some decoders fill what is missing with grey."""


def read_codestream(image: bytes) -> Codestream:
    """Read the frame header of JPEG, JPEG-LS or JPEG 2000.

    Args:
        image: One compressed image.

    Raises:
        ValueError: No frame header is found.

    Source: ITU-T T.81 B.2.2, T.87 C.2.2, T.800 A.5.1.

    Example:
        >>> read_codestream(bytes.fromhex("ffd8 ffc3 000b 0c 0960 0800 01 011100 ffd9"))
        Codestream(rows=2400, columns=2048, components=1, precision=12, is_complete=True)
    """
    try:
        if image.startswith(_JPEG_START):
            return _read_jpeg(image)
        # some writers store the boxes of a JP2 file around the codestream
        start = image.find(_J2K_START, 0, _MOST_J2K_BOXES)
        if start >= 0:
            return _read_jpeg_2000(image, start)
    except (IndexError, struct.error, ZeroDivisionError) as error:
        raise ValueError("the header of the codestream is broken") from error
    raise ValueError("there is no JPEG or JPEG 2000 codestream")


def _read_jpeg(image: bytes) -> Codestream:
    position = len(_JPEG_START)
    while True:
        if image[position] != 0xFF:
            raise ValueError("a marker of the codestream is missing")
        marker = image[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in _BARE_MARKERS:
            position += 2
        elif marker in _FRAME_MARKERS:
            precision, rows, columns, components = struct.unpack_from(">BHHB", image, position + 4)
            is_complete = image.rfind(_END) > position
            return Codestream(rows, columns, components, precision, is_complete)
        elif marker in _SCAN_OR_END:
            raise ValueError("the codestream has no frame header")
        else:
            position += 2 + struct.unpack_from(">H", image, position + 2)[0]


def _read_jpeg_2000(image: bytes, start: int) -> Codestream:
    (_, _, right, bottom, left, top, *_, components, depth, step_x, step_y) = _J2K_SIZE.unpack_from(
        image, start + len(_J2K_START)
    )
    rows, columns = (
        -(-high // step) - -(-low // step)
        for low, high, step in ((top, bottom, step_y), (left, right, step_x))
    )
    is_complete = image.rfind(_END) > start
    return Codestream(rows, columns, components, (depth & 0x7F) + 1, is_complete)
