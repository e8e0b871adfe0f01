"""What a command shows at its end: results for a person or a program, errors, exit codes."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NoReturn

from kneeoa_mm.errors import (
    EXIT_INTERRUPTED,
    EXIT_ITEMS_FAILED,
    EXIT_OK,
    EXIT_UNEXPECTED,
    KneeOAError,
)
from kneeoa_mm.progress import say
from kneeoa_mm.records import StageResult

DRY_RUN = "dry run: nothing was done"
"""Note of a result that shows a configuration instead of figures."""
_DEBUG_VARIABLE = "KNEEOA_MM_DEBUG"


def conclude(work: Callable[[], StageResult], *, as_json: bool) -> NoReturn:
    """Run a stage, show how it ended, and exit with the code that says so.

    Args:
        work: The stage.
        as_json: Write one JSON document to stdout instead of text.

    Raises:
        SystemExit: Always.
    """
    try:
        result = work()
    except KneeOAError as error:
        document = {"problem": error.problem, **error.details}
        _fail(f"Error: {error}", document, error.exit_code, as_json)
    except KeyboardInterrupt:
        message = "Interrupted. What was finished is saved; go on with --resume where there is one."
        _fail(message, {"problem": message}, EXIT_INTERRUPTED, as_json)
    except Exception as error:  # the last resort: a fault of ours, still without a traceback
        if os.environ.get(_DEBUG_VARIABLE):
            traceback.print_exc()
        message = f"Unexpected {type(error).__name__}: {error}"
        hint = f"\nThis is a fault of kneeoa-mm; {_DEBUG_VARIABLE}=1 shows where."
        _fail(message + hint, {"problem": message}, EXIT_UNEXPECTED, as_json)
    code = EXIT_ITEMS_FAILED if result.failed else EXIT_OK
    if as_json:
        _write(json.dumps({"exit_code": code, **asdict(result)}, indent=2, default=str))
    else:
        _write(_in_words(result))
    sys.exit(code)


def _fail(text: str, document: dict[str, Any], code: int, as_json: bool) -> NoReturn:
    say(text)
    if as_json:
        _write(json.dumps({"exit_code": code, "error": document}, indent=2))
    sys.exit(code)


def _write(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # the reader (`| head`) has seen enough; keep the interpreter from complaining at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _in_words(result: StageResult) -> str:
    if DRY_RUN in result.notes:
        # a recipe again, which --config takes
        import yaml

        return f"# {DRY_RUN}\n{yaml.safe_dump(result.figures, sort_keys=False).rstrip()}"
    lines = [
        ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in result.counts.items())
    ]
    for title, figures in result.figures.items():
        if isinstance(figures, list):
            lines += _table(figures)
        else:
            lines.append(f"{title}: {_figures(figures)}")
    if result.failed:
        listed = result.outputs.get("rejects", result.out)
        lines.append(f"{result.failed} items failed; see {listed}")
    lines += [f"Note: {note}" for note in result.notes]
    lines += [f"Wrote {role.replace('_', ' ')}: {path}" for role, path in result.outputs.items()]
    if result.next_step:
        lines.append(f"Next: {result.next_step}")
    return "\n".join(line for line in lines if line)


def _table(rows: list[dict[str, str]]) -> list[str]:
    """Rows as lines of aligned columns.

    Example:
        >>> _table([{"knee": "-:1:-:L", "grade": "2"}])
        ['knee     grade', '-:1:-:L  2']
    """
    if not rows:
        return []
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]


def _figures(figures: Any) -> str:
    if isinstance(figures, dict) and "value" in figures:
        return _estimate(figures)
    if isinstance(figures, dict):
        return ", ".join(f"{name} {_figures(value)}" for name, value in figures.items())
    return f"{figures:g}" if isinstance(figures, float) else str(figures)


def _estimate(estimate: dict[str, Any]) -> str:
    """A metric as a person writes it.

    Example:
        >>> _estimate({"value": 0.66102, "ci_low": 0.6259, "ci_high": 0.6949, "n": 826})
        '0.661 (0.626 to 0.695)'
    """
    if estimate["value"] is None:
        return f"none, for {estimate['reason']}"
    if estimate.get("ci_low") is None:
        return f"{estimate['value']:.3f}"
    return f"{estimate['value']:.3f} ({estimate['ci_low']:.3f} to {estimate['ci_high']:.3f})"
