"""What sources say where something is missing: codes of films, and ids without a match."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from kneeoa_mm.cohort.harmonise import KL, KNEE, MISSING, PROJECT, Harmonised
from kneeoa_mm.cohort.history import OutcomeRecord, Reason
from kneeoa_mm.cohort_spec import ENROLLEES, CohortSpec
from kneeoa_mm.identifiers import Identifiers
from kneeoa_mm.records import Outcome

Records = Mapping[Outcome, Sequence[OutcomeRecord]]

_OF_WIDTH = (Outcome.JSL_48M, Outcome.JSL_FNIH, Outcome.JSL_OR_KR_48M)


def film_reasons(
    knees: pd.DataFrame, sources: Harmonised, records: Records, spec: CohortSpec
) -> list[list[str]]:
    """Why the film of the horizon has no reading, in the words of the source.

    Args:
        knees: One row a knee, in the order of ``records``.
        sources: With all readings, also those without a value.
        records: The outcomes of each knee.
        spec: The cohort.

    Returns:
        Texts of each knee, such as ``kl_progression at 48 months: .T: Technical Problems``.
    """
    texts: list[list[str]] = [[] for _ in range(len(knees))]
    for outcome in (Outcome.KL_PROGRESSION, *_OF_WIDTH):
        value: str = KL
        readings, projects = sources.kl, spec.reading_projects
        if outcome in _OF_WIDTH:
            value, readings, projects = spec.outcomes.width, sources.jsw, spec.jsw_projects
        months = spec.outcomes.horizon_of(outcome)
        why = _codes(readings[readings["months"].eq(months)], value, projects)
        for text, knee, record in zip(texts, _keys(knees), records[outcome], strict=True):
            if record.reason is Reason.NO_READING and knee in why:
                text.append(f"{outcome} at {months} months: {why[knee]}")
    return texts


def _codes(
    readings: pd.DataFrame, value: str, projects: Sequence[int]
) -> dict[tuple[str, str], str]:
    unread = readings[readings[value].isna() & readings[value + MISSING].notna()]
    if projects:
        unread = unread[unread[PROJECT].isin(projects)]
    return dict(zip(_keys(unread), unread[value + MISSING], strict=True))


def _keys(rows: pd.DataFrame) -> Iterable[tuple[str, str]]:
    return zip(*(rows[name] for name in KNEE), strict=True)


def unmatched_ids(
    knees: pd.DataFrame, strangers: Iterable[tuple[str, str]], identifiers: Identifiers
) -> pd.DataFrame:
    """Subjects of tables that are not enrolled, and knees whose image is not there.

    Args:
        knees: One row a knee of all who are enrolled, with the file that was found of each image.
        strangers: Table and subject.
        identifiers: What turns subjects into the identifiers of outputs.

    Returns:
        One row each: ``table``, ``subject_id``, ``laterality`` and ``why``.
    """
    rows: list[tuple[str, str, str | None, str]] = [
        (table, subject, None, f"not in {ENROLLEES}") for table, subject in strangers
    ]
    if "image_path" in knees:
        absent = knees[knees["image_path"].isna()]
        rows += [(ENROLLEES, subject, side, "no such image") for subject, side in _keys(absent)]
    table = pd.DataFrame(rows, columns=["table", *KNEE, "why"])
    return table.assign(subject_id=[identifiers.subject_id(each) for each in table["subject_id"]])
