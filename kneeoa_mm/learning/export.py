"""The stage ``export``: a run in half the bytes, or for programs without torch."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor

from kneeoa_mm import __version__
from kneeoa_mm.atomic_files import atomic_path, write_json
from kneeoa_mm.config import read_yaml_mapping
from kneeoa_mm.errors import InputError, KneeOAError, OutputExistsError
from kneeoa_mm.learning import onnx_graph
from kneeoa_mm.learning.dataset import to_input
from kneeoa_mm.learning.ensemble import EnsembleRules
from kneeoa_mm.learning.inference import to_probabilities
from kneeoa_mm.learning.losses import grade_targets
from kneeoa_mm.learning.models import ENSEMBLE_FILE, Model, load_model, read_run
from kneeoa_mm.learning.networks import Network, build_network
from kneeoa_mm.learning.onnx_graph import Answer
from kneeoa_mm.learning.views import CROPS
from kneeoa_mm.model_folder import (
    ModelCard,
    Preprocessing,
    read_model,
    write_model,
)
from kneeoa_mm.records import KL_CLASSES, StageResult
from kneeoa_mm.run_folder import CONFIG_FILE, open_run, refuse_taken

CONTRACT_FILE = "contract.json"
_LARGEST_DIFFERENCE = {"onnx": 1e-4, "safetensors": 2e-2}
"""By which a probability may differ from that of the model as it was trained."""
_PROBES = 6
_ROUNDED_LIMIT = 1.01
"""What half precision does to the limit of what is a knee: rounded weights move features. Those of
strange knees went up to 0.5 % farther off in the shipped graders, one beyond what it had set."""

Form = Literal["onnx", "safetensors"]


def export(
    model: Path,
    out: Path,
    *,
    form: Form = "onnx",
    half: bool = False,
    licence: str | None = None,
    trained_on: str | None = None,
    overwrite: bool = False,
) -> StageResult:
    """Write a model in another form, after proof that it says the same.

    Args:
        model: Run or model folder.
        out: Folder to write; for ONNX and a single network also a file ``.onnx``.
        form: ``onnx``: one file a member and ``contract.json``, which says how images must be
            prepared and how members vote. ``safetensors``: the folder itself, without the traces
            of its training.
        half: Keep the weights of layers in half precision (safetensors only); biases and batch
            statistics stay as they are.
        licence: What the cards shall say of it, as an SPDX identifier.
        trained_on: What they shall say of the images that it learnt from, and whom to name.
        overwrite: Replace an earlier export.

    Raises:
        InputError: Half precision is asked of ONNX, one file of several members, or ``out`` holds
            the model.
        KneeOAError: The export does not say the same as the model.
        MissingExtraError: The extra ``onnx`` is not installed.
        ModelFolderError: There is no usable model, or its run was interrupted.
        OutputExistsError: ``out`` exists.
    """
    if model.resolve().is_relative_to(out.resolve()):
        raise InputError(
            "An export must not take the place of what it is made from.",
            found=str(out),
            where=model,
            fix="name another folder with --out",
        )
    # an interrupted run, copied without its checkpoints, would pass as a whole one
    folders, rules = read_run(model)
    given = {"licence": licence, "trained_on": trained_on}
    said = {name: text for name, text in given.items() if text is not None}
    if form == "onnx":
        if half:
            raise InputError(
                "Half precision is for weights in safetensors.",
                found="--half with --format onnx",
                fix="add --format safetensors, or leave out --half",
            )
        return _export_onnx(folders, rules, out, said, overwrite=overwrite)
    return _export_weights(model, folders, out, said, half=half, overwrite=overwrite)


def _export_weights(
    model: Path,
    folders: list[Path],
    out: Path,
    said: dict[str, str],
    *,
    half: bool,
    overwrite: bool,
) -> StageResult:
    refuse_taken(out, None, overwrite=overwrite)
    # all are made and proven before the first is written
    made = {folder: _rewritten(folder, half=half) for folder in folders}
    settings = model / CONFIG_FILE
    config_yaml = _without_paths(settings) if settings.is_file() else None
    with open_run(out, config_yaml=config_yaml, overwrite=overwrite):
        for folder, (member, weights, _) in made.items():
            copy = out / folder.relative_to(model)
            known = member.familiarity
            digest = {"familiarity_sha256": known.write(copy)} if known else {}
            write_model(copy, member.card.model_copy(update=said | digest), weights)
        # last, for it says that the run is whole
        if (model / ENSEMBLE_FILE).is_file():
            _copy(model / ENSEMBLE_FILE, out / ENSEMBLE_FILE)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return StageResult(
        command="export",
        out=out,
        outputs={"model": out},
        counts={"members": len(made), "bytes": size},
        figures={
            "largest difference of a probability": {
                folder.name: difference for folder, (_, _, difference) in made.items()
            }
        },
        next_step=f"kneeoa-mm predict KNEES --model {out} --out grades.csv",
    )


def _rewritten(folder: Path, *, half: bool) -> tuple[Model, bytes, float]:
    """A member's export, its weights, and by how much its probabilities differ at most."""
    member = load_model(folder)
    _, weights = read_model(folder, ModelCard)
    if not half:
        return member, weights, 0.0
    weights = halved(weights)
    network = build_network(member.card.architecture)
    network.load_state_dict(load(weights), strict=True)
    difference = _proven("safetensors", member, _eager(network.eval()))
    known = member.familiarity
    widened = known and replace(known, limit=known.limit * _ROUNDED_LIMIT)
    return replace(member, network=network, familiarity=widened), weights, difference


