"""What a detector learns from: films that are no good cost themselves, and none becomes another."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kneeoa_mm.errors import InputError
from kneeoa_mm.imaging import train_detector as stage
from kneeoa_mm.imaging import yolo
from kneeoa_mm.records import StageResult
from kneeoa_mm.settings import PreprocessConfig, TrainDetectorConfig

CONFIG = TrainDetectorConfig(image_size_px=64)
READ = stage._seen


@pytest.fixture
def learnt(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Labels of the films that the network is shown, by their names; none is trained."""
    shown: dict[str, str] = {}

    def train(dataset: Path, *_: Any) -> tuple[bytes, dict[str, float]]:
        for path in sorted((dataset.parent / "images").rglob("*.png")):
            name = path.relative_to(dataset.parent / "images").with_suffix("").as_posix()
            shown[name] = (dataset.parent / "labels" / f"{name}.txt").read_text()
        return b"weights", {"map50": 1.0}

    monkeypatch.setattr(yolo, "require", lambda: None)
    monkeypatch.setattr(yolo, "train", train)
    return shown


def _film(path: Path, label: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    greys = np.random.default_rng(0).integers(0, 255, (64, 80), dtype=np.uint8)
    Image.fromarray(greys).save(path)
    if label is not None:
        path.with_suffix(".txt").write_text(label)
    return path


def _train(tmp_path: Path) -> StageResult:
    return stage.train_detector(
        [tmp_path / "films"], tmp_path / "out", config=CONFIG, val=[tmp_path / "val"]
    )


def _rejects(tmp_path: Path) -> dict[str, str]:
    rows = csv.DictReader((tmp_path / "out" / "rejects.csv").read_text().splitlines())
    return {row["source"]: row["code"] for row in rows}


def test_pixels_in_the_place_of_fractions_stop_the_run_before_it_begins(
    tmp_path: Path, learnt: dict[str, str]
) -> None:
    """They were cut to nothing without a word, and the knee was learnt as none."""
    _film(tmp_path / "val" / "film.png", "0 0.5 0.5 0.2 0.4\n")
    _film(tmp_path / "films" / "film.png", "0 0.5 0.5 0.2 0.4\n0 120 150 60 60\n")
    with pytest.raises(InputError, match=r"film\.txt:2"):
        _train(tmp_path)
    assert not learnt
    assert not (tmp_path / "out").exists()


def test_a_film_whose_box_lies_beside_it_is_listed_and_not_learnt(
    tmp_path: Path, learnt: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    _film(tmp_path / "val" / "film.png", "0 0.5 0.5 0.2 0.4\n")
    for name in ("good", "resized", "empty"):
        _film(tmp_path / "films" / f"{name}.png")
    rows = ["image,left_px,top_px,right_px,bottom_px", "good.png,20,16,60,48"]
    rows += ["resized.png,120,130,180,190", "empty.png,,,,"]
    (tmp_path / "films" / "boxes.csv").write_text("\n".join(rows) + "\n")
    result = _train(tmp_path)
    assert learnt == {
        "train/000000": "0 0.500000 0.500000 0.500000 0.500000\n",
        "train/000002": "",
        "val/000000": "0 0.500000 0.500000 0.200000 0.400000\n",
    }
    assert _rejects(tmp_path) == {"train/000001": "E_BOX"}
    assert "resized.png (train/000001): E_BOX" in capsys.readouterr().err
    assert (result.failed, result.counts) == (1, {"train": 2, "val": 1})
    card = json.loads((tmp_path / "out" / "model.json").read_text())
    assert card["trained_on"] == "2 films with 1 joints"


def test_where_no_film_with_a_joint_can_be_used_nothing_is_trained(
    tmp_path: Path, learnt: dict[str, str]
) -> None:
    _film(tmp_path / "films" / "film.png", "0 0.5 0.5 0.2 0.4\n")
    _film(tmp_path / "val" / "empty.png")
    _film(tmp_path / "val" / "torn.png", "0 0.5 0.5 0.2 0.4\n").write_bytes(b"\x89PNG but no more")
    with pytest.raises(InputError, match="no joint to learn from in the val part"):
        _train(tmp_path)
    assert not learnt
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_film_that_hangs_or_aborts_its_decoder_costs_itself_by_name(
    tmp_path: Path,
    learnt: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A pipe hangs whoever opens it; both ended the command when it decoded by itself."""
    _film(tmp_path / "val" / "film.png", "0 0.5 0.5 0.2 0.4\n")
    for name in ("aborts", "good"):
        _film(tmp_path / "films" / f"{name}.png", "0 0.5 0.5 0.2 0.4\n")
    os.mkfifo(tmp_path / "films" / "hangs.png")
    monkeypatch.setattr(stage, "_LIMITS", PreprocessConfig(film_timeout_s=2))
    monkeypatch.setattr(stage, "_seen", _aborting)
    _train(tmp_path)
    assert set(learnt) == {"train/000001", "val/000000"}
    assert _rejects(tmp_path) == {"train/000000": "E_CRASH", "train/000002": "E_TIMEOUT"}
    told = capsys.readouterr().err
    assert "aborts.png" in told
    assert "hangs.png" in told


def _aborting(path: Path, **options: Any) -> Any:
    if path.name == "aborts.png":
        os.abort()
    return READ(path, **options)
