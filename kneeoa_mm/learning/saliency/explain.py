"""Where a model looks: maps of single knees, their mean, and whether they can be believed.

A map says which pixels moved the output of this network, not where disease is.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from kneeoa_mm.errors import InputError
from kneeoa_mm.learning.clinical_table import read_clinical, untold
from kneeoa_mm.learning.inference import choose_device
from kneeoa_mm.learning.models import load_ensemble
from kneeoa_mm.learning.saliency.answers import PROGRESSION, choose_answer
from kneeoa_mm.learning.saliency.choice import BY_ERROR, EVEN_SPREAD, choose_knees
from kneeoa_mm.learning.saliency.explained_knee import ExplainedKnee, explain_knee
from kneeoa_mm.learning.saliency.joint_spaces import JointSpaces, read_joint_spaces
from kneeoa_mm.learning.saliency.mean_maps import MeanMaps, groups_of, risk_groups
from kneeoa_mm.learning.saliency.question import Method
from kneeoa_mm.learning.saliency.run import ReadFilm, SaliencyRun
from kneeoa_mm.learning.saliency.sample import MOST_OTHERS, Sample, spread
from kneeoa_mm.learning.sources import read_knees
from kneeoa_mm.progress import track
from kneeoa_mm.records import StageResult
from kneeoa_mm.run_folder import open_run, refuse_taken
from kneeoa_mm.settings import ExplainConfig


def explain(
    data: Path,
    model: Path,
    out: Path,
    *,
    config: ExplainConfig | None = None,
    clinical: Path | None = None,
    joint_spaces: Path | None = None,
    read_film: ReadFilm | None = None,
    limit: int = 16,
    by_error: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> StageResult:
    """Draw what moved a model's output for some knees, and check whether that can be believed.

    Args:
        data: Folder of PNGs, table of knees, or output folder of ``preprocess``.
        model: Run or model folder; of a run, each knee is explained by the members that were not
            trained on its person.
        out: Folder to write into.
        config: The answer, the methods and the checks.
        clinical: Output folder of ``cohort``, or a table by ``knee_id``, for a fused model.
        joint_spaces: Outlines; see ``joint_spaces.read_joint_spaces``.
        read_film: Gives films to draw on; without, maps are drawn on the knee images.
        limit: At most so many knees, evenly spread over the input.
        by_error: Predictions with the truth; then the knees are those answered worst and best.
        device: ``auto``, ``cpu`` or ``cuda``.
        overwrite: Replace earlier output.

    Raises:
        InputError: There are no knees, none of their images can be read, or ``clinical`` has none
            of them, or ``by_error`` tells the error of none.
        ConfigError: The model does not give the answer that is asked for, or has no feature map.
        ModelFolderError: There is no usable model.
    """
    if limit < 1:
        raise InputError("There must be at least one knee to explain.", found=f"--limit {limit}")
    config = config or ExplainConfig()
    spaces = JointSpaces() if joint_spaces is None else read_joint_spaces(joint_spaces)
    refuse_taken(out, overwrite=overwrite)
    sample = _sample(data, model, config, clinical, limit, by_error, device)
    asked = sample.knees["knee_id"].iloc[: sample.n_explained]
    notes = untold(sample.ensemble.factors, sample.clinical, asked)
    _refuse_hopeless(sample, config, data)
    is_readable = sample.store.readable[: sample.n_explained]
    means = MeanMaps(Counter(sample.persons[: sample.n_explained][is_readable].tolist()))
    n_readable = int(is_readable.sum())
    chosen = EVEN_SPREAD if by_error is None else BY_ERROR
    run = SaliencyRun(out, config, spaces, read_film, means, n_readable, chosen)
    with open_run(out, config_yaml=config.to_yaml(), overwrite=overwrite):
        for index in track(range(sample.n_explained), total=sample.n_explained, label="explain"):
            found = explain_knee(sample, index, config)
            if found is not None:
                run.add(found, _groups(found, sample))
        outputs = run.finish()
    return StageResult(
        command="explain",
        out=out,
        outputs=outputs,
        counts={"knees": n_readable, "maps": len(run.maps)},
        failed=len(sample.store.rejects),
        figures=run.figures(),
        notes=(*notes, *run.notes()),
        next_step=f"kneeoa-mm report {out} --out report.html",
    )


def _sample(
    data: Path,
    model: Path,
    config: ExplainConfig,
    clinical: Path | None,
    limit: int,
    by_error: Path | None,
    device: str,
) -> Sample:
    ensemble = load_ensemble(model)
    for member in ensemble.members:
        # only pictures are varied, so no gradient of a weight is ever wanted
        member.network.requires_grad_(False).to(memory_format=torch.channels_last)
    knees = read_knees(data, allow_ungrouped=True, grades_optional=True)
    answer = choose_answer(config.target, 0, ensemble.outcome_column)
    outcome = ensemble.outcome_column if answer.name == PROGRESSION else None
    chosen = choose_knees(knees, limit, by_error, outcome)
    rest = np.setdiff1d(np.arange(len(knees)), chosen)
    others = spread(rest, MOST_OTHERS) if Method.GRADIENT_SHAP in config.methods else rest[:0]
    rows = knees.iloc[np.concatenate([chosen, others])].reset_index(drop=True)
    table = None if clinical is None else read_clinical(clinical)
    if table is not None and "split" in table and "split" not in rows:
        rows["split"] = table["split"].reindex(rows["knee_id"]).to_numpy()
    return Sample(ensemble, rows, len(chosen), table, choose_device(device))


def _refuse_hopeless(sample: Sample, config: ExplainConfig, data: Path) -> None:
    """Raise before anything is written where no knee could be explained."""
    if Method.GRADCAM in config.methods:
        for member in sample.ensemble.members:
            member.network.encoder.feature_map()
    if not sample.store.readable[: sample.n_explained].any():
        first = sample.store.rejects[0]
        raise InputError(
            "No image of the knees can be read.",
            found=f"{first.source}: {first.message}",
            where=data,
        )


def _groups(found: ExplainedKnee, sample: Sample) -> list[str]:
    """The groups whose mean map a knee belongs to."""
    grade = _known(found, sample, "kl_grade")
    if found.outcome is None or found.risk is None:
        return groups_of(grade, found.grade)
    return risk_groups(_known(found, sample, found.outcome), found.risk, grade)


def _known(found: ExplainedKnee, sample: Sample, column: str) -> int | None:
    """What is known of a knee, with its image or in the table beside."""
    value = found.knee.get(column)
    table, knee_id = sample.clinical, found.knee["knee_id"]
    if pd.isna(value) and table is not None and column in table and knee_id in table.index:
        value = table.loc[knee_id, column]
    return None if pd.isna(value) else int(value)
