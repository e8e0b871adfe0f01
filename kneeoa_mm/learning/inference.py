"""Models read back from their folders, and what they predict."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor

from kneeoa_mm.errors import KneeOAError, ModelFolderError
from kneeoa_mm.learning.clinical import ClinicalEncoding
from kneeoa_mm.learning.dataset import Batches, load_images
from kneeoa_mm.learning.ensemble import vote
from kneeoa_mm.learning.framing import Framing
from kneeoa_mm.learning.networks import Network, build_network
from kneeoa_mm.learning.views import ITSELF, Views
from kneeoa_mm.model_folder import ModelCard, Preprocessing, member_folders, read_model
from kneeoa_mm.records import KL_CLASSES, PredictionStatus, Reject

ENSEMBLE_FILE = "ensemble.json"
_BATCH_SIZE = 64


@dataclass(frozen=True)
class Model:
    """One network with its card."""

    name: str
    card: ModelCard
    network: Network

    @property
    def clinical(self) -> ClinicalEncoding | None:
        """How clinical factors enter; None for an image-only model."""
        return ClinicalEncoding(**self.card.clinical) if self.card.clinical else None


@dataclass(frozen=True)
class Ensemble:
    """The members of a run and its voting rule."""

    members: tuple[Model, ...]
    voting: str
    views: Views

    @property
    def outcome_column(self) -> str | None:
        """The progression outcome that it predicts; None for a KL grader."""
        names = self.members[0].card.outputs
        other = (name for name in names if not name.startswith("kl_prob_"))
        return next((name.removesuffix("_prob") for name in other), None)


def load_model(folder: Path) -> Model:
    """Read one model folder.

    Raises:
        ModelFolderError: It is incomplete or damaged, or weights and architecture do not fit.
    """
    card, weights = read_model(folder, ModelCard)
    try:
        network = build_network(card.architecture)
        network.load_state_dict(load(weights), strict=True)
    except (RuntimeError, TypeError, KeyError, KneeOAError) as error:
        raise ModelFolderError(
            "The weights do not fit the architecture that the card describes.",
            found=str(error).splitlines()[0],
            where=folder,
        ) from error
    return Model(folder.name, card, network.eval())


def load_ensemble(model: Path) -> Ensemble:
    """Read a run folder with its members, or a single model folder.

    Raises:
        ModelFolderError: There is no model, one is damaged, or they predict different things.
    """
    members = tuple(load_model(folder) for folder in member_folders(model))
    if len({member.card.outputs for member in members}) > 1:
        raise ModelFolderError("The members of this run predict different things.", where=model)
    rules = {"voting": "mix", "test_time_flip": False, "test_time_crops": False}
    if (model / ENSEMBLE_FILE).is_file():
        rules |= json.loads((model / ENSEMBLE_FILE).read_text(encoding="utf-8"))
    views = Views(bool(rules["test_time_flip"]), bool(rules["test_time_crops"]))
    return Ensemble(members, str(rules["voting"]), views)


def choose_device(device: str) -> str:
    """``cuda`` or ``cpu`` for ``auto``."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def predict_member(
    model: Model,
    arrays: dict[str, Tensor],
    *,
    device: str,
    views: Views = ITSELF,
) -> NDArray[np.float64]:
    """Probabilities of one member.

    Args:
        model: The member.
        arrays: ``images`` as bytes (n, S, S), prepared by this model's contract, and ``clinical``
            (n, F) where it wants them.
        device: ``auto``, ``cpu`` or ``cuda``.
        views: What to average over.

    Returns:
        Shape (n, outputs), columns as in ``card.outputs``.
    """
    device = choose_device(device)
    network = model.network.to(device)
    rows = np.arange(len(arrays["images"]))
    parts = []
    with torch.inference_mode():
        for cpu_batch in Batches(arrays, rows, model.card.preprocessing, batch_size=_BATCH_SIZE):
            batch = {name: value.to(device) for name, value in cpu_batch.items()}
            seen = [
                _probabilities(network(batch | {"images": view}))
                for view in views.of(batch["images"])
            ]
            parts.append(torch.stack(seen).mean(dim=0).cpu())
    if not parts:
        return np.zeros((0, len(model.card.outputs)))
    return torch.cat(parts).double().numpy()


def _probabilities(outputs: dict[str, Tensor]) -> Tensor:
    grades = outputs["kl_logits"].float().softmax(dim=1)
    if "jsl_logit" not in outputs:
        return grades
    return torch.cat([grades, outputs["jsl_logit"].float().sigmoid().unsqueeze(1)], dim=1)


