"""Nothing that names a person leaves the films, by whatever way."""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nights
import numpy as np
import pandas as pd
import phantoms
import pyarrow.parquet as parquet
import pydicom.config
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

NAME, BIRTH, TAKEN, NUMBER = "Zelenka", "19550417", "20040611", "471108150"
PLANTED = (NAME, NAME.lower(), NAME.upper(), BIRTH, "1955-04-17", TAKEN, "2004-06-11", NUMBER)
OF_VR = {
    **dict.fromkeys(("AE", "SH", "CS"), f"{NAME} {NUMBER}"[:16]),
    **dict.fromkeys(("LO", "LT", "ST", "UC", "UT"), f"{NAME} {BIRTH} {NUMBER}"),
    "PN": f"{NAME}^Maria",
    "DA": TAKEN,
    "DT": f"{BIRTH}101500",
    "TM": "101500",
    "UI": f"1.2.{NUMBER}.{TAKEN}",
    "UR": f"file:///{NAME}",
    "IS": NUMBER,
}
NEEDED = {
    *(
        "ClinicalTrialTimePointID",
        "Modality",
        "SOPClassUID",
        "PhotometricInterpretation",
        "PresentationLUTShape",
    ),
    *("NumberOfFrames", "PixelPresentation", "ImageType", "BurnedInAnnotation", "BodyPartExamined"),
    *(
        "ViewPosition",
        "PatientOrientation",
        "ImageLaterality",
        "Laterality",
        "SpecificCharacterSet",
    ),
    *("PresentationIntentType", "ConversionType", "LossyImageCompression", "VOILUTFunction"),
    *("PixelPaddingRangeLimit", "FieldOfViewHorizontalFlip", "FieldOfViewRotation"),
    *("PixelSpacingCalibrationType", "DetectorType", "QualityControlImage", "ImageRotation"),
}
"""What decides whether a film is refused."""


@pytest.fixture(autouse=True)
def _written_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real archives hold values that pydicom would not write."""
    settings = pydicom.config.settings
    monkeypatch.setattr(settings, "_writing_validation_mode", pydicom.config.IGNORE)


def _element(tag: int | str, vr: str, value: Any) -> DataElement:
    return DataElement(Tag(tag), vr, value, validation_mode=pydicom.config.IGNORE)


def _with_everything_planted(film: Dataset) -> Dataset:
    """Every element of the dictionary that holds text, private ones, sequences, broken values."""
    for number, (vr, _, _, retired, keyword) in DicomDictionary.items():
        is_data = 0x0008 <= number >> 16 < 0x5000
        if vr in OF_VR and is_data and keyword and not retired and keyword not in NEEDED:
            film.add(_element(number, vr, OF_VR[vr]))
    inner = Dataset()
    inner.PatientName = OF_VR["PN"]
    inner.add(_element(0x00100020, "LO", OF_VR["LO"]))
    film.RequestAttributesSequence = Sequence([inner])
    film.private_block(0x0011, NAME, create=True).add_new(1, "LO", OF_VR["LO"])
    film.add(_element("WindowCenter", "LO", NAME))
    film.add(_element("PixelSpacing", "LO", [NAME, NUMBER]))
    film.add(_element("EstimatedRadiographicMagnificationFactor", "LO", NAME))
    film.add(_element("LongitudinalTemporalOffsetFromEvent", "LO", NAME))
    return film


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good films and broken ones, planted in headers, chunks, names of files and of folders."""
    root = tmp_path_factory.mktemp("films")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pydicom.config.settings, "_writing_validation_mode", pydicom.config.IGNORE)
        values = phantoms.stored(nights.FILM)
        good = _with_everything_planted(
            phantoms.dataset(values, ImagerPixelSpacing=[1.0, 1.0], PatientID=f"{NAME}-{NUMBER}")
        )
        path = phantoms.write(good, root / NAME / "V00" / f"{NAME}_{BIRTH}.dcm")
        phantoms.write(good, root / f"{NAME} {TAKEN}" / f"{NUMBER}.{NAME}")
        (root / f"{NAME}_torn.dcm").write_bytes(path.read_bytes()[:-1000])
        (root / f"{NAME}_none.dcm").write_bytes(b"")
        (root / f"{NAME}_text.dcm").write_text(NAME)
        (root / f"{NAME}.txt").write_text(NAME)
        for keyword, value in (("Modality", "CT"), ("ViewPosition", "LL"), ("Rows", 60_000)):
            broken = _with_everything_planted(phantoms.dataset(values, PatientID=NAME))
            setattr(broken, keyword, value)
            phantoms.write(broken, root / f"{NAME}_{keyword}.dcm")
        broken = _with_everything_planted(phantoms.dataset(values, PatientID=NAME))
        broken.file_meta.TransferSyntaxUID = f"1.2.{NUMBER}"
        broken.save_as(
            root / f"{NAME}_syntax.dcm",
            implicit_vr=False,
            little_endian=True,
            enforce_file_format=True,
        )
    grey, text = Image.fromarray(np.rint(nights.FILM * 255).astype(np.uint8)), PngInfo()
    text.add_text("Comment", NAME)
    exif = Image.Exif()
    exif[0x010E] = f"{NAME} {BIRTH}"
    grey.save(root / f"{NAME}R.png", pnginfo=text, exif=exif)
    return root


