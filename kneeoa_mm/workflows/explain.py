"""Explain a model's output, drawn on the films that the knees were cut from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kneeoa_mm.analysis import looks
from kneeoa_mm.analysis.results import sha256_of
from kneeoa_mm.config import load_config
from kneeoa_mm.errors import InputError, ItemError
from kneeoa_mm.imaging.greys import read_greys_apart
from kneeoa_mm.imaging.journal import is_output
from kneeoa_mm.learning.saliency import explain as stage
from kneeoa_mm.records import StageResult
from kneeoa_mm.run_folder import CONFIG_FILE
from kneeoa_mm.schemas import PREDICTIONS_FILE
from kneeoa_mm.settings import PreprocessConfig


def explain(
    data: Path, model: Path, out: Path, *, films: Path | None = None, **options: Any
) -> StageResult:
    """Explain a model; see :func:`kneeoa_mm.learning.saliency.explain.explain`.

    Args:
        data: Folder of PNGs, table of knees, or output folder of ``preprocess``, whose settings
            decide which films are refused.
        model: Run or model folder.
        out: Folder to write into.
        films: The folder that ``preprocess`` was given; without, maps are drawn on knee images.
        **options: As in ``learning.saliency.explain.explain``.

    Raises:
        InputError: There is no such folder.
    """
    if films is None:
        return _logged(stage.explain(data, model, out, **options), model, out)
    if not films.is_dir():
        raise InputError("The folder of films is not there.", where=films)
    settings = _settings_of(data)

    def read_film(source: str) -> NDArray[np.float32]:
        path = films / source
        # a table names the film: never read one from outside the folder
        if not path.resolve().is_relative_to(films.resolve()):
            raise ItemError("E_READ", "the film lies outside the folder", stage="read")
        return read_greys_apart(path, settings)

    return _logged(stage.explain(data, model, out, read_film=read_film, **options), model, out)


def _logged(result: StageResult, model: Path, out: Path) -> StageResult:
    """Log, beside the model, that maps of held-out knees were looked at."""
    maps = out / "saliency.csv"
    if not maps.is_file():
        return result
    look = looks.log_look(
        looks.log_beside(model / PREDICTIONS_FILE),
        command="explain",
        run=model.resolve().name,
        predictions_sha256=sha256_of(maps),
        knees=looks.held_out_knees(pd.read_csv(maps, dtype=str).drop_duplicates("knee_id")),
        metrics=("maps",),
    )
    return replace(result, notes=(*result.notes, *looks.notes_of(look)))


def _settings_of(data: Path) -> PreprocessConfig:
    """The settings that the knees were cut with; the defaults where ``preprocess`` did not."""
    folder = data if data.is_dir() else data.parent
    recipe = folder / CONFIG_FILE if is_output(folder) else None
    return load_config(PreprocessConfig, recipe=recipe)
