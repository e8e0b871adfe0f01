"""Metrics, models and outcomes in the words of a paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    "auroc_of_kl_grade": "AUROC of KL grade alone",
    "auroc_above_kl_grade": "AUROC above that of KL grade alone",
    "auroc_kl_1_to_3": "AUROC, KL 1 to 3",
    "auroc_within_kl": "AUROC within each KL grade",
    "auroc_within_kl_1_to_3": "AUROC within each of KL 1 to 3",
    "integrated_brier": "Integrated Brier score",
    "uno_c": "Uno's C",
    "harrell_c": "Harrell's C",
}
MODEL_NAMES: Mapping[str, str] = {
    "clinical": "Clinical factors alone (logistic)",
    "clinical_boosted": "Clinical factors alone (boosted trees)",
    "kl_grade": "KL grade alone",
    "clinical+kl": "Clinical factors and KL grade",
    "mjsw": "Minimum joint-space width alone",
    "kl+grader": "KL grade and the grader's probabilities",
    "clinical+kl+grader": "Clinical factors, KL grade and the grader's probabilities",
}
"""The simple models of a comparison; a run is named by what it was told."""
_OTHER_KNEE, _NAME_OF_OTHER = "contralateral_kl_grade", "KL grade of the other knee"
_GRADES_IN_WORDS = {"KL grade as read", "KL grade as read and the grader's log-probabilities"}
"""What a simple model with clinical factors is told beside them."""
_OWN_NAMES = ("image", "fused")
"""Names of runs that say no more than their inputs do."""
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


def model_name(name: str, inputs: str = "") -> str:
    """A model of a comparison in words: a simple one by its name, a run by what it was told.

    Args:
        name: In ``compare.json``.
        inputs: What it was told, in the words of ``compare.json``.

    Example:
        >>> model_name("kl_grade"), model_name("image", "image")
        ('KL grade alone', 'Image only')
        >>> model_name("fused", "image, KL grade as read, age_years, sex")
        'Image, KL grade as read and clinical factors'
        >>> model_name("resnet", "image, no reading of either knee")
        'Image only, without a reading (resnet)'
        >>> model_name("clinical+kl", "KL grade as read, contralateral_kl_grade")
        'KL grade of the other knee and KL grade'
    """
    seen, *others = inputs.partition(";")[0].split(", ")
    if name in MODEL_NAMES:
        has_factors = name.startswith("clinical")
        is_reading_alone = has_factors and {seen, *others} - _GRADES_IN_WORDS == {_OTHER_KNEE}
        label = MODEL_NAMES[name]
        return label.replace("Clinical factors", _NAME_OF_OTHER) if is_reading_alone else label
    if seen != "image":
        return "The fused model" if name == "fused" else name
    grades = [each for each in others if each.startswith("KL grade")]
    unread = [each for each in others if each.startswith("no reading")]
    factors = [each for each in others if each not in {*grades, *unread}]
    told = _NAME_OF_OTHER if factors == [_OTHER_KNEE] else "clinical factors"
    parts = ["Image", *grades, *([told] if factors else [])]
    label = listed(parts) if len(parts) > 1 else "Image only"
    label += ", without a reading" if unread else ""
    return label if name in _OWN_NAMES else f"{label} ({name})"


def model_names(names: Iterable[str], inputs: Mapping[str, str]) -> dict[str, str]:
    """Each model of a comparison in words of its own; see :func:`model_name`."""
    found = {name: model_name(name, inputs.get(name, "")) for name in names}
    labels = list(found.values())
    # two runs that were told the same
    return {n: f"{x} ({n})" if labels.count(x) > 1 else x for n, x in found.items()}


def in_a_sentence(name: str) -> str:
    """A name in the middle of a sentence: small, unless its first word has further capitals.

    Example:
        >>> in_a_sentence("Image only"), in_a_sentence("KL grade alone")
        ('image only', 'KL grade alone')
        >>> in_a_sentence("Clinical factors and KL grade")
        'clinical factors and KL grade'
    """
    word = name.partition(" ")[0]
    return name if word[1:] != word[1:].lower() else name[:1].lower() + name[1:]


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
