"""A study with known risks, and runs that predict it as `train-jsl` and `pretrain-kl` would."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save
from scipy.stats import norm

from kneeoa_mm import schemas, tables
from kneeoa_mm.atomic_files import write_text
from kneeoa_mm.learning.clinical import ClinicalEncoding
from kneeoa_mm.model_folder import ModelCard, Preprocessing, SeenSubjects, write_model

N_FOLDS = 5
CONTRACT = Preprocessing(
    image_size_px=64, mean=0.5, std=0.2, clip_percentiles=(1, 99), reinvert_negatives=False
)


@dataclass
class Study:
    """A cohort folder, and how runs on it are written.

    Attributes:
        folder: Everything is below it.
        knees: Rows of the cohort with ``fold``.
        outcome: Column of the outcome.
    """

    folder: Path
    knees: pd.DataFrame
    outcome: str = "jsl_48m"

    @property
    def cohort(self) -> Path:
        return self.folder / "cohort"

    def write_cohort(self, **spec: Any) -> None:
        required = [c for c, rule in schemas.COHORT.rules.columns.items() if rule.required]
        blank = {name: None for name in required if name not in self.knees}
        cohort = self.knees.drop(columns="fold").assign(**blank)
        tables.write_table(cohort, schemas.COHORT, self.cohort / "cohort.parquet")
        tables.write_table(self.folds(), schemas.FOLDS, self.cohort / "folds.parquet")
        lines = "".join(f"  {key}: {value}\n" for key, value in {"name": "t", **spec}.items())
        write_text(self.cohort / "config.yaml", f"cohort:\n{lines}")

    def folds(self) -> pd.DataFrame:
        return self.knees[["subject_id", "fold"]].drop_duplicates("subject_id")

    def run(
        self,
        name: str,
        risk: np.ndarray,
        *,
        rows: slice = slice(None),
        factors: tuple[str, ...] = (),
        config: str = "seed: 0\n",
        leak: int = 0,
        columns: dict[str, Any] | None = None,
    ) -> Path:
        """Write a run whose members held out their fold, but for ``leak`` subjects of it."""
        path = self.folder / name
        identity = self.knees[["knee_id", "subject_id", "laterality"]]
        predictions = identity.assign(
            status="ok",
            seen_in_training=False,
            kl_grade_pred=0,
            **{f"kl_prob_{grade}": 0.2 for grade in range(5)},
            **{f"{self.outcome}_prob": risk},
        ).assign(**(columns or {}))
        tables.write_table(
            predictions.iloc[rows], schemas.PREDICTIONS, path / "predictions.parquet"
        )
        tables.write_table(self.folds(), schemas.FOLDS, path / "folds.parquet")
        write_text(path / "config.yaml", config)
        encoding = ClinicalEncoding.fit(self.knees[list(factors)]) if factors else None
        for fold in range(N_FOLDS):
            held_out = self.knees["fold"] == fold
            seen = [
                *self.knees.loc[~held_out, "subject_id"],
                *self.knees.loc[held_out, "subject_id"].iloc[:leak],
            ]
            card = ModelCard(
                kind="jsl",
                architecture={},
                outputs=(f"{self.outcome}_prob",),
                preprocessing=CONTRACT,
                clinical=encoding.to_card() if encoding else None,
                fold=fold,
                seen_subjects=SeenSubjects.of(seen, (), salt=b"salt"),
            )
            weights = save({"a": np.zeros(1, dtype=np.float32)})
            write_model(path / "members" / f"00-x-fold{fold}", card, weights)
        return path


def two_knees_a_person(n_persons: int, seed: int) -> pd.DataFrame:
    """Events shift age by one standard deviation, the width by one half, the grade not at all."""
    generator = np.random.default_rng(seed)
    n = 2 * n_persons
    events = np.repeat(generator.integers(0, 2, n_persons), 2)
    subjects = np.repeat([f"{i:04d}" for i in range(n_persons)], 2)
    sides = np.tile(["L", "R"], n_persons)
    return pd.DataFrame(
        {
            "knee_id": [f"t:{s}:0:{side}" for s, side in zip(subjects, sides, strict=True)],
            "subject_id": subjects,
            "laterality": sides,
            "months": 0,
            "jsl_48m": events,
            "age_years": 60 + 5 * (events + generator.normal(size=n)),
            "sex": generator.choice(["F", "M"], n),
            "kl_grade": generator.integers(0, 4, n),
            "mjsw_medial_mm": 4.5 - 0.5 * (0.5 * events + generator.normal(size=n)),
            "bmi_kg_m2": 27.0,
            "fold": np.repeat(np.arange(n_persons) % N_FOLDS, 2),
        }
    )


def image_risk(events: np.ndarray, seed: int, shift: float = 2.0) -> np.ndarray:
    """The risk by a score that events raise by ``shift`` standard deviations."""
    noise = np.random.default_rng(seed).normal(size=len(events))
    return norm.cdf(shift * (events - 0.5) + noise)
