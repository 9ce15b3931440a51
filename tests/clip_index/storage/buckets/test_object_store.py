"""What a store of objects does when a bucket answers wrongly, late or not at all."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from clip_index.errors import DamagedFile, IndexRefused
from clip_index.generations.history import list_generations
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.storage.buckets import object_bucket
from clip_index.storage.buckets.object_bucket import ObjectBucket, ObjectFacts, open_bucket
from clip_index.storage.buckets.object_store import ObjectShardStore
from clip_index.storage.file_digest import digest_of
from clip_index.storage.index_roots import ObjectRoot, open_root
from clip_index.storage.shard_store import CreationUnknown, StoreRefused, StoreUnreachable
from clip_index.writing.shard_writer import WriterSettings
from fakes.faulty_bucket import Fault, FaultyBucket
from fakes.object_stores import memory_bucket, object_store
from fakes.shards import add, content, create_index, take_over
from tests.object_stores.servers import ObjectServer, free_port


@pytest.fixture
def bucket() -> ObjectBucket:
    return memory_bucket()


def store_of(bucket: ObjectBucket, tmp_path: Path) -> ObjectShardStore:
    return object_store(bucket, "uploads-0", tmp_path / "cache")


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name)
def test_a_creation_succeeds_whatever_one_answer_says(
    bucket: ObjectBucket, tmp_path: Path, fault: Fault
) -> None:
    store_of(FaultyBucket(bucket, 1, fault), tmp_path).create_exclusively("one", b"ours")
    assert store_of(bucket, tmp_path).read("one") == b"ours"


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name)
def test_a_name_that_another_writer_has_is_taken_whatever_one_answer_says(
    bucket: ObjectBucket, tmp_path: Path, fault: Fault
) -> None:
    store_of(bucket, tmp_path).create_exclusively("one", b"theirs")
    with pytest.raises(FileExistsError):
        store_of(FaultyBucket(bucket, 1, fault), tmp_path).create_exclusively("one", b"ours")
    assert store_of(bucket, tmp_path).read("one") == b"theirs"


def test_a_put_that_arrives_late_does_not_overwrite_another_writer(
    bucket: ObjectBucket, tmp_path: Path
) -> None:
    """The put of a writer that was told of an error is carried out when another one has the name."""
    faulty = FaultyBucket(bucket, 1, Fault.LATE)
    with pytest.raises(StoreUnreachable):
        faulty.put_if_absent("uploads-0/one", b"ours")
    bucket.put_if_absent("uploads-0/one", b"theirs")
    for _ in range(3):
        faulty.list_level("")
    assert bucket.get("uploads-0/one") == b"theirs"


class NeverStoring(ObjectBucket):
    """Says of each put that the object exists, and stores nothing."""

    def put_if_absent(self, key: str, data: bytes) -> None:
        raise FileExistsError(errno.EEXIST, key)


class Unreadable(NeverStoring):
    def get(self, key: str, max_bytes: int = 0) -> bytes:
        raise StoreUnreachable(errno.EHOSTUNREACH, "away")


class Overwriting(ObjectBucket):
    """Does not know the condition of a put, as some stores do not."""

    def put_if_absent(self, key: str, data: bytes) -> None:
        self.put(key, data)


class Refusing(ObjectBucket):
    def put_if_absent(self, key: str, data: bytes) -> None:
        raise StoreRefused(errno.EACCES, "the credentials are refused")


@pytest.mark.parametrize("kind", [NeverStoring, Unreadable])
def test_what_cannot_be_created_and_not_be_read_is_unknown(
    bucket: ObjectBucket, tmp_path: Path, kind: type[ObjectBucket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clip_index.storage.buckets.object_store._PAUSE_SECONDS", 0.0)
    with pytest.raises(CreationUnknown):
        store_of(kind(bucket._store, bucket.url), tmp_path).create_exclusively("one", b"ours")


def test_a_refused_creation_is_known_to_have_stored_nothing(bucket: ObjectBucket, tmp_path: Path) -> None:
    with pytest.raises(StoreRefused, match="credentials"):
        store_of(Refusing(bucket._store, bucket.url), tmp_path).create_exclusively("one", b"ours")


def test_a_store_that_overwrites_what_exists_is_refused(bucket: ObjectBucket, tmp_path: Path) -> None:
    store = object_store(Overwriting(bucket._store, bucket.url), "", tmp_path / "cache")
    assert not store.can_create_exclusively()
    with pytest.raises(IndexRefused, match=r"memory://bucket.*overwrites.*If-None-Match.*commits need"):
        create_index(store)


def test_an_object_that_no_document_of_an_index_can_be_is_not_read(
    bucket: ObjectBucket, tmp_path: Path
) -> None:
    bucket.put("uploads-0/manifest", bytes(1000))
    with pytest.raises(DamagedFile, match="1000 bytes, where at most 999"):
        bucket.get("uploads-0/manifest", 999)


def test_a_large_object_arrives_in_parts(
    bucket: ObjectBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_bucket, "_CHUNK_BYTES", 1000)
    data = bytes(range(250)) * 11
    store = store_of(bucket, tmp_path)
    store.staging_path("segments/a").write_bytes(data)
    assert store.publish("segments/a") == digest_of(data)
    assert [len(chunk) for chunk in bucket.chunks("uploads-0/segments/a")] == [1000, 1000, 750]
    elsewhere = object_store(bucket, "uploads-0", tmp_path / "elsewhere")
    assert elsewhere.local_file("segments/a", digest_of(data)).read_bytes() == data


def test_what_was_published_is_a_copy_already(bucket: ObjectBucket, tmp_path: Path) -> None:
    faulty = FaultyBucket(bucket, 10**9, Fault.NOT_DONE)
    store = store_of(faulty, tmp_path)
    store.staging_path("segments/a").write_bytes(b"rows")
    digest = store.publish("segments/a")
    assert store.local_file("segments/a", digest).read_bytes() == b"rows"
    assert faulty.num_requests == 1


def test_a_failed_upload_leaves_nothing_in_the_bucket(bucket: ObjectBucket, tmp_path: Path) -> None:
    store = store_of(FaultyBucket(bucket, 1, Fault.DONE_THEN_UNAVAILABLE), tmp_path)
    store.staging_path("segments/a").write_bytes(b"rows")
    with pytest.raises(StoreUnreachable):
        store.publish("segments/a")
    assert store.list_names("segments") == []


def test_the_clock_of_the_store_is_asked_for_once(bucket: ObjectBucket, tmp_path: Path) -> None:
    faulty = FaultyBucket(bucket, 10**9, Fault.NOT_DONE)
    store = object_store(faulty, "", tmp_path / "cache")
    assert abs(store.below("uploads-0").seconds_ahead()) < 60
    num_requests = faulty.num_requests
    store.below("uploads-1").seconds_ahead()
    assert faulty.num_requests == num_requests
    assert store.list_names("uploads-0") == []


class Told(BaseHTTPRequestHandler):
    """An S3 server that refuses every credential."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Told)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    reach(monkeypatch, server.server_port)
    yield
    server.shutdown()
    server.server_close()


