"""Model folders: what was written comes back, and whatever is not that is refused."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save

from kneeoa_mm.errors import ModelFolderError
from kneeoa_mm.identifiers import keyed_hash
from kneeoa_mm.model_folder import (
    ModelCard,
    Preprocessing,
    SeenSubjects,
    member_folders,
    read_model,
    write_model,
)

WEIGHTS = save({"layer": np.arange(6, dtype=np.float32)})


@pytest.fixture
def folder(tmp_path):
    card = ModelCard(
        kind="kl",
        architecture={"network": "kl", "backbone": "simple_cnn"},
        outputs=("kl_prob_0",),
        preprocessing=Preprocessing(
            image_size_px=64,
            mean=0.5,
            std=0.5,
            clip_percentiles=(1, 99),
            reinvert_negatives=True,
            field_of_view_plateau_widths=1.375,
            joint_row=0.625,
        ),
        seen_subjects=SeenSubjects.of(["9003175"], ["9003200"], salt=b"salt"),
    )
    return write_model(tmp_path / "model", card, WEIGHTS)


def test_card_and_weights_come_back(folder):
    card, weights = read_model(folder, ModelCard)
    assert weights == WEIGHTS
    assert card.outputs == ("kl_prob_0",)
    contract = card.preprocessing
    assert (contract.field_of_view_plateau_widths, contract.joint_row) == (1.375, 0.625)


def test_a_card_of_before_the_field_of_view_still_reads(folder):
    card = json.loads((folder / "model.json").read_text())
    for name in ("field_of_view_plateau_widths", "joint_row"):
        del card["preprocessing"][name]
    (folder / "model.json").write_text(json.dumps(card))
    assert read_model(folder, ModelCard)[0].preprocessing.field_of_view_plateau_widths is None


def test_a_card_tells_seen_subjects_apart_without_naming_them(folder):
    seen = read_model(folder, ModelCard)[0].seen_subjects
    asked = ["9003175", "9003200", "9999999"]
    assert seen.in_training(asked) == {"9003175"}
    assert seen.in_selection(asked) == {"9003200"}
    assert "9003175" not in (folder / "model.json").read_text()


def test_a_model_that_goes_on_from_another_knows_the_subjects_of_both(folder):
    before = read_model(folder, ModelCard)[0].seen_subjects
    seen = before.and_also(["9000009"], ["9000010"])
    asked = ["9003175", "9003200", "9000009", "9000010", "9999999"]
    assert seen.in_training(asked) == {"9003175", "9000009"}
    assert seen.in_selection(asked) == {"9003200", "9000010"}


def test_the_unknown_subject_is_nobody_whom_a_model_has_seen(folder):
    """One anonymised film in training would else mark every other, of anybody, as seen."""
    card = json.loads((folder / "model.json").read_text())
    seen = SeenSubjects.of(["-", "9003175"], ["-"], salt=b"salt")
    assert seen == SeenSubjects.of(["9003175"], [], salt=b"salt")
    salt = card["seen_subjects"]["salt"]
    digests = [keyed_hash(bytes.fromhex(salt), "-")]
    before = SeenSubjects(salt=salt, training=digests, selection=digests)
    assert before.in_training(["-"]) == before.in_selection(["-"]) == set()


def test_one_flipped_bit_in_the_weights_is_found(folder):
    path = folder / "weights.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ModelFolderError, match="sha256"):
        read_model(folder, ModelCard)


def change_card(folder, **changes):
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(card | changes))


def test_a_card_of_a_newer_version_is_refused_with_advice(folder):
    change_card(folder, schema_version=99)
    with pytest.raises(ModelFolderError, match="upgrade kneeoa-mm"):
        read_model(folder, ModelCard)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"kind": "kl"}'])
def test_a_damaged_card_is_refused(folder, text):
    (folder / "model.json").write_text(text)
    with pytest.raises(ModelFolderError, match=r"model\.json"):
        read_model(folder, ModelCard)


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ModelFolderError, match=name):
        read_model(folder, ModelCard)


def test_a_pickle_under_the_name_of_the_weights_is_never_opened(folder):
    import hashlib
    import pickle

    payload = pickle.dumps({"layer": 1})
    (folder / "weights.safetensors").write_bytes(payload)
    change_card(folder, weights_sha256=hashlib.sha256(payload).hexdigest())
    with pytest.raises(ModelFolderError, match="no safetensors file"):
        read_model(folder, ModelCard)


def test_a_run_lists_its_members_and_a_member_itself(folder, tmp_path):
    run = tmp_path / "run"
    (run / "members").mkdir(parents=True)
    folder.rename(run / "members" / "00")
    assert member_folders(run) == [run / "members" / "00"]
    assert member_folders(run / "members" / "00") == [run / "members" / "00"]
    with pytest.raises(ModelFolderError, match="no such folder"):
        member_folders(tmp_path / "elsewhere")


def test_a_member_with_weights_but_no_card_is_not_passed_over(folder, tmp_path):
    """A copy that broke off would be a smaller run that looks whole."""
    members = tmp_path / "run" / "members"
    shutil.copytree(folder, members / "00")
    (shutil.copytree(folder, members / "01") / "model.json").unlink()
    with pytest.raises(ModelFolderError, match=r"no model\.json in 01"):
        member_folders(tmp_path / "run")
