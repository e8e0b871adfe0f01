"""How much each pixel and each clinical factor moved one output of one network; Captum's door.

Everything is in log-odds, whatever the head: a picture and a factor that say +1 raise the odds of
the answer alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from captum.attr import (
    FeatureAblation,
    GradientShap,
    IntegratedGradients,
    LayerAttribution,
    LayerGradCam,
    Occlusion,
    Saliency,
)
from captum.metrics import sensitivity_max
from numpy.typing import NDArray
from torch import Tensor

from kneeoa_mm.learning.saliency.feature_maps import choose_layer
from kneeoa_mm.learning.saliency.question import Attribution, Method, Question
from kneeoa_mm.settings import ExplainConfig

_PER_PASS = 8


def attribute(question: Question, method: Method, config: ExplainConfig) -> Attribution:
    """Make one map.

    Args:
        question: What is to be explained.
        method: How.
        config: Numbers of steps and draws, size of windows, seed.
    """
    with _seeded(config.seed):
        found = _MAKERS[method](question, config)
    if not np.isfinite(found.pixels).all():
        return replace(found, pixels=np.zeros_like(found.pixels), status="not finite")
    if found.is_drawn and not (found.pixels != 0).any():
        return replace(found, status="the output does not depend on the picture")
    if found.is_drawn and found.pixels.max() <= 0:
        return replace(found, status="no positive evidence")
    return found


def _gradcam(question: Question, config: ExplainConfig) -> Attribution:
    name, layer = choose_layer(question.network, question.images)
    # weights need no gradient here, so the picture must ask for one
    images = question.images.clone().requires_grad_(True)
    cam = LayerGradCam(question.log_odds, layer).attribute(images)
    cells = (cam.shape[-2], cam.shape[-1])
    whole = LayerAttribution.interpolate(cam, tuple(images.shape[-2:]), "bilinear")
    return Attribution(Method.GRADCAM, _as_map(whole), layer=name, cells=cells)


def _saliency(question: Question, config: ExplainConfig) -> Attribution:
    gradients = Saliency(question.log_odds).attribute(_with_gradient(question.inputs), abs=False)
    pairs = zip(gradients, question.inputs, question.references, strict=True)
    changes = [gradient.detach() * (own - reference) for gradient, own, reference in pairs]
    return _from_parts(Method.SALIENCY, question, gradients[0], changes)


def _integrated_gradients(question: Question, config: ExplainConfig) -> Attribution:
    parts, gap = IntegratedGradients(question.log_odds).attribute(
        _with_gradient(question.inputs),
        baselines=question.references,
        n_steps=config.steps,
        internal_batch_size=_PER_PASS,
        return_convergence_delta=True,
    )
    found = _from_parts(Method.INTEGRATED_GRADIENTS, question, parts[0], parts)
    return replace(found, gap=float(gap))


def _gradient_shap(question: Question, config: ExplainConfig) -> Attribution:
    if question.others is None:
        empty = np.zeros(question.images.shape[-2:], np.float32)
        return Attribution(Method.GRADIENT_SHAP, empty, "no other knee to compare with")
    baselines = tuple(part for part in question.others[: len(question.inputs)] if part is not None)
    parts, gap = GradientShap(question.log_odds).attribute(
        _with_gradient(question.inputs),
        baselines=baselines,
        n_samples=config.draws,
        return_convergence_delta=True,
    )
    found = _from_parts(Method.GRADIENT_SHAP, question, parts[0], parts)
    return replace(found, gap=float(gap.mean()))


def _occlusion(question: Question, config: ExplainConfig) -> Attribution:
    size = question.images.shape[-1]
    window, stride = (
        max(1, round(share * size)) for share in (config.occlusion_window, config.occlusion_stride)
    )
    lost = Occlusion(question.log_odds).attribute(
        question.images,
        sliding_window_shapes=(1, window, window),
        strides=(1, stride, stride),
        baselines=question.reference_images,
        perturbations_per_eval=_PER_PASS,
    )
    # Captum's other groups: the whole picture is one, each factor is one
    masks = [torch.zeros_like(each, dtype=torch.long) for each in question.inputs]
    for number, columns in enumerate((question.factors or {}).values(), start=1):
        masks[1][0, columns] = number
    with torch.no_grad():
        parts = FeatureAblation(question.log_odds).attribute(
            question.inputs, baselines=question.references, feature_mask=tuple(masks)
        )
    steps = len(range(0, size - window + stride, stride))
    found = Attribution(
        Method.OCCLUSION,
        _as_map(lost),
        picture=float(parts[0].flatten()[0]),
        cells=(steps, steps),
    )
    if question.factors is None:
        return found
    # every column of a factor holds what the whole factor changed
    changed = {name: float(parts[1][0, own[0]]) for name, own in question.factors.items()}
    return replace(found, factors=changed)


_MAKERS: dict[Method, Callable[[Question, ExplainConfig], Attribution]] = {
    Method.GRADCAM: _gradcam,
    Method.SALIENCY: _saliency,
    Method.INTEGRATED_GRADIENTS: _integrated_gradients,
    Method.OCCLUSION: _occlusion,
    Method.GRADIENT_SHAP: _gradient_shap,
}


def _from_parts(
    method: Method, question: Question, pixels: Tensor, changes: list[Tensor] | tuple[Tensor, ...]
) -> Attribution:
    """A map of pixels, beside the changes of (picture, factors) in log-odds."""
    factors = None
    if question.factors is not None:
        each = changes[1].detach()[0]
        factors = {name: float(each[columns].sum()) for name, columns in question.factors.items()}
    side = pixels.shape[-1]
    return Attribution(
        method,
        _as_map(pixels),
        picture=float(changes[0].detach().sum()),
        factors=factors,
        cells=(side, side),
    )


def _with_gradient(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(each.clone().requires_grad_(True) for each in inputs)


def _as_map(values: Tensor) -> NDArray[np.float32]:
    return values.detach()[0, 0].cpu().float().numpy()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Make the draws of Captum, which come from the global states, those of ``seed``."""
    before = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(before)


def max_sensitivity(
    question: Question, method: Method, config: ExplainConfig, *, radius: float
) -> float:
    """How far a map can move when the picture hardly does, relative to its size (Yeh et al. 2019).

    Args:
        question: What is explained.
        method: How.
        config: As for the map; ``sensitivity_draws`` pictures are tried.
        radius: Largest change of a pixel, in units of the network's input.
    """

    def explain(images: tuple[Tensor, ...]) -> Tensor:
        again = attribute(replace(question, images=images[0]), method, config)
        return torch.from_numpy(again.pixels)[None, None]

    with _seeded(config.seed):
        moved = sensitivity_max(
            explain,
            question.images,
            perturb_radius=radius,
            n_perturb_samples=config.sensitivity_draws,
            max_examples_per_batch=1,
        )
    return float(moved)
