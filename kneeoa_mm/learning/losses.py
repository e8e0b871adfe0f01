"""Losses that skip missing labels; a batch without any label gives zero, attached to the graph."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

MISSING_GRADE = -1


def kl_loss(kl_logits: Tensor, kl_grade: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy over the knees with a grade.

    Args:
        kl_logits: Shape (B, 5).
        kl_grade: Shape (B,), integer; -1 where the grade is missing.
        label_smoothing: Share of the target spread over all grades (Szegedy et al. 2016).

    Returns:
        A scalar.
    """
    known = kl_grade != MISSING_GRADE
    if not known.any():
        return kl_logits.sum() * 0
    return functional.cross_entropy(
        kl_logits[known], kl_grade[known], label_smoothing=label_smoothing
    )


def progression_loss(jsl_logit: Tensor, event: Tensor) -> Tensor:
    """Mean binary cross-entropy over the knees with an outcome.

    Args:
        jsl_logit: Shape (B,).
        event: Shape (B,), 1.0 or 0.0; NaN where the outcome is missing.

    Returns:
        A scalar.
    """
    known = ~event.isnan()
    if not known.any():
        return jsl_logit.sum() * 0
    return functional.binary_cross_entropy_with_logits(jsl_logit[known], event[known])
