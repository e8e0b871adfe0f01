"""Makes scikit_survival.json, which ``test_risk_over_time.py`` is held against.

Run in an environment of its own: scikit-survival is under the GPL and no dependency of ours.

pip install scikit-survival==0.28.0
python scikit_survival.py
"""

import json
from pathlib import Path

import numpy as np


def make() -> None:
    import sksurv
    from sksurv.metrics import (
        brier_score,
        concordance_index_ipcw,
        cumulative_dynamic_auc,
        integrated_brier_score,
    )

    generator = np.random.default_rng(7)
    n = 150
    severity = generator.normal(size=n)
    happens = 60 * generator.weibull(1.3, n) * np.exp(-0.6 * severity)
    leaves = generator.uniform(5, 90, n)
    # no two times alike: at ties scikit-survival takes censoring at a horizon for an unknown status
    months = np.round(np.minimum(happens, leaves), 6)
    event = happens <= leaves
    score = np.round(severity + 0.8 * generator.normal(size=n), 1)  # with ties
    horizons = [12.5, 24.5, 36.5, 48.5]
    rate = np.exp(0.5 * score)[:, None] / 90
    risk = np.round(1 - np.exp(-rate * np.array(horizons)), 6)

    survival = np.array(
        list(zip(event, months, strict=True)), dtype=[("event", bool), ("time", float)]
    )
    aurocs, _ = cumulative_dynamic_auc(survival, survival, score, horizons)
    _, brier = brier_score(survival, survival, 1 - risk, horizons)
    document = {
        "scikit_survival": sksurv.__version__,
        "months": months.tolist(),
        "event": event.astype(int).tolist(),
        "score": score.tolist(),
        "horizons": horizons,
        "risk": risk.tolist(),
        "uno_c_48": concordance_index_ipcw(survival, survival, score, tau=48.5)[0],
        "auroc": aurocs.tolist(),
        "brier": brier.tolist(),
        "integrated_brier": integrated_brier_score(survival, survival, 1 - risk, horizons),
    }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    make()
