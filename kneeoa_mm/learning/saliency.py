"""Where a model looks: Grad-CAM and input gradients by Captum, drawn over the knee.

A map says which pixels moved the output of this network, not where disease is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from captum.attr import LayerAttribution, LayerGradCam, Saliency
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from kneeoa_mm.errors import InputError
from kneeoa_mm.learning.clinical import read_clinical
from kneeoa_mm.learning.dataset import to_input
from kneeoa_mm.learning.inference import ImageStore, Model, choose_device, load_ensemble
from kneeoa_mm.learning.sources import read_knees
from kneeoa_mm.progress import track
from kneeoa_mm.records import KneeKey, StageResult
from kneeoa_mm.run_folder import atomic_path, open_run

METHODS = ("gradcam", "saliency")
_OPACITY = 0.6
_TILE_PX = 320


@dataclass(frozen=True)
class Attribution:
    """One map.

    Attributes:
        method: ``gradcam`` or ``saliency``.
        heat: Shape (S, S), 0 to 1; all zero where nothing speaks for the output.
        status: ``ok``, or why the map is empty.
    """

    method: str
    heat: NDArray[np.float32]
    status: str


def attribute(
    model: Model, images: Tensor, clinical: Tensor | None, target: int | str
) -> list[Attribution]:
    """Explain one output for one knee.

    Args:
        model: The network.
        images: Network input, shape (1, 1, S, S).
        clinical: Encoded factors, shape (1, F), for a fused model.
        target: KL grade 0 to 4, or ``progression``.

    Returns:
        Grad-CAM (Selvaraju et al. 2017, positive evidence only) and the absolute input gradient
        (Simonyan et al. 2014).
    """
    network = model.network

    def forward(pixels: Tensor) -> Tensor:
        batch = {"images": pixels}
        if clinical is not None:
            batch["clinical"] = clinical.expand(len(pixels), -1)
        outputs = network(batch)
        if target == "progression":
            return outputs["jsl_logit"]
        return outputs["kl_logits"][:, int(target)]

    pixels = images.clone().requires_grad_(True)
    cam = LayerGradCam(forward, network.encoder.feature_map()).attribute(pixels)
    cam = LayerAttribution.interpolate(cam, tuple(images.shape[-2:]), "bilinear").relu()
    gradient = Saliency(forward).attribute(pixels, abs=True)
    return [_scaled("gradcam", cam), _scaled("saliency", gradient)]


def _scaled(method: str, values: Tensor) -> Attribution:
    heat = values.detach().squeeze().cpu().float().numpy()
    if not np.isfinite(heat).all():
        return Attribution(method, np.zeros_like(heat), "not finite")
    # a few extreme pixels must not hide the rest of an input gradient
    top = float(np.percentile(heat, 99.5))
    if top <= 0:
        return Attribution(method, np.zeros_like(heat), "no positive evidence")
    return Attribution(method, np.clip(heat / top, 0, 1), "ok")


def overlay(image: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour a map over a knee.

    Args:
        image: Shape (S, S).
        heat: Shape (S, S), 0 to 1; transparent where 0.

    Returns:
        Shape (S, S, 3).
    """
    grey = np.repeat(image[:, :, None], 3, axis=2) / 255
    colour = colormaps["inferno"](heat)[:, :, :3]
    alpha = _OPACITY * heat[:, :, None]
    return np.round(255 * ((1 - alpha) * grey + alpha * colour)).astype(np.uint8)


