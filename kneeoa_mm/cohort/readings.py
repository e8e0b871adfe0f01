"""One reading project a knee, and from its readings the history of each knee."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from kneeoa_mm.cohort.columns import CONFIRMED, REPORTED, TOTAL
from kneeoa_mm.cohort.harmonise import KL, KNEE, MISSING, PAIN, PROJECT, UNNAMED_PROJECT
from kneeoa_mm.cohort.history import HORIZON_MONTHS, KneeHistory, months_from_days
from kneeoa_mm.cohort_spec import CohortSpec
from kneeoa_mm.errors import InputError


def one_project(
    readings: pd.DataFrame,
    value: str,
    preference: Sequence[int],
    *,
    horizon_months: int = HORIZON_MONTHS,
) -> pd.DataFrame:
    """Keep, for each knee, the readings of one project.

    Projects read the same film differently (2 % of OAI's twice-read films), so a change is only
    seen within one. A knee's project is the first by preference that read it both at baseline and
    at the horizon; failing that, the first that read it at baseline. Knees that none of them read
    at baseline are left out.

    Args:
        readings: One row a reading: knee, ``months``, ``reading_project``, ``value``.
        value: Name of the column that was read; readings without it do not count.
        preference: Projects in order; readings of others do not count. Empty: all, by number.
        horizon_months: When the outcome is read.

    Returns:
        The rows kept, sorted by knee and months.
    """
    made = readings[readings[value].notna()]
    order = {
        project: place for place, project in enumerate(preference or sorted(set(made[PROJECT])))
    }
    made = made[made[PROJECT].isin(list(order))]
    sets = (
        made.assign(
            rank=made[PROJECT].map(order).astype(int),
            has_baseline=made["months"].eq(0),
            lacks_horizon=made["months"].ne(horizon_months),
        )
        .groupby([*KNEE, PROJECT], as_index=False)
        .agg({"rank": "first", "has_baseline": "any", "lacks_horizon": "all"})
    )
    chosen = (
        sets[sets["has_baseline"]]
        .sort_values(["lacks_horizon", "rank"], kind="stable")
        .drop_duplicates(KNEE)[[*KNEE, PROJECT]]
    )
    kept: pd.DataFrame = made.merge(chosen, on=[*KNEE, PROJECT])
    return kept.sort_values([*KNEE, "months"], ignore_index=True)


def refuse_unlisted_projects(
    readings: pd.DataFrame, value: str, preference: Sequence[int], *, setting: str, where: object
) -> None:
    """Raise where there are readings, and none is of a project that counts.

    Args:
        readings: One row a reading, of all projects.
        value: Name of the column that was read.
        preference: Projects that count; empty for all.
        setting: What lists them in ``cohort.yaml``.
        where: Named in the error.

    Raises:
        InputError: Every outcome of these readings would be missing, and nobody would be told.
    """
    made = readings.loc[readings[value].notna(), PROJECT]
    if not preference or made.empty or made.isin(list(preference)).any():
        return
    counts = made.value_counts().sort_index()
    raise InputError(
        f"No reading of {value} is of a project that counts.",
        expected=f"{setting}: {', '.join(map(str, preference))}",
        found=", ".join(f"{n} of {_named(project)}" for project, n in counts.items()),
        where=where,
        fix=f"list in {setting} the projects whose readings are meant, or none for all",
    )


def projects_in_words(
    readings: pd.DataFrame, kept: pd.DataFrame, value: str, *, what: str
) -> list[str]:
    """Notes on which projects read the knees, and which knees only projects that do not count.

    Args:
        readings: One row a reading, of all projects.
        kept: Those that ``one_project`` kept.
        value: Name of the column that was read.
        what: The readings in words.
    """
    first = readings[readings[value].notna() & readings["months"].eq(0)]
    used = pd.MultiIndex.from_frame(kept[KNEE])
    unused = first[~pd.MultiIndex.from_frame(first[KNEE]).isin(used)]
    named = kept[kept[PROJECT].ne(UNNAMED_PROJECT)]
    notes = [f"{what}: {_shares(named)}"] if len(named) else []
    if len(unused):
        alone = "by projects that do not count, of knees with no other"
        notes.append(f"{what} {alone}: {_shares(unused)}")
    return notes


def _shares(readings: pd.DataFrame) -> str:
    per_project = readings.drop_duplicates([*KNEE, PROJECT])[PROJECT].value_counts().sort_index()
    return ", ".join(f"{_named(project)} for {n} knee(s)" for project, n in per_project.items())


def _named(project: Any) -> str:
    return "no named project" if project == UNNAMED_PROJECT else f"project {int(project)}"


def why_unread_at_baseline(
    readings: pd.DataFrame, value: str, preference: Sequence[int]
) -> dict[tuple[str, str], str]:
    """Why knees have no reading at baseline: the source's code, or that another project read it.

    Args:
        readings: One row a reading, of all projects.
        value: Name of the column that was read.
        preference: Projects that count; empty for all.
    """
    first = readings[readings["months"].eq(0)]
    counts = first[PROJECT].isin(list(preference)) if preference else first[PROJECT].notna()
    others = first[~counts & first[value].notna()].sort_values(PROJECT)
    coded = first[counts & first[value + MISSING].notna()]
    columns = [others[name] for name in (*KNEE, PROJECT)]
    why = {
        (subject, side): f"read by another project ({int(project)})"
        for subject, side, project in zip(*columns, strict=True)
    }
    codes = zip(*(coded[name] for name in (*KNEE, value + MISSING)), strict=True)
    return why | {(subject, side): code for subject, side, code in codes}


def reading_patterns(
    readings: pd.DataFrame, value: str, preference: Sequence[int]
) -> dict[tuple[str, str], str]:
    """Which of the projects that count read each knee at any visit, such as ``15+42``."""
    made = readings[readings[value].notna()]
    if preference:
        made = made[made[PROJECT].isin(preference)]
    projects: dict[tuple[str, str], set[int]] = {}
    for subject, side, project in zip(*(made[name] for name in (*KNEE, PROJECT)), strict=True):
        projects.setdefault((subject, side), set()).add(int(project))
    return {knee: "+".join(map(str, sorted(read_by))) for knee, read_by in projects.items()}


def second_readings(readings: pd.DataFrame, kept: pd.DataFrame, value: str) -> pd.DataFrame:
    """The same knee and visit read once more, by another project.

    Args:
        readings: One row a reading, of all projects.
        kept: Those that ``one_project`` kept.
        value: Name of the column that was read.

    Returns:
        One row a knee and visit that was read twice: ``value``, and the other project's as
        ``second_<value>``; of several others, that with the lowest number.
    """
    others = readings.loc[readings[value].notna(), [*KNEE, "months", PROJECT, value]]
    twice = kept[[*KNEE, "months", PROJECT, value]].merge(
        others, on=[*KNEE, "months"], suffixes=("", "_second")
    )
    twice = twice[twice[PROJECT] != twice[f"{PROJECT}_second"]].sort_values(f"{PROJECT}_second")
    first: pd.DataFrame = twice.drop_duplicates([*KNEE, "months"])
    renamed = first.rename(columns={f"{value}_second": f"second_{value}"})
    return renamed[[*KNEE, "months", value, f"second_{value}"]].astype({f"second_{value}": "Int64"})


def knee_histories(
    knees: pd.DataFrame,
    kl: pd.DataFrame,
    jsw: pd.DataFrame,
    pain: pd.DataFrame,
    spec: CohortSpec,
) -> list[KneeHistory]:
    """The history of each knee, in the order of ``knees``.

    Args:
        knees: One row a knee, with the events that the cohort's outcomes file tells.
        kl: KL readings, one project a knee.
        jsw: Readings of joint-space width, one project a knee.
        pain: Scores of WOMAC pain.
        spec: Which width is lost, and the visits.
    """
    width = spec.outcomes.width
    visits = sorted(spec.visits.values())
    grades = _by_knee(kl, KL, int)
    widths_mm = _by_knee(jsw, width, float)
    scores = _by_knee(pain[pain[PAIN].notna()], PAIN, float)
    flagged: dict[tuple[str, str], dict[int, float]] = {}
    if "position_differs" in jsw:
        flagged = _by_knee(jsw[jsw["position_differs"].eq(1).fillna(False)], width, float)
    histories = []
    for row in knees.to_dict("records"):
        knee = (row["subject_id"], row["laterality"])
        histories.append(
            KneeHistory(
                kl_grades=grades.get(knee, {}),
                mjsw_medial_mm=widths_mm.get(knee, {}),
                womac_pain=scores.get(knee, {}),
                jsw_not_comparable=frozenset(flagged.get(knee, {})),
                **_events(row, visits),
            )
        )
    return histories


def _by_knee(
    readings: pd.DataFrame, value: str, kind: type[int] | type[float]
) -> dict[tuple[str, str], dict[int, Any]]:
    found: dict[tuple[str, str], dict[int, Any]] = {}
    columns = [readings[name] for name in (*KNEE, "months", value)]
    for subject, side, months, cell in zip(*columns, strict=True):
        found.setdefault((subject, side), {})[int(months)] = kind(cell)
    return found


def replaced_at_start(knees: pd.DataFrame) -> pd.Series:
    """Knees whose replacement was adjudicated, or seen, and not after baseline."""

    def column(name: str) -> pd.Series:
        return knees[name] if name in knees else pd.Series(None, knees.index, dtype=object)

    is_replaced = column("replacement").eq(CONFIRMED) | column("replacement_on_film").eq(1)
    by_day = is_replaced & column("replacement_days").eq(0)
    return (by_day | column("replacement_months").eq(0)).fillna(False).astype(bool)


def _events(row: dict[str, Any], visits: Sequence[int]) -> dict[str, Any]:
    def known(name: str) -> Any:
        cell = row.get(name)
        return None if pd.isna(cell) else cell

    is_replaced = known("replacement") == CONFIRMED or known("replacement_on_film") == 1
    replacement_days = known("replacement_days")
    replacement_months, replaced_after = _months(replacement_days), None
    if known("replacement_months") is not None:
        replacement_months = known("replacement_months")
        replaced_after = _visit_before(replacement_months, visits)
        is_replaced = True
    kind = known("replacement_type")
    death_days = known("death_days")
    if death_days is None and known("death_date") and known("baseline_date"):
        death_days = (row["death_date"] - row["baseline_date"]).days
    found_dead_months = known("death_months")
    is_dead = known("dead") == 1 or found_dead_months is not None
    died_on_a_day = is_dead and found_dead_months is None
    return {
        "is_replaced": is_replaced,
        "is_total": None if kind is None else kind == TOTAL,
        "is_replacement_unconfirmed": not is_replaced and known("replacement") == REPORTED,
        "replacement_months": replacement_months,
        "replacement_after_months": replaced_after,
        "is_dead": is_dead,
        "death_months": _months(death_days) if died_on_a_day else found_dead_months,
        "death_after_months": _visit_before(found_dead_months, visits),
        "last_contact_months": known("last_contact_months"),
    }


def _visit_before(found_months: float | None, visits: Sequence[int]) -> float | None:
    """What a visit finds happened since the visit before."""
    if found_months is None:
        return None
    return float(max([0, *(months for months in visits if months < found_months)]))


def _months(days: float | None) -> float | None:
    return None if days is None else months_from_days(days)
