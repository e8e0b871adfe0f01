"""The checks of all knees as one table of a model, each with its interval over persons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kneeoa_mm.learning.saliency.randomisation import STAGES
from kneeoa_mm.learning.saliency.removal import DETAIL_ORDER, RANDOM_ORDER
from kneeoa_mm.metrics import CI_PERCENTILES, bootstrap_rows

MEASURES: Mapping[str, str] = {
    "infidelity": "squared log-odds; lower is better",
    "unexplained_share": "0 tells every change, 1 none",
    "max_sensitivity": "relative to the map; lower is steadier",
    "deletion_area": "probability; lower is better",
    "deletion_gain": "random order less this map; above 0 is better than chance",
    "deletion_gain_over_detail": "detail order less this map; above 0 is better than edges",
    "insertion_area": "probability; higher is better",
    "insertion_gain": "this map less random order; above 0 is better than chance",
    "insertion_gain_over_detail": "this map less detail order; above 0 is better than edges",
    **{
        f"rank_correlation_{name}": f"with random weights: {name.replace('_', ' ')}; near 0 is good"
        for name in STAGES
    },
    "joint_share": "share of the absolute attribution in the joint space",
    "joint_area_share": "share of the picture that is joint space",
    "joint_enrichment": "share of attribution over share of area; 1 is chance",
}
_N_BOOT = 1000
_LEAST_PERSONS = 10
"""A bootstrap of fewer spans little more than their smallest and largest value."""


@dataclass
class Checks:
    """What the checks of some knees found; grows a knee at a time."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """One a knee, member, method and measure."""
    curves: list[dict[str, Any]] = field(default_factory=list)
    """One a knee, member, method, curve and step."""

    def add(
        self,
        knee: Mapping[str, Any],
        method: str,
        values: dict[str, float],
        curves: Mapping[str, NDArray[np.float64]],
    ) -> None:
        """Note what was found about one map of one knee."""
        for measure, value in values.items():
            self.rows.append({**knee, "method": method, "measure": measure, "value": value})
        for curve, probabilities in curves.items():
            shares = np.linspace(0, 1, len(probabilities))
            for share, probability in zip(shares, probabilities, strict=True):
                step = {"curve": curve, "share": share, "probability": probability}
                self.curves.append({**knee, "method": method, **step})

    def by_knee(self) -> pd.DataFrame:
        """All measures, with what each map gains over the orders that know no network."""
        names = ["knee_id", "person", "member", "method", "measure", "value"]
        table = pd.DataFrame(self.rows, columns=names)
        table["value"] = table["value"].astype(float)
        gains = [
            _gain(table, f"{curve}_area", f"{curve}_gain{suffix}", over=control, sign=sign)
            for curve, sign in (("deletion", -1), ("insertion", 1))
            for suffix, control in (("", RANDOM_ORDER), ("_over_detail", DETAIL_ORDER))
        ]
        filled = [part for part in gains if len(part)]
        return pd.concat([table, *filled], ignore_index=True) if filled else table

    def summary(self, seed: int) -> list[dict[str, Any]]:
        """Mean of each measure and method, with the interval of a bootstrap of persons.

        A knee that several members speak on counts once, by the mean over them.
        """
        names = ["method", "measure", "knee_id", "person"]
        table = self.by_knee().groupby(names, sort=False)["value"].mean().reset_index()
        order = {name: place for place, name in enumerate(MEASURES)}
        found = []
        for (method, measure), part in table.groupby(["method", "measure"], sort=False):
            known = part.dropna(subset="value")
            found.append(
                {
                    "method": method,
                    "measure": measure,
                    **_mean(known, len(part), seed),
                    "meaning": MEASURES[str(measure)],
                }
            )
        return sorted(found, key=lambda row: order[row["measure"]])

    def mean_curves(self) -> pd.DataFrame:
        """Mean probability of each step of each curve, over knees."""
        names = ["method", "curve", "share"]
        table = pd.DataFrame(self.curves, columns=["knee_id", "person", *names, "probability"])
        by_knee = table.groupby([*names, "knee_id"], sort=False)["probability"].mean()
        grouped = by_knee.groupby(level=names, sort=False)
        return grouped.agg(probability="mean", n_knees="size").reset_index()


def _gain(table: pd.DataFrame, measure: str, name: str, *, over: str, sign: int) -> pd.DataFrame:
    part = table[table["measure"] == measure]
    keys = ["knee_id", "member"]
    control = part[part["method"] == over].set_index(keys)["value"]
    # orders are controls of maps: detail is judged against chance, and nothing against itself
    maps = part[~part["method"].isin({RANDOM_ORDER, over})].copy()
    own = control.reindex(pd.MultiIndex.from_frame(maps[keys])).to_numpy()
    maps["value"] = sign * (maps["value"] - own)
    maps["measure"] = name
    return maps


def _mean(known: pd.DataFrame, n_asked: int, seed: int) -> dict[str, Any]:
    values, persons = known["value"].to_numpy(float), known["person"].to_numpy(str)
    n_persons = len(np.unique(persons))
    counts = {"n_knees": len(values), "n_persons": n_persons, "n_undefined": n_asked - len(values)}
    if not len(values):
        nothing = {"value": None, "ci_low": None, "ci_high": None}
        return {**nothing, **counts, "reason": "no map defines it"}
    mean = float(values.mean())
    if n_persons < _LEAST_PERSONS:
        reason = f"an interval needs {_LEAST_PERSONS} persons"
        return {"value": mean, "ci_low": None, "ci_high": None, **counts, "reason": reason}
    draws = [values[rows].mean() for rows in bootstrap_rows(persons, n_boot=_N_BOOT, seed=seed)]
    low, high = np.percentile(draws, CI_PERCENTILES)
    return {"value": mean, "ci_low": float(low), "ci_high": float(high), **counts, "reason": None}
