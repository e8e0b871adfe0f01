"""What models predict of knees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from kneeoa_mm.errors import ConfigError
from kneeoa_mm.learning.batches import Batches
from kneeoa_mm.learning.calibration import Calibration, at_temperature
from kneeoa_mm.learning.clinical import numbers
from kneeoa_mm.learning.conformal import prediction_sets, set_texts
from kneeoa_mm.learning.ensemble import vote
from kneeoa_mm.learning.features import BATCH_SIZES, lent
from kneeoa_mm.learning.framing import Framing
from kneeoa_mm.learning.image_store import ImageStore
from kneeoa_mm.learning.losses import grade_targets
from kneeoa_mm.learning.memory import enough_memory
from kneeoa_mm.learning.models import Ensemble, Model
from kneeoa_mm.learning.views import ITSELF, Views
from kneeoa_mm.records import (
    KL_CLASSES,
    UNKNOWN,
    WITHOUT_READING,
    PredictionStatus,
    Reject,
)

_AT_ONCE = 4096
"""Knees whose images are held at a time: of 320 px they take 0.4 GB."""


def choose_device(device: str) -> str:
    """``cuda`` or ``cpu`` for ``auto``.

    Raises:
        ConfigError: ``cuda`` is asked for, and there is none.
    """
    has_gpu = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if has_gpu else "cpu"
    if device == "cuda" and not has_gpu:
        raise ConfigError(
            "There is no GPU that PyTorch can use.",
            found="--device cuda",
            fix="--device cpu, or a driver and a PyTorch with CUDA",
        )
    return device


@dataclass(frozen=True, eq=False)
class Answers:
    """What a member says of some images.

    Attributes:
        probabilities: Shape (n, outputs), columns as in ``card.outputs``.
        strangeness: Above 1 an image resembles no knee that the member learnt from; 0 throughout
            where it never learnt to tell. Shape (n,).
    """

    probabilities: NDArray[np.float64]
    strangeness: NDArray[np.float64]


def predict_member(
    model: Model,
    arrays: dict[str, Tensor],
    *,
    device: str,
    views: Views = ITSELF,
) -> NDArray[np.float64]:
    """Probabilities of one member; see :func:`ask_member`."""
    return ask_member(model, arrays, device=device, views=views).probabilities


def ask_member(
    model: Model,
    arrays: dict[str, Tensor],
    *,
    device: str,
    views: Views = ITSELF,
) -> Answers:
    """What one member says.

    Args:
        model: The member.
        arrays: ``images`` as bytes (n, S, S), prepared by this model's contract, or the encoder's
            ``features`` (n, V, D) of those views, and the ``further_inputs`` that it wants.
        device: ``auto``, ``cpu`` or ``cuda``.
        views: What to average probabilities over; familiar or not is the image itself.

    Raises:
        KneeOAError: Memory ran out.
    """
    device = choose_device(device)
    network = model.network
    rows = np.arange(len(next(iter(arrays.values()))))
    parts, strangeness = [], []
    enough = enough_memory("close other programs, or add --device cpu")
    with enough, lent(network, device), torch.inference_mode():
        size = BATCH_SIZES[device]
        contract = model.card.preprocessing
        for cpu_batch in Batches(arrays, rows, contract, batch_size=size, all_views=True):
            batch = {name: value.to(device) for name, value in cpu_batch.items()}
            # the image itself is the first of its views
            features = (
                list(batch["features"].unbind(dim=1))
                if "features" in batch
                else [network.encoder(view) for view in views.of(batch["images"])]
            )
            seen = [to_probabilities(network.heads(each, batch)) for each in features]
            parts.append(torch.stack(seen).mean(dim=0).cpu())
            strangeness.append(_strangeness(model, features[0]))
    if not parts:
        return Answers(np.zeros((0, len(model.card.outputs))), np.zeros(0))
    return Answers(torch.cat(parts).double().numpy(), np.concatenate(strangeness))


def _strangeness(model: Model, features: Tensor) -> NDArray[np.float64]:
    if model.familiarity is None:
        return np.zeros(len(features))
    return model.familiarity.strangeness(features.float().cpu().numpy())


def to_probabilities(outputs: dict[str, Tensor]) -> Tensor:
    """Probabilities (B, outputs) of a network's outputs, in the order of ``card.outputs``."""
    grades = outputs["kl_logits"].float().softmax(dim=1)
    if "jsl_probs" not in outputs:
        return grades
    return torch.cat([grades, outputs["jsl_probs"].float()], dim=1)


