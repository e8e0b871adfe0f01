"""The section on saliency: a gallery by error, mean maps, and whether the maps are believable."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from kneeoa_mm.analysis.covariates import label_of
from kneeoa_mm.analysis.report.parts import NOTHING, Section, Table
from kneeoa_mm.analysis.report.runs import Run, flat_provenance, read_csv, read_document
from kneeoa_mm.analysis.report.shown import counted, listed, plain, show, with_interval
from kneeoa_mm.analysis.report.words import in_a_sentence
from kneeoa_mm.analysis.results import OUTCOME_NAMES
from kneeoa_mm.records import Estimate

_PROGRESSION = "progression"
_MAX_OVERLAYS = 12
_PER_SIDE = 4
_METHOD_NAMES = {
    "gradcam": "Grad-CAM",
    "saliency": "Input gradient",
    "gradient_shap": "Gradient SHAP",
}
_LIMIT = "A saliency map shows what moved the network's output, not where disease is."


class _Error(NamedTuple):
    """How far the answer about a knee was from the truth, and in words."""

    size: float
    text: str


def saliency_section(run: Run) -> Section:
    """Overlays of what moved a model's output, the worst errors beside the best."""
    maps = read_csv(run.path / "saliency.csv")
    told = run.path / "saliency.json"
    document = read_document(told) if told.is_file() else {}
    section = Section("saliency", "Saliency", run.name)
    section.limits += [str(limit) for limit in document.get("limits", [_LIMIT])]
    if not {"knee_id", "image"} <= set(maps.columns) or maps.empty:
        section.summary = "No maps."
        return section
    images = maps.drop_duplicates("image")
    named = ("package_version", "members")
    section.provenance = flat_provenance({k: v for k, v in document.items() if k in named})
    _add_gallery(section, run, images, by_error=document.get("chosen") == "by error")
    if (run.path / "mean_maps.png").is_file():
        caption = "Mean knee and mean maps, all as right knees, by group; each person counts once."
        section.add_picture(run.path / "mean_maps.png", caption, wide=True)
    if "status" in maps and (odd := maps[maps["status"] != "ok"]["status"].value_counts()).any():
        counts = ", ".join(f"{n} {status}" for status, n in odd.items())
        section.notes.append(f"Maps that are not ordinary: {counts}.")
    _add_factors(section, read_csv(run.path / "factors.csv"))
    _add_faithfulness(section, read_csv(run.path / "faithfulness.csv"))
    _tell(section, maps, len(images))
    return section


def _tell(section: Section, maps: pd.DataFrame, n_knees: int) -> None:
    names = maps["method"].unique() if "method" in maps else ["maps"]
    methods = listed(in_a_sentence(_method(name)) for name in names)
    text = f"{methods}, of {counted(n_knees, 'knee')}"
    if "target" in maps:
        text += f"; answer: {listed(map(plain, maps['target'].unique()))}"
    section.tell("methods", text[:1].upper() + text[1:], "saliency.csv")
    section.methods.append(f"What moved the output was shown by {text}.")


