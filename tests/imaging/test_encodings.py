"""One film in every encoding: lossless ones give the same bits, lossy ones the same picture."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import phantoms
import pydicom
import pytest
from encodings_of_films import LOSSLESS, LOSSY, wrapped, write_encoded
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from jpeg_lossless import encode
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import generate_fragments
from pydicom.uid import ExplicitVRBigEndian, JPEGBaseline8Bit, JPEGLossless, JPEGLosslessSV1

from kneeoa_mm.errors import ItemError
from kneeoa_mm.identifiers import Identifiers
from kneeoa_mm.imaging.codestream import read_codestream
from kneeoa_mm.imaging.dicom import read_film
from kneeoa_mm.imaging.films import process_film
from kneeoa_mm.imaging.identity import Naming
from kneeoa_mm.imaging.profile import ProfileDetector
from kneeoa_mm.imaging.radiograph import Radiograph
from kneeoa_mm.settings import PreprocessConfig

FILM = phantoms.knee_film(spacing_mm=(4.0, 4.0))


def _read(path: Path) -> Radiograph:
    return read_film(path, max_pixels=1_000_000)


def _greys(values: NDArray[np.integer]) -> NDArray[np.float32]:
    """What a film without LUTs must show: its values, the darkest being 0."""
    return (values.astype(np.int64) - values.min()).astype(np.float32)


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("is_signed", [False, True])
def test_lossless_encodings_give_the_stored_values(
    tmp_path: Path, name: str, bits: int, is_signed: bool
) -> None:
    values = phantoms.stored(FILM, bits=bits)
    if is_signed:
        signed = np.int8 if bits == 8 else np.int16
        values = (values.astype(np.int32) - 2 ** (bits - 1)).astype(signed)
    film = _read(write_encoded(name, tmp_path / "film.dcm", values, bits=bits))
    np.testing.assert_array_equal(film.pixels, _greys(values))
    assert film.flags == ()


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_encodings_agree_on_any_picture(
    tmp_path: Path, name: str, data: st.DataObject
) -> None:
    bits = data.draw(st.sampled_from([8, 10, 12, 16]))
    values = data.draw(
        arrays.arrays(
            np.uint8 if bits == 8 else np.uint16,
            st.tuples(st.integers(32, 36), st.integers(32, 36)),
            elements=st.integers(0, 2**bits - 1),
        )
    )
    values[0, 0], values[-1, -1] = 0, 1
    film = _read(write_encoded(name, tmp_path / "film.dcm", values, bits=bits))
    np.testing.assert_array_equal(film.pixels, _greys(values))


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_encodings_stay_near_the_film(tmp_path: Path, name: str) -> None:
    bits = 8 if name == "JPEG baseline" else 12
    values = phantoms.stored(FILM, bits=bits)
    film = _read(write_encoded(name, tmp_path / "film.dcm", values, bits=bits))
    error = (film.pixels - film.pixels.mean()) - (values - values.mean())
    assert np.abs(error).mean() < 0.01 * 2**bits
    assert np.corrcoef(film.pixels.ravel(), values.ravel())[0, 1] > 0.998


def _knees(path: Path) -> list[NDArray[np.uint16]]:
    config = PreprocessConfig(pixel_spacing_mm=0.7)
    film = process_film(
        path,
        path.name,
        config=config,
        naming=Naming(Identifiers(None)),
        detector=ProfileDetector(config.min_detector_score),
    )
    return [knee.image for knee in film.knees]


LARGE = phantoms.stored(phantoms.knee_film(spacing_mm=(1.0, 1.0)))


@pytest.fixture(scope="module")
def plain_knees(tmp_path_factory: pytest.TempPathFactory) -> list[NDArray[np.uint16]]:
    path = tmp_path_factory.mktemp("plain") / "film.dcm"
    return _knees(write_encoded("explicit", path, LARGE, ImagerPixelSpacing=[1.0, 1.0]))


@pytest.mark.parametrize("name", [name for name in LOSSLESS if name != "explicit"])
def test_lossless_encodings_give_identical_knees(
    tmp_path: Path, name: str, plain_knees: list[NDArray[np.uint16]]
) -> None:
    knees = _knees(write_encoded(name, tmp_path / "film.dcm", LARGE, ImagerPixelSpacing=[1.0, 1.0]))
    assert len(knees) == len(plain_knees) == 2
    for knee, plain in zip(knees, plain_knees, strict=True):
        np.testing.assert_array_equal(knee, plain)


@pytest.mark.parametrize("name", ["JPEG extended", "JPEG 2000", "JPEG-LS near"])
def test_lossy_encodings_give_the_same_knees_but_for_noise(
    tmp_path: Path, name: str, plain_knees: list[NDArray[np.uint16]]
) -> None:
    knees = _knees(write_encoded(name, tmp_path / "film.dcm", LARGE, ImagerPixelSpacing=[1.0, 1.0]))
    for knee, plain in zip(knees, plain_knees, strict=True):
        assert np.abs(knee.astype(int) - plain).mean() < 0.02 * 65535


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("precision", [8, 9, 12, 13, 16])
def test_every_predictor_of_jpeg_lossless_is_decoded(
    tmp_path: Path, predictor: int, precision: int
) -> None:
    """The encoder is written from the standard, in the tests, and shares nothing with libjpeg."""
    pytest.importorskip("imagecodecs", reason="decodes JPEG Lossless; extra `dicom`")
    rng = np.random.default_rng(predictor)
    values = rng.integers(0, 2**precision, (33, 37)).astype(np.uint16)
    codestream = encode(values, precision=precision, predictor=predictor)
    film = wrapped(phantoms.dataset(values, bits=precision), codestream, JPEGLossless)
    film.save_as(tmp_path / "film.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(_read(tmp_path / "film.dcm").pixels, _greys(values))


@pytest.mark.parametrize("name", ["explicit", "implicit", "big-endian", "deflated", "RLE"])
@pytest.mark.parametrize("high_bit", [11, 13, 15])
def test_bits_beside_the_stored_ones_are_dropped(tmp_path: Path, name: str, high_bit: int) -> None:
    """Overlays and garbage lie above High Bit, or below a film that is stored shifted."""
    values = phantoms.stored(FILM)
    noise = np.random.default_rng(0).integers(0, 2**16, values.shape)
    shift = high_bit - 11
    mask = 0xFFF << shift
    dirty = ((values.astype(int) << shift) | (noise & ~mask)).astype(np.uint16)
    film = _read(write_encoded(name, tmp_path / "film.dcm", dirty, HighBit=high_bit))
    np.testing.assert_array_equal(film.pixels, _greys(values))


def test_eight_bits_in_big_endian_words_are_swapped_back(tmp_path: Path) -> None:
    values = phantoms.stored(FILM, bits=8)
    dataset = phantoms.dataset(values, bits=8)
    dataset.PixelData = values.reshape(-1, 2)[:, ::-1].tobytes()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset.save_as(tmp_path / "film.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(_read(tmp_path / "film.dcm").pixels, _greys(values))


def _refusal(path: Path) -> ItemError:
    with pytest.raises(ItemError) as caught:
        _read(path)
    return caught.value


@pytest.mark.parametrize(
    "name", ["JPEG baseline", "JPEG extended", "JPEG Lossless", "JPEG-LS", "JPEG 2000", "HTJ2K"]
)
@pytest.mark.parametrize(
    ("change", "code"),
    [({"Rows": 69}, "E_DECODE"), ({"Columns": 84}, "E_DECODE"), ({"Rows": 71}, "E_DECODE")],
)
def test_a_codestream_of_another_size_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: dict[str, int], code: str
) -> None:
    """A decoder allocates what the codestream asks for, so it must not be reached."""
    bits = 8 if name == "JPEG baseline" else 12
    values = phantoms.stored(FILM, bits=bits)
    path = write_encoded(name, tmp_path / "film.dcm", values, bits=bits)
    monkeypatch.setattr("kneeoa_mm.imaging.dicom.pixel_array", _never)
    film = pydicom.dcmread(path)
    for keyword, value in change.items():
        setattr(film, keyword, value)
    film.save_as(path)
    error = _refusal(path)
    assert error.code == code
    assert "another size" in error.message


def _never(*_: Any, **__: Any) -> None:
    raise AssertionError("the decoder was reached")


@pytest.mark.parametrize(
    "name", ["JPEG baseline", "JPEG extended", "JPEG Lossless", "JPEG-LS", "JPEG 2000", "HTJ2K"]
)
@pytest.mark.parametrize("share", [0.4, 0.7, 0.97])
def test_a_codestream_that_ends_early_is_refused(tmp_path: Path, name: str, share: float) -> None:
    """Libjpeg and OpenJPEG fill what is missing with grey, and say nothing."""
    bits = 8 if name == "JPEG baseline" else 12
    path = write_encoded(name, tmp_path / "f.dcm", phantoms.stored(FILM, bits=bits), bits=bits)
    film = pydicom.dcmread(path)
    (_, codestream) = generate_fragments(film.PixelData)
    wrapped(film, codestream[: round(len(codestream) * share)], film.file_meta.TransferSyntaxUID)
    film.save_as(path)
    assert _refusal(path).code == "E_TRUNCATED"


@pytest.mark.parametrize("name", [*LOSSLESS, *LOSSY])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_file_that_ends_early_is_refused(tmp_path: Path, name: str, share: float) -> None:
    """Pydicom reads a compressed film that is cut off as one without pixels, and says nothing."""
    bits = 8 if name == "JPEG baseline" else 12
    path = write_encoded(name, tmp_path / "f.dcm", phantoms.stored(FILM, bits=bits), bits=bits)
    path.write_bytes(path.read_bytes()[: round(path.stat().st_size * share)])
    assert _refusal(path).code == "E_TRUNCATED"


def test_a_colour_codestream_under_a_grey_header_is_refused(tmp_path: Path) -> None:
    stream = BytesIO()
    Image.new("RGB", (80, 60), "red").save(stream, "JPEG")
    film = phantoms.dataset(np.zeros((60, 80), np.uint8), bits=8)
    wrapped(film, stream.getvalue(), JPEGBaseline8Bit)
    film.save_as(tmp_path / "film.dcm", enforce_file_format=True)
    assert _refusal(tmp_path / "film.dcm").code == "E_NOT_PROJECTION_XR"


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff\xe0\0",
        b"\xff\x4f\xff\x51\0",
        b"GIF89a",
    ],
)
def test_a_codestream_without_a_header_is_no_codestream(image: bytes) -> None:
    with pytest.raises(ValueError, match=r"codestream"):
        read_codestream(image)


def test_a_padded_codestream_is_complete(tmp_path: Path) -> None:
    """Fragments have even lengths, and some writers pad by more than one byte."""
    pytest.importorskip("imagecodecs", reason="decodes JPEG Lossless; extra `dicom`")
    values = phantoms.stored(FILM)
    codestream = encode(values, precision=12) + bytes(511)
    film = wrapped(phantoms.dataset(values), codestream, JPEGLosslessSV1)
    film.save_as(tmp_path / "film.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(_read(tmp_path / "film.dcm").pixels, _greys(values))
