"""An export says what the model says, in other programs and in half the bytes."""

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load, load_file, save
from scipy.ndimage import gaussian_filter, map_coordinates
from typer.testing import CliRunner

from kneeoa_mm.cli import app
from kneeoa_mm.errors import InputError, KneeOAError, ModelFolderError
from kneeoa_mm.learning import onnx_graph
from kneeoa_mm.learning.clinical import ClinicalEncoding
from kneeoa_mm.learning.export import export, halved
from kneeoa_mm.learning.familiarity import fit
from kneeoa_mm.learning.features import encode
from kneeoa_mm.learning.inference import ask_member, predict_member
from kneeoa_mm.learning.models import load_ensemble, load_model
from kneeoa_mm.learning.networks import build_network
from kneeoa_mm.model_folder import ModelCard, Preprocessing, SeenSubjects, read_model, write_model

GRADES = tuple(f"kl_prob_{grade}" for grade in range(5))


def write_member(folder, architecture, *, seed, size=32, outputs=GRADES, clinical=None):
    """A network that nobody trained, but whose batch statistics are not those of a new one."""
    torch.manual_seed(seed)
    network = build_network(architecture).train()
    with torch.no_grad():
        for _ in range(20):
            network.encoder(torch.randn(8, 1, size, size))
    card = ModelCard(
        architecture=network.architecture,
        kind="jsl" if clinical else "kl",
        outputs=outputs,
        preprocessing=Preprocessing(
            image_size_px=size, mean=0.4, std=0.3, clip_percentiles=(1, 99), reinvert_negatives=True
        ),
        clinical=clinical,
        seen_subjects=SeenSubjects.of([], [], salt=b"salt"),
    )
    return write_model(folder, card, save(network.state_dict()))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two graders with heads of different kinds and images of different sizes."""
    out = tmp_path_factory.mktemp("run")
    architecture = {"network": "kl", "backbone": "simple_cnn"}
    write_member(out / "members" / "00-a", architecture | {"head": "softmax"}, seed=1)
    write_member(out / "members" / "01-b", architecture | {"head": "coral"}, seed=2, size=48)
    (out / "ensemble.json").write_text('{"voting": "soft", "test_time_flip": true}')
    (out / "config.yaml").write_text("seed: 3\n")
    return out


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    """A model of progression that wants clinical factors."""
    table = pd.DataFrame({"age_years": [50.0, 60.0, 70.0], "sex": ["F", "M", "F"]})
    encoding = ClinicalEncoding.fit(table)
    architecture = {
        "network": "progression",
        "backbone": "simple_cnn",
        "head": "corn",
        "clinical_features": encoding.n_features,
        "clinical_width": 4,
        "dropout": 0.2,
    }
    outputs = (*GRADES, "jsl_48m_prob")
    folder = tmp_path_factory.mktemp("fused") / "model"
    clinical = encoding.to_card()
    return write_member(folder, architecture, seed=3, outputs=outputs, clinical=clinical)


def some_images(n, size):
    generator = np.random.default_rng(7)
    return torch.from_numpy(generator.integers(0, 256, (n, size, size), dtype=np.uint8))


@pytest.mark.parametrize(("crops", "flip"), [(0, False), (2, False), (4, True)])
def test_the_contract_says_in_numbers_what_is_averaged_over(run, tmp_path, crops, flip):
    """By its words alone, with another library's interpolation, the same views are made."""
    copy = shutil.copytree(run, tmp_path / "run")
    rules = {"test_time_crops": crops, "test_time_flip": flip}
    (copy / "ensemble.json").write_text(json.dumps(rules))
    export(copy, tmp_path / "onnx")
    stated = json.loads((tmp_path / "onnx" / "contract.json").read_text())["views"]
    image = gaussian_filter(np.random.default_rng(0).random((32, 32)), 2)
    u = (np.arange(32) + 0.5) / 16 - 1
    made = []
    for crop in stated["crops"]:
        down, across = (
            ((crop["scale"] * u + 2 * crop[name]) + 1) * 16 - 0.5 for name in ("down", "across")
        )
        grid = np.meshgrid(down, across, indexing="ij")
        made.append(map_coordinates(image, grid, order=1, mode="nearest"))
    made += [view[:, ::-1] for view in made] if stated["flip"] else []
    views = load_ensemble(copy).views.of(torch.from_numpy(image)[None, None])
    np.testing.assert_allclose(np.stack(made), torch.cat(list(views))[:, 0], atol=1e-6)


