"""Backbones: networks that turn a knee image into a feature vector."""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from kneeoa_mm.errors import ConfigError, InputError, MissingExtraError
from kneeoa_mm.learning.deepknee import DeepKnee

_CLASSIFIERS = ("classifier", "fc", "heads", "head")
_FEATURE_MAPS = ("feature_map", "features", "layer4", "trunk_output", "conv5", "act4")
"""Names of our own, of most, and of ResNet, RegNet, ShuffleNet and timm's Xception."""
_VGG_WIDTH = 512
_MANY_VOICED = {"googlenet", "inception_v3"}
_TIMM = "timm:"
WEIGHTS_FOLDER = "KNEEOA_MM_WEIGHTS"
"""Environment variable that names the folder of ImageNet weights."""


class Encoder(nn.Module):
    """A backbone without its classifier.

    Args:
        backbone: Maps (B, 3, S, S) to (B, feature_width), or to a map with one pixel.
        feature_width: Length of the feature vector.
    """

    def __init__(self, backbone: nn.Module, feature_width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.feature_width = feature_width

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, feature_width) of greyscale images (B, 1, S, S)."""
        return self.backbone(images.expand(-1, 3, -1, -1)).flatten(1)

    def feature_map(self) -> nn.Module:
        """The layer whose output is the last map with a spatial extent, for Grad-CAM.

        Raises:
            ConfigError: This kind of backbone has no such map that we know of.
        """
        for name in _FEATURE_MAPS:
            if hasattr(self.backbone, name):
                return getattr(self.backbone, name)
        raise ConfigError(
            "Grad-CAM does not know where the last feature map of this backbone is.",
            expected="a backbone with one of " + ", ".join(_FEATURE_MAPS),
            found=type(self.backbone).__name__,
        )


def build_encoder(name: str) -> Encoder:
    """Build a backbone with random weights.

    Args:
        name: ``simple_cnn``, ``deepknee``, a classification network of torchvision, or
            ``timm:<name>``.

    Raises:
        ConfigError: There is no such backbone, or it has no classifier on a feature vector.
        MissingExtraError: It comes from timm, which is not installed.
    """
    if name in _OWN:
        return Encoder(_OWN[name](), _OWN[name].feature_width)
    if name.startswith(_TIMM):
        return _build_timm(name.removeprefix(_TIMM))
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        close = difflib.get_close_matches(name, [*names, *_OWN], n=3)
        raise ConfigError(
            "There is no such backbone.",
            expected=", ".join([*_OWN, "a torchvision network or timm:<name>"]),
            found=name,
            fix=f"did you mean {' or '.join(close)}?" if close else "",
        )
    if name in _MANY_VOICED:
        raise ConfigError(
            "This network has further classifiers that speak while it learns.",
            found=name,
            fix="choose timm:inception_v3, which has one, or another network",
        )
    backbone = torchvision.models.get_model(name, weights=None)
    if isinstance(backbone, torchvision.models.MNASNet):
        raise ConfigError(
            "An MNASNet asks its weights for a version that safetensors cannot hold.",
            found=name,
            fix="choose a network of its size, such as mobilenet_v2",
        )
    if isinstance(backbone, torchvision.models.VGG):
        # its classifier alone, of maps of 7 x 7, has eight times the weights of its convolutions
        backbone.avgpool, backbone.classifier = nn.AdaptiveAvgPool2d(1), nn.Identity()
        return Encoder(backbone, _VGG_WIDTH)
    for attribute in _CLASSIFIERS:
        linear = _first_linear(getattr(backbone, attribute, nn.Identity()))
        if linear is not None:
            setattr(backbone, attribute, nn.Identity())
            return Encoder(backbone, linear.in_features)
    raise ConfigError("This network has no classifier that could be replaced.", found=name)


def _build_timm(name: str) -> Encoder:
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError(
            f"The backbone timm:{name} needs the extra `timm`.",
            fix="pip install 'kneeoa-mm[timm]'",
        ) from error
    if not timm.is_model(name):
        raise ConfigError("timm has no such model.", found=name)
    backbone: Any = timm.create_model(name, pretrained=False, num_classes=0)
    return Encoder(backbone, int(backbone.num_features))


def _first_linear(module: nn.Module) -> nn.Linear | None:
    return next((layer for layer in module.modules() if isinstance(layer, nn.Linear)), None)


def find_weights(wanted: Sequence[tuple[str, str]]) -> list[Path | None]:
    """The files that a recipe's members start from.

    Args:
        wanted: Of each member, ``weights`` (``none``, a file, or ``imagenet``) and the backbone.

    Returns:
        One a member; None for random weights.

    Raises:
        InputError: Some are not there; all of these are named.
    """
    files = [_weights_file(weights, backbone) for weights, backbone in wanted]
    absent = {n: file for n, file in enumerate(files) if file is not None and not file.is_file()}
    if absent:
        raise InputError(
            "Weights to start from are not there.",
            expected=f"safetensors files, those of ImageNet in the folder that {WEIGHTS_FOLDER} "
            "names; kneeoa-mm downloads nothing",
            found=", ".join(f"no {file} for members.{n}" for n, file in absent.items()),
            fix="see docs/how-to/imagenet-weights.md; or start from random weights with "
            + " ".join(f"--set members.{n}.weights=none" for n in absent),
        )
    return files


def _weights_file(weights: str, backbone: str) -> Path | None:
    if weights == "none":
        return None
    if weights != "imagenet":
        return Path(weights)
    return Path(os.environ.get(WEIGHTS_FOLDER) or f"${WEIGHTS_FOLDER}", _file_of(backbone))


def _file_of(backbone: str) -> str:
    return f"{backbone.replace(':', '-')}.safetensors"


def load_pretrained(encoder: Encoder, weights: Path) -> None:
    """Load the weights of a backbone; its classifier, if the file has one, is left out.

    Raises:
        InputError: The file is no safetensors file, or does not fit the backbone.
    """
    try:
        tensors = load_file(weights)
    except Exception as error:  # safetensors raises its own type, which is no subclass of ours
        raise InputError(
            "The weights are no safetensors file.", found=str(error), where=weights
        ) from error
    kept = {k: v for k, v in tensors.items() if k.split(".")[0] not in _CLASSIFIERS}
    own = encoder.backbone.state_dict()
    shapes = {k for k in kept if k in own and kept[k].shape != own[k].shape}
    # BatchNorm counts its batches for a cumulative average that nobody here uses
    missing = {k for k in own.keys() - kept.keys() if not k.endswith("num_batches_tracked")}
    faults = sorted(missing | (kept.keys() - own.keys()) | shapes)
    if faults:
        raise InputError(
            "The weights do not fit the backbone.",
            expected=f"the tensors of {type(encoder.backbone).__name__}",
            found=f"{len(faults)} missing, foreign or of another shape, such as {faults[0]}",
            where=weights,
        )
    encoder.backbone.load_state_dict(own | kept)


class SimpleCNN(nn.Module):
    """Five small convolutions, for demonstrations and laptops; learns in minutes from scratch."""

    feature_width = 128

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 64, 96, self.feature_width)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 128) of images (B, 3, S, S)."""
        return self.pool(self.features(images)).flatten(1)


_OWN: dict[str, type[SimpleCNN] | type[DeepKnee]] = {"simple_cnn": SimpleCNN, "deepknee": DeepKnee}
