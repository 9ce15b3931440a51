"""References: allowed or refused, checked, tried again, given up."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from consumer.backoff import Backoff
from consumer.preparation.steps import PreparationOptions
from consumer.references import fetching as fetching_module
from consumer.references import stores
from consumer.references.fetching import FetchLimits, ReferenceGivenUp, References
from consumer.references.policy import (
    ReferenceAbsent,
    ReferencePatience,
    ReferencePolicy,
    ReferenceRefused,
    ReferenceUnreachable,
    ReferenceWithheld,
)
from consumer.references.stores import FileStore
from consumer.tasks import Task
from consumer.telemetry.metrics import Metrics
from fakes.hash_encoder import draw_picture
from schemas.events import ContentReference, Modality
from tests.consumer.running import PATIENCE_SECONDS, World, eventually, upload

PICTURE = draw_picture(1)


def reference(uri: str, data: bytes = PICTURE, modality: Modality = "image") -> ContentReference:
    return ContentReference(uri, hashlib.sha256(data).hexdigest(), len(data), modality)


class Store:
    """An HTTP server on loopback whose answers tests change."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.etag = '"v-2"'
        self.num_requests = 0
        self.cookies: list[str] = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def uri(self, path: str) -> str:
        return f"http://{self.host}{path}"

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.num_requests += 1
        self.cookies += request.cookies
        status, body = self.answers.get(request.path, (404, b""))
        if request.path == "/stalled":
            await self._stop.wait()
        if request.path == "/half":
            half = web.StreamResponse()
            await half.prepare(request)
            await self._stop.wait()
        if request.path == "/tagged":
            return web.Response(body=PICTURE, headers={"ETag": self.etag})
        if request.path == "/endless":
            return await self._stream_for_ever(request)
        headers = {"Location": "/picture"} if status == 302 else {"Set-Cookie": "visit=1"}
        return web.Response(status=status, body=body, headers=headers)

    async def _stream_for_ever(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65536)
        except ConnectionError:
            return response


@pytest.fixture
def store() -> Iterator[Store]:
    server = Store()
    server.start()
    server.answers["/picture"] = (200, PICTURE)
    yield server
    server.close()


def quick_limits(grace: float = 0.05, patience: float = 0.05, timeout: float = 20.0) -> FetchLimits:
    return FetchLimits(
        timeout_seconds=timeout,
        patience=ReferencePatience(grace, patience),
        backoff=Backoff(first_seconds=0.01, longest_seconds=0.02),
    )


@contextmanager
def fetching(policy: ReferencePolicy, limits: FetchLimits) -> Iterator[References]:
    references = References(policy, limits, failing=Metrics().references_failing)
    references.start()
    try:
        yield references
    finally:
        references.close(PATIENCE_SECONDS)


def allowing(store: Store) -> ReferencePolicy:
    return ReferencePolicy(hosts=frozenset({store.host}), http_schemes=frozenset({"http"}))


def reason_of(future: Future[bytes]) -> str:
    error = future.exception(timeout=PATIENCE_SECONDS)
    assert isinstance(error, ReferenceGivenUp), error
    return error.reason


def test_no_cookie_is_kept(store: Store) -> None:
    """Each path would have its own, for ever."""
    host = f"localhost:{store.port}"  # of bare addresses aiohttp keeps none anyhow
    policy = ReferencePolicy(hosts=frozenset({host}), http_schemes=frozenset({"http"}))
    with fetching(policy, quick_limits()) as references:
        for _ in range(2):
            references.fetch(reference(f"http://{host}/picture")).result(PATIENCE_SECONDS)
    assert store.num_requests == 2
    assert store.cookies == []


def test_allowed_bytes_are_fetched(store: Store) -> None:
    with fetching(allowing(store), quick_limits()) as references:
        assert references.fetch(reference(store.uri("/picture"))).result(PATIENCE_SECONDS) == PICTURE


