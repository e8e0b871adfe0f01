"""Heads that turn features into the five KL grades: free or ordered by thresholds.

Each returns raw scores and can tell their log-probabilities of the grades, so that whatever follows
(softmax, voting, calibration) need not know which head it was.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from kneeoa_mm.errors import ConfigError
from kneeoa_mm.records import KL_CLASSES

N_GRADES = len(KL_CLASSES)
_LEAST_PROBABILITY = 1e-7


class SoftmaxHead(nn.Linear):
    """One score a grade."""

    kind = "softmax"

    def __init__(self, width: int) -> None:
        super().__init__(width, N_GRADES)

    @staticmethod
    def log_probabilities(scores: Tensor) -> Tensor:
        """The scores (B, 5) themselves, which a softmax makes probabilities."""
        return scores


class CoralHead(nn.Linear):
    """One direction and four thresholds: P(grade > k) = sigmoid(w x + b_k).

    Source: Cao, Mirjalili and Raschka 2020, Pattern Recognit Lett 140:325 (CORAL).
    """

    kind = "coral"

    def __init__(self, width: int) -> None:
        super().__init__(width, 1, bias=False)
        self.thresholds = nn.Parameter(torch.arange(N_GRADES - 1, 0, -1) / (N_GRADES - 1))

    def forward(self, features: Tensor) -> Tensor:
        """Scores (B, 4) of exceeding grades 0 to 3."""
        return super().forward(features) + self.thresholds

    @staticmethod
    def log_probabilities(scores: Tensor) -> Tensor:
        """Log-probabilities (B, 5).

        Thresholds that training left out of order count as equal.
        """
        each = scores.float().sigmoid()
        # a running minimum; ONNX has none of its own
        above = torch.stack([each[:, : k + 1].amin(dim=1) for k in range(N_GRADES - 1)], dim=1)
        edges = functional.pad(functional.pad(above, (1, 0), value=1.0), (0, 1), value=0.0)
        return (edges[:, :-1] - edges[:, 1:]).clamp_min(_LEAST_PROBABILITY).log()


class CornHead(nn.Linear):
    """Four conditional scores: P(grade > k | grade >= k) = sigmoid(score_k).

    Source: Shi, Cao and Raschka 2023, Pattern Anal Applic 26:941 (CORN).
    """

    kind = "corn"

    def __init__(self, width: int) -> None:
        super().__init__(width, N_GRADES - 1)

    @staticmethod
    def log_probabilities(scores: Tensor) -> Tensor:
        """Log-probabilities (B, 5): past the thresholds below, and not past one's own."""
        scores = scores.float()
        passed = functional.pad(functional.logsigmoid(scores).cumsum(dim=1), (1, 0))
        stopped = functional.pad(functional.logsigmoid(-scores), (0, 1))
        return passed + stopped


GradeHead = SoftmaxHead | CoralHead | CornHead
_HEADS: dict[str, type[GradeHead]] = {
    head.kind: head for head in (SoftmaxHead, CoralHead, CornHead)
}


def build_head(kind: str, width: int) -> GradeHead:
    """A head with random weights on features of ``width``."""
    return _HEADS[kind](width)


def head_of(kl_loss: str) -> str:
    """The kind of head that a loss trains."""
    return kl_loss if kl_loss in _HEADS else SoftmaxHead.kind


def check_head(kl_loss: str, head: str) -> None:
    """Stop where a loss of thresholds would meet a head without, or another's.

    Raises:
        ConfigError: They do not go together.
    """
    if kl_loss in _HEADS and kl_loss != head:
        raise ConfigError(
            "This loss needs another head than the network has.",
            expected=f"a network that was trained with kl_loss {kl_loss}",
            found=f"a {head} head",
            fix="choose a loss that fits any head, such as cross_entropy",
        )
