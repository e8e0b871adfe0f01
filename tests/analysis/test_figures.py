"""Figures: what they draw, and that they reach the disk whole and the same each time."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import binomtest

from kneeoa_mm.analysis import figure_style, figures, survival_figures
from kneeoa_mm.analysis.comparison_figures import calibration_panels, decision_curve
from kneeoa_mm.analysis.figures import Scored
from kneeoa_mm.analysis.nonparametric import cumulative_incidence
from kneeoa_mm.metrics import bootstrap_weights, decision_curves
from kneeoa_mm.records import Estimate


def _scored(seed: int = 0, n: int = 400) -> Scored:
    generator = np.random.default_rng(seed)
    probability = generator.random(n)
    return Scored((generator.random(n) < probability).astype(np.int64), probability)


def _texts(figure: Figure) -> set[str]:
    found = {text.get_text() for axes in figure.axes for text in axes.texts}
    for axes in figure.axes:
        legend = axes.get_legend()
        found |= {text.get_text() for text in legend.get_texts()} if legend else set()
    return found


def test_png_and_svg_are_whole_and_the_same_each_time(tmp_path):
    contents = []
    for folder in ("a", "b"):
        written = figure_style.save(
            figures.roc({"x": _scored()}, title="ROC"), tmp_path / folder, "roc"
        )
        contents.append([path.read_bytes() for path in written.values()])
    assert contents[0] == contents[1]
    with Image.open(io.BytesIO(contents[0][0])) as picture:
        picture.load()
        assert picture.width > 600
    assert contents[0][1].rstrip().endswith(b"</svg>")
    assert not list(tmp_path.rglob(".*"))


def test_the_confusion_matrix_shows_counts_and_shares_of_the_truth():
    counts = np.array([[3, 1], [0, 0]])
    shown = _texts(figures.confusion_matrix(counts, ["no", "yes"], title="t"))
    assert {"3\n75%", "1\n25%", "0"} == shown


def test_the_roc_legend_has_the_area():
    event, probability = np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.5, 0.9])
    shown = _texts(figures.roc({"KL 2": Scored(event, probability)}, title="t"))
    assert shown == {"KL 2   0.750"}


def test_precision_and_recall_mark_the_prevalence():
    scored = _scored()
    (axes,) = figures.precision_recall({"x": scored}, title="t").axes
    marks = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) == 2]
    assert any(np.allclose(y, scored.event.mean()) for y in marks)


def test_reliability_bins_hold_about_equal_counts_and_cover_a_calibrated_model():
    scored = _scored(n=5000)
    bins = figures.reliability_bins(scored)
    assert bins["n"].tolist() == [500] * 10
    assert np.all((bins["low"] <= bins["observed"]) & (bins["observed"] <= bins["high"]))
    inside = (bins["low"] <= bins["mean_probability"]) & (bins["mean_probability"] <= bins["high"])
    assert inside.sum() >= 8


def test_reliability_bins_do_not_depend_on_the_order_of_rows():
    """A model of few risks, as by grade, ties them; ties are never cut by where they stand."""
    generator = np.random.default_rng(1)
    probability = generator.choice([0.02, 0.1, 0.3, 0.35], 300, p=[0.5, 0.3, 0.15, 0.05])
    event = (generator.random(300) < probability).astype(np.int64)
    bins = figures.reliability_bins(Scored(event, probability))
    by_event = np.argsort(event)
    turned = figures.reliability_bins(Scored(event[by_event], probability[by_event]))
    for name in bins:
        np.testing.assert_allclose(turned[name], bins[name])
    # each risk is whole, in one bin
    assert bins["n"].sum() == 300
    assert {0.02, 0.1} <= set(bins["mean_probability"].round(9))


def test_limits_of_independent_knees_are_wilsons():
    """Oracle: scipy's Wilson interval."""
    scored = _scored(n=400)
    bins = figures.reliability_bins(scored, n_bins=1)
    oracle = binomtest(int(scored.event.sum()), 400).proportion_ci(method="wilson")
    assert (bins["low"][0], bins["high"][0]) == pytest.approx((oracle.low, oracle.high))


def test_a_second_knee_that_repeats_the_first_does_not_narrow_a_calibration_curve():
    """Oracle: the same persons with one knee each."""
    scored = _scored(n=400)
    persons = np.arange(400).astype(str)
    alone = figures.reliability_bins(scored, persons=persons)
    doubled = Scored(*(np.repeat(each, 2) for each in scored))
    twice = figures.reliability_bins(doubled, persons=np.repeat(persons, 2))
    for name in ("low", "high", "observed"):
        np.testing.assert_allclose(twice[name], alone[name], atol=1e-9)


def test_knees_count_as_often_as_their_shares_say_in_a_calibration_curve():
    """Oracle: the table in which each knee stands as often as it counts."""
    scored = _scored(n=400)
    persons = np.repeat(np.arange(200), 2).astype(str)
    counts = np.random.default_rng(4).integers(1, 4, 400)
    weighted = figures.reliability_bins(
        scored, n_bins=1, persons=persons, shares=counts.astype(float)
    )
    rows = np.repeat(np.arange(400), counts)
    repeated = figures.reliability_bins(
        Scored(scored.event[rows], scored.probability[rows]), n_bins=1, persons=persons[rows]
    )
    for name in ("low", "high", "observed", "mean_probability"):
        np.testing.assert_allclose(weighted[name], repeated[name])


