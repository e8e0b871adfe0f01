"""The command line answers at once: help loads no heavy library."""

import json
import subprocess
import sys

HEAVY = {
    "captum",
    "lifelines",
    "matplotlib",
    "numpy",
    "pandas",
    "pandera",
    "pyarrow",
    "pydicom",
    "pytorch_lightning",
    "ray",
    "scipy",
    "sklearn",
    "timm",
    "torch",
    "torchvision",
    "ultralytics",
}

SHOW_ALL_HELP = """
import contextlib, io, json, sys
import typer
from kneeoa_mm.cli import app

command = typer.main.get_command(app)
for name in [None, *command.commands]:
    arguments = ["--help"] if name is None else [name, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        command(arguments, prog_name="kneeoa-mm", standalone_mode=False)
    assert "Usage" in shown.getvalue()
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_help_of_no_command_loads_a_heavy_library():
    shown = subprocess.run(
        [sys.executable, "-c", SHOW_ALL_HELP], capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(shown.stdout))
    assert "kneeoa_mm" in loaded
    assert loaded & HEAVY == set()
