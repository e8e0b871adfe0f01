"""The answers of a network that can be explained, all as log-odds."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kneeoa_mm.errors import ConfigError
from kneeoa_mm.learning.heads import N_GRADES

PROGRESSION = "progression"
_OA_GRADES = (2, 3, 4)


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        name: In outputs, such as ``kl_grade_2``, ``kl_2_or_more`` or ``progression``.
        grades: The grades that it says yes to; empty for progression.
    """

    name: str
    grades: tuple[int, ...] = ()

    def log_odds(self, outputs: dict[str, Tensor]) -> Tensor:
        """Log-odds (B,) by the network, before any temperature.

        Of grades, against all other grades: so they mean the same for every kind of head.
        """
        if not self.grades:
            return outputs["jsl_logit"]
        logits = outputs["kl_logits"]
        rest = [grade for grade in range(N_GRADES) if grade not in self.grades]
        return logits[:, list(self.grades)].logsumexp(1) - logits[:, rest].logsumexp(1)


def choose_answer(target: str, predicted: int, outcome: str | None) -> Answer:
    """The answer that ``target`` of the configuration asks for.

    Args:
        target: ``auto``, ``grade``, ``kl_2_or_more``, ``progression``, or a grade.
        predicted: The grade that the model gives this knee.
        outcome: The progression outcome of the model, or None.

    Raises:
        ConfigError: The model does not predict progression.
    """
    if target == "auto":
        target = "grade" if outcome is None else PROGRESSION
    if target == PROGRESSION:
        if outcome is None:
            raise ConfigError("This model predicts no progression.", fix="--target grade")
        return Answer(PROGRESSION)
    if target == "kl_2_or_more":
        return Answer(target, _OA_GRADES)
    grade = predicted if target == "grade" else int(target)
    return Answer(f"kl_grade_{grade}", (grade,))
