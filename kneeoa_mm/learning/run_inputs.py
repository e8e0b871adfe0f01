"""What a run learns from, noted in its folder, so that it goes on with nothing else.

Settings alone do not tell: with other folds, or a few images more, a member that is kept may have
learnt from those whom the resumed run would report.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from torch import Tensor

from kneeoa_mm import schemas, tables
from kneeoa_mm.atomic_files import write_json
from kneeoa_mm.errors import InputError
from kneeoa_mm.learning.image_cache import file_version
from kneeoa_mm.learning.splits import Split

FOLDS_FILE = "folds.parquet"
INPUTS_FILE = "inputs.json"
_WHERE_IT_BEGINS = ("members", "checkpoints")
"""Folders of a run that has begun to train."""


@dataclass(frozen=True)
class RunInputs:
    """What a run learns from.

    Attributes:
        folds: Table of folds; None outside cross-validation.
        hashes: Name to SHA-256 of the folds and of all else that members learn from.
    """

    folds: pd.DataFrame | None
    hashes: dict[str, str]

    @classmethod
    def of(
        cls,
        knees: pd.DataFrame,
        splits: Iterable[Split],
        labels: dict[str, Tensor],
        *,
        folds: pd.DataFrame | None,
        encoders: Iterable[str] = (),
        weights: Iterable[Path | None] = (),
    ) -> RunInputs:
        """Note what a run learns from.

        Args:
            knees: All knees of the run, with their ``image_path``.
            splits: Who learns from which of them.
            labels: What is learnt, one row a knee.
            folds: Table of folds; None outside cross-validation.
            encoders: Hash of the weights that each split starts from.
            weights: File that each member starts from; None for random weights.
        """
        images = [file_version(Path(path)) for path in knees["image_path"]]
        parts = [
            [each.fold, *(rows.tolist() for rows in (each.train, each.val, each.report))]
            for each in splits
        ]
        hashes = {
            "knees": _sha256(json.dumps(knees["knee_id"].tolist())),
            "labels": _sha256(*(f"{k} {v.tolist()}" for k, v in sorted(labels.items()))),
            "parts": _sha256(json.dumps(parts)),
            "folds": _hash_of_folds(folds),
            "encoders": _sha256(*encoders),
            "images": _sha256(json.dumps(images)),
            "weights": _sha256(*(_hash_of_file(path) if path else "none" for path in weights)),
        }
        return cls(folds, hashes)

    def refuse_others(self, out: Path) -> None:
        """Raise where a run in ``out`` was begun with others; for stages that resume.

        Raises:
            InputError: Says which of them differ.
        """
        others = [name for name, found in _noted(out).items() if self.hashes.get(name) != found]
        if others:
            raise InputError(
                "The interrupted run was begun with other inputs.",
                expected="the same knees, images, labels, folds, encoders and weights",
                found=f"other {', '.join(others)}",
                where=out,
                fix="resume with the inputs of then, --folds among them, or start anew with "
                "--overwrite",
            )

    def write(self, out: Path) -> None:
        """Note them in the run folder."""
        write_json(out / INPUTS_FILE, self.hashes)
        if self.folds is not None:
            tables.write_table(self.folds, schemas.FOLDS, out / FOLDS_FILE)


def _noted(out: Path) -> dict[str, str]:
    """What a run folder says of its inputs; earlier versions noted the folds alone."""
    noted = {}
    if (out / FOLDS_FILE).is_file():
        noted["folds"] = _hash_of_folds(tables.read_table(out / FOLDS_FILE, schemas.FOLDS))
    elif any((out / name).exists() for name in _WHERE_IT_BEGINS):
        noted["folds"] = _hash_of_folds(None)
    if (out / INPUTS_FILE).is_file():
        noted |= json.loads((out / INPUTS_FILE).read_text(encoding="utf-8"))
    return noted


def _hash_of_folds(folds: pd.DataFrame | None) -> str:
    if folds is None:
        return _sha256("none")
    rows = sorted(zip(folds["subject_id"].astype(str), folds["fold"].astype(int), strict=True))
    return _sha256(json.dumps(rows))


def _hash_of_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sha256(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
