"""Configuration: defaults < recipe < ``--set`` < flag, validated once, written into each run.

A recipe is a YAML file that states only what differs from the defaults of its settings. A
misspelt key, a wrong type or an impossible value stops the run before any work starts.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from kneeoa_mm.errors import ConfigError
from kneeoa_mm.settings import Settings

ConfigModel = TypeVar("ConfigModel", bound=Settings)


def shipped(kind: Literal["configs", "cohorts"]) -> Path:
    """Folder of the shipped recipes or cohorts, in a wheel as in a checkout."""
    package = Path(__file__).resolve().parent
    inside_wheel = package / kind
    return inside_wheel if inside_wheel.is_dir() else package.parent / kind


def find_recipe(name_or_file: str, group: str) -> Path:
    """The YAML file of ``--config``.

    Args:
        name_or_file: Path of a YAML file, or the name of a shipped recipe.
        group: Folder of ``configs/`` in which names are looked up, such as ``kl``.

    Raises:
        ConfigError: Neither such a file nor such a recipe exists.
    """
    path = Path(name_or_file)
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return path
    recipes = shipped("configs") / group
    recipe = recipes / f"{name_or_file}.yaml"
    if path.suffix == "" and len(path.parts) == 1 and recipe.is_file():
        return recipe
    raise ConfigError(
        "There is no such recipe.",
        expected="a YAML file, or one of "
        + ", ".join(sorted(p.stem for p in recipes.glob("*.yaml"))),
        found=name_or_file,
    )


def load_config(
    model: type[ConfigModel],
    *,
    recipe: Path | None = None,
    sets: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> ConfigModel:
    """Resolve a configuration: defaults < recipe < ``--set`` < flag.

    Args:
        model: The configuration to build.
        recipe: YAML file that states what differs from the defaults.
        sets: Texts ``a.b=c``; the value is read as YAML. A list item is named by its index.
        flags: Dotted key to value of the flags a person typed; None means not typed.

    Raises:
        ConfigError: With every fault at once.
    """
    values = read_yaml_mapping(recipe) if recipe else {}
    # the defaults stand below, so that --set can reach into a list that the recipe left alone
    tree = _merge(model().model_dump(mode="json"), values)
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError("A --set must read a.b=c.", found=text, where="--set")
        _assign(tree, key.strip(), _read_value(value, text))
    for key, value in (flags or {}).items():
        if value is not None:
            _assign(tree, key, value)
    return validate(model, tree, where=recipe or "--set and flags")


def _read_value(value: str, text: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(
            "The value of a --set is no valid YAML.", found=text, where="--set"
        ) from error


def validate(model: type[ConfigModel], tree: Mapping[str, Any], *, where: object) -> ConfigModel:
    """Build ``model`` from ``tree`` or say everything that is wrong with it.

    Raises:
        ConfigError: With every fault at once.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        faults = "\n            ".join(_explain(fault, model) for fault in error.errors())
        raise ConfigError(
            "The configuration is not valid.", found=faults, where=where, fix="correct these keys"
        ) from error


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        ConfigError: The file is absent, is no YAML, or holds something else.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError("The YAML file cannot be read.", where=path) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError("The file is no valid YAML.", found=str(error), where=path) from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(
            "The YAML file must hold keys and values.", found=type(tree).__name__, where=path
        )
    return tree


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _assign(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    node: Any = tree
    for part in parents:
        node = node[_index(node, part, dotted)] if isinstance(node, list) else node.get(part)
        if not isinstance(node, dict | list):
            raise ConfigError(
                "There is no such setting.", found=dotted, where="--set", fix=f"check {part!r}"
            )
    if isinstance(node, list):
        node[_index(node, last, dotted)] = value
    else:
        node[last] = value


def _index(items: list[Any], part: str, dotted: str) -> int:
    if part.isdecimal() and int(part) < len(items):
        return int(part)
    raise ConfigError(
        "A list item is named by its index.",
        expected=f"0 to {len(items) - 1}",
        found=part,
        where=f"--set {dotted}",
    )


def _explain(fault: Any, model: type[BaseModel]) -> str:
    path = ".".join(str(part) for part in fault["loc"])
    if fault["type"] != "extra_forbidden":
        message = fault["msg"].removeprefix("Value error, ")
        found = "" if isinstance(fault["input"], dict | list) else f" (found {fault['input']!r})"
        return f"{path or 'configuration'}: {message}{found}"
    close = difflib.get_close_matches(path, _keys(model), n=1)
    return f"{path}: no such key" + (f"; did you mean {close[0]}?" if close else "")


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _keys(field.annotation, f"{prefix}{name}.")
    return keys
