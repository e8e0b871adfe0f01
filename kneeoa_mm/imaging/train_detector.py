"""The stage ``train-detector``: films with boxed joints to a detector's model folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import yaml
from PIL import Image

from kneeoa_mm.errors import InputError, ItemError
from kneeoa_mm.imaging import yolo
from kneeoa_mm.imaging.boxes import JointBox, LabelledFilm, read_labelled_films
from kneeoa_mm.imaging.dicom import read_film
from kneeoa_mm.imaging.pictures import is_picture, read_picture
from kneeoa_mm.model_folder import DetectorCard, write_model
from kneeoa_mm.progress import say, track
from kneeoa_mm.records import Reject, StageResult
from kneeoa_mm.run_folder import open_run
from kneeoa_mm.schemas import REJECTS
from kneeoa_mm.settings import TrainDetectorConfig
from kneeoa_mm.tables import write_table

LICENCE = "AGPL-3.0-only"
"""Of whatever ultralytics trained, as its makers read their licence."""

_VAL_EVERY = 10
_MOST_PIXELS = 100_000_000


def train_detector(
    sources: Sequence[Path],
    out: Path,
    *,
    config: TrainDetectorConfig,
    val: Sequence[Path] = (),
    trained_on: str = "",
    overwrite: bool = False,
) -> StageResult:
    """Train a YOLO network to find knee joints.

    Every film is shown to the network as ``preprocess`` will show it. Writes
    ``weights.safetensors``, ``model.json``, ``history.csv`` and ``rejects.csv`` into ``out``.

    Args:
        sources: Films to learn from, as :func:`~kneeoa_mm.imaging.boxes.read_labelled_films` takes
            them. Their boxes should be squares as wide as the tibial plateau.
        out: The model folder.
        config: Size of the network, epochs, rates.
        val: Films to choose the epoch on; without them, every tenth film of ``sources``. Films of
            one person should not stand on both sides.
        trained_on: What the films are, in words, for the model card.
        overwrite: Replace an earlier run.

    Raises:
        InputError: There are no films or joints, or a box is impossible.
        MissingExtraError: Ultralytics is not installed.
    """
    films = [film for source in sources for film in read_labelled_films(source)]
    if val:
        parts = {"train": films, "val": [f for source in val for f in read_labelled_films(source)]}
    else:
        parts = {
            "train": [film for index, film in enumerate(films) if index % _VAL_EVERY],
            "val": films[::_VAL_EVERY],
        }
    for part, members in parts.items():
        _refuse_without_joints(members, part)
    yolo.require()
    history: list[dict[str, float]] = []

    def report(epoch: int, map50: float) -> None:
        history.append({"epoch": epoch, "map50": map50})
        say(f"train-detector: epoch {epoch}/{config.epochs}, mAP50 {map50:.3f}")

    with (
        open_run(out, config_yaml=config.to_yaml(), overwrite=overwrite),
        tempfile.TemporaryDirectory(prefix="kneeoa-mm-") as scratch,
    ):
        rejects = _write_dataset(parts, Path(scratch), config.image_size_px)
        weights, metrics = yolo.train(Path(scratch) / "data.yaml", config, Path(scratch), report)
        card = DetectorCard(
            architecture=yolo.architecture(config),
            image_size_px=config.image_size_px,
            min_score=config.min_score,
            trained_on=trained_on or _counted(parts["train"]),
            metrics=metrics,
            config_digest=config.digest(),
            licence=LICENCE,
        )
        write_model(out, card, weights)
        pd.DataFrame(history).to_csv(out / "history.csv", index=False, lineterminator="\n")
        table = pd.DataFrame(
            [asdict(reject) for reject in rejects], columns=list(REJECTS.rules.columns)
        )
        write_table(table, REJECTS, out / "rejects.csv")
    return StageResult(
        "train-detector",
        out,
        {"model": out, "history": out / "history.csv", "rejects": out / "rejects.csv"},
        counts={part: len(members) for part, members in parts.items()},
        failed=len(rejects),
        figures=metrics,
        notes=(f"the weights are under {LICENCE}, as ultralytics asks",),
        next_step=f"kneeoa-mm preprocess STUDIES --out KNEES --set detector={out}",
    )


def _refuse_without_joints(films: Sequence[LabelledFilm], part: str) -> None:
    if not any(film.boxes for film in films):
        raise InputError(
            f"There is no joint to learn from in the {part} part.",
            expected="films with boxes",
            found=f"{len(films)} films, none with a box",
        )


def _counted(films: Sequence[LabelledFilm]) -> str:
    joints = sum(len(film.boxes) for film in films)
    return f"{len(films)} films with {joints} joints"


def _write_dataset(
    parts: dict[str, list[LabelledFilm]], folder: Path, long_side_px: int
) -> list[Reject]:
    """Lay out a YOLO data set; films that cannot be read are left out and returned.

    A model folder is given away, and the name of a film may be that of a person: rejects carry the
    film's number within its part, and the name is said on the console alone.
    """
    rejects = []
    films = [(part, index, film) for part in parts for index, film in enumerate(parts[part])]
    for part, index, film in track(films, total=len(films), label="read films"):
        image = folder / "images" / part / f"{index:06d}.png"
        try:
            read = read_picture if is_picture(film.path) else read_film
            radiograph = read(film.path, max_pixels=_MOST_PIXELS)
        except ItemError as error:
            number = f"{part}/{index:06d}"
            say(f"not used: {film.path} ({number}): {error.code} {error.message}")
            rejects.append(Reject(number, error.stage, error.code, error.message))
            continue
        view, _ = yolo.detector_view(radiograph.pixels, radiograph.spacing, long_side_px)
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(view).save(image)
        labels = folder / "labels" / part / f"{index:06d}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        lines = _lines(film.boxes_on(*radiograph.pixels.shape))
        labels.write_text("".join(lines), encoding="utf-8")
    tree = {
        "path": str(folder.resolve()),
        "train": "images/train",
        "val": "images/val",
        "names": {0: "knee_joint"},
        "channels": 1,
    }
    (folder / "data.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return rejects


def _lines(boxes: Sequence[JointBox]) -> Iterator[str]:
    for box in boxes:
        # a box that reaches beyond the film ends at its edge, as the network can only see that far
        low = max(0.0, box.x - box.width / 2), max(0.0, box.y - box.height / 2)
        high = min(1.0, box.x + box.width / 2), min(1.0, box.y + box.height / 2)
        sides = high[0] - low[0], high[1] - low[1]
        if min(sides) > 0:
            middle = low[0] + sides[0] / 2, low[1] + sides[1] / 2
            yield " ".join(["0", *(f"{part:.6f}" for part in (*middle, *sides))]) + "\n"
