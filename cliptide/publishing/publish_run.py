"""One run of `cliptide publish`: sends the source through, waits if asked to, and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from cliptide.publishing.event_tracing import open_event_tracing
from cliptide.publishing.pacer import Pacer
from cliptide.publishing.publish import (
    Encode,
    EventPublisher,
    Failed,
    Outcome,
    Published,
    check_events,
    encode_rows,
)
from cliptide.publishing.replacements import LOOK_UP_TIMEOUT_SECONDS, NotKnown, SameIds, ids_in_index
from cliptide.publishing.upload_event import EventBuilder, InlineLimit
from cliptide.publishing.upload_row import UploadRow
from cliptide.publishing.upload_sources import SourceUnreadable, read_sources
from cliptide.searching.query_client import QueryClient, QueryServiceAway, QueryServiceError
from cliptide.searching.searchable import (
    NotSearchableInTime,
    find_missing,
    wait_until_covered,
    wanted_offsets,
)
from cliptide.terminal.connections import open_publisher
from cliptide.terminal.plain_text import without_controls
from cliptide.terminal.progress import show_progress
from cliptide.terminal.questions import can_ask, is_confirmed
from cliptide.terminal.registry import RegistryOptions, open_encoder
from cliptide.terminal.summary import counted, print_summary
from cliptide.terminal.waiting import waiting_told
from event_log.kafka.settings import KafkaSettings
from event_log.records import Delivery
from schemas.codec import encode_event


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """The flags of one run."""

    topic: str
    kafka: KafkaSettings
    query_url: str
    api_key: str | None
    platform: str
    id: str | None
    title: str | None
    id_prefix: str
    rate: float | None
    inline_limit: int
    reference: bool
    reference_base: str | None
    dry_run: bool
    registry: RegistryOptions
    wait: bool
    wait_timeout: float
    yes: bool
    as_json: bool

    @property
    def given(self) -> dict[str, str]:
        """The columns of a single file that flags give."""
        columns = {"content_id": self.id, "title": self.title}
        return {name: value for name, value in columns.items() if value is not None}


@dataclass(slots=True)
class PublishSummary:
    """What one run did. It is printed as the last line of standard output."""

    dry_run: bool
    topic: str
    rows: int = 0
    published: int = 0
    failed: int = 0
    replaced: int | None = None  # contents that the index held before; None: not known
    repeated: int = 0  # content ids that several rows have
    bytes: int = 0
    seconds: float = 0.0
    next_offsets: dict[str, int] = field(default_factory=dict)
    searchable: int | None = None
    missing: list[str] | None = None
    left_out: dict[str, int] | None = None  # files of a folder that are no upload, by their suffix
    problem: str | None = None  # why --wait gave up, or that there was nothing to publish

    @property
    def is_clean(self) -> bool:
        return self.failed == 0 and not self.missing and self.problem is None

    def add(self, delivery: Delivery) -> None:
        self.published += 1
        self.next_offsets = wanted_offsets([delivery], self.next_offsets)

    def fields(self) -> dict[str, Any]:
        fields = asdict(self) | {"seconds": round(self.seconds, 3)}
        return {name: value for name, value in fields.items() if value is not None}

    def in_words(self) -> str:
        """Say in one sentence what the run did."""
        if self.dry_run:
            words = [f"{counted(self.rows - self.failed, 'upload')} can be published (dry run)"]
        else:
            words = [f"published {counted(self.published, 'upload')} in {self.seconds:.1f} s"]
        if self.replaced:
            replaced = "would be replaced" if self.dry_run else "replaced"
            words.append(f"{counted(self.replaced, 'content')} {replaced}")
        if self.failed:
            words.append(f"{self.failed:,} failed")
        if self.searchable is not None:
            words.append(f"{self.searchable:,} searchable")
        if self.missing:
            words.append(f"{len(self.missing):,} not searchable")
        return ", ".join(words) + (f": {self.problem}" if self.problem else "")


class PublishRun:
    """One run of the command."""

    def __init__(self, sources: Sequence[Path], options: PublishOptions, console: Console) -> None:
        self.summary = PublishSummary(options.dry_run, options.topic)
        self._sources = sources
        self._options = options
        self._console = console
        self._content_ids: dict[str, None] = {}  # in order, each once; kept only for --wait
        limit = InlineLimit(options.inline_limit, options.reference, options.reference_base)
        self._builder = EventBuilder(options.platform, limit, options.id_prefix)

    def check_query_service(self) -> None:
        """With --wait, ask the query service before publishing: if it refuses the call, the run ends here."""
        if not self._waits:
            return
        try:
            self._client.index()
        except QueryServiceAway as error:
            self._say(f"{error}: --wait will ask again for up to {self._options.wait_timeout:g} s")

    def publish(self) -> None:
        ids = SameIds.none()
        try:
            with waiting_told(f"{self._named_sources} to be read", say=self._say):
                total = self._count_rows(ids)
        except SourceUnreadable as error:
            raise click.UsageError(str(error)) from error
        except OSError as error:
            raise click.UsageError(f"{error.filename} cannot be read ({error.strerror})") from error
        if total == 0:
            self.summary.problem = "there is nothing to publish"
            self._say(f"{self._named_sources}: {self.summary.problem}")
        elif self._accepts_replacements(ids):
            self._publish_rows(total)
        else:
            self.summary.problem = "stopped before anything was published"

    def interrupt(self) -> None:
        """After Ctrl-C, let the summary tell what was published. If nothing was, the command is aborted."""
        if not self.summary.published:
            raise click.Abort
        self.summary.problem = "interrupted; a few more may be in the log, and a second run replaces them all"

    def print_summary(self) -> None:
        print_summary(self.summary.fields(), self.summary.in_words(), as_json=self._options.as_json)

    def _publish_rows(self, total: int) -> None:
        with ExitStack() as stack:
            outcomes = self._outcomes(stack)
            progress = stack.enter_context(show_progress(self._console, {"uploads": total}))
            for outcome in outcomes:
                self._count(outcome)
                progress.update("uploads", self.summary.rows)

    def _count_rows(self, ids: SameIds) -> int:
        """Count the rows of the source, note their ids, and name the files of a folder that are no upload."""
        left_out: Counter[str] = Counter()
        total = 0
        for row in read_sources(self._sources, left_out, self._options.given):
            total += 1
            if isinstance(row, UploadRow):
                ids.add(self._builder.content_id_of(row))
        if left_out:
            self.summary.left_out = dict(left_out.most_common())
            kinds = ", ".join(f"{kind} ({number})" for kind, number in left_out.most_common())
            self._say(f"left out (hidden, or neither pictures nor texts): {kinds}")
        return total

    def _accepts_replacements(self, ids: SameIds) -> bool:
        """Say which contents the run replaces; at a terminal, ask whether to go on."""
        self._look_up(ids)
        self.summary.replaced, self.summary.repeated = ids.num_replaced, len(ids.repeated)
        lines = ids.in_words()
        for line in lines:
            self._say(line)
        if not lines or self._options.yes or self._options.dry_run or not can_ask():
            return True
        return is_confirmed("Replace them? A different --id-prefix keeps both.")

    def _look_up(self, ids: SameIds) -> None:
        client = QueryClient(self._options.query_url, self._options.api_key, LOOK_UP_TIMEOUT_SECONDS)
        try:
            with waiting_told(f"the query service at {client.url}", say=self._say):
                ids.in_index = ids_in_index(client, self._options.topic, list(ids.content_ids))
        except NotKnown as error:
            self._say(f"not known which contents of the index are replaced: {error}")

    def wait(self) -> None:
        """With --wait, wait until the index covers what was published, then look each content up."""
        if not self._waits or self.summary.problem is not None:
            return
        client = self._client
        try:
            with self._waiting_shown():
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

    def _waiting_shown(self) -> AbstractContextManager[object]:
        if self._console.is_terminal:
            return self._console.status("waiting until searchable")
        return waiting_told("the uploads to be searchable", say=self._say)

    @property
    def _named_sources(self) -> str:
        return ", ".join(map(str, self._sources[:2])) + (", …" if len(self._sources) > 2 else "")

    @property
    def _waits(self) -> bool:
        return self._options.wait and not self._options.dry_run

    @property
    def _client(self) -> QueryClient:
        return QueryClient(self._options.query_url, self._options.api_key)

    def _outcomes(self, stack: ExitStack) -> Iterator[Outcome]:
        options = self._options
        events = encode_rows(
            read_sources(self._sources, given=self._options.given), self._builder.build, self._encode(stack)
        )
        if options.dry_run:
            return check_events(events)
        publisher = stack.enter_context(open_publisher(options.kafka, options.topic))
        pacer = Pacer(options.rate)
        tracing = stack.enter_context(open_event_tracing())
        return EventPublisher(publisher, options.topic, pacer=pacer, say=self._say, tracing=tracing).publish(
            events
        )

    def _encode(self, stack: ExitStack) -> Encode:
        if self._options.dry_run:
            return encode_event
        return stack.enter_context(open_encoder(self._options.registry, self._options.topic))

    def _count(self, outcome: Outcome) -> None:
        self.summary.rows += 1
        if isinstance(outcome, Failed):
            self.summary.failed += 1
            self._say(f"{outcome.label}: {outcome.reason}")
            return
        self.summary.bytes += outcome.size_bytes
        if isinstance(outcome, Published):
            self.summary.add(outcome.delivery)
            if self._options.wait:
                self._content_ids[outcome.content_id] = None

    def _say(self, line: str) -> None:
        self._console.print(without_controls(line), markup=False, highlight=False, soft_wrap=True)