@pytest.mark.parametrize(
    ("path", "status", "body", "reason"),
    [
        pytest.param("/gone", 404, b"", "reference_absent", id="not there"),
        pytest.param("/gone", 403, b"", "reference_absent", id="not allowed by the store"),
        pytest.param("/other", 200, draw_picture(2)[: len(PICTURE)], None, id="other bytes"),
        pytest.param("/short", 200, PICTURE[:-1], "size_mismatch", id="too short"),
        pytest.param("/long", 200, PICTURE + b"x", "size_mismatch", id="too long"),
        pytest.param("/moved", 302, b"", "reference_refused", id="a redirect"),
    ],
)
def test_what_is_not_the_promised_content_is_given_up_after_the_grace_time(
    store: Store, path: str, status: int, body: bytes, reason: str | None
) -> None:
    store.answers[path] = (status, body)
    with fetching(allowing(store), quick_limits()) as references:
        given = reason_of(references.fetch(reference(store.uri(path))))
    assert given == reason or (reason is None and given in ("digest_mismatch", "size_mismatch"))


def test_another_digest_is_given_up(store: Store) -> None:
    wrong = ContentReference(store.uri("/picture"), "0" * 64, len(PICTURE), "image")
    with fetching(allowing(store), quick_limits()) as references:
        assert reason_of(references.fetch(wrong)) == "digest_mismatch"


def unpinned(uri: str, etag: str | None = None) -> ContentReference:
    return ContentReference(uri, None, None, "image", etag)


def test_a_reference_without_digest_and_size_takes_the_bytes_that_are_there(store: Store) -> None:
    with fetching(allowing(store), quick_limits()) as references:
        assert references.fetch(unpinned(store.uri("/picture"))).result(PATIENCE_SECONDS) == PICTURE
        sized = ContentReference(store.uri("/picture"), None, len(PICTURE) + 1, "image")
        assert reason_of(references.fetch(sized)) == "size_mismatch"
        digested = ContentReference(store.uri("/picture"), "0" * 64, None, "image")
        assert reason_of(references.fetch(digested)) == "digest_mismatch"


def test_a_reference_without_a_size_is_read_up_to_what_the_settings_allow(store: Store) -> None:
    policy = replace(allowing(store), max_size_bytes=100_000)
    with fetching(policy, quick_limits(grace=PATIENCE_SECONDS)) as references:
        assert reason_of(references.fetch(unpinned(store.uri("/endless")))) == "reference_too_large"


@pytest.mark.parametrize(
    ("answered", "wanted"),
    [('"v-2"', "v-2"), ('"v-2"', '"v-2"'), ('W/"v-2"', "v-2"), ('"v-2"', 'W/"v-2"')],
)
def test_an_etag_may_pin_the_version_of_an_object(store: Store, answered: str, wanted: str) -> None:
    store.etag = answered
    with fetching(allowing(store), quick_limits()) as references:
        fetched = references.fetch(unpinned(store.uri("/tagged"), wanted))
        assert fetched.result(PATIENCE_SECONDS) == PICTURE
        assert reason_of(references.fetch(unpinned(store.uri("/tagged"), "v-1"))) == "etag_mismatch"
        assert reason_of(references.fetch(unpinned(store.uri("/picture"), wanted))) == "etag_mismatch"


def test_no_more_than_the_promised_size_is_read(store: Store) -> None:
    with fetching(allowing(store), quick_limits(grace=0.0)) as references:
        assert reason_of(references.fetch(reference(store.uri("/endless")))) == "size_mismatch"


def test_a_late_upload_is_waited_for(store: Store) -> None:
    with fetching(allowing(store), quick_limits(grace=PATIENCE_SECONDS)) as references:
        future = references.fetch(reference(store.uri("/late")))
        eventually(lambda: store.num_requests >= 2)
        store.answers["/late"] = (200, PICTURE)
        assert future.result(PATIENCE_SECONDS) == PICTURE


