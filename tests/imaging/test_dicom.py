"""Reading DICOM: every refusal has its name, and comes before it could do harm."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import phantoms
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_file_meta_info
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from kneeoa_mm.errors import ItemError
from kneeoa_mm.imaging.dicom import is_dicom, read_film
from kneeoa_mm.imaging.greyscale import grey_range
from kneeoa_mm.imaging.quality import QCFlag
from kneeoa_mm.imaging.radiograph import Radiograph
from kneeoa_mm.records import Laterality, SpacingSource, View

FILM = phantoms.knee_film(spacing_mm=(2.0, 2.0))
STORED = phantoms.stored(FILM)
NAME = "Secretname^Jane"


def _read(path: Path, max_pixels: int = 1_000_000) -> Radiograph:
    return read_film(path, max_pixels=max_pixels)


def _refusal(path: Path, max_pixels: int = 1_000_000) -> ItemError:
    with pytest.raises(ItemError) as caught:
        _read(path, max_pixels)
    return caught.value


def _film(path: Path, **elements: Any) -> Path:
    return phantoms.write(phantoms.dataset(STORED, **elements), path)


def _cut(path: Path, share: float) -> Path:
    whole = _film(path).read_bytes()
    path.write_bytes(whole[: round(len(whole) * share)])
    return path


def _bytes(content: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return make


def _without_meta(path: Path, start: int | None) -> Path:
    """A film without its first bytes: without preamble, and without meta information."""
    whole = _film(path).read_bytes()
    if start is None:
        start = 132 + 12 + read_file_meta_info(path).FileMetaInformationGroupLength
    path.write_bytes(b"\0" * 128 + b"NONE" + whole if start == 0 else whole[start:])
    return path


def _without_pixels(path: Path) -> Path:
    film = phantoms.dataset(STORED)
    del film.PixelData
    return phantoms.write(film, path)


def _with_syntax(syntax: str) -> Callable[[Path], Path]:
    """A plain film whose meta information claims another transfer syntax."""

    def make(path: Path) -> Path:
        whole = _film(path).read_bytes()
        meta = read_file_meta_info(path)
        body = whole[132 + 12 + meta.FileMetaInformationGroupLength :]
        meta.TransferSyntaxUID = syntax
        claim = DicomBytesIO()
        write_file_meta_info(claim, meta, enforce_standard=False)
        path.write_bytes(whole[:132] + claim.getvalue() + body)
        return path

    return make


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (_bytes(b""), "E_EMPTY"),
        (_bytes(b"%PDF-1.7 not a film"), "E_NOT_DICOM"),
        (lambda path: _without_meta(path, 0), "E_NOT_DICOM"),
        (lambda path: _without_meta(path, 132), "E_NO_META"),
        (lambda path: _without_meta(path, None), "E_NO_META"),
        (_bytes(b"\0" * 128 + b"DICM"), "E_TRANSFER_SYNTAX"),
        (lambda path: _cut(path, 0.5), "E_TRUNCATED"),
        (lambda path: _cut(path, 0.99), "E_TRUNCATED"),
        (_without_pixels, "E_NO_PIXELS"),
        (_with_syntax("1.2.3.4.5"), "E_TRANSFER_SYNTAX"),
        (_with_syntax(DeflatedExplicitVRLittleEndian), "E_HEADER"),
        (lambda path: _film(path, Modality="CT"), "E_NOT_PROJECTION_XR"),
        (lambda path: _film(path, Modality="MR"), "E_NOT_PROJECTION_XR"),
        (lambda path: _film(path, Modality="SR"), "E_NOT_PROJECTION_XR"),
        (
            lambda path: _film(path, Modality="OT", SOPClassUID=CTImageStorage),
            "E_NOT_PROJECTION_XR",
        ),
        (lambda path: _film(path, NumberOfFrames=3), "E_NOT_PROJECTION_XR"),
        (lambda path: _film(path, SamplesPerPixel=3), "E_NOT_PROJECTION_XR"),
        (lambda path: _film(path, PhotometricInterpretation="RGB"), "E_NOT_PROJECTION_XR"),
        (lambda path: _film(path, PhotometricInterpretation=None), "E_NOT_PROJECTION_XR"),
        (
            lambda path: _film(path, SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1"),
            "E_NOT_PROJECTION_XR",
        ),
        (lambda path: _film(path, BodyPartExamined="CHEST", SeriesDescription="PA"), "E_NOT_KNEE"),
        (lambda path: _film(path, BitsAllocated=32), "E_DECODE"),
        (lambda path: _film(path, BitsStored=17), "E_DECODE"),
        (lambda path: _film(path, Rows=60000, Columns=60000), "E_TOO_LARGE"),
        (lambda path: phantoms.write(phantoms.dataset(STORED * 0), path), "E_FLAT"),
    ],
)
def test_what_is_no_film_is_refused_by_name(
    tmp_path: Path, make: Callable[[Path], Path], code: str
) -> None:
    assert _refusal(make(tmp_path / "film.dcm")).code == code


@pytest.mark.parametrize(
    ("syntax", "name"),
    [(JPEGLosslessSV1, "JPEG Lossless"), (JPEGExtended12Bit, "JPEG Extended")],
)
def test_a_missing_decoder_names_the_syntax_and_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: UID, name: str
) -> None:
    """Pillow, always there, decodes JPEG Extended of 8 bits and not of 12."""
    monkeypatch.delitem(get_decoder(syntax)._available, "imagecodecs", raising=False)
    error = _refusal(_with_syntax(syntax)(tmp_path / "film.dcm"))
    assert error.code == "E_NO_DECODER"
    assert name in error.message
    assert "kneeoa-mm[dicom]" in error.message


def test_what_is_no_film_is_refused_as_such_whatever_its_encoding(tmp_path: Path) -> None:
    """No extra would help a CT slice, so none is asked for."""
    film = phantoms.dataset(STORED, Modality="CT")
    path = phantoms.write(film, tmp_path / "film.dcm")
    meta = pydicom.dcmread(path)
    meta.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    meta["PixelData"].is_undefined_length = True
    meta.PixelData = encapsulate([bytes(16)])
    meta.save_as(path)
    assert _refusal(path).code == "E_NOT_PROJECTION_XR"


def test_a_deflate_bomb_is_refused_before_it_inflates(tmp_path: Path) -> None:
    film = phantoms.dataset(STORED, RedPaletteColorLookupTableData=bytes(40_000_000))
    path = phantoms.write(film, tmp_path / "bomb.dcm", syntax=DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 100_000
    assert _refusal(path, max_pixels=100_000).code == "E_TOO_LARGE"


def test_a_truncated_deflated_film_is_refused(tmp_path: Path) -> None:
    film = phantoms.dataset(STORED)
    path = phantoms.write(film, tmp_path / "film.dcm", syntax=DeflatedExplicitVRLittleEndian)
    path.write_bytes(path.read_bytes()[:-500])
    assert _refusal(path).code == "E_TRUNCATED"


def test_an_rle_bomb_is_refused_before_it_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each two bytes stand for 128; pixels never need that many of them."""
    film = phantoms.dataset(STORED)
    header = struct.pack("<16L", 2, 64, 10_000_064, *[0] * 13)
    film.PixelData = encapsulate([header + b"\x81\x00" * 10_000_000])
    film["PixelData"].VR, film["PixelData"].is_undefined_length = "OB", True
    film.file_meta.TransferSyntaxUID = RLELossless
    film.save_as(tmp_path / "bomb.dcm", enforce_file_format=True)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the decoder was reached")

    monkeypatch.setattr("kneeoa_mm.imaging.dicom.pixel_array", never)
    assert _refusal(tmp_path / "bomb.dcm", max_pixels=10_000_000).code == "E_TOO_LARGE"


