"""The pictures of the demonstration that README and docs show, out of its folder.

    python docs/_ext/demo_pictures.py demo

``demo`` is the output of ``make demo``. The head of the report is photographed by chromium.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).parents[1] / "images"
WINDOW_PX = (1100, 911)
FIGURES = {
    "report-flow": "*-cohort-flow.png",
    "report-subgroups": "*-jsl-48m-subgroups.png",
    "report-survival": "*-turnbull-by-predicted-risk.png",
    "report-calibration": "*-comparison-calibration.png",
}
WIDTH_PX = 900
SALIENCY_WIDTH_PX = 1200


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path)
    demo = parser.parse_args().demo
    take_photograph(demo / "report.html", IMAGES / "report.png")
    for name, pattern in FIGURES.items():
        (figure,) = (demo / "report_files" / "figures").glob(pattern)
        shrink(figure, IMAGES / f"{name}.png", WIDTH_PX)
    sheet = min((demo / "saliency" / "images").iterdir())
    shrink(sheet, IMAGES / "saliency.png", SALIENCY_WIDTH_PX)


def take_photograph(page: Path, out: Path) -> None:
    """The head of a page as a window shows it."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("chromium is not installed; the head of the report needs it")
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless", "--no-sandbox", "--hide-scrollbars"]
        command += [f"--user-data-dir={profile}", f"--screenshot={out}"]
        command += [f"--window-size={WINDOW_PX[0]},{WINDOW_PX[1]}", page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True)
    shrink(out, out, WINDOW_PX[0])


def shrink(source: Path, out: Path, width: int) -> None:
    """A picture no wider than ``width``, in few colours, as files are cloned by everybody."""
    with Image.open(source) as picture:
        rows = round(picture.height * min(1, width / picture.width))
        small = picture.convert("RGB").resize(
            (min(width, picture.width), rows), Image.Resampling.LANCZOS
        )
    small.quantize(128, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == "__main__":
    main()