def test_an_unreachable_store_is_given_up_only_while_others_answer(store: Store) -> None:
    policy = ReferencePolicy(hosts=frozenset({store.host, "127.0.0.1:1"}), http_schemes=frozenset({"http"}))
    with fetching(policy, quick_limits(patience=0.05)) as references:
        unreachable = references.fetch(reference("http://127.0.0.1:1/x"))
        assert wait([unreachable], 0.5).not_done
        references.fetch(reference(store.uri("/picture"))).result(PATIENCE_SECONDS)
        assert reason_of(unreachable) == "reference_unreachable"


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_a_store_that_answers_with_an_error_is_given_up_after_the_patience(store: Store, status: int) -> None:
    store.answers["/broken"] = (status, b"")
    with fetching(allowing(store), quick_limits(patience=0.2)) as references:
        broken = references.fetch(reference(store.uri("/broken")))
        assert reason_of(broken) == "reference_unreachable"
        assert store.num_requests > 3


def test_a_store_that_stalls_after_it_has_answered_is_given_up(store: Store) -> None:
    with fetching(allowing(store), quick_limits(patience=0.0, timeout=0.05)) as references:
        half = references.fetch(reference(store.uri("/half")))
        assert reason_of(half) == "reference_unreachable"


def test_the_patience_with_an_answering_store_begins_with_its_first_answer() -> None:
    """A night without a network is no night of answers."""

    async def persist() -> list[type[Exception]]:
        now, seen = 0.0, list[type[Exception]]()
        references = References(
            ReferencePolicy(),
            FetchLimits(patience=ReferencePatience(30.0, 300.0), backoff=Backoff(0.0, 0.0)),
            failing=Metrics().references_failing,
            clock=lambda: now,
        )

        async def attempt(_: ContentReference) -> bytes:
            nonlocal now
            now += 100.0
            seen.append(ReferenceUnreachable if now < 10_000 else ReferenceWithheld)
            raise seen[-1]("")

        references._attempt = attempt  # type: ignore[method-assign]
        with pytest.raises(ReferenceGivenUp):
            await references._persist(reference("https://cdn.example/x"), "")
        return seen

    assert asyncio.run(persist()).count(ReferenceWithheld) == 4


def test_the_log_names_host_and_record_of_a_failing_reference_once_a_minute(store: Store) -> None:
    store.answers["/secret-path"] = (500, b"")
    with (
        capture_logs() as logs,
        fetching(allowing(store), quick_limits(patience=0.1)) as references,
    ):
        uri = store.uri("/secret-path?signature=secret")
        assert reason_of(references.fetch(reference(uri), "uploads-3@41")) == "reference_unreachable"
    [told] = [entry for entry in logs if entry["event"] == "a reference is tried again"]
    assert (told["host"], told["record"], told["error"]) == (
        f"http://{store.host}",
        "uploads-3@41",
        "answered 500",
    )
    assert "secret" not in str(told)


def test_a_refused_reference_lets_its_partition_go_on_and_can_be_republished(
    world: World, store: Store
) -> None:
    store.answers["/forbidden"] = (500, b"")
    world.set_options(references=allowing(store), fetches=quick_limits())
    world.publish(upload("forbidden", reference(store.uri("/forbidden"))))
    end = world.publish(upload("behind"))
    with world.running():
        world.wait_committed(end)
    assert world.reasons() == ["reference_unreachable"]
    [letter] = world.dead_letters()
    store.answers["/forbidden"] = (200, PICTURE)
    end = world.append(letter.key, letter.value)
    with world.running():
        world.wait_committed(end)
    assert world.searcher().find("forbidden") is not None


def test_a_stalled_store_meets_the_deadline(store: Store) -> None:
    with fetching(allowing(store), quick_limits(patience=0.0, timeout=0.05)) as references:
        stalled = references.fetch(reference(store.uri("/stalled")))
        eventually(lambda: store.num_requests >= 2)
        references.fetch(reference(store.uri("/picture"))).result(PATIENCE_SECONDS)
        assert reason_of(stalled) == "reference_unreachable"


