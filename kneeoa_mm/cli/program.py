"""The program, and how a function becomes one of its commands."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from kneeoa_mm import __version__
from kneeoa_mm.cli.console import DRY_RUN, conclude
from kneeoa_mm.cli.options import Json
from kneeoa_mm.records import StageResult
from kneeoa_mm.run_folder import refuse_own_inputs

app = typer.Typer(
    name="kneeoa-mm",
    help="Knee osteoarthritis research: radiographs to single-knee images, KL grading, fused "
    "progression models, saliency and cohort analysis. For research; no medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def command(example: str) -> Callable[[Callable[..., StageResult]], Callable[..., None]]:
    """Register a stage as the command that ``example`` starts with.

    The command gets ``--json``, and ends by showing the stage's result and its exit code.
    """

    def register(stage: Callable[..., StageResult]) -> Callable[..., None]:
        @functools.wraps(stage)
        def run(*, as_json: bool, **arguments: Any) -> None:
            def work() -> StageResult:
                if arguments.get("overwrite"):
                    refuse_own_inputs(arguments["out"], _inputs(arguments))
                return stage(**arguments)

            conclude(work, as_json=as_json)

        signature = inspect.signature(stage, eval_str=True)
        last = inspect.Parameter(
            "as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json
        )
        parameters = [*signature.parameters.values(), last]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=parameters, return_annotation=None
        )
        name, *_ = example.split()
        app.command(name, epilog=f"Example: kneeoa-mm {example}")(run)
        return run

    return register


def _inputs(arguments: dict[str, Any]) -> Iterator[Path]:
    """Whatever a command was given that may be a path to read; of ``NAME=RUN`` the run."""
    for name, value in arguments.items():
        for each in value if isinstance(value, list) else [value]:
            if name != "out" and isinstance(each, str | Path):
                yield each if isinstance(each, Path) else Path(each.partition("=")[2] or each)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"kneeoa-mm {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options of the whole program."""


def resolved(
    model_name: str, group: str, recipe: str | None, sets: list[str] | None, flags: dict[str, Any]
) -> Any:
    """The configuration of a command: defaults < recipe < ``--set`` < flag.

    Args:
        model_name: Class in ``kneeoa_mm.settings``, by name so that help does not load it.
        group: Folder of ``configs/`` with the recipes.
        recipe: What ``--config`` named.
        sets: What each ``--set`` said.
        flags: Dotted key to the value of a flag; None where it was not typed.
    """
    from kneeoa_mm import config, settings

    return config.load_config(
        getattr(settings, model_name),
        recipe=config.find_recipe(recipe, group) if recipe else None,
        sets=sets or (),
        flags=flags,
    )


def show_only(command: str, settings: Any, out: Path) -> StageResult:
    """The result of a dry run: the resolved configuration."""
    return StageResult(command, out, figures=settings.model_dump(mode="json"), notes=(DRY_RUN,))
