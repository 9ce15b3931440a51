"""The engine of a command: where the index lies, in a directory or in OpenSearch."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from cliptide.terminal.options import option
from cliptide.terminal.paths import PathType
from opensearch_engine.connection import OpenSearchSettings

_PREFIX = "CLIPTIDE_OPENSEARCH__"


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --engine and how to reach OpenSearch. The command receives `opensearch`, None for a directory."""

    @option(
        "--engine",
        type=click.Choice(["directory", "opensearch"]),
        default="directory",
        is_eager=True,  # --index-root asks for it
        envvar="CLIPTIDE_INDEX__ENGINE",
        help="What holds the index.",
    )
    @option("--opensearch-url", envvar=f"{_PREFIX}URL", help="The address of OpenSearch.")
    @option("--opensearch-user", envvar=f"{_PREFIX}USER", help="OpenSearch's user (HTTP basic).")
    @option("--opensearch-password", envvar=f"{_PREFIX}PASSWORD", help="The password of that user.")
    @option(
        "--opensearch-ca-file",
        envvar=f"{_PREFIX}CA_FILE",
        type=PathType(exists=True, dir_okay=False, path_type=Path),
        help="A PEM file of the authorities that sign OpenSearch's certificate.",
    )
    @option(
        "--opensearch-aws-region",
        envvar=f"{_PREFIX}AWS_REGION",
        help="The region of an OpenSearch that AWS manages.",
    )
    @wraps(command)
    def with_engine(*args: Any, engine: str, **flags: Any) -> Any:
        names = ("url", "user", "password", "ca_file", "aws_region")
        given = {name: flags.pop(f"opensearch_{name}") for name in names}
        if engine == "directory":
            return command(*args, opensearch=None, **flags)
        if not given["url"]:
            raise click.UsageError(f"--engine opensearch needs --opensearch-url ({_PREFIX}URL)")
        return command(*args, opensearch=OpenSearchSettings(**given), **flags)

    return with_engine
