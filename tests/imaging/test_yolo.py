"""The YOLO detector: trained offline and quietly, kept without pickle, abstaining by its score."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from kneeoa_mm.cli import app
from kneeoa_mm.errors import EXIT_MISSING, MissingExtraError, ModelFolderError
from kneeoa_mm.imaging import yolo
from kneeoa_mm.imaging.detectors import make_detector, resolve_detector
from kneeoa_mm.records import PixelSpacing
from kneeoa_mm.settings import PreprocessConfig

pytestmark = pytest.mark.yolo
ULTRALYTICS = pytest.mark.skipif(not yolo.is_installed(), reason="needs the extra yolo")

TRAIN_OFFLINE = """
import pathlib, socket, sys

def refuse(*arguments, **keywords):
    raise SystemExit(f"a host was looked up: {arguments}")

socket.getaddrinfo = socket.gethostbyname = socket.create_connection = refuse
from kneeoa_mm.cli import main
sys.argv = ["kneeoa-mm", *sys.argv[1:]]
main()
"""


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark films with one bright square each, boxed, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("films")
    rows = ["image,left_px,top_px,right_px,bottom_px"]
    rng = np.random.default_rng(0)
    for index in range(12):
        pixels = rng.integers(0, 40, (64, 80), dtype=np.uint8)
        left, top = (int(edge) for edge in rng.integers(4, 36, 2))
        pixels[top : top + 22, left : left + 22] = 220
        Image.fromarray(pixels).save(folder / f"{index}.png")
        rows.append(f"{index}.png,{left},{top},{left + 22},{top + 22}")
    (folder / "broken.png").write_bytes(b"\\x89PNG but no more")
    rows.append("broken.png,1,1,5,5")
    (folder / "boxes.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def trained(films: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str, str]:
    """A detector trained for one epoch in a process that may not look up a host."""
    home = tmp_path_factory.mktemp("home")
    out = home / "detector"
    arguments = ["train-detector", str(films), "--out", str(out), "--json"]
    sets = ["--set", "epochs=1", "--set", "image_size_px=64", "--set", "device=cpu"]
    done = subprocess.run(
        [sys.executable, "-c", TRAIN_OFFLINE, *arguments, *sets],
        cwd=home,
        env={
            "HOME": str(home),
            "MPLCONFIGDIR": str(tmp_path_factory.mktemp("matplotlib")),
            "OMP_NUM_THREADS": "1",
            "PATH": "",
            "PYTHONWARNINGS": "ignore",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    return out, home, done.stdout, done.stderr


@ULTRALYTICS
def test_training_looks_up_no_host_and_leaves_nothing_but_the_model(
    trained: tuple[Path, Path, str, str],
) -> None:
    out, home, stdout, _ = trained
    assert json.loads(stdout)["command"] == "train-detector"
    assert sorted(path.name for path in out.iterdir()) == [
        "config.yaml", "history.csv", "model.json", "rejects.csv", "weights.safetensors",
    ]  # fmt: skip
    assert [path.name for path in home.iterdir()] == ["detector"]


@ULTRALYTICS
def test_a_film_that_cannot_be_read_is_listed_and_the_training_goes_on(
    trained: tuple[Path, Path, str, str],
) -> None:
    """By its number: a model is given away, and a name may be a person's; the console tells it."""
    out, _, _, stderr = trained
    (reject,) = csv.DictReader((out / "rejects.csv").read_text().splitlines())
    assert "broken" not in str(reject)
    (told,) = [line for line in stderr.splitlines() if "broken.png" in line]
    assert reject["source"] in told
    assert reject["code"] in told


@ULTRALYTICS
def test_a_trained_detector_is_rebuilt_from_its_folder_and_answers_alike(
    trained: tuple[Path, Path, str, str],
) -> None:
    film = np.random.default_rng(1).random((60, 90)).astype(np.float32)
    settings = PreprocessConfig(detector=str(trained[0]), min_detector_score=0.0)
    first, second = (make_detector(settings).detect(film, None) for _ in range(2))
    assert first
    assert first == second
    assert make_detector(settings).detect(film * 700 + 30, None) == first