class ImageStore:
    """Prepared images of some knees, read once for each distinct contract."""

    def __init__(self, knees: pd.DataFrame) -> None:
        self._knees = knees
        self._prepared: dict[Preprocessing, Tensor] = {}
        self.readable: NDArray[np.bool_] = np.ones(len(knees), dtype=bool)
        self.framing: tuple[Framing | None, ...] = (None,) * len(knees)
        """How each image was framed for the first contract; None where it could not be read."""
        self.rejects: list[Reject] = []

    def get(self, contract: Preprocessing) -> Tensor:
        """Images as bytes (n, S, S); zero where one could not be read."""
        if contract not in self._prepared:
            loaded = load_images(self._knees, contract)
            if not self._prepared:
                self.framing = loaded.framing
            known = {reject.source for reject in self.rejects}
            self.rejects += [reject for reject in loaded.rejects if reject.source not in known]
            self.readable &= [framing is not None for framing in loaded.framing]
            self._prepared[contract] = torch.from_numpy(loaded.pixels)
        return self._prepared[contract]


def predict_knees(
    ensemble: Ensemble,
    knees: pd.DataFrame,
    *,
    clinical: pd.DataFrame | None = None,
    device: str = "auto",
) -> tuple[pd.DataFrame, list[Reject]]:
    """Predict a table of knees.

    A knee whose subject some members have seen is scored by the members that have not; where all
    have, by all, and the row says ``seen_in_training``.

    Args:
        ensemble: The model.
        knees: Rows of ``sources.read_knees``.
        clinical: Clinical factors, one row a knee in the same order, for a fused model; what is
            missing is imputed by the rule that the model learnt.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        A table of schema ``PREDICTIONS``, and the images that could not be read.
    """
    store = ImageStore(knees)
    subjects = knees["subject_id"].astype(str)
    probabilities, seen, chosen_on = [], [], []
    for member in ensemble.members:
        arrays = {"images": store.get(member.card.preprocessing)}
        if member.clinical is not None:
            factors = pd.DataFrame(index=knees.index) if clinical is None else clinical
            arrays["clinical"] = torch.from_numpy(member.clinical.transform(factors))
        probabilities.append(predict_member(member, arrays, device=device, views=ensemble.views))
        known = member.card.seen_subjects
        seen.append(subjects.isin(known.in_training(set(subjects))).to_numpy())
        chosen_on.append(subjects.isin(known.in_selection(set(subjects))).to_numpy())
    has_say = _who_has_a_say(np.array(seen), np.array(chosen_on))
    stacked = np.where(has_say[:, :, None], np.array(probabilities), np.nan)
    predictions = assemble(knees, stacked, ensemble.members[0].card.outputs, ensemble.voting)
    predictions["seen_in_training"] = np.array(seen).all(axis=0)
    predictions["framing"] = [framing and str(framing) for framing in store.framing]
    lost = ~store.readable
    predicted = [*ensemble.members[0].card.outputs, "kl_grade_pred"]
    predictions.loc[lost, [*predicted, "framing"]] = pd.NA
    predictions.loc[lost, "status"] = PredictionStatus.UNREADABLE
    return predictions, store.rejects


def _who_has_a_say(seen: NDArray[np.bool_], chosen_on: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Who scores a knee (m, n): members its subject never touched, else untrained ones, or all."""
    untouched, untrained = ~(seen | chosen_on), ~seen
    say = np.where(untouched.any(axis=0), untouched, untrained)
    return np.where(say.any(axis=0), say, True)


def assemble(
    knees: pd.DataFrame, probabilities: NDArray[np.float64], outputs: tuple[str, ...], voting: str
) -> pd.DataFrame:
    """Members' probabilities to one row a knee.

    Args:
        knees: Identity and, where known, truth.
        probabilities: Shape (members, knees, outputs); NaN where a member has no say.
        outputs: Names of the last axis.
        voting: Rule for the grade; probabilities are means.
    """
    identity = ["knee_id", "subject_id", "laterality"]
    frame = knees[identity].reset_index(drop=True).copy()
    frame["status"] = str(PredictionStatus.OK)
    frame[list(outputs)] = np.nanmean(probabilities, axis=0)
    grades = [outputs.index(f"kl_prob_{grade}") for grade in KL_CLASSES]
    frame["kl_grade_pred"] = vote(probabilities[:, :, grades], voting)
    frame["kl_grade_pred"] = frame["kl_grade_pred"].astype("Int64")
    frame["seen_in_training"] = False
    for truth in ("kl_grade", *(name.removesuffix("_prob") for name in outputs)):
        if truth in knees:
            frame[truth] = knees[truth].to_numpy()
    return frame
