"""How fast knees are cut from films, against the staged way and against the floor.

    python benchmarks/preprocess.py --out docs/results/preprocess/speed.json

All three work on the same films (2494 x 2048 px, 12 bit, uncompressed), one after another in
processes of their own with one thread:

``staged``  the way of the JSL seed: the film as a PNG, its halves as PNGs, the detector on each
            PNG of a half, the crop as a PNG
``ours``    what a worker of ``kneeoa-mm preprocess`` does
``floor``   what nobody can leave out: decode, one pass of the same network, and the two PNGs that
            ours writes, written from memory at zlib's fastest level
``floor-rle``  the same, with PNGs compressed as ours are (Z_RLE), which is faster than that level

Then ``kneeoa-mm preprocess`` itself runs on a small and on a large study (the same films under many
names), to see whether speed and memory stay flat.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image

from kneeoa_mm import __version__
from kneeoa_mm.identifiers import Identifiers
from kneeoa_mm.imaging.detectors import make_detector
from kneeoa_mm.imaging.identity import Naming
from kneeoa_mm.imaging.preprocess import preprocess
from kneeoa_mm.imaging.worker import FilmTask, prepare, work
from kneeoa_mm.records import Photometric
from kneeoa_mm.settings import PreprocessConfig
from kneeoa_mm.synthetic.cohort import synthesize
from kneeoa_mm.synthetic.radiographs import write_radiograph

ROWS, COLUMNS = 2048, 2494
SPACING_MM = 0.2
CROP_PX = 700
WARM_UP = 2


def make_films(folder: Path, count: int, seed: int) -> list[Path]:
    """Synthetic films of the size of OAI's."""
    source = folder / "source"
    synthesize(source, subjects=count, seed=seed, pixel_spacing_mm=0.35, jobs=2)
    films = []
    for index, path in enumerate(sorted(source.rglob("*.dcm"))[:count]):
        dataset = pydicom.dcmread(path)
        grey = dataset.pixel_array.astype(np.float32) / 4095
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            grey = 1 - grey
        large = Image.fromarray(grey).resize((COLUMNS, ROWS), Image.Resampling.BICUBIC)
        noise = np.random.default_rng([seed, index]).normal(0, 0.004, (ROWS, COLUMNS))
        films.append(folder / "films" / f"{index:04d}.dcm")
        write_radiograph(
            films[-1],
            (np.asarray(large) + noise).astype(np.float32),
            subject_id=f"{index:07d}",
            visit="V00",
            seed=seed,
            pixel_spacing_mm=SPACING_MM,
            photometric=Photometric.MONOCHROME2,
            is_calibrated=True,
        )
    return films


def staged(films: list[Path], out: Path, config: PreprocessConfig) -> Callable[[Path], None]:
    """Full PNG, halves as PNGs, the detector on the PNGs, the crop."""
    detector = make_detector(config)

    def process(path: Path) -> None:
        film = pydicom.dcmread(path)
        pixels = film.pixel_array.astype(np.float32)
        eight_bit = (pixels / pixels.max() * 255).astype(np.uint8)
        full = out / f"{path.stem}.png"
        Image.fromarray(eight_bit).save(full)
        with Image.open(full) as picture:
            whole = np.asarray(picture)
        middle = whole.shape[1] // 2
        for side, half in (("R", whole[:, :middle]), ("L", whole[:, middle:])):
            half_path = out / f"{path.stem}-{side}-half.png"
            Image.fromarray(half).save(half_path)
            with Image.open(half_path) as picture:
                grey = np.asarray(picture, dtype=np.float32)
            for joint in detector.detect(grey, None)[:1]:
                x, y = (round(place) for place in joint.box.centre_px)
                reach = CROP_PX // 2
                crop = half[max(0, y - reach) : y + reach, max(0, x - reach) : x + reach]
                Image.fromarray(crop).save(out / f"{path.stem}-{side}.png")

    return process


def ours(films: list[Path], out: Path, config: PreprocessConfig) -> Callable[[Path], None]:
    """What a worker does with a film."""
    prepare(config)
    naming = Naming(Identifiers(None))

    def process(path: Path) -> None:
        record = work(FilmTask(path.parent, path.name, path.name, out / path.stem, config, naming))
        if len(record.knees) != 2:
            raise RuntimeError(f"{path.name}: {len(record.knees)} knees, {record.rejects}")

    return process


