"""Losses that skip missing labels; a batch without any label gives zero, attached to the graph.

A grade enters as a distribution over the five grades (B, 5): one-hot as read, mixed by mixup, all
zero where it is missing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from kneeoa_mm.learning.heads import N_GRADES
from kneeoa_mm.settings import TrainConfig

_LEAST_DOUBT = 1e-6


def grade_targets(grades: NDArray[np.float64]) -> Tensor:
    """Distributions over the grades, shape (n, 5).

    Args:
        grades: Shape (n,); NaN where the grade is missing.

    Example:
        >>> grade_targets(np.array([2.0, np.nan])).tolist()
        [[0.0, 0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]]
    """
    return torch.tensor(grades[:, None] == np.arange(N_GRADES), dtype=torch.float32)


def grade_weights(targets: Tensor) -> Tensor:
    """Weights (5,) in inverse proportion to how often a grade occurs, with a mean of 1 a knee.

    Grades that do not occur weigh nothing.

    Args:
        targets: Distributions of the training part, (n, 5).
    """
    counts = targets.sum(dim=0)
    occurs = counts > 0
    return torch.where(occurs, counts.sum() / (occurs.sum() * counts.clamp_min(1)), 0.0)


@dataclass(frozen=True)
class GradeLoss:
    """Loss of the KL grade.

    ``cross_entropy``, with label smoothing (Szegedy et al. 2016). ``focal``: the same with each
    grade's term times ``(1 - p) ** gamma`` (Lin et al. 2017). ``expected_grade``: cross-entropy
    plus the squared error of the expected grade. ``coral``: binary cross-entropy of all thresholds
    (Cao et al. 2020). ``corn``: of each threshold among the knees that reach it (Shi et al. 2023).

    Attributes:
        name: One of these.
        label_smoothing: Share of the target spread over all grades; not for ``coral`` and ``corn``.
        focal_gamma: Exponent of ``focal``.
        weights: Of the grades, (5,); None weighs them alike.
    """

    name: str = "cross_entropy"
    label_smoothing: float = 0.0
    focal_gamma: float = 2.0
    weights: Tensor | None = None

    @classmethod
    def of(cls, config: TrainConfig, weights: Tensor | None = None) -> GradeLoss:
        """The loss that a recipe states, with weights of the grades."""
        return cls(config.kl_loss, config.label_smoothing, config.focal_gamma, weights)

    def __call__(self, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
        """Mean over the knees with a grade.

        A knee that mixup joined with one that has none counts by its share.

        Args:
            outputs: ``kl_scores`` of the head and ``kl_logits`` (B, 5).
            batch: ``kl_target`` (B, 5).

        Returns:
            A scalar.
        """
        target = batch["kl_target"]
        share_known = target.sum(dim=1)
        is_known = share_known > 0
        if not is_known.any():
            return outputs["kl_scores"].sum() * 0
        # shares that sum to 1 but for rounding stay as they are
        counts = torch.where(share_known.isclose(share_known.new_ones(())), 1.0, share_known)
        counts = counts[is_known]
        known = target[is_known] / counts[:, None]
        terms, share = self._terms(
            outputs["kl_scores"][is_known].float(), outputs["kl_logits"][is_known].float(), known
        )
        weight = counts if self.weights is None else counts * (known @ self.weights.to(known))
        return (weight * terms).sum() / (weight * share).sum()

    def _terms(self, scores: Tensor, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each knee (B,), and for how many terms of the mean it counts."""
        one = torch.ones(len(target), device=target.device)
        if self.name in {"coral", "corn"}:
            # P(grade > k) and P(grade >= k) of the target, k = 0 to 3
            reached = target.flip(1).cumsum(1).flip(1)
            above, reached = reached[:, 1:], reached[:, :-1]
            if self.name == "coral":
                every = functional.binary_cross_entropy_with_logits(scores, above, reduction="none")
                return every.sum(dim=1), one
            passed, stopped = functional.logsigmoid(scores), functional.logsigmoid(-scores)
            return -(above * passed + (reached - above) * stopped).sum(dim=1), reached.sum(dim=1)
        log_p = logits.log_softmax(dim=1)
        smooth = target * (1 - self.label_smoothing) + self.label_smoothing / N_GRADES
        if self.name == "focal":
            # roots have no slope at 0, where a grade that is sure is
            doubt = (1 - log_p.exp()).clamp_min(_LEAST_DOUBT)
            return -(smooth * doubt**self.focal_gamma * log_p).sum(dim=1), one
        terms = -(smooth * log_p).sum(dim=1)
        if self.name == "expected_grade":
            grades = torch.arange(N_GRADES, device=target.device, dtype=target.dtype)
            terms = terms + (log_p.exp() @ grades - target @ grades) ** 2
        return terms, one


def progression_loss(jsl_logit: Tensor, event: Tensor) -> Tensor:
    """Mean binary cross-entropy over the knees with an outcome.

    Args:
        jsl_logit: Shape (B,).
        event: Shape (B,), 1.0 or 0.0, or between where mixed; NaN where the outcome is missing.

    Returns:
        A scalar.
    """
    known = ~event.isnan()
    if not known.any():
        return jsl_logit.sum() * 0
    return functional.binary_cross_entropy_with_logits(jsl_logit[known], event[known])