def further_inputs(
    model: Model, knees: pd.DataFrame, clinical: pd.DataFrame | None
) -> dict[str, Tensor]:
    """What a member wants of each knee beside its image.

    Args:
        model: The member.
        knees: With the read ``kl_grade``, where it is known.
        clinical: Clinical factors, one row a knee in the same order; None where nothing is known.

    Returns:
        ``clinical`` (n, F) for a fused model, and ``kl_read`` (n, 5) for one with the reading.
    """
    inputs: dict[str, Tensor] = {}
    if model.clinical is not None:
        factors = pd.DataFrame(index=knees.index) if clinical is None else clinical
        inputs["clinical"] = torch.from_numpy(model.clinical.transform(factors))
    if model.takes_reading:
        read = knees.get("kl_grade", pd.Series(pd.NA, index=knees.index))
        inputs["kl_read"] = grade_targets(numbers(read))
    return inputs


def predict_knees(
    ensemble: Ensemble,
    knees: pd.DataFrame,
    *,
    clinical: pd.DataFrame | None = None,
    known_as: pd.Series | None = None,
    device: str = "auto",
) -> tuple[pd.DataFrame, list[Reject]]:
    """Predict a table of knees.

    A knee whose subject some members have seen is scored by the members that have not; where all
    have, by all, and the row says ``seen_in_training``. Where these find on average that an image
    is no knee, it is not graded.

    Args:
        ensemble: The model.
        knees: Rows of ``sources.read_knees``, with the read ``kl_grade`` where it is known: a model
            that was trained with the reading says in ``kl_input`` whether it had one.
        clinical: Clinical factors, one row a knee in the same order, for a fused model; what is
            missing is imputed by the rule that the model learnt.
        known_as: Another name of each knee's subject, by which members may know it as well: the
            identifier before it was hashed. It is compared, and nothing else.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        A table of schema ``PREDICTIONS``, and the images that could not be read.
    """
    has_say, all_have_seen = ensemble.who_scores(knees["subject_id"].astype(str), known_as)
    outputs = ensemble.members[0].card.outputs
    parts = [
        _ask_members(
            ensemble,
            knees.iloc[rows],
            None if clinical is None else clinical.iloc[rows],
            has_say[:, rows],
            device=device,
        )
        for rows in np.split(np.arange(len(knees)), range(_AT_ONCE, len(knees), _AT_ONCE))
    ]
    stacked = np.concatenate([part.probabilities for part in parts], axis=1)
    strangeness = np.concatenate([part.strangeness for part in parts], axis=1)
    framing = [each for part in parts for each in part.framing]
    readable = np.concatenate([part.readable for part in parts])
    held_out_by = _held_out_by(has_say, [member.card.fold for member in ensemble.members])
    predictions = assemble(
        knees,
        stacked,
        outputs,
        ensemble.rules.voting,
        [ensemble.rules.for_fold(fold) for fold in held_out_by],
    )
    predictions["seen_in_training"] = all_have_seen
    if any(fold is not None for fold in held_out_by):
        predictions["fold"] = pd.array(held_out_by, dtype="Int64")
    predictions["framing"] = [each and str(each) for each in framing]
    strange = np.average(strangeness, axis=0, weights=has_say) > 1
    answered = {"kl_grade_pred", "kl_set", "framing", "kl_input"}
    predicted = {*outputs, *answered}
    predicted_columns = [name for name in predictions if name in predicted]
    for lost, status in (
        (strange, PredictionStatus.NOT_A_KNEE),
        (~readable, PredictionStatus.UNREADABLE),
    ):
        predictions.loc[lost, predicted_columns] = pd.NA
        predictions.loc[lost, "status"] = str(status)
    return predictions, [reject for part in parts for reject in part.rejects]


