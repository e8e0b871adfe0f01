"""Which layer Grad-CAM looks at: the last one whose map can tell two compartments apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kneeoa_mm.learning.networks import Network

LEAST_CELLS = 7
"""Fewer cells a side are coarser than half a knee: 3 cells put both compartments into one row."""


def choose_layer(network: Network, images: Tensor) -> tuple[str, nn.Module]:
    """The last layer on the trunk of the encoder whose map has 7 by 7 cells or more.

    Where none has, the last feature map, however coarse.

    Args:
        network: Whose encoder.
        images: An input, (B, 1, S, S).

    Returns:
        Name within the backbone, and the layer.

    Raises:
        ConfigError: The backbone has no feature map that we know of.
    """
    backbone = network.encoder.backbone
    last = network.encoder.feature_map()
    names = {module: name for name, module in backbone.named_modules()}
    seen: list[tuple[nn.Module, int]] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        # a layer that sees patches instead of the image has a map of another place
        if isinstance(output, Tensor) and output.ndim == 4 and len(output) == 1:
            seen.append((module, min(output.shape[-2:])))

    hooks = [module.register_forward_hook(note) for module in {last, *_trunk(backbone)}]
    try:
        with torch.no_grad():
            network.encoder(images[:1])
    finally:
        for hook in hooks:
            hook.remove()
    if dict(seen).get(last, 0) >= LEAST_CELLS:
        return names[last], last
    # a layer that runs twice has two maps, of which Captum could explain only one
    times = Counter(module for module, _ in seen)
    fine = [each for each, cells in seen if cells >= LEAST_CELLS and times[each] == 1]
    chosen = fine[-1] if fine else last
    return names[chosen], chosen


def _trunk(module: nn.Module) -> Iterator[nn.Module]:
    """Layers through which everything passes: children in series, not the inside of blocks."""
    for child in module.children():
        yield child
        if isinstance(child, nn.Sequential):
            yield from _trunk(child)
