"""Discrete-time competing risks over a cohort's visits, where films are read only now and then.

Time runs in bins (t_{j-1}, t_j] between visits, j = 1 to J. In each, a knee that is still free of
events stays so, progresses, is replaced, or its person dies: a softmax over the four. Progression
shows on films alone, so it is known to lie between the last film without it and the first film with
it, however many visits were skipped in between; replacement and death are known to the bin.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional


class Cause(IntEnum):
    """What ends a knee's time at risk; the last axis of hazards."""

    PROGRESSION = 0
    REPLACEMENT = 1
    DEATH = 2


N_CAUSES = len(Cause)

DeathAfterGap = Literal["censor", "either"]
"""What a death says of the visits that were skipped before it; see :func:`observe`."""


@dataclass(frozen=True)
class Observed:
    """What was seen of some knees.

    Attributes:
        free_until: Last bin through which the knee was read free of events, (B,); 0 if only the
            baseline was, and -1 where nothing is known, which leaves the knee out.
        event_by: Bin by whose end the event had happened, (B,); ignored where there was none.
            Progression may have happened in any bin since the last free one, the others in this.
        causes: Which causes the event may have been, (B, 3), as 0 or 1; all 0 where the knee was
            free until it was lost from sight.
    """

    free_until: Tensor
    event_by: Tensor
    causes: Tensor

    def possible_events(self, n_bins: int) -> Tensor:
        """Where and of what cause the event may have been, (B, n_bins, 3), as truths."""
        bins = torch.arange(1, n_bins + 1, device=self.event_by.device)
        is_last = bins == self.event_by[:, None]
        within = (bins > self.free_until[:, None]) & (bins <= self.event_by[:, None])
        when = torch.stack([within, is_last & within, is_last & within], dim=2)
        return when & (self.causes[:, None, :] > 0)


def observe(
    last_free_film: Tensor,
    progressed_by: Tensor,
    replaced_in: Tensor,
    died_in: Tensor,
    *,
    death_after_gap: DeathAfterGap = "censor",
) -> Observed:
    """Turn films and dates into what the likelihood needs.

    Progression that was read comes first. Otherwise a replacement or a death counts as such only
    where the knee was read free at the visit before: else progression may have come first unseen.
    A replacement then counts as progression since the last film, or as replacement in its bin; a
    death says nothing more than that film, or likewise counts as either.

    Args:
        last_free_film: Bin of the last film without progression, (B,); 0 is the baseline.
        progressed_by: Bin of the first film with progression, (B,); 0 if there was none.
        replaced_in: Bin of the replacement, (B,); 0 if there was none.
        died_in: Bin of the death, (B,); 0 if there was none.
        death_after_gap: ``censor`` or ``either``, the sensitivity.

    Raises:
        ValueError: An event does not come after the last film without progression.
    """
    for event in (progressed_by, replaced_in, died_in):
        if ((event > 0) & (event <= last_free_film)).any():
            raise ValueError("an event must come after the last film without progression")
    progressed = progressed_by > 0
    replaced = ~progressed & (replaced_in > 0)
    died = ~progressed & ~replaced & (died_in > 0)
    if death_after_gap == "censor":
        died &= died_in == last_free_film + 1
    event_by = torch.where(progressed, progressed_by, torch.where(replaced, replaced_in, died_in))
    unseen = (replaced | died) & (event_by > last_free_film + 1)
    causes = torch.stack([progressed | unseen, replaced, died], dim=1).float()
    return Observed(last_free_film, event_by, causes)


def log_likelihood(logits: Tensor, observed: Observed) -> Tensor:
    """Log-likelihood of each knee, (B,); 0 where nothing is known.

    Free until bin L: ``log S(L)``. An event of one of some causes by bin R: the log of the sum of
    ``S(j-1) h(j, cause)`` over the bins j in which each cause may have come, which are all of
    (L, R] for progression and R alone for the others.

    Args:
        logits: (B, J, 4), the last axis being no event and then each ``Cause``.
        observed: What was seen.
    """
    log_h = logits.float().log_softmax(dim=2)
    log_survival = functional.pad(log_h[:, :, 0].cumsum(dim=1), (1, 0))
    is_known = observed.free_until >= 0
    free_until = observed.free_until.clamp_min(0)
    may_be = observed.possible_events(logits.shape[1])
    each = (log_survival[:, :-1, None] + log_h[:, :, 1:]).masked_fill(~may_be, -torch.inf)
    has_event = may_be.flatten(1).any(dim=1)
    free = log_survival.gather(1, free_until[:, None]).squeeze(1)
    # where there is no event the sum is of nothing, whose gradient would be no number
    terms = torch.where(has_event[:, None], each.flatten(1), 0.0)
    total = torch.where(has_event, terms.logsumexp(dim=1), free)
    return torch.where(is_known, total, 0.0)


def hazard_loss(logits: Tensor, observed: Observed) -> Tensor:
    """Mean negative log-likelihood over the knees of which something is known.

    Args:
        logits: (B, J, 4).
        observed: What was seen.

    Returns:
        A scalar; 0, attached to the graph, where nothing is known of any knee.
    """
    known = (observed.free_until >= 0).sum()
    total = -log_likelihood(logits, observed).sum()
    return total / known.clamp_min(1)


def cumulative_incidence(logits: Tensor) -> Tensor:
    """Probability of each cause having ended the time at risk by each visit, (B, J, 3)."""
    log_h = logits.float().log_softmax(dim=2)
    survival_before = functional.pad(log_h[:, :-1, 0].cumsum(dim=1), (1, 0)).exp()
    return (survival_before[:, :, None] * log_h[:, :, 1:].exp()).cumsum(dim=1)


def survival(logits: Tensor) -> Tensor:
    """Probability of being free of all causes after each visit, (B, J)."""
    return logits.float().log_softmax(dim=2)[:, :, 0].cumsum(dim=1).exp()
