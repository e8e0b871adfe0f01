"""The numbers that a network is trained in, and which of them a device computes in."""

from __future__ import annotations

import torch

from kneeoa_mm.errors import ConfigError
from kneeoa_mm.learning.inference import choose_device
from kneeoa_mm.progress import say

AUTO, BFLOAT16, FLOAT16, FLOAT32 = "auto", "bfloat16", "float16", "float32"


def check_precision(precision: str, device: str) -> None:
    """Refuse what the device cannot do.

    Args:
        precision: As ``TrainConfig.precision``.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ConfigError: ``float16`` without a GPU, or ``cuda`` where there is none.
    """
    if choose_device(device) != "cuda" and precision == FLOAT16:
        raise ConfigError(
            "float16 needs a GPU: small gradients are kept by a scaling that CPUs do without.",
            found="train.precision float16 on the CPU",
            fix="--set train.precision=auto, or float32",
        )


def choose_precision(precision: str, device: str) -> str:
    """``bfloat16`` or ``float32`` for ``auto``, else what was asked for.

    A processor without bfloat16 instructions can be asked for it and emulates it: a MobileNetV2
    then learnt from a tenth of the images a second (docs/how-to/train-on-many-gpus.md).

    Args:
        precision: As ``TrainConfig.precision``.
        device: ``auto``, ``cpu`` or ``cuda``.
    """
    computes_in_it = _computes_in_bfloat16(choose_device(device))
    if precision == AUTO:
        return BFLOAT16 if computes_in_it else FLOAT32
    if precision == BFLOAT16 and not computes_in_it:
        say(
            "This device has no bfloat16 arithmetic and emulates it, which may be ten times slower "
            "than float32: --set train.precision=auto takes what is fast."
        )
    return precision


def _computes_in_bfloat16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported())
