"""Metrics, models and outcomes in the words of a paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kneeoa_mm.analysis.report.shown import listed
from kneeoa_mm.analysis.results import OUTCOME_NAMES
from kneeoa_mm.analysis.targets import KL
from kneeoa_mm.cohort_spec import OutcomesSpec
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
_WIDTHS = {
    "mjsw_medial_mm": "minimum medial joint-space width",
    "jsw_fixed_mm": "joint-space width at a fixed location",
}
_LABEL_PARTS = ("", "_event_observed", "_lower_months", "_upper_months")
"""Endings of the columns in which a source may hold an outcome ready-made."""


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


def definition_of(outcome: Outcome, cohort: Mapping[str, Any]) -> str:
    """An outcome as a paper defines it; reads on after "was defined as".

    Args:
        outcome: Which.
        cohort: The cohort's settings, as ``config.yaml`` has them.
    """
    settings = cohort.get("outcomes")
    if not isinstance(settings, dict):
        return "its settings said, which the run lacks"
    # an older run lacks what was not yet a setting, and had what is now the default
    known = {name: settings[name] for name in settings if name in OutcomesSpec.model_fields}
    spec = OutcomesSpec.model_validate(known)
    by = f"{spec.horizon_of(outcome)} months"
    if made := _ready_made(outcome, cohort):
        # an interval becomes a value at our horizon; a value has that of its source
        until = "" if str(outcome) in made else f", judged at {by}"
        return f"its source defines it ({', '.join(made.values())}){until}"
    loss = f"a loss of at least {spec.jsl_threshold_mm:g} mm of {_WIDTHS[spec.width]}"
    rise = "a rise of the KL grade"
    if not spec.kl_step_to_doubtful_counts:
        rise += " to 2 or more"
    definitions = {
        Outcome.JSL_48M: f"{loss} from baseline to {by}, of knees below KL grade 4",
        Outcome.JSL_FNIH: f"{loss} on any film at {listed(spec.fnih_months)} months, of knees of "
        f"KL grade {listed(spec.fnih_kl_grades)}",
        Outcome.JSL_OR_KR_48M: f"{loss}, or replacement of the knee, by {by}, of knees below KL "
        "grade 4",
        Outcome.KL_PROGRESSION: f"{rise} within one reading project, from baseline to {by}, of "
        "knees below KL grade 4",
        Outcome.TKR: f"replacement of the knee by {by}",
        Outcome.PAIN_PROGRESSION: f"a rise of WOMAC pain by at least {spec.pain_threshold:g} of 20 "
        f"points at two or more of the visits at {listed(spec.pain_months)} months",
    }
    return definitions[outcome]


def _ready_made(outcome: Outcome, cohort: Mapping[str, Any]) -> dict[str, str]:
    """Columns of an outcome that the source holds ready-made, to their names there."""
    names = {f"{outcome}{part}" for part in _LABEL_PARTS}
    tables = cohort.get("tables") or {}
    return {
        name: str(column["column"])
        for table in tables.values()
        for name, column in table["columns"].items()
        if name in names
    }
