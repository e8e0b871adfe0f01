"""Voting, losses, clinical encoding, networks and splits: each against its definition."""

import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kneeoa_mm.errors import ConfigError, InputError
from kneeoa_mm.folds import make_folds
from kneeoa_mm.learning.backbones import (
    WEIGHTS_FOLDER,
    build_encoder,
    find_weights,
    load_pretrained,
)
from kneeoa_mm.learning.clinical import ClinicalEncoding
from kneeoa_mm.learning.ensemble import vote
from kneeoa_mm.learning.losses import progression_loss
from kneeoa_mm.learning.networks import KLNetwork, ProgressionNetwork, build_network
from kneeoa_mm.learning.splits import cross_validation, train_and_val

probabilities = arrays(
    float, st.tuples(st.integers(1, 6), st.integers(1, 4), st.just(5)), elements=st.floats(0.01, 1)
).map(lambda raw: raw / raw.sum(axis=2, keepdims=True))


def mix_by_hand(members):
    """Pi et al. 2023, word by word, for one knee."""
    votes = Counter(int(np.argmax(member)) for member in members)
    most = max(votes.values())
    leaders = [grade for grade, count in votes.items() if count == most]
    return leaders[0] if len(leaders) == 1 else int(np.argmax(np.mean(members, axis=0)))


@given(probabilities)
def test_mix_voting_is_that_of_the_paper(members):
    expected = [mix_by_hand(members[:, knee]) for knee in range(members.shape[1])]
    assert vote(members, "mix").tolist() == expected


@given(probabilities)
def test_hard_voting_gives_ties_to_the_lowest_grade(members):
    for knee, grade in enumerate(vote(members, "hard")):
        votes = Counter(members[:, knee].argmax(axis=1).tolist())
        assert grade == min(g for g, n in votes.items() if n == max(votes.values()))


@pytest.mark.parametrize("rule", ["mix", "hard", "soft"])
def test_a_member_without_a_say_does_not_count(rule):
    sure_of_4 = np.array([[0, 0, 0, 0, 1.0]])
    silent = np.full((1, 5), np.nan)
    assert vote(np.stack([sure_of_4, silent, silent]), rule).tolist() == [4]


def test_missing_outcomes_are_left_out_of_the_mean_and_a_batch_of_them_costs_nothing():
    logits = torch.tensor([0.3, -1.2, 2.0], requires_grad=True)
    event = torch.tensor([1.0, torch.nan, 0.0])
    risk = torch.sigmoid(logits.detach())
    by_hand = -(torch.log(risk[0]) + torch.log(1 - risk[2])) / 2
    torch.testing.assert_close(progression_loss(logits, event).detach(), by_hand)
    loss = progression_loss(logits, torch.full((3,), torch.nan))
    loss.backward()
    assert loss.item() == logits.grad.abs().sum() == 0


@pytest.mark.parametrize("learnt", [True, False])
def test_a_cell_of_a_factor_that_is_no_number_is_named(learnt):
    """Such as a decimal comma, which would end the command as a fault of the program."""
    plain = factors()
    strange = plain.assign(age_years=["50", None, "31,5", "70"])
    with pytest.raises(InputError, match=r"age_years must hold numbers(.|\n)*'31,5'"):
        ClinicalEncoding.fit(plain).transform(strange) if learnt else ClinicalEncoding.fit(strange)


def factors():
    return pd.DataFrame(
        {
            "age_years": [50.0, 60.0, None, 70.0],
            "sex": ["F", "M", "F", None],
            "knee_injury": pd.array([1, 0, None, 1], dtype="Int64"),
        }
    )


def test_an_encoding_has_no_gaps_and_says_where_they_were():
    encoding = ClinicalEncoding.fit(factors())
    encoded = encoding.transform(factors())
    assert encoded.shape == (4, encoding.n_features)
    assert np.isfinite(encoded).all()
    age, age_missing, *_ = encoded.T
    np.testing.assert_allclose(age[[0, 1, 3]].mean(), 0, atol=1e-6)
    np.testing.assert_allclose(age[[0, 1, 3]].std(), 1, atol=1e-6)
    assert age_missing.tolist() == [0, 0, 1, 0]


