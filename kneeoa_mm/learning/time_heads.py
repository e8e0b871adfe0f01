"""What scores of progression mean in time: by one horizon, or by each visit beside other ends.

A time head adds its intercepts to the scores of the network and knows the rest: the loss, the
probabilities, and the columns of a prediction table that they go into.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from kneeoa_mm.learning.hazards import (
    N_CAUSES,
    Cause,
    Observed,
    cumulative_incidence,
    hazard_loss,
)
from kneeoa_mm.learning.losses import progression_loss

_LEAST = 1e-4
"""Hazard that an end which training never saw starts from; and the least risk that has a logit."""


class HorizonHead(nn.Module):
    """Whether there is progression by the horizon of the outcome.

    Its label is ``event`` (B,), 1 or 0, NaN where the outcome is missing.
    """

    n_scores = 1

    def __init__(self) -> None:
        super().__init__()
        self.intercept = nn.Parameter(torch.zeros(1))

    def forward(self, scores: Tensor) -> Tensor:
        """Logits (B, 1)."""
        return scores + self.intercept

    @torch.no_grad()
    def start(self, labels: dict[str, Tensor]) -> None:
        """Begin at the prevalence, so that the models of all folds agree on the level of risk."""
        prevalence = float(labels["event"].nanmean())
        self.intercept.fill_(math.log(prevalence / (1 - prevalence)))

    @staticmethod
    def known(batch: dict[str, Tensor]) -> Tensor:
        """Which knees have something to teach, (B,)."""
        return ~batch["event"].isnan()

    @staticmethod
    def loss(logits: Tensor, batch: dict[str, Tensor], counts: Tensor) -> Tensor:
        """Mean loss over the knees that count (B,); 0, attached to the graph, if none does."""
        event = batch["event"].masked_fill(~counts, torch.nan)
        return progression_loss(logits.float().squeeze(1), event)

    @staticmethod
    def columns(outcome: str) -> tuple[str, ...]:
        """Names of the probabilities; the last is that at the horizon."""
        return (f"{outcome}_prob",)

    @staticmethod
    def probabilities(logits: Tensor) -> Tensor:
        """Shape (B, columns)."""
        return logits.float().sigmoid()

    @staticmethod
    def risk_logit(logits: Tensor) -> Tensor:
        """Logit of the risk at the horizon, (B,)."""
        return logits.float().squeeze(1)


class HazardHead(nn.Module):
    """When, by visits: discrete-time competing risks of progression, replacement and death.

    A score of each cause shifts the logits of that cause's hazard in all bins alike, so that a few
    hundred events suffice; the level of each bin is an intercept. Labels are ``free_until`` (B,),
    ``event_by`` (B,) and ``causes`` (B, 3) of :class:`hazards.Observed`.

    Args:
        visits_months: Ends of the bins, rising.
        horizon_months: One of them, at which the outcome is judged.
    """

    n_scores = N_CAUSES

    def __init__(self, visits_months: Sequence[int], horizon_months: int) -> None:
        super().__init__()
        self._visits_months = tuple(visits_months)
        self._horizon = self._visits_months.index(horizon_months)
        self.intercepts = nn.Parameter(torch.zeros(len(visits_months), N_CAUSES))

    def forward(self, scores: Tensor) -> Tensor:
        """Logits (B, J, 4): no event, which is 0 throughout, then each cause."""
        return functional.pad(scores[:, None, :] + self.intercepts, (1, 0))

    @torch.no_grad()
    def start(self, labels: dict[str, Tensor]) -> None:
        """Begin at the hazards of a life table, possible events of a knee sharing it alike."""
        observed = Observed(*(labels[k] for k in ("free_until", "event_by", "causes")))
        bins = torch.arange(1, len(self._visits_months) + 1)
        may_be = observed.possible_events(len(bins))
        shares = may_be / may_be.sum(dim=(1, 2), keepdim=True).clamp_min(1)
        # at risk is who was seen free, and the shares that are still to come
        to_come = shares.sum(dim=2).flip(1).cumsum(dim=1).flip(1)
        at_risk = torch.maximum(bins <= observed.free_until[:, None], to_come).sum(dim=0)
        hazards = (shares.sum(dim=0) / at_risk.clamp_min(1)[:, None]).clamp_min(_LEAST)
        free = (1 - hazards.sum(dim=1, keepdim=True)).clamp_min(_LEAST)
        self.intercepts.copy_((hazards / free).log())

    @staticmethod
    def known(batch: dict[str, Tensor]) -> Tensor:
        """Which knees have something to teach, (B,)."""
        return batch["free_until"] >= 0

    @staticmethod
    def loss(logits: Tensor, batch: dict[str, Tensor], counts: Tensor) -> Tensor:
        """Mean loss over the knees that count (B,); 0, attached to the graph, if none does."""
        free_until = batch["free_until"].masked_fill(~counts, -1)
        return hazard_loss(logits, Observed(free_until, batch["event_by"], batch["causes"]))

    def columns(self, outcome: str) -> tuple[str, ...]:
        """Names of the probabilities; the last is that at the horizon."""
        by_visit = (f"{outcome}_cif_{months}" for months in self._visits_months)
        return (*by_visit, f"{outcome}_prob")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Cumulative incidence of progression by each visit, and at the horizon, (B, columns)."""
        incidence = cumulative_incidence(logits)[:, :, Cause.PROGRESSION]
        return torch.cat([incidence, incidence[:, self._horizon, None]], dim=1)

    def risk_logit(self, logits: Tensor) -> Tensor:
        """Logit of the risk at the horizon, (B,)."""
        return self.probabilities(logits)[:, -1].logit(eps=_LEAST)


TimeHead = HorizonHead | HazardHead


def build_time_head(visits_months: Sequence[int], horizon_months: int | None) -> TimeHead:
    """A hazard head for visits; without any, one for the horizon."""
    if horizon_months is None:
        return HorizonHead()
    return HazardHead(visits_months, horizon_months)