def test_a_cancelled_fetch_ends(store: Store) -> None:
    with fetching(allowing(store), quick_limits(grace=60)) as references:
        future = references.fetch(reference(store.uri("/gone")))
        eventually(lambda: store.num_requests >= 1)
        assert future.cancel()


def test_fetched_bytes_keep_their_place_until_they_are_taken_or_nobody_wants_them(tmp_path: Path) -> None:
    """Else all that preparation has not come to yet would be held in memory."""
    (tmp_path / "picture").write_bytes(PICTURE)
    picture = reference(f"file://{tmp_path}/picture")
    limits = replace(quick_limits(), max_concurrent=1)
    with fetching(ReferencePolicy(file_roots=(tmp_path,)), limits) as references:
        tasks = [Task(0, 1, offset, offset + 1, None, offset, 0) for offset in range(3)]
        first, second, third = (references.fetch(picture) for _ in tasks)
        for task, fetch in zip(tasks, (first, second, third), strict=True):
            task.fetch(fetch)
        assert wait([first, second], PATIENCE_SECONDS, FIRST_COMPLETED).done == {first}
        assert not wait([second], timeout=0.1).done
        assert tasks[0].take_fetched() == PICTURE
        assert wait([second, third], PATIENCE_SECONDS, FIRST_COMPLETED).done == {second}
        tasks[1].cancel()
        assert third.result(PATIENCE_SECONDS) == PICTURE


def test_a_loop_that_does_not_begin_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_descriptors(_: float) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(fetching_module, "open_http_store", no_descriptors)
    with pytest.raises(OSError, match="too many open files"):
        References(ReferencePolicy(), quick_limits(), failing=Metrics().references_failing).start()


def test_closing_does_not_wait_for_a_disk_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_asked, answers = threading.Event(), threading.Event()

    def wait_for_the_disk(_: Path) -> None:
        is_asked.set()
        assert answers.wait(PATIENCE_SECONDS)

    monkeypatch.setattr(stores, "_check_file", wait_for_the_disk)
    with fetching(ReferencePolicy(file_roots=(tmp_path,)), quick_limits()) as references:
        references.fetch(reference(f"file://{tmp_path}/picture"))
        assert is_asked.wait(PATIENCE_SECONDS)
        references.close(timeout_seconds=0.0)
        answers.set()


def test_a_file_under_an_allowed_root_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "a picture.png").write_bytes(PICTURE)
    with fetching(ReferencePolicy(file_roots=(tmp_path,)), quick_limits()) as references:
        uri = f"file://{tmp_path}/a%20picture.png"
        assert references.fetch(reference(uri)).result(PATIENCE_SECONDS) == PICTURE


def test_a_file_that_is_not_there_is_absent(tmp_path: Path) -> None:
    with fetching(ReferencePolicy(file_roots=(tmp_path,)), quick_limits()) as references:
        assert reason_of(references.fetch(reference(f"file://{tmp_path}/none"))) == "reference_absent"


