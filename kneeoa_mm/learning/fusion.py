"""How the features of an image and factors of the person become scores of progression.

Factors are whatever stands beside the image: encoded clinical factors, the read or predicted KL
grade. Three ways to join them: ``concat``, ``film`` and ``late``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Concat(nn.Module):
    """Features and factors side by side, meeting in a hidden layer.

    Without one (``fusion_width`` 0) a linear head adds up what each contributes, as the joint
    model of udAAbu/JSL_Project does.
    """

    def __init__(self, width: int, factor_width: int, fusion_width: int, n_scores: int) -> None:
        super().__init__()
        joined = width + factor_width
        self.meeting: nn.Module = nn.Identity()
        if fusion_width:
            self.meeting = nn.Sequential(nn.Linear(joined, fusion_width), nn.ReLU())
        self.scores = nn.Linear(fusion_width or joined, n_scores, bias=False)

    def forward(self, features: Tensor, factors: Tensor) -> Tensor:
        """Scores (B, n_scores)."""
        return self.scores(self.meeting(torch.cat([features, factors], dim=1)))


class Film(nn.Module):
    """Factors scale and shift each feature (Perez et al. 2018, AAAI:3942).

    It starts without any effect of the factors.
    """

    def __init__(self, width: int, factor_width: int, _: int, n_scores: int) -> None:
        super().__init__()
        self.gates = nn.Linear(factor_width, 2 * width)
        nn.init.zeros_(self.gates.weight)
        nn.init.zeros_(self.gates.bias)
        self.scores = nn.Linear(width, n_scores, bias=False)

    def forward(self, features: Tensor, factors: Tensor) -> Tensor:
        """Scores (B, n_scores)."""
        scale, shift = self.gates(factors).chunk(2, dim=1)
        return self.scores(features * (1 + scale) + shift)


class Late(nn.Module):
    """The scores of the image plus those of the factors: neither changes what the other says."""

    def __init__(self, width: int, factor_width: int, _: int, n_scores: int) -> None:
        super().__init__()
        self.image_scores = nn.Linear(width, n_scores, bias=False)
        self.factor_scores = nn.Linear(factor_width, n_scores, bias=False)

    def forward(self, features: Tensor, factors: Tensor) -> Tensor:
        """Scores (B, n_scores)."""
        return self.image_scores(features) + self.factor_scores(factors)


_WAYS: dict[str, type[Concat] | type[Film] | type[Late]] = {
    "concat": Concat,
    "film": Film,
    "late": Late,
}


class Fusion(nn.Module):
    """Image features and factors to scores.

    Args:
        way: ``concat``, ``film`` or ``late``.
        width: Length of the image features.
        n_factors: Length of the factors; 0 for the image alone.
        factor_width: Hidden width in which factors are encoded.
        fusion_width: Of ``concat``: hidden units in which both meet; 0 for none.
        dropout: Share of image features dropped in training.
        n_scores: Length of the scores.
    """

    def __init__(
        self,
        way: str,
        *,
        width: int,
        n_factors: int,
        factor_width: int,
        fusion_width: int,
        dropout: float,
        n_scores: int,
    ) -> None:
        super().__init__()
        # image features are normalised, so that neither modality drowns the other by its scale
        self.image = nn.Sequential(nn.LayerNorm(width), nn.Dropout(dropout))
        self.factors = None
        if n_factors:
            self.factors = nn.Sequential(nn.Linear(n_factors, factor_width), nn.ReLU())
            self.join = _WAYS[way](width, factor_width, fusion_width, n_scores)
        else:
            self.scores = nn.Linear(width, n_scores, bias=False)

    def forward(self, features: Tensor, factors: Tensor) -> Tensor:
        """Scores (B, n_scores) of features (B, width) and factors (B, n_factors)."""
        image = self.image(features)
        if self.factors is None:
            return self.scores(image)
        return self.join(image, self.factors(factors))
