"""The stage ``train-detector``: films with boxed joints to a detector's model folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from PIL import Image

from kneeoa_mm.errors import InputError, ItemError
from kneeoa_mm.imaging import yolo
from kneeoa_mm.imaging.apart import read_apart
from kneeoa_mm.imaging.boxes import JointBox, LabelledFilm, read_labelled_films
from kneeoa_mm.imaging.dicom import read_film
from kneeoa_mm.imaging.pictures import is_picture, read_picture
from kneeoa_mm.model_folder import DetectorCard, write_model
from kneeoa_mm.progress import say, track
from kneeoa_mm.records import Reject, StageResult
from kneeoa_mm.run_folder import open_run, refuse_taken
from kneeoa_mm.schemas import REJECTS
from kneeoa_mm.settings import PreprocessConfig, TrainDetectorConfig
from kneeoa_mm.tables import write_table

LICENCE = "AGPL-3.0-only"
"""Of whatever ultralytics trained, as its makers read their licence."""

_VAL_EVERY = 10
_LIMITS = PreprocessConfig()
"""What a film may take here is what it may take in ``preprocess``."""


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
        InputError: There are no films, a box is impossible, or no film with a joint can be used.
        OutputExistsError: ``out`` holds something else.
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
    _refuse_without_joints(parts)
    yolo.require()
    refuse_taken(out, overwrite=overwrite)
    history: list[dict[str, float]] = []

    def report(epoch: int, map50: float) -> None:
        history.append({"epoch": epoch, "map50": map50})
        say(f"train-detector: epoch {epoch}/{config.epochs}, mAP50 {map50:.3f}")

    with tempfile.TemporaryDirectory(prefix="kneeoa-mm-") as scratch:
        parts, rejects = _write_dataset(parts, Path(scratch), config.image_size_px)
        _refuse_without_joints(parts)
        with open_run(out, config_yaml=config.to_yaml(), overwrite=overwrite):
            weights, metrics = yolo.train(
                Path(scratch) / "data.yaml", config, Path(scratch), report
            )
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


def _refuse_without_joints(parts: Mapping[str, Sequence[LabelledFilm]]) -> None:
    for part, films in parts.items():
        if not any(film.boxes for film in films):
            raise InputError(
                f"There is no joint to learn from in the {part} part.",
                expected="films with boxes",
                found=f"{len(films)} films that can be used, none with a box",
            )


def _counted(films: Sequence[LabelledFilm]) -> str:
    joints = sum(len(film.boxes) for film in films)
    return f"{len(films)} films with {joints} joints"


def _write_dataset(
    parts: Mapping[str, Sequence[LabelledFilm]], folder: Path, long_side_px: int
) -> tuple[dict[str, list[LabelledFilm]], list[Reject]]:
    """Lay out a YOLO data set; films that cannot be read, or whose boxes miss them, are left out.

    A model folder is given away, and the name of a film may be that of a person: rejects carry the
    film's number within its part, and the name is said on the console alone.

    Returns:
        The films of each part that are in the data set, and the rejects.
    """
    used: dict[str, list[LabelledFilm]] = {part: [] for part in parts}
    rejects = []
    films = [(part, index, film) for part in parts for index, film in enumerate(parts[part])]
    see = partial(_seen, long_side_px=long_side_px)
    with closing(read_apart(see, [film.path for *_, film in films], _LIMITS)) as views:
        labelled = zip(films, views, strict=True)
        for (part, index, film), seen in track(labelled, total=len(films), label="read films"):
            try:
                if isinstance(seen, ItemError):
                    raise seen
                view, (rows, columns) = seen
                boxes = film.boxes_on(rows, columns)
            except ItemError as error:
                number = f"{part}/{index:06d}"
                say(f"not used: {film.path} ({number}): {error.code} {error.message}")
                rejects.append(Reject(number, error.stage, error.code, error.message))
                continue
            used[part].append(film)
            _write_film(view, boxes, folder, f"{part}/{index:06d}")
    tree = {
        "path": str(folder.resolve()),
        "train": "images/train",
        "val": "images/val",
        "names": {0: "knee_joint"},
        "channels": 1,
    }
    (folder / "data.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return used, rejects


def _seen(path: Path, *, long_side_px: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """A film as the network sees it, and its own rows and columns."""
    read = read_picture if is_picture(path) else read_film
    radiograph = read(path, max_pixels=_LIMITS.max_pixels)
    view, _ = yolo.detector_view(radiograph.pixels, radiograph.spacing, long_side_px)
    return view, radiograph.pixels.shape


def _write_film(
    view: NDArray[np.uint8], boxes: Sequence[JointBox], folder: Path, name: str
) -> None:
    image = folder / "images" / f"{name}.png"
    labels = folder / "labels" / f"{name}.txt"
    for path in (image, labels):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(view).save(image)
    labels.write_text("".join(_lines(boxes)), encoding="utf-8")


def _lines(boxes: Sequence[JointBox]) -> Iterator[str]:
    for box in boxes:
        # a box that reaches beyond the film ends at its edge, as the network can only see that far
        low = max(0.0, box.x - box.width / 2), max(0.0, box.y - box.height / 2)
        high = min(1.0, box.x + box.width / 2), min(1.0, box.y + box.height / 2)
        sides = high[0] - low[0], high[1] - low[1]
        middle = low[0] + sides[0] / 2, low[1] + sides[1] / 2
        yield " ".join(["0", *(f"{part:.6f}" for part in (*middle, *sides))]) + "\n"
