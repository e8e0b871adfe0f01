"""The built wheel works from any directory, and holds what it must and nothing else."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wheel(repository, tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out]
    built = subprocess.run([*command, repository], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def scripts(wheel, tmp_path_factory):
    """Folder of the commands of a new environment that holds the wheel and our dependencies."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=os.name != "nt")
    base = {"base": str(home), "platbase": str(home)}
    scripts = Path(sysconfig.get_path("scripts", "venv", vars=base))
    target = ["--python", scripts / "python", "install", "--no-index", "--no-deps", "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", *target, wheel], check=True)
    # A path in a .pth file joins sys.path, but the .pth files in that folder are not read; one of
    # them is our editable installation, so the checkout stays out of sight
    packages = Path(sysconfig.get_path("purelib", "venv", vars=base))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return scripts


def run(command, *arguments, cwd):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [command, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_it_holds_recipes_cohorts_licence_types_and_the_graders_card_but_no_tests_or_docs(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {
        "kneeoa_mm/configs/kl/mobilenet-v2.yaml",
        "kneeoa_mm/cohorts/oai/cohort.yaml",
        "kneeoa_mm/py.typed",
        "kneeoa_mm/weights/kl/README.md",
    } <= set(names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"kneeoa_mm"}
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name]


def test_no_file_of_the_package_is_left_behind(wheel, repository):
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        f"kneeoa_mm/{path.relative_to(root).as_posix()}"
        for root, folder in (
            (repository, "configs"),
            (repository, "cohorts"),
            (repository / "kneeoa_mm", ""),
        )
        for path in (root / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert wanted - names == set()


def test_a_recipe_resolves_by_name_from_another_directory(scripts, tmp_path):
    arguments = ("pretrain-kl", "--data", "knees", "--out", "run", "--dry-run", "--json")
    shown = run(scripts / "kneeoa-mm", *arguments, "--config", "mobilenet-v2", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    settings = json.loads(shown.stdout)["figures"]
    assert settings["members"][0]["backbone"] == "mobilenet_v2"
    assert settings["train"]["select_by"] == "qwk"


@pytest.mark.parametrize("cohort", ["oai", "synthetic"])
def test_a_cohort_resolves_by_name_inside_the_wheel(scripts, tmp_path, cohort):
    program = (
        "import sys, kneeoa_mm.cohort_spec as module\n"
        "print(module.read_cohort_spec(sys.argv[1]).name)\n"
        "print(module.__file__)"
    )
    shown = run(scripts / "python", "-c", program, cohort, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    name, file = shown.stdout.splitlines()
    assert name == cohort
    assert Path(file).is_relative_to(scripts.parent)