@pytest.mark.parametrize("way", ["link", "dots", "encoded dots", "host", "directory"])
def test_no_way_leads_out_of_a_root(tmp_path: Path, way: str) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret"
    root.mkdir()
    secret.write_bytes(PICTURE)
    (root / "link").symlink_to(secret)
    uris = {
        "link": f"file://{root}/link",
        "dots": f"file://{root}/../secret",
        "encoded dots": f"file://{root}/%2e%2e/secret",
        "host": f"file://elsewhere{root}/x",
        "directory": f"file://{root}",
    }
    with fetching(ReferencePolicy(file_roots=(root,)), quick_limits()) as references:
        assert reason_of(references.fetch(reference(uris[way]))) == "reference_refused"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        pytest.param("%00", "reference_refused", id="a zero byte"),
        pytest.param("%0A", "reference_absent", id="a line feed, nothing there"),
        pytest.param("loop", "reference_refused", id="a loop of links"),
        pytest.param("x" * 256, "reference_refused", id="a name that is too long"),
        pytest.param("x/" * 4096, "reference_refused", id="a path that is too long"),
        pytest.param("picture/x", "reference_absent", id="below a file"),
        pytest.param("line%0Afeed", "reference_refused", id="a line feed"),
        pytest.param("picture%235", "reference_refused", id="a name that obstore keeps for itself"),
        pytest.param("\ud800", "reference_refused", id="half a surrogate pair"),
    ],
)
def test_a_path_that_no_file_can_have_is_one_dead_letter(tmp_path: Path, path: str, reason: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("picture", "line\nfeed", "picture#5"):
        (tmp_path / name).write_bytes(PICTURE)
    with fetching(ReferencePolicy(file_roots=(tmp_path,)), quick_limits()) as references:
        assert reason_of(references.fetch(reference(f"file://{tmp_path}/{path}"))) == reason


@pytest.mark.parametrize(
    ("error", "patience"),
    [
        pytest.param(PermissionError(13, "Permission denied"), PATIENCE_SECONDS, id="no permission"),
        pytest.param(OSError(5, "Input/output error"), 0.0, id="no answer"),
    ],
)
def test_a_disk_that_does_not_let_us_look_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, patience: float
) -> None:
    (tmp_path / "picture").write_bytes(PICTURE)
    stat, errors = Path.stat, iter([error] * 3)

    def failing_stat(path: Path, **options: bool) -> os.stat_result:
        if path.name == "picture" and (failure := next(errors, None)):
            raise failure
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", failing_stat)
    with fetching(ReferencePolicy(file_roots=(tmp_path,)), quick_limits(patience=patience)) as references:
        future = references.fetch(reference(f"file://{tmp_path}/picture"))
        assert future.result(PATIENCE_SECONDS) == PICTURE


def test_a_file_that_may_not_be_read_is_given_up_although_nothing_else_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise ReferenceWithheld("not permitted")

    monkeypatch.setattr(stores, "_check_file", refuse)
    with fetching(ReferencePolicy(file_roots=(tmp_path,)), quick_limits(patience=0.05)) as references:
        assert reason_of(references.fetch(reference(f"file://{tmp_path}/x"))) == "reference_unreachable"


@given(path=st.text(max_size=30) | st.binary(max_size=30).map(quote_from_bytes))
def test_any_path_is_read_or_refused_by_name(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    root = tmp_path_factory.getbasetemp()
    policy = ReferencePolicy(file_roots=(root,))

    async def read() -> None:
        with suppress(ReferenceRefused, ReferenceAbsent, ReferenceUnreachable):
            policy.admit(f"file://{root}/{path}", 1)
            async for _ in FileStore(policy).stream(f"file://{root}/{path}", None):
                pass

    asyncio.run(read())


def test_an_error_that_no_rule_expects_is_logged_and_waited_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "picture").write_bytes(PICTURE)
    file_path, errors = ReferencePolicy.file_path, iter([LookupError("a defect")] * 2)

    def failing_file_path(policy: ReferencePolicy, uri: str) -> tuple[Path, Path]:
        if failure := next(errors, None):
            raise failure
        return file_path(policy, uri)

    monkeypatch.setattr(ReferencePolicy, "file_path", failing_file_path)
    policy = ReferencePolicy(file_roots=(tmp_path,))
    with capture_logs() as logs, fetching(policy, quick_limits()) as references:
        future = references.fetch(reference(f"file://{tmp_path}/picture"))
        assert future.result(PATIENCE_SECONDS) == PICTURE
    told = [entry for entry in logs if entry["event"] == "fetching a reference failed unexpectedly"]
    assert [entry["exc_info"] for entry in told] == [True, True]


