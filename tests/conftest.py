"""What every test shares; it also makes the modules beside it, such as ``phantoms``, importable."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# before anything loads matplotlib, and in every process that a test starts
os.environ["MPLBACKEND"] = "Agg"

# a slow machine is no failure
settings.register_profile("kneeoa-mm", deadline=None)
settings.load_profile("kneeoa-mm")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository():
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data():
    """Folder of the real graded knees; skips where there is none."""
    named = os.environ.get("KNEEOA_MM_REAL_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not (folder / "knees.csv").is_file():
        pytest.skip("no real knees: name their folder in KNEEOA_MM_REAL_DATA")
    return folder


@pytest.fixture(autouse=True)
def _joints_by_profile(request, monkeypatch):
    """Tests find joints as without the extra `yolo`, unless they bear its mark.

    The profile needs no torch in each of the workers that tests start, and drawn phantoms are
    knees to it. Commands in processes of their own use what is installed.
    """
    if request.node.get_closest_marker("yolo") is None:
        monkeypatch.setattr("kneeoa_mm.imaging.yolo.is_installed", lambda: False)
