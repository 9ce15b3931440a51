"""Three steps from a record to what the encoder takes: decode, fetch, prepare.

Decoding and preparing run in a pool of threads, fetching on the event loop of `References`. So a
record that waits for its reference occupies no thread. Small records go through the pool in groups,
because passing a record from thread to thread costs more than decoding it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from clip_index.errors import BadContent
from consumer.dead_letters.dead_letter import SetAside
from consumer.preparation.record_reader import RecordReader
from consumer.preparation.step_pool import StepPool
from consumer.preparation.upload_contents import UploadContents, UploadSource, content_from_bytes
from consumer.quarantine.handling import Handling
from consumer.references.fetching import ReferenceGivenUp
from consumer.tasks import AlreadyEncoded, NothingThere, Outcome, Patching, Removal, Task
from consumer.telemetry.metrics import StageTimer
from event_log.records import Record
from schemas.errors import BadEvent, SchemaNotAtHand, UnknownSchema
from schemas.events import (
    ContentReference,
    DeleteEvent,
    Event,
    PatchEvent,
    UploadEvent,
)
from schemas.framing import SchemaKey


class Fetcher(Protocol):
    """Fetches references. The future holds the bytes, or `ReferenceGivenUp`. `record` is for the log."""

    def fetch(self, reference: ContentReference, record: str) -> Future[bytes]: ...


class SchemaFetcher(Protocol):
    """Fetches a schema that a record needs. `on_failure` is told why that takes longer."""

    def fetch(self, key: SchemaKey, on_failure: Callable[[str], None]) -> Future[None]: ...


class Fetchers(NamedTuple):
    """What fetches for a record: its content, and the schema that it is written with."""

    references: Fetcher
    schemas: SchemaFetcher | None = None


class SettledTasks(Protocol):
    """Is told that tasks have settled. Called in a thread of the pool."""

    def notify(self) -> None: ...


@dataclass(frozen=True, slots=True)
class PreparationOptions:
    """What becomes of records, and how many threads prepare them.

    A record of an unknown schema makes its partition wait, unless such records are set aside or the
    consumer is to stop at them. `make_thumbnail` gets the bytes of a readable picture; where
    it is None, no thumbnails are kept. `recipe` says in words what decides, besides the encoder, what is
    made of a content's bytes: contents that were made by another recipe are made anew.
    """

    num_threads: int = 2
    sets_unknown_schemas_aside: bool = False
    stops_at_unknown_schemas: bool = False
    sets_misplaced_aside: bool = False
    make_thumbnail: Callable[[bytes], bytes] | None = None
    recipe: str = ""


@dataclass(slots=True)
class _Group:
    """Tasks that one thread does one after the other, and the seconds spent on them so far."""

    tasks: Sequence[Task]
    handling: Handling
    decode_seconds: float = 0.0
    prepare_seconds: float = 0.0


_WAY_ON = (
    "upgrade this consumer, or set CLIPTIDE_CONSUMER__ON_UNKNOWN_SCHEMA=dead_letter to set such records aside"
)

_Step: TypeAlias = Callable[[Task, _Group], Outcome | None]


class Preparation:
    """Settles tasks. Thread-safe.

    A bad content becomes a `SetAside`. A record of an unknown schema makes its task wait, so that it
    holds back its own partition and no other. Any other exception becomes the task's `error`: a fault
    of the process, or an `UnknownSchema` where the consumer is to stop.
    """

    def __init__(
        self,
        *,
        reader: RecordReader,
        contents: UploadContents,
        fetchers: Fetchers,
        meter: StageTimer,
        options: PreparationOptions,
        settled: SettledTasks,
    ) -> None:
        self._reader = reader
        self._contents = contents
        self._fetchers = fetchers
        self._meter = meter
        self._options = options
        self._settled = settled
        self._pool = StepPool(options.num_threads, "prepare")

    def submit(self, tasks: Sequence[Task], handling: Handling) -> None:
        """Begin a group of tasks, which one thread does one after the other. Cancelled tasks are skipped."""
        self._submit(_Group(tasks, handling), self._decode)

    @property
    def problem(self) -> str | None:
        """What keeps the threads from going on for good; None if all is well."""
        return "a preparation thread has ended" if self._pool.num_dead else None

    @property
    def seconds_in_step(self) -> float:
        return self._pool.seconds_in_step

    def close(self) -> None:
        self._pool.close()

    def _submit(self, group: _Group, step: _Step) -> None:
        self._pool.submit(lambda: self._run(group, step))

    def _run(self, group: _Group, step: _Step) -> None:
        with group.handling.around_group():
            for task in group.tasks:
                if not task.is_cancelled:
                    self._settle(task, group, step)
        self._observe(group)
        self._settled.notify()

    def _settle(self, task: Task, group: _Group, step: _Step) -> None:
        """Run one step of a task. An outcome or an error settles the task.

        None means that the task waits for its reference. This thread must not touch it any more,
        because another thread may have fetched the reference and settled the task by now.
        """
        began_ns = 0 if task.trace is None else time.time_ns()
        try:
            outcome = step(task, group)
        except Exception as error:  # noqa: BLE001 - the encoder thread raises it
            outcome = self._set_aside_from(error)
            if outcome is None:
                self._fail(task, error)
        if outcome is not None:
            if task.trace is not None:
                task.trace.add("prepare", began_ns, time.time_ns())
            task.outcome = outcome

    def _fail(self, task: Task, error: Exception) -> None:
        if isinstance(error, UnknownSchema):
            error = UnknownSchema(f"{error.schema} of {task.position}", f"{error.detail}; {_WAY_ON}")
            if not self._options.stops_at_unknown_schemas:
                task.waits_because = str(error)
                return
        task.error = error

    def _observe(self, group: _Group) -> None:
        """Observe once for a group: once for each record would cost as much as validating its event."""
        if group.decode_seconds:
            self._meter.observe("decode", group.decode_seconds)
        if group.prepare_seconds:
            self._meter.observe("prepare", group.prepare_seconds)

    def _set_aside_from(self, error: Exception) -> SetAside | None:
        """Why an error makes the record a dead letter; None when it does not."""
        name = f"{type(error).__module__}.{type(error).__qualname__}"
        if isinstance(error, BadEvent):
            return SetAside(error.reason, error.detail, "decode", name)
        if isinstance(error, BadContent):
            return SetAside(error.reason, error.detail, "prepare", name)
        if isinstance(error, ReferenceGivenUp):
            return SetAside(error.reason, str(error), "reference", name)
        if isinstance(error, UnknownSchema) and self._options.sets_unknown_schemas_aside:
            return SetAside("unknown_schema", str(error), "decode", name)
        return None

    def _decode(self, task: Task, group: _Group) -> Outcome | None:
        if task.record is None:
            return NothingThere()
        try:
            return self._decode_record(task, task.record, group)
        except SchemaNotAtHand as error:
            self._fetch_schema(error.key, task, group)
            return None

    def _decode_record(self, task: Task, record: Record, group: _Group) -> Outcome | None:
        with group.handling.around_step():
            event = self._read(record, group)
            if event is None:
                return NothingThere()
            if isinstance(event, DeleteEvent):
                return Removal(event)
            if isinstance(event, PatchEvent):
                return Patching(event)
            if not isinstance(event.content, ContentReference):
                return self._prepare(UploadSource(task.partition, event, event.content), group)
        self._fetch(event, event.content, task, group)
        return None

    def _fetch_schema(self, key: SchemaKey, task: Task, group: _Group) -> None:
        """Decode the task again when its schema is there. Until then it holds its partition and no other."""
        schemas = self._fetchers.schemas
        assert schemas is not None
        alone = _Group([task], group.handling)

        def wait_because(reason: str) -> None:
            task.waits_because = f"{task.position} needs {reason}; it goes on when the registry answers"

        def decode_again(_: Future[None]) -> None:
            task.waits_because = None
            self._submit(alone, self._decode)

        schemas.fetch(key, wait_because).add_done_callback(decode_again)

    def _read(self, record: Record, group: _Group) -> Event | None:
        started = time.perf_counter()
        try:
            return self._reader.read(record)
        finally:
            group.decode_seconds += time.perf_counter() - started

    def _fetch(self, event: UploadEvent, reference: ContentReference, task: Task, group: _Group) -> None:
        began_ns = time.time_ns()
        fetching = self._fetchers.references.fetch(reference, task.position)
        task.fetch(fetching)
        alone = _Group([task], group.handling)

        def go_on(_: Future[bytes]) -> None:
            if task.trace is not None:
                task.trace.add("fetch", began_ns, time.time_ns())
            self._submit(alone, lambda task, group: self._prepare_fetched(event, task, group))

        fetching.add_done_callback(go_on)

    def _prepare_fetched(self, event: UploadEvent, task: Task, group: _Group) -> Outcome:
        assert isinstance(event.content, ContentReference)
        data = task.take_fetched()
        with group.handling.around_step():
            sha256 = event.content.sha256 or hashlib.sha256(data).hexdigest()
            content = content_from_bytes(data, event.content.modality)
            return self._prepare(UploadSource(task.partition, event, content, sha256), group)

    def _prepare(self, source: UploadSource, group: _Group) -> Outcome:
        started = time.perf_counter()
        try:
            made = self._contents.prepare(source)
        finally:
            group.prepare_seconds += time.perf_counter() - started
        return made if isinstance(made, AlreadyEncoded) else group.handling.finish(*made)
