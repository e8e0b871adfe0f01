"""Knee films with known millimetres, and the DICOM files that carry them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from kneeoa_mm.records import Laterality

BILATERAL = ((88.0, 140.0, Laterality.RIGHT), (252.0, 146.0, Laterality.LEFT))
"""Joints of a film as hung: column and row of the joint's middle in mm, and whose knee."""
SINGLE = ((120.0, 140.0, Laterality.RIGHT),)
GAP_MM = 5.0


def knee_film(
    joints: Sequence[tuple[float, float, Laterality]] = BILATERAL,
    *,
    size_mm: tuple[float, float] = (340.0, 280.0),
    spacing_mm: tuple[float, float] = (0.5, 0.5),
    gap_mm: float = GAP_MM,
    rotation_deg: float = 0.0,
    noise: float = 0.01,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Draw knees on a film.

    Args:
        joints: Column and row of each joint's middle in mm, and whose knee it is.
        size_mm: Width and height of the film.
        spacing_mm: (row, column) distance between pixels.
        gap_mm: Joint space of both compartments, measured vertically.
        rotation_deg: Of each leg in the film's plane.
        noise: Standard deviation of white noise.
        seed: Of the noise.

    Returns:
        Grey 0 to 1, bone bright, (rows, columns).
    """
    width_mm, height_mm = size_mm
    row_mm, column_mm = spacing_mm
    rows = (np.arange(round(height_mm / row_mm)) + 0.5) * row_mm
    columns = (np.arange(round(width_mm / column_mm)) + 0.5) * column_mm
    film = np.full((rows.size, columns.size), 0.03)
    for centre_column, centre_row, laterality in joints:
        across, down = np.meshgrid(columns - centre_column, rows - centre_row)
        turn = np.deg2rad(rotation_deg)
        x = across * np.cos(turn) + down * np.sin(turn)
        y = down * np.cos(turn) - across * np.sin(turn)
        # as hung, the lateral side of a right knee is towards image-left
        lateral = -x if laterality is Laterality.RIGHT else x
        film = np.maximum(film, _leg(lateral, y, gap_mm))
    film += np.random.default_rng(seed).normal(0, noise, film.shape)
    return np.clip(film, 0, 1)


def _leg(lateral: NDArray[np.float64], y: NDArray[np.float64], gap_mm: float) -> Any:
    """Grey of one leg; ``lateral`` and ``y`` are mm from the joint's middle, y down the leg."""
    half = gap_mm / 2
    condyles = np.maximum(
        _ellipse(lateral, y, 20, -half - 22, 19, 22), _ellipse(lateral, y, -20, -half - 23, 20, 23)
    )
    femur = np.maximum(condyles, _trapezium(lateral, y, (-200, 17), (-62, 20), (-24, 38)))
    tibia = np.maximum(
        _trapezium(lateral, y, (half, 38), (half + 12, 37), (200, 16)),
        _ellipse(np.abs(lateral), y, 6, half, 4, 8),
    )
    fibula = _ellipse(lateral, y, 40, 75, 9, 58)
    plate = _trapezium(lateral, y, (half, 38), (half + 1.2, 38), (half + 2.4, 36)) * 0.12
    leg = _edge(62 - 0.05 * y - np.abs(lateral)) * 0.30
    return 0.03 + leg + 0.42 * np.maximum(femur, tibia) + 0.12 * fibula + plate


def _edge(inside_mm: Any) -> Any:
    return 1 / (1 + np.exp(-np.clip(inside_mm / 0.25, -50, 50)))


def _ellipse(x: Any, y: Any, cx: float, cy: float, rx: float, ry: float) -> Any:
    radius = np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2)
    return _edge((1 - radius) * min(rx, ry))


def _trapezium(x: Any, y: Any, *knots: tuple[float, float]) -> Any:
    """Bone between the first and last row of ``knots`` (row, half width)."""
    rows, halves = zip(*knots, strict=True)
    half = np.interp(y, rows, halves)
    return _edge(np.minimum(half - np.abs(x), np.minimum(y - rows[0], rows[-1] - y)))


def stored(film: NDArray[np.float64], *, bits: int = 12, inverted: bool = False) -> Any:
    """Grey 0 to 1 as stored values of ``bits`` bits, uint8 or uint16."""
    top = 2**bits - 1
    values = np.rint(film * top)
    return (top - values if inverted else values).astype(np.uint8 if bits == 8 else np.uint16)


def dataset(values: NDArray[np.integer], *, bits: int = 12, **elements: Any) -> Dataset:
    """A digital radiograph around stored values.

    Args:
        values: (rows, columns).
        bits: Bits Stored.
        elements: DICOM keyword to value; None leaves an element out.
    """
    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    film.SOPInstanceUID = generate_uid(entropy_srcs=[values.tobytes()[:512].hex()])
    film.Rows, film.Columns = values.shape
    film.BitsAllocated = 8 * values.dtype.itemsize
    film.BitsStored, film.HighBit = bits, bits - 1
    film.PixelRepresentation = int(values.dtype.kind == "i")
    film.SamplesPerPixel = 1
    film.PixelData = values.tobytes()
    film["PixelData"].VR = "OW"
    standard = {
        "Modality": "DX",
        "PatientID": "9000017",
        "PhotometricInterpretation": "MONOCHROME2",
        "ImagerPixelSpacing": [0.5, 0.5],
        "ImageLaterality": "B",
        "ViewPosition": "PA",
        "SeriesDescription": "Bilateral PA Fixed Flexion Knee",
        "PatientOrientation": ["L", "F"],
        "ClinicalTrialTimePointID": "V00",
    }
    for keyword, value in (standard | elements).items():
        if value is not None:
            setattr(film, keyword, value)
    return film


def code(meaning: str) -> list[Dataset]:
    """A sequence of one code, of which only the meaning is filled in."""
    item = Dataset()
    item.CodeMeaning = meaning
    return [item]


def write(film: Dataset, path: Path, *, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write a film in a transfer syntax and return ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if syntax == ExplicitVRBigEndian:
        values = np.frombuffer(film.PixelData, f"<u{film.BitsAllocated // 8}")
        film.PixelData = values.astype(values.dtype.newbyteorder(">")).tobytes()
    if syntax in {RLELossless, JPEG2000Lossless, JPEGLSLossless}:
        film.compress(syntax, generate_instance_uid=False)
    film.file_meta.TransferSyntaxUID = syntax
    film.save_as(path, enforce_file_format=True)
    return path


def write_film(path: Path, *, film: NDArray[np.float64] | None = None, **elements: Any) -> Path:
    """Write a bilateral 12-bit film, or another one, with header ``elements``."""
    return write(dataset(stored(knee_film() if film is None else film), **elements), path)


def write_deep_png(path: Path, pixels: NDArray[np.uint16]) -> Path:
    """Write a PNG of 16 bits in several channels, which Pillow cannot.

    Args:
        path: Where to.
        pixels: Shape (rows, columns, 2) for grey and alpha, (rows, columns, 3) for colour.
    """

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    rows, columns, channels = pixels.shape
    colour_type = {2: 4, 3: 2}[channels]
    header = struct.pack(">IIBBBBB", columns, rows, 16, colour_type, 0, 0, 0)
    lines = pixels.astype(">u2").reshape(rows, -1)
    scanlines = b"".join(b"\0" + line.tobytes() for line in lines)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(scanlines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path
