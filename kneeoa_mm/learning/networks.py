"""Networks: a KL grader, and a progression model that fuses image and clinical factors beside KL.

Both take a batch (name to tensor) and return logits by name: ``kl_logits`` (B, 5) and, for
progression, ``jsl_logit`` (B,).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kneeoa_mm.learning.backbones import Encoder, build_encoder
from kneeoa_mm.records import KL_CLASSES

N_GRADES = len(KL_CLASSES)


class KLNetwork(nn.Module):
    """An encoder with a linear head over the five grades.

    Args:
        backbone: Name of the encoder's backbone.
    """

    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {"network": "kl", "backbone": backbone}
        self.encoder: Encoder = build_encoder(backbone)
        self.kl_head = nn.Linear(self.encoder.feature_width, N_GRADES)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """``kl_logits`` (B, 5) of ``images`` (B, 1, S, S)."""
        return {"kl_logits": self.kl_head(self.encoder(batch["images"]))}

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
    """

    def __init__(
        self, backbone: str, clinical_features: int, clinical_width: int, dropout: float
    ) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {
            "network": "progression",
            "backbone": backbone,
            "clinical_features": clinical_features,
            "clinical_width": clinical_width,
            "dropout": dropout,
        }
        self.encoder: Encoder = build_encoder(backbone)
        width = self.encoder.feature_width
        self.kl_head = nn.Linear(width, N_GRADES)
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
        """``kl_logits`` (B, 5) and ``jsl_logit`` (B,) of ``images`` and ``clinical`` (B, F)."""
        features = self.encoder(batch["images"])
        fused = self.dropout(self.image_norm(features))
        if self.clinical_branch is not None:
            fused = torch.cat([fused, self.clinical_branch(batch["clinical"])], dim=1)
        return {"kl_logits": self.kl_head(features), "jsl_logit": self.jsl_head(fused).squeeze(1)}

    def head_modules(self) -> list[nn.Module]:
        """What a head-only stage trains."""
        heads: list[nn.Module] = [self.kl_head, self.image_norm, self.jsl_head]
        return heads if self.clinical_branch is None else [*heads, self.clinical_branch]


Network = KLNetwork | ProgressionNetwork


def build_network(architecture: dict[str, Any]) -> Network:
    """Rebuild the network that a model card describes."""
    kinds = {"kl": KLNetwork, "progression": ProgressionNetwork}
    arguments = {k: v for k, v in architecture.items() if k != "network"}
    return kinds[architecture["network"]](**arguments)
