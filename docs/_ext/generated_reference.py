"""Reference text taken from the code at build time, so that the two cannot drift apart.

A page that holds the line ``<!-- generated -->`` gets the commands, the table schemas, the
configuration, the exit codes or the recipes in its place; the API reference gets one page a module.

The recipes are committed too, up to a second line, for those who read the page on a code host:

    python docs/_ext/generated_reference.py

writes them anew, and a test compares.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import pkgutil
from collections.abc import Callable
from html import escape
from importlib import import_module
from itertools import pairwise, takewhile
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from kneeoa_mm.settings import PretrainKLConfig, TrainJSLConfig

PLACEHOLDER = "<!-- generated -->"
END = "<!-- end of the generated text -->"
COMMITTED = "reference/recipes"
API_FOLDER = "reference/api"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("builder-inited", lambda app: write_api_pages(Path(app.srcdir) / API_FOLDER))
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _fill(app: Sphinx, page: str, source: list[str]) -> None:
    if page not in PAGES:
        return
    if PLACEHOLDER not in source[0]:
        raise ExtensionError(f"{page} must hold the line {PLACEHOLDER}")
    app.env.note_dependency(inspect.getsourcefile(import_module(PAGES[page][0])))
    app.env.note_dependency(__file__)
    source[0] = filled(page, source[0])


def filled(page: str, text: str) -> str:
    """The text of a page with what is generated; what was generated before is left out."""
    before, _, rest = text.partition(PLACEHOLDER)
    old, end, after = rest.partition(END)
    module_name, render = PAGES[page]
    new = render(import_module(module_name))
    return f"{before}{PLACEHOLDER}\n{new}\n{END}{after if end else old}"


def write_api_pages(folder: Path) -> None:
    """Write one page a module, and remove those of modules that are gone."""
    import kneeoa_mm

    found = pkgutil.walk_packages(kneeoa_mm.__path__, "kneeoa_mm.")
    # the functions of the command line are documented as commands
    names = [
        info.name for info in found if not info.ispkg and not info.name.startswith("kneeoa_mm.cli.")
    ]
    pages = {
        f"{name}.md": f"# {name.removeprefix('kneeoa_mm.')}\n\n"
        f"```{{eval-rst}}\n.. automodule:: {name}\n```\n"
        for name in names
    }
    for stale in {path.name for path in folder.glob("kneeoa_mm.*.md")} - set(pages):
        (folder / stale).unlink()
    for name, text in pages.items():
        path = folder / name
        # an untouched page need not be read anew
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def command_help(module: ModuleType) -> str:
    """``--help`` of each command, as a terminal without colours shows it."""
    import typer
    from typer.testing import CliRunner

    def text_of(*arguments: str) -> str:
        shown = CliRunner().invoke(module.app, [*arguments, "--help"], prog_name="kneeoa-mm")
        return f"```text\n{shown.stdout.strip()}\n```\n"

    commands = typer.main.get_command(module.app).commands  # type: ignore[attr-defined]
    sections = [f"## {name}\n\n{text_of(name)}" for name in commands]
    return "\n".join([text_of(), *sections])


def table_schemas(module: ModuleType) -> str:
    """Columns and rules of each artefact."""
    notes = _attribute_docstrings(_tree(module).body)
    schemas = {
        name: value for name, value in vars(module).items() if isinstance(value, module.TableSchema)
    }
    sections = []
    for name, schema in schemas.items():
        rows = [
            (
                f"`{column}`",
                str(column_rules.dtype),
                "yes" if column_rules.required else "no",
                "allowed" if column_rules.nullable else "no",
                _rules(column_rules),
            )
            for column, column_rules in schema.rules.columns.items()
        ]
        sections += [f"## {schema.name}", f"Schema version {schema.version}."]
        sections += [notes.get(name, "").replace("``", "`")]
        sections += [_table(("column", "type", "always there", "missing values", "rule"), rows)]
    return "\n\n".join(sections)


def _rules(column: Any) -> str:
    texts = [str(check.error) for check in column.checks] + ["unique"] * column.unique
    return escape("; ".join(texts))


def configuration(module: ModuleType) -> str:
    """Keys, types, defaults and meaning of each configuration model."""
    classes = [node for node in _tree(module).body if isinstance(node, ast.ClassDef)]
    sections = []
    for node in classes:
        model = getattr(module, node.name)
        if model is module.Settings or not issubclass(model, module.Settings):
            continue
        notes = _attribute_docstrings(node.body)
        schema = model.model_json_schema()
        defaults = model().model_dump(mode="json")
        rows = [
            (
                f"`{key}`",
                _kind(schema["properties"][key]),
                f"`{_short(defaults[key])}`",
                notes.get(key, ""),
            )
            for key in model.model_fields
        ]
        sections += [f"## {node.name}", inspect.getdoc(model) or ""]
        sections += [_table(("key", "type", "default", "meaning"), rows)]
    return "\n\n".join(sections).replace("``", "`")


def exit_codes(module: ModuleType) -> str:
    """Each error of the family, with the exit code of the command that meets it."""
    rows = [
        (f"`{name}`", str(error.exit_code), (inspect.getdoc(error) or "").splitlines()[0])
        for name, error in vars(module).items()
        if isinstance(error, type) and issubclass(error, module.KneeOAError)
    ]
    return _table(("error", "exit code", "meaning"), rows).replace("``", "`")


def recipes(module: ModuleType) -> str:
    """What each KL recipe trains, and what its own comment says of it."""
    folder = module.shipped("configs") / "kl"
    rows, sections = [], []
    for path in sorted(folder.glob("*.yaml")):
        title, says = recipe_comment(path.read_text(encoding="utf-8"))
        config = module.load_config(PretrainKLConfig, recipe=path)
        counts = {member.backbone: n_parameters(member.backbone) for member in config.members}
        networks = ", ".join(f"{m.backbone} ({m.image_size_px} px)" for m in config.members)
        times = f", {config.repeats} times each" if config.repeats > 1 else ""
        total = config.repeats * sum(counts[member.backbone] for member in config.members)
        rows.append(
            (
                f"[`{path.stem}`](#{path.stem})",
                networks + times,
                f"{total / 1e6:.1f} M",
                *(says.get(remark, "") for remark in ("Source", "Needs", "Run")),
            )
        )
        each = ", ".join(f"{name} {count / 1e6:.1f} M" for name, count in counts.items())
        sections += [f"## {path.stem}", title, f"Parameters: {each}."]
        sections += [f"Differs: {says['Differs']}"] if "Differs" in says else []
    header = ("recipe", "networks", "parameters", "source", "needs", "run")
    return "\n\n".join([_table(header, rows), *sections])


def progression_recipes(module: ModuleType) -> str:
    """What each recipe of progression does, and what its own comment says of it."""
    rows, sections = [], []
    for path in sorted((module.shipped("configs") / "jsl").glob("*.yaml")):
        title, says = recipe_comment(path.read_text(encoding="utf-8"))
        config = module.load_config(TrainJSLConfig, recipe=path)
        rows.append(
            (
                f"[`{path.stem}`](#{path.stem})",
                "stays" if config.is_encoder_frozen else "learns",
                config.fusion if config.fuse_clinical else "no",
                config.kl_input,
                config.time_head,
                *(says.get(remark, "") for remark in ("Source", "Needs", "Run")),
            )
        )
        sections += [f"## {path.stem}", title]
        sections += [f"Differs: {says['Differs']}"] if "Differs" in says else []
    header = ("recipe", "encoder", "fusion", "grade as input", "time", "source", "needs", "run")
    return "\n\n".join([_table(header, rows), *sections])


def recipe_comment(text: str) -> tuple[str, dict[str, str]]:
    """Title and the remarks by their first word, of the comment that opens a recipe."""
    lines = takewhile(lambda line: line.startswith("#"), text.splitlines())
    comment = "\n".join(line.removeprefix("#").strip() for line in lines)
    title, *remarks = (" ".join(part.split()) for part in comment.split("\n\n"))
    return title, {key: says for key, _, says in (r.partition(": ") for r in remarks)}


def n_parameters(backbone: str) -> int:
    """Weights of a grader on this backbone."""
    from kneeoa_mm.learning.networks import KLNetwork

    return sum(weights.numel() for weights in KLNetwork(backbone).parameters())


def _tree(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


def _attribute_docstrings(body: list[ast.stmt]) -> dict[str, str]:
    """Name to the text that stands under its assignment."""
    notes = {}
    for statement, below in pairwise(body):
        if isinstance(statement, ast.AnnAssign):
            target = statement.target
        elif isinstance(statement, ast.Assign):
            target = statement.targets[0]
        else:
            continue
        text = below.value if isinstance(below, ast.Expr) else None
        if isinstance(target, ast.Name) and isinstance(text, ast.Constant):
            notes[target.id] = inspect.cleandoc(str(text.value))
    return notes


_LIMITS = (
    ("minimum", "≥"),
    ("exclusiveMinimum", ">"),
    ("maximum", "≤"),
    ("exclusiveMaximum", "<"),
)


def _kind(schema: dict[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    if "anyOf" in schema:
        return " or ".join(_kind(choice) for choice in schema["anyOf"])
    choices = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    if schema["type"] == "array":
        return f"list of {_kind(schema['items'])}"
    limits = [f"{sign} {schema[name]:g}" for name, sign in _LIMITS if name in schema]
    return " ".join([schema["type"], " and ".join(limits)]).strip()


def _short(default: Any) -> str:
    return json.dumps(default, ensure_ascii=False)


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


PAGES: dict[str, tuple[str, Callable[[ModuleType], str]]] = {
    "reference/cli": ("kneeoa_mm.cli", command_help),
    "reference/tables": ("kneeoa_mm.schemas", table_schemas),
    "reference/configuration": ("kneeoa_mm.settings", configuration),
    "reference/errors": ("kneeoa_mm.errors", exit_codes),
    "reference/recipes": ("kneeoa_mm.config", recipes),
    "reference/progression-recipes": ("kneeoa_mm.config", progression_recipes),
}

# typer reads this when it is imported: plain text, no boxes
os.environ["TYPER_USE_RICH"] = "0"

if __name__ == "__main__":
    path = Path(__file__).parents[1] / f"{COMMITTED}.md"
    path.write_text(filled(COMMITTED, path.read_text("utf-8")), encoding="utf-8")