def _without_paths(settings: Path) -> str:
    """A run's configuration, its starting weights by the name of their file alone."""
    tree = read_yaml_mapping(settings)
    for member in tree.get("members", ()):
        if "weights" in member:
            member["weights"] = Path(member["weights"]).name
    return yaml.safe_dump(tree, sort_keys=False)


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def halved(weights: bytes) -> bytes:
    """Serialised safetensors with the weights of layers in half precision.

    All else stays: biases, scales, intercepts, and batch statistics, whose variances may be smaller
    than half precision can tell from zero.

    Raises:
        KneeOAError: A weight is too large for half precision.
    """
    tensors = {
        name: value.half() if name.endswith("weight") and value.dim() > 1 else value
        for name, value in load(weights).items()
    }
    if not all(bool(value.isfinite().all()) for value in tensors.values()):
        raise KneeOAError("A weight is too large for half precision.", fix="leave out --half")
    return save(tensors)


def _export_onnx(
    folders: list[Path],
    rules: EnsembleRules,
    out: Path,
    said: dict[str, str],
    *,
    overwrite: bool,
) -> StageResult:
    onnx_graph.require()
    members = [load_model(folder) for folder in folders]
    is_file = out.suffix == ".onnx"
    if is_file and len(members) > 1:
        raise InputError(
            "Several networks do not go into one file.",
            expected="a folder, in which each gets its own",
            found=f"{len(members)} members",
            where=out,
        )
    files = {member.name: f"{member.name}.onnx" for member in members}
    folder, contract = out, out / CONTRACT_FILE
    if is_file:
        files = {members[0].name: out.name}
        folder, contract = out.parent, out.with_suffix(".json")
        _refuse_existing([out, contract], overwrite=overwrite)
    else:
        refuse_taken(out, None, overwrite=overwrite)
    # all are made and proven before the first is written
    made = {member.name: _graph(member) for member in members}
    document = {
        "format": "onnx",
        "opset": onnx_graph.OPSET,
        "package_version": __version__,
        "inputs": _INPUTS,
        "ensemble": rules.model_dump(mode="json", exclude_unset=True),
        "views": _views(rules),
        "members": [
            _entry(member, files[member.name], *made[member.name]) | said for member in members
        ],
    }

    def write() -> None:
        for name, (graph, _) in made.items():
            with atomic_path(folder / files[name]) as temporary:
                temporary.write_bytes(graph)
        write_json(contract, document)

    if is_file:
        write()
    else:
        with open_run(out, overwrite=overwrite):
            write()
    return StageResult(
        command="export",
        out=out,
        outputs={"onnx": out, "contract": contract},
        counts={"members": len(members)},
        figures={
            "largest difference of a probability": {name: by for name, (_, by) in made.items()}
        },
    )


def _views(rules: EnsembleRules) -> dict[str, Any]:
    """What a member's probabilities are averaged over, in numbers that nobody could guess."""
    columns = ("across", "down", "scale")
    return {
        "crops": [
            dict(zip(columns, crop, strict=True)) for crop in CROPS[: rules.test_time_crops + 1]
        ],
        "flip": rules.test_time_flip,
        "how": "each view is the image, enlarged by 1 / scale about its middle, which was moved by "
        "shares of its side first: the grey at u, v, from -1 to 1 over the image, is that at "
        "scale * u + 2 * across, scale * v + 2 * down, between pixels linear and beyond the border "
        "that of the border; with flip each view's mirror image, left for right, is a view too",
    }


