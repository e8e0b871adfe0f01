"""What the training loop refuses, and what speeds it up without changing what it makes."""

from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kneeoa_mm.config import load_config
from kneeoa_mm.errors import ConfigError, KneeOAError
from kneeoa_mm.learning.networks import KLNetwork
from kneeoa_mm.learning.pretrain_kl import pretrain_kl
from kneeoa_mm.learning.stages import move_average
from kneeoa_mm.settings import PretrainKLConfig

SMALL = ("members=[{backbone: simple_cnn, image_size_px: 40}]", "train.batch_size=16")


def kl_config(*sets):
    return load_config(PretrainKLConfig, sets=[*SMALL, *sets])


def test_float16_without_a_gpu_is_refused_before_any_work(graded_folder, tmp_path):
    config = kl_config("train.precision=float16")
    with pytest.raises(ConfigError, match="float16 needs a GPU"):
        pretrain_kl(graded_folder, tmp_path / "run", config=config, device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("batch_size", [16, 60])
def test_a_loss_that_is_no_number_ends_the_run_and_is_not_kept(graded_folder, tmp_path, batch_size):
    """In the middle of an epoch, and where the epoch has one batch and the loss is its last."""
    run = tmp_path / "run"
    config = kl_config(
        "train.lr=1e30", "train.optimiser=sgd", f"train.batch_size={batch_size}", "train.epochs=4"
    )
    with pytest.raises(KneeOAError, match="not a number any more"):
        pretrain_kl(graded_folder, run, config=config, device="cpu")
    for kept in run.rglob("best.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(kept).values())
    assert not (run / "ensemble.json").exists()


def test_a_compiled_network_leaves_the_weights_of_one_that_is_not(
    graded_folder, tmp_path, monkeypatch
):
    """Under the same names. The kernels are left out here: they take a minute to build."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    runs = {name: tmp_path / name for name in ("plain", "compiled")}
    for name, run in runs.items():
        config = kl_config("train.epochs=2", f"train.compile={str(name == 'compiled').lower()}")
        pretrain_kl(graded_folder, run, config=config, device="cpu")
    plain, compiled = (
        load_file(next(run.glob("members/*/weights.safetensors"))) for run in runs.values()
    )
    torch.testing.assert_close(compiled, plain)


def two_networks(device="cpu"):
    """A network, and one of other weights whose batch statistics are not those of a new one."""
    networks = [KLNetwork("simple_cnn").to(device) for _ in range(2)]
    if device == "cpu":
        networks[1].train()({"images": torch.randn(8, 1, 32, 32)})
    return networks


def test_in_the_long_run_the_average_is_the_exponential_one_of_torch():
    average, network = two_networks()
    oracle = AveragedModel(average, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    oracle.n_averaged += 1  # the first would be taken as it is
    oracle.update_parameters(network)
    move_average(average, network, decay=0.9, before=10**6)
    assert average.state_dict().keys() == oracle.module.state_dict().keys()
    for name, value in oracle.module.state_dict().items():
        torch.testing.assert_close(average.state_dict()[name], value)


def test_the_average_begins_with_the_first_weights_and_trusts_early_ones_less():
    distances = []
    for before in (0, 1, 10, 1000):
        torch.manual_seed(0)
        average, network = two_networks()
        move_average(average, network, decay=0.99, before=before)
        distances.append((average.kl_head.weight - network.kl_head.weight).norm().item())
    assert distances[0] == 0
    assert distances == sorted(set(distances))


def test_the_average_asks_its_device_for_no_number():
    """A GPU would have to finish all that it was given; the device `meta` has no numbers at all."""
    move_average(*two_networks("meta"), decay=0.9, before=3)
