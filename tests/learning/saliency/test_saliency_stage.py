"""``explain`` from models and knees to its files."""

import itertools
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kneeoa_mm.errors import ConfigError, InputError, ItemError
from kneeoa_mm.learning.models import load_ensemble
from kneeoa_mm.learning.networks import ProgressionNetwork
from kneeoa_mm.learning.saliency.explain import explain
from kneeoa_mm.learning.saliency.explained_knee import explain_knee
from kneeoa_mm.learning.saliency.sample import Sample
from kneeoa_mm.learning.sources import read_knees
from kneeoa_mm.settings import ExplainConfig

QUICK = {"steps": 4, "draws": 4, "occlusion_window": 0.25, "occlusion_stride": 0.25}
ALL_METHODS = ("gradcam", "saliency", "integrated_gradients", "occlusion", "gradient_shap")


def read_film(films):
    def read(source):
        if not (films / source).is_file():
            raise ItemError("E_READ", "it is gone", stage="read")
        return np.asarray(Image.open(films / source), dtype=np.float32)

    return read


@pytest.fixture(scope="module")
def explained(folder):
    """Everything at once; the film of the first knee is gone."""
    result = explain(
        folder / "knees",
        folder / "fused",
        folder / "out",
        config=ExplainConfig(methods=ALL_METHODS, check=True, repeat_knees=2, **QUICK),
        clinical=folder / "clinical.csv",
        joint_spaces=folder / "spaces.csv",
        read_film=read_film(folder / "films"),
        limit=3,
        device="cpu",
    )
    return folder / "out", result


def test_each_knee_is_explained_by_the_members_that_never_saw_its_person(explained):
    out, result = explained
    rows = pd.read_csv(out / "saliency.csv", dtype={"member": str})
    members = rows.groupby("knee_id")["member"].agg(lambda each: ",".join(sorted(set(each))))
    assert members["trial:0:0:L"] == "01,02,mean"
    assert set(members.drop("trial:0:0:L")) == {"00,01,02,mean"}
    assert set(rows["method"]) == set(ALL_METHODS)
    assert set(rows["outcome"]) == {"jsl_48m"}
    checked = pd.read_csv(out / "faithfulness_knees.csv", dtype={"member": str})
    spoke = checked.groupby("knee_id")["member"].agg(set)
    assert spoke["trial:0:0:L"] == {"01", "02"}, "every member that speaks is checked"
    assert not rows["seen_in_training"].any()
    assert result.counts["knees"] == 3
    assert len(rows) == result.counts["maps"] == 5 * (3 + 4 + 4)


def test_signed_maps_are_kept_as_they_are(explained):
    out, _ = explained
    rows = pd.read_csv(out / "saliency.csv")
    with np.load(out / rows["map"][0]) as maps:
        names = {f"{member}/{method}" for member in ("01", "02", "mean") for method in ALL_METHODS}
        assert set(maps) == names
        assert maps["01/integrated_gradients"].shape == (48, 48)
        assert maps["02/integrated_gradients"].shape == (40, 40)
        assert maps["mean/integrated_gradients"].shape == (40, 40), "as the first member sees"
        assert maps["mean/integrated_gradients"].min() < 0 < maps["mean/integrated_gradients"].max()


def test_the_mean_of_members_keeps_the_sum_of_their_contributions(explained):
    out, _ = explained
    with np.load(out / "maps" / "trial_0_0_L.npz") as maps:
        sums = [float(maps[f"{name}/integrated_gradients"].sum()) for name in ("01", "02", "mean")]
    assert sums[2] == pytest.approx(np.mean(sums[:2]), abs=2e-2)


def test_factors_stand_beside_the_picture_and_add_up_with_it(explained):
    out, _ = explained
    rows = pd.read_csv(out / "factors.csv", dtype={"member": str})
    assert set(rows["part"]) == {"picture", "age_years", "sex"}
    assert set(rows["method"]) == set(ALL_METHODS) - {"gradcam"}
    maps = pd.read_csv(out / "saliency.csv", dtype={"member": str})
    for method in ("integrated_gradients",):
        mine = rows[(rows["method"] == method) & (rows["member"] == "mean")]
        totals = mine.groupby("knee_id")["log_odds"].sum()
        own = maps[(maps["method"] == method) & (maps["member"] == "mean")].set_index("knee_id")
        explained_change = own["log_odds"] - own["reference_log_odds"] + own["gap_log_odds"]
        pd.testing.assert_series_equal(
            totals, explained_change, check_names=False, atol=1e-3, rtol=1e-3
        )


def test_overlays_lie_on_the_film_and_on_the_crop_where_the_film_is_gone(explained):
    out, result = explained
    rows = pd.read_csv(out / "saliency.csv").drop_duplicates("knee_id").set_index("knee_id")
    assert rows["drawn_on"].tolist() == ["knee image", "film", "film"]
    on_film = rows.iloc[1]
    place = on_film[["map_left_px", "map_top_px", "map_width_px", "map_height_px"]]
    assert place.tolist() == pytest.approx([20, 30, 80, 80])
    assert on_film["map_mirrored"]
    with Image.open(out / on_film["overlay"]) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (120, 200, 3)
    colourful = (pixels.max(axis=2) - pixels.min(axis=2)) > 8
    rows_px, columns_px = np.nonzero(colourful)
    assert colourful.any()
    assert (rows_px.min() >= 30, rows_px.max() < 110) == (True, True)
    assert (columns_px.min() >= 20, columns_px.max() < 100) == (True, True)
    assert any("1 overlays are drawn on the knee image" in note for note in result.notes)
    assert any("E_READ" in note for note in result.notes)


