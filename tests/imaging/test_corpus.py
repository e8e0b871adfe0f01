"""pydicom's own collection of broken, foreign and exotic files, through the worker."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest

from kneeoa_mm.errors import ItemError
from kneeoa_mm.identifiers import Identifiers
from kneeoa_mm.imaging.dicom import read_film
from kneeoa_mm.imaging.identity import Naming
from kneeoa_mm.imaging.radiograph import resize
from kneeoa_mm.imaging.runner import run_films
from kneeoa_mm.imaging.worker import FilmRecord, FilmTask, work
from kneeoa_mm.settings import PreprocessConfig

CORPUS = Path(pydicom.__file__).parent / "data" / "test_files"
FILES = sorted(path for path in CORPUS.rglob("*") if path.is_file())
CONFIG = PreprocessConfig(detector="profile", max_pixels=10_000_000)


def test_every_file_gives_knees_or_a_named_reason(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tasks = [
        FilmTask(
            root=CORPUS,
            source=path.relative_to(CORPUS).as_posix(),
            shown_source=path.name,
            part=tmp_path / str(index),
            config=CONFIG,
            naming=Naming(Identifiers(None)),
        )
        for index, path in enumerate(FILES)
    ]
    records = list(run_films(work, tasks, jobs=2, timeout_s=30.0))
    assert capfd.readouterr() == ("", "")
    assert len(records) == len(FILES) > 70
    codes: Counter[str] = Counter()
    for record, path in zip(records, FILES, strict=True):
        assert isinstance(record, FilmRecord), path.name
        assert record.knees or record.rejects, path.name
        codes.update(reject.code for reject in record.rejects)
    assert "E_UNEXPECTED" not in codes
    assert codes["E_NOT_PROJECTION_XR"] > 50
    assert {"E_NOT_DICOM", "E_NO_META", "E_TRANSFER_SYNTAX"} <= set(codes)
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("CT_small.dcm", "E_NOT_PROJECTION_XR"),
        ("MR_small.dcm", "E_NOT_PROJECTION_XR"),
        ("ExplVR_LitEndNoMeta.dcm", "E_NO_META"),
        ("ExplVR_BigEndNoMeta.dcm", "E_NO_META"),
        ("rtplan.dump", "E_NOT_DICOM"),
        ("rtplan.dcm", "E_NOT_PROJECTION_XR"),
        ("test-SR.dcm", "E_NOT_PROJECTION_XR"),
        ("meta_missing_tsyntax.dcm", "E_TRANSFER_SYNTAX"),
        ("SC_rgb_small_odd.dcm", "E_NOT_PROJECTION_XR"),
    ],
)
def test_files_are_refused_for_the_right_reason(name: str, code: str) -> None:
    (path,) = [path for path in FILES if path.name == name]
    with pytest.raises(ItemError) as caught:
        read_film(path, max_pixels=10_000_000)
    assert caught.value.code == code


def _as_film(source: str, path: Path) -> Path:
    """A file of the corpus under the header of a radiograph."""
    (origin,) = [file for file in FILES if file.name == source]
    film = pydicom.dcmread(origin)
    film.Modality, film.SOPClassUID = "DX", "1.2.840.10008.5.1.4.1.1.1.1"
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID
    film.save_as(path)
    return path


@pytest.mark.parametrize(
    ("encoded", "plain", "package"),
    [
        ("MR_small_RLE.dcm", "MR_small.dcm", "numpy"),
        ("MR_small_bigendian.dcm", "MR_small.dcm", "numpy"),
        ("MR_small_implicit.dcm", "MR_small.dcm", "numpy"),
        ("MR_small_jp2klossless.dcm", "MR_small.dcm", "openjpeg"),
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm", "jpeg_ls"),
    ],
)
def test_the_corpus_agrees_over_its_encodings(
    tmp_path: Path, encoded: str, plain: str, package: str
) -> None:
    pytest.importorskip(package)
    films = [
        read_film(_as_film(name, tmp_path / name), max_pixels=10_000_000)
        for name in (encoded, plain)
    ]
    np.testing.assert_array_equal(films[0].pixels, films[1].pixels)


def test_twelve_bit_jpeg_of_two_makers_agrees(tmp_path: Path) -> None:
    """NEMA's bone scan, once with the scan header that strict decoders refuse."""
    pytest.importorskip("imagecodecs", reason="extra `dicom`")
    films = [
        read_film(_as_film(name, tmp_path / name), max_pixels=10_000_000).pixels
        for name in ("JPGExtended.dcm", "JPEG-lossy.dcm")
    ]
    np.testing.assert_array_equal(films[0], films[1])
    assert np.ptp(films[0]) > 255, "twelve bits were read as eight"


def test_twelve_bit_jpeg_resembles_jpeg_2000_of_the_same_picture(tmp_path: Path) -> None:
    """Another codec, which dropped most of the noise of that bone scan."""
    for package in ("imagecodecs", "openjpeg"):
        pytest.importorskip(package, reason="extra `dicom`")
    jpeg, jpeg_2000 = (
        resize(read_film(_as_film(name, tmp_path / name), max_pixels=10_000_000).pixels, 128, 32)
        for name in ("JPGExtended.dcm", "JPEG2000.dcm")
    )
    assert np.corrcoef(jpeg.ravel(), jpeg_2000.ravel())[0, 1] > 0.95