_INPUTS = {
    "images": "float32 (batch, 1, image_size_px, image_size_px): greys from 0 to 1 after the "
    "member's preprocessing; its mean and std are applied inside the graph",
    "clinical": "float32 (batch, factors), where a member has it: factors encoded as the member's "
    "`clinical` says",
    "kl_read": "float32 (batch, 5), where a member takes the read grade: one-hot, all 0 where "
    "there is none",
}


def _entry(member: Model, file: str, graph: bytes, difference: float) -> dict[str, Any]:
    card = member.card.model_dump(mode="json")
    kept = ["kind", "outputs", "preprocessing", "clinical", "fold"]
    kept += ["licence", "trained_on", "intended_use"]
    return {
        "name": member.name,
        "file": file,
        "sha256": hashlib.sha256(graph).hexdigest(),
        "largest_difference": difference,
        **{name: card[name] for name in kept},
    }


def _refuse_existing(paths: list[Path], *, overwrite: bool) -> None:
    for path in paths:
        if path.exists() and not overwrite:
            raise OutputExistsError("The output exists.", where=path, fix="add --overwrite")


def _graph(member: Model) -> tuple[bytes, float]:
    """The ONNX graph of a member, and by how much its probabilities differ at most."""
    probes = _greys(_probes(member), member.card.preprocessing)
    graph = onnx_graph.to_onnx(member, probes)
    return graph, _proven("onnx", member, onnx_graph.runtime(graph))


def _probes(member: Model) -> dict[str, Tensor]:
    """Images as bytes, (n, S, S): noise of any frequency, and drawn bones with a joint between."""
    size = member.card.preprocessing.image_size_px
    generator = np.random.default_rng(0)
    across, down = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size))
    pictures = [generator.uniform(0, 255, (size, size)) for _ in range(_PROBES // 2)]
    for _ in range(_PROBES // 2):
        bone = 1 / (1 + np.exp(12 * (np.abs(across) - generator.uniform(0.5, 0.8))))
        gap = np.exp(-((down / generator.uniform(0.03, 0.1)) ** 2))
        pictures.append(40 + 160 * bone * (1 - 0.8 * gap) + generator.normal(0, 6, (size, size)))
    grey = np.clip(np.stack(pictures), 0, 255).astype(np.uint8)
    probes = {"images": torch.from_numpy(grey)}
    if member.clinical is not None:
        width = int(member.network.architecture["clinical_features"])
        drawn = generator.normal(0, 1, (_PROBES, width)).astype(np.float32)
        probes["clinical"] = torch.from_numpy(drawn)
    if member.takes_reading:
        grades = np.where(np.arange(_PROBES) < len(KL_CLASSES), np.arange(_PROBES), np.nan)
        probes["kl_read"] = grade_targets(grades)
    return probes


def _greys(probes: dict[str, Tensor], contract: Preprocessing) -> dict[str, Tensor]:
    plain = contract.model_copy(update={"mean": 0.0, "std": 1.0})
    return probes | {"images": to_input(probes["images"], plain)}


def _eager(network: Network) -> Answer:
    def answer(inputs: dict[str, Tensor]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return to_probabilities(network(inputs)).numpy()

    return answer


def _proven(form: Form, member: Model, exported: Answer) -> float:
    """By how much an export's probabilities differ from the model's at most.

    Asked of all probes together and of each alone, so that the batch may have any size.

    Raises:
        KneeOAError: It is more than is allowed, or a number is missing.
    """
    contract, probes = member.card.preprocessing, _probes(member)
    normalised = probes | {"images": to_input(probes["images"], contract)}
    original = _eager(member.network)(normalised)
    inputs = _greys(probes, contract) if form == "onnx" else normalised
    one_by_one = [
        exported({name: value[row : row + 1] for name, value in inputs.items()})
        for row in range(_PROBES)
    ]
    answers = np.stack([exported(inputs), np.concatenate(one_by_one)])
    largest = float(np.abs(answers - original).max())
    allowed = _LARGEST_DIFFERENCE[form]
    if not largest <= allowed:
        raise KneeOAError(
            "The export does not say what the model says.",
            expected=f"probabilities that differ by {allowed:g} at most",
            found=f"{largest:g}",
            where=member.name,
        )
    return largest
