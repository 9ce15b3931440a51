"""Services and commands of which the index lies in a bucket of a real server."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from clip_index.reading.index_reader import IndexReader
from clip_index.storage.index_roots import ObjectRoot
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.merge_worker import MergeFailed
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from cliptide.__main__ import main
from cliptide.doctor.disk_checks import check_disk, check_index
from consumer.settings import IndexSettings, Settings
from fakes.shards import add, content, create_index, take_over
from tests.consumer.running import PATIENCE_SECONDS
from tests.object_stores.servers import free_port
from tests.query_api.test_process import Start, address_of, start, told_by

__all__ = ["start"]


@pytest.fixture
def url(s3_url: str) -> str:
    return f"{s3_url}/some/index"


@pytest.fixture
def root(url: str, tmp_path: Path) -> ObjectRoot:
    return ObjectRoot(url, tmp_path / "cache")


@pytest.fixture
def writer(root: ObjectRoot) -> Iterator[ShardWriter]:
    """The writer of the only shard: generations 1 to 3."""
    writer = take_over(create_index(root))
    for name in "ab":
        add(writer, [content(name, writer.next_offset)])
        writer.commit()
    yield writer
    writer.close()


@pytest.fixture
def snapshot(url: str, tmp_path: Path) -> Callable[..., Result]:
    options = ["--index-root", url, "--index-cache-dir", str(tmp_path / "another machine")]

    def run(*words: str) -> Result:
        return CliRunner(env={"COLUMNS": "200"}).invoke(main, ["snapshot", *words, *options])

    return run


def test_generations_are_listed_and_every_file_verified(
    writer: ShardWriter, snapshot: Callable[..., Result]
) -> None:
    result = snapshot("list", "--json")
    assert result.exit_code == 0, result.output
    listed = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(one["generation"], one["damage"]) for one in listed] == [(3, None), (2, None), (1, None)]


def test_a_damaged_object_is_found_and_repaired(
    writer: ShardWriter, snapshot: Callable[..., Result], root: ObjectRoot
) -> None:
    newest = writer.manifest.segments[-1].stored_name
    writer.store.replace(newest, b"damaged")
    assert snapshot("list").exit_code == 1
    assert snapshot("repair", "--while-running").exit_code == 0
    assert snapshot("list").exit_code == 0
    reader = IndexReader(root)
    reader.reload()
    assert reader.searcher is not None
    assert reader.searcher.find("a") is not None
    assert reader.searcher.find("b") is None


def test_a_consumer_that_shows_life_is_not_fenced_without_a_word(
    writer: ShardWriter, snapshot: Callable[..., Result]
) -> None:
    writer.renew_watermark(1_700_000_000_000)
    result = snapshot("rollback", "--partition", "0", "--generation", "2")
    assert result.exit_code == 1
    assert "a consumer has shown life within the last 30 seconds" in result.output


def test_a_backup_is_an_index_in_a_directory(
    writer: ShardWriter, snapshot: Callable[..., Result], tmp_path: Path
) -> None:
    result = snapshot("backup", str(tmp_path / "backup"))
    assert result.exit_code == 0, result.output
    reader = IndexReader(tmp_path / "backup")
    reader.reload()
    assert reader.searcher is not None
    assert reader.searcher.find("b") is not None


def test_a_backup_under_ingest_goes_into_another_bucket_and_comes_back(
    root: ObjectRoot, s3_url: str, tmp_path: Path
) -> None:
    """Contents arrive, segments are merged and garbage is collected at once, again and again, meanwhile."""
    cache, is_over = ["--index-cache-dir", str(tmp_path / "cache")], threading.Event()
    writer = take_over(create_index(root), settings=WriterSettings(0.0, 0.0, MergeSettings(4)))

    def ingest() -> None:
        while not is_over.is_set():
            add(writer, [content(str(writer.next_offset), writer.next_offset)])
            writer.commit()
            with contextlib.suppress(MergeFailed):
                writer.maintain()

    def run(*words: str) -> dict[str, Any]:
        result = CliRunner().invoke(main, ["snapshot", *words, *cache, "--json"])
        assert result.exit_code == 0, f"{result.output} {result.exception}"
        told: dict[str, Any] = json.loads(result.stdout)
        return told

    thread = threading.Thread(target=ingest)
    thread.start()
    try:
        for number in range(2):
            told = run("backup", f"{s3_url}/saved", "--index-root", root.url)
            run("restore", f"{s3_url}/saved", "--index-root", f"{s3_url}/new-{number}")
            reader = IndexReader(ObjectRoot(f"{s3_url}/new-{number}", tmp_path / "another machine"))
            reader.reload()
            assert reader.searcher is not None
            [shard] = reader.searcher.shards.values()
            assert shard.next_offset == told["next_offset"] == sum(shard.num_contents.values())
    finally:
        is_over.set()
        thread.join()
        writer.close()


@pytest.mark.parametrize(
    ("bucket", "told"),
    [
        pytest.param("s3://no-such-bucket", "s3://no-such-bucket: the bucket does not exist", id="missing"),
        pytest.param("ftp://bucket", "must be a directory, or a bucket's URL", id="another scheme"),
    ],
)
def test_a_command_says_in_one_line_what_is_wrong_with_a_bucket(
    s3_url: str, bucket: str, told: str, tmp_path: Path
) -> None:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(main, ["snapshot", "list", "--index-root", bucket])
    assert result.exit_code in (1, 2)
    assert told in result.output
    assert "Traceback" not in result.output


def settings_of(url: str, tmp_path: Path) -> Settings:
    return Settings(index=IndexSettings(root=url, cache_dir=tmp_path / "cache"))


def test_the_doctor_tries_what_a_commit_does_and_leaves_nothing(url: str, tmp_path: Path) -> None:
    settings = settings_of(url, tmp_path)
    bucket, *_ = check_disk(settings)
    assert (bucket.check, bucket.status) == ("bucket", "ok"), bucket.message
    [index] = check_index(settings)
    assert "a consumer creates it" in index.message
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_says_what_to_set_for_a_bucket_that_cannot_be_used(s3_url: str, tmp_path: Path) -> None:
    [bucket, *_] = check_disk(settings_of("s3://no-such-bucket/index", tmp_path))
    assert (bucket.status, bucket.message) == (
        "failed",
        "s3://no-such-bucket/index: the bucket does not exist",
    )
    assert "AWS_ENDPOINT_URL" in (bucket.remedy or "")


def test_the_query_service_waits_for_a_store_that_is_away_and_says_so(tmp_path: Path, start: Start) -> None:
    process = start(
        CLIPTIDE_INDEX__ROOT="s3://bucket/index",
        CLIPTIDE_INDEX__CACHE_DIR=str(tmp_path),
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}",
        AWS_ACCESS_KEY_ID="key",
        AWS_SECRET_ACCESS_KEY="secret",
        AWS_REGION="us-east-1",
    )
    told = told_by(process, "waiting for the store of the index")
    assert told["reason"].startswith("s3://bucket/index: ")
    process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE_SECONDS)


def test_the_query_service_starts_before_there_is_an_index(url: str, tmp_path: Path, start: Start) -> None:
    process = start(CLIPTIDE_INDEX__ROOT=url, CLIPTIDE_INDEX__CACHE_DIR=str(tmp_path))
    with urllib.request.urlopen(f"{address_of(process)}/livez", timeout=PATIENCE_SECONDS) as response:
        assert response.status == 200
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_SECONDS) == 0
