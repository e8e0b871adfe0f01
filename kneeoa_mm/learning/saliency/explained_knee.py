"""One knee before all members that may judge it: what each was moved by, and their mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from kneeoa_mm.learning.calibration import at_temperature
from kneeoa_mm.learning.dataset import read_grey, to_input
from kneeoa_mm.learning.ensemble import EnsembleRules, vote
from kneeoa_mm.learning.framing import frame
from kneeoa_mm.learning.models import Model
from kneeoa_mm.learning.saliency.answers import Answer, choose_answer
from kneeoa_mm.learning.saliency.attribution import attribute
from kneeoa_mm.learning.saliency.placement import Placement
from kneeoa_mm.learning.saliency.question import PER_PIXEL, Attribution, Method, Question
from kneeoa_mm.learning.saliency.sample import Sample
from kneeoa_mm.records import Box
from kneeoa_mm.settings import ExplainConfig

MEAN = "mean"
_BLUR_SHARE = 1 / 16
"""Of the picture's side: wider than a joint space, which is gone in the blurred knee."""
_BOX = ("box_left_px", "box_top_px", "box_right_px", "box_bottom_px")


@dataclass(frozen=True, eq=False)
class Voice:
    """One member on one knee.

    Attributes:
        member: The member.
        question: What was explained.
        found: Its maps, in the units of its input.
        grey: The knee as it saw it, (S, S).
        placement: Where that lies on the knee image.
    """

    member: Model
    question: Question
    found: tuple[Attribution, ...]
    grey: NDArray[np.uint8]
    placement: Placement

    @property
    def maps(self) -> list[Attribution]:
        """Its maps, input gradients per full range of grey, as other members have other units."""
        std = self.member.card.preprocessing.std
        return [
            replace(each, pixels=np.asarray(each.pixels / std, dtype=np.float32))
            if each.method is Method.SALIENCY
            else each
            for each in self.found
        ]


@dataclass(frozen=True, eq=False)
class ExplainedKnee:
    """What moved a model's answer about one knee.

    Attributes:
        knee: Its row.
        person: Whose it is.
        answer: What was explained.
        grade: The grade that the members find most probable on average.
        outcome: That the answer is of; None for grades.
        risk: Of progression, where the model predicts it.
        log_odds: Of the answer, averaged over members.
        reference_log_odds: The same of the blurred knee and the average person.
        is_seen: All members were trained on this person.
        voices: The members that speak.
        shape: Rows and columns of the knee image.
        grey: The knee as the first member of the model would see it, (S, S), whether it speaks or
            not: so that maps of all knees have one size.
        placement: Where that lies on the knee image.
    """

    knee: pd.Series
    person: str
    answer: Answer
    grade: int
    outcome: str | None
    risk: float | None
    log_odds: float
    reference_log_odds: float
    is_seen: bool
    voices: tuple[Voice, ...]
    shape: tuple[int, int]
    grey: NDArray[np.uint8]
    placement: Placement

    @cached_property
    def mean(self) -> list[Attribution]:
        """The mean map of each method over members, in the pixels of ``grey``."""
        per_voice = [[self._moved(voice, each) for each in voice.maps] for voice in self.voices]
        return [_mean(list(found)) for found in zip(*per_voice, strict=True)]

    def _moved(self, voice: Voice, found: Attribution) -> Attribution:
        """A member's map in the pixels of ``grey``."""
        size = len(self.grey)
        pixels = found.pixels
        if len(pixels) != size:
            image = Image.fromarray(pixels).resize((size, size), Image.Resampling.BOX)
            pixels = np.asarray(image, dtype=np.float32)
        pixels = self.placement.take(voice.placement, pixels)
        if found.method in PER_PIXEL:
            # what a pixel contributes grows with its area
            area = self.placement.area / self.grey.size * voice.grey.size / voice.placement.area
            pixels = np.multiply(pixels, area, dtype=np.float32)
        return replace(found, pixels=pixels)

    @property
    def image_path(self) -> Path:
        """File of the knee image."""
        return Path(str(self.knee["image_path"]))

    def on_film(self, placement: Placement) -> Placement | None:
        """Where a place on the image lies on the film; None where the film's box is not known."""
        if not set(_BOX) <= set(self.knee.index) or self.knee[list(_BOX)].isna().any():
            return None
        box = Box(*(int(self.knee[edge]) for edge in _BOX))
        flipped = bool(self.knee.get("flipped", False))
        return placement.on_film(self.shape, box, is_flipped=flipped)


