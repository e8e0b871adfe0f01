"""Models and knees that ``explain`` goes through in a second."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from kneeoa_mm import schemas, tables
from kneeoa_mm.learning.clinical import ClinicalEncoding
from kneeoa_mm.learning.networks import KLNetwork, ProgressionNetwork
from kneeoa_mm.model_folder import ModelCard, Preprocessing, SeenSubjects, write_model

ENCODING = ClinicalEncoding({"age_years": (60.0, 5.0)}, {"sex": ["F", "M"]})
_GRADES = tuple(f"kl_prob_{grade}" for grade in range(5))
_FILM_PX, _BOX = (120, 200), (20, 30, 100, 110)
_BOX_COLUMNS = ("box_left_px", "box_top_px", "box_right_px", "box_bottom_px")


@pytest.fixture(scope="session")
def encoding():
    """Two factors: one continuous, one categorical."""
    return ENCODING


@pytest.fixture(scope="session")
def write_member():
    """Writes a network as a member of a run."""
    return _write_member


def _write_member(
    run, name, network, *, size_px=40, std=0.5, training=(), selection=(), kind="jsl"
):
    """A member that learnt from some subjects and was chosen on others."""
    fused = kind == "jsl"
    card = ModelCard(
        architecture=network.architecture,
        kind=kind,
        outputs=(*_GRADES, "jsl_48m_prob") if fused else _GRADES,
        preprocessing=Preprocessing(
            image_size_px=size_px,
            mean=0.5,
            std=std,
            clip_percentiles=(0.0, 100.0),
            reinvert_negatives=False,
        ),
        clinical=ENCODING.to_card() if fused else None,
        seen_subjects=SeenSubjects.of(training, selection, salt=b"salt"),
    )
    write_model(run / "members" / name, card, save(network.state_dict()))


@pytest.fixture(scope="session")
def folder(tmp_path_factory, knee_of_grade):
    """Six persons, three members: one of another size, one that knows the first person."""
    out = tmp_path_factory.mktemp("explain")
    torch.manual_seed(0)
    width = ENCODING.n_features
    for name, size_px, training in (("00", 40, ["0"]), ("01", 48, []), ("02", 40, [])):
        network = ProgressionNetwork("simple_cnn", clinical_features=width)
        _write_member(out / "fused", name, network, size_px=size_px, training=training)
    everyone = [str(number) for number in range(6)]
    _write_member(out / "kl", "00", KLNetwork("simple_cnn"), training=everyone, kind="kl")
    generator = np.random.default_rng(0)
    (out / "knees" / "images").mkdir(parents=True)
    (out / "films").mkdir()
    rows = []
    for number in range(6):
        pixels = knee_of_grade(number % 5, generator)
        Image.fromarray(pixels).save(out / "knees" / "images" / f"{number}.png")
        film = np.zeros(_FILM_PX, np.uint8)
        left, top, right, bottom = _BOX
        film[top:bottom, left:right] = np.kron(pixels[:, ::-1], np.ones((2, 2), np.uint8))
        if number:
            Image.fromarray(film).save(out / "films" / f"{number}.png")
        rows.append(
            {
                "knee_id": f"trial:{number}:0:L",
                "subject_id": str(number),
                "laterality": "L",
                "image_path": f"images/{number}.png",
                "source": f"{number}.png",
                **dict(zip(_BOX_COLUMNS, _BOX, strict=True)),
                "flipped": True,
                "kl_grade": number % 5,
            }
        )
    knees = pd.DataFrame(rows)
    tables.write_table(knees, schemas.KNEES, out / "knees" / "knees.parquet")
    factors = {"age_years": np.linspace(50, 70, 6), "sex": list("FMFMFM"), "jsl_48m": [0, 1] * 3}
    knees[["knee_id"]].assign(**factors).to_csv(out / "clinical.csv", index=False)
    outline = json.dumps([[40, 60], [80, 60], [80, 80], [40, 80]])
    knees[["knee_id"]].assign(joint_space_px=outline).to_csv(out / "spaces.csv", index=False)
    return out
