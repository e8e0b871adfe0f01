"""Networks: a KL grader, and a progression model that fuses image and clinical factors beside KL.

Both take a batch (name to tensor) and return, by name, ``kl_logits`` (B, 5), whose softmax are the
probabilities of the grades, the ``kl_scores`` of the head that they come from, and for progression
``jsl_logit`` (B,).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kneeoa_mm.learning.backbones import Encoder, build_encoder
from kneeoa_mm.learning.heads import GradeHead, build_head


class KLNetwork(nn.Module):
    """An encoder with a head over the five grades.

    Args:
        backbone: Name of the encoder's backbone.
        head: Kind of head: ``softmax``, ``coral`` or ``corn``.
        dropout: Share of features dropped in training before the head.
    """

    def __init__(self, backbone: str, head: str = "softmax", dropout: float = 0.0) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {
            "network": "kl",
            "backbone": backbone,
            "head": head,
            "dropout": dropout,
        }
        self.encoder: Encoder = build_encoder(backbone)
        self.dropout = nn.Dropout(dropout)
        self.kl_head: GradeHead = build_head(head, self.encoder.feature_width)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scores and logits of the grades of ``images`` (B, 1, S, S)."""
        return _grades(self.kl_head, self.dropout(self.encoder(batch["images"])))

    def head_modules(self) -> list[nn.Module]:
        """What a head-only stage trains."""
        return [self.kl_head]


class ProgressionNetwork(nn.Module):
    """Heads for progression and KL on one encoder; clinical factors join the progression branch.

    The KL head sees the image alone. A read grade, where it is an input at all, is part of
    ``clinical`` and so cannot reach the KL head.

    Args:
        backbone: Name of the encoder's backbone.
        clinical_features: Length of the encoded clinical factors; 0 for an image-only model.
        clinical_width: Hidden width of the clinical branch.
        dropout: Share of features dropped in training before the progression head.
        head: Kind of the KL head.
    """

    def __init__(
        self,
        backbone: str,
        clinical_features: int,
        clinical_width: int,
        dropout: float,
        head: str = "softmax",
    ) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {
            "network": "progression",
            "backbone": backbone,
            "clinical_features": clinical_features,
            "clinical_width": clinical_width,
            "dropout": dropout,
            "head": head,
        }
        self.encoder: Encoder = build_encoder(backbone)
        width = self.encoder.feature_width
        self.kl_head: GradeHead = build_head(head, width)
        # image features are normalised, so that neither modality drowns the other by its scale
        self.image_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.clinical_branch = None
        if clinical_features:
            self.clinical_branch = nn.Sequential(
                nn.Linear(clinical_features, clinical_width), nn.ReLU()
            )
            width += clinical_width
        self.jsl_head = nn.Linear(width, 1)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Grades, and ``jsl_logit`` (B,), of ``images`` and ``clinical`` (B, F)."""
        features = self.encoder(batch["images"])
        fused = self.dropout(self.image_norm(features))
        if self.clinical_branch is not None:
            fused = torch.cat([fused, self.clinical_branch(batch["clinical"])], dim=1)
        return _grades(self.kl_head, features) | {"jsl_logit": self.jsl_head(fused).squeeze(1)}

    def head_modules(self) -> list[nn.Module]:
        """What a head-only stage trains."""
        heads: list[nn.Module] = [self.kl_head, self.image_norm, self.jsl_head]
        return heads if self.clinical_branch is None else [*heads, self.clinical_branch]


def _grades(head: GradeHead, features: Tensor) -> dict[str, Tensor]:
    scores = head(features)
    return {"kl_scores": scores, "kl_logits": head.log_probabilities(scores)}


Network = KLNetwork | ProgressionNetwork


def build_network(architecture: dict[str, Any]) -> Network:
    """Rebuild the network that a model card describes."""
    kinds = {"kl": KLNetwork, "progression": ProgressionNetwork}
    arguments = {k: v for k, v in architecture.items() if k != "network"}
    return kinds[architecture["network"]](**arguments)
