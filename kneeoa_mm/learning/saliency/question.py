"""What is explained, and what an explanation is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kneeoa_mm.learning.networks import Network
from kneeoa_mm.learning.saliency.answers import Answer


class Method(StrEnum):
    """How a map is made."""

    GRADCAM = "gradcam"
    """Grad-CAM (Selvaraju et al. 2017) before its ReLU, so that evidence against stays."""
    SALIENCY = "saliency"
    """Input gradient (Simonyan et al. 2014): log-odds per unit of input."""
    INTEGRATED_GRADIENTS = "integrated_gradients"
    """Sundararajan et al. 2017, from the reference: contributions that add up."""
    OCCLUSION = "occlusion"
    """Zeiler and Fergus 2014: what the log-odds lose when a window becomes the reference."""
    GRADIENT_SHAP = "gradient_shap"
    """Expected gradients (Lundberg and Lee 2017) from other knees: contributions that add up."""


ADDITIVE = {Method.INTEGRATED_GRADIENTS, Method.GRADIENT_SHAP}
"""Methods whose pixels and factors add up to the difference that they explain."""
PER_PIXEL = ADDITIVE | {Method.SALIENCY}
"""Methods that tell pixels apart; the others tell cells or windows."""


@dataclass(frozen=True, eq=False)
class Question:
    """One answer of one network about one knee, and what to compare it with.

    Attributes:
        network: In evaluation mode.
        answer: Whose log-odds are explained.
        images: Network input, (1, 1, S, S).
        clinical: Encoded factors, then the read grade where the network wants it, (1, F); None
            for an image-only network.
        reference_images: The knee without what could be seen in it, (1, 1, S, S).
        reference_clinical: The average person, (1, F).
        others: Knees of other persons as (images, clinical), for gradient SHAP.
        factor_columns: Columns of ``clinical`` that belong to each factor.
    """

    network: Network
    answer: Answer
    images: Tensor
    clinical: Tensor | None
    reference_images: Tensor
    reference_clinical: Tensor | None = None
    others: tuple[Tensor, Tensor | None] | None = None
    factor_columns: Mapping[str, list[int]] = field(default_factory=dict)

    def log_odds(self, images: Tensor, clinical: Tensor | None = None) -> Tensor:
        """Log-odds of the answer, (B,); without factors with those of the knee."""
        return self.answer.log_odds(self.outputs(images, clinical))

    def outputs(self, images: Tensor, clinical: Tensor | None = None) -> dict[str, Tensor]:
        """All outputs of the network."""
        batch = {"images": images.contiguous(memory_format=torch.channels_last)}
        factors = self.clinical if clinical is None else clinical
        if factors is not None:
            factors = factors.expand(len(images), -1)
            n_clinical = self.network.architecture["clinical_features"]
            batch["clinical"] = factors[:, :n_clinical]
            if factors.shape[1] > n_clinical:
                batch["kl_read"] = factors[:, n_clinical:]
        return self.network(batch)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What can move the answer: the images, and of progression the factors beside them."""
        # a grade sees the picture alone, and so has no gradient at the factors
        if self.clinical is None or self.answer.grades:
            return (self.images,)
        return (self.images, self.clinical)

    @property
    def references(self) -> tuple[Tensor, ...]:
        """What the inputs are compared with, in the same order."""
        both = (self.reference_images, self.reference_clinical)
        return tuple(part for part in both[: len(self.inputs)] if part is not None)

    @property
    def factors(self) -> Mapping[str, list[int]] | None:
        """Columns of the second input that belong to each factor; None where there is none."""
        return self.factor_columns if len(self.inputs) > 1 else None


@dataclass(frozen=True, eq=False)
class Attribution:
    """One map, with what the clinical factors did beside it.

    Attributes:
        method: How it was made.
        pixels: Signed map (S, S); positive speaks for the answer. Of integrated gradients and
            gradient SHAP log-odds, of occlusion log-odds per window, of the input gradient
            log-odds per unit of input, of Grad-CAM without a unit. Zero where there is no map.
        status: ``ok``, ``no positive evidence`` (the map is all negative, and is kept), or why
            there is no map.
        picture: What the whole picture changed, in log-odds; None for Grad-CAM.
        factors: What each clinical factor changed, in log-odds.
        gap: Sum of an additive method less the difference that it explains, in log-odds.
        layer: Where Grad-CAM looked.
        cells: Rows and columns of the map before it was enlarged to (S, S).
    """

    method: Method
    pixels: NDArray[np.float32]
    status: str = "ok"
    picture: float | None = None
    factors: Mapping[str, float] | None = None
    gap: float | None = None
    layer: str = ""
    cells: tuple[int, int] = (0, 0)

    @property
    def is_drawn(self) -> bool:
        """Whether there is a map at all."""
        return self.status in {"ok", "no positive evidence"}
