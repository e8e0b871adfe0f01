"""Each shipped recipe of progression trains through its stages, and says where it comes from.

At 64 px, from random weights, on drawn knees. A recipe says nothing of the encoder, which is that
of a grader; VGG16, minutes of work, trains in the tests of the KL recipes.
"""

from itertools import takewhile

import pandas as pd
import pytest
import torch
from safetensors.torch import save

from kneeoa_mm import schemas, tables
from kneeoa_mm.config import load_config, shipped
from kneeoa_mm.learning.networks import KLNetwork
from kneeoa_mm.learning.train_jsl import train_jsl
from kneeoa_mm.model_folder import ModelCard, Preprocessing, SeenSubjects, write_model
from kneeoa_mm.settings import TrainJSLConfig

FOLDER = shipped("configs") / "jsl"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SIZE_PX = 64


def grader(folder, backbone):
    """A grader of random weights, which has seen nobody."""
    torch.manual_seed(0)
    network = KLNetwork(backbone)
    card = ModelCard(
        architecture=network.architecture,
        kind="kl",
        outputs=tuple(f"kl_prob_{grade}" for grade in range(5)),
        preprocessing=Preprocessing(
            image_size_px=SIZE_PX,
            mean=0.4,
            std=0.3,
            clip_percentiles=(1, 99),
            reinvert_negatives=True,
        ),
        seen_subjects=SeenSubjects.of([], [], salt=b"salt"),
    )
    return write_model(folder, card, save(network.state_dict()))


def short(name):
    """The recipe as it is, but an epoch a stage, and the factors that the drawn cohort has."""
    whole = load_config(TrainJSLConfig, recipe=FOLDER / f"{name}.yaml")
    sets = [
        f"train.epochs={len(whole.train.stages)}",
        *(f"train.stages.{n}.epochs=1" for n in range(len(whole.train.stages))),
    ]
    if name != "baseline":
        sets.append("clinical_factors=[age_years, sex]")
    return load_config(TrainJSLConfig, recipe=FOLDER / f"{name}.yaml", sets=sets)


@pytest.fixture(scope="module")
def few(study, tmp_path_factory):
    """A cohort of six persons, two a fold."""
    folder = tmp_path_factory.mktemp("few")
    for file, schema in (("cohort", schemas.COHORT), ("folds", schemas.FOLDS)):
        table = tables.read_table(study / "cohort" / f"{file}.parquet", schema)
        kept = table[table["subject_id"].isin([str(number) for number in range(1, 7)])]
        if file == "folds":
            kept = kept.assign(fold=(kept["subject_id"].astype(int) - 1) // 2)
        tables.write_table(kept, schema, folder / f"{file}.parquet")
    return folder


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_through_all_its_stages(name, study, few, tmp_path):
    config = short(name)
    train_jsl(
        few,
        study / "knees",
        grader(tmp_path / "kl", "mobilenet_v2" if name == "baseline" else "simple_cnn"),
        tmp_path / "run",
        config=config,
        device="cpu",
    )
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    stages = list(range(1, len(config.train.stages) + 1))
    assert history.groupby("member")["stage"].agg(list).tolist() == [stages] * 3
    predictions = tables.read_table(tmp_path / "run" / "predictions.parquet", schemas.PREDICTIONS)
    assert predictions["jsl_48m_prob"].between(0, 1).all()
    assert ("jsl_48m_prob_without_reading" in predictions) == (config.kl_input == "read")
    assert ("jsl_48m_cif_48" in predictions) == (config.time_head == "hazard")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_where_it_comes_from_and_whether_it_was_run(name):
    lines = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    comment = "\n".join(line[1:].strip() for line in takewhile(lambda x: x.startswith("#"), lines))
    remarks = {paragraph.partition(":")[0] for paragraph in comment.split("\n\n")[1:]}
    assert remarks == {"Source", "Differs", "Needs", "Run"}
