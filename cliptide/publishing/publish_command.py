"""`cliptide publish`: a folder, a CSV or a JSONL becomes upload events."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from cliptide.publishing.pacer import Pacer
from cliptide.publishing.publish import (
    EventPublisher,
    Failed,
    Outcome,
    Published,
    check_events,
    encode_rows,
)
from cliptide.publishing.upload_event import EventBuilder, InlineLimit
from cliptide.publishing.upload_sources import SourceUnreadable, read_source
from cliptide.searching.query_client import QueryClient, QueryServiceAway, QueryServiceError
from cliptide.searching.searchable import (
    NotSearchableInTime,
    find_missing,
    wait_until_covered,
    wanted_offsets,
)
from cliptide.terminal.connections import open_publisher
from cliptide.terminal.options import kafka_options, option, query_options, topic_option
from cliptide.terminal.plain_text import without_controls
from cliptide.terminal.progress import show_progress
from event_log.kafka.settings import KafkaSettings
from event_log.records import Delivery

DEFAULT_INLINE_LIMIT_BYTES = 10 * 1024 * 1024 - 64 * 1024  # room for the event's other fields below 10 MiB


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """The flags of one run."""

    topic: str
    kafka: KafkaSettings
    query_url: str
    api_key: str | None
    platform: str
    rate: float | None
    inline_limit: int
    reference: bool
    reference_base: str | None
    dry_run: bool
    wait: bool
    wait_timeout: float


@dataclass(slots=True)
class PublishSummary:
    """What one run did; printed as the last line of standard output."""

    dry_run: bool
    topic: str
    rows: int = 0
    published: int = 0
    failed: int = 0
    bytes: int = 0
    seconds: float = 0.0
    next_offsets: dict[str, int] = field(default_factory=dict)
    searchable: int | None = None
    missing: list[str] | None = None
    problem: str | None = None  # why --wait ended early

    @property
    def is_clean(self) -> bool:
        return self.failed == 0 and not self.missing and self.problem is None

    def add(self, delivery: Delivery) -> None:
        self.published += 1
        self.next_offsets = wanted_offsets([delivery], self.next_offsets)

    def as_json(self) -> str:
        fields = asdict(self) | {"seconds": round(self.seconds, 3)}
        return json.dumps({name: value for name, value in fields.items() if value is not None})


@click.command("publish")
@click.argument("source", type=click.Path(path_type=Path))
@topic_option
@kafka_options
@option("--platform", default="cliptide", help="The event's source where a row has none.")
@option("--rate", type=click.FloatRange(0, min_open=True), help="At most so many uploads a second.")
@option(
    "--inline-limit",
    type=click.IntRange(min=1),
    default=DEFAULT_INLINE_LIMIT_BYTES,
    help="Files of more bytes do not fit into an event. Keep it below the broker's message.max.bytes.",
)
@option(
    "--reference", is_flag=True, help="Publish files above the inline limit as address, SHA-256 and size."
)
@option(
    "--reference-base",
    help="Address that stands for the source's folder, such as https://cdn.example/. Default: file://.",
)
@option(
    "--dry-run",
    is_flag=True,
    help="Read and check every row, publish nothing. Pictures are decoded by the consumer alone.",
)
@option("--wait", is_flag=True, help="Return when every published content is searchable.")
@option("--wait-timeout", type=float, default=300.0, help="Seconds that --wait waits at most.")
@query_options
def publish_command(source: Path, **flags: Any) -> None:
    """Publish the uploads of SOURCE: a folder of pictures and texts, a CSV, or a JSONL.

    Of a folder, all files ending in .jpg, .jpeg, .png, .webp, .gif and .txt are published.

    Columns (all but one of file, text, link are optional): content_id, file, text, link, owner_id,
    source, version, occurred_at (ISO 8601 with a zone), metadata (a JSON object; in a CSV also
    columns named metadata.KEY, whose values are texts), modality, sha256, size_bytes. Without a
    content_id, a file's path is its id, so that a half-finished run can be repeated: it replaces, it
    never doubles.

    Rows that fail are named on standard error and the others go on; the exit code is then 1. The last
    line of standard output is a JSON summary.
    """
    run = PublishRun(source, PublishOptions(**flags), Console(stderr=True))
    started = time.monotonic()
    run.greet()
    run.publish()
    run.wait()
    run.summary.seconds = time.monotonic() - started
    click.echo(run.summary.as_json())
    raise SystemExit(0 if run.summary.is_clean else 1)


class PublishRun:
    """One run of the command: sends the source through and counts what comes of it."""

    def __init__(self, source: Path, options: PublishOptions, console: Console) -> None:
        self.summary = PublishSummary(options.dry_run, options.topic)
        self._source = source
        self._options = options
        self._console = console
        self._content_ids: dict[str, None] = {}  # in order, without doubles; kept only for --wait

    def greet(self) -> None:
        """With --wait: a query service that refuses us ends the run here; one that is away is named."""
        if not self._waits:
            return
        try:
            self._client.index()
        except QueryServiceAway as error:
            self._say(f"{error}: --wait goes on asking it for {self._options.wait_timeout:g} s")

    def publish(self) -> None:
        try:
            total = sum(1 for _ in read_source(self._source))
        except SourceUnreadable as error:
            raise click.UsageError(str(error)) from error
        with ExitStack() as stack:
            outcomes = self._outcomes(stack)
            progress = stack.enter_context(show_progress(self._console, {"uploads": total}))
            for outcome in outcomes:
                self._count(outcome)
                progress.update("uploads", self.summary.rows)

    def wait(self) -> None:
        """With --wait: return when all that was published is covered, and look each content up."""
        if not self._waits:
            return
        client = self._client
        try:
            with self._console.status("waiting until searchable"):
                wait_until_covered(
                    client, self.summary.next_offsets, timeout_seconds=self._options.wait_timeout
                )
                missing = list(find_missing(client, self._content_ids))
        except (NotSearchableInTime, QueryServiceError) as error:
            self.summary.problem = str(error)
            return
        self.summary.missing = missing
        self.summary.searchable = len(self._content_ids) - len(missing)
        for content_id in missing:
            self._say(f"{content_id}: not searchable (set aside as a dead letter, deleted, or superseded)")

    @property
    def _waits(self) -> bool:
        return self._options.wait and not self._options.dry_run

    @property
    def _client(self) -> QueryClient:
        return QueryClient(self._options.query_url, self._options.api_key)

    def _outcomes(self, stack: ExitStack) -> Iterator[Outcome]:
        options = self._options
        limit = InlineLimit(options.inline_limit, options.reference, options.reference_base)
        events = encode_rows(read_source(self._source), EventBuilder(options.platform, limit).build)
        if options.dry_run:
            return check_events(events)
        publisher = stack.enter_context(open_publisher(options.kafka, options.topic))
        return EventPublisher(publisher, options.topic, pacer=Pacer(options.rate)).publish(events)

    def _count(self, outcome: Outcome) -> None:
        self.summary.rows += 1
        if isinstance(outcome, Failed):
            self.summary.failed += 1
            self._say(f"{outcome.place}: {outcome.reason}")
            return
        self.summary.bytes += outcome.size_bytes
        if isinstance(outcome, Published):
            self.summary.add(outcome.delivery)
            if self._options.wait:
                self._content_ids[outcome.content_id] = None

    def _say(self, line: str) -> None:
        self._console.print(without_controls(line), markup=False, highlight=False, soft_wrap=True)
