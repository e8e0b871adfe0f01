"""A matched case-control study: cases are held against their own controls alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from kneeoa_mm.analysis.regression import conditional_odds_ratios
from kneeoa_mm.analysis.results import as_json
from kneeoa_mm.errors import InputError
from kneeoa_mm.metrics import auroc_within, estimate
from kneeoa_mm.metrics.calibration import log_odds
from kneeoa_mm.workflows.comparison import KL_ONLY, Codes, Contest


def pair_codes(knees: pd.DataFrame, contest: Contest) -> Codes:
    """Number of the complete pair of each row, -1 without one; a pair is one case, one control.

    Raises:
        InputError: A pair stands in two folds, so that two models would rank it.
    """
    pairs = knees["matched_pair"].astype("string")
    rows = pd.DataFrame({"event": contest.events, "fold": contest.folds, "pair": pairs.to_numpy()})
    of_pair = rows.groupby("pair")
    complete = of_pair["event"].transform("size").eq(2) & of_pair["event"].transform("sum").eq(1)
    parted = complete & of_pair["fold"].transform("nunique").gt(1)
    if parted.any():
        raise InputError(
            "Matched pairs stand in two folds.",
            expected="both knees of a pair in one fold",
            found=f"{rows.loc[parted, 'pair'].nunique()} pairs parted, such as "
            f"{rows.loc[parted, 'pair'].iloc[0]}",
            fix="use the folds that `cohort` made, which keep pairs together",
        )
    codes = pd.factorize(rows["pair"].where(complete))[0]
    return np.asarray(codes, dtype=np.int64)


def within_pairs(contest: Contest, pairs: Codes) -> dict[str, Any]:
    """Concordance within complete pairs, and conditional odds ratios of each model's log odds.

    Args:
        contest: What is judged.
        pairs: Of ``pair_codes``.

    Returns:
        ``pairs``, and by model ``concordance`` (share of pairs whose case has the higher risk, ties
        half), ``odds_ratio`` for one standard deviation of log odds, and
        ``odds_ratio_adjusted_for_kl`` beside those of KL only.
    """
    rows = pairs >= 0
    events, persons = contest.events[rows], contest.persons[rows]
    scores = {name: _standardised(log_odds(risk[rows])) for name, risk in contest.risks.items()}
    document: dict[str, Any] = {"pairs": int(rows.sum()) // 2, "models": {}}
    for name, risk in contest.risks.items():
        concordance = estimate(auroc_within(pairs[rows]), events, risk[rows], contest.weights[rows])
        (alone,) = conditional_odds_ratios(scores[name][:, None], events, pairs[rows], persons)
        found = {"concordance": as_json(concordance), "odds_ratio": as_json(alone)}
        if name != KL_ONLY:
            both = np.stack([scores[name], scores[KL_ONLY]], axis=1)
            adjusted, _ = conditional_odds_ratios(both, events, pairs[rows], persons)
            found["odds_ratio_adjusted_for_kl"] = as_json(adjusted)
        document["models"][name] = found
    return document


def _standardised(score: Any) -> Any:
    return (score - score.mean()) / (score.std() or 1.0)