def test_onnx_runtime_grades_by_the_contract_as_the_model_does(run, tmp_path):
    import onnxruntime

    export(run, tmp_path / "onnx")
    contract = json.loads((tmp_path / "onnx" / "contract.json").read_text())
    assert contract["ensemble"] == {"voting": "soft", "test_time_flip": True}
    for entry, member in zip(contract["members"], load_ensemble(run).members, strict=True):
        file = tmp_path / "onnx" / entry["file"]
        assert entry["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert entry["outputs"] == list(GRADES)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        for n in (1, 3, 7):
            images = some_images(n, entry["preprocessing"]["image_size_px"])
            grey = images.numpy()[:, None].astype(np.float32) / 255
            (found,) = session.run(None, {"images": grey})
            expected = predict_member(member, {"images": images}, device="cpu")
            np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("factors", [(), ("age_years", "contralateral_kl_grade")])
def test_a_model_with_the_reading_takes_it_and_goes_without_where_it_is_blank(tmp_path, factors):
    import onnxruntime

    known = pd.DataFrame({"age_years": [55.0, 65.0, 60.0], "contralateral_kl_grade": [0, 2, 3]})
    encoding = ClinicalEncoding.fit(known[[*factors]])

    architecture = {
        "network": "progression",
        "backbone": "simple_cnn",
        "kl_input": "read",
        "visits_months": [24, 48],
        "horizon_months": 48,
        "clinical_features": encoding.n_features,
        "reading_columns": encoding.reading_columns,
    }
    columns = ("tkr_cif_24", "tkr_cif_48", "tkr_prob", "tkr_prob_without_reading")
    clinical = encoding.to_card() if factors else None
    outputs = (*GRADES, *columns)
    folder = write_member(tmp_path / "m", architecture, seed=4, outputs=outputs, clinical=clinical)
    export(folder, tmp_path / "risk.onnx")
    session = onnxruntime.InferenceSession(
        tmp_path / "risk.onnx", providers=["CPUExecutionProvider"]
    )
    images, read = some_images(3, 32), torch.eye(5)[:3]
    read[1] = 0
    further = {"kl_read": read}
    if factors:
        further["clinical"] = torch.from_numpy(encoding.transform(known))
    inputs = {name: values.numpy() for name, values in further.items()}
    inputs["images"] = images.numpy()[:, None].astype(np.float32) / 255
    (found,) = session.run(None, inputs)
    expected = predict_member(load_model(folder), {"images": images, **further}, device="cpu")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found[1, -2] == pytest.approx(found[1, -1], abs=1e-6)
    assert abs(found[0, -2] - found[0, -1]) > 1e-4


def test_a_progression_model_becomes_one_file_that_wants_clinical_factors(fused, tmp_path):
    import onnxruntime

    result = export(fused, tmp_path / "risk.onnx")
    assert set(result.outputs.values()) == {tmp_path / "risk.onnx", tmp_path / "risk.json"}
    session = onnxruntime.InferenceSession(
        tmp_path / "risk.onnx", providers=["CPUExecutionProvider"]
    )
    model = load_model(fused)
    factors = torch.randn(4, model.network.architecture["clinical_features"])
    images = some_images(4, 32)
    inputs = {
        "images": images.numpy()[:, None].astype(np.float32) / 255,
        "clinical": factors.numpy(),
    }
    (found,) = session.run(None, inputs)
    expected = predict_member(model, {"images": images, "clinical": factors}, device="cpu")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    (entry,) = json.loads((tmp_path / "risk.json").read_text())["members"]
    assert entry["clinical"]["categorical"] == {"sex": ["F", "M"]}


def test_a_graph_that_answers_differently_is_not_written(run, tmp_path, monkeypatch):
    runtime = onnx_graph.runtime
    monkeypatch.setattr(
        onnx_graph, "runtime", lambda graph: lambda inputs: runtime(graph)(inputs) + 0.001
    )
    with pytest.raises(KneeOAError, match=r"does not say what the model says(.|\n)*0\.001"):
        export(run, tmp_path / "onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_answers_with_no_number_is_not_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr(
        onnx_graph,
        "runtime",
        lambda _: lambda inputs: np.full((len(inputs["images"]), 5), np.nan, np.float32),
    )
    with pytest.raises(KneeOAError, match="nan"):
        export(run, tmp_path / "onnx")
    assert list(tmp_path.iterdir()) == []


def test_half_precision_halves_the_weights_of_layers_and_keeps_the_rest(run, tmp_path):
    out = tmp_path / "half"
    export(run, out, form="safetensors", half=True)
    assert (out / "ensemble.json").read_text() == (run / "ensemble.json").read_text()
    assert (out / "config.yaml").read_text() == "seed: 3\n"
    for name in ("00-a", "01-b"):
        before = load_file(run / "members" / name / "weights.safetensors")
        after = load_file(out / "members" / name / "weights.safetensors")
        for key, value in after.items():
            assert value.dtype == (torch.float16 if value.dim() > 1 else before[key].dtype), key
            same = value.to(before[key].dtype)
            torch.testing.assert_close(same, before[key], rtol=1e-3, atol=1e-7)
        read_model(out / "members" / name, ModelCard)  # sealed anew
        model = load_model(out / "members" / name)
        assert {p.dtype for p in model.network.parameters()} == {torch.float32}
        size = model.card.preprocessing.image_size_px
        images = {"images": some_images(16, size)}
        original = load_model(run / "members" / name)
        np.testing.assert_allclose(
            predict_member(model, images, device="cpu"),
            predict_member(original, images, device="cpu"),
            atol=5e-3,
        )
    assert load_ensemble(out).rules == load_ensemble(run).rules


def test_a_knee_at_the_limit_of_what_is_a_knee_is_one_to_half_precision_too(tmp_path):
    """Of many, the one that rounding moves farthest off: a limit that stayed would refuse it."""
    folder = write_member(
        tmp_path / "member", {"network": "kl", "backbone": "simple_cnn", "head": "softmax"}, seed=7
    )
    export(folder, tmp_path / "rounded", form="safetensors", half=True)
    original, rounded = load_model(folder), load_model(tmp_path / "rounded")
    images, rows, contract = some_images(400, 32), np.arange(400), original.card.preprocessing
    features, moved = (
        encode(model.network, images, contract, rows, device="cpu")[:, 0].numpy()
        for model in (original, rounded)
    )
    known = fit(features[:200], features[200:])
    far = int((known.distance(moved) / known.distance(features)).argmax())
    digest = replace(known, limit=float(known.distance(features)[far])).write(folder)
    card, weights = read_model(folder, ModelCard)
    write_model(folder, card.model_copy(update={"familiarity_sha256": digest}), weights)
    export(folder, tmp_path / "half", form="safetensors", half=True)
    knee = {"images": images[far : far + 1]}
    assert 0.95 < ask_member(load_model(tmp_path / "half"), knee, device="cpu").strangeness < 1


def test_without_half_the_weights_stay_to_the_bit(run, tmp_path):
    export(run, tmp_path / "plain", form="safetensors")
    for name in ("00-a", "01-b"):
        weights = f"members/{name}/weights.safetensors"
        assert (tmp_path / "plain" / weights).read_bytes() == (run / weights).read_bytes()


@pytest.mark.parametrize("form", ["safetensors", "onnx"])
def test_what_is_handed_on_says_its_licence_and_whom_to_name(run, tmp_path, form):
    export(run, tmp_path / "out", form=form, licence="CC-BY-4.0", trained_on="knees of Chen 2018")
    if form == "onnx":
        cards = json.loads((tmp_path / "out" / "contract.json").read_text())["members"]
    else:
        files = (tmp_path / "out" / "members").glob("*/model.json")
        cards = [json.loads(path.read_text()) for path in files]
    said = {(card["licence"], card["trained_on"]) for card in cards}
    assert said == {("CC-BY-4.0", "knees of Chen 2018")}


def test_a_weight_beyond_half_precision_is_refused_and_nothing_is_written(run, tmp_path):
    folder = tmp_path / "large"
    card, _ = read_model(run / "members" / "00-a", ModelCard)
    tensors = load_file(run / "members" / "00-a" / "weights.safetensors")
    tensors["kl_head.weight"][0, 0] = 1e6
    write_model(folder, card, save(tensors))
    with pytest.raises(KneeOAError, match="too large for half precision"):
        export(folder, tmp_path / "half", form="safetensors", half=True)
    assert not (tmp_path / "half").exists()


def test_a_variance_too_small_for_half_precision_survives():
    weights = {"bn.running_var": torch.tensor([1e-9]), "conv.weight": torch.ones(2, 2)}
    assert load(halved(save(weights)))["bn.running_var"].item() == pytest.approx(1e-9)


def cli(*arguments):
    result = CliRunner().invoke(app, ["export", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_several_networks_in_one_file_and_half_an_onnx_are_refused(run, tmp_path):
    code, _, error = cli(run, "--out", tmp_path / "all.onnx")
    assert code == 3
    assert "2 members" in error
    code, _, error = cli(run, "--out", tmp_path / "onnx", "--half")
    assert code == 3
    assert "--format safetensors" in error
    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_kept(run, fused, tmp_path):
    (tmp_path / "risk.json").write_text("precious")
    code, _, error = cli(fused, "--out", tmp_path / "risk.onnx")
    assert code == 3
    assert "--overwrite" in error
    assert [path.name for path in tmp_path.iterdir()] == ["risk.json"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    for form in ("onnx", "safetensors"):
        assert cli(run, "--out", tmp_path / "mine", "--format", form)[0] == 3
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("form", ["onnx", "safetensors"])
def test_a_model_is_never_replaced_by_its_own_export(run, tmp_path, form):
    copy = tmp_path / "runs" / "kl"
    shutil.copytree(run, copy)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    for out in (copy, tmp_path / "runs"):
        with pytest.raises(InputError, match="take the place"):
            export(copy, out, form=form, overwrite=True)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_starting_weights_are_named_without_their_folder(run, tmp_path):
    copy = tmp_path / "kl"
    shutil.copytree(run, copy)
    start = tmp_path / "start.safetensors"
    (copy / "config.yaml").write_text(f"members: [{{weights: {start}}}]\n")
    export(copy, tmp_path / "out", form="safetensors")
    assert (
        tmp_path / "out" / "config.yaml"
    ).read_text() == "members:\n- weights: start.safetensors\n"


def test_an_unfinished_run_is_no_model(run, tmp_path):
    copy = tmp_path / "kl"
    shutil.copytree(run, copy)
    (copy / "checkpoints").mkdir()
    assert len(load_ensemble(copy).members) == 2
    (copy / "ensemble.json").unlink()
    with pytest.raises(ModelFolderError, match="not been finished"):
        load_ensemble(copy)


@pytest.mark.parametrize("form", ["onnx", "safetensors"])
@pytest.mark.parametrize(
    ("rules", "said"),
    [(None, "not been finished"), ("{", "rules of the ensemble"), ('{"new": 1}', "newer version")],
)
def test_what_predict_refuses_is_not_exported(run, tmp_path, form, rules, said):
    """The copy leaves the checkpoints behind, which alone tell that a run was interrupted."""
    copy = shutil.copytree(run, tmp_path / "kl")
    (copy / "checkpoints").mkdir()
    (copy / "ensemble.json").unlink()
    if rules is not None:
        (copy / "ensemble.json").write_text(rules)
    with pytest.raises(ModelFolderError, match=said):
        export(copy, tmp_path / "out", form=form)
    assert not (tmp_path / "out").exists()


def test_without_the_extra_it_says_what_to_install(run, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "find_spec", lambda name: None)
    code, _, error = cli(run, "--out", tmp_path / "onnx")
    assert code == 5
    assert "kneeoa-mm[onnx]" in error
