"""Two processes train what one would: gradients, evaluation, choices, and who writes.

They are started as a person starts them, by torchrun, and talk over gloo.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from kneeoa_mm import schemas, tables
from kneeoa_mm.config import load_config
from kneeoa_mm.learning.networks import KLNetwork
from kneeoa_mm.learning.pretrain_kl import pretrain_kl
from kneeoa_mm.settings import PretrainKLConfig

BATCH = 12
EPOCHS = 3
RECIPE = (
    "members=[{backbone: simple_cnn, image_size_px: 40}]",
    f"train.epochs={EPOCHS}",
    # frozen batch statistics: those of half a batch are not those of the whole
    "train.stages=[{trainable: head}]",
    # moves in proportion to the gradients, where Adam would make leaps of roundings
    "train.optimiser=sgd",
    "train.lr=0.2",
    "train.ema_decay=0.9",
    "train.patience=2",
    "balance=sampling",
)


@pytest.fixture(scope="module")
def graded_knees(tmp_path_factory, knee_of_grade):
    """48 knees to learn from, four whole batches, and 17 to choose on, which two cannot halve."""
    folder, generator = tmp_path_factory.mktemp("graded"), np.random.default_rng(0)
    for first, part, count in ((9000000, "train", 48), (9001000, "val", 17)):
        for index in range(count):
            path = folder / part / str(index % 5) / f"{first + index}R.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(knee_of_grade(index % 5, generator)).save(path)
    return folder


@pytest.fixture(scope="module")
def two_processes(graded_knees, tmp_path_factory):
    """The run of two, and the folder of what each of them held."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(Path(__file__).with_name("two_processes.py")), str(folder), "pretrain-kl"]
    command += ["--data", str(graded_knees), "--out", str(folder / "run"), "--device", "cpu"]
    for text in (*RECIPE, f"train.batch_size={BATCH // 2}"):
        command += ["--set", text]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "run", folder


@pytest.fixture(scope="module")
def one_process(graded_knees, tmp_path_factory):
    """The run of one with batches twice as large."""
    run = tmp_path_factory.mktemp("one") / "run"
    config = load_config(PretrainKLConfig, sets=[*RECIPE, f"train.batch_size={BATCH}"])
    pretrain_kl(graded_knees, run, config=config, device="cpu")
    return run


def weights(run):
    (path,) = run.glob("members/*/weights.safetensors")
    return load_file(path)


def test_gradients_and_their_average_are_those_of_one_process(one_process, two_processes):
    alone, together = weights(one_process), weights(two_processes[0])
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, atol=1e-5, rtol=1e-4)
    torch.manual_seed(0)
    start = KLNetwork("simple_cnn").state_dict()["kl_head.weight"]
    assert (together["kl_head.weight"] - start).abs().max() > 1e-3, "nothing was learnt"


def test_an_uneven_validation_part_is_judged_as_by_one_process(one_process, two_processes):
    alone, together = (pd.read_csv(run / "history.csv") for run in (one_process, two_processes[0]))
    assert together.pop("processes").eq(2).all()
    columns = [name for name in alone if name != "seconds"]
    pd.testing.assert_frame_equal(together[columns], alone[columns], rtol=1e-4)
    left, right = (
        tables.read_table(run / "predictions.parquet", schemas.PREDICTIONS).set_index("knee_id")
        for run in (one_process, two_processes[0])
    )
    assert len(right) == right.index.nunique() == 17
    columns = [f"kl_prob_{grade}" for grade in range(5)]
    pd.testing.assert_frame_equal(right.loc[left.index, columns], left[columns], atol=1e-4)


@pytest.mark.parametrize("epoch", range(1, EPOCHS + 1))
def test_all_processes_hold_the_same_weights_average_and_choice(two_processes, epoch):
    first, second = (
        load_file(two_processes[1] / f"{epoch}-{number}.safetensors") for number in range(2)
    )
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_the_first_process_alone_writes_and_leaves_a_whole_run(one_process, two_processes):
    def files(run):
        return sorted(str(path.relative_to(run)) for path in run.rglob("*"))

    assert files(two_processes[0]) == files(one_process)
