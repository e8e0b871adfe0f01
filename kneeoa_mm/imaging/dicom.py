"""Reading DICOM films; the one door of pydicom in this wing.

A film is refused as early as it can be: by its first bytes, by its meta information, by its
header, by the header of its codestream, and only then by its pixels. Values of the header never
reach a message, since any of them may name a person.
"""

from __future__ import annotations

import hashlib
import logging
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import get_frame
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_file_meta_info
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGExtended12Bit,
    RLELossless,
)

from kneeoa_mm.errors import ItemError
from kneeoa_mm.imaging import jpeg
from kneeoa_mm.imaging.attributes import Attributes
from kneeoa_mm.imaging.codestream import read_codestream
from kneeoa_mm.imaging.eligibility import refuse_what_is_no_film
from kneeoa_mm.imaging.faults import as_item_errors
from kneeoa_mm.imaging.greyscale import is_blind, is_flat, own_bits
from kneeoa_mm.imaging.header import (
    is_for_processing,
    read_grey_scale,
    read_sides,
    read_spacing,
    read_view,
    user_spacing,
)
from kneeoa_mm.imaging.quality import QCFlag
from kneeoa_mm.imaging.radiograph import Radiograph

NO_DECODER = "E_NO_DECODER"
DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dic", ".ima"})

_PREAMBLE_BYTES, _MAGIC = 128, b"DICM"
_BARE_START = re.compile(
    rb"([\x02\x08]\0..|\0[\x02\x08]..)(AE|AS|CS|DA|DT|LO|LT|OB|PN|SH|ST|TM|UI|UL|UN|US|UT)"
    rb"|\x08\0[\0\x01\x05\x08\x12-\x18]\0[\x02-\x40]\0\0\0",
    re.DOTALL,
)
"""Group 0002 or 0008, with one of which every data set starts: in either byte order with a value
representation, or in little endian with one of the first elements and a short length."""
_BARE_BYTES = 8
_PIXEL_DATA = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")
"""The tag (7FE0,0010) in either byte order."""
_DICOMDIR = "1.2.840.10008.1.3.10"
_HEADER_BYTES = 16 * 2**20
"""What a film may hold beside its pixels."""
_RLE_HEADER_BYTES = 64
_IMAGECODECS = "imagecodecs"
_LOGGERS = ("pydicom", "pylibjpeg", "openjpeg", "PIL")

for _syntax in jpeg.SYNTAXES:
    # a second import of this module finds the plugin there already
    with suppress(ValueError):
        get_decoder(_syntax).add_plugin(_IMAGECODECS, (jpeg.__name__, jpeg.decode_frame.__name__))


def is_dicom(path: Path) -> bool:
    """Whether the file starts as DICOM files do (PS3.10 7.1), DICOMDIR apart.

    Raises:
        OSError: The file cannot be opened.
    """
    with path.open("rb") as stream:
        start = stream.read(_PREAMBLE_BYTES + len(_MAGIC))
    return start[_PREAMBLE_BYTES:] == _MAGIC and path.name.upper() != "DICOMDIR"


def is_bare(path: Path) -> bool:
    """Whether the file starts as a data set without preamble and meta information does.

    Raises:
        OSError: The file cannot be opened.
    """
    with path.open("rb") as stream:
        return _BARE_START.match(stream.read(_BARE_BYTES)) is not None


def read_film(path: Path, *, max_pixels: int, user_spacing_mm: float | None = None) -> Radiograph:
    """Read a projection radiograph.

    Args:
        path: A DICOM file.
        max_pixels: Films of more pixels are refused before they are decoded.
        user_spacing_mm: Distance between pixels where the header states none; None: unknown.

    Raises:
        ItemError: The film is refused; ``code`` says why.
    """
    with as_item_errors("read", "E_READ"):
        _check_start(path, max_pixels)
    with (
        as_item_errors("header", "E_HEADER"),
        _overheard() as complaints,
        _opened(path, max_pixels) as (stream, syntax),
    ):
        dataset = pydicom.dcmread(stream, stop_before_pixels=True)
        header = Attributes(dataset, is_little_endian=syntax.is_little_endian)
        refuse_what_is_no_film(header, max_pixels)
        if stream.read(len(_PIXEL_DATA[0])) not in _PIXEL_DATA:
            raise ItemError("E_NO_PIXELS", "the file holds, or kept, no pixels", stage="header")
        _check_decoder(syntax, header)
        with as_item_errors("decode", "E_DECODE"):
            stored = _decode(stream, header, syntax)
        film = _film(header, stored, user_spacing_mm)
    if is_flat(film.pixels):
        raise ItemError("E_FLAT", "the film shows a single grey", stage="decode")
    if any(issubclass(complaint.category, UserWarning) for complaint in complaints):
        return replace(film, flags=(*film.flags, QCFlag.HEADER_NONSTANDARD))
    return film