def reach(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")


def test_refused_credentials_are_said_in_plain_words(refusing_server: None, tmp_path: Path) -> None:
    with pytest.raises(StoreRefused) as told:
        IndexDirectory.open(ObjectRoot("s3://bucket/index", tmp_path))
    assert str(told.value).startswith("s3://bucket/index: the credentials are refused")
    assert "very-secret" not in str(told.value)
    assert told.value.errno == errno.EACCES


def test_a_bucket_that_does_not_exist_is_said_in_plain_words(
    s3_gateway: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_gateway.environment.items():
        monkeypatch.setenv(name, value)
    root = ObjectRoot("s3://no-such-bucket/index", tmp_path)
    with pytest.raises(StoreRefused) as told:
        IndexDirectory.open(root)
    assert str(told.value) == "s3://no-such-bucket/index: the bucket does not exist"
    with pytest.raises(StoreRefused, match="the bucket does not exist"):
        create_index(root)  # type: ignore[arg-type]
    with pytest.raises(StoreRefused, match="the bucket does not exist"):
        open_root(root).read("current-1.json")


def test_a_store_that_does_not_answer_is_transient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reach(monkeypatch, free_port())
    monkeypatch.setitem(object_bucket._RETRIES, "max_retries", 0)
    with pytest.raises(StoreUnreachable, match=r"s3://bucket/index: .*HTTP error") as told:
        IndexDirectory.open(ObjectRoot("s3://bucket/index", tmp_path))
    assert "\n" not in str(told.value)
    with pytest.raises(StoreUnreachable) as again:
        IndexDirectory.open(ObjectRoot("s3://bucket/index", tmp_path))
    assert str(again.value) == str(told.value), "a log says it once as long as the text stays"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        pytest.param("ftp://bucket", "begins with s3://", id="another scheme"),
        pytest.param("s3://bucket/a?b", "write . as %3F", id="a question mark"),
        pytest.param("s3://bucket/a#b", "write . as %3F and # as %23", id="a hash"),
        pytest.param("s3://key:pass@bucket/a", r"^s3://…@bucket/a: credentials", id="credentials"),
        pytest.param("az://container", "Account must be specified", id="Azure without an account"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(
    url: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(StoreRefused, match=told):
        open_root(ObjectRoot(url, tmp_path))


def test_one_root_has_one_store_in_a_process(tmp_path: Path) -> None:
    root = ObjectRoot("memory://index", tmp_path)
    open_root(root).replace("one", b"1")
    assert open_root(ObjectRoot("memory://index", tmp_path)).read("one") == b"1"


def test_a_bucket_of_google_is_opened_without_a_request() -> None:
    assert open_bucket("gs://bucket/index/").url == "gs://bucket/index"


class Skewed(ObjectBucket):
    """A store whose clock is wrong by an hour."""

    skew_seconds = 0.0

    def facts_of(self, key: str) -> ObjectFacts:
        return self._skewed(super().facts_of(key))

    def list_all(self, prefix: str) -> Mapping[str, ObjectFacts]:
        return {key: self._skewed(facts) for key, facts in super().list_all(prefix).items()}

    def _skewed(self, facts: ObjectFacts) -> ObjectFacts:
        return replace(facts, modified_at=facts.modified_at + self.skew_seconds)


@pytest.mark.parametrize("hours", [-1, 1], ids=["behind", "ahead"])
def test_ages_are_right_by_a_store_whose_clock_is_wrong_by_an_hour(
    bucket: ObjectBucket, tmp_path: Path, hours: int
) -> None:
    skewed = Skewed(bucket._store, bucket.url)
    skewed.skew_seconds = 3600.0 * hours
    moved = 0.0
    writer = take_over(
        create_index(object_store(skewed, "", tmp_path / "cache")),
        settings=WriterSettings(retain_for_seconds=600.0, collect_every_seconds=0.0),
        clock=lambda: time.time() + moved,
    )
    for number in range(5):
        add(writer, [content(f"c{number}", number)])
        writer.commit()
    moved = 500.0
    writer.maintain()
    assert len(list_generations(writer.store)) == 6, "everything is young"
    moved = 700.0
    writer.maintain()
    assert len(list_generations(writer.store)) == 3
