"""Reading DICOM films; the one door of pydicom in this wing.

A film is refused as early as it can be: by its first bytes, by its meta information, by its
header, and only then by its pixels. Values of the header never reach a message, since any of them
may name a person.
"""

from __future__ import annotations

import logging
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_file_meta_info
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    RLELossless,
)

from kneeoa_mm.errors import ItemError
from kneeoa_mm.imaging.attributes import Attributes
from kneeoa_mm.imaging.header import read_grey_scale, read_sides, read_spacing, read_view
from kneeoa_mm.imaging.quality import QCFlag
from kneeoa_mm.imaging.radiograph import Radiograph
from kneeoa_mm.records import Photometric

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dic", ".ima"})

_PREAMBLE_BYTES, _MAGIC = 128, b"DICM"
_DICOMDIR = "1.2.840.10008.1.3.10"
_PROJECTION_MODALITIES = {"CR", "DX", "RG"}
_PROJECTION_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.1",  # CR Image Storage
    "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray, for presentation
    "1.2.840.10008.5.1.4.1.1.1.1.1",  # Digital X-Ray, for processing
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture, as of film digitisers
}
_HEADER_BYTES = 16 * 2**20
"""What a deflated film may hold beside its pixels."""


def is_dicom(path: Path) -> bool:
    """Whether the file starts as DICOM files do (PS3.10 7.1), DICOMDIR apart.

    Raises:
        OSError: The file cannot be opened.
    """
    with path.open("rb") as stream:
        start = stream.read(_PREAMBLE_BYTES + len(_MAGIC))
    return start[_PREAMBLE_BYTES:] == _MAGIC and path.name.upper() != "DICOMDIR"


def read_film(path: Path, *, max_pixels: int) -> Radiograph:
    """Read a projection radiograph.

    Args:
        path: A DICOM file.
        max_pixels: Films of more pixels are refused before they are decoded.

    Raises:
        ItemError: The film is refused; ``code`` says why.
    """
    with _as_item_errors("read", "E_READ"):
        _check_start(path)
    with _as_item_errors("header", "E_HEADER"), _overheard() as complaints:
        source, syntax = _open(path, max_pixels)
        dataset = pydicom.dcmread(source, stop_before_pixels=True)
        header = Attributes(dataset, is_little_endian=syntax.is_little_endian)
        _refuse_what_is_no_film(header, max_pixels)
        film = _film(header, _decode(_rewound(source), dataset, syntax))
    if film.pixels.max() == film.pixels.min():
        raise ItemError("E_FLAT", "the film shows a single grey", stage="decode")
    if complaints:
        return replace(film, flags=(*film.flags, QCFlag.HEADER_NONSTANDARD))
    return film


def _film(header: Attributes, stored: NDArray[np.integer]) -> Radiograph:
    grey_scale, flags = read_grey_scale(header)
    spacing, source, doubts = read_spacing(header)
    sides, conflicts = read_sides(header)
    offset_days = header.numbers("LongitudinalTemporalOffsetFromEvent")
    is_from_baseline = header.text("LongitudinalTemporalEventType") == "BASELINE"
    return Radiograph(
        grey_scale(stored),
        spacing=spacing,
        spacing_source=source,
        stated_sides=sides,
        row_direction=header.text("PatientOrientation"),
        view=read_view(header),
        patient_id=header.text("PatientID"),
        time_point=header.text("ClinicalTrialTimePointID"),
        days_since_baseline=offset_days[0] if offset_days and is_from_baseline else None,
        flags=(*flags, *doubts, *conflicts),
    )


@contextmanager
def _overheard() -> Iterator[list[warnings.WarningMessage]]:
    """Collect what pydicom warns of and keep it from logs: it quotes values of the header."""
    logger = logging.getLogger("pydicom")
    was_propagating, logger.propagate = logger.propagate, False
    try:
        with warnings.catch_warnings(record=True) as complaints:
            warnings.simplefilter("always", UserWarning)
            yield complaints
    finally:
        logger.propagate = was_propagating


def _check_start(path: Path) -> None:
    if path.stat().st_size == 0:
        raise ItemError("E_EMPTY", "the file is empty", stage="read")
    if not is_dicom(path):
        message = "the file does not start as a DICOM file does (no DICM after the preamble)"
        raise ItemError("E_NOT_DICOM", message, stage="read")


def _open(path: Path, max_pixels: int) -> tuple[BinaryIO | Path, UID]:
    """The file, inflated within bounds where it is deflated, and its transfer syntax.

    Reading only the header of a deflated file inflates all of it: 1 MB can become 2 GB.
    """
    meta = read_file_meta_info(path)
    syntax = meta.get("TransferSyntaxUID")
    if not syntax:
        raise ItemError("E_TRANSFER_SYNTAX", "the transfer syntax is not stated", stage="header")
    if meta.get("MediaStorageSOPClassUID") == _DICOMDIR:
        raise ItemError("E_NOT_PROJECTION_XR", "the file is a DICOMDIR", stage="header")
    if syntax == DeflatedExplicitVRLittleEndian:
        return _inflate(path, meta, 2 * max_pixels + _HEADER_BYTES), ExplicitVRLittleEndian
    _check_decoder(syntax)
    return path, syntax


