"""What must not leak: people and images across a split, and who read the film."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from kneeoa_mm.errors import LeakError
from kneeoa_mm.folds import refuse_shared_subjects
from kneeoa_mm.metrics import auroc
from kneeoa_mm.records import Outcome

MAX_PATTERN_AUROC = 0.65
"""Above it the reading project alone tells the outcome so well that the cohort is refused."""

_MIN_EVENTS = 50
_MAX_LISTED = 5


def audit_split(rows: pd.DataFrame, images: pd.Series | None, *, where: object) -> None:
    """Raise where the parts of a source's own split share a person, a knee or an image.

    Args:
        rows: One row a knee; without ``split`` there is nothing to audit.
        images: File of each row's image, compared by the hash of its bytes.
        where: Named in errors.

    Raises:
        LeakError: A subject (with one knee or both), or a copy of one image, is in two parts.
    """
    if "split" not in rows or rows["split"].nunique() < 2:
        return
    parts = rows.dropna(subset="split").groupby("split")
    refuse_shared_subjects(
        {str(name): list(part["subject_id"]) for name, part in parts}, where=where
    )
    if images is not None:
        refuse_shared_images(images, rows["split"], where=where)


def refuse_shared_images(images: pd.Series, parts: pd.Series, *, where: object) -> None:
    """Raise where one image stands in two parts of a split, whatever its name.

    Raises:
        LeakError: With some of the pairs.
    """
    first: dict[str, tuple[str, str]] = {}
    shared = []
    for image, part in zip(images, parts, strict=True):
        if not isinstance(image, str) or pd.isna(part):
            continue
        digest = hashlib.sha256(Path(image).read_bytes()).hexdigest()
        other, other_part = first.setdefault(digest, (image, str(part)))
        if other_part != str(part):
            names = Path(other).name, Path(image).name
            shared.append(f"{names[0]} in {other_part} is {names[1]} in {part}")
    if shared:
        raise LeakError(
            "One image stands in two parts of the split.",
            expected="each image in one part",
            found=f"{len(shared)}: " + "; ".join(shared[:_MAX_LISTED]),
            where=where,
            fix="keep one of the copies, in one part",
        )


def reading_pattern_auroc(values: pd.Series, read_by: pd.Series) -> tuple[int, float | None] | None:
    """How well the projects that read a knee tell its outcome, all else unknown.

    Projects read differently selected people, and one that read a knee again may have done so
    because it progressed. Where a cohort mixes them, anything that tells the projects apart (such
    as the look of a film, or which values are missing) predicts the outcome without knowing
    anything of the knee.

    Args:
        values: 0, 1 or missing, one a knee.
        read_by: The projects that read each knee, all of them in one text.

    Returns:
        How many cases there are, or controls if these are fewer; and AUROC of the risk of each
        pattern of projects, None with too few of them. Nothing where all knees have one pattern
        or one value.
    """
    known = values.notna()
    value, pattern = values[known].astype(int), read_by[known]
    rarer = int(min(value.sum(), (1 - value).sum()))
    if pattern.nunique() < 2 or rarer == 0:
        return None
    if rarer < _MIN_EVENTS:
        return rarer, None
    risk = value.groupby(pattern.to_numpy()).transform("mean")
    return rarer, float(auroc(value.to_numpy(), risk.to_numpy(float)))


def reading_pattern_note(cohort: pd.DataFrame, read_by: pd.Series) -> tuple[str, ...]:
    """Say how well the reading projects alone tell each outcome, or that nobody can know.

    Raises:
        LeakError: They tell one of them too well.
    """
    judged = {outcome: reading_pattern_auroc(cohort[outcome], read_by) for outcome in Outcome}
    found = {o: each[1] for o, each in judged.items() if each and each[1] is not None}
    unknown = {o: each[0] for o, each in judged.items() if each and each[1] is None}
    worst = {o: v for o, v in found.items() if v > MAX_PATTERN_AUROC}
    if worst:
        raise LeakError(
            "The reading projects alone tell the outcome: knees were selected by it.",
            expected=f"an AUROC of at most {MAX_PATTERN_AUROC}",
            found=", ".join(f"{outcome} {value:.3f}" for outcome, value in worst.items()),
            where="reading_projects of the cohort",
            fix="keep one project in reading_projects, so that all knees were selected alike",
        )
    notes = []
    if found:
        shown = ", ".join(f"{outcome} {value:.2f}" for outcome, value in found.items())
        notes.append(f"AUROC of the reading projects alone (0.5 is nothing): {shown}")
    if unknown:
        shown = ", ".join(f"{outcome} {n}" for outcome, n in unknown.items())
        notes.append(
            "too few cases or controls to know whether the reading projects tell the outcome "
            f"({_MIN_EVENTS} are needed): {shown}"
        )
    return tuple(notes)
