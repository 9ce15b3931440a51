"""What a real client makes of a real server on a bad day: a proxy between them answers chosen requests."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from clip_index.storage.buckets import object_bucket
from clip_index.storage.buckets.object_bucket import open_bucket
from clip_index.storage.buckets.object_store import ObjectShardStore
from clip_index.storage.file_digest import digest_of
from clip_index.storage.index_roots import ObjectRoot, open_root
from clip_index.storage.shard_store import StoreRefused, StoreUnreachable
from crashes.shard_life import SETTINGS, live, open_and_check
from crashes.small_log import build_log
from fakes.object_stores import object_store
from tests.fixtures.buckets import reach
from tests.object_stores.faulty_proxy import (
    Answer,
    Asked,
    CutShort,
    Fate,
    FaultyProxy,
    Reset,
    faulty_proxy,
    xml_error,
)
from tests.object_stores.servers import ObjectServer

MEBIBYTE = 2**20


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=5), "base": 2}
    monkeypatch.setitem(object_bucket._RETRIES, "backoff", quick)


@pytest.fixture
def proxied(
    s3_gateway: ObjectServer, monkeypatch: pytest.MonkeyPatch, quick_retries: None
) -> Iterator[tuple[FaultyProxy, str]]:
    """A proxy, and the URL of a bucket that is reached through it."""
    url = reach(s3_gateway, monkeypatch)
    with faulty_proxy(s3_gateway.environment["AWS_ENDPOINT_URL"]) as (proxy, endpoint):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        yield proxy, url


@pytest.fixture
def proxy(proxied: tuple[FaultyProxy, str]) -> FaultyProxy:
    return proxied[0]


@pytest.fixture
def store(proxied: tuple[FaultyProxy, str], tmp_path: Path) -> ObjectShardStore:
    return object_store(open_bucket(f"{proxied[1]}/some/index"), "uploads-0", tmp_path / "machine")


@pytest.mark.parametrize("is_done", [False, True], ids=["not carried out", "carried out"])
def test_an_index_is_the_fold_of_its_log_though_each_tenth_request_gets_no_answer(
    proxied: tuple[FaultyProxy, str], tmp_path: Path, is_done: bool
) -> None:
    proxy, url = proxied
    proxy.decide = lambda asked: None if asked.number % 10 else Reset(is_done)
    root, log = ObjectRoot(f"{url}/index", tmp_path / "writer"), build_log(5, 20)
    live(root, log, lambda *_: None, settings=SETTINGS)
    assert open_and_check(ObjectRoot(f"{url}/index", tmp_path / "reader"), log)[1] == len(log)
    assert len(proxy.asked) > 100


def test_a_store_that_is_too_busy_is_waited_for(proxy: FaultyProxy, store: ObjectShardStore) -> None:
    proxy.decide = lambda _: Answer(503, xml_error("SlowDown", "Please reduce your request rate."))
    for _ in range(3):
        with pytest.raises(StoreUnreachable, match=r"SlowDown|503"):
            store.bucket.put("one", b"1")
    proxy.decide = lambda _: None
    store.bucket.put("one", b"1")
    assert store.bucket.get("one") == b"1"


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        pytest.param(400, "ExpiredToken", "the credentials have expired", id="an expired token"),
        pytest.param(403, "ExpiredToken", "the credentials have expired", id="expired, and forbidden"),
        pytest.param(403, "RequestTimeTooSkewed", "this machine's clock", id="a clock that is wrong"),
        pytest.param(403, "AccessDenied", "the credentials are refused", id="a bucket policy"),
        pytest.param(400, "InvalidToken", "the credentials are refused", id="another account's token"),
        pytest.param(403, "InvalidObjectState", "archive", id="an object in an archive"),
    ],
)
def test_an_answer_that_a_person_must_act_on_is_one_sentence_and_no_wait(
    proxy: FaultyProxy, store: ObjectShardStore, status: int, code: str, told: str
) -> None:
    store.bucket.put("one", b"1")
    proxy.decide = lambda _: Answer(status, xml_error(code))
    for ask in (lambda: store.bucket.get("one"), lambda: store.bucket.put("one", b"2"), store.list_names):
        with pytest.raises(StoreRefused, match=told) as found:
            ask()
        assert "\n" not in str(found.value)
    proxy.decide = lambda _: None
    assert store.bucket.get("one") == b"1", "what a person has mended goes on"


@pytest.mark.parametrize("code", ["RequestTimeout", "BadDigest", "IncompleteBody"])
def test_what_was_damaged_or_lost_on_its_way_is_tried_again(
    proxy: FaultyProxy, store: ObjectShardStore, code: str
) -> None:
    proxy.decide = lambda _: Answer(400, xml_error(code))
    with pytest.raises(StoreUnreachable, match=code):
        store.bucket.put("one", b"1")


def test_a_bad_request_that_is_answered_without_a_reason_names_the_likely_ones(
    proxy: FaultyProxy, store: ObjectShardStore
) -> None:
    """The answer to HEAD has no body, and a query service asks nothing else while nothing is new."""
    proxy.decide = lambda _: Answer(400)
    with pytest.raises(StoreRefused, match=r"400 Bad Request, as for credentials that have expired"):
        store.exists("one")


def test_a_redirect_to_another_region_names_the_variable(proxy: FaultyProxy, store: ObjectShardStore) -> None:
    headers = {"x-amz-bucket-region": "eu-central-1"}
    proxy.decide = lambda _: Answer(301, xml_error("PermanentRedirect"), headers)
    with pytest.raises(StoreRefused, match="another region: set AWS_REGION"):
        store.list_names()


@pytest.mark.parametrize("name", ["a document", "a large file"])
def test_a_body_that_is_cut_short_is_fetched_again(
    proxy: FaultyProxy, store: ObjectShardStore, tmp_path: Path, name: str
) -> None:
    data = bytes(range(256)) * (1 if name == "a document" else 8192)
    store.bucket.put("uploads-0/one", data)
    fates: Iterator[Fate] = iter([CutShort()])
    proxy.decide = lambda asked: next(fates, None) if asked.method == "GET" else None
    is_small = len(data) < 1000

    def read() -> bytes:
        return store.read("one") if is_small else store.local_file("one", digest_of(data)).read_bytes()

    with contextlib.suppress(StoreUnreachable):  # if the client does not try again by itself
        assert read() == data
    assert read() == data


def test_a_body_that_is_always_cut_short_is_trouble_and_no_damage(
    proxy: FaultyProxy, store: ObjectShardStore
) -> None:
    store.bucket.put("uploads-0/one", bytes(1000))
    proxy.decide = lambda asked: CutShort() if asked.method == "GET" else None
    with pytest.raises(StoreUnreachable):
        store.read("one")
    with pytest.raises(StoreUnreachable):
        store.local_file("one", digest_of(bytes(1000)))


@pytest.mark.parametrize(
    "fate",
    [
        pytest.param(Answer(200, xml_error("InternalError")), id="an error behind a 200"),
        pytest.param(Answer(200, b"<html><body>a proxy</body></html>"), id="the page of a proxy"),
        pytest.param(Answer(200, b""), id="nothing"),
        pytest.param(Answer(204), id="no content"),
        pytest.param(CutShort(), id="cut short"),
    ],
)
def test_no_answer_that_is_no_listing_is_taken_for_an_empty_one(
    proxy: FaultyProxy, store: ObjectShardStore, fate: Fate
) -> None:
    store.bucket.put("uploads-0/manifest-1", b"1")
    fates: Iterator[Fate] = iter([fate])
    proxy.decide = lambda _: next(fates, None)
    with contextlib.suppress(StoreUnreachable):
        assert store.list_names() == ["manifest-1"]
    assert store.list_names() == ["manifest-1"]


def publish(store: ObjectShardStore, num_bytes: int) -> None:
    store.staging_path("segments/a").write_bytes(bytes(num_bytes))
    store.publish("segments/a")


def test_no_single_request_carries_more_than_a_part(proxy: FaultyProxy, store: ObjectShardStore) -> None:
    """S3 takes no more than 5 GB at once; here the server takes no more than 9 MiB."""
    limit = 9 * MEBIBYTE

    def refuse_large(asked: Asked) -> Fate:
        return Answer(400, xml_error("EntityTooLarge")) if asked.num_bytes > limit else None

    proxy.decide = refuse_large
    publish(store, 30 * MEBIBYTE)
    assert store.holds("segments/a", digest_of(bytes(30 * MEBIBYTE)))


@pytest.mark.parametrize("status", [200, 500], ids=["an error behind a 200", "an error"])
def test_an_upload_in_parts_that_is_not_completed_is_not_published(
    proxy: FaultyProxy, store: ObjectShardStore, status: int
) -> None:
    """S3 answers the completion with 200 before it knows whether it succeeds."""
    proxy.decide = lambda one: Answer(status, xml_error("InternalError")) if one.is_completion else None
    with pytest.raises(StoreUnreachable):
        publish(store, 20 * MEBIBYTE)
    proxy.decide = lambda _: None
    assert store.list_names("segments") == []
    publish(store, 20 * MEBIBYTE)
    assert store.holds("segments/a", digest_of(bytes(20 * MEBIBYTE)))


@pytest.mark.parametrize("prefix", ["with space/ä", "a+b&c=d;e,f", "per%25cent", "'quoted' (x)/~t", "-/_/."])
def test_a_prefix_that_a_url_must_escape_holds_an_index(s3_url: str, tmp_path: Path, prefix: str) -> None:
    log = build_log(7, 8)
    root = ObjectRoot(f"{s3_url}/{prefix}", tmp_path / "writer")
    live(root, log, lambda *_: None, settings=SETTINGS)
    assert open_and_check(ObjectRoot(f"{s3_url}/{prefix}", tmp_path / "reader"), log)[1] == len(log)
    open_root(root).remove("indexes")
    assert not any(re.match("indexes", name) for name in open_root(root).list_names())
