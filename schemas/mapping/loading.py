"""Reads a mapping file, or one of the presets. What is wrong in it is named with line and column."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TypeAlias

import yaml
from pydantic import ValidationError

from schemas.mapping.model import MappingFile, validate_mapping
from schemas.mapping.rules import EventMapping

MAX_FILE_BYTES = 256 * 1024
_PRESETS = files("schemas.mapping") / "presets"
_SUFFIX = ".yaml"
_FIRST = 1  # editors count lines and columns from one, YAML's marks from zero

_Path: TypeAlias = tuple[str | int, ...]


class BadMapping(ValueError):
    """The mapping cannot be used. The message names the file, the line and the column."""


@cache
def preset_names() -> tuple[str, ...]:
    """The names of the mappings that ship with the package."""
    names = [preset.name for preset in _PRESETS.iterdir()]
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)))


def load_mapping(name: str) -> EventMapping:
    """Return the preset of this name, or the mapping in the file of this name. Raises `BadMapping`."""
    if name in preset_names():
        text = (_PRESETS / f"{name}{_SUFFIX}").read_text("utf-8")
        return EventMapping(parse_mapping(text, name))
    return EventMapping(parse_mapping(_read(Path(name)), name))


def parse_mapping(text: str, name: str) -> MappingFile:
    """Parse the text of a mapping file. `name` is for messages. Raises `BadMapping`."""
    try:
        positions = dict(_positions(yaml.compose(text, Loader=yaml.SafeLoader), name))
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + _FIRST}:{mark.column + _FIRST}" if mark else name
        raise BadMapping(f"{where}: {error.problem or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadMapping(f"{name}: not YAML: {error}") from error
    try:
        return validate_mapping(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        where = f"{name}:{_find_position(positions, first['loc'])}"
        raise BadMapping(f"{where}: {place or 'the file'}: {_plain(first['type'], first['msg'])}") from error


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadMapping(f"{path}: more than {MAX_FILE_BYTES} bytes")
        return path.read_text("utf-8")
    except OSError as error:
        presets = ", ".join(preset_names())
        raise BadMapping(f"{path}: {error.strerror}. There are also presets: {presets}") from error
    except UnicodeDecodeError as error:
        raise BadMapping(f"{path}: not UTF-8") from error


def _positions(node: yaml.Node | None, name: str, path: _Path = ()) -> Iterator[tuple[_Path, str]]:
    """Yield the line and column of every value of the file by its path. Refuse a key that stands twice."""
    if node is None:
        return
    yield path, _position(node)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _positions(item, name, (*path, index))
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value} stands twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
            yield (*path, key.value), _position(key)
            yield from _positions(value, name, (*path, key.value))


def _position(node: yaml.Node) -> str:
    return f"{node.start_mark.line + _FIRST}:{node.start_mark.column + _FIRST}"


def _find_position(positions: dict[_Path, str], path: _Path) -> str:
    """The position of the innermost part of a path that the file has."""
    return next(
        (positions[path[:length]] for length in range(len(path), -1, -1) if path[:length] in positions), "1:1"
    )


def _plain(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "there is no such name"
    if kind == "missing":
        return "is missing"
    return message
