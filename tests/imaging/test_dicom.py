"""Reading DICOM: every refusal has its name, every lossless encoding gives the same greys."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import phantoms
import pydicom
import pytest
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from kneeoa_mm.errors import ItemError
from kneeoa_mm.imaging.dicom import is_dicom, read_film
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
        (lambda path: _film(path, BitsAllocated=32), "E_DECODE"),
        (lambda path: _film(path, Rows=60000, Columns=60000), "E_TOO_LARGE"),
        (lambda path: phantoms.write(phantoms.dataset(STORED * 0), path), "E_FLAT"),
    ],
)
def test_what_is_no_film_is_refused_by_name(
    tmp_path: Path, make: Callable[[Path], Path], code: str
) -> None:
    assert _refusal(make(tmp_path / "film.dcm")).code == code


def test_a_missing_decoder_names_the_syntax_and_a_way_out(tmp_path: Path) -> None:
    error = _refusal(_with_syntax(JPEGLosslessSV1)(tmp_path / "film.dcm"))
    assert error.code == "E_TRANSFER_SYNTAX"
    assert "JPEG Lossless" in error.message
    assert "extra `dicom`" in error.message


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


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEG2000Lossless,
        JPEGLSLossless,
    ],
)
def test_lossless_encodings_give_the_same_greys(tmp_path: Path, syntax: str) -> None:
    if syntax in {JPEG2000Lossless, JPEGLSLossless}:
        pytest.importorskip("openjpeg" if syntax == JPEG2000Lossless else "jpeg_ls")
    plain = _read(_film(tmp_path / "plain.dcm"))
    other = _read(phantoms.write(phantoms.dataset(STORED), tmp_path / "o.dcm", syntax=syntax))
    np.testing.assert_array_equal(other.pixels, plain.pixels)
    assert other.flags == plain.flags == ()
    assert other.spacing == plain.spacing == (0.5, 0.5)


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


def test_garbage_above_the_stored_bits_is_masked(tmp_path: Path) -> None:
    dirty = STORED | (np.random.default_rng(0).integers(0, 16, STORED.shape) << 12).astype(
        np.uint16
    )
    assert dirty.max() > 4095
    path = phantoms.write(phantoms.dataset(dirty), tmp_path / "dirty.dcm")
    clean = _read(_film(tmp_path / "clean.dcm"))
    np.testing.assert_array_equal(_read(path).pixels, clean.pixels)


def test_signed_films_equal_their_unsigned_twins(tmp_path: Path) -> None:
    signed = (STORED.astype(np.int32) - 2048).astype(np.int16)
    path = phantoms.write(phantoms.dataset(signed), tmp_path / "signed.dcm")
    np.testing.assert_array_equal(_read(path).pixels, _read(_film(tmp_path / "u.dcm")).pixels)


def test_a_window_clips_before_the_polarity_turns(tmp_path: Path) -> None:
    """With the order reversed, the window would act on the wrong end of the greys."""
    window = {"WindowCenter": 1000, "WindowWidth": 1000}
    film = phantoms.stored(FILM, inverted=True)
    path = tmp_path / "film.dcm"
    phantoms.write(phantoms.dataset(film, PhotometricInterpretation="MONOCHROME1", **window), path)
    pixels = _read(path).pixels
    assert (pixels[film > 1500] == pixels.min()).all()
    assert (pixels[film < 500] == pixels.max()).all()


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


CORPUS = Path(pydicom.__file__).parent / "data" / "test_files"


def test_every_file_of_pydicoms_corpus_is_read_or_refused_by_name() -> None:
    """Broken, foreign and exotic files: an ItemError or a film, never another exception."""
    codes: dict[str, int] = {}
    files = [path for path in sorted(CORPUS.rglob("*")) if path.is_file()]
    for path in files:
        try:
            film = read_film(path, max_pixels=10_000_000)
        except ItemError as error:
            codes[error.code] = codes.get(error.code, 0) + 1
        else:
            assert np.isfinite(film.pixels).all()
            codes["film"] = codes.get("film", 0) + 1
    assert len(files) > 70
    assert codes["film"] >= 3
    assert codes["E_NOT_PROJECTION_XR"] > 50
    assert {"E_NOT_DICOM", "E_TRANSFER_SYNTAX"} <= set(codes)
