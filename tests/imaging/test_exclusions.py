"""What a reviewer takes out leaves the tables, with its reason, and can come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nights
import pandas as pd
import pytest

from kneeoa_mm.errors import InputError
from kneeoa_mm.imaging import engine
from kneeoa_mm.imaging.exclusions import read_exclusions

KNEE, OTHER = "synthetic:9000018:0:R", "synthetic:9000017:48:L:2"


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nights.write_studies(tmp_path_factory.mktemp("studies"), people=3)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "review.csv"
    path.write_text(f"knee_id,reason\n{OTHER},\n{KNEE},a staple\n")
    return path


def _tables(out: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    return pd.read_parquet(out / "knees.parquet"), pd.read_csv(out / "rejects.csv")


def test_excluded_knees_stand_in_the_rejects_and_in_no_other_table(
    studies: Path, tmp_path: Path, listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of the others stay, no film is read again, and the images are still there."""
    out = tmp_path / "out"
    before, failed = pd.read_parquet(nights.run(studies, out).outputs["knees"]), 3
    images = {path.name for path in (out / "images").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(engine, "work", lambda task: pytest.fail("a film was read"))
        result = nights.run(studies, out, resume=True, exclude=listed)
    knees, rejects = _tables(out)
    kept = before[~before["knee_id"].isin([KNEE, OTHER])].reset_index(drop=True)
    pd.testing.assert_frame_equal(knees, kept)
    taken = rejects[rejects["code"] == "E_EXCLUDED"]
    assert taken["message"].tolist() == [f"{KNEE}: a staple", f"{OTHER}: taken out after review"]
    assert taken["source"].tolist() == ["V00/9000018.dcm", "V06/again.dcm"]
    assert set(taken["stage"]) == {"review"}
    assert (result.counts["excluded"], result.counts["rejects"], result.failed) == (2, 3, failed)
    assert {path.name for path in (out / "images").iterdir()} == images


def test_an_exclusion_is_the_same_early_or_late_and_outlives_a_resume(
    studies: Path, tmp_path: Path, listed: Path
) -> None:
    whole, early, late = (tmp_path / name for name in ("whole", "early", "late"))
    nights.run(studies, whole)
    nights.run(studies, early, exclude=listed)
    nights.run(studies, late)
    nights.run(studies, late, resume=True, exclude=listed)
    assert nights.contents(early) == nights.contents(late)
    nights.run(studies, late, resume=True)
    assert nights.contents(early) == nights.contents(late)
    listed.write_text("knee_id,reason\n")
    nights.run(studies, late, resume=True, exclude=listed)
    assert nights.contents(late) == nights.contents(whole)


def test_an_exclusion_outlives_an_interruption(
    studies: Path, tmp_path: Path, listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    nights.run(studies, tmp_path / "whole", exclude=listed)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "work", interrupted)
        with pytest.raises(KeyboardInterrupt):
            nights.run(studies, tmp_path / "out", exclude=listed)
    nights.run(studies, tmp_path / "out", resume=True)
    assert nights.contents(tmp_path / "out") == nights.contents(tmp_path / "whole")


def test_unknown_knees_are_listed_and_change_nothing(studies: Path, tmp_path: Path) -> None:
    out, listed = tmp_path / "out", tmp_path / "review.csv"
    nights.run(studies, out)
    before = nights.contents(out)
    unknown = [f"synthetic:{number}:0:R" for number in range(7)]
    listed.write_text("\n".join(["knee_id", KNEE, *unknown]))
    with pytest.raises(InputError, match="7 others: synthetic:0:0:R, ") as refused:
        nights.run(studies, out, resume=True, exclude=listed)
    assert "…" in str(refused.value)
    assert nights.contents(out) == before


@pytest.mark.parametrize(
    "text",
    [
        "knee_id,reason\na:1:0:R,wrong side\n",
        "\ufeffknee_id;reason\r\na:1:0:R;wrong  side\r\n\r\n",
        'reason,knee_id\n"wrong\nside", a:1:0:R \n',
        "n,knee_id,reason,by\n1,a:1:0:R,wrong side,me\n2,,,\n",
    ],
)
def test_lists_as_browsers_and_spreadsheets_write_them_are_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(text.encode())
    assert read_exclusions(path).reasons == {"a:1:0:R": "wrong side"}


@pytest.mark.parametrize("content", [None, b"", b"id\na:1:0:R\n", b"knee_id\n\xe9\n"])
def test_a_list_that_is_none_is_refused_before_the_work(
    studies: Path, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "list.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="list of exclusions"):
        nights.run(studies, tmp_path / "out", exclude=path)
    assert not (tmp_path / "out").exists()
