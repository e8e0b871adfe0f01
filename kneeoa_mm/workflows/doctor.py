"""What is installed, what is missing, and where networks will run."""

from __future__ import annotations

import platform
from importlib import metadata, util
from pathlib import Path

from kneeoa_mm import __version__
from kneeoa_mm.config import shipped
from kneeoa_mm.records import StageResult

_CORE = ("torch", "torchvision", "pytorch-lightning", "pydicom", "pandas", "scikit-learn")
_EXTRAS = {
    "yolo": ("ultralytics",),
    "timm": ("timm",),
    "ray": ("ray",),
    "dicom": ("imagecodecs", "pylibjpeg", "openjpeg", "jpeg_ls"),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
}


def doctor() -> StageResult:
    """Look at this installation; changes nothing."""
    import torch

    extras = {}
    for extra, modules in _EXTRAS.items():
        absent = [module for module in modules if util.find_spec(module) is None]
        advice = f"no: pip install 'kneeoa-mm[{extra}]'"
        extras[extra] = "yes" if not absent else advice
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU only"
    recipes = sorted(p.parent.name + "/" + p.stem for p in shipped("configs").glob("*/*.yaml"))
    cohorts = sorted(p.parent.name for p in shipped("cohorts").glob("*/cohort.yaml"))
    return StageResult(
        command="doctor",
        out=Path(),
        figures={
            "kneeoa-mm": __version__,
            "python": platform.python_version(),
            "packages": {name: metadata.version(name) for name in _CORE},
            "extras": extras,
            "device": device,
            "recipes": ", ".join(recipes),
            "cohorts": ", ".join(cohorts),
        },
    )