def test_the_table_of_checks_has_every_measure_with_its_knees_and_persons(explained):
    out, _ = explained
    table = pd.read_csv(out / "faithfulness.csv").set_index(["method", "measure"])
    for method in ALL_METHODS:
        assert table.loc[(method, "insertion_gain"), "n_knees"] == 3
        areas = table.loc[[("detail_order", "deletion_area"), (method, "deletion_area")], "value"]
        gain = table.loc[(method, "deletion_gain_over_detail"), "value"]
        assert gain == pytest.approx(areas.iloc[0] - areas.iloc[1])
        assert table.loc[(method, "joint_area_share"), "n_persons"] == 3
        assert table.loc[(method, "max_sensitivity"), "n_knees"] == 2
        assert table.loc[(method, "rank_correlation_everything"), "value"] < 1
    # 40 x 20 px of a box of 80 x 80 px
    area_share = table.loc[("saliency", "joint_area_share"), "value"]
    assert area_share == pytest.approx(40 * 20 / 80**2, rel=0.05)
    document = json.loads((out / "saliency.json").read_text())
    assert len(document["faithfulness"]) == len(table)
    assert {row["cells"] for row in document["gradcam_layers"]} == {"10x10", "12x12"}
    assert (out / "curves.csv").is_file()


def test_mean_maps_are_by_outcome_and_error_of_a_progression_model(explained):
    out, _ = explained
    with np.load(out / "mean_maps.npz") as means:
        groups = {name.split("/")[0] for name in means}
    grades = {name for name in groups if name.startswith("true_kl_")}
    assert {"all"} < groups - grades <= {
        "all", "event", "event_found", "event_missed", "no_event", "false_alarm", "no_event_found"
    }  # fmt: skip
    assert grades, "by grade as well, of a model of progression too"
    assert (out / "mean_maps.png").is_file()


def test_a_grader_is_explained_by_its_grade_and_says_that_it_knows_the_person(folder, tmp_path):
    result = explain(folder / "knees", folder / "kl", tmp_path / "out", limit=2, device="cpu")
    rows = pd.read_csv(tmp_path / "out" / "saliency.csv")
    assert rows["target"].str.fullmatch("kl_grade_[0-4]").all()
    assert rows["seen_in_training"].all()
    assert any("trained on" in note for note in result.notes)
    assert not (tmp_path / "out" / "factors.csv").exists()
    with np.load(tmp_path / "out" / "mean_maps.npz") as means:
        assert {"true_kl_0"} <= {name.split("/")[0] for name in means}


def test_the_same_run_gives_the_same_maps(folder, tmp_path):
    config = ExplainConfig(methods=("gradient_shap", "integrated_gradients"), **QUICK)
    for name in ("a", "b"):
        explain(
            folder / "knees", folder / "kl", tmp_path / name, config=config, limit=2, device="cpu"
        )
    for path in sorted((tmp_path / "a" / "maps").iterdir()):
        with np.load(path) as one, np.load(tmp_path / "b" / "maps" / path.name) as other:
            assert set(one) == set(other)
            assert all(np.array_equal(one[key], other[key]) for key in one)


def test_what_the_model_does_not_predict_is_not_explained(folder, tmp_path):
    with pytest.raises(ConfigError, match="no progression"):
        explain(
            folder / "knees",
            folder / "kl",
            tmp_path / "out",
            config=ExplainConfig(target="progression"),
            device="cpu",
        )


def test_an_image_that_cannot_be_read_is_counted_and_the_others_go_on(folder, tmp_path):
    shutil.copytree(folder / "knees", tmp_path / "knees")
    (tmp_path / "knees" / "images" / "0.png").write_bytes(b"")
    result = explain(tmp_path / "knees", folder / "kl", tmp_path / "out", limit=6, device="cpu")
    assert (result.failed, result.counts["knees"]) == (1, 5)


def test_at_least_one_knee_is_asked_for(folder, tmp_path):
    with pytest.raises(InputError, match="at least one"):
        explain(folder / "knees", folder / "kl", tmp_path / "out", limit=0)


def test_columns_of_factors_are_those_of_the_encoding(encoding):
    """A factor that alone is known alone changes its columns."""
    columns = encoding.columns
    assert sorted(itertools.chain(*columns.values())) == list(range(encoding.n_features))
    nobody = pd.DataFrame(index=["k"])
    for name, value in (("age_years", 70.0), ("sex", "M")):
        changed = encoding.transform(nobody.assign(**{name: value})) != encoding.transform(nobody)
        assert set(np.nonzero(changed[0])[0]) <= set(columns[name])


def test_a_read_grade_is_a_factor_of_a_model_that_wants_it(
    folder, write_member, encoding, tmp_path
):
    network = ProgressionNetwork(
        "simple_cnn", clinical_features=encoding.n_features, kl_input="read"
    )
    write_member(tmp_path / "run", "00", network)
    table = pd.read_csv(folder / "clinical.csv").assign(kl_grade=[0, 1, 2, 3, 4, None])
    knees = read_knees(folder / "knees").drop(columns="kl_grade")
    sample = Sample(
        load_ensemble(tmp_path / "run"), knees, len(knees), table.set_index("knee_id"), "cpu"
    )
    config = ExplainConfig(methods=("integrated_gradients",), **QUICK)
    found = explain_knee(sample, 2, config)
    assert set(found.mean[0].factors) == {"age_years", "sex", "kl_grade_read"}
    assert found.voices[0].question.clinical[0, -5:].tolist() == [0, 0, 1, 0, 0]
    unread = explain_knee(sample, 5, config)
    for part in unread.voices[0].question.inputs[1], unread.voices[0].question.reference_clinical:
        assert part[0, -5:].tolist() == [0] * 5, "compared with persons without a reading"
    assert unread.mean[0].factors["kl_grade_read"] == 0