def test_limits_of_a_bin_are_about_those_of_draws_of_persons():
    """Oracle: the percentiles of a bootstrap of persons, whose knees are alike."""
    generator = np.random.default_rng(3)
    of_person = generator.beta(1, 2, 300)
    event = (generator.random(600) < np.repeat(of_person, 2)).astype(np.int64)
    persons = np.repeat(np.arange(300), 2).astype(str)
    scored = Scored(event, np.full(600, 1 / 3))
    bins = figures.reliability_bins(scored, persons=persons)
    weights = bootstrap_weights(persons, n_boot=2000, seed=0).astype(float)
    low, high = np.percentile(event @ weights / weights.sum(axis=0), [2.5, 97.5])
    assert (bins["low"][0], bins["high"][0]) == pytest.approx((low, high), abs=0.006)


def test_few_knees_make_few_bins():
    assert len(figures.reliability_bins(_scored(n=25))["n"]) == 2
    assert len(figures.reliability_bins(_scored(n=3))["n"]) == 1


def test_incidence_is_drawn_for_groups_with_and_without_events(tmp_path):
    months, persons = np.array([12.0, 24, 24, 48]), np.arange(4).astype(str)
    curves = {
        "0": cumulative_incidence(months, np.zeros(4, dtype=int), persons),
        "1": cumulative_incidence(months, np.array([1, 1, 0, 0]), persons),
    }
    figure = survival_figures.incidence(
        curves, title="t", ylabel="y", group="KL grade", ordered=True
    )
    figure_style.save(figure, tmp_path, "incidence")
    at_risk = [t.get_text() for t in figure.axes[1].texts if t.get_text().isdigit()]
    # at 0, 12, 24, 36 and 48 months, for each group
    assert at_risk == ["4", "4", "3", "1", "1"] * 2


def test_estimates_without_a_value_are_left_out_of_a_forest():
    ratios = {
        "Age": Estimate(1.5, 1.2, 1.9, 100),
        "Sex": Estimate(None, n=100, reason="too few events"),
        "BMI": Estimate(1.1, None, None, 100, "no interval"),
    }
    (axes,) = survival_figures.ratios(ratios, title="t").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Age", "BMI"]
    assert {"1.50 (1.20 to 1.90)", "1.10"} <= _texts(survival_figures.ratios(ratios, title="t"))


def test_the_best_possible_stands_beside_the_models_that_it_bounds():
    models = {"image": Estimate(0.7, 0.6, 0.8, 9), "KL": Estimate(0.6, 0.5, 0.7, 9)}
    figure = figures.comparison(models, {"image": 0.75}, title="t", xlabel="AUROC")
    (marks,) = [line for line in figure.axes[0].lines if line.get_marker() == "D"]
    assert (marks.get_xdata().tolist(), marks.get_ydata().tolist()) == ([0.75], [0])


@pytest.mark.parametrize("n", [1, 2, 5])
def test_ordered_labels_get_different_colours(n):
    colours = figure_style.colours_of([str(i) for i in range(n)], ordered=True)
    assert len(set(colours)) == n


def test_drawing_leaves_the_settings_of_matplotlib_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    figures.roc({"x": _scored()}, title="t")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(("n_models", "numbered"), [(3, {0, 1, 2}), (5, {1, 2, 3, 4})])
def test_every_column_of_calibration_panels_ends_with_the_numbers_of_its_axis(n_models, numbered):
    """Where the last row is not full, the panels above its empty places have them."""
    bins = {"mean_probability": [0.1, 0.4], "observed": [0.1, 0.3]}
    bins |= {"low": [0.0, 0.2], "high": [0.2, 0.5]}
    figure = calibration_panels({f"model {i}": bins for i in range(n_models)}, title="Loss")
    figure.canvas.draw()
    shown = [axes for axes in figure.axes if axes.get_visible()]
    told = {
        place
        for place, axes in enumerate(shown)
        if any(label.get_visible() and label.get_text() for label in axes.get_xticklabels())
    }
    assert told == numbered


@pytest.mark.parametrize("level", ["$10K to $25K", r"$\frac{$"])
def test_a_dollar_in_a_table_is_no_formula(level):
    """Incomes, for one; as a formula they lose their spaces, or cannot be read."""
    figure = figures.comparison({level: Estimate(0.7, 0.6, 0.8, 20)}, {}, title="t", xlabel="AUROC")
    svg = figure_style.rendered(figure)["svg"].decode()
    assert level in svg
    [label] = figure.axes[0].get_yticklabels()
    assert not label.get_parse_math()


def test_a_decision_curve_of_a_rare_event_shows_the_whole_model():
    """Treating all gains next to nothing there, and a good model most of the prevalence."""
    event = (np.arange(2000) < 40).astype(np.int64)
    risk = np.where(event == 1, 0.4, 0.005)
    found = decision_curves(event, {"model": risk})
    model = found["models"]["model"]
    figure = decision_curve(model, found["treat_all"], thresholds=found["thresholds"], title="t")
    assert figure.axes[0].get_ylim()[1] > max(model)
