"""What ``explain`` cannot do is said, and nothing half-written stays."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from kneeoa_mm.errors import ConfigError, InputError, KneeOAError, ModelFolderError
from kneeoa_mm.learning import backbones
from kneeoa_mm.learning.inference import predict_knees
from kneeoa_mm.learning.models import load_ensemble
from kneeoa_mm.learning.networks import KLNetwork
from kneeoa_mm.learning.saliency import explain as stage
from kneeoa_mm.learning.saliency import run as saliency_run
from kneeoa_mm.learning.saliency.explain import explain
from kneeoa_mm.learning.sources import read_knees
from kneeoa_mm.settings import ExplainConfig

QUICK = {"steps": 2, "draws": 2, "occlusion_window": 0.5, "occlusion_stride": 0.5}


def run(folder, out, *, model="kl", knees=None, **settings):
    options = {name: settings.pop(name) for name in ("limit", "clinical") if name in settings}
    config = ExplainConfig(**({"methods": ("gradcam",)} | QUICK | settings))
    data = folder / "knees" if knees is None else knees
    return explain(data, folder / model, out, config=config, device="cpu", **options)


def test_a_folder_without_a_model_is_refused(folder, tmp_path):
    with pytest.raises(ModelFolderError):
        run(folder, tmp_path / "out", model="knees")
    assert not (tmp_path / "out").exists()


def test_a_table_without_images_is_refused(folder, tmp_path):
    table = pd.read_parquet(folder / "knees" / "knees.parquet").drop(columns="image_path")
    table.to_csv(tmp_path / "knees.csv", index=False)
    with pytest.raises(KneeOAError, match="image_path"):
        run(folder, tmp_path / "out", knees=tmp_path / "knees.csv")
    assert not (tmp_path / "out").exists()


def test_a_table_whose_images_are_gone_stops_before_anything_is_written(folder, tmp_path):
    table = pd.read_parquet(folder / "knees" / "knees.parquet")
    table.to_csv(tmp_path / "knees.csv", index=False)
    with pytest.raises(InputError, match="No image of the knees can be read"):
        run(folder, tmp_path / "out", knees=tmp_path / "knees.csv")
    assert not (tmp_path / "out").exists()


def test_an_answer_that_the_model_does_not_give_stops_before_anything_is_written(folder, tmp_path):
    with pytest.raises(ConfigError, match="no progression"):
        run(folder, tmp_path / "out", target="progression")
    assert not (tmp_path / "out").exists()


def test_a_network_without_feature_maps_has_no_grad_cam_but_other_maps(
    folder, tmp_path, monkeypatch
):
    """As a vision transformer, which is too large for a test."""
    monkeypatch.setattr(backbones, "_FEATURE_MAPS", ())
    with pytest.raises(ConfigError, match="Grad-CAM"):
        run(folder, tmp_path / "out", limit=1)
    assert not (tmp_path / "out").exists()
    assert run(folder, tmp_path / "out", methods=("saliency",), limit=1).counts["maps"] == 1


def test_a_network_whose_maps_are_all_too_coarse_is_named(folder, write_member, tmp_path):
    write_member(tmp_path / "coarse", "00", KLNetwork("simple_cnn"), size_px=12, kind="kl")
    result = run(folder, tmp_path / "out", model=tmp_path / "coarse", limit=1)
    assert any("00 has no layer with 7 x 7 cells" in note for note in result.notes)


def test_a_picture_that_is_stored_on_its_side_has_its_map_where_an_upright_one_has(
    folder, tmp_path, knee_of_grade
):
    """As cameras store them: Exif says which edge is up."""
    knee = knee_of_grade(2, np.random.default_rng(0))
    upright = Image.fromarray(np.pad(knee, ((20, 30), (0, 0)), constant_values=40))
    on_its_side = Image.Exif()
    on_its_side[0x0112] = 6
    for name, picture, exif in (
        ("upright", upright, Image.Exif()),
        ("sideways", upright.transpose(Image.Transpose.ROTATE_90), on_its_side),
    ):
        (tmp_path / name).mkdir()
        picture.save(tmp_path / name / "1R.png", exif=exif)
        run(folder, tmp_path / f"of_{name}", knees=tmp_path / name)
    expected, found = (tmp_path / f"of_{name}" for name in ("upright", "sideways"))
    for table in ("saliency.csv", "overlays/-_1_-_R.png"):
        assert (found / table).read_bytes() == (expected / table).read_bytes(), table


def test_one_knee_is_checked_without_intervals(folder, tmp_path):
    run(folder, tmp_path / "out", limit=1, check=True, removal_steps=2)
    table = pd.read_csv(tmp_path / "out" / "faithfulness.csv")
    known = table.dropna(subset="value")
    assert len(known) > 8
    assert known["ci_low"].isna().all()
    assert known["reason"].str.contains("10 persons").all()


def test_gradient_shap_compares_knees_with_each_other_where_there_are_no_more(folder, tmp_path):
    run(folder, tmp_path / "out", methods=("gradient_shap",), limit=6)
    rows = pd.read_csv(tmp_path / "out" / "saliency.csv")
    assert rows["status"].tolist() == ["ok"] * 6


def test_an_interrupted_run_holds_whole_files_and_no_summary(folder, tmp_path, monkeypatch):
    once = iter([stage.explain_knee])

    def interrupted(*arguments):
        for real in once:
            return real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "explain_knee", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "out", limit=3)
    left = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert "saliency.json" not in left
    assert not any(name.startswith(".") for name in left), "no lock, nothing unfinished"
    for path in (tmp_path / "out" / "images").iterdir():
        Image.open(path).load()


def test_a_fused_model_without_a_table_says_that_its_factors_are_imputed(folder, tmp_path):
    config = {"methods": ("integrated_gradients",), "limit": 1}
    result = run(folder, tmp_path / "alone", model="fused", **config)
    assert any("age_years, sex" in note for note in result.notes)
    few = tmp_path / "few.csv"
    few.write_text("knee_id,age_years,sex\ntrial:0:0:L,60,F\n")
    config["limit"] = 2
    result = run(folder, tmp_path / "few", model="fused", clinical=few, **config)
    assert any("1 knees are not in the clinical table" in note for note in result.notes)
    few.write_text("knee_id,age_years,sex\nother,60,F\n")
    with pytest.raises(InputError, match=r"none of the knees(.|\n)*trial:0:0:L"):
        run(folder, tmp_path / "none", model="fused", clinical=few, **config)
    assert not (tmp_path / "none").exists()


def test_integrated_gradients_that_do_not_add_up_are_named(folder, tmp_path, monkeypatch):
    config = {"methods": ("integrated_gradients",), "limit": 1}
    monkeypatch.setattr(saliency_run, "_WIDE_GAP", 0.0)
    notes = run(folder, tmp_path / "out", **config).notes
    assert any("off the difference that they share out" in note for note in notes)
    monkeypatch.setattr(saliency_run, "_WIDE_GAP", 10.0)
    notes = run(folder, tmp_path / "other", **config).notes
    assert not any("off the difference" in note for note in notes)


def test_mean_maps_of_several_answers_are_named(folder, tmp_path):
    result = run(folder, tmp_path / "out", limit=3)
    answers = pd.read_csv(tmp_path / "out" / "saliency.csv")["target"].nunique()
    assert any("different answers" in note for note in result.notes) == (answers > 1)
    result = run(folder, tmp_path / "one", limit=3, target="kl_2_or_more")
    assert not any("different answers" in note for note in result.notes)


def test_a_grade_of_a_fused_model_has_maps_and_no_factors(folder, tmp_path):
    run(folder, tmp_path / "out", model="fused", methods=("saliency",), target="grade", limit=1)
    assert not (tmp_path / "out" / "factors.csv").exists()
    with np.load(next((tmp_path / "out" / "maps").iterdir())) as maps:
        assert maps["mean/saliency"].any()


def test_the_members_that_speak_are_those_that_predict(folder, write_member, tmp_path):
    """A member that was chosen on a person is silent where another never met them."""
    for name, selection in (("00", ["0"]), ("01", [])):
        network = KLNetwork("simple_cnn")
        write_member(tmp_path / "run", name, network, selection=selection, kind="kl")
    run(folder, tmp_path / "out", model=tmp_path / "run", methods=("saliency",), limit=2)
    rows = pd.read_csv(tmp_path / "out" / "saliency.csv", dtype={"member": str})
    assert rows.groupby("knee_id")["member"].agg(set).tolist() == [{"01"}, {"00", "01", "mean"}]


def test_the_grade_that_is_explained_is_the_one_that_is_predicted(folder, write_member, tmp_path):
    """Three members are weakly for 2, two strongly for 3: the votes say 2, the mean says 3."""
    for number, odds in enumerate([{2: 0.2}] * 3 + [{3: 4.0}] * 2):
        network = KLNetwork("simple_cnn")
        with torch.no_grad():
            network.kl_head.weight.mul_(1e-3)
            network.kl_head.bias.copy_(torch.tensor([odds.get(grade, 0.0) for grade in range(5)]))
        write_member(tmp_path / "run", f"{number:02d}", network, kind="kl")
    knees = read_knees(folder / "knees").head(1)
    predicted, _ = predict_knees(load_ensemble(tmp_path / "run"), knees, device="cpu")
    assert predicted["kl_grade_pred"].tolist() == [2]
    assert predicted["kl_prob_3"].item() > predicted["kl_prob_2"].item()
    run(folder, tmp_path / "out", model=tmp_path / "run", methods=("saliency",), limit=1)
    explained = pd.read_csv(tmp_path / "out" / "saliency.csv")
    assert set(explained["kl_grade_pred"]) == {2}
    assert set(explained["target"]) == {"kl_grade_2"}


def other_persons(folder, path, subjects):
    """The first knees, as if they were those of other persons."""
    table = pd.read_parquet(folder / "knees" / "knees.parquet").iloc[: len(subjects)]
    images = [str(folder / "knees" / image) for image in table["image_path"]]
    sides = ["LR"[subjects[:number].count(each)] for number, each in enumerate(subjects)]
    ids = [f"trial:{subject}:0:{side}" for subject, side in zip(subjects, sides, strict=True)]
    table.assign(
        knee_id=ids, subject_id=subjects, laterality=sides, image_path=images, flipped=True
    ).to_csv(path, index=False)
    return path


def test_identifiers_that_files_cannot_tell_apart_have_files_of_their_own(folder, tmp_path):
    knees = other_persons(folder, tmp_path / "knees.csv", ["a b", "a_b", "A b"])
    run(folder, tmp_path / "out", knees=knees)
    rows = pd.read_csv(tmp_path / "out" / "saliency.csv")
    for column in ("image", "map", "overlay"):
        assert rows[column].str.casefold().nunique() == 3
        assert all((tmp_path / "out" / name).is_file() for name in rows[column])


def test_a_knee_that_cannot_be_read_takes_no_weight_from_its_person(folder, tmp_path):
    knees = other_persons(folder, tmp_path / "knees.csv", ["1", "1", "2"])
    table = pd.read_csv(knees)
    table.assign(image_path=table["image_path"].mask([False, True, False], "gone.png")).to_csv(
        knees, index=False
    )
    run(folder, tmp_path / "all", knees=knees)
    table.iloc[[0, 2]].to_csv(knees, index=False)
    run(folder, tmp_path / "readable", knees=knees)
    with (
        np.load(tmp_path / "all" / "mean_maps.npz") as found,
        np.load(tmp_path / "readable" / "mean_maps.npz") as expected,
    ):
        np.testing.assert_allclose(found["all/image"], expected["all/image"])
