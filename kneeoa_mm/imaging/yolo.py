"""The door of ultralytics: a YOLO network that finds knee joints, quiet and offline.

Ultralytics looks up hosts when it is imported, wants a font from the web, writes settings into the
home directory and ends a training with a pickle. Here it does none of that: it is imported with
its network switched off and a settings folder that goes away again, weights are taken from memory
and kept as safetensors, and what surrounds the network (resizing, choosing boxes) is our own.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kneeoa_mm.errors import MissingExtraError, ModelFolderError
from kneeoa_mm.imaging.detector import Candidate, JointDetection, choose_joints
from kneeoa_mm.imaging.radiograph import Pixels, resize
from kneeoa_mm.model_folder import DetectorCard, read_model
from kneeoa_mm.records import PixelSpacing
from kneeoa_mm.settings import TrainDetectorConfig

SHIPPED_DETECTOR = Path(__file__).with_name("knee_joint_yolo")
"""Model folder of the detector that comes with the package; its licence stands beside it."""

_PERCENTILES = (0.5, 99.5)
_PADDING = 114
"""Grey with which ultralytics fills a picture up to a square."""
_OVERLAP = 0.5


def is_installed() -> bool:
    """Whether the extra ``yolo`` is there, found without importing it."""
    return find_spec("ultralytics") is not None


class YoloDetector:
    """Finds joints with a YOLO network (Jocher et al., ultralytics, AGPL-3.0).

    Args:
        folder: Model folder of ``kneeoa-mm train-detector``.
        min_score: Abstain below; None takes the confidence that the model states.

    Raises:
        MissingExtraError: Ultralytics is not installed.
        ModelFolderError: The folder is no detector, or this ultralytics builds another network.
    """

    def __init__(self, folder: Path = SHIPPED_DETECTOR, min_score: float | None = None) -> None:
        require()
        card, weights = read_model(folder, DetectorCard)
        with _quiet_ultralytics():
            network = _network(card.architecture)
        import torch
        from safetensors.torch import load

        try:
            network.load_state_dict({name: value.float() for name, value in load(weights).items()})
        except RuntimeError as error:
            raise ModelFolderError(
                "The weights do not fit the network that this ultralytics builds.",
                found=str(error).splitlines()[0],
                where=folder,
                fix="install the versions of requirements.lock, or train the detector anew",
            ) from error
        # One thread: workers share the cores, and sums come out the same for any number of jobs
        torch.set_num_threads(1)
        self._network = network.fuse(verbose=False).eval()
        self._size_px = card.image_size_px
        self.min_score = card.min_score if min_score is None else min_score
        self.name = detector_name(card)

    def detect(self, pixels: Pixels, spacing: PixelSpacing | None) -> list[JointDetection]:
        """See :class:`~kneeoa_mm.imaging.detector.JointDetector`."""
        view, (rows_per_px, columns_per_px) = detector_view(pixels, spacing, self._size_px)
        candidates = []
        for x, y, width, height, score in self._boxes(view):
            if score >= self.min_score:
                side = (width + height) / 2
                candidates.append(
                    Candidate(
                        x * columns_per_px,
                        y * rows_per_px,
                        side * columns_per_px,
                        side * rows_per_px,
                        score,
                    )
                )
        return choose_joints(candidates, film_columns=pixels.shape[1])

    def _boxes(self, view: NDArray[np.uint8]) -> list[tuple[float, ...]]:
        """Boxes that do not overlap, best first: x, y, width, height in the view, and score."""
        import torch

        square = np.full((self._size_px, self._size_px), _PADDING, dtype=np.uint8)
        square[: view.shape[0], : view.shape[1]] = view
        with torch.inference_mode():
            picture = torch.from_numpy(square)[None, None].float() / 255
            found = self._network(picture)[0][0].T.numpy().astype(np.float64)
        found = found[found[:, 4] >= self.min_score]
        kept: list[NDArray[np.float64]] = []
        for box in found[np.lexsort((found[:, 0], -found[:, 4]))]:
            if all(_overlap(box, other) < _OVERLAP for other in kept):
                kept.append(box)
        return [tuple(float(number) for number in box) for box in kept]


def detector_name(card: DetectorCard) -> str:
    """What the table of knees calls the detector with these weights."""
    return f"yolo-{card.weights_sha256[:8]}"


def detector_view(
    pixels: Pixels, spacing: PixelSpacing | None, long_side_px: int
) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """A film as the network sees it: small, with square pixels, stretched to eight bits.

    Args:
        pixels: Display grey, (rows, columns), bone bright.
        spacing: Millimetres of the film; without them its pixels are taken to be square.
        long_side_px: Longer side of the view.

    Returns:
        The view, and how many rows and columns of the film each of its pixels stands for.
    """
    ratio = 1.0 if spacing is None else spacing.row_mm / spacing.column_mm
    rows, columns = pixels.shape
    step = max(rows * ratio, columns) / long_side_px
    shape = max(1, round(rows * ratio / step)), max(1, round(columns / step))
    small = resize(pixels, *shape)
    low, high = np.percentile(small, _PERCENTILES)
    stretched = np.clip((small - low) / max(float(high - low), 1e-9), 0, 1)
    view = np.rint(stretched * 255).astype(np.uint8)
    return view, (rows / shape[0], columns / shape[1])


def _overlap(box: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Intersection over union of two boxes (x, y, width, height, …)."""
    low = np.maximum(box[:2] - box[2:4] / 2, other[:2] - other[2:4] / 2)
    high = np.minimum(box[:2] + box[2:4] / 2, other[:2] + other[2:4] / 2)
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared / float(np.prod(box[2:4]) + np.prod(other[2:4]) - shared)


