"""Configuration: one order of precedence, and every fault named before work starts."""

import pytest
import yaml

from kneeoa_mm.config import find_recipe, load_config, shipped
from kneeoa_mm.errors import ConfigError
from kneeoa_mm.settings import PretrainKLConfig, TrainConfig, TrainJSLConfig


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("train: {lr: 0.5, batch_size: 7}\nseed: 5\n")
    return path


def test_flag_beats_set_beats_recipe_beats_default(recipe):
    config = load_config(
        PretrainKLConfig, recipe=recipe, sets=["train.lr=0.25", "seed=6"], flags={"seed": 9}
    )
    assert config.seed == 9
    assert config.train.lr == 0.25
    assert config.train.batch_size == 7
    assert config.train.weight_decay == TrainConfig().weight_decay


def test_a_flag_that_was_not_typed_changes_nothing(recipe):
    assert load_config(PretrainKLConfig, recipe=recipe, flags={"seed": None}).seed == 5


def test_the_resolved_yaml_resolves_to_itself(tmp_path):
    config = load_config(TrainJSLConfig, sets=["train.lr=3e-4", "fuse_clinical=true"])
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    assert load_config(TrainJSLConfig, recipe=path) == config


def test_a_set_reaches_into_a_list_by_index():
    config = load_config(PretrainKLConfig, sets=["train.stages.0.epochs=2"])
    assert config.train.stages[0].epochs == 2


def test_a_misspelt_key_is_refused_with_the_likely_one(tmp_path):
    path = tmp_path / "typo.yaml"
    path.write_text("train: {learning_rates: 1, batch_siz: 8}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(PretrainKLConfig, recipe=path)
    message = str(caught.value)
    assert "train.learning_rates: no such key" in message, "all faults are reported, not the first"
    assert "did you mean train.batch_size?" in message
    assert str(path) in message
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train.lr", "a.b=c"),
        ("train.lr=fast", "train.lr"),
        ("train.batch_size=0", "train.batch_size"),
        ("members.5.backbone=vgg16", "index"),
        ("nosuch.key=1", "nosuch"),
        ("train.stages=[]", "at least one stage"),
        ("train.stages.1.epochs=3", "stages end after 4 of 10 epochs"),
        ("members=[]", "members: .*at least 1 item"),
        ("members=[{backbone: vgg16}", "no valid YAML"),
        ("seed=-1", "seed: .*greater than or equal to 0"),
    ],
)
def test_an_impossible_set_is_refused_by_its_name(text, words):
    with pytest.raises(ConfigError, match=words):
        load_config(PretrainKLConfig, sets=[text])


@pytest.mark.parametrize(
    ("factors", "words"),
    [("[]", "fuse_clinical wants clinical_factors"), ("[sex, age_years, sex]", "sex stands twice")],
)
def test_a_model_that_fuses_no_factor_or_one_twice_is_refused(factors, words):
    """The one would be image-only under another name, the other broke off with a traceback."""
    factors = f"clinical_factors={factors}"
    load_config(TrainJSLConfig, sets=["clinical_factors=[]"])
    with pytest.raises(ConfigError, match=words):
        load_config(TrainJSLConfig, sets=["fuse_clinical=true", factors])


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [1\n"])
def test_a_recipe_that_holds_no_mapping_is_refused(tmp_path, content):
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError):
        load_config(PretrainKLConfig, recipe=path)


def test_an_unknown_recipe_name_lists_the_shipped_ones():
    with pytest.raises(ConfigError, match="mobilenet-v2"):
        find_recipe("mobilenet-v3", "kl")


GROUPS = {"kl": PretrainKLConfig, "jsl": TrainJSLConfig}


def restated(recipe, defaults, prefix=""):
    """Keys of a recipe, at any depth, whose value is the default anyway; a list is one value."""
    for key, value in recipe.items():
        if isinstance(value, dict):
            yield from restated(value, defaults[key], f"{prefix}{key}.")
        elif value == defaults[key]:
            yield prefix + key


@pytest.mark.parametrize(
    "path",
    [p for group in GROUPS for p in sorted((shipped("configs") / group).glob("*.yaml"))],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_every_shipped_recipe_is_valid_and_says_only_what_differs(path):
    model = GROUPS[path.parent.name]
    load_config(model, recipe=path)
    defaults = model().model_dump(mode="json")
    assert list(restated(yaml.safe_load(path.read_text()), defaults)) == []


def test_the_epochs_of_all_stages_add_up():
    for epochs in range(1, 6):
        assert sum(TrainConfig(epochs=epochs).stage_epochs()) == epochs
