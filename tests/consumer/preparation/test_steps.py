"""A group of tasks: each settles by itself, and the group is heard of once."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pytest

from consumer.dead_letters.dead_letter import SetAside
from consumer.preparation.placement import Placement
from consumer.preparation.record_reader import RecordReader
from consumer.preparation.steps import Fetcher, Fetchers, Preparation, PreparationOptions
from consumer.preparation.upload_contents import UploadContents
from consumer.quarantine.handling import Handling, NormalHandling
from consumer.quarantine.risk_gate import RiskGate
from consumer.saved_encodings import ContentDigests, NothingStored, SavedEncodings
from consumer.tasks import Encodable, NothingThere, Removal, Task
from consumer.telemetry.metrics import Metrics
from event_log.records import Record
from schemas.codec import EventDecoder, encode_event
from schemas.events import Content, ContentReference, TextContent
from tests.consumer.encoders import FailingEncoder
from tests.consumer.running import PATIENCE_SECONDS, upload

DATA = b"a referenced text"
REFERENCE = ContentReference(
    "https://h/x", hashlib.sha256(DATA).hexdigest(), size_bytes=len(DATA), modality="text"
)


class Fetched:
    """Implements `Fetcher` with one future, whatever is asked for."""

    def __init__(self, future: Future[bytes]) -> None:
        self._future = future

    def fetch(self, reference: ContentReference, record: str) -> Future[bytes]:
        return self._future


class Settled:
    """Implements `SettledTasks` with a function."""

    def __init__(self, notify: Callable[[], object]) -> None:
        self.notify = notify


def task(content_id: str, value: bytes | None, offset: int = 0) -> Task:
    record = Record("uploads", 0, offset, content_id.encode(), value, (), 1_700_000_000_000, 1)
    return Task(0, 1, offset, record.next_offset, record, offset, record.size_bytes)


def upload_task(content_id: str, content: Content) -> Task:
    return task(content_id, encode_event(upload(content_id, content)).value)


@contextmanager
def preparing(
    notify: Callable[[], None], fetcher: Fetcher | None = None, metrics: Metrics | None = None
) -> Iterator[tuple[Preparation, Handling]]:
    metrics, encoder = metrics or Metrics(), FailingEncoder()
    preparation = Preparation(
        reader=RecordReader(EventDecoder(), Placement(1, metrics.misplaced_records), metrics.other_keys),
        contents=UploadContents(
            encoder,
            SavedEncodings(ContentDigests(encoder.fingerprint, ""), NothingStored(), metrics.encodings_saved),
            truncated_texts=metrics,
        ),
        fetchers=Fetchers(fetcher or Fetched(Future())),
        meter=metrics,
        options=PreparationOptions(num_threads=2),
        settled=Settled(notify),
    )
    yield preparation, NormalHandling(RiskGate())
    preparation.close()


def test_each_task_of_a_group_settles_by_itself() -> None:
    settled = threading.Semaphore(0)
    metrics = Metrics()
    good, fault = (upload_task(word, TextContent(word)) for word in ("good", "poison"))
    bad, removed, cancelled = task("bad", b"?"), task("removed", None), task("cancelled", None)
    nothing = Task(0, 1, 8, 9, None, 8, 0)
    cancelled.cancel()
    with preparing(settled.release, metrics=metrics) as (preparation, handling):
        preparation.submit([cancelled, bad, fault, removed, nothing, good], handling)
        assert settled.acquire(timeout=PATIENCE_SECONDS)
        preparation.submit([], handling)  # the next group's notice is the next one
        assert settled.acquire(timeout=PATIENCE_SECONDS)
        assert not settled.acquire(blocking=False)
    assert isinstance(good.settled(), Encodable)
    assert isinstance(removed.settled(), Removal)
    assert nothing.settled() == NothingThere()
    outcome = bad.settled()
    assert isinstance(outcome, SetAside)
    assert outcome.reason == "undecodable"
    with pytest.raises(RuntimeError, match="a defect"):
        fault.settled()
    assert not cancelled.is_ready


def test_the_stages_are_observed_once_for_a_group() -> None:
    metrics, settled = Metrics(), threading.Semaphore(0)
    tasks = [upload_task(f"c{number}", TextContent("words")) for number in range(5)]
    with preparing(settled.release, metrics=metrics) as (preparation, handling):
        preparation.submit(tasks, handling)
        preparation.submit([task("removed", None)], handling)
        for _ in range(2):
            assert settled.acquire(timeout=PATIENCE_SECONDS)
    counts = [
        metrics.registry.get_sample_value("cliptide_consumer_stage_seconds_count", {"stage": stage})
        for stage in ("decode", "prepare")
    ]
    assert counts == [2, 1]


class HurriedFuture(Future[bytes]):
    """Fetched at once: whoever asks to be called is held until another thread has settled the task."""

    def __init__(self, settled: threading.Event) -> None:
        super().__init__()
        self._settled = settled
        self.set_result(DATA)

    def add_done_callback(self, fn: Callable[[Future[bytes]], object]) -> None:
        super().add_done_callback(fn)
        assert self._settled.wait(PATIENCE_SECONDS)


def test_a_fetch_that_settles_before_its_group_goes_on_is_not_undone() -> None:
    settled, done = threading.Event(), threading.Semaphore(0)
    referring = upload_task("referring", REFERENCE)

    def notify() -> None:
        settled.set()
        done.release()

    with preparing(notify, Fetched(HurriedFuture(settled))) as (preparation, handling):
        preparation.submit([referring], handling)
        for _ in range(2):
            assert done.acquire(timeout=PATIENCE_SECONDS)
    outcome = referring.settled()
    assert isinstance(outcome, Encodable)
    assert outcome.upload.text == DATA.decode()
    assert referring.fetching is None  # nothing keeps the bytes


def test_cancelling_a_task_ends_its_fetch_and_settles_nothing() -> None:
    settled, fetching = threading.Semaphore(0), Future[bytes]()
    referring = upload_task("referring", REFERENCE)
    with preparing(settled.release, Fetched(fetching)) as (preparation, handling):
        preparation.submit([referring], handling)
        assert settled.acquire(timeout=PATIENCE_SECONDS)
        referring.cancel()
        assert fetching.cancelled()
        assert settled.acquire(timeout=PATIENCE_SECONDS)
    assert not referring.is_ready
