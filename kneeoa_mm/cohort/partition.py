"""Who must stay together, and folds that hold out one site at a time."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from kneeoa_mm.cohort.harmonise import KL
from kneeoa_mm.cohort.leaks import audit_split, reading_pattern_note, refuse_shared_images
from kneeoa_mm.errors import InputError
from kneeoa_mm.folds import folds_of, make_folds
from kneeoa_mm.records import Outcome

N_FOLDS = 5
"""Folds of a cohort unless somebody asks for others."""

_STRATA_BY = (Outcome.JSL_OR_KR_48M, Outcome.KL_PROGRESSION, Outcome.TKR)


@dataclass(frozen=True)
class Partition:
    """Who is held out together, where nothing leaks.

    Attributes:
        folds: One row a subject: ``subject_id`` and ``fold``.
        by_site: The same with one fold a site, and ``site``; None where there are not several.
        notes: How well the reading projects alone tell the outcomes.
    """

    folds: pd.DataFrame
    by_site: pd.DataFrame | None
    notes: tuple[str, ...]


def divide(
    cohort: pd.DataFrame,
    images: pd.Series | None,
    read_by: pd.Series,
    *,
    n_folds: int = N_FOLDS,
    seed: int = 0,
    where: object,
) -> Partition:
    """Make the folds of a cohort, and refuse one that leaks: all that stops a sound table.

    Args:
        cohort: One row a knee, with outcomes.
        images: File of each row's image; None where there are none.
        read_by: The projects that read each row's knee.
        n_folds: Number of folds.
        seed: Of the folds.
        where: Named in errors.

    Raises:
        LeakError: The sources' own split or the folds have a person or an image on two sides, or
            the reading projects tell an outcome.
        InputError: There are too few subjects for the folds, or a subject is of two sites.
    """
    audit_split(cohort, images, where=where)
    notes = reading_pattern_note(cohort, read_by)
    folds = cohort_folds(cohort, n_folds=n_folds, seed=seed)
    if images is not None:
        fold_of_row = pd.Series(folds_of(cohort["subject_id"], folds)).map("fold {}".format)
        refuse_shared_images(images, fold_of_row, where=where)
    sites = cohort["site"]
    has_sites = sites.nunique() > 1 and sites.notna().all()
    return Partition(folds, site_folds(cohort) if has_sites else None, notes)


def cohort_folds(cohort: pd.DataFrame, *, n_folds: int, seed: int) -> pd.DataFrame:
    """Folds of whole persons, stratified on outcome and KL grade.

    The outcome is the first of ``jsl_or_kr_48m``, ``kl_progression`` and ``tkr`` that has values.
    In a matched study, whoever is tied by pairs stays together, too: a pair on both sides of a
    split is a comparison that the model has seen half of.

    Returns:
        One row a subject: ``subject_id`` and ``fold``.
    """
    known = [outcome for outcome in _STRATA_BY if cohort[outcome].notna().any()]
    outcome = cohort[known[0] if known else _STRATA_BY[0]]
    strata = outcome.astype("string").fillna("missing") + " " + cohort[KL].astype("string")
    group_of = connected_subjects(cohort)
    folds = make_folds(cohort["subject_id"].map(group_of), strata, n_folds=n_folds, seed=seed)
    fold_of = folds.set_index("subject_id")["fold"]
    subjects = sorted(group_of)
    return pd.DataFrame(
        {"subject_id": subjects, "fold": [int(fold_of[group_of[each]]) for each in subjects]}
    )


def connected_subjects(cohort: pd.DataFrame) -> dict[str, str]:
    """Subject to the first subject of all those tied to it by matched pairs.

    Example:
        >>> pairs = ["1", "1", "2", "2", None]
        >>> rows = pd.DataFrame({"subject_id": list("abbcd"), "matched_pair": pairs})
        >>> connected_subjects(rows)
        {'a': 'a', 'b': 'a', 'c': 'a', 'd': 'd'}
    """
    group_of = {subject: subject for subject in sorted(set(cohort["subject_id"]))}

    def root(subject: str) -> str:
        while group_of[subject] != subject:
            subject = group_of[subject]
        return subject

    if "matched_pair" in cohort:
        for _, members in cohort.groupby("matched_pair")["subject_id"]:
            roots = sorted({root(subject) for subject in members})
            for other in roots[1:]:
                group_of[other] = roots[0]
    return {subject: root(subject) for subject in group_of}


def site_folds(cohort: pd.DataFrame) -> pd.DataFrame:
    """One fold a site, for validation in a place that training has not seen.

    Returns:
        One row a subject: ``subject_id``, ``fold`` and ``site``; sites are numbered in order.

    Raises:
        InputError: There are fewer than two sites, or subjects of none or of two.
    """
    pairs = cohort[["subject_id", "site"]].drop_duplicates()
    sites = sorted(pairs["site"].dropna().unique())
    faulty = pairs["site"].isna().any() or pairs["subject_id"].duplicated().any()
    if len(sites) < 2 or faulty:
        raise InputError(
            "The cohort cannot be split by site.",
            expected="two or more sites, and one for each subject",
            found=f"{len(sites)} site(s), {int(pairs['site'].isna().sum())} subject(s) without",
        )
    number = {site: place for place, site in enumerate(sites)}
    folds = pairs.sort_values("subject_id", ignore_index=True)
    return folds.assign(fold=folds["site"].map(number).astype(int))[["subject_id", "fold", "site"]]
