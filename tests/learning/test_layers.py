"""What a stage of a recipe lets learn, and how fast."""

import pytest
import torch
from torch import nn

from kneeoa_mm.errors import ConfigError
from kneeoa_mm.learning.backbones import build_encoder
from kneeoa_mm.learning.stages import freeze, frozen_layers, keep_statistics, make_schedule
from kneeoa_mm.settings import StageConfig

BACKBONES = ["mobilenet_v2", "convnext_tiny", "vit_b_16", "swin_t"]
"""The last three have weights of their own beside those of the layers in them."""


def encoder_of(backbone):
    with torch.device("meta"):
        return build_encoder(backbone)


def learning(encoder, trainable):
    """Names of the weights that a stage moves."""
    encoder.requires_grad_(True)
    freeze(frozen_layers(encoder, StageConfig(trainable=trainable)))
    return [name for name, weight in encoder.named_parameters() if weight.requires_grad]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_stage_of_the_head_moves_no_weight_of_the_encoder(backbone):
    assert learning(encoder_of(backbone), "head") == []


@pytest.mark.parametrize("backbone", BACKBONES)
def test_layers_are_counted_from_the_last_and_move_with_all_their_weights(backbone):
    encoder = encoder_of(backbone)
    owners = list(dict.fromkeys(n.rpartition(".")[0] for n, _ in encoder.named_parameters()))
    for last in (1, 2, 3, 10, len(owners) - 1):
        moved = {name.rpartition(".")[0] for name in learning(encoder, last)}
        assert len(moved) == last
        assert moved == {name for name, _ in encoder.named_modules() if name in owners[-last:]}
    assert len(learning(encoder, len(owners))) == len(list(encoder.parameters()))


def test_the_layers_of_the_baseline_are_all_but_the_first_four_blocks_of_mobilenet():
    """Recipes count on this number: convolutions and normalisations, from the last."""
    moved = learning(encoder_of("mobilenet_v2"), 86)
    assert {name.split(".")[2] for name in moved} == {str(block) for block in range(4, 19)}


def test_statistics_stay_in_frozen_layers_alone():
    encoder = build_encoder("simple_cnn").train()
    keep_statistics(frozen_layers(encoder, StageConfig(trainable=2)))
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [norm.training for norm in norms] == [False] * 4 + [True]


@pytest.mark.parametrize("steps", range(1, 21))
def test_one_cycle_of_any_length_rises_for_a_fifth_and_falls(steps):
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    stage = StageConfig(schedule="one_cycle")
    schedule, each = make_schedule(optimiser, stage, epochs=1, steps=steps)
    rates = []
    for _ in range(steps):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        if len(rates) < steps:
            schedule.step()
    assert each == "step"
    assert max(rates) <= 0.1
    peak = rates.index(max(rates))
    assert peak in ({0} if steps <= 5 else {steps // 5 - 1, steps // 5})
    assert rates == sorted(rates[: peak + 1]) + sorted(rates[peak + 1 :], reverse=True)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_a_network_with_further_classifiers_is_refused_by_name(name):
    with pytest.raises(ConfigError, match=f"further classifiers(.|\\n)*{name}"):
        build_encoder(name)