def test_a_file_larger_than_any_film_is_not_even_opened(tmp_path: Path) -> None:
    path = _film(tmp_path / "film.dcm")
    with path.open("r+b") as stream:
        stream.truncate(100_000_000)
    error = _refusal(path)
    assert (error.code, error.stage) == ("E_TOO_LARGE", "read")


def test_sequences_nested_without_end_are_refused(tmp_path: Path) -> None:
    """Pydicom reads an item within an item by calling itself."""
    path = _film(tmp_path / "film.dcm")
    start = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    whole = path.read_bytes()
    place = whole.index(struct.pack("<HH", 0x0010, 0x0020))
    path.write_bytes(whole[:place] + (start + item) * 5000 + whole[place:])
    assert _refusal(path).code == "E_HEADER"


def test_nothing_that_libraries_say_is_logged_or_printed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A broken JPEG 2000 stream makes OpenJPEG, pylibjpeg and pydicom all complain."""
    pytest.importorskip("openjpeg")
    path = phantoms.write(phantoms.dataset(STORED), tmp_path / "f.dcm", syntax=JPEG2000Lossless)
    whole = bytearray(path.read_bytes())
    start = whole.index(b"\xff\x93")
    whole[start - 40 : start] = bytes(40)
    path.write_bytes(whole)
    assert _refusal(path).code == "E_DECODE"
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_both_polarities_give_the_same_greys(tmp_path: Path, bits: int) -> None:
    pair = [
        phantoms.dataset(
            phantoms.stored(FILM, bits=bits, inverted=inverted),
            bits=bits,
            PhotometricInterpretation=f"MONOCHROME{1 if inverted else 2}",
        )
        for inverted in (False, True)
    ]
    plain, inverted = (
        _read(phantoms.write(film, tmp_path / f"{index}.dcm")) for index, film in enumerate(pair)
    )
    np.testing.assert_array_equal(plain.pixels, inverted.pixels)
    assert np.corrcoef(plain.pixels.ravel(), FILM.ravel())[0, 1] > 0.999


def test_a_window_clips_before_the_polarity_turns(tmp_path: Path) -> None:
    """With the order reversed, the window would act on the wrong end of the greys."""
    window = {"WindowCenter": 1000, "WindowWidth": 1000}
    film = phantoms.stored(FILM, inverted=True)
    path = tmp_path / "film.dcm"
    phantoms.write(phantoms.dataset(film, PhotometricInterpretation="MONOCHROME1", **window), path)
    pixels = _read(path).pixels
    assert (pixels[film > 1500] == pixels.min()).all()
    assert (pixels[film < 500] == pixels.max()).all()


def test_a_window_that_blinds_the_film_is_left_out_and_flagged(tmp_path: Path) -> None:
    """Such as one stated for another scale: every pixel lies beyond its end."""
    path = _film(tmp_path / "film.dcm", WindowCenter=60000, WindowWidth=100)
    film = _read(path)
    assert QCFlag.VOI_IGNORED in film.flags
    np.testing.assert_array_equal(film.pixels, _read(_film(tmp_path / "plain.dcm")).pixels)


@pytest.mark.parametrize("centre", [-5000, 4050])
def test_a_window_that_shows_only_a_marker_is_left_out_and_flagged(
    tmp_path: Path, centre: int
) -> None:
    """A lead letter and a scratch keep the film from one grey, and yet no knee is seen."""
    values = STORED // 2
    values[:3, :3], values[-2:, -2:] = 4095, 0
    window = {"WindowCenter": centre, "WindowWidth": 60}
    film = _read(phantoms.write(phantoms.dataset(values, **window), tmp_path / "film.dcm"))
    plain = _read(phantoms.write(phantoms.dataset(values), tmp_path / "plain.dcm"))
    assert QCFlag.VOI_IGNORED in film.flags
    np.testing.assert_array_equal(film.pixels, plain.pixels)


@pytest.mark.parametrize("is_inverted", [False, True])
def test_padding_is_dark_and_leaves_the_greys_of_the_film_alone(
    tmp_path: Path, is_inverted: bool
) -> None:
    """The padding is stored at the bright end, whichever that is."""
    values = phantoms.stored(FILM, inverted=is_inverted) // 2 + 1000
    bright = 0 if is_inverted else 4095
    framed = np.pad(values, 30, constant_values=bright)
    elements = {"PhotometricInterpretation": f"MONOCHROME{1 if is_inverted else 2}"}
    plain = _read(phantoms.write(phantoms.dataset(values, **elements), tmp_path / "plain.dcm"))
    padded = _read(
        phantoms.write(
            phantoms.dataset(framed, PixelPaddingValue=bright, **elements), tmp_path / "padded.dcm"
        )
    )
    inner = np.s_[30:-30, 30:-30]
    np.testing.assert_array_equal(padded.pixels[inner], plain.pixels)
    assert padded.pixels[:30].max() == padded.pixels[:30].min() == grey_range(plain.pixels)[0]
    assert grey_range(padded.pixels)[0] == grey_range(plain.pixels)[0]


def test_a_film_of_nothing_but_padding_is_flat(tmp_path: Path) -> None:
    path = _film(tmp_path / "film.dcm", PixelPaddingValue=0, PixelPaddingRangeLimit=4095)
    assert _refusal(path).code == "E_FLAT"


def test_a_raw_film_is_read_by_its_photometric_interpretation_and_flagged(tmp_path: Path) -> None:
    """The sign of the detector's response is no polarity (PS3.3 C.8.11.3.1.2)."""
    raw = {"PresentationIntentType": "FOR PROCESSING", "PixelIntensityRelationship": "LIN"}
    films = [
        _read(_film(tmp_path / f"{sign}.dcm", PixelIntensityRelationshipSign=sign, **raw))
        for sign in (-1, 1)
    ]
    np.testing.assert_array_equal(films[0].pixels, films[1].pixels)
    assert films[0].flags == (QCFlag.FOR_PROCESSING,)


