"""The house stands: imports only go down, and each framework enters by its door."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")

ANALYSIS_ROOM = """
import captum
import imagecodecs
import lifelines
import pebble
import pydicom
import pytorch_lightning
import ray
import timm
import torch
import typer
import ultralytics
from kneeoa_mm.cohort import planted
"""
COHORT_ROOM = "from kneeoa_mm.analysis import planted\n"


def lint_imports(folder, cache):
    command = [LINT_IMPORTS, "--no-logo", "--cache-dir", cache]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_package_keeps_every_contract(repository, tmp_path):
    result = lint_imports(repository, tmp_path)
    assert result.returncode == 0, result.stdout


def test_every_contract_notices_when_it_is_broken(repository, tmp_path):
    """A contract that nothing can break, such as one with a misspelt module, protects nothing."""
    package = tmp_path / "kneeoa_mm"
    shutil.copytree(repository / "kneeoa_mm", package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(repository / "pyproject.toml", tmp_path)
    (package / "analysis" / "planted.py").write_text(ANALYSIS_ROOM)
    (package / "cohort" / "planted.py").write_text(COHORT_ROOM)

    result = lint_imports(tmp_path, tmp_path / "cache")

    declared = tomllib.loads((tmp_path / "pyproject.toml").read_text())["tool"]["importlinter"]
    broken = re.findall(r"^(.+) BROKEN$", result.stdout, flags=re.MULTILINE)
    assert sorted(broken) == sorted(contract["name"] for contract in declared["contracts"])
    assert result.returncode == 1


def test_a_new_module_must_be_given_its_floor(repository, tmp_path):
    package = tmp_path / "kneeoa_mm"
    shutil.copytree(repository / "kneeoa_mm", package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(repository / "pyproject.toml", tmp_path)
    (package / "misc.py").write_text("")
    result = lint_imports(tmp_path, tmp_path / "cache")
    assert result.returncode == 1
    assert "misc" in result.stdout
