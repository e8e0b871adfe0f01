"""Damaged films, the same for the same seed, and what a worker process makes of each."""

from __future__ import annotations

import random
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from PIL import Image

from kneeoa_mm.errors import ItemError
from kneeoa_mm.imaging.dicom import read_film
from kneeoa_mm.imaging.pictures import is_picture, read_picture

MOST_PIXELS = 200_000
_SYNTAXES = [
    b"1.2.840.10008.1.2",
    b"1.2.840.10008.1.2.1",
    b"1.2.840.10008.1.2.1.99",
    b"1.2.840.10008.1.2.2",
    b"1.2.840.10008.1.2.4.50",
    b"1.2.840.10008.1.2.4.51",
    b"1.2.840.10008.1.2.4.57",
    b"1.2.840.10008.1.2.4.70",
    b"1.2.840.10008.1.2.4.80",
    b"1.2.840.10008.1.2.4.90",
    b"1.2.840.10008.1.2.4.201",
    b"1.2.840.10008.1.2.5",
    b"1.2.3.4",
    b"",
]
_EXTREMES = [b"\0\0", b"\1\0", b"\xff\xff", b"\xfe\xff", b"\0\x80", b"\xff\x7f"]
_IMAGE_ELEMENTS = [
    0x0002,
    0x0008,
    0x0010,
    0x0011,
    0x0100,
    0x0101,
    0x0102,
    0x0103,
    0x0120,
    0x1050,
    0x1053,
]
_SIZE_MARKERS = [b"\xff\xc0", b"\xff\xc1", b"\xff\xc3", b"\xff\xf7", b"\xff\x4f\xff\x51", b"IHDR"]


class Outcome(NamedTuple):
    """What became of one damaged film."""

    name: str
    code: str
    """``film``, or the code of the refusal."""
    fault: str
    """What is wrong with a film that was accepted; empty if nothing."""
    peak_mb: float
    """Most memory that the worker has held so far."""


class Damage(NamedTuple):
    """A film to damage: the seed decides how."""

    base: Path
    seed: int
    folder: Path


def read_damaged(damage: Damage) -> Outcome:
    """Damage a film and read it, as a worker process does."""
    path = damage.folder / f"{damage.base.stem}-{damage.seed}"
    path.write_bytes(damaged(damage.base.read_bytes(), damage.seed))
    code, fault = "film", ""
    try:
        read = read_picture if is_picture(path) else read_film
        pixels = read(path, max_pixels=MOST_PIXELS).pixels
        if pixels.shape not in _stated_shapes(path, pixels.shape):
            fault = "another size than stated"
        elif pixels.dtype != np.float32 or not np.isfinite(pixels).all():
            fault = "greys that are no numbers"
    except ItemError as error:
        code = error.code
    finally:
        path.unlink()
    return Outcome(path.name, code, fault, _peak_mb())


def _peak_mb() -> float:
    """Largest resident memory so far on Linux, else 0; rusage would count the parent's."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if "VmHWM" in line), 0.0)


def _stated_shapes(path: Path, found: tuple[int, ...]) -> set[tuple[int, ...]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if is_picture(path):
            with Image.open(path) as picture:
                return {picture.size, picture.size[::-1]}
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except zlib.error:
            # pydicom alone looks for the deflated part where a damaged meta group ends
            return {found}
        return {(header.Rows, header.Columns)}


def damaged(content: bytes, seed: int) -> bytes:
    """Damage a file in one to three ways."""
    dice = random.Random(seed)
    film = bytearray(content)
    for _ in range(dice.choice([1, 1, 2, 3])):
        dice.choice(_WAYS)(film, dice)
    return bytes(film)


def _flip(film: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice([1, 2, 5, 20])):
        film[dice.randrange(len(film))] ^= 1 << dice.randrange(8)


def _flip_in_header(film: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice([1, 2, 5])):
        film[dice.randrange(min(len(film), 1200))] = dice.randrange(256)


def _truncate(film: bytearray, dice: random.Random) -> None:
    del film[dice.randrange(1, len(film)) :]
    film.extend(b"\0" if len(film) < 200 else b"")


def _repeat(film: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(film))
    film[start:start] = film[start : start + dice.randrange(1, 400)]


def _drop(film: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(film) - 1)
    del film[start : start + dice.randrange(1, 40)]


def _edit_element(film: bytearray, dice: random.Random) -> None:
    """Length or value of an element that describes the image."""
    number = dice.choice(_IMAGE_ELEMENTS)
    start = film.find(struct.pack(dice.choice("<>") + "HH", 0x0028, number))
    if start >= 0:
        field = start + dice.choice([4, 6, 8, 8, 10])
        film[field : field + 2] = dice.choice([*_EXTREMES, dice.randbytes(2)])


def _edit_pixel_length(film: bytearray, dice: random.Random) -> None:
    start = film.rfind(b"\xe0\x7f\x10\x00")
    if start >= 0:
        field = start + dice.choice([4, 8])
        film[field : field + 4] = dice.choice([b"\xff\xff\xff\xff", b"\xf0\xff\xff\xff", b"\0" * 4])


def _edit_codestream(film: bytearray, dice: random.Random) -> None:
    found = [position for mark in _SIZE_MARKERS if (position := film.find(mark)) >= 0]
    if found:
        field = dice.choice(found) + dice.randrange(2, 30)
        film[field : field + 2] = dice.choice([*_EXTREMES, dice.randbytes(2)])


def _swap_syntax(film: bytearray, dice: random.Random) -> None:
    start = film.find(b"\x02\x00\x10\x00UI")
    if start >= 0:
        (length,) = struct.unpack_from("<H", film, start + 6)
        syntax = dice.choice(_SYNTAXES)[:length]
        film[start + 8 : start + 8 + length] = syntax.ljust(length, b"\0")


_WAYS: list[Callable[[bytearray, random.Random], None]] = [
    _flip,
    _flip_in_header,
    _truncate,
    _repeat,
    _drop,
    _edit_element,
    _edit_pixel_length,
    _edit_codestream,
    _swap_syntax,
]
