"""The command line. Commands stay small, and import what is heavy only when they run."""

from __future__ import annotations

import os

# In the order in which --help lists the commands
# isort: off
from kneeoa_mm.cli import data, models, analyses, getting_started  # noqa: F401

# isort: on
from kneeoa_mm.cli.program import app


def main() -> None:
    """Entry point of ``kneeoa-mm``; under torchrun, of all processes that train together."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        app()
        return
    from kneeoa_mm.learning import processes

    processes.run(app)
