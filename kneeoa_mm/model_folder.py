"""Model folders: ``weights.safetensors`` and ``model.json``; no pickle, no torch.

A model is self-contained: architecture, classes, the preprocessing that its images must have had,
the fold it never saw, and one salted HMAC for each subject it did see, so that a reader can tell
whether a subject was in training without the folder naming anyone.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

import safetensors
from pydantic import Field, ValidationError

from kneeoa_mm import __version__
from kneeoa_mm.atomic_files import atomic_path, write_text
from kneeoa_mm.errors import MissingExtraError, ModelFolderError
from kneeoa_mm.identifiers import keyed_hash
from kneeoa_mm.records import UNKNOWN
from kneeoa_mm.settings import Settings

WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "model.json"
SCHEMA_VERSION = 1
SHIPPED_GRADER = Path(__file__).with_name("weights") / "kl"
"""Run folder of the KL graders that come with the package; their licence stands beside them."""


class Preprocessing(Settings):
    """The contract between an image and a network; inference obeys it and nothing else."""

    image_size_px: int
    """Side of the square that the network sees."""
    mean: float
    std: float
    """Grey values in [0, 1] become (grey - mean) / std, the same on all three channels."""
    clip_percentiles: tuple[float, float]
    """Grey range of an image that is stretched to [0, 1]."""
    reinvert_negatives: bool
    """Photometric negatives are recognised and turned back first."""
    orientation: Literal["right"] = "right"
    """Left knees are mirrored to look like right ones."""
    field_of_view_plateau_widths: float | None = None
    """Side of the image in tibial-plateau widths; None where it was not measured. Images that
    know their own are cut to it."""
    joint_row: float = 0.5
    """Height of the middle of the joint space in that image, as a share of it from the top."""


class SeenSubjects(Settings):
    """Salted HMACs of the subjects that made the model; ``-`` is nobody, and never among them.

    They tell whoever knows an identifier whether it is among them. The salt stands beside, so short
    identifiers, such as numbers of seven digits, can be found by trying all: give away models of
    people whose identifiers were hashed (``--ids``), or are public pseudonyms.
    """

    salt: str
    training: tuple[str, ...]
    """Subjects whose images changed the weights."""
    selection: tuple[str, ...]
    """Subjects on whom the epoch was chosen."""
    has_unknown: bool = False
    """Some images were of unknown subjects: whether the model has seen a person cannot be told.
    False in models of before, which do not say."""

    @classmethod
    def of(cls, training: Iterable[str], selection: Iterable[str], *, salt: bytes) -> SeenSubjects:
        """Hash the subjects; their order does not matter."""

        def digests(subjects: Iterable[str]) -> tuple[str, ...]:
            told = set(subjects) - {UNKNOWN}
            return tuple(sorted(keyed_hash(salt, subject) for subject in told))

        return cls(salt=salt.hex(), training=digests(training), selection=digests(selection))

    @classmethod
    def nobody(cls) -> SeenSubjects:
        """No subject yet, and a salt of its own."""
        return cls.of((), (), salt=secrets.token_bytes(16))

    def and_also(
        self, training: Iterable[str], selection: Iterable[str], *, has_unknown: bool = False
    ) -> SeenSubjects:
        """These subjects and further ones, of a model that went on from another one."""
        more = SeenSubjects.of(training, selection, salt=bytes.fromhex(self.salt))
        return SeenSubjects(
            salt=self.salt,
            training=tuple(sorted({*self.training, *more.training})),
            selection=tuple(sorted({*self.selection, *more.selection})),
            has_unknown=self.has_unknown or has_unknown,
        )

    def in_training(self, subject_ids: Iterable[str]) -> set[str]:
        """Those of ``subject_ids`` on whom the model was trained."""
        return self._among(self.training, subject_ids)

    def in_selection(self, subject_ids: Iterable[str]) -> set[str]:
        """Those of ``subject_ids`` on whom the epoch was chosen."""
        return self._among(self.selection, subject_ids)

    def _among(self, digests: tuple[str, ...], subject_ids: Iterable[str]) -> set[str]:
        salt, known = bytes.fromhex(self.salt), frozenset(digests)
        # cards of before may hold the unknown subject
        told = set(subject_ids) - {UNKNOWN}
        return {subject for subject in told if keyed_hash(salt, subject) in known}


class Card(Settings):
    """What ``model.json`` says of any model."""

    schema_version: int = SCHEMA_VERSION
    package_version: str = __version__
    software: dict[str, str] = Field(default_factory=dict)
    """Versions of Python and of the libraries that trained the model."""
    architecture: dict[str, Any]
    """Arguments from which the network is rebuilt."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """On the validation part, at the chosen epoch."""
    config_digest: str = ""
    licence: str = "Apache-2.0"
    trained_on: str = ""
    """Where the images came from, in words, and what was not among them."""
    weights_source: str = "none"
    """Where training started from."""
    weights_sha256: str = ""
    intended_use: str = "Research only; not a medical device."


class DetectorCard(Card):
    """``model.json`` of a joint detector."""

    kind: Literal["joint_detector"] = "joint_detector"
    image_size_px: int
    """Longer side of the film as the network sees it."""
    min_score: float
    """The stated confidence: below it the detector abstains."""
    box: str = "square around the middle of the joint space, as wide as the tibial plateau"


class ModelCard(Card):
    """``model.json`` of a grader or a progression model."""

    kind: Literal["kl", "jsl"]
    outputs: tuple[str, ...]
    """Columns that the model predicts."""
    preprocessing: Preprocessing
    clinical: dict[str, Any] | None = None
    """Clinical factors with what training subjects taught: means, scales, categories."""
    without_reading: str = ""
    """What stands for a knee without a reading, in words; empty where the model takes none, and in
    models of before, whose branch without it still saw the read grade of the other knee."""
    fold: int | None = None
    """The fold that neither training nor selection used."""
    seen_subjects: SeenSubjects
    familiarity_sha256: str = ""
    """Of the file that tells knees from other pictures; empty where there is none."""


AnyCard = TypeVar("AnyCard", bound=Card)


def write_model(folder: Path, card: Card, weights: bytes) -> Path:
    """Write a model folder; the card comes last, so that a half-written model has none.

    Args:
        folder: Where to; made if missing.
        card: Without ``weights_sha256``, which is computed here.
        weights: Serialised safetensors.
    """
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        temporary.write_bytes(weights)
    sealed = card.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()})
    write_text(folder / CARD_FILE, sealed.model_dump_json(indent=2) + "\n")
    return folder


def read_model(folder: Path, kind: type[AnyCard]) -> tuple[AnyCard, bytes]:
    """Read a model folder and prove that its weights are those that were written.

    Args:
        folder: The model.
        kind: What it has to be.

    Returns:
        The card and the serialised safetensors.

    Raises:
        ModelFolderError: A file is missing or damaged, or a newer version wrote the folder.
    """
    expected = f"a model folder with {CARD_FILE} and {WEIGHTS_FILE}"
    try:
        text = (folder / CARD_FILE).read_text(encoding="utf-8")
        weights = (folder / WEIGHTS_FILE).read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFolderError(
            "The model folder is not complete.", expected=expected, found=str(error), where=folder
        ) from error
    card = _parse_card(text, kind, folder / CARD_FILE)
    found = hashlib.sha256(weights).hexdigest()
    if found != card.weights_sha256:
        raise ModelFolderError(
            "The weights are not those that the card describes.",
            expected=f"sha256 {card.weights_sha256}",
            found=f"sha256 {found}",
            where=folder / WEIGHTS_FILE,
            fix="copy the folder again from its source, or train anew",
        )
    try:
        safetensors.deserialize(weights)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise ModelFolderError(
            "The weights are no safetensors file.", found=str(error), where=folder / WEIGHTS_FILE
        ) from error
    return card, weights


def _parse_card(text: str, kind: type[AnyCard], path: Path) -> AnyCard:
    try:
        tree = json.loads(text)
        version = tree.get("schema_version") if isinstance(tree, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise ModelFolderError(
                "A newer version of kneeoa-mm wrote this model.",
                expected=f"schema version {SCHEMA_VERSION} or older",
                found=str(version),
                where=path,
                fix="upgrade kneeoa-mm",
            )
        return kind.model_validate(tree)
    except (json.JSONDecodeError, ValidationError) as error:
        raise ModelFolderError(
            "The model card is damaged.", found=str(error), where=path
        ) from error


def member_folders(model: Path) -> list[Path]:
    """Folders of the models in ``model``: itself, or the members of a training run.

    Raises:
        ModelFolderError: There is none, or a member is not complete.
    """
    if (model / CARD_FILE).is_file():
        return [model]
    members, with_weights = (
        sorted(path.parent for path in (model / "members").glob(f"*/{name}"))
        for name in (CARD_FILE, WEIGHTS_FILE)
    )
    if without_card := sorted(set(with_weights) - set(members)):
        # passed over, it would leave a smaller run that looks whole
        raise ModelFolderError(
            "A member of the run is not complete.",
            expected=f"{CARD_FILE} beside {WEIGHTS_FILE} in every folder of members/",
            found=f"no {CARD_FILE} in {', '.join(path.name for path in without_card)}",
            where=model,
            fix="copy the run again from its source, or go on with its training by --resume",
        )
    if not members:
        raise ModelFolderError(
            "There is no model here.",
            expected=f"a model folder with {CARD_FILE}, or a run folder with members/",
            found="neither" if model.is_dir() else "no such folder",
            where=model,
        )
    return members


def shipped_grader() -> Path:
    """The run folder that serves where no model is named.

    Raises:
        MissingExtraError: This installation has none.
    """
    if not SHIPPED_GRADER.is_dir():
        raise MissingExtraError(
            "No grader came with this installation.",
            expected="a run folder with the weights",
            found="no such folder",
            where=SHIPPED_GRADER,
            fix="name a model of your own with --model",
        )
    return SHIPPED_GRADER