def test_a_category_that_training_never_saw_counts_as_missing():
    encoding = ClinicalEncoding.fit(factors())
    stranger = factors().assign(sex="X").iloc[:1]
    missing = factors().assign(sex=None).iloc[:1]
    np.testing.assert_array_equal(encoding.transform(stranger), encoding.transform(missing))


def test_a_factor_that_the_table_lacks_is_missing_for_all():
    encoding = ClinicalEncoding.fit(factors())
    without = encoding.transform(factors().drop(columns=["age_years", "sex"]))
    blank = factors().assign(age_years=np.nan, sex=None)
    np.testing.assert_array_equal(without, encoding.transform(blank))


def test_an_encoding_survives_the_model_card():
    encoding = ClinicalEncoding.fit(factors())
    again = ClinicalEncoding(**json.loads(json.dumps(encoding.to_card())))
    np.testing.assert_array_equal(again.transform(factors()), encoding.transform(factors()))


def test_a_factor_without_any_value_is_refused():
    with pytest.raises(InputError, match="bmi_kg_m2"):
        ClinicalEncoding.fit(factors().assign(bmi_kg_m2=np.nan))


def test_the_kl_head_cannot_see_the_clinical_factors():
    network = ProgressionNetwork("simple_cnn", clinical_features=3).eval()
    batch = {"images": torch.randn(2, 1, 64, 64), "clinical": torch.randn(2, 3, requires_grad=True)}
    outputs = network(batch)
    (reach,) = torch.autograd.grad(
        outputs["kl_logits"].sum(), batch["clinical"], allow_unused=True, retain_graph=True
    )
    assert reach is None
    (reach,) = torch.autograd.grad(outputs["jsl_logit"].sum(), batch["clinical"])
    assert reach.abs().sum() > 0


@pytest.mark.parametrize("fusion", ["concat", "film", "late"])
@pytest.mark.parametrize("n_factors", [5, 3])
def test_the_branch_without_a_reading_sees_none_of_the_other_knee_either(fusion, n_factors):
    """Of five columns the last three are of the other knee's grade; or nothing else is told."""
    readings = range(n_factors - 3, n_factors)
    network = ProgressionNetwork(
        "simple_cnn",
        clinical_features=n_factors,
        reading_columns=readings,
        fusion=fusion,
        kl_input="read",
    ).eval()
    for branch in (network.branch, network.unread_branch):
        for weights in branch.parameters():
            torch.nn.init.normal_(weights)
    factors = torch.randn(4, n_factors)
    batch = {"features": torch.randn(4, network.encoder.feature_width), "clinical": factors}
    batch["kl_read"] = torch.eye(5)[:4]
    before = network(batch)
    factors[:, readings] += 1
    after = network(batch)
    torch.testing.assert_close(after["jsl_scores_unread"], before["jsl_scores_unread"])
    assert (after["jsl_scores"] - before["jsl_scores"]).abs().max() > 1e-3
    if n_factors > 3:
        factors[:, :2] += 1
        moved = network(batch)["jsl_scores_unread"] - before["jsl_scores_unread"]
        assert moved.abs().max() > 1e-3


@pytest.mark.parametrize("backbone", ["simple_cnn", "resnet18", "mobilenet_v2", "densenet121"])
def test_a_network_is_rebuilt_from_its_card_and_knows_its_feature_map(backbone):
    network = KLNetwork(backbone).eval()
    again = build_network(json.loads(json.dumps(network.architecture))).eval()
    again.load_state_dict(network.state_dict())
    images = {"images": torch.randn(2, 1, 64, 64)}
    torch.testing.assert_close(again(images)["kl_logits"], network(images)["kl_logits"])
    maps = []
    network.encoder.feature_map().register_forward_hook(lambda *call: maps.append(call[2]))
    network(images)
    assert maps[0].ndim == 4
    assert maps[0].shape[2] > 1


def test_an_unknown_backbone_is_refused_with_a_likely_one():
    with pytest.raises(ConfigError, match="mobilenet_v2"):
        build_encoder("mobilenetv2")