def explain_knee(sample: Sample, index: int, config: ExplainConfig) -> ExplainedKnee | None:
    """Make the maps of one knee by the members that score it in prediction.

    These never learnt from its person; where all members did, all speak, and the knee says so.

    Args:
        sample: The knees.
        index: Which one.
        config: The answer, the methods, their settings.

    Returns:
        None where the image cannot be read.

    Raises:
        ConfigError: The model does not give that answer.
    """
    if not sample.store.readable[index]:
        return None
    knee = sample.knees.iloc[index]
    speaking, is_seen = sample.speakers(index)
    questions = [_question(sample, member, index) for member in speaking]
    with torch.no_grad():
        outputs = [question.outputs(question.images) for question in questions]
    each = torch.cat([output["kl_logits"].softmax(dim=1) for output in outputs])
    grade = _voted(each, sample.ensemble.rules)
    risks = [float(o["jsl_logit"].sigmoid()) for o in outputs if "jsl_logit" in o]
    answer = choose_answer(config.target, grade, sample.ensemble.outcome_column)
    own = [float(answer.log_odds(output)) for output in outputs]
    questions = [replace(question, answer=answer) for question in questions]
    with torch.no_grad():
        without = [float(q.log_odds(*q.references)) for q in questions]
    first = sample.ensemble.members[0]
    rows, columns = read_grey(Path(knee["image_path"])).shape
    shape = (rows, columns)
    voices = [
        Voice(
            member,
            question,
            tuple(attribute(question, Method(method), config) for method in config.methods),
            sample.store.get(member.card.preprocessing)[index].numpy(),
            _placement(member, shape, knee),
        )
        for member, question in zip(speaking, questions, strict=True)
    ]
    return ExplainedKnee(
        knee,
        str(sample.persons[index]),
        answer,
        grade,
        None if answer.grades else sample.ensemble.outcome_column,
        float(np.mean(risks)) if risks else None,
        float(np.mean(own)),
        float(np.mean(without)),
        is_seen,
        tuple(voices),
        shape,
        sample.store.get(first.card.preprocessing)[index].numpy(),
        _placement(first, shape, knee),
    )


def _voted(probabilities: Tensor, rules: EnsembleRules) -> int:
    """The grade that prediction gives, from the members' probabilities (members, grades).

    Those of new persons are scaled; where one member speaks, scaling does not change its grade.
    """
    scaled = at_temperature(probabilities.double().cpu().numpy()[:, None], rules.temperature)
    return int(vote(scaled, rules.voting)[0])


def _question(sample: Sample, member: Model, index: int) -> Question:
    contract = member.card.preprocessing
    stored = sample.store.get(contract)
    images = to_input(stored[index : index + 1], contract).to(sample.device)
    factors = sample.factors(member)
    rest = sample.others(index, member)
    others = None
    if len(rest):
        pictures = to_input(stored[rest], contract).to(sample.device)
        others = (pictures, None if factors is None else factors.own[rest])
    return Question(
        member.network.to(sample.device),
        Answer(""),
        images,
        None if factors is None else factors.own[index : index + 1],
        blurred(images),
        None if factors is None else factors.reference(index),
        others,
        {} if factors is None else factors.columns,
    )


def blurred(images: Tensor) -> Tensor:
    """Knees without detail, in their own exposure: what a picture is compared with.

    Args:
        images: Shape (B, 1, S, S).
    """
    sigma = images.shape[-1] * _BLUR_SHARE
    soft = gaussian_filter(images.cpu().numpy(), sigma=(0, 0, sigma, sigma), mode="nearest")
    return torch.from_numpy(soft).to(images.device)


def _placement(member: Model, shape: tuple[int, int], knee: pd.Series) -> Placement:
    known = knee["field_of_view_plateau_widths"]
    field_of_view = None if pd.isna(known) else float(known)
    square, _ = frame(shape, field_of_view, member.card.preprocessing)
    return Placement.on_image(square, is_mirrored=bool(knee["mirror"]))


def _mean(found: list[Attribution]) -> Attribution:
    drawn = [each for each in found if each.is_drawn]
    if not drawn:
        return found[0]
    total = np.stack([each.pixels for each in drawn]).mean(axis=0, dtype=np.float64)
    pixels: NDArray[np.float32] = np.asarray(total, dtype=np.float32)
    first = drawn[0]
    return replace(
        first,
        pixels=pixels,
        status="ok" if pixels.max() > 0 else "no positive evidence",
        picture=_mean_of([each.picture for each in drawn]),
        gap=_mean_of([each.gap for each in drawn]),
        factors=_mean_factors([each.factors for each in drawn if each.factors is not None]),
    )


def _mean_of(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _mean_factors(found: list[Mapping[str, float]]) -> dict[str, float] | None:
    if not found:
        return None
    return {name: float(np.mean([each[name] for each in found])) for name in found[0]}