@dataclass(frozen=True, eq=False)
class _Asked:
    """What the members say of some knees, whose images can go.

    Attributes:
        probabilities: Shape (members, n, outputs); NaN where a member has no say.
        strangeness: Shape (members, n).
        framing: How each image was framed; None where it could not be read.
        readable: Whether every member could read it, (n,).
        rejects: Why not.
    """

    probabilities: NDArray[np.float64]
    strangeness: NDArray[np.float64]
    framing: tuple[Framing | None, ...]
    readable: NDArray[np.bool_]
    rejects: list[Reject]


def _ask_members(
    ensemble: Ensemble,
    knees: pd.DataFrame,
    clinical: pd.DataFrame | None,
    has_say: NDArray[np.bool_],
    *,
    device: str,
) -> _Asked:
    store = ImageStore(knees)
    outputs = ensemble.members[0].card.outputs
    stacked: NDArray[np.float64] = np.full((*has_say.shape, len(outputs)), np.nan)
    strangeness = np.zeros(has_say.shape)
    for number, member in enumerate(ensemble.members):
        rows = np.flatnonzero(has_say[number])
        images = {"images": store.get(member.card.preprocessing)}
        arrays = images | further_inputs(member, knees, clinical)
        own = {name: values[rows] for name, values in arrays.items()}
        answers = ask_member(member, own, device=device, views=ensemble.views)
        stacked[number, rows] = answers.probabilities
        strangeness[number, rows] = answers.strangeness
    return _Asked(stacked, strangeness, store.framing, store.readable, store.rejects)


def _held_out_by(has_say: NDArray[np.bool_], folds: list[int | None]) -> list[int | None]:
    """The fold of each knee that only the members of one fold may score; None for other knees."""
    held_out_by = []
    for say in has_say.T:
        named = {fold for fold, speaks in zip(folds, say, strict=True) if speaks}
        held_out_by.append(named.pop() if len(named) == 1 and not say.all() else None)
    return held_out_by


def assemble(
    knees: pd.DataFrame,
    probabilities: NDArray[np.float64],
    outputs: tuple[str, ...],
    voting: str,
    calibrations: Sequence[Calibration],
) -> pd.DataFrame:
    """Members' probabilities to one row a knee.

    Args:
        knees: Identity and, where known, part of the split, fold and truth; the subject of a knee
            that is not ``subject_known`` becomes ``-``.
        probabilities: Shape (members, knees, outputs); NaN where a member has no say.
        outputs: Names of the last axis.
        voting: Rule for the grade; probabilities are means.
        calibrations: Temperature of each knee's grade probabilities, which are scaled before they
            are averaged, and its rule of sets, which are made of the averages. All have a rule, of
            one method, or none.
    """
    grades = [outputs.index(f"kl_prob_{grade}") for grade in KL_CLASSES]
    temperatures = np.array([calibration.temperature for calibration in calibrations])
    if (temperatures != 1).any():
        probabilities = probabilities.copy()
        probabilities[:, :, grades] = at_temperature(probabilities[:, :, grades], temperatures)
    mean = np.nanmean(probabilities, axis=0)
    predicted = vote(probabilities[:, :, grades], voting)
    identity = ["knee_id", "subject_id", "laterality"]
    frame = knees[identity].reset_index(drop=True).copy()
    if "subject_known" in knees:
        # an image that stands for its subject, to be kept apart in training, names nobody
        frame["subject_id"] = frame["subject_id"].where(knees["subject_known"].array, UNKNOWN)
    frame["status"] = str(PredictionStatus.OK)
    frame[list(outputs)] = mean
    frame["kl_grade_pred"] = pd.array(predicted, dtype="Int64")
    rules = [c.conformal for c in calibrations if c.conformal is not None]
    if rules:
        frame["kl_set"] = set_texts(prediction_sets(mean[:, grades], rules, predicted))
    frame["seen_in_training"] = False
    if any(name.endswith(WITHOUT_READING) for name in outputs):
        is_read = knees.get("kl_grade", pd.Series(pd.NA, index=knees.index)).notna()
        frame["kl_input"] = np.where(is_read, "read", "none")
    for carried in ("split", "fold", "kl_grade", *(name.removesuffix("_prob") for name in outputs)):
        if carried in knees:
            frame[carried] = knees[carried].to_numpy()
    return frame