@pytest.mark.parametrize(("stated", "has_text"), [("YES", True), ("NO", False), (None, None)])
def test_burned_in_text_is_what_the_header_says(
    tmp_path: Path, stated: str | None, has_text: bool | None
) -> None:
    film = _read(_film(tmp_path / "film.dcm", BurnedInAnnotation=stated))
    assert film.has_burned_in_text is has_text


def test_the_user_states_millimetres_only_where_the_header_has_none(tmp_path: Path) -> None:
    def read(**elements: Any) -> tuple[Any, SpacingSource]:
        path = _film(tmp_path / "film.dcm", **elements)
        film = read_film(path, max_pixels=1_000_000, user_spacing_mm=0.17)
        return film.spacing, film.spacing_source

    assert read(ImagerPixelSpacing=None) == ((0.17, 0.17), SpacingSource.USER)
    assert read(ImagerPixelSpacing=[0, 0]) == ((0.17, 0.17), SpacingSource.USER)
    assert read() == ((0.5, 0.5), SpacingSource.DETECTOR)


@pytest.mark.parametrize(
    ("elements", "is_flagged"),
    [
        ({"ImagerPixelSpacing": None, "PixelAspectRatio": [4, 3]}, True),
        ({"ImagerPixelSpacing": None, "PixelAspectRatio": [1, 1]}, False),
        ({"ImagerPixelSpacing": [0.4, 0.3], "PixelAspectRatio": [4, 3]}, False),
    ],
)
def test_pixels_that_are_not_square_and_have_no_size_are_flagged(
    tmp_path: Path, elements: dict[str, Any], is_flagged: bool
) -> None:
    film = _read(_film(tmp_path / "film.dcm", **elements))
    assert (QCFlag.ASPECT_IGNORED in film.flags) is is_flagged


