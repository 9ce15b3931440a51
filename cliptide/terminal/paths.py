"""Paths of flags and arguments. An empty one is refused, because it would stand for the current directory."""

from __future__ import annotations

import os
from pathlib import Path

import click

EMPTY = "must not be empty; the current directory is ."


def in_words(error: OSError) -> str:
    """Return what a disk refused and where, without the number of the error."""
    if error.strerror is None or error.filename is None:
        return str(error)
    return f"{click.format_filename(error.filename)}: {error.strerror}"


class PathType(click.Path):
    """A path that a shell has not emptied: `cliptide publish "$FOLDER"` without the variable is a mistake."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> Path:
        if not str(value).strip():
            self.fail(EMPTY, param, ctx)
        return Path(os.fsdecode(super().convert(value, param, ctx)))


class NewFile(PathType):
    """A file that a command writes when its work is done. Its directory is there before the work begins."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> Path:
        path = super().convert(value, param, ctx)
        if not path.parent.is_dir():
            self.fail(f"there is no directory {click.format_filename(path.parent)}.", param, ctx)
        if not path.exists() and not os.access(path.parent, os.W_OK):
            self.fail(f"nothing can be written into {click.format_filename(path.parent)}.", param, ctx)
        return path