def explain(
    data: Path,
    model: Path,
    out: Path,
    *,
    clinical: Path | None = None,
    limit: int = 16,
    device: str = "auto",
    overwrite: bool = False,
) -> StageResult:
    """Draw what moved a model's output, for some knees.

    Args:
        data: Folder of PNGs, table of knees, or output folder of ``preprocess``.
        model: Run or model folder; of a run, each knee is explained by the first member that was
            not trained on its subject.
        out: Folder to write ``saliency.csv`` and ``images/`` into.
        clinical: Output folder of ``cohort``, or a table by ``knee_id``, for a fused model.
        limit: At most so many knees, evenly spread over the input.
        device: ``auto``, ``cpu`` or ``cuda``.
        overwrite: Replace earlier output.

    Raises:
        InputError: There are no knees.
        ModelFolderError: There is no usable model.
    """
    if limit < 1:
        raise InputError("There must be at least one knee to explain.", found=f"--limit {limit}")
    ensemble = load_ensemble(model)
    knees = read_knees(data, allow_ungrouped=True)
    spread = np.unique(np.linspace(0, len(knees) - 1, min(limit, len(knees))).astype(int))
    knees = knees.iloc[spread].reset_index(drop=True)
    table = None if clinical is None else read_clinical(clinical)
    store = ImageStore(knees)
    target = "progression" if ensemble.outcome_column else "kl"
    rows: list[dict[str, object]] = []
    with open_run(out, overwrite=overwrite):
        for index in track(range(len(knees)), total=len(knees), label="explain"):
            member = _unseen(ensemble.members, str(knees["subject_id"][index]))
            image = store.get(member.card.preprocessing)[index]
            if store.readable[index]:
                factors = _encoded(member, table, str(knees["knee_id"][index]))
                rows += _draw(member, image, factors, target, knees.iloc[index], out, device)
        with atomic_path(out / "saliency.csv") as temporary:
            pd.DataFrame(rows).to_csv(temporary, index=False, lineterminator="\n")
    return StageResult(
        command="explain",
        out=out,
        outputs={"saliency": out / "saliency.csv", "images": out / "images"},
        counts={"knees": int(store.readable.sum()), "maps": len(rows)},
        failed=len(store.rejects),
        notes=("A map shows what moved the network's output, not where disease is.",),
        next_step=f"kneeoa-mm report {out} --out report.html",
    )


def _unseen(members: tuple[Model, ...], subject: str) -> Model:
    fresh = (m for m in members if not m.card.seen_subjects.in_training([subject]))
    return next(fresh, members[0])


def _encoded(member: Model, clinical: pd.DataFrame | None, knee_id: str) -> Tensor | None:
    if member.clinical is None:
        return None
    table = pd.DataFrame(index=[knee_id]) if clinical is None else clinical.reindex([knee_id])
    return torch.from_numpy(member.clinical.transform(table))


def _draw(
    member: Model,
    image: Tensor,
    clinical: Tensor | None,
    target: str,
    knee: pd.Series,
    out: Path,
    device: str,
) -> list[dict[str, object]]:
    device = choose_device(device)
    pixels = to_input(image.unsqueeze(0), member.card.preprocessing).to(device)
    factors = None if clinical is None else clinical.to(device)
    member.network.to(device)
    batch = {"images": pixels} | ({} if factors is None else {"clinical": factors})
    with torch.no_grad():
        outputs = member.network(batch)
    grade = int(outputs["kl_logits"].argmax())
    chosen: int | str = grade if target == "kl" else target
    maps = attribute(member, pixels, factors, chosen)
    grey = image.numpy()
    tiles = [np.repeat(grey[:, :, None], 3, axis=2), *(overlay(grey, m.heat) for m in maps)]
    risk = "" if target == "kl" else f", risk {float(outputs['jsl_logit'].sigmoid()):.2f}"
    captions = [f"KL {grade} predicted{risk}", *METHODS]
    name = f"{KneeKey.parse(str(knee['knee_id'])).file_stem}.png"
    with atomic_path(out / "images" / name) as temporary:
        _side_by_side(tiles, captions).save(temporary)
    identity = {"knee_id": knee["knee_id"], "image": f"images/{name}", "member": member.name}
    target_name = f"kl_grade_{grade}" if target == "kl" else target
    identity["target"] = target_name
    return [identity | {"method": m.method, "status": m.status} for m in maps]


def _side_by_side(tiles: list[NDArray[np.uint8]], captions: list[str]) -> Image.Image:
    sheet = Image.new("RGB", (_TILE_PX * len(tiles), _TILE_PX + 20), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        picture = Image.fromarray(tile).resize((_TILE_PX, _TILE_PX), Image.Resampling.BILINEAR)
        sheet.paste(picture, (i * _TILE_PX, 20))
        pen.text((i * _TILE_PX + 4, 4), caption, fill="black")
    return sheet
