"""Models read back from their folders, alone or as the members of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.torch import load

from kneeoa_mm.errors import KneeOAError, ModelFolderError
from kneeoa_mm.learning.clinical import ClinicalEncoding
from kneeoa_mm.learning.ensemble import EnsembleRules
from kneeoa_mm.learning.familiarity import Familiarity
from kneeoa_mm.learning.networks import Network, build_network
from kneeoa_mm.learning.views import Views
from kneeoa_mm.model_folder import ModelCard, member_folders, read_model

ENSEMBLE_FILE = "ensemble.json"
CHECKPOINTS_FOLDER = "checkpoints"
"""In a run: what it goes on from; gone when it is finished."""


@dataclass(frozen=True)
class Model:
    """One network with its card."""

    name: str
    card: ModelCard
    network: Network
    familiarity: Familiarity | None = None
    """What tells knees from other pictures; None where it never learnt that."""

    @property
    def clinical(self) -> ClinicalEncoding | None:
        """How clinical factors enter; None for an image-only model."""
        return ClinicalEncoding(**self.card.clinical) if self.card.clinical else None

    @property
    def takes_reading(self) -> bool:
        """Whether progression sees the read grade, where there is one."""
        return self.card.architecture.get("kl_input") == "read"


@dataclass(frozen=True)
class Ensemble:
    """The members of a run and the rules that make them one."""

    members: tuple[Model, ...]
    rules: EnsembleRules

    @property
    def views(self) -> Views:
        """What each member averages over."""
        return Views(self.rules.test_time_flip, self.rules.test_time_crops)

    @property
    def factors(self) -> set[str]:
        """The clinical factors that its members want."""
        return {name for m in self.members if m.clinical for name in m.clinical.factors}

    @property
    def outcome_column(self) -> str | None:
        """The progression outcome that it predicts; None for a KL grader."""
        names = (name for name in self.members[0].card.outputs if name.endswith("_prob"))
        return next((name.removesuffix("_prob") for name in names), None)

    def who_scores(
        self, subjects: pd.Series, known_as: pd.Series | None = None
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which members score each knee, and whose persons all members learnt from.

        Members whom the person never touched; where there is none those that were not trained on
        the person, and else all.

        Args:
            subjects: Subject of each knee, (n,).
            known_as: Another name of each, by which members may know it as well.

        Returns:
            Shapes (members, n) and (n,).
        """
        names = [subjects] if known_as is None else [subjects, known_as]
        known = [member.card.seen_subjects for member in self.members]
        seen = np.array([_are_among(names, each.in_training) for each in known])
        chosen_on = np.array([_are_among(names, each.in_selection) for each in known])
        untouched, untrained = ~(seen | chosen_on), ~seen
        scores = np.where(untouched.any(axis=0), untouched, untrained)
        return np.where(scores.any(axis=0), scores, True), np.all(seen, axis=0)


def _are_among(
    names: list[pd.Series], among: Callable[[Iterable[str]], set[str]]
) -> NDArray[np.bool_]:
    """Which subjects a member knows by one of their names."""
    return np.any([each.isin(among(set(each))).to_numpy() for each in names], axis=0)


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
    known = card.familiarity_sha256
    familiarity = Familiarity.read(folder, known) if known else None
    return Model(folder.name, card, network.eval(), familiarity)


def load_ensemble(model: Path) -> Ensemble:
    """Read a run folder with its members, or a single model folder.

    Raises:
        ModelFolderError: There is no model, one is damaged or lost, they predict different things,
            or the run was interrupted.
    """
    folders, rules = read_run(model)
    members = tuple(load_model(folder) for folder in folders)
    if len({member.card.outputs for member in members}) > 1:
        raise ModelFolderError("The members of this run predict different things.", where=model)
    return Ensemble(members, rules)


def read_run(model: Path) -> tuple[list[Path], EnsembleRules]:
    """The folders of the members of a whole run, or of a single model, and the rules.

    Raises:
        ModelFolderError: There is no model, the rules are damaged, the members are not those that
            the rules name, or the run was interrupted.
    """
    if (model / CHECKPOINTS_FOLDER).is_dir() and not (model / ENSEMBLE_FILE).is_file():
        raise ModelFolderError(
            "This run has not been finished: members may be missing, and nothing is calibrated.",
            expected=ENSEMBLE_FILE,
            where=model,
            fix="go on with it by --resume, or name one of its members",
        )
    folders, rules = member_folders(model), _read_rules(model / ENSEMBLE_FILE)
    if rules.members:
        _refuse_other_members({folder.name for folder in folders}, set(rules.members), model)
    return folders, rules


def _refuse_other_members(found: set[str], expected: set[str], model: Path) -> None:
    """Raise where a member was lost or added: the calibration is that of all of them together."""
    told = {"missing": expected - found, "not of the run": found - expected}
    if found != expected:
        raise ModelFolderError(
            "The members of this run are not those that it was finished with.",
            expected=f"the {len(expected)} members that {ENSEMBLE_FILE} names",
            found="; ".join(f"{what}: {', '.join(sorted(of))}" for what, of in told.items() if of),
            where=model / "members",
            fix="copy the run again from its source, or name one of its members",
        )


def _read_rules(path: Path) -> EnsembleRules:
    if not path.is_file():
        return EnsembleRules()
    try:
        return EnsembleRules.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise ModelFolderError(
            "The rules of the ensemble are damaged, or a newer version of kneeoa-mm wrote them.",
            found=str(error),
            where=path,
        ) from error
