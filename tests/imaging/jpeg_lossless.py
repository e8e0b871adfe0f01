"""A JPEG Lossless encoder in plain Python: slow, small, and no kin of the decoder under test."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CODE_BITS = 5
"""The categories 0 to 16 get Huffman codes of one length, which spares building a tree."""


def encode(values: NDArray[np.integer], *, precision: int, predictor: int = 1) -> bytes:
    """Encode one channel (ITU-T T.81, annex H).

    Args:
        values: (rows, columns), unsigned.
        precision: Bits of a sample, 2 to 16.
        predictor: Selection value of Table H.1, 1 to 7.
    """
    rows, columns = values.shape
    stream = b"\xff\xd8"
    stream += _segment(
        0xC4, bytes([0, *(17 if n == _CODE_BITS else 0 for n in range(1, 17))]) + bytes(range(17))
    )
    frame = bytes([precision]) + rows.to_bytes(2, "big") + columns.to_bytes(2, "big")
    stream += _segment(0xC3, frame + bytes([1, 1, 0x11, 0]))
    stream += _segment(0xDA, bytes([1, 1, 0, predictor, 0, 0]))
    bits = "".join(_coded(int(step)) for step in _differences(values, precision, predictor).flat)
    bits += "1" * (-len(bits) % 8)
    packed = bytes(int(bits[start : start + 8], 2) for start in range(0, len(bits), 8))
    return stream + packed.replace(b"\xff", b"\xff\x00") + b"\xff\xd9"


def _segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def _differences(
    values: NDArray[np.integer], precision: int, predictor: int
) -> NDArray[np.integer]:
    x = values.astype(np.int64)
    a, b, c = np.roll(x, 1, axis=1), np.roll(x, 1, axis=0), np.roll(x, (1, 1), axis=(0, 1))
    predicted = {
        1: a,
        2: b,
        3: c,
        4: a + b - c,
        5: a + ((b - c) >> 1),
        6: b + ((a - c) >> 1),
        7: (a + b) >> 1,
    }[predictor].copy()
    predicted[:, 0] = b[:, 0]
    predicted[0] = a[0]
    predicted[0, 0] = 1 << (precision - 1)
    # differences are taken modulo 2**16; 32768 stands for itself
    return (x - predicted + 2**15 - 1) % 2**16 - (2**15 - 1)


def _coded(difference: int) -> str:
    category = abs(difference).bit_length()
    code = format(category, f"0{_CODE_BITS}b")
    if category in {0, 16}:
        return code
    low_bits = difference if difference > 0 else difference - 1 + (1 << category)
    return code + format(low_bits, f"0{category}b")
