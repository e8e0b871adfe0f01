"""How many images a second a network learns from, against the plain way and against the floor.

    python benchmarks/training.py --out docs/results/training/speed-cpu.json

All three train the same network with the same loss and optimiser on the same synthetic PNGs:

``plain``  PNG decoding and torchvision's transforms of each image in the workers of a DataLoader
``ours``   an epoch of the real training loop, ``kneeoa_mm.learning.fitting.fit``
``floor``  the same steps on one batch that is in memory already, in a loop of four lines

``--ema`` and ``--mixup`` are what a recipe adds, as ``baseline`` does with 0.998 and 0.4: ours pays
for them, the plain way and the floor go without.

Their rounds take turns, so that what else the machine does meets all of them; medians over the
rounds are shown. ``batches`` is what our loop spends on making batches alone. Set-up, checkpoints
and validation, once an epoch or less, are not counted.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from kneeoa_mm import __version__
from kneeoa_mm.learning.batches import Batches
from kneeoa_mm.learning.fitting import fit
from kneeoa_mm.learning.image_store import ImageStore
from kneeoa_mm.learning.inference import choose_device
from kneeoa_mm.learning.job import Job
from kneeoa_mm.learning.losses import GradeLoss, grade_targets
from kneeoa_mm.learning.networks import KLNetwork
from kneeoa_mm.model_folder import Preprocessing
from kneeoa_mm.settings import AugmentConfig, TrainConfig

MEAN, STD = 0.449, 0.226
PNG_PX = 224
LR = 1e-4
AUGMENT = AugmentConfig()
TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}

Step = Callable[[dict[str, torch.Tensor]], None]


def make_knees(folder: Path, count: int) -> pd.DataFrame:
    """Pictures with the noise of a film, so that PNGs are as large as real ones."""
    generator = np.random.default_rng(0)
    paths = []
    for index in range(count):
        coarse = Image.fromarray(generator.uniform(20, 230, (9, 9)).astype(np.float32))
        smooth = np.asarray(coarse.resize((PNG_PX, PNG_PX), Image.Resampling.BICUBIC))
        noisy = np.clip(smooth + generator.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)
        paths.append(folder / f"{index:05d}.png")
        Image.fromarray(noisy).save(paths[-1])
    return pd.DataFrame(
        {
            "image_path": [str(path) for path in paths],
            "mirror": False,
            "field_of_view_plateau_widths": np.nan,
            "kl_grade": np.arange(count) % 5,
        }
    )


class Pngs(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The plain way: each image is read and transformed whenever it is wanted."""

    def __init__(self, knees: pd.DataFrame, size: int) -> None:
        self._paths = list(knees["image_path"])
        self._targets = grade_targets(knees["kl_grade"].to_numpy(np.float64))
        shift, scale = AUGMENT.translation, AUGMENT.scale
        self._transform = transforms.Compose(
            [
                transforms.Resize((size, size)),
                transforms.RandomAffine(
                    AUGMENT.rotation_deg, (shift, shift), (1 - scale, 1 + scale)
                ),
                transforms.ColorJitter(AUGMENT.brightness, AUGMENT.contrast),
                transforms.ToTensor(),
                transforms.Normalize([MEAN], [STD]),
            ]
        )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        with Image.open(self._paths[index]) as image:
            return self._transform(image.convert("L")), self._targets[index]


def make_job(knees: pd.DataFrame, folder: Path, options: argparse.Namespace) -> Job:
    """What ``pretrain-kl`` would hand to ``fit``."""
    contract = Preprocessing(
        image_size_px=options.size,
        mean=MEAN,
        std=STD,
        clip_percentiles=(1, 99),
        reinvert_negatives=True,
    )
    store = ImageStore(knees, cache=folder)
    config = TrainConfig.model_validate(
        {
            "lr": LR,
            "epochs": 1,
            "batch_size": options.batch_size,
            "stages": [{"trainable": options.trainable}],
            "select_by": "last",
            "precision": options.precision,
            "compile": options.compile,
            "augment": AUGMENT.model_dump() | {"mixup": options.mixup},
            "ema_decay": options.ema,
        }
    )
    return Job(
        name="benchmark",
        network=KLNetwork(options.backbone),
        arrays={
            "images": store.get(contract),
            "kl_target": grade_targets(knees["kl_grade"].to_numpy(np.float64)),
        },
        train_rows=np.arange(len(knees)),
        val_rows=np.array([], dtype=np.int64),
        contract=contract,
        config=config,
        loss=GradeLoss.of(config),
        score=lambda *_: {},
        seed=(0,),
        image_file=store.files[contract],
    )


