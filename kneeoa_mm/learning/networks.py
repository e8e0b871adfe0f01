"""Networks: a KL grader, and a progression model that fuses image and clinical factors beside KL.

Both take a batch (name to tensor) and return, by name, ``kl_logits`` (B, 5), whose softmax are the
probabilities of the grades, the ``kl_scores`` of the head that they come from, and for progression
``jsl_scores``, ``jsl_probs`` and ``jsl_logit`` (B,).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kneeoa_mm.errors import ConfigError
from kneeoa_mm.learning.backbones import Encoder, build_encoder
from kneeoa_mm.learning.fusion import Fusion
from kneeoa_mm.learning.heads import N_GRADES, GradeHead, build_head
from kneeoa_mm.learning.time_heads import TimeHead, build_time_head
from kneeoa_mm.records import WITHOUT_READING


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
        return self.heads(self.encoder(batch["images"]), batch)

    def heads(self, features: Tensor, _: dict[str, Tensor]) -> dict[str, Tensor]:
        """What follows the encoder; see :meth:`forward`."""
        return _grades(self.kl_head, self.dropout(features))


class Branch(nn.Module):
    """From features and factors to progression.

    Args:
        fusion: Joins them.
        time_head: Says what their scores mean in time.
    """

    def __init__(self, fusion: Fusion, time_head: TimeHead) -> None:
        super().__init__()
        self.fusion = fusion
        self.time_head = time_head

    def forward(self, features: Tensor, factors: Tensor) -> Tensor:
        """What the time head makes of features (B, D) and factors (B, F)."""
        return self.time_head(self.fusion(features, factors))


class ProgressionNetwork(nn.Module):
    """Heads for progression and KL on one encoder; all that is no image joins progression alone.

    The KL head sees the image and nothing else: a network in which a clinical factor or the read
    grade could reach it cannot be built. With ``kl_input`` ``read`` a second branch of progression,
    which never sees the reading, learns beside the first and speaks for knees without one.

    Args:
        backbone: Name of the encoder's backbone.
        head: Kind of the KL head.
        clinical_features: Length of the encoded clinical factors; 0 for none.
        reading_columns: Columns of them that are readings, such as the other knee's grade, which
            the branch without a reading does not see.
        clinical_width: Hidden width in which factors are encoded.
        fusion: How features and factors join: ``concat``, ``film`` or ``late``.
        fusion_width: Of ``concat``: hidden units in which both meet; 0 for none.
        dropout: Share of features dropped in training before progression.
        kl_input: Grade that progression sees: ``none``, ``read``, or ``predicted`` by the KL head,
            which learns nothing from there.
        visits_months: Of a model of when there is progression: ends of its bins.
        horizon_months: One of them; None for a model of whether there is progression.
    """

    def __init__(
        self,
        backbone: str,
        *,
        head: str = "softmax",
        clinical_features: int = 0,
        reading_columns: Sequence[int] = (),
        clinical_width: int = 32,
        fusion: str = "concat",
        fusion_width: int = 0,
        dropout: float = 0.0,
        kl_input: str = "none",
        visits_months: Sequence[int] = (),
        horizon_months: int | None = None,
    ) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {
            "network": "progression",
            "backbone": backbone,
            "head": head,
            "clinical_features": clinical_features,
            "reading_columns": list(reading_columns),
            "clinical_width": clinical_width,
            "fusion": fusion,
            "fusion_width": fusion_width,
            "dropout": dropout,
            "kl_input": kl_input,
            "visits_months": list(visits_months),
            "horizon_months": horizon_months,
        }
        self.encoder: Encoder = build_encoder(backbone)
        self.kl_head: GradeHead = build_head(head, self.encoder.feature_width)
        self._clinical_features = clinical_features
        self._kl_input = kl_input

        def branch(n_factors: int) -> Branch:
            time_head = build_time_head(visits_months, horizon_months)
            fused = Fusion(
                fusion,
                width=self.encoder.feature_width,
                n_factors=n_factors,
                factor_width=clinical_width,
                fusion_width=fusion_width,
                dropout=dropout,
                n_scores=time_head.n_scores,
            )
            return Branch(fused, time_head)

        self.branch = branch(clinical_features + (0 if kl_input == "none" else N_GRADES))
        self._unread_columns = [n for n in range(clinical_features) if n not in reading_columns]
        self.unread_branch = branch(len(self._unread_columns)) if kl_input == "read" else None
        self._refuse_leaks()

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Grades and progression of ``images`` (B, 1, S, S).

        ``features`` (B, D) that were computed before take the place of images. ``clinical`` (B, F)
        is wanted where the network has clinical features; of a read grade, ``kl_read`` (B, 5) is
        one-hot, and all zero, or not there at all, where there is none.

        Returns:
            Beside the grades ``jsl_scores``, which the time head made, ``jsl_probs`` (B, columns)
            in the order of :meth:`columns`, and ``jsl_logit`` (B,) of the risk at the horizon. With
            ``kl_input`` ``read`` also ``jsl_scores_unread``; the other two are then of the branch
            with the reading where there is one.
        """
        known = batch.get("features")
        return self.heads(self.encoder(batch["images"]) if known is None else known, batch)

    def heads(self, features: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """What follows the encoder; see :meth:`forward`."""
        grades = _grades(self.kl_head, features)
        clinical = features.new_zeros(features.shape[0], 0)
        if self._clinical_features:
            clinical = batch["clinical"]
        if self.unread_branch is None:
            factors = clinical
            if self._kl_input == "predicted":
                grade = grades["kl_logits"].softmax(dim=1)
                # the grade learns nothing from here, but a map must follow it to the picture
                seen = grade.detach() if self.training else grade
                factors = torch.cat([clinical, seen], dim=1)
            scores = self.branch(features, factors)
            return grades | {"jsl_scores": scores} | self._risks(scores)
        grade = batch.get("kl_read", features.new_zeros(features.shape[0], N_GRADES))
        scores = self.branch(features, torch.cat([clinical, grade], dim=1))
        unread = self.unread_branch(features, clinical[:, self._unread_columns])
        is_read = (grade.sum(dim=1) > 0).view(-1, *[1] * (scores.dim() - 1))
        risks = self._risks(torch.where(is_read, scores, unread))
        without = self._risks(unread)["jsl_probs"][:, -1:]
        risks["jsl_probs"] = torch.cat([risks["jsl_probs"], without], dim=1)
        return grades | {"jsl_scores": scores, "jsl_scores_unread": unread} | risks

    def _risks(self, scores: Tensor) -> dict[str, Tensor]:
        head = self.branch.time_head
        return {"jsl_probs": head.probabilities(scores), "jsl_logit": head.risk_logit(scores)}

    def columns(self, outcome: str) -> tuple[str, ...]:
        """Names of ``jsl_probs``."""
        unread = (f"{outcome}{WITHOUT_READING}",) if self.unread_branch else ()
        return (*self.branch.time_head.columns(outcome), *unread)

    def start(self, labels: dict[str, Tensor]) -> None:
        """Begin at the level of risk of the training knees."""
        for branch in (self.branch, self.unread_branch):
            if branch is not None:
                branch.time_head.start(labels)

    def _refuse_leaks(self) -> None:
        """Raise where something beside the image can reach the grades."""
        further = {"clinical": self._clinical_features, "kl_read": N_GRADES}
        batch = {name: torch.zeros(2, n, requires_grad=True) for name, n in further.items()}
        was_training = self.training
        # dropout would draw random numbers that the initial weights depend on
        self.eval()
        outputs = self.heads(torch.zeros(2, self.encoder.feature_width), batch)
        self.train(was_training)
        for name in ("kl_scores", "kl_logits"):
            reach = torch.autograd.grad(
                outputs[name].sum(), list(batch.values()), allow_unused=True, retain_graph=True
            )
            leaks = [n for n, found in zip(batch, reach, strict=True) if found is not None]
            if leaks:
                raise ConfigError(
                    "The KL head could see more than the image.",
                    expected="clinical factors and the read grade on the progression branch alone",
                    found=f"{name} depend on {', '.join(leaks)}",
                )


def _grades(head: GradeHead, features: Tensor) -> dict[str, Tensor]:
    scores = head(features)
    return {"kl_scores": scores, "kl_logits": head.log_probabilities(scores)}


Network = KLNetwork | ProgressionNetwork


def refuse_image_size(network: KLNetwork, size_px: int) -> None:
    """Raise where a network takes no images of a size, by showing it an empty one.

    Args:
        network: Left in evaluation mode.
        size_px: Rows and columns of the images.

    Raises:
        ConfigError: As transformers that know one size alone.
    """
    try:
        with torch.inference_mode():
            network.eval()({"images": torch.zeros(1, 1, size_px, size_px)})
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"This network takes no images of {size_px} px.",
            found=f"{network.architecture['backbone']}: {error}",
            fix="set image_size_px of the member to a size that the network knows, such as 224",
        ) from error


def build_network(architecture: dict[str, Any]) -> Network:
    """Rebuild the network that a model card describes."""
    kinds = {"kl": KLNetwork, "progression": ProgressionNetwork}
    arguments = {k: v for k, v in architecture.items() if k != "network"}
    return kinds[architecture["network"]](**arguments)