def _inflate(path: Path, meta: FileMetaDataset, most_bytes: int) -> BinaryIO:
    # the group length element itself takes 12 bytes (PS3.10 7.1)
    start = _PREAMBLE_BYTES + len(_MAGIC) + 12 + int(meta.FileMetaInformationGroupLength)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    with path.open("rb") as stream:
        stream.seek(start)
        body = inflater.decompress(stream.read(most_bytes), most_bytes)
    if inflater.unconsumed_tail:
        message = f"the deflated film holds more than {most_bytes} bytes"
        raise ItemError("E_TOO_LARGE", message, stage="header")
    if not inflater.eof:
        raise ItemError("E_TRUNCATED", "the deflated data end too early", stage="header")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    plain_meta = DicomBytesIO()
    write_file_meta_info(plain_meta, meta, enforce_standard=False)
    return BytesIO(b"\0" * _PREAMBLE_BYTES + _MAGIC + plain_meta.getvalue() + body)


def _rewound(source: BinaryIO | Path) -> BinaryIO | Path:
    if not isinstance(source, Path):
        source.seek(0)
    return source


def _check_decoder(syntax: UID) -> None:
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        message = "the transfer syntax is private or unknown; convert the film to a standard one"
        raise ItemError("E_TRANSFER_SYNTAX", message, stage="header") from None
    if decoder.is_available:
        return
    if syntax in {*JPEG2000TransferSyntaxes, *JPEGLSTransferSyntaxes} or "HTJ2K" in syntax.keyword:
        fix = "install the extra `dicom`: pip install 'kneeoa-mm[dicom]'"
    else:
        fix = "the extra `dicom` has no decoder for it either: decompress the film, such as with \
dcmdjpeg of DCMTK"
    message = f"no decoder for the transfer syntax {syntax.name}; {fix}"
    raise ItemError("E_TRANSFER_SYNTAX", message, stage="header")


def _refuse_what_is_no_film(header: Attributes, max_pixels: int) -> None:
    def refuse(message: str, code: str = "E_NOT_PROJECTION_XR") -> NoReturn:
        raise ItemError(code, message, stage="header")

    modality, sop_class = header.text("Modality"), header.text("SOPClassUID")
    is_projection = modality in _PROJECTION_MODALITIES or (
        modality in {None, "OT"} and sop_class in _PROJECTION_CLASSES
    )
    if not is_projection:
        refuse("the object is no projection radiograph (modality CR, DX or RG)")
    rows, columns = header.integer("Rows"), header.integer("Columns")
    if not rows or not columns:
        refuse("the object holds no image", "E_NO_PIXELS")
    if rows * columns > max_pixels:
        refuse(f"{columns} x {rows} px is more than {max_pixels} (max_pixels)", "E_TOO_LARGE")
    if (header.integer("NumberOfFrames") or 1) > 1:
        refuse("the object has several frames")
    if (header.integer("SamplesPerPixel") or 1) > 1:
        refuse("the image is in colour")
    if header.text("PhotometricInterpretation") not in set(Photometric):
        refuse("the image is not MONOCHROME1 or MONOCHROME2")
    if header.integer("BitsAllocated") not in {8, 16}:
        refuse("pixels must take 8 or 16 bits", "E_DECODE")


def _decode(source: BinaryIO | Path, header: Dataset, syntax: UID) -> NDArray[np.integer]:
    """Stored values, (rows, columns); bits beyond Bits Stored are masked away."""
    with _as_item_errors("decode", "E_DECODE"):
        film = pydicom.dcmread(source)
        if "PixelData" not in film:
            raise ItemError("E_NO_PIXELS", "the file has no (or lost its) pixels", stage="decode")
        if not syntax.is_encapsulated:
            expected = header.Rows * header.Columns * header.BitsAllocated // 8
            if len(film.PixelData) < expected:
                message = f"{len(film.PixelData)} of {expected} bytes of pixels are there"
                raise ItemError("E_TRUNCATED", message, stage="decode")
        # pylibjpeg-rle panics past every except clause; pydicom's own decoder does not
        plugin = "pydicom" if syntax == RLELossless else ""
        stored: NDArray[np.integer] = pixel_array(film, index=0, decoding_plugin=plugin)
    if stored.shape != (header.Rows, header.Columns):
        raise ItemError("E_DECODE", "the pixels do not have the stated size", stage="decode")
    return stored


@contextmanager
def _as_item_errors(stage: str, code: str) -> Iterator[None]:
    """Turn whatever a file makes pydicom or a decoder raise into an ItemError.

    Decoders written in Rust panic with a BaseException. The library's own message is dropped: it
    may quote the header.
    """
    try:
        yield
    except (ItemError, KeyboardInterrupt, SystemExit):
        raise
    except MemoryError:
        raise ItemError("E_TOO_LARGE", "the film does not fit into memory", stage=stage) from None
    except InvalidDicomError:
        raise ItemError("E_NOT_DICOM", "the file is no valid DICOM", stage=stage) from None
    except EOFError:
        raise ItemError("E_TRUNCATED", "the file ends too early", stage=stage) from None
    except BaseException as error:
        message = f"the film cannot be read ({type(error).__name__})"
        raise ItemError(code, message, stage=stage) from None