@pytest.mark.parametrize(
    "uri",
    [
        "http://cdn.example/x",
        "https://other.example/x",
        "https://cdn.example:8443/x",
        "https://user:word@cdn.example/x",
        "https://cdn.example.evil.example/x",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1/x",
        "s3://other/x",
        "gs://photos/x",
        "ftp://cdn.example/x",
        "file:///etc/passwd-like",
        "x",
    ],
)
def test_everything_that_is_not_named_is_refused(uri: str) -> None:
    policy = ReferencePolicy(hosts=frozenset({"cdn.example"}), buckets=frozenset({"s3://photos"}))
    with fetching(policy, quick_limits()) as references:
        assert reason_of(references.fetch(reference(uri))) == "reference_refused"


def test_named_hosts_and_buckets_are_admitted() -> None:
    policy = ReferencePolicy(hosts=frozenset({"cdn.example"}), buckets=frozenset({"s3://photos"}))
    assert policy.admit("https://CDN.example/x?y", 9) == "http"
    assert policy.admit("s3://photos/a/b", 9) == "bucket"


def test_a_reference_above_the_size_limit_is_refused() -> None:
    policy = ReferencePolicy(hosts=frozenset({"cdn.example"}), max_size_bytes=10)
    with pytest.raises(ReferenceRefused):
        policy.admit("https://cdn.example/x", 11)


ABSENT, UNREACHABLE = ReferenceAbsent("reference_absent", ""), ReferenceUnreachable("")
WITHHELD = ReferenceWithheld("")


@pytest.mark.parametrize(
    ("error", "now", "other_success_at", "expected"),
    [
        pytest.param(WITHHELD, 149.0, None, False, id="withheld, within patience"),
        pytest.param(WITHHELD, 150.0, None, True, id="withheld, patience over"),
        pytest.param(ABSENT, 109.0, None, False, id="absent, within grace"),
        pytest.param(ABSENT, 110.0, None, True, id="absent, grace over"),
        pytest.param(UNREACHABLE, 149.0, 140.0, False, id="unreachable, within patience"),
        pytest.param(UNREACHABLE, 150.0, 140.0, True, id="unreachable, others succeed"),
        pytest.param(UNREACHABLE, 999.0, None, False, id="unreachable, nobody ever succeeded"),
        pytest.param(UNREACHABLE, 999.0, 99.0, False, id="unreachable, nobody succeeded since"),
    ],
)
def test_patience(
    error: ReferenceAbsent | ReferenceUnreachable, now: float, other_success_at: float | None, expected: bool
) -> None:
    patience = ReferencePatience(grace_seconds=10, patience_seconds=50)
    assert (
        patience.is_over(error, failing_since=100.0, other_success_at=other_success_at, now=now) is expected
    )


def test_a_waiting_reference_holds_its_partition_and_no_other(tmp_path: Path, store: Store) -> None:
    world = World(tmp_path, num_partitions=2)
    world.set_options(references=allowing(store), fetches=quick_limits(grace=60))
    with world.running():
        world.publish(upload("waits", reference(store.uri("/late"))), 0)
        end = world.publish(upload("behind"), 0)
        world.wait_committed(world.publish(upload("elsewhere"), 1), 1)
        eventually(lambda: store.num_requests >= 2)
        assert world.next_offset(0) == 0
        store.answers["/late"] = (200, PICTURE)
        world.wait_committed(end, 0)
    assert all(world.searcher().find(name) for name in ("waits", "behind", "elsewhere"))


def test_a_referenced_text_must_be_unicode(world: World, store: Store) -> None:
    store.answers["/text"] = (200, b"\xff\xfe\x00")
    world.set_options(references=allowing(store), preparation=PreparationOptions())
    world.publish(upload("x", reference(store.uri("/text"), b"\xff\xfe\x00", "text")))
    with world.running():
        world.wait_committed(1)
    assert world.reasons() == ["not_unicode"]