def _add_gallery(section: Section, run: Run, images: pd.DataFrame, *, by_error: bool) -> None:
    """Pairs of the worst and the best answer; without truth, the first knees."""
    errors = _errors(run, images)
    rows = {str(row["knee_id"]): row for row in images.to_dict("records")}
    if len(errors) < 2:
        section.notes.append(
            _why_not_ordered(run, images)
            if not errors
            else "The truth of one knee alone is in the report: there is no best and worst."
        )
        shown = list(rows)[:_MAX_OVERLAYS]
        section.summary = f"{counted(len(images), 'knee')}, of which {len(shown)} are shown."
        for knee in shown:
            answer = plain(rows[knee].get("target", ""))
            _add_overlay(section, run.path, rows[knee]["image"], f"{knee}: {answer}")
        return
    order = sorted(errors, key=lambda knee: errors[knee].size, reverse=True)
    n = min(_PER_SIDE, len(order) // 2)
    how = "those answered worst and best by all" if by_error else "not chosen by their error"
    section.summary = (
        f"{counted(len(images), 'knee')}, {how}, of which the truth of {len(errors)} is known: of "
        f"these, the {n} worst answers and the {n} best, in turn."
    )
    if by_error:
        section.limits.append(
            "Knees were chosen by their error: mean maps and checks are of extremes, not of the "
            "model's usual answers."
        )
    for worst, best in zip(order[:n], reversed(order[-n:]), strict=True):
        for side, knee in (("Worst", worst), ("Best", best)):
            caption = f"{side} of {len(errors)} explained: {knee}; {errors[knee].text}."
            _add_overlay(section, run.path, rows[knee]["image"], caption)
    section.tell("failures", f"{section.summary}", "images/")


def _why_not_ordered(run: Run, images: pd.DataFrame) -> str:
    of_risks = images.get("target", pd.Series(dtype=str)).eq(_PROGRESSION).any()
    if of_risks and "outcome" not in images and len(run.predicted_outcomes()) > 1:
        return (
            "Several outcomes are predicted and saliency.csv does not say which of them the maps "
            "are of, so knees cannot be ordered by error; run explain again."
        )
    return (
        "No truth of these knees is in the report, so they cannot be ordered by error; give "
        "the cohort, or predictions with the truth, as well."
    )


def _add_overlay(section: Section, folder: Path, name: str, caption: str) -> None:
    path = folder / name
    # the table names the picture: never read one from outside the run
    if path.resolve().is_relative_to(folder.resolve()):
        section.add_picture(path, caption, wide=True)


def _errors(run: Run, images: pd.DataFrame) -> dict[str, _Error]:
    """Error of each knee whose truth is known."""
    truth = run.truth()
    outcomes = run.predicted_outcomes()
    found = {}
    for row in images.to_dict("records"):
        knee = str(row["knee_id"])
        if knee not in truth.index:
            continue
        known = truth.loc[knee]
        outcome = row.get("outcome") or (str(outcomes[0]) if len(outcomes) == 1 else "")
        error = None
        if row.get("target") != _PROGRESSION:
            error = _of_grade(row.get("kl_grade_pred", ""), known["kl_grade"])
        elif outcome in OUTCOME_NAMES:
            name = in_a_sentence(OUTCOME_NAMES[outcome])
            error = _of_risk(row.get("risk", ""), known[outcome], name)
        if error is not None:
            found[knee] = error
    return found


def _of_grade(predicted: object, truth: object) -> _Error | None:
    if not str(predicted).isdigit() or pd.isna(truth):
        return None
    size = abs(int(str(predicted)) - int(truth))  # type: ignore[call-overload]
    return _Error(size, f"KL {predicted} predicted, {truth} read")


def _of_risk(risk: object, event: object, name: str) -> _Error | None:
    try:
        value = float(str(risk))
    except ValueError:
        return None
    if pd.isna(event):
        return None
    happened = int(event)  # type: ignore[call-overload]
    text = f"risk {value:.2f}, {name}: {'yes' if happened else 'no'}"
    return _Error(abs(value - happened), text)


def _add_factors(section: Section, factors: pd.DataFrame) -> None:
    """How far the picture and each factor moved the output, over knees."""
    if not {"part", "method", "log_odds", "knee_id"} <= set(factors.columns):
        return
    values = pd.to_numeric(factors["log_odds"], errors="coerce")
    by_knee = (
        factors.assign(size=values.abs()).groupby(["method", "part", "knee_id"])["size"].mean()
    )
    mean = by_knee.groupby(level=[0, 1]).mean().unstack(0)
    rows = [
        [_part(part), *(show(None if pd.isna(cell) else float(cell)) for cell in row)]
        for part, row in zip(mean.index, mean.to_numpy(), strict=True)
    ]
    rows.sort(key=lambda row: row[1], reverse=True)
    heads = [_method(name) for name in mean.columns]
    caption = "Mean size of what the picture and each factor changed, in log-odds, over knees."
    section.tables.append(Table(caption, ["Part", *heads], rows))


def _part(name: object) -> str:
    """A clinical factor by its label; the picture, and what has none, in plain words."""
    label = label_of(str(name))
    return plain(name).capitalize() if label == name else label


def _add_faithfulness(section: Section, checks: pd.DataFrame) -> None:
    if not {"method", "measure", "value", "ci_low", "ci_high"} <= set(checks.columns):
        section.notes.append(
            "The maps were not checked (explain --check), so nothing here says whether they can be "
            "believed."
        )
        return
    methods = list(dict.fromkeys(checks["method"]))
    cells = {(row["measure"], row["method"]): row for row in checks.to_dict("records")}
    meanings, rows = [], []
    for measure in dict.fromkeys(checks["measure"]):
        found = [cells.get((measure, method)) for method in methods]
        shown = [NOTHING if row is None else with_interval(_estimate(row), 2) for row in found]
        name = plain(measure).capitalize()
        rows.append([name, *shown])
        meanings.append([name, next((str(r.get("meaning", "")) for r in found if r), "")])
    caption = "Is it believable? Mean over knees with the 95 % interval of a bootstrap of persons."
    section.tables.append(Table(caption, ["Measure", *map(_method, methods)], rows))
    section.tables.append(Table("What the measures mean.", ["Measure", "Meaning"], meanings))
    section.tell("faithfulness", f"{len(rows)} measures with intervals", "faithfulness.csv")


def _method(name: object) -> str:
    return _METHOD_NAMES.get(str(name), plain(name).capitalize())


def _estimate(row: dict[str, str]) -> Estimate:
    def number(name: str) -> float | None:
        return float(row[name]) if row.get(name) else None

    return Estimate(number("value"), number("ci_low"), number("ci_high"), 0, row.get("reason"))