def read_patient_id(path: Path, *, max_pixels: int) -> str | None:
    """Patient ID (0010,0020) as :func:`read_film` finds it, without reading pixels.

    Args:
        path: A DICOM file.
        max_pixels: As for the film, if it is deflated.

    Raises:
        ItemError: The header cannot be read.
    """
    with (
        as_item_errors("header", "E_HEADER"),
        _overheard(),
        _opened(path, max_pixels) as (stream, _),
    ):
        return Attributes(pydicom.dcmread(stream, stop_before_pixels=True)).text("PatientID")


def _film(
    header: Attributes, stored: NDArray[np.integer], user_spacing_mm: float | None
) -> Radiograph:
    grey_scale, flags = read_grey_scale(header)
    pixels = grey_scale(stored)
    if grey_scale.voi is not None and is_blind(pixels):
        pixels = replace(grey_scale, voi=None)(stored)
        flags.append(QCFlag.VOI_IGNORED)
    if is_for_processing(header):
        flags.append(QCFlag.FOR_PROCESSING)
    spacing, source, doubts = read_spacing(header)
    if spacing is None:
        spacing, source = user_spacing(user_spacing_mm)
        if len(set(header.numbers("PixelAspectRatio") or ())) > 1:
            flags.append(QCFlag.ASPECT_IGNORED)
    sides, conflicts = read_sides(header)
    offset_days = header.numbers("LongitudinalTemporalOffsetFromEvent")
    is_from_baseline = header.text("LongitudinalTemporalEventType") == "BASELINE"
    instance = header.text("SOPInstanceUID")
    return Radiograph(
        pixels,
        spacing=spacing,
        spacing_source=source,
        stated_sides=sides,
        row_direction=header.text("PatientOrientation"),
        column_direction=header.text("PatientOrientation", 1),
        was_mirrored=_yes_or_no(header, "FieldOfViewHorizontalFlip"),
        view=read_view(header),
        patient_id=header.text("PatientID"),
        time_point=header.text("ClinicalTrialTimePointID"),
        days_since_baseline=offset_days[0] if offset_days and is_from_baseline else None,
        has_burned_in_text=_yes_or_no(header, "BurnedInAnnotation"),
        instance_digest=None if instance is None else hashlib.sha256(instance.encode()).hexdigest(),
        flags=(*flags, *doubts, *conflicts),
    )


def _yes_or_no(header: Attributes, keyword: str) -> bool | None:
    return {"YES": True, "NO": False}.get((header.text(keyword) or "").upper())