def make_step(job: Job, device: str) -> Step:
    """A training step on a copy of the job's network, with layers frozen as ``fit`` left them."""
    network = deepcopy(job.network).to(device)
    if job.config.compile:
        network.compile()
    learning = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=LR, weight_decay=job.config.weight_decay)
    dtype = TYPES.get(job.config.precision)
    scaler = torch.amp.GradScaler(device, enabled=dtype is torch.float16)

    def step(batch: dict[str, torch.Tensor]) -> None:
        with torch.autocast(device, dtype) if dtype else nullcontext():
            loss = job.loss(network(batch), batch)
        optimiser.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()

    return step


def ways(
    job: Job, knees: pd.DataFrame, folder: Path, options: argparse.Namespace
) -> dict[str, Callable[[], float]]:
    """What is measured: each takes the same number of steps and returns its seconds."""
    device = choose_device(options.device)

    def training() -> Batches:
        return Batches(
            job.arrays,
            job.train_rows,
            job.contract,
            batch_size=options.batch_size,
            augment=job.config.augment,
            device=device,
        )

    def ours() -> float:
        with tempfile.TemporaryDirectory(dir=folder) as run:
            record = fit(job, Path(run), device=options.device)
        return float(record.history[-1]["seconds"])

    ours()  # sets layers and their modes as the recipe says
    in_memory = next(iter(training()))
    floor_step = make_step(job, device)
    plain = replace(job, network=deepcopy(job.network).to(memory_format=torch.contiguous_format))
    plain_step = make_step(plain, device)
    loader = DataLoader(
        Pngs(knees, options.size),
        batch_size=options.batch_size,
        shuffle=True,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
        pin_memory=device == "cuda",
    )

    def floor() -> float:
        return timed(lambda: [floor_step(in_memory) for _ in range(options.steps)], device)

    def batches() -> float:
        return timed(lambda: [None for _ in training()], device)

    def plainly() -> float:
        def epoch() -> None:
            for images, target in loader:
                plain_step({"images": images.to(device), "kl_target": target.to(device)})

        return timed(epoch, device)

    return {"floor": floor, "ours": ours, "plain": plainly, "batches": batches}


def timed(work: Callable[[], Any], device: str) -> float:
    """Seconds of some work, until the device has done it too."""
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Rounds in turn, and what they come to."""
    torch.manual_seed(0)
    images = options.steps * options.batch_size
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        knees = make_knees(Path(folder), images)
        measured = ways(make_job(knees, Path(folder), options), knees, Path(folder), options)
        for round_ in range(-1, options.rounds):
            for name, way in measured.items():
                taken = way()
                if round_ >= 0:  # the one before warms up
                    seconds.setdefault(name, []).append(taken)
    return {
        "images_per_second": {
            name: round(images / statistics.median(each), 2) for name, each in seconds.items()
        },
        # of the rounds side by side: what slows one slows the other
        "ours_to_floor": round(_ratio(seconds["floor"], seconds["ours"]), 3),
        "ours_to_plain": round(_ratio(seconds["plain"], seconds["ours"]), 3),
        "plain_to_floor": round(_ratio(seconds["floor"], seconds["plain"]), 3),
        "batches_share_of_floor": round(_ratio(seconds["batches"], seconds["floor"]), 3),
        "seconds": {name: [round(one, 3) for one in each] for name, each in seconds.items()},
    }


def _ratio(above: list[float], below: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def _layers(text: str) -> str | int:
    return int(text) if text.isdecimal() else text


def main() -> None:
    """Measure, show and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--size", type=int, default=224, help="image size in pixels")
    parser.add_argument(
        "--trainable", type=_layers, default="all", help="head, all, or last layers"
    )
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--ema", type=float, default=0.0, help="train.ema_decay of the recipe")
    parser.add_argument("--mixup", type=float, default=0.0, help="train.augment.mixup of it")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8, help="batches a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2, help="of the plain way's DataLoader")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    result = {
        "options": {k: v for k, v in vars(options).items() if k != "out"},
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        "versions": {"kneeoa-mm": __version__, "torch": torch.__version__},
        **measure(options),
    }
    print(json.dumps({k: v for k, v in result.items() if k != "seconds"}, indent=2))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
