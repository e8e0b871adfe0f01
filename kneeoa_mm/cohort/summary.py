"""Table 1: who is in a cohort, as a whole and by outcome."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kneeoa_mm.cohort.columns import FACTORS
from kneeoa_mm.records import Outcome

_NUMBERS = ("age_years", "bmi_kg_m2", "fta_deg", "womac_total", "mjsw_medial_mm")
_CATEGORIES = ("sex", "race", "knee_injury", "kl_grade", "oarsi_jsn_medial")
_MAX_CATEGORIES = 10


def baseline_table(cohort: pd.DataFrame, *, by: Outcome) -> pd.DataFrame:
    """Describe the knees of a cohort at baseline, by outcome.

    No p values: in a table of baselines they answer no question of interest (Vandenbroucke et al.
    2007, STROBE explanation, item 14a). The standardised difference says how far cases and
    controls lie apart (Austin 2009, Stat Med 28:3083): the difference of means, or of shares,
    divided by the root of the mean of both variances.

    Args:
        cohort: Rows that obey the schema ``COHORT``.
        by: Outcome whose values are the columns.

    Returns:
        One row a factor or level, in text: mean (standard deviation) of numbers, count (per cent of
        those known) of categories, and how many knees lack the factor. Columns: ``all``, ``no``,
        ``yes`` and ``unknown`` value of the outcome, and ``difference`` of yes from no.
    """
    value = cohort[by]
    groups = {
        "all": cohort,
        "no": cohort[value.eq(0).fillna(False)],
        "yes": cohort[value.eq(1).fillna(False)],
        "unknown": cohort[value.isna()],
    }
    rows: dict[str, dict[str, str]] = {
        "knees": {name: str(len(group)) for name, group in groups.items()},
        "subjects": {name: str(group["subject_id"].nunique()) for name, group in groups.items()},
    }
    for factor in (*FACTORS, "kl_grade", "oarsi_jsn_medial", "mjsw_medial_mm"):
        if factor not in cohort or cohort[factor].isna().all():
            continue
        levels = sorted(cohort[factor].dropna().unique())
        if factor in _NUMBERS:
            name = f"{factor}, mean (SD)"
            rows[name] = {n: _mean(g[factor]) for n, g in groups.items()}
            rows[name]["difference"] = _difference(groups, factor)
        elif factor in _CATEGORIES or len(levels) <= _MAX_CATEGORIES:
            for level in levels:
                name = f"{factor} = {level if isinstance(level, str) else f'{level:g}'}, n (%)"
                rows[name] = {n: _share(g[factor], level) for n, g in groups.items()}
                rows[name]["difference"] = _difference(groups, factor, level)
        if cohort[factor].isna().any():
            missing = {n: str(int(g[factor].isna().sum())) for n, g in groups.items()}
            rows[f"{factor} missing, n"] = missing
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.reindex(columns=[*groups, "difference"]).fillna("")


def _mean(values: pd.Series) -> str:
    known = values.dropna().astype(float)
    if known.empty:
        return ""
    spread = f" ({known.std():.1f})" if len(known) > 1 else ""
    return f"{known.mean():.1f}{spread}"


def _difference(groups: dict[str, pd.DataFrame], factor: str, level: object = None) -> str:
    known = [groups[name][factor].dropna() for name in ("yes", "no")]
    if min(map(len, known)) < 2:
        return ""
    arms = [
        values.to_numpy(float) if level is None else values.eq(level).to_numpy(float)
        for values in known
    ]
    means = [arm.mean() for arm in arms]
    variances = [
        arm.var(ddof=1) if level is None else mean * (1 - mean)
        for arm, mean in zip(arms, means, strict=True)
    ]
    spread = np.sqrt(np.mean(variances))
    return f"{(means[0] - means[1]) / spread:.2f}" if spread else ""


def _share(values: pd.Series, level: object) -> str:
    known = values.dropna()
    n = int(known.eq(level).sum())
    return f"{n} ({n / len(known):.0%})" if len(known) else ""
