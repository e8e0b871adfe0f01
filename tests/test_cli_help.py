"""Every command explains itself, and says what is wrong in words and in JSON."""

import json
import shlex

import pytest
import typer
from typer.testing import CliRunner

from kneeoa_mm.cli import app

COMMANDS = sorted(typer.main.get_command(app).commands)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def plain(text):
    return " ".join(text.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_that_names_the_command(command):
    shown = run(command, "--help")
    assert shown.exit_code == 0
    assert f"Example: kneeoa-mm {command} " in plain(shown.stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_example_uses_only_options_that_exist(command):
    declared = typer.main.get_command(app).commands[command]
    options = {
        name for option in declared.params for name in (*option.opts, *option.secondary_opts)
    }
    words = shlex.split(declared.epilog.removeprefix("Example: kneeoa-mm "))
    used = {word for word in words if word.startswith("-")}
    assert used <= options


@pytest.mark.parametrize("command", ["pretrain-kl", "preprocess"])
def test_an_unknown_recipe_is_refused_with_the_names_of_all_recipes(command, tmp_path):
    source = ["--data", tmp_path] if command == "pretrain-kl" else [tmp_path]
    result = run(command, *source, "--out", tmp_path / "out", "--config", "nonesuch")
    assert result.exit_code == 3
    assert "nonesuch" in result.stderr
    assert "demo" in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_cohort_is_refused_with_the_names_of_all_cohorts(tmp_path):
    result = run("cohort", tmp_path, "--out", tmp_path / "out", "--cohort", "nonesuch")
    assert result.exit_code == 3
    assert "oai" in result.stderr
    assert "synthetic" in result.stderr


def test_a_misspelt_key_is_answered_with_the_nearest_one(tmp_path):
    arguments = ("pretrain-kl", "--data", tmp_path, "--out", tmp_path / "out")
    result = run(*arguments, "--set", "train.batch_sise=8")
    assert result.exit_code == 3
    assert "train.batch_size" in result.stderr


def test_with_json_an_error_is_one_document_on_stdout(tmp_path):
    arguments = ("pretrain-kl", "--data", tmp_path, "--out", tmp_path / "out")
    result = run(*arguments, "--config", "nonesuch", "--json")
    document = json.loads(result.stdout)
    assert document["exit_code"] == result.exit_code == 3
    assert document["error"]["found"] == "nonesuch"


def test_with_json_a_dry_run_shows_the_resolved_configuration(tmp_path):
    arguments = (
        "pretrain-kl",
        "--data",
        tmp_path,
        "--out",
        tmp_path / "out",
        "--dry-run",
        "--json",
    )
    result = run(*arguments, "--set", "train.lr=0.25", "--seed", "9")
    document = json.loads(result.stdout)
    assert document["figures"]["train"]["lr"] == 0.25
    assert document["figures"]["seed"] == 9
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("preprocess", "films", "--out", "out"),
        ("pretrain-kl", "--data", "knees", "--out", "out", "--config", "ensemble-small"),
        (
            "train-jsl",
            "--cohort",
            "c",
            "--knees",
            "k",
            "--encoder",
            "e",
            "--out",
            "out",
            "--image-only",
        ),
        ("explain", "knees", "--model", "m", "--out", "out"),
    ],
)
def test_a_dry_run_in_words_is_a_recipe_that_resolves_to_itself(command, tmp_path):
    first = run(*command, "--dry-run")
    assert first.exit_code == 0, first.stderr
    if command[0] != "explain":
        (tmp_path / "recipe.yaml").write_text(first.stdout)
        command = [word for word in command if word not in ("--config", "ensemble-small")]
        again = run(*command, "--config", tmp_path / "recipe.yaml", "--dry-run")
        assert again.stdout == first.stdout


@pytest.mark.parametrize(
    "arguments", [("nonesuch",), ("evaluate",), ("doctor", "--nonesuch"), ("demo", "--jobs", "0")]
)
def test_wrong_usage_exits_with_2(arguments):
    assert run(*arguments).exit_code == 2


def test_version_is_that_of_the_package():
    from kneeoa_mm import __version__

    assert run("--version").stdout.split() == ["kneeoa-mm", __version__]