@pytest.mark.parametrize("ids", ["a fresh key", "a key file"])
def test_no_output_no_message_and_no_file_name_tells_who_it_is(
    films: Path, tmp_path: Path, ids: str
) -> None:
    """Through workers, in a process of its own, with all that it says."""
    out, key = tmp_path / "out", tmp_path / "out.key"
    command = nights.command(films, out, "--jobs", "2")
    if ids == "a fresh key":
        at = command.index("--ids")
        del command[at : at + 2]
    else:
        key = tmp_path / "my.key"
        key.write_text("5a" * 32)
        command[command.index("keep")] = str(key)
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 4, ended.stderr
    knees = pd.read_parquet(out / "knees.parquet")
    assert len(knees) >= 4
    assert knees["subject_id"].nunique() <= 2
    assert set(knees["months"].dropna()) == {0}
    assert len(pd.read_csv(out / "rejects.csv")) >= 7
    said = (ended.stdout + ended.stderr).encode()
    for place, written in {**_all_that_is_written(out), "messages": said}.items():
        _assert_clean(place, written, PLANTED)
        assert key.read_text().strip().encode() not in written, place


def test_kept_identifiers_keep_the_rest_of_the_header_out(films: Path, tmp_path: Path) -> None:
    """With ``--ids keep`` a path and Patient ID are pseudonyms already, and no other element is."""
    film = phantoms.dataset(phantoms.stored(nights.FILM), ImagerPixelSpacing=[1.0, 1.0])
    phantoms.write(_with_everything_planted(film), tmp_path / "films" / "V00" / "9000017.dcm")
    again = _with_everything_planted(phantoms.dataset(phantoms.stored(nights.FILM), Modality="CT"))
    for each in (film, again):
        each.PatientID = "9000017"
    phantoms.write(film, tmp_path / "films" / "V00" / "9000017.dcm")
    phantoms.write(again, tmp_path / "films" / "V00" / "9000018.dcm")
    out = nights.run(tmp_path / "films", tmp_path / "out").out
    assert len(pd.read_parquet(out / "knees.parquet")) == 2
    for place, written in _all_that_is_written(out).items():
        _assert_clean(place, written, PLANTED)


@pytest.mark.parametrize("ids", ["keep", None])
def test_no_identifier_makes_a_file_where_it_should_not(tmp_path: Path, ids: str | None) -> None:
    subjects = [
        *("../../../escape", "..", "/etc/passwd", "C\\D", "CON", "con", "NUL.txt", "a" * 300),
        *(
            "a" * 299 + "b",
            "Żółć",
            "Żółc\u0301",
            "名前",
            "x\ny",
            "a b",
            "a_b",
            "A_b",
            "|;<>*?",
            ".",
        ),
    ]
    for index, subject in enumerate(subjects):
        film = phantoms.dataset(phantoms.stored(nights.FILM), ImagerPixelSpacing=[1.0, 1.0])
        film.SpecificCharacterSet = "ISO_IR 192"
        film.ClinicalTrialTimePointID = None
        film.add(_element("PatientID", "UT", subject))
        phantoms.write(film, tmp_path / "films" / f"{index:02d}.dcm")
    result = nights.run(tmp_path / "films", tmp_path / "place" / "out", ids=ids)
    knees = pd.read_parquet(result.out / "knees.parquet")
    assert len(knees) == 2 * len(subjects)
    names = [path.name for path in (result.out / "images").iterdir()]
    assert sorted(names) == sorted(Path(path).name for path in knees["image_path"])
    assert len({name.casefold() for name in names}) == len(names) == len(knees)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+\.png", name)
        assert len(name) <= 140
        assert not re.fullmatch(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name)
    written = {path.name for path in (tmp_path / "place").iterdir()}
    assert written == ({"out"} if ids else {"out", "out.key"})


def _all_that_is_written(out: Path) -> dict[str, bytes]:
    """Every file with its name; tables as text too, since Parquet compresses; images by chunk."""
    written: dict[str, bytes] = {}
    for place, content in nights.contents(out).items():
        written[place] = place.encode() + content
        if place.endswith(".parquet"):
            table = parquet.read_table(out / place)
            text = table.to_pandas().to_csv() + str(table.schema.metadata)
            written[f"{place} as text"] = text.encode()
        if place.endswith(".png"):
            assert set(_chunks(content)) == {b"IHDR", b"IDAT", b"IEND"}, place
    return written


def _chunks(png: bytes) -> Iterator[bytes]:
    at = 8
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        yield kind
        at += length + 12


def _assert_clean(place: str, written: bytes, planted: tuple[str, ...]) -> None:
    for text in planted:
        forms: list[Any] = [text.encode(), text.encode("utf-16-le"), text.encode().hex().encode()]
        assert not any(form in written for form in forms), f"{text} in {place}"