def test_what_the_header_says_is_read(tmp_path: Path) -> None:
    film = _read(
        _film(
            tmp_path / "film.dcm",
            PixelSpacing=[0.2, 0.3],
            LongitudinalTemporalOffsetFromEvent=365.0,
            LongitudinalTemporalEventType="BASELINE",
        )
    )
    assert (film.spacing, film.spacing_source) == ((0.2, 0.3), SpacingSource.CALIBRATED)
    assert film.stated_sides == set(Laterality)
    assert (film.view, film.row_direction) == (View.PA_FIXED_FLEXION, "L")
    assert (film.patient_id, film.time_point) == ("9000017", "V00")
    assert film.days_since_baseline == 365.0


def test_days_from_another_event_are_not_days_since_baseline(tmp_path: Path) -> None:
    film = _read(
        _film(
            tmp_path / "film.dcm",
            LongitudinalTemporalOffsetFromEvent=365.0,
            LongitudinalTemporalEventType="ENROLLMENT",
        )
    )
    assert film.days_since_baseline is None


def test_a_header_that_breaks_the_standard_is_read_and_flagged(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = _film(tmp_path / "film.dcm", PatientID="X" * 80)
    film = _read(path)
    assert QCFlag.HEADER_NONSTANDARD in film.flags


def test_messages_never_quote_the_header(tmp_path: Path) -> None:
    """Refusals at every stage, each of a file whose header is full of a person's name."""
    personal = {"PatientID": NAME, "SeriesDescription": NAME, "PatientName": NAME}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        faulty = [
            {"Modality": "CT"},
            {"PhotometricInterpretation": NAME},
            {"NumberOfFrames": 2},
            {"Rows": 1},
            {"Rows": 50000, "Columns": 60000},
        ]
        paths = [
            phantoms.write(phantoms.dataset(STORED, **(personal | fault)), tmp_path / f"{i}.dcm")
            for i, fault in enumerate(faulty)
        ]
    paths[3].write_bytes(paths[3].read_bytes()[:-80000])
    for path in paths:
        error = _refusal(path)
        assert "Secret" not in str(error)


def test_only_the_start_of_a_file_makes_it_dicom(tmp_path: Path) -> None:
    film = _film(tmp_path / "000123")
    text = tmp_path / "notes.dcm"
    text.write_text("DICM")
    assert is_dicom(film)
    assert not is_dicom(text)
