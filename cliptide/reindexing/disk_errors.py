"""A disk that fails or refuses is told in one line: it is no fault of the program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from cliptide.terminal.paths import in_words


@contextmanager
def disk_errors_named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise click.ClickException(in_words(error)) from error