def require() -> None:
    """Stop where the extra is missing.

    Raises:
        MissingExtraError: Ultralytics is not installed.
    """
    if not is_installed():
        raise MissingExtraError(
            "The YOLO detector needs ultralytics, which is not installed.",
            fix="pip install 'kneeoa-mm[yolo]', or --set detector=profile",
        )


def train(
    dataset: Path, config: TrainDetectorConfig, scratch: Path, report: Callable[[int, float], None]
) -> tuple[bytes, dict[str, float]]:
    """Train a network on a YOLO data set.

    Args:
        dataset: ``data.yaml`` with ``train`` and ``val``, of greyscale pictures.
        config: Size of the network, epochs, rates.
        scratch: Where ultralytics may write.
        report: Called after each epoch with its number and the mAP50 on ``val``.

    Returns:
        Weights of the best epoch in half precision as safetensors, and its ``map50`` and
        ``map50_95`` on ``val``.

    Raises:
        MissingExtraError: Ultralytics is not installed.
    """
    require()
    import torch

    threads = torch.get_num_threads()
    with _quiet_ultralytics():
        from ultralytics.models.yolo.detect import DetectionTrainer

        best: dict[str, Any] = {}

        class Trainer(DetectionTrainer):  # type: ignore[misc, no-any-unimported, unused-ignore]
            def get_model(self, *_: Any, **__: Any) -> Any:
                return _network(architecture(config))

            def save_model(self) -> bool:
                report(self.epoch + 1, float(self.metrics["metrics/mAP50(B)"]))
                if self.fitness == self.best_fitness:
                    best["weights"] = _serialised(self.ema.ema.state_dict())
                    best["metrics"] = {
                        "map50": float(self.metrics["metrics/mAP50(B)"]),
                        "map50_95": float(self.metrics["metrics/mAP50-95(B)"]),
                    }
                return True

            def final_eval(self) -> None:
                """The weights are in memory already: there is no pickle to read back."""

        # its bars go to stdout, which belongs to --json
        with redirect_stdout(io.StringIO()):
            trainer = Trainer(overrides=_overrides(dataset, config, scratch))
            # ultralytics leaves cores idle, one of which is half of a small laptop
            trainer.add_callback("on_train_start", lambda _: torch.set_num_threads(threads))
            trainer.train()
    return best["weights"], best["metrics"]


def _serialised(state: dict[str, Any]) -> bytes:
    from safetensors.torch import save

    return save(
        {
            name: (value.half() if value.is_floating_point() else value).cpu().contiguous()
            for name, value in state.items()
        }
    )


def architecture(config: TrainDetectorConfig) -> dict[str, Any]:
    """From what :class:`YoloDetector` rebuilds the network."""
    return {"family": "yolo11", "depth": config.depth, "width": config.width}


def _network(architecture: dict[str, Any]) -> Any:
    """The detection network of that family, depth and width, for one class and one channel."""
    import ultralytics
    import yaml
    from ultralytics.nn.tasks import DetectionModel

    family = str(architecture["family"])
    drawing = Path(ultralytics.__file__).parent / "cfg" / "models" / "11" / f"{family}.yaml"
    tree = yaml.safe_load(drawing.read_text(encoding="utf-8"))
    del tree["scales"]
    tree |= {
        "depth_multiple": architecture["depth"],
        "width_multiple": architecture["width"],
        "nc": 1,
    }
    return DetectionModel(tree, ch=1, nc=1, verbose=False)


def _overrides(dataset: Path, config: TrainDetectorConfig, scratch: Path) -> dict[str, Any]:
    return {
        "model": "yolo11n.yaml",  # replaced by Trainer.get_model
        "data": str(dataset),
        "epochs": config.epochs,
        "imgsz": config.image_size_px,
        "batch": config.batch_size,
        "seed": config.seed,
        "patience": config.patience,
        "device": "cpu" if config.device == "cpu" else None,
        "lr0": config.lr,
        "optimizer": "AdamW",
        "cos_lr": True,
        "project": str(scratch.resolve()),
        "name": "training",
        "pretrained": False,
        "amp": False,  # checking it would fetch weights
        "workers": 0,
        "cache": "ram",
        "plots": False,
        "verbose": False,
        # one class on whole films: no mosaic, no copies; a film is never upside down
        "mosaic": 0.0,
        "scale": 0.25,
        "translate": 0.1,
        "fliplr": 0.5,
        "hsv_v": 0.0,
    }


@contextmanager
def _quiet_ultralytics() -> Iterator[None]:
    """Import ultralytics with its network off, and leave neither settings nor patches behind."""
    require()
    import torch
    from PIL import Image

    # for the whole process, it replaces one to fetch decoders and the other to retry
    unpatched = Image.open, torch.save
    folder = tempfile.mkdtemp(prefix="kneeoa-mm-ultralytics-")
    os.environ.update(
        YOLO_OFFLINE="true",
        YOLO_AUTOINSTALL="false",
        YOLO_VERBOSE="false",
        YOLO_CONFIG_DIR=folder,
    )
    try:
        _place_font(Path(folder) / "Ultralytics")
        import logging

        with np.printoptions():  # it sets how every array of the process is printed
            import ultralytics

            logging.getLogger("ultralytics").setLevel(logging.ERROR)
            trackers = ("mlflow", "wandb", "clearml", "comet", "dvc", "raytune", "tensorboard")
            ultralytics.settings.update(dict.fromkeys(("sync", *trackers), False))
            yield
    finally:
        torch.set_printoptions(profile="default")  # type: ignore[no-untyped-call]
        Image.open, torch.save = unpatched
        shutil.rmtree(folder, ignore_errors=True)


def _place_font(folder: Path) -> None:
    """Put a font where ultralytics would fetch Arial for plots that are never made."""
    import matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    shutil.copyfile(font, folder / "Arial.ttf")
