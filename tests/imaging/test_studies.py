"""Which files are films: found whatever their name, and nothing that is not theirs to find."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nights
import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from kneeoa_mm.errors import InputError
from kneeoa_mm.imaging.studies import find_films, holds_dicom

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")


def _picture(path: Path, kind: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(path, kind)
    return path


def test_films_are_dicom_or_pictures_by_content_or_by_suffix(tmp_path: Path) -> None:
    """A suffix is a claim: a broken file that makes it is rejected by name and not passed over."""
    nights.write_film(tmp_path / "a" / "000001")
    nights.write_film(tmp_path / "a" / "scan.dcm.bak")
    for name, kind in [("b.png", None), ("c.JPG", None), ("d.tiff", None), ("e", "PNG")]:
        _picture(tmp_path / name, kind)
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "BMI.txt").write_text("BMI,1")
    (tmp_path / "notes").write_text("no film")
    (tmp_path / ".hidden.dcm").touch()
    nights.write_film(tmp_path / "DICOMDIR")
    found = find_films(tmp_path)
    assert found.sources == (
        *("a/000001", "a/scan.dcm.bak", "b.png", "c.JPG", "d.tiff", "e"),
        *("empty.dcm", "text.png"),
    )
    assert found.sizes == tuple((tmp_path / source).stat().st_size for source in found.sources)
    assert (found.others, found.links) == (4, 0)


def test_outputs_of_this_and_of_other_runs_are_no_films(tmp_path: Path) -> None:
    """Else a resumed run would cut knees from its own knees."""
    nights.write_film(tmp_path / "V00" / "9000017.dcm", ClinicalTrialTimePointID="V00")
    first = nights.run(tmp_path, tmp_path / "knees")
    assert first.counts["films"] == 1
    second = nights.run(tmp_path, tmp_path / "V00" / "others")
    assert second.counts["films"] == 1
    before = nights.contents(first.out)
    nights.run(tmp_path, first.out, resume=True)
    assert nights.contents(first.out) == before
    # where the output itself is what the user names, it is a folder of pictures like any other
    assert find_films(first.out / "images").others == 0


@needs_links
def test_links_lead_neither_in_circles_nor_out_of_the_folder(tmp_path: Path) -> None:
    films, private = tmp_path / "films", tmp_path / "private"
    film = nights.write_film(films / "V00" / "9000017.dcm")
    secret = nights.write_film(private / "9000018.dcm")
    (films / "loop").symlink_to(films, target_is_directory=True)
    (films / "others").symlink_to(private, target_is_directory=True)
    (films / "out.dcm").symlink_to(secret)
    (films / "nowhere.dcm").symlink_to(films / "absent")
    (films / "circle.dcm").symlink_to(films / "circle.dcm")
    (films / "twin.dcm").symlink_to(film)
    found = find_films(films)
    assert found.sources == ("V00/9000017.dcm",)
    assert found.links == 5
    result = nights.run(films, tmp_path / "out")
    assert any(note.startswith("5 links") for note in result.notes)


@needs_links
def test_a_folder_of_git_annex_is_read_through_its_links(tmp_path: Path) -> None:
    """Its films are links to files of a hidden folder of the same root."""
    root = tmp_path / "real"
    target = nights.write_film(root / ".git" / "annex" / "objects" / "a1" / "SHA256-s1--ab.dcm")
    link = root / "V00" / "9000017.dcm"
    link.parent.mkdir()
    link.symlink_to(os.path.relpath(target, link.parent))
    (tmp_path / "studies").symlink_to(root, target_is_directory=True)
    found = find_films(tmp_path / "studies")
    assert (found.sources, found.links) == (("V00/9000017.dcm",), 0)
    assert found.sizes == (target.stat().st_size,)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    nights.write_film(tmp_path / "9000017.dcm")
    os.mkfifo(tmp_path / "pipe.dcm")
    assert find_films(tmp_path).others == 1


def test_a_folder_that_cannot_be_listed_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silently left out, its people would be missing from the cohort. Its name is not shown."""
    nights.write_film(tmp_path / "9000017.dcm")
    walk = os.walk

    def partial(root: Path, onerror: Callable[[OSError], Any]) -> Any:
        onerror(PermissionError(13, "Permission denied", str(root / "Zelenka")))
        return walk(root)

    monkeypatch.setattr(os, "walk", partial)
    with pytest.raises(InputError, match="Permission denied") as refused:
        find_films(tmp_path)
    assert "Zelenka" not in str(refused.value)


def test_a_folder_whose_files_cannot_be_looked_at_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lists their names, and to ask for anything else fails."""
    nights.write_film(tmp_path / "9000017.dcm")
    nights.write_film(tmp_path / "Zelenka" / "9000018.dcm")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "Zelenka")
    with pytest.raises(InputError, match=r"1 folders \(Permission denied") as refused:
        find_films(tmp_path)
    assert "Zelenka" not in str(refused.value)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_file_that_cannot_be_opened_is_rejected_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Without a suffix nobody knows that it is a film; passed over, its person would be lost."""
    films = tmp_path / "films"
    nights.write_film(films / "9000017.dcm")
    closed = nights.write_film(films / "V00" / "000001")
    opened = Path.open

    def refuse(path: Path, *arguments: Any, **named: Any) -> Any:
        if path.name == closed.name:
            raise OSError(number, os.strerror(number))
        return opened(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", refuse)
    assert holds_dicom(closed.parent)
    result = nights.run(films, tmp_path / "out")
    (reject,) = pd.read_csv(result.out / "rejects.csv", dtype=str).to_dict("records")
    assert (reject["source"], reject["code"]) == ("V00/000001", "E_READ")
    assert errno.errorcode[number] in reject["message"]
    assert result.failed == 1


@pytest.mark.parametrize("name", ["000001", "1.2.840.113.5.2"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_film_that_lost_its_preamble_is_rejected_by_name(
    tmp_path: Path, name: str, syntax: UID
) -> None:
    nights.write_film(tmp_path / "films" / "9000017.dcm")
    whole = pydicom.dcmread(tmp_path / "films" / "9000017.dcm")
    del whole.file_meta
    whole.preamble = None
    whole.save_as(tmp_path / "films" / name, enforce_file_format=False, **_encoding(syntax))
    (tmp_path / "films" / "notes").write_bytes(b"\x08\x00 no film, by chance")
    result = nights.run(tmp_path / "films", tmp_path / "out")
    assert result.figures["rejects"] == {"E_NO_META": 1}
    assert result.counts["not_dicom"] == 1


def _encoding(syntax: UID) -> dict[str, bool]:
    return {"implicit_vr": syntax.is_implicit_VR, "little_endian": syntax.is_little_endian}


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names of any bytes")
@pytest.mark.parametrize("ids", ["keep", None])
def test_a_name_that_is_no_text_does_not_stop_the_run(tmp_path: Path, ids: str | None) -> None:
    film = nights.write_film(tmp_path / "films" / "V00" / "a.dcm", ClinicalTrialTimePointID="V00")
    film.rename(film.with_name(os.fsdecode(b"M\xfcller.dcm")))
    result = nights.run(tmp_path / "films", tmp_path / "out", ids=ids)
    assert (result.counts["knees"], result.failed) == (2, 0)
