"""One film in every encoding that DICOM allows and a decoder is at hand for."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import jpeg_lossless
import numpy as np
import phantoms
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

Encoder = Callable[[Dataset, NDArray[np.integer]], Dataset]


def wrapped(film: Dataset, codestream: bytes, syntax: UID) -> Dataset:
    """Put one compressed image into a film."""
    film.PixelData = encapsulate([codestream])
    film["PixelData"].VR = "OB"
    film["PixelData"].is_undefined_length = True
    film.file_meta.TransferSyntaxUID = syntax
    return film


def _unsigned(values: NDArray[np.integer], bits: int) -> NDArray[np.uint16]:
    return (values.astype(np.int32) & (2**bits - 1)).astype(np.uint16)


def _native(syntax: UID) -> Encoder:
    def encode(film: Dataset, values: NDArray[np.integer]) -> Dataset:
        film.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            film.PixelData = values.astype(values.dtype.newbyteorder(">")).tobytes()
            film["PixelData"].VR = "OW" if film.BitsAllocated == 16 else "OB"
        return film

    return encode


def _compressed(syntax: UID, *needs: str, **options: Any) -> Encoder:
    def encode(film: Dataset, values: NDArray[np.integer]) -> Dataset:
        for package in needs:
            pytest.importorskip(package)
        film.compress(syntax, generate_instance_uid=False, **options)
        return film

    return encode


def _jpeg_lossless(syntax: UID, predictor: int) -> Encoder:
    def encode(film: Dataset, values: NDArray[np.integer]) -> Dataset:
        pytest.importorskip("imagecodecs", reason="decodes JPEG Lossless; extra `dicom`")
        bits = film.BitsStored
        codestream = jpeg_lossless.encode(
            _unsigned(values, bits), precision=bits, predictor=predictor
        )
        return wrapped(film, codestream, syntax)

    return encode


def _htj2k(film: Dataset, values: NDArray[np.integer]) -> Dataset:
    pytest.importorskip("openjpeg", reason="decodes HTJ2K; extra `dicom`")
    imagecodecs = pytest.importorskip("imagecodecs", reason="encodes HTJ2K; extra `dicom`")
    codestream = imagecodecs.htj2k_encode(values, reversible=True)
    return wrapped(film, codestream, HTJ2KLossless)


def _jpeg_baseline(film: Dataset, values: NDArray[np.integer]) -> Dataset:
    stream = BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(stream, "JPEG", quality=95)
    return wrapped(film, stream.getvalue(), JPEGBaseline8Bit)


def _jpeg_extended(film: Dataset, values: NDArray[np.integer]) -> Dataset:
    imagecodecs = pytest.importorskip("imagecodecs", reason="decodes 12-bit JPEG; extra `dicom`")
    codestream = imagecodecs.jpeg8_encode(values, level=95, bitspersample=12)
    return wrapped(film, codestream, JPEGExtended12Bit)


LOSSLESS: dict[str, Encoder] = {
    "explicit": _native(ExplicitVRLittleEndian),
    "implicit": _native(ImplicitVRLittleEndian),
    "big-endian": _native(ExplicitVRBigEndian),
    "deflated": _native(DeflatedExplicitVRLittleEndian),
    "RLE": _compressed(RLELossless),
    "JPEG Lossless": _jpeg_lossless(JPEGLossless, 6),
    "JPEG Lossless SV1": _jpeg_lossless(JPEGLosslessSV1, 1),
    "JPEG-LS": _compressed(JPEGLSLossless, "jpeg_ls"),
    "JPEG 2000 lossless": _compressed(JPEG2000Lossless, "openjpeg"),
    "HTJ2K": _htj2k,
}
LOSSY: dict[str, Encoder] = {
    "JPEG baseline": _jpeg_baseline,
    "JPEG extended": _jpeg_extended,
    "JPEG 2000": _compressed(JPEG2000, "openjpeg", j2k_cr=[5]),
    "JPEG-LS near": _compressed(JPEGLSNearLossless, "jpeg_ls", jls_error=3),
}


def write_encoded(
    name: str, path: Path, values: NDArray[np.integer], *, bits: int = 12, **elements: Any
) -> Path:
    """Write stored values in an encoding; skips the test where the extra is missing."""
    film = (LOSSLESS | LOSSY)[name](phantoms.dataset(values, bits=bits, **elements), values)
    film.save_as(path, enforce_file_format=True)
    return path