@contextmanager
def _overheard() -> Iterator[list[warnings.WarningMessage]]:
    """Collect what libraries warn of and keep it from logs: it quotes values of the header."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    were_propagating = [logger.propagate for logger in loggers]
    silence = logging.NullHandler()
    try:
        for logger in loggers:
            logger.propagate = False
            logger.addHandler(silence)
        with warnings.catch_warnings(record=True) as complaints:
            warnings.simplefilter("always")
            yield complaints
    finally:
        for logger, was_propagating in zip(loggers, were_propagating, strict=True):
            logger.propagate = was_propagating
            logger.removeHandler(silence)


def _check_start(path: Path, max_pixels: int) -> None:
    def refuse(code: str, message: str) -> None:
        raise ItemError(code, message, stage="read")

    size = path.stat().st_size
    if size == 0:
        refuse("E_EMPTY", "the file is empty")
    # two bytes a pixel, and as much again for what a poor compression may add
    if size > 4 * max_pixels + _HEADER_BYTES:
        refuse("E_TOO_LARGE", f"the file is larger than any film of {max_pixels} px (max_pixels)")
    if is_dicom(path):
        return
    if is_bare(path):
        refuse("E_NO_META", "a data set without preamble and meta information; rewrite it whole")
    refuse("E_NOT_DICOM", "the file does not start as a DICOM file (no DICM after the preamble)")


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[tuple[BinaryIO, UID]]:
    """The file, inflated within bounds where it is deflated, and its transfer syntax.

    Reading only the header of a deflated file inflates all of it: 1 MB can become 2 GB.
    """
    meta = read_file_meta_info(path)
    syntax = meta.get("TransferSyntaxUID")
    if not syntax:
        raise ItemError("E_TRANSFER_SYNTAX", "the transfer syntax is not stated", stage="header")
    if meta.get("MediaStorageSOPClassUID") == _DICOMDIR:
        raise ItemError("E_NOT_PROJECTION_XR", "the file is a DICOMDIR", stage="header")
    try:
        get_decoder(syntax)
    except NotImplementedError:
        message = "the transfer syntax is private or unknown; convert the film to a standard one"
        raise ItemError("E_TRANSFER_SYNTAX", message, stage="header") from None
    with path.open("rb") as stream:
        if syntax == DeflatedExplicitVRLittleEndian:
            yield _inflated(stream, meta, 2 * max_pixels + _HEADER_BYTES), ExplicitVRLittleEndian
        else:
            yield stream, syntax


def _inflated(stream: BinaryIO, meta: FileMetaDataset, most_bytes: int) -> BinaryIO:
    # the group length element itself takes 12 bytes (PS3.10 7.1)
    stream.seek(_PREAMBLE_BYTES + len(_MAGIC) + 12 + int(meta.FileMetaInformationGroupLength))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
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


def _check_decoder(syntax: UID, header: Attributes) -> None:
    decoder = get_decoder(syntax)
    is_12_bit_jpeg = syntax == JPEGExtended12Bit and header.integer("BitsStored") != 8
    if _IMAGECODECS in decoder.available_plugins or (decoder.is_available and not is_12_bit_jpeg):
        return
    message = f"no decoder for the transfer syntax {syntax.name}; \
install the extra `dicom`: pip install 'kneeoa-mm[dicom]'"
    raise ItemError(NO_DECODER, message, stage="header")


def _decode(stream: BinaryIO, header: Attributes, syntax: UID) -> NDArray[np.integer]:
    """Stored values, (rows, columns), without the bits that are not theirs."""
    stream.seek(0)
    film = pydicom.dcmread(stream)
    if "PixelData" not in film:
        raise ItemError("E_TRUNCATED", "the file ends within its pixels", stage="decode")
    shape = (header.integer("Rows") or 0, header.integer("Columns") or 0)
    bits = header.integer("BitsStored") or 0
    high_bit = bits - 1
    if not syntax.is_encapsulated or syntax == RLELossless:
        high_bit = header.integer("HighBit") or high_bit
    _check_size(film.PixelData, shape, header.integer("BitsAllocated") or 0, syntax)
    # pylibjpeg-rle panics past every except clause; pydicom's own decoder does not
    plugin = "pydicom" if syntax == RLELossless else ""
    stored: NDArray[np.integer] = pixel_array(
        film, index=0, decoding_plugin=plugin, correct_unused_bits=False
    )
    if stored.shape != shape:
        raise ItemError("E_DECODE", "the pixels do not have the stated size", stage="decode")
    return own_bits(stored, bits, high_bit)


def _check_size(data: bytes, shape: tuple[int, int], bits_allocated: int, syntax: UID) -> None:
    """Refuse pixels that are missing, or would become more than the header says."""

    def refuse(code: str, message: str) -> None:
        raise ItemError(code, message, stage="decode")

    expected = shape[0] * shape[1] * bits_allocated // 8
    if not syntax.is_encapsulated:
        if len(data) < expected:
            refuse("E_TRUNCATED", f"{len(data)} of {expected} bytes of pixels are there")
        return
    frame = get_frame(data, 0, number_of_frames=1)
    if syntax == RLELossless:
        # a byte of RLE becomes 64 at most, and pixels never need twice their own bytes
        if len(frame) > _RLE_HEADER_BYTES + 2 * expected:
            refuse("E_TOO_LARGE", "the RLE data are longer than the pixels they stand for")
        return
    codestream = read_codestream(frame)
    if codestream.components != 1:
        refuse("E_NOT_PROJECTION_XR", "the compressed image is in colour")
    if (codestream.rows, codestream.columns) != shape:
        refuse("E_DECODE", "the compressed image has another size than the header states")
    if codestream.precision > bits_allocated:
        refuse("E_DECODE", "the compressed image has more bits than the header states")
    if not codestream.is_complete:
        refuse("E_TRUNCATED", "the compressed image ends too early")
