"""How fast one network grades: PyTorch as it comes, channels-last, and ONNX Runtime, on the CPU.

    python benchmarks/inference.py MODEL --out docs/results/inference/speed-cpu.json

MODEL is a run or a model folder, of which the first member is taken. Every way starts from prepared
images as bytes and ends with probabilities. The ways take turns, round by round, and medians are
given, so that whatever else the machine does hits all alike. With one thread the clock is that of
the process: time in which another program had the core does not count. With more it is the wall.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from kneeoa_mm.atomic_files import write_json
from kneeoa_mm.learning import onnx_graph
from kneeoa_mm.learning.inference import to_probabilities
from kneeoa_mm.learning.models import Model, load_ensemble
from kneeoa_mm.progress import say

BATCH_SIZES = (1, 8, 32)
"""One knee, as many as ``predict`` asks for at a time, and many."""
WARM_UP = 2
EAGER = "eager"
CHANNELS_LAST = "eager, channels last"
ONNX_RUNTIME = "onnx runtime"
PACKAGES = ("torch", "onnx", "onnxruntime", "onnxscript")

Grade = Callable[[torch.Tensor], np.ndarray]


def ways(model: Model, threads: int) -> dict[str, Grade]:
    """Name to a function from bytes (n, S, S) to probabilities (n, outputs)."""
    contract = model.card.preprocessing
    greys = torch.rand(2, 1, contract.image_size_px, contract.image_size_px)
    session = onnx_graph.runtime(onnx_graph.to_onnx(model, {"images": greys}), threads)

    def eager(layout: torch.memory_format) -> Grade:
        network = copy.deepcopy(model.network).to(memory_format=layout)

        def grade(images: torch.Tensor) -> np.ndarray:
            greys = (images.unsqueeze(1).float() / 255 - contract.mean) / contract.std
            with torch.inference_mode():
                return to_probabilities(network({"images": greys})).numpy()

        return grade

    return {
        EAGER: eager(torch.contiguous_format),
        CHANNELS_LAST: eager(torch.channels_last),
        ONNX_RUNTIME: lambda images: session({"images": images.unsqueeze(1).float() / 255}),
    }


def knees_per_second(
    grade: dict[str, Grade], images: torch.Tensor, rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Median speed of each way on one batch; every round asks each of them."""
    seconds: dict[str, list[float]] = {name: [] for name in grade}
    for number in range(rounds + WARM_UP):
        for name, way in grade.items():
            start = clock()
            way(images)
            if number >= WARM_UP:
                seconds[name].append(clock() - start)
    return {name: len(images) / statistics.median(taken) for name, taken in seconds.items()}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    model = load_ensemble(options.model).members[0]
    size = model.card.preprocessing.image_size_px
    grade = ways(model, options.threads)
    drawn = np.random.default_rng(0).integers(0, 256, (max(BATCH_SIZES), size, size))
    images = torch.from_numpy(drawn.astype(np.uint8))
    answers = {name: way(images) for name, way in grade.items()}
    speeds = {}
    for n in BATCH_SIZES:
        found = knees_per_second(grade, images[:n], options.rounds, clock)
        eager = max(found[EAGER], found[CHANNELS_LAST])
        ratio = found[ONNX_RUNTIME] / eager
        speeds[f"batch of {n}"] = {
            "knees_per_s": {name: round(speed, 2) for name, speed in found.items()},
            "onnx_runtime_against_the_faster_eager": round(ratio, 2),
        }
        told = ", ".join(f"{name} {speed:.1f}" for name, speed in found.items())
        say(f"batch of {n}: {told} knees/s; ratio {ratio:.2f}")
    document = {
        "network": model.card.architecture,
        "image_size_px": size,
        "threads": options.threads,
        "clock": clock.__name__,
        "rounds": options.rounds,
        "largest_difference": {
            name: float(np.abs(answer - answers[EAGER]).max()) for name, answer in answers.items()
        },
        "speed": speeds,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }
    write_json(options.out, document)


if __name__ == "__main__":
    main()
