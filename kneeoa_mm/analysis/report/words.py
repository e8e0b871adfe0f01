"""Metrics, models and outcomes in the words of a paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kneeoa_mm.analysis.results import OUTCOME_NAMES
from kneeoa_mm.analysis.targets import KL
from kneeoa_mm.records import Outcome

METRIC_NAMES: Mapping[str, str] = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "macro_f1": "Macro F1",
    "f1": "F1",
    "qwk": "Quadratic weighted kappa",
    "mae": "Mean absolute error, grades",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "auroc_kl2": "AUROC, KL 2 or more",
    "brier": "Brier score",
    "ece": "Expected calibration error",
    "coverage": "Coverage of the sets of grades",
    "set_size": "Grades in a set",
    "auprc_baseline": "AUPRC without any skill",
    "scaled_brier": "Scaled Brier score",
    "calibration_in_the_large": "Calibration in the large, log odds",
    "calibration_slope": "Calibration slope",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "net_benefit": "Net benefit",
    "treat_all": "Net benefit of treating all",
    "auroc_kl_1_to_3": "AUROC, KL 1 to 3",
    "auroc_within_kl": "AUROC within each KL grade",
    "auroc_within_kl_1_to_3": "AUROC within each of KL 1 to 3",
    "integrated_brier": "Integrated Brier score",
    "uno_c": "Uno's C",
    "harrell_c": "Harrell's C",
}
MODEL_NAMES: Mapping[str, str] = {
    "image": "Image only",
    "clinical": "Clinical factors only",
    "fused": "Image and clinical factors",
    "kl_grade": "KL grade as read",
    "clinical_boosted": "Clinical factors only, boosted trees",
    "mjsw": "Minimum joint-space width only",
    "kl+grader": "KL grade and the grader's probabilities",
}


def title_of(target: str) -> str:
    """What is judged, in words.

    Example:
        >>> title_of("kl"), title_of("jsl_48m")
        ('KL grade', 'Joint-space loss')
    """
    return "KL grade" if target == KL else OUTCOME_NAMES.get(target, target)


def metric_name(name: str) -> str:
    """A metric in words; ``..._at_0.2`` is one at that risk.

    Example:
        >>> metric_name("sensitivity_at_0.2"), metric_name("auroc_kl_3")
        ('Sensitivity at the risk 0.2', 'AUROC, KL 3')
    """
    metric, at, threshold = name.partition("_at_")
    if at:
        return f"{METRIC_NAMES.get(metric, metric)} at the risk {threshold}"
    if name not in METRIC_NAMES and name.startswith("auroc_kl_"):
        return f"AUROC, KL {name.removeprefix('auroc_kl_')}"
    return METRIC_NAMES.get(name, name)


def model_name(name: str) -> str:
    """A model in words; a run by its own name."""
    return MODEL_NAMES.get(name, name)


def in_a_sentence(name: str) -> str:
    """A name in the middle of a sentence: small, unless it has further capitals.

    Example:
        >>> in_a_sentence("Image only"), in_a_sentence("KL grade as read")
        ('image only', 'KL grade as read')
    """
    return name if name[1:] != name[1:].lower() else name[:1].lower() + name[1:]


def definition_of(outcome: Outcome, spec: Mapping[str, Any]) -> str:
    """An outcome as a paper defines it.

    Args:
        outcome: Which.
        spec: ``outcomes`` of the cohort's settings; what it lacks is left open.
    """
    loss = f"a loss of at least {spec.get('jsl_threshold_mm', '?')} mm of joint-space width"
    fnih = ", ".join(map(str, spec.get("fnih_months", ["?"])))
    grades = ", ".join(map(str, spec.get("fnih_kl_grades", ["?"])))
    definitions = {
        Outcome.JSL_48M: f"{loss} from baseline to 48 months",
        Outcome.JSL_FNIH: f"{loss} on any film at {fnih} months, of knees with KL grade {grades}",
        Outcome.JSL_OR_KR_48M: f"{loss}, or replacement of the knee, by 48 months",
        Outcome.KL_PROGRESSION: "a rise of the KL grade to 2 or more within one reading project, "
        f"from baseline to {spec.get('kl_horizon_months', '?')} months",
        Outcome.TKR: f"replacement of the knee by {spec.get('tkr_horizon_months', '?')} months",
        Outcome.PAIN_PROGRESSION: "a rise of WOMAC pain by at least "
        f"{spec.get('pain_threshold', '?')} points at two visits or more",
    }
    return definitions[outcome]
