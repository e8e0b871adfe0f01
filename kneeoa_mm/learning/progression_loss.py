"""The losses of a progression model, weighed against each other and summed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kneeoa_mm.learning.losses import GradeLoss
from kneeoa_mm.learning.time_heads import HazardHead, HorizonHead


class ProgressionLoss(nn.Module):
    """Loss of progression, with and without the reading, and of the KL grade.

    Each is a mean over the knees that have its label. Weights are fixed, or learnt: task i then
    costs ``exp(-s_i) L_i + s_i / 2`` with its log variance ``s_i`` (Kendall, Gal and Cipolla 2018,
    CVPR:7482), and a batch without any of its labels leaves ``s_i`` alone. What is validated has
    fixed weights always, for epochs of changing weights could not be compared.

    Args:
        time_head: The time head of the network.
        grade_loss: Loss of the grade.
        kl_loss_weight: Its fixed weight, beside 1 for progression; where weights are learnt, they
            multiply it.
        learns_weights: Whether weights are learnt.
    """

    def __init__(
        self,
        time_head: HorizonHead | HazardHead,
        grade_loss: GradeLoss,
        *,
        kl_loss_weight: float,
        learns_weights: bool,
    ) -> None:
        super().__init__()
        # the class, since what it needs is in the labels, and weights belong to the network alone
        self._time = type(time_head)
        self._grade_loss = grade_loss
        self._kl_loss_weight = kl_loss_weight
        names = ("jsl_scores", "jsl_scores_unread", "kl_scores")
        self.log_variances = (
            nn.ParameterDict({name: torch.zeros(()) for name in names}) if learns_weights else None
        )

    def forward(self, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
        """A scalar; 0, attached to the graph, where the batch has no label at all.

        Args:
            outputs: Of ``ProgressionNetwork``.
            batch: Labels of the time head, ``kl_target`` (B, 5) and, for two branches, ``kl_read``.
        """
        is_known = self._time.known(batch)
        counts = {"jsl_scores": is_known}
        if "jsl_scores_unread" in outputs:
            counts = {
                "jsl_scores": is_known & (batch["kl_read"].sum(dim=1) > 0),
                "jsl_scores_unread": is_known,
            }
        terms = {
            name: (self._time.loss(outputs[name], batch, among), among.any())
            for name, among in counts.items()
        }
        grade = self._kl_loss_weight * self._grade_loss(outputs, batch)
        terms["kl_scores"] = (grade, (batch["kl_target"].sum(dim=1) > 0).any())
        return torch.stack([self._weighed(name, *term) for name, term in terms.items()]).sum()

    def _weighed(self, name: str, loss: Tensor, is_known: Tensor) -> Tensor:
        if self.log_variances is None or not self.training:
            return loss
        log_variance = self.log_variances[name]
        return (-log_variance).exp() * loss + is_known * log_variance / 2
