"""How fast all metrics get their person-clustered intervals, against a loop over scikit-learn.

    python benchmarks/analysis.py --out docs/results/analysis/speed-cpu.json

Both ways see the same knees and the same draws of persons, in this run, on one thread, by the clock
of the process: time in which another program had the core does not count. The loop copies the rows
of each draw and asks scikit-learn for each metric; it does ``--loop-draws`` of the draws, and its
time is multiplied accordingly. The greatest difference between the two ways, over all metrics and
draws of the loop, is given beside the times.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
import warnings
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_threads] = "1"

import numpy as np  # noqa: E402 - threads are counted when it loads
from sklearn import metrics as sk  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402

from kneeoa_mm import metrics  # noqa: E402
from kneeoa_mm.atomic_files import write_json  # noqa: E402
from kneeoa_mm.metrics import Metric  # noqa: E402
from kneeoa_mm.progress import say  # noqa: E402

Oracle = Callable[[Any, Any], float]
PACKAGES = ("numpy", "scikit-learn")
THRESHOLD = 0.2


def knees(n: int) -> dict[str, np.ndarray]:
    """Two knees a person, with a grade, an event, and predictions of both."""
    generator = np.random.default_rng(0)
    grade = generator.choice(5, n, p=[0.4, 0.18, 0.26, 0.13, 0.03])
    probabilities = 0.7 * generator.dirichlet(np.ones(5), n) + 0.3 * np.eye(5)[grade]
    event = (generator.random(n) < 0.2).astype(np.int64)
    return {
        "person": np.arange(n) // 2,
        "grade": grade,
        "predicted": probabilities.argmax(axis=1),
        "probabilities": probabilities,
        "event": event,
        "risk": 1 / (1 + np.exp(1.5 - event - generator.normal(size=n))),
    }


def _macro(score: Callable[..., float]) -> Oracle:
    return lambda t, p: score(t, p, labels=np.unique(t), average="macro", zero_division=0)


def _each_grade(score: Oracle) -> Oracle:
    return lambda t, p: float(np.mean([score(t == k, p[:, k]) for k in np.unique(t)]))


def _at(threshold: float, score: Oracle) -> Oracle:
    return lambda t, p: score(t, p >= threshold)


def _specificity(truth: Any, called: Any) -> float:
    return float(sk.recall_score(truth, called, pos_label=0))


def _net_benefit(truth: Any, called: Any) -> float:
    (_, alarms), (_, hits) = sk.confusion_matrix(truth, called)
    return float((hits - alarms * THRESHOLD / (1 - THRESHOLD)) / len(truth))


def _scaled_brier(truth: Any, risk: Any) -> float:
    share = np.full(len(truth), truth.mean())
    return float(1 - sk.brier_score_loss(truth, risk) / sk.brier_score_loss(truth, share))


def _slope(truth: Any, risk: Any) -> float:
    model = LogisticRegression(C=np.inf, tol=1e-9, solver="newton-cholesky")
    return float(model.fit(np.log(risk / (1 - risk))[:, None], truth).coef_[0, 0])


Pair = tuple[Metric, Oracle]


def compared() -> dict[tuple[str, str], dict[str, Pair]]:
    """Truth and prediction to name to our metric and scikit-learn's."""
    graded: Mapping[str, Oracle] = {
        "accuracy": sk.accuracy_score,
        "balanced_accuracy": sk.balanced_accuracy_score,
        "precision": _macro(sk.precision_score),
        "recall": _macro(sk.recall_score),
        "macro_f1": _macro(sk.f1_score),
        "qwk": lambda t, p: sk.cohen_kappa_score(t, p, weights="quadratic", labels=range(5)),
        "mae": sk.mean_absolute_error,
    }
    ranked: Mapping[str, Oracle] = {
        "auroc": _each_grade(sk.roc_auc_score),
        "auprc": _each_grade(sk.average_precision_score),
        "auroc_kl2": lambda t, p: sk.roc_auc_score(t >= 2, p[:, 2:].sum(axis=1)),
        "brier": lambda t, p: 5 * sk.mean_squared_error(np.eye(5)[t], p),
    }
    risks: Mapping[str, Oracle] = {
        "auroc": sk.roc_auc_score,
        "auprc": sk.average_precision_score,
        "brier": sk.brier_score_loss,
        "accuracy": _at(0.5, sk.accuracy_score),
        "balanced_accuracy": _at(0.5, sk.balanced_accuracy_score),
        "precision": _at(0.5, sk.precision_score),
        "recall": _at(0.5, sk.recall_score),
        "f1": _at(0.5, sk.f1_score),
    }
    return {
        ("grade", "predicted"): _paired(metrics.GRADE_METRICS, graded),
        ("grade", "probabilities"): _paired(metrics.GRADE_PROBABILITY_METRICS, ranked),
        ("event", "risk"): _paired(metrics.BINARY_METRICS, risks)
        | {
            "scaled_brier": (metrics.scaled_brier, _scaled_brier),
            "calibration_slope": (metrics.calibration_slope, _slope),
            "sensitivity": (metrics.sensitivity(THRESHOLD), _at(THRESHOLD, sk.recall_score)),
            "specificity": (metrics.specificity(THRESHOLD), _at(THRESHOLD, _specificity)),
            "net_benefit": (metrics.net_benefit(THRESHOLD), _at(THRESHOLD, _net_benefit)),
        },
    }


def _paired(ours: Mapping[str, Metric], theirs: Mapping[str, Oracle]) -> dict[str, Pair]:
    return {name: (ours[name], oracle) for name, oracle in theirs.items()}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--knees", type=int, default=5000)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--loop-draws", type=int, default=200)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    data = knees(options.knees)
    clock = time.process_time
    start = clock()
    weights = metrics.bootstrap_weights(data["person"], n_boot=options.draws, seed=0)
    drawing = clock() - start
    loop_rows = metrics.bootstrap_rows(data["person"], n_boot=options.loop_draws, seed=0)
    together, loop, apart = drawing, 0.0, 0.0
    each: dict[str, dict[str, float]] = {}
    for (truth_name, prediction_name), pairs in compared().items():
        truth, prediction = data[truth_name], data[prediction_name]
        for name, (metric, oracle) in pairs.items():
            start = clock()
            found = metrics.resample(metric, truth, prediction, weights).draws
            ours = clock() - start
            start = clock()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = [oracle(truth[rows], prediction[rows]) for rows in loop_rows]
            theirs = (clock() - start) * options.draws / options.loop_draws
            apart = max(apart, float(np.abs(found[: len(expected)] - expected).max()))
            together, loop = together + ours, loop + theirs
            label = f"{truth_name}: {name}"
            each[label] = {"together_s": round(ours, 3), "loop_s": round(theirs, 2)}
            say(f"{label}: {ours:.2f} s against {theirs:.1f} s")
    say(f"all metrics: {together:.1f} s against {loop:.1f} s, {loop / together:.0f} times")
    document = {
        "knees": options.knees,
        "draws": options.draws,
        "draws_of_the_loop": options.loop_draws,
        "together_s": round(together, 2),
        "loop_s": round(loop, 1),
        "ratio": round(loop / together, 1),
        "greatest_difference": apart,
        "each": each,
        "threads": 1,
        "clock": clock.__name__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }
    write_json(options.out, document)


if __name__ == "__main__":
    main()
