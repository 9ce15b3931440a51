"""`cliptide publish`: publish a folder, a file, a CSV or a JSONL as upload events."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from cliptide.publishing.publish_run import PublishOptions, PublishRun
from cliptide.terminal.numbers import FiniteRange
from cliptide.terminal.options import kafka_options, option, query_options, topic_option
from cliptide.terminal.paths import PathType
from cliptide.terminal.registry import framing_option, registry_options
from cliptide.terminal.summary import json_option

_OTHER_FIELDS_BYTES = 64 * 1024  # room for the event's other fields, so that it stays below 10 MiB
DEFAULT_INLINE_LIMIT_BYTES = 10 * 1024 * 1024 - _OTHER_FIELDS_BYTES


@click.command("publish")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...", type=PathType(path_type=Path))
@topic_option
@kafka_options
@registry_options
@framing_option
@option("--platform", default="cliptide", help="The source of events whose row names none.")
@option("--id", help="The content id of a single picture or text. Default: its file's name.")
@option("--title", help="The title of a single picture or text.")
@option(
    "--id-prefix",
    default="",
    help="What to put before each content id that is made from a path, text or link, such as trip-2024/. "
    "Files of the same name in two folders replace each other unless the prefixes differ.",
)
@option("--rate", type=FiniteRange(0, min_open=True), help="The most uploads per second. Default: no limit.")
@option(
    "--inline-limit",
    type=click.IntRange(min=1),
    default=DEFAULT_INLINE_LIMIT_BYTES,
    help="The largest file, in bytes, that is sent inline. Keep it below the broker's message.max.bytes.",
)
@option("--reference", is_flag=True, help="Publish larger files as references: address, SHA-256 and size.")
@option(
    "--reference-base",
    help="The address at which the source's folder is served, such as https://cdn.example/. Default: file://.",
)
@option(
    "--dry-run",
    is_flag=True,
    help="Read and check every row, and publish nothing. Pictures are not decoded.",
)
@option("--wait", is_flag=True, help="Wait until every published content is searchable.")
@option(
    "--wait-timeout",
    type=FiniteRange(0),
    default=300.0,
    help="The longest that --wait waits, in seconds.",
)
@option("--yes", "-y", is_flag=True, help="Do not ask before contents of the index are replaced.")
@json_option("publish")
@query_options
def publish_command(sources: tuple[Path, ...], **flags: Any) -> None:
    """Publish the uploads of each SOURCE: a folder of pictures and texts, one of them, a CSV, or a JSONL.

    Of a folder, pictures and files ending in .txt are published. Pictures are known by their first bytes,
    whatever their names end in. Hidden files and other files are left out, counted and named by suffix.
    If nothing is found, the exit code is 1.

    A row needs one of the columns file (or image), text and link. The others are optional: content_id,
    owner_id, title, caption, tags, source, version, occurred_at (ISO 8601 with a zone), metadata (a JSON
    object; in a CSV also columns named metadata.KEY, whose values are texts), modality, sha256, size_bytes.
    title, caption and tags become entries of the metadata.

    Without a content_id, the id of a file is its path below SOURCE (of a single file: its name), the id of
    a text is made of its digest, and the id of a link is the link; --id-prefix stands before each. So a run
    that stopped halfway can be repeated: it replaces contents and adds none twice. For the same reason a
    second folder with the same file names replaces the contents of the first: give each folder an
    --id-prefix of its own.

    The query service at --query-url is asked which of the ids the index holds already. Their number is
    printed, and at a terminal you are asked whether to replace them. If the service cannot be reached, the
    uploads are published all the same, and a line says that the number is not known.

    A row that fails is named on standard error, and the other rows go on. The exit code is then 1, as it is
    after Ctrl-C. The last line of standard output is a summary: a sentence at a terminal, JSON in a pipe.
    """
    options = PublishOptions(**flags)
    if options.given and len(sources) > 1:
        raise click.UsageError("--id and --title: for a single picture or text, and there are several")
    run = PublishRun(sources, options, Console(stderr=True))
    started = time.monotonic()
    run.check_query_service()
    try:
        run.publish()
        run.wait()
    except KeyboardInterrupt:
        run.interrupt()
    run.summary.seconds = time.monotonic() - started
    run.print_summary()
    raise SystemExit(0 if run.summary.is_clean else 1)
