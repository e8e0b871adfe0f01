"""The one family of errors, each mapped to the exit code of the command that meets it.

Exit codes: 0 all good; 1 unexpected; 2 usage; 3 bad input or configuration, found before work
starts; 4 finished, but some items failed and are listed; 5 a missing extra or weights; 130
interrupted, state saved.
"""

from __future__ import annotations

from collections.abc import Iterable

EXIT_OK = 0
EXIT_UNEXPECTED = 1
EXIT_USAGE = 2
EXIT_BAD_INPUT = 3
EXIT_ITEMS_FAILED = 4
EXIT_MISSING = 5
EXIT_INTERRUPTED = 130


class KneeOAError(Exception):
    """A fault that a person can act on.

    Args:
        problem: One sentence that says what is wrong.
        expected: What would have been right.
        found: What was there instead.
        where: File, table, row or key.
        fix: What to do about it.

    Example:
        >>> print(InputError("No images.", found="an empty folder", where="knees/"))
        No images.
          found:    an empty folder
          where:    knees/
    """

    exit_code = EXIT_UNEXPECTED

    def __init__(
        self,
        problem: str,
        *,
        expected: str = "",
        found: str = "",
        where: object = "",
        fix: str = "",
    ) -> None:
        self.problem = problem
        self.details = {
            name: str(text)
            for name, text in (
                ("expected", expected),
                ("found", found),
                ("where", where),
                ("fix", fix),
            )
            if str(text)
        }
        lines = [f"  {name + ':':<9} {text}" for name, text in self.details.items()]
        super().__init__("\n".join([problem, *lines]))


class InputError(KneeOAError):
    """An input file, folder or table is missing or wrong."""

    exit_code = EXIT_BAD_INPUT


class ConfigError(KneeOAError):
    """A recipe, a ``--set`` or a flag is wrong."""

    exit_code = EXIT_BAD_INPUT


class TableError(InputError):
    """A table breaks its schema; ``faults`` lists every broken rule with its rows."""

    def __init__(
        self, problem: str, faults: list[str], *, where: object = "", fix: str = ""
    ) -> None:
        self.faults = faults
        super().__init__(problem, found="\n            ".join(faults), where=where, fix=fix)


class LeakError(InputError):
    """A subject stands on both sides of a split."""


class OutputExistsError(InputError):
    """The output directory already holds another run."""


class ModelFolderError(InputError):
    """A model folder is incomplete, damaged, or made for something else."""


class MissingExtraError(KneeOAError):
    """An optional dependency, or a weights file, is not there."""

    exit_code = EXIT_MISSING


class ItemError(Exception):
    """One item of a batch failed; the batch records it and goes on.

    Args:
        code: Stable upper-case name of the fault, such as ``E_TRUNCATED``.
        message: What is wrong, without any personal data.
        stage: The step that refused the item, such as ``decode``.
    """

    def __init__(self, code: str, message: str, *, stage: str) -> None:
        self.code = code
        self.message = message
        self.stage = stage
        super().__init__(f"{code}: {message}")


def lines_named(lines: Iterable[int]) -> str:
    """All the lines of a file by number, the header being the first.

    Example:
        >>> lines_named([4, 2, 4, 7, 8, 9])
        'line(s) 2, 4, 7-9'
    """
    return f"line(s) {_runs(lines)}"


def rows_named(rows: Iterable[int]) -> str:
    """All the rows of a table by number, the first being 0.

    Example:
        >>> rows_named([3, 0, 7])
        'row(s) 0, 3, 7'
    """
    return f"row(s) {_runs(rows)}"


def _runs(numbers: Iterable[int]) -> str:
    """In order; three or more without a gap become a range."""
    runs: list[list[int]] = []
    for number in sorted({int(number) for number in numbers}):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 2 else ", ".join(map(str, r)) for r in runs)
