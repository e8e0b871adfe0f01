"""The training curves of a run as a picture."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from kneeoa_mm.atomic_files import atomic_path


def plot_history(history: pd.DataFrame, path: Path) -> Path:
    """Draw losses and validation metrics against epochs, one line a member.

    Args:
        history: Rows of ``history.csv``.
        path: The PNG to write; the same as SVG goes beside it.
    """
    scores = [c for c in ("val_accuracy", "val_qwk", "val_auroc", "val_jsl_auroc") if c in history]
    figure = Figure(figsize=(4 * (1 + len(scores)), 3.2), layout="constrained")
    axes = figure.subplots(1, 1 + len(scores), squeeze=False)[0]
    for member, rows in history.groupby("member"):
        (line,) = axes[0].plot(rows["epoch"], rows["train_loss"], ":", label=str(member))
        if "val_loss" in history:
            axes[0].plot(rows["epoch"], rows["val_loss"], color=line.get_color())
        for axis, score in zip(axes[1:], scores, strict=True):
            axis.plot(rows["epoch"], rows[score], color=line.get_color())
    axes[0].set_title("loss: validation —, training ···", fontsize=9)
    axes[0].legend(fontsize=7, frameon=False)
    for axis, score in zip(axes[1:], scores, strict=True):
        axis.set_title(score.removeprefix("val_").replace("_", " ") + ", validation", fontsize=9)
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.spines[["top", "right"]].set_visible(False)
    for place, metadata in ((path, {"Software": None}), (path.with_suffix(".svg"), {"Date": None})):
        # the same history gives the same file
        with rc_context({"svg.hashsalt": "kneeoa-mm"}), atomic_path(place) as temporary:
            figure.savefig(temporary, dpi=150, format=place.suffix[1:], metadata=metadata)
    return path