@ULTRALYTICS
def test_the_rest_of_the_process_is_left_as_it_was(trained: tuple[Path, Path, str, str]) -> None:
    """Ultralytics patches Pillow, so that a picture it does not know makes it fetch a decoder.

    It also sets how every array is printed.
    """
    make_detector(PreprocessConfig(detector=str(trained[0])))
    assert Image.open.__module__ == "PIL.Image"
    assert repr(np.array([0.5, 1.0])) == "array([0.5, 1. ])"


@ULTRALYTICS
def test_below_its_stated_confidence_it_abstains(trained: tuple[Path, Path, str, str]) -> None:
    film = np.random.default_rng(1).random((60, 90)).astype(np.float32)
    eager = yolo.YoloDetector(trained[0], 0.0)
    best = max(joint.score for joint in eager.detect(film, None))
    assert yolo.YoloDetector(trained[0], best + 0.01).detect(film, None) == []
    card = json.loads((trained[0] / "model.json").read_text())
    assert yolo.YoloDetector(trained[0]).min_score == card["min_score"]


@ULTRALYTICS
def test_a_damaged_or_foreign_folder_is_no_detector(
    trained: tuple[Path, Path, str, str], tmp_path: Path
) -> None:
    copy = tmp_path / "detector"
    copy.mkdir()
    weights = bytearray((trained[0] / "weights.safetensors").read_bytes())
    weights[-5] ^= 1
    (copy / "weights.safetensors").write_bytes(weights)
    card = (trained[0] / "model.json").read_text()
    (copy / "model.json").write_text(card)
    with pytest.raises(ModelFolderError, match="not those"):
        yolo.YoloDetector(copy)
    (copy / "model.json").write_text(card.replace("joint_detector", "kl"))
    with pytest.raises(ModelFolderError):
        yolo.YoloDetector(copy)


def test_without_the_extra_training_stops_and_preprocess_takes_the_profile(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yolo, "find_spec", lambda name: None)
    out = tmp_path / "detector"
    result = CliRunner().invoke(app, ["train-detector", str(films), "--out", str(out)])
    assert result.exit_code == EXIT_MISSING
    assert "kneeoa-mm[yolo]" in result.stderr
    assert not out.exists()
    assert resolve_detector(PreprocessConfig(detector="auto")).detector == "profile"
    with pytest.raises(MissingExtraError):
        make_detector(PreprocessConfig(detector="yolo"))


@pytest.mark.parametrize("spacing", [None, PixelSpacing(0.5, 0.5), PixelSpacing(1.0, 0.5)])
def test_the_network_sees_square_millimetres_and_the_way_back_is_told(
    spacing: PixelSpacing | None,
) -> None:
    film = np.random.default_rng(0).random((300, 400)).astype(np.float32)
    view, (rows_per_px, columns_per_px) = yolo.detector_view(film, spacing, 128)
    assert max(view.shape) == 128
    ratio = 1.0 if spacing is None else spacing.row_mm / spacing.column_mm
    assert view.shape[0] / view.shape[1] == pytest.approx(ratio * 300 / 400, rel=0.02)
    assert rows_per_px * view.shape[0] == pytest.approx(300)
    assert columns_per_px * view.shape[1] == pytest.approx(400)


def test_the_view_does_not_depend_on_the_scale_of_the_greys() -> None:
    film = np.random.default_rng(0).random((90, 60)).astype(np.float32)
    view, _ = yolo.detector_view(film, None, 64)
    brighter, _ = yolo.detector_view(film * 5000 + 100, None, 64)
    assert np.abs(view.astype(int) - brighter).max() <= 1
    flat, _ = yolo.detector_view(np.full((90, 60), 3.0, dtype=np.float32), None, 64)
    assert flat.max() == 0
