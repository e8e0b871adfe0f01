"""Commands in the documentation are such as the program takes, and recipes in them resolve."""

import re
import shlex

import pytest
import typer
from typer.testing import CliRunner

from kneeoa_mm.cli import app

PAGES = ("README.md", "docs/how-to/*.md", "docs/get-started/*.md", "cohorts/*/README.md")
DRY = {"pretrain-kl", "train-jsl"}


def commands_of(text):
    """Command lines of the fenced parts of a page, lines joined; ``...`` makes no command."""
    for kind, fence in re.findall(r"(?ms)^```([^\n]*)\n(.*?)^```", text):
        if kind not in {"", "console"}:
            continue
        for line in re.sub(r"\\\n\s*", "", fence).splitlines():
            name, _, rest = line.removeprefix("$ ").partition(" ")
            if name == "kneeoa-mm" and "..." not in rest:
                yield shlex.split(rest, comments=True)


def documented(repository):
    return [
        (path.name, words)
        for pattern in PAGES
        for path in sorted(repository.glob(pattern))
        for words in commands_of(path.read_text(encoding="utf-8"))
    ]


def refusal(words):
    """Why the program does not take a command line; empty where it does."""
    if words[0].startswith("-"):
        return ""
    program = typer.main.get_command(app)
    if words[0] not in program.commands:
        return "no such command"
    try:
        program.commands[words[0]].make_context(words[0], [*words[1:]])
    except Exception as error:
        return str(error) or type(error).__name__
    if words[0] in DRY:
        result = CliRunner().invoke(app, [*words, "--dry-run", "--json"])
        return result.stderr if result.exit_code else ""
    return ""


def test_a_command_that_the_program_does_not_take_is_noticed():
    before = "```yaml\nextends: oai\n```\n\n"
    command = "```console\n$ kneeoa-mm train-jsl --cohort c \\\n    --knees k # why\n```\n"
    (words,) = commands_of(before + command)
    assert words == ["train-jsl", "--cohort", "c", "--knees", "k"]
    whole = [*words, "--encoder", "e", "--out", "o"]
    assert refusal(whole) == ""
    assert "encoder" in refusal(words)
    assert "no such option" in refusal([*whole, "--fuse"]).casefold()
    assert "clinical_factor" in refusal([*whole, "--set", "clinical_factor=[sex]"])
    assert refusal(["train-jls"]) == "no such command"


def test_the_program_takes_every_documented_command(repository):
    found = documented(repository)
    assert len(found) > 60
    faults = {f"{page}: {' '.join(words)}": refusal(words) for page, words in found}
    assert {command: fault for command, fault in faults.items() if fault} == {}


OAI = ["check", "cohort", "preprocess", "pretrain-kl", *["train-jsl"] * 3, "compare", "report"]
MOST = ["check", "cohort", "train-jsl", "preprocess", "predict", "evaluate", "train-jsl", "compare"]


@pytest.mark.parametrize(("page", "wanted"), [("oai.md", OAI), ("most.md", MOST)])
def test_a_page_of_a_cohort_goes_from_the_download_to_a_judged_model(repository, page, wanted):
    steps = iter(words[0] for name, words in documented(repository) if name == page)
    assert [step for step in wanted if step not in steps] == [], "in this order"