def floor(
    films: list[Path], out: Path, config: PreprocessConfig, **compression: int
) -> Callable[[Path], None]:
    """Decode, one pass of the network, two PNGs."""
    compression = compression or {"compress_level": 1}
    detector = make_detector(config)
    cut = ours(films, out, config)
    knees = {}
    for path in films:
        cut(path)
        images = sorted(out.glob(f"{path.stem}-*.png"))
        knees[path] = {image: Image.fromarray(np.asarray(Image.open(image))) for image in images}

    def process(path: Path) -> None:
        film = pydicom.dcmread(path)
        pixels = film.pixel_array
        step = -(-max(pixels.shape) // 320)
        detector.detect(pixels[::step, ::step].astype(np.float32), None)
        for image, knee in knees[path].items():
            knee.save(image, **compression)

    return process


WAYS: dict[str, Callable[[list[Path], Path, PreprocessConfig], Callable[[Path], None]]] = {
    "staged": staged,
    "ours": ours,
    "floor": floor,
    "floor-rle": partial(floor, compress_type=zlib.Z_RLE),
}


def _measure(way: str, films: list[Path], config: PreprocessConfig) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        process = WAYS[way](films, Path(folder), config)
        for path in films[:WARM_UP]:
            process(path)
        start, cpu = time.perf_counter(), time.process_time()
        for path in films:
            process(path)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "ms_per_film": 1000 * wall / len(films),
        "cpu_ms_per_film": 1000 * cpu / len(films),
        "films_per_second_and_core": len(films) / wall,
        "peak_mib": peak_mib(os.getpid()),
        "films": len(films),
    }


def in_own_process(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Call ``function`` where its memory is its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def peak_mib(pid: int) -> float:
    """Largest resident memory of a process so far (Linux); rusage would count its parent's."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if "VmHWM" in line), 0)


class WatchChildren(threading.Thread):
    """Remembers the largest resident memory of any child of this process."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mib = 0.0
        self.over = threading.Event()

    def run(self) -> None:
        """Look every half second."""
        while not self.over.wait(0.5):
            tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
            for pid in " ".join(task.read_text() for task in tasks).split():
                self.peak_mib = max(self.peak_mib, peak_mib(int(pid)))


def _run_study(studies: Path, out: Path, jobs: int) -> dict[str, Any]:
    watch = WatchChildren()
    watch.start()
    start = time.perf_counter()
    result = preprocess(studies, out, config=PreprocessConfig(), ids="keep", jobs=jobs)
    wall = time.perf_counter() - start
    watch.over.set()
    films = result.counts["films"]
    return {
        "films": films,
        "jobs": jobs,
        "films_per_second": films / wall,
        "peak_mib_of_a_worker": watch.peak_mib,
        "peak_mib_of_the_parent": peak_mib(os.getpid()),
    }


def study(films: list[Path], count: int, jobs: int, folder: Path) -> dict[str, Any]:
    """``preprocess`` on ``count`` names of the same films."""
    studies = folder / f"study-{count}"
    studies.mkdir()
    for index in range(count):
        os.link(films[index % len(films)], studies / f"{index:06d}.dcm")
    return in_own_process(_run_study, studies, folder / f"knees-{count}", jobs)


def main() -> None:
    """Print the comparison and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--films", type=int, default=20)
    parser.add_argument("--studies", type=int, nargs="*", default=[100, 2000])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--detector", default="auto")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    config = PreprocessConfig(detector=arguments.detector)
    document: dict[str, Any] = {
        "version": __version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "detector": make_detector(config).name,
        "film_px": [ROWS, COLUMNS],
        "ways": {},
        "studies": [],
    }
    with tempfile.TemporaryDirectory(prefix="kneeoa-mm-benchmark-") as folder:
        films = make_films(Path(folder), arguments.films, arguments.seed)
        for way in WAYS:
            document["ways"][way] = in_own_process(_measure, way, films, config)
            print(way, json.dumps(document["ways"][way]), flush=True)
        times = {way: figures["ms_per_film"] for way, figures in document["ways"].items()}
        document["times_the_staged_way"] = times["staged"] / times["ours"]
        document["times_the_floor"] = times["ours"] / times["floor"]
        document["times_the_floor_rle"] = times["ours"] / times["floor-rle"]
        print(f"{document['times_the_staged_way']:.1f} times as fast as the staged way")
        print(f"{document['times_the_floor']:.2f} times the floor")
        print(f"{document['times_the_floor_rle']:.2f} times the floor-rle", flush=True)
        for count in arguments.studies:
            document["studies"].append(study(films, count, arguments.jobs, Path(folder)))
            print(json.dumps(document["studies"][-1]), flush=True)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