def test_pretrained_weights_must_fit_and_their_classifier_is_left_out(tmp_path):
    import torchvision
    from safetensors.torch import save_file

    weights = tmp_path / "weights.safetensors"
    save_file(torchvision.models.mobilenet_v2().state_dict(), weights)
    encoder = build_encoder("mobilenet_v2")
    load_pretrained(encoder, weights)
    with pytest.raises(InputError, match="do not fit"):
        load_pretrained(build_encoder("resnet18"), weights)
    weights.write_bytes(b"\x80\x04]")
    with pytest.raises(InputError, match="no safetensors file"):
        load_pretrained(encoder, weights)


def test_weights_are_found_by_file_by_name_in_the_folder_or_not_wanted(tmp_path, monkeypatch):
    monkeypatch.setenv(WEIGHTS_FOLDER, str(tmp_path / "imagenet"))
    (tmp_path / "imagenet").mkdir()
    files = [tmp_path / "own.safetensors", tmp_path / "imagenet" / "timm-xception.safetensors"]
    for file in files:
        file.touch()
    wanted = [(str(files[0]), "vgg16"), ("imagenet", "timm:xception"), ("none", "vgg16")]
    assert find_weights(wanted) == [*files, None]


@pytest.mark.parametrize("folder", ["/no/such/folder", ""])
def test_all_members_without_their_weights_are_named_at_once(tmp_path, monkeypatch, folder):
    monkeypatch.setenv(WEIGHTS_FOLDER, folder)
    wanted = [("none", "vgg16"), ("imagenet", "resnet101"), (str(tmp_path / "own"), "vgg16")]
    with pytest.raises(InputError) as raised:
        find_weights(wanted)
    told = str(raised.value)
    assert "resnet101.safetensors" in told
    assert str(tmp_path / "own") in told
    assert WEIGHTS_FOLDER in told
    assert "--set members.1.weights=none --set members.2.weights=none" in told
    assert "members.0" not in told


def knees(n=40):
    subjects = [f"s{i // 2}" for i in range(n)]
    return pd.DataFrame({"subject_id": subjects, "kl_grade": [i // 2 % 5 for i in range(n)]})


def test_in_cross_validation_each_part_is_of_other_people_and_each_knee_is_tested_once():
    table = knees()
    folds = make_folds(table["subject_id"], table["kl_grade"], n_folds=4, seed=0)
    splits = cross_validation(table, folds, chooses=True, where="folds")
    subjects = table["subject_id"].to_numpy()
    for split in splits:
        train, val, test = (set(subjects[r]) for r in (split.train, split.val, split.report))
        assert not train & val
        assert not train & test
        assert not val & test
    tested = np.concatenate([split.report for split in splits])
    assert sorted(tested) == list(range(len(table)))


def test_where_no_epoch_is_chosen_all_other_folds_are_learned_from():
    table = knees()
    folds = make_folds(table["subject_id"], table["kl_grade"], n_folds=4, seed=0)
    for split in cross_validation(table, folds, chooses=False, where="folds"):
        assert len(split.val) == 0
        assert sorted([*split.train, *split.report]) == list(range(len(table)))


def test_the_test_part_of_a_folder_is_left_alone():
    table = knees().assign(split="train")
    table.loc[table["subject_id"].isin(["s0", "s1"]), "split"] = "test"
    (split,) = train_and_val(table, table["kl_grade"], fraction=0.2, seed=0, where="here")
    used = set(split.train) | set(split.val) | set(split.report)
    assert used == set(np.flatnonzero(table["split"] == "train"))


def test_two_folds_are_too_few_to_choose_an_epoch_on_and_enough_to_choose_none():
    """As the two sites of MOST are."""
    table = knees()
    folds = make_folds(table["subject_id"], table["kl_grade"], n_folds=2, seed=0)
    with pytest.raises(InputError, match=r"at least 3 folds[\s\S]*select_by=last"):
        cross_validation(table, folds, chooses=True, where="folds")
    one, other = cross_validation(table, folds, chooses=False, where="folds")
    assert (set(one.train), set(one.report)) == (set(other.report), set(other.train))
    with pytest.raises(InputError, match="at least 2 folds"):
        cross_validation(table, folds.assign(fold=0), chooses=False, where="folds")
