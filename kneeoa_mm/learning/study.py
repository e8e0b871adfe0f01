"""The knees of a progression model: images joined with a cohort, and why not to train on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kneeoa_mm import schemas, tables
from kneeoa_mm.cohort_spec import horizon_in
from kneeoa_mm.errors import ConfigError, InputError, LeakError
from kneeoa_mm.folds import parts_of
from kneeoa_mm.learning.event_times import observed_of
from kneeoa_mm.learning.losses import grade_targets
from kneeoa_mm.learning.splits import Split
from kneeoa_mm.records import KneeKey, Outcome
from kneeoa_mm.run_folder import CONFIG_FILE
from kneeoa_mm.settings import TrainJSLConfig

_MAX_LISTED = 5
_AFTER_BASELINE = {"death_months", "death_after_months", "last_contact_months", "missing_reasons"}
_NO_FACTORS = {
    "knee_id",
    "subject_id",
    "laterality",
    "months",
    "split",
    "sub_cohort",
    "matched_pair",
}


def refuse_other_horizon(cohort: Path, config: TrainJSLConfig) -> None:
    """Raise where hazards would report their risk at another time than the outcome is judged at.

    Args:
        cohort: Output folder of ``cohort``; one that does not say how outcomes are defined is not
            checked.
        config: The recipe.

    Raises:
        ConfigError: Names both times.
    """
    horizon = horizon_in(cohort, config.outcome)
    if config.time_head != "hazard" or horizon in (None, config.horizon_months):
        return
    fix = f"--set horizon_months={horizon}"
    if horizon not in config.visits_months:
        visits = ",".join(map(str, sorted({*config.visits_months, horizon})))
        fix += f" --set visits_months=[{visits}]"
    raise ConfigError(
        "The risk would be that of another time than the one at which the outcome is judged.",
        expected=f"{config.outcome} by {horizon} months, as the cohort defines it",
        found=f"horizon_months {config.horizon_months}",
        where=cohort / CONFIG_FILE,
        fix=fix,
    )


def join_cohort(
    knees: pd.DataFrame, cohort: Path, config: TrainJSLConfig
) -> tuple[pd.DataFrame, dict[str, int], tuple[str, ...]]:
    """Join baseline images with the cohort's factors, grades and outcome.

    Knees of the test part that the cohort's source, or the table of images, has set aside stay
    there.

    Args:
        knees: Rows of ``read_knees``.
        cohort: Output folder of ``cohort``.
        config: Which outcome, and whether times of it are used.

    Returns:
        One row a knee that has an image and a grade or the outcome, what was counted, and which
        knees and images found no partner or were set aside.

    Raises:
        InputError: The cohort lacks the outcome, there is no such knee with it, or a part of the
            split is none.
    """
    outcome = str(config.outcome)
    table = tables.read_table(cohort / "cohort.parquet", schemas.COHORT)
    images = _first_films(knees)
    columns = ["knee_id", "image_path", "mirror", "field_of_view_plateau_widths"]
    if "split" in images and "split" not in table:
        columns.append("split")
    joined = table.merge(images[columns], on="knee_id", validate="one_to_one")
    joined, set_aside = _without_test_part(joined, cohort)
    label = outcome if config.time_head == "horizon" else f"{outcome}_event_observed"
    if label not in joined:
        raise InputError(
            f"The cohort has no outcome {outcome}.",
            expected=f"the column {label}",
            where=cohort,
            fix="build the cohort anew; an older version of kneeoa-mm made this one",
        )
    useful = joined[label].notna() | joined["kl_grade"].notna()
    joined = joined[useful].sort_values("knee_id", ignore_index=True)
    known = int(joined[label].notna().sum())
    if known == 0:
        raise InputError(
            f"No knee has both an image and the outcome {outcome}.",
            expected=f"knee_id such as {table['knee_id'].iloc[0] if len(table) else '(no rows)'}",
            found=f"images such as {knees['knee_id'].iloc[0]}",
            where=cohort,
            fix="preprocess and cohort must use the same --cohort name and the same --ids",
        )
    happened = joined[label] == 1
    if config.time_head == "hazard":
        # what comes after the last visit counts as not seen
        happened &= joined[f"{outcome}_upper_months"] <= config.visits_months[-1]
    counts = {
        "cohort_knees": len(table),
        "with_image": len(joined),
        "with_outcome": known,
        "events": int(happened.sum()),
    }
    return joined, counts, (*_without_partner(table, images), *set_aside)


def _first_films(knees: pd.DataFrame) -> pd.DataFrame:
    """Of the films of a knee and visit the first that is there, by the name that the cohort has.

    The very first may have been taken out by a reviewer, for the sake of its repetition.
    """
    keys = [KneeKey.parse(knee) for knee in knees["knee_id"]]
    named = knees.assign(knee_id=[str(replace(key, copy=1)) for key in keys])
    order = np.argsort([key.copy for key in keys], kind="stable")
    return named.iloc[order].drop_duplicates("knee_id")


def _without_test_part(knees: pd.DataFrame, where: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    if "split" not in knees:
        return knees, ()
    knees = knees.assign(split=parts_of(knees["split"], where=where))
    is_test = knees["split"] == "test"
    if not is_test.any():
        return knees, ()
    return knees[~is_test], (f"{is_test.sum()} knees of the source's test part are set aside",)


def _without_partner(table: pd.DataFrame, images: pd.DataFrame) -> tuple[str, ...]:
    baseline = [KneeKey.parse(knee).months in {0, None} for knee in images["knee_id"]]
    alone = {
        "knees of the cohort have no image": set(table["knee_id"]) - set(images["knee_id"]),
        "baseline images are of no knee of the cohort": set(images["knee_id"][baseline])
        - set(table["knee_id"]),
    }
    return tuple(
        f"{len(found)} {what}, such as {', '.join(sorted(found)[:_MAX_LISTED])}"
        for what, found in alone.items()
        if found
    )


def factor_names(config: TrainJSLConfig, knees: pd.DataFrame) -> list[str]:
    """The clinical factors of a fused model.

    Raises:
        LeakError: One of them is known only after baseline.
        InputError: One of them is no column of the cohort, no factor, the grade of the knee, or has
            no value.
    """
    names = [*config.clinical_factors] if config.fuse_clinical else []
    late = [name for name in names if _is_after_baseline(name)]
    if late:
        raise LeakError(
            "A clinical factor is known only after baseline: it tells the outcome.",
            expected="columns of cohort.parquet that were measured at baseline",
            found=", ".join(late),
            fix="leave it out of clinical_factors",
        )
    unknown = [name for name in names if name not in knees or name in _NO_FACTORS]
    if unknown:
        raise InputError(
            "The cohort has no such clinical factor.",
            expected="columns of cohort.parquet",
            found=", ".join(unknown),
            fix="correct clinical_factors",
        )
    if "kl_grade" in names:
        raise InputError(
            "The grade is no clinical factor.",
            found="kl_grade in clinical_factors",
            fix="use --set kl_input=read, which keeps it away from the KL head",
        )
    known = [name for name in names if knees[name].notna().any()]
    if known != names:
        raise InputError(
            "The cohort has no value of a clinical factor.",
            found=", ".join(name for name in names if name not in known),
            fix=f"--set clinical_factors=[{','.join(known)}]" if known else "--image-only",
        )
    return names


def _is_after_baseline(name: str) -> bool:
    of_outcomes = any(name == outcome or name.startswith(f"{outcome}_") for outcome in Outcome)
    return of_outcomes or name in _AFTER_BASELINE


def labels_of(knees: pd.DataFrame, config: TrainJSLConfig) -> dict[str, Tensor]:
    """What the heads learn: one row a knee, with a mark of its own where a label is missing.

    Returns:
        ``event`` (n,); ``kl_target`` (n, 5); for hazards ``free_until``, ``event_by`` (n,) and
        ``causes`` (n, 3); for a model with the reading ``kl_read`` (n, 5).
    """
    grades = grade_targets(knees["kl_grade"].to_numpy(np.float64, na_value=np.nan))
    events = knees[str(config.outcome)].astype("Float64").to_numpy(float, na_value=np.nan)
    labels = {"event": torch.tensor(events, dtype=torch.float32), "kl_target": grades}
    if config.kl_input == "read":
        labels["kl_read"] = grades
    if config.time_head == "hazard":
        seen = observed_of(
            knees,
            config.outcome,
            config.visits_months,
            death_after_gap=config.death_after_gap,
        )
        labels |= vars(seen)
    return labels


def refuse_unteachable(
    splits: list[Split], labels: dict[str, Tensor], config: TrainJSLConfig, *, where: object = ""
) -> None:
    """Stop where a head would have nothing, or one kind of knees alone, to learn from.

    Args:
        splits: Whose parts are looked at.
        labels: What is learnt, one row a knee.
        config: The recipe.
        where: Named in the error.

    Raises:
        InputError: Says so of every fold.
    """
    faults = []
    for split in splits:
        for name in ("train", "val") if config.train.chooses_epoch else ("train",):
            rows = getattr(split, name)
            part = {key: values[rows] for key, values in labels.items()}
            faults += [f"fold {split.fold} held out, to {name}: {f}" for f in _lacks(part, config)]
    if faults:
        raise InputError(
            "A part has nothing to teach a head.",
            expected=f"knees with and without {config.outcome}, and graded ones, in every part",
            found="\n            ".join(faults),
            where=where,
            fix="use fewer folds or more subjects; without grades, --set kl_loss_weight=0",
        )


def _lacks(part: dict[str, Tensor], config: TrainJSLConfig) -> list[str]:
    if config.time_head == "hazard":
        has_event, is_free = part["causes"][:, 0] > 0, part["free_until"] > 0
    else:
        has_event, is_free = part["event"] == 1, part["event"] == 0
    needs_grades = config.kl_loss_weight > 0 or config.kl_input == "read"
    lacks = {
        f"no knee with {config.outcome}": not has_event.any(),
        f"no knee without {config.outcome}": not is_free.any(),
        "no graded knee": needs_grades and not part["kl_target"].any(),
    }
    return [what for what, is_so in lacks.items() if is_so]
