"""Records in, a searchable index out."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import pytest
from structlog.testing import capture_logs

from clip_index.content import StoredContent
from clip_index.errors import EncoderMismatch
from clip_index.generations.watermark import Watermark, write_watermark
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.storage.index_roots import IndexRoot
from consumer.backlog.backlog import BacklogLimits
from consumer.dead_letters.dead_letter_limit import FloodThreshold
from consumer.encoding.batcher import BatchLimits
from consumer.errors import DeadLetterFlood
from consumer.preparation.steps import PreparationOptions
from consumer.references.policy import ReferencePolicy
from consumer.writing.owned_shard import CommitPolicy
from event_log.errors import FatalLogError, TransientLogError
from event_log.memory.clients import MemoryLog
from event_log.records import Headers
from fakes.hash_encoder import HashEncoder, draw_picture
from schemas.codec import encode_event
from schemas.dead_letters import read_explanation
from schemas.errors import UnknownSchema
from schemas.events import Content, ContentReference, DeleteEvent, ImageContent, Modality, TextContent
from schemas.mapping.loading import load_mapping
from tests.consumer.encoders import BrokenEncoder, CountingEncoder, HeldEncoder
from tests.consumer.running import DEAD_LETTER_TOPIC, PATIENCE_SECONDS, TOPIC, World, eventually, upload


@pytest.fixture
def world(root: IndexRoot) -> World:
    """What is told here holds for a directory and for a bucket."""
    return World(root)


def test_texts_and_pictures_become_contents_of_the_index(world: World) -> None:
    with world.running():
        world.publish(upload("t1"))
        end = world.publish(upload("p1", ImageContent(draw_picture(1))))
        world.wait_committed(end)
    searcher = world.searcher()
    text, picture = searcher.find("t1"), searcher.find("p1")
    assert text is not None
    assert picture is not None
    assert searcher.read(text).facts.text == "a text about t1"
    assert searcher.read(picture).modality == "image"
    assert world.reasons() == []


def test_every_partition_becomes_a_shard(tmp_path: Path) -> None:
    world = World(tmp_path, num_partitions=3)
    with world.running():
        ends = [world.publish(upload(f"c{partition}"), partition) for partition in range(3)]
        for partition, end in enumerate(ends):
            world.wait_committed(end, partition)
    assert sorted(world.searcher().shards) == [f"{TOPIC}-{partition}" for partition in range(3)]


def test_a_delete_event_and_a_null_value_remove_contents(world: World) -> None:
    with world.running():
        for content_id in ("kept", "deleted", "nulled"):
            world.publish(upload(content_id))
        world.publish(DeleteEvent("e", "deleted", "tests", datetime.now(timezone.utc)))
        world.wait_committed(world.append(b"nulled", None))
    searcher = world.searcher()
    assert [searcher.find(name) is not None for name in ("kept", "deleted", "nulled")] == [True, False, False]


def test_transaction_markers_and_gaps_are_passed(world: World) -> None:
    world.publish(upload("a"))
    world.log.append_marker(TOPIC, 0)
    world.publish(upload("removed"))
    world.publish(upload("b"))
    world.log.append_marker(TOPIC, 0)
    world.log.remove(TOPIC, 0, 2)
    with world.running():
        world.wait_committed(5)
    assert world.next_offset() == 5
    assert world.searcher().find("b") is not None


def test_a_graceful_stop_commits_what_is_encoded_and_the_group_learns_of_it(world: World) -> None:
    world.set_options(commits=CommitPolicy(interval_seconds=60.0))
    with world.running():
        end = world.publish(upload("late"))
        eventually(lambda: world.stage_count("add") == 1)
    assert world.next_offset() == end
    assert world.group_offset() == end
    assert not (world.shard_path() / "inflight.json").exists()


def test_after_a_graceful_restart_nothing_is_encoded_again(world: World) -> None:
    world.encoder = encoder = CountingEncoder()
    for number in range(20):
        world.publish(upload(f"c{number}"))
    with world.running():
        world.wait_committed(10)
    with world.running():
        world.wait_committed(20)
    assert encoder.num_encoded == 20


def test_batches_are_encoded_together(world: World) -> None:
    world.encoder = encoder = CountingEncoder()
    for number in range(64):
        world.publish(upload(f"c{number}"))
    with world.running():
        world.wait_committed(64)
    assert encoder.num_calls < 32
    assert encoder.largest_batch <= 32


def stored(world: World, content_id: str) -> StoredContent:
    searcher = world.searcher()
    location = searcher.find(content_id)
    assert location is not None
    return searcher.read(location)


def test_records_of_another_form_become_contents_by_a_mapping(tmp_path: Path) -> None:
    """Rows of a table: an upsert, a change, a delete and the tombstones behind it."""
    world = World(tmp_path, num_partitions=2)
    world.set_options(mapping=load_mapping("debezium"))
    row = {"op": "c", "ts_ms": 1_763_630_000_000, "before": None, "after": {"id": 7, "text": "a red shoe"}}
    gone = {"op": "d", "ts_ms": 1_763_630_000_002, "before": {"id": 8}, "after": None}
    key = b'{"id":7}'
    world.append(key, json.dumps(row).encode(), 1)
    world.append(key, json.dumps(row | {"op": "u", "after": {"id": 7, "text": "a blue shoe"}}).encode(), 1)
    world.append(b'{"id":8}', json.dumps(row | {"after": {"id": 8, "text": "a hat"}}).encode(), 1)
    world.append(b'{"id":8}', json.dumps(gone).encode(), 1)
    world.append(b'{"id":8}', None, 1)
    end = world.append(b"x", json.dumps(row | {"after": {"id": 9}}).encode(), 1)
    with capture_logs() as lines, world.running():
        world.wait_committed(end, 1)
    assert stored(world, "7").facts.text == "a blue shoe"
    assert world.searcher().find("8") is None
    assert world.reasons() == ["mapping_failed"]
    said = [line for line in lines if line["event"] == "a key is not the content id"]
    assert [line["record"] for line in said] == [f"{TOPIC}-1@0"]
    value = world.metrics.registry.get_sample_value
    assert value("cliptide_consumer_other_keys_total") == 4
    assert value("cliptide_consumer_passed_over_total", {"rule": "tombstones"}) == 1
    assert value("cliptide_consumer_misplaced_records_total") <= 1


def test_title_and_lists_of_texts_are_kept(world: World) -> None:
    event = replace(upload("shoe"), title="A shoe", metadata={"tags": ("red", "new"), "price": 4.5})
    with world.running():
        world.wait_committed(world.publish(event))
    facts = stored(world, "shoe").facts
    assert (facts.title, dict(facts.metadata)) == ("A shoe", {"tags": ("red", "new"), "price": 4.5})
    assert (facts.sha256, facts.is_truncated) == (None, False)


def test_the_digest_of_what_a_reference_gave_is_kept(world: World, tmp_path: Path) -> None:
    """So that answers tell which bytes were indexed, also where the event does not."""
    path = tmp_path / "pictures" / "shoe.png"
    path.parent.mkdir()
    path.write_bytes(draw_picture(3))
    digest = hashlib.sha256(draw_picture(3)).hexdigest()
    world.set_options(references=ReferencePolicy(file_roots=(path.parent,)))
    world.publish(upload("unpinned", ContentReference(path.as_uri(), None, None, "image")))
    end = world.publish(upload("pinned", ContentReference(path.as_uri(), digest, None, "image")))
    with world.running():
        world.wait_committed(end)
    assert [stored(world, name).facts.sha256 for name in ("unpinned", "pinned")] == [digest, digest]


@pytest.mark.parametrize("modality", ["text", "image"])
def test_a_reference_to_nothing_is_an_empty_content(world: World, tmp_path: Path, modality: Modality) -> None:
    (tmp_path / "empty").write_bytes(b"" if modality == "image" else b" \n")
    world.set_options(references=ReferencePolicy(file_roots=(tmp_path,)))
    reference = ContentReference((tmp_path / "empty").as_uri(), None, None, modality)
    with world.running():
        world.wait_committed(world.publish(upload("x", reference)))
    assert world.reasons() == ["empty_content"]


def test_a_text_that_does_not_fit_is_indexed_by_its_beginning_and_counted(world: World) -> None:
    end = world.publish(upload("long", TextContent("红色连衣裙 red dress " * 4000)))
    with world.running():
        world.wait_committed(end)
    assert world.dead_letters() == []
    assert stored(world, "long").facts.is_truncated
    assert world.metrics.registry.get_sample_value("cliptide_consumer_truncated_texts_total") == 1


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        pytest.param(b"x", b"\x01garbage", "undecodable", id="garbage"),
        pytest.param(b"x", b"", "undecodable", id="empty value"),
        pytest.param(b"x", b"{", "undecodable", id="broken JSON"),
        pytest.param(None, encode_event(upload("x")).value, "missing_key", id="no key"),
        pytest.param(b"y", encode_event(upload("x")).value, "key_mismatch", id="another key"),
        pytest.param(b"\xff", None, "not_unicode", id="key is not Unicode"),
        pytest.param(b"i" * 513, None, "content_id_too_long", id="id too long"),
        pytest.param(b"x", encode_event(upload("x", ImageContent(b"no picture"))).value, None, id="no image"),
        pytest.param(
            b"x",
            encode_event(upload("x", ImageContent(draw_picture(1, size=(200, 200))[:200]))).value,
            None,
            id="truncated image",
        ),
        pytest.param(
            b"x",
            encode_event(upload("x", ContentReference("https://evil.example/x", "0" * 64, 9, "image"))).value,
            "reference_refused",
            id="reference not allowed",
        ),
    ],
)
def test_bad_input_is_one_dead_letter_and_the_rest_goes_on(
    world: World, key: bytes | None, value: bytes | None, reason: str | None
) -> None:
    world.publish(upload("before"))
    world.append(key, value)
    end = world.publish(upload("behind"))
    with world.running():
        world.wait_committed(end)
    (letter,) = world.dead_letters()
    assert (letter.key, letter.value) == (key, value)
    assert reason is None or world.reasons() == [reason]
    assert all(world.searcher().find(name) is not None for name in ("before", "behind"))
    assert (
        world.metrics.registry.get_sample_value("cliptide_consumer_records_total", {"status": "dead_letter"})
        == 1
    )


def test_a_dead_letter_says_where_it_came_from(world: World) -> None:
    world.log.append(TOPIC, 0, key=b"x", value=b"?", headers=(("trace", b"7"),))
    with world.running():
        world.wait_committed(1)
    headers = dict(world.dead_letters()[0].headers)
    assert headers["trace"] == b"7"
    assert headers["__connect.errors.topic"] == TOPIC.encode()
    assert headers["__connect.errors.partition"] == b"0"
    assert headers["__connect.errors.offset"] == b"0"
    assert headers["__connect.errors.stage"] == b"DECODE"
    assert headers["__connect.errors.exception.class.name"] == b"schemas.errors.BadEvent"


def test_an_offset_is_passed_only_when_its_dead_letter_is_delivered(world: World) -> None:
    world.log.fail_next("publish", TransientLogError("broker away"), times=3)
    world.append(b"x", b"garbage")
    with world.running():
        world.wait_committed(1)
    assert world.reasons() == ["undecodable"]


def test_a_flood_of_dead_letters_stops_the_consumer_before_its_offsets_are_passed(world: World) -> None:
    world.set_options(flood=FloodThreshold(max_share=0.5, min_dead_letters=10, window=100))
    for number in range(40):
        world.append(b"x", b"garbage %d" % number)
    error = world.failure()
    assert isinstance(error, DeadLetterFlood)
    assert len(world.dead_letters()) < 10
    assert world.next_offset() < 40


@pytest.mark.parametrize("num_before", [1, 31, 100])
def test_records_before_a_letter_that_cannot_be_published_are_committed(
    world: World, num_before: int
) -> None:
    for number in range(num_before):
        world.publish(upload(f"c{number}"))
    world.append(b"bad", b"garbage")
    world.publish(upload("behind"))
    world.log.fail_next("publish", FatalLogError("not authorised"), times=1)
    error = world.failure()
    assert isinstance(error, FatalLogError)
    assert f"{TOPIC}-0@{num_before} (undecodable) to {DEAD_LETTER_TOPIC}" in str(error)
    assert world.next_offset() == num_before
    with world.running():
        world.wait_committed(num_before + 2)
    assert world.reasons() == ["undecodable"]


@pytest.mark.parametrize("key", [None, b"k" * 2_000_000])
def test_a_record_of_any_size_becomes_a_dead_letter(tmp_path: Path, key: bytes | None) -> None:
    log = MemoryLog(max_record_bytes=4_000_000)
    world = World(tmp_path / "index", log=log)
    headers: Headers = (("trace", b"x" * (3_999_900 - len(key or b""))),)
    log.append(TOPIC, 0, key=key, value=b"", headers=headers)
    with world.running():
        world.wait_committed(world.publish(upload("behind")))
    [letter] = world.dead_letters()
    said = read_explanation(letter.headers)
    assert str(said.origin) == f"{TOPIC}-0@0"
    assert letter.size_bytes < 2_000


BAD_UPLOADS: dict[str, Content] = {
    "truncated_image": ImageContent(draw_picture(1)[:100]),
    "damaged_image": ImageContent(draw_picture(1)[:16] + b"\x7f\xff\xff\xff" * 2 + draw_picture(1)[24:]),
    "reference_too_large": ContentReference("https://h/x", "0" * 64, 2**40, "image"),
}


@pytest.mark.parametrize(("reason", "content"), BAD_UPLOADS.items(), ids=BAD_UPLOADS.keys())
def test_what_users_upload_is_never_a_flood(world: World, reason: str, content: Content) -> None:
    world.set_options(flood=FloodThreshold(max_share=0.1, min_dead_letters=5, window=100))
    for number in range(20):
        world.publish(upload(f"bad-{number}", content))
    with world.running():
        world.wait_committed(world.publish(upload("good")))
    assert world.reasons() == [reason] * 20
    assert world.searcher().find("good") is not None


def test_bad_uploads_do_not_hide_a_flood_nor_add_to_it(world: World) -> None:
    world.set_options(flood=FloodThreshold(max_share=0.5, min_dead_letters=10, window=1000))
    for number in range(30):
        world.publish(upload(f"bad-{number}", ImageContent(b"%PDF-1.7")))
    for number in range(40):
        world.append(b"x", b"garbage %d" % number)
    error = world.failure()
    assert isinstance(error, DeadLetterFlood)
    assert error.num_dead_letters == 31
    assert f"({TOPIC}-0@60) as undecodable" in str(error)
    assert "CLIPTIDE_CONSUMER__FLOOD_SHARE" in str(error)


def test_records_that_a_mapping_passes_over_do_not_hide_a_flood(world: World) -> None:
    world.set_options(
        flood=FloodThreshold(max_share=0.5, min_dead_letters=10, window=1000),
        mapping=load_mapping("debezium"),
    )
    message = json.dumps({"op": "m"}).encode()
    for _ in range(30):
        world.append(b"m", message)
    for number in range(20):
        world.append(b"x", b"garbage %d" % number)
    error = world.failure()
    assert isinstance(error, DeadLetterFlood)


UNKNOWN = b"\xc3\x01newer!!!" + b"an event of a newer release"


@pytest.mark.parametrize("value", [b"\x00\x00\x00\x00\x07rest", bytes(400)])
def test_the_framing_of_a_registry_is_a_dead_letter_and_the_rest_goes_on(world: World, value: bytes) -> None:
    world.append(b"x", value)
    with world.running():
        world.wait_committed(world.publish(upload("behind")))
    assert world.reasons() == ["unknown_schema"]
    assert world.searcher().find("behind") is not None


def test_an_unknown_fingerprint_makes_its_partition_wait_and_the_others_go_on(tmp_path: Path) -> None:
    world = World(tmp_path / "index", num_partitions=2)
    before = world.publish(upload("before"))
    world.append(b"newer", UNKNOWN)
    world.publish(upload("behind"))
    with capture_logs() as lines, world.running() as pipeline:
        world.wait_committed(before)
        eventually(lambda: len(pipeline.waiting_partitions) == 1)
        for number in range(3):
            world.wait_committed(world.publish(upload(f"other-{number}"), 1), 1)
        eventually(lambda: (world.lag_seconds() or 0) > 0.1)
        [reason] = pipeline.waiting_partitions
        waiting = world.metrics.registry.get_sample_value("cliptide_consumer_waiting_partitions")
    assert waiting == 1
    assert f"fingerprint {b'newer!!!'.hex()} of {TOPIC}-0@1" in reason
    assert "CLIPTIDE_CONSUMER__ON_UNKNOWN_SCHEMA=dead_letter" in reason
    assert [line["reason"] for line in lines if line["event"] == "partition waits"] == [reason]
    assert world.reasons() == []
    assert world.next_offset() == 1
    assert world.searcher().find("behind") is None


def test_a_partition_that_waited_goes_on_where_it_waited(world: World) -> None:
    world.append(b"newer", UNKNOWN)
    end = world.publish(upload("behind"))
    with world.running() as pipeline:
        eventually(lambda: len(pipeline.waiting_partitions) == 1)
    world.set_options(preparation=PreparationOptions(sets_unknown_schemas_aside=True))
    with world.running() as pipeline:
        world.wait_committed(end)
        assert pipeline.waiting_partitions == ()
    assert world.reasons() == ["unknown_schema"]


def test_a_waiting_partition_does_not_slow_the_others_batches(tmp_path: Path) -> None:
    """A batch of one closes at once when nothing else is under way; a record that waits is not."""
    world = World(tmp_path / "index", num_partitions=2)
    world.set_options(batches=BatchLimits(max_rows=32, max_age_seconds=PATIENCE_SECONDS * 2))
    world.append(b"newer", UNKNOWN)
    with world.running() as pipeline:
        eventually(lambda: len(pipeline.waiting_partitions) == 1)
        world.wait_committed(world.publish(upload("other"), 1), 1)


def test_an_unknown_fingerprint_stops_the_consumer_when_told_so(world: World) -> None:
    world.set_options(preparation=PreparationOptions(stops_at_unknown_schemas=True))
    before = world.publish(upload("before"))
    world.append(b"x", UNKNOWN)
    error = world.failure()
    assert isinstance(error, UnknownSchema)
    assert f"{TOPIC}-0@{before}" in str(error)
    assert "CLIPTIDE_CONSUMER__ON_UNKNOWN_SCHEMA=dead_letter" in str(error)


def test_an_unknown_schema_is_set_aside_when_told_so(world: World) -> None:
    world.set_options(preparation=PreparationOptions(sets_unknown_schemas_aside=True))
    world.append(b"x", UNKNOWN)
    with world.running():
        world.wait_committed(1)
    assert world.reasons() == ["unknown_schema"]


def test_a_fault_of_the_encoder_names_the_records_of_its_batch(world: World) -> None:
    world.encoder = BrokenEncoder()
    world.publish(upload("a"))
    assert f"{TOPIC}-0@0" in str(world.failure())


@pytest.mark.parametrize("operation", ["poll", "log_range", "committed", "commit"])
def test_a_log_that_does_not_answer_is_waited_for(
    world: World, operation: Literal["poll", "log_range", "committed", "commit"]
) -> None:
    world.log.fail_next(operation, TransientLogError("away"), times=3)
    with world.running():
        world.wait_committed(world.publish(upload("a")))
    assert world.reasons() == []
    assert world.searcher().find("a") is not None


def test_a_fatal_log_error_stops_the_consumer(world: World) -> None:
    world.log.fail_next("poll", FatalLogError("not authorised"))
    assert isinstance(world.failure(), FatalLogError)


def test_another_encoder_is_refused(world: World) -> None:
    with world.running():
        pass
    world.encoder = HashEncoder(seed=1)
    with pytest.raises(EncoderMismatch):
        world.build()


def test_a_full_buffer_pauses_its_partition_and_resumes_it(world: World) -> None:
    world.set_options(backlog=BacklogLimits(max_bytes=2000, max_prepared=2))
    for number in range(60):
        world.publish(upload(f"c{number}", TextContent("some words " * 10)))
    world.set_options(intake=replace(world.options.intake, max_poll_records=5))
    with world.running():
        world.wait_committed(60)
    pauses = world.metrics.registry.get_sample_value("cliptide_consumer_pauses_total")
    assert pauses is not None
    assert pauses >= 1


def test_the_watermark_moves_on_while_the_platform_is_quiet(world: World) -> None:
    with world.running():
        world.wait_committed(world.publish(upload("a")))
        published_at_ms = time.time() * 1000
        eventually(lambda: (world.watermark_ms() or 0) > published_at_ms + 50)


def test_a_consumer_that_is_stuck_on_its_first_record_reports_how_long(world: World) -> None:
    world.encoder = held = HeldEncoder()
    end = world.publish(upload("a"))
    with world.running():
        assert held.is_encoding.wait(PATIENCE_SECONDS)
        eventually(lambda: (world.lag_seconds() or 0.0) > 0.3)
        held.may_encode.set()
        world.wait_committed(end)
        eventually(lambda: world.lag_seconds() == 0.0)


def test_producers_with_a_clock_in_the_future_hide_no_lag_and_stop_the_watermark_with_the_commits(
    tmp_path: Path,
) -> None:
    held = HeldEncoder()
    world = World(tmp_path, log=MemoryLog(clock=lambda: time.time() + 3600), encoder=held)
    held.may_encode.set()
    with world.running():
        world.wait_committed(world.publish(upload("a")))
        held.may_encode.clear()
        held.is_encoding.clear()
        end = world.publish(upload("b"))
        assert held.is_encoding.wait(PATIENCE_SECONDS)
        stuck_since_ms = time.time() * 1000
        eventually(lambda: (world.lag_seconds() or 0.0) > 0.5)
        assert (world.watermark_ms() or 0) < stuck_since_ms
        held.may_encode.set()
        world.wait_committed(end)
        eventually(lambda: world.lag_seconds() == 0.0)


def test_the_lag_in_seconds_goes_on_from_the_watermark_after_a_restart(world: World) -> None:
    with world.running():
        world.wait_committed(world.publish(upload("a")))
        eventually(lambda: world.watermark_ms() is not None)
    an_hour_ago_ms = round((time.time() - 3600) * 1000)
    store = IndexDirectory.open(world.root).shard_store(0)
    write_watermark(store, Watermark(an_hour_ago_ms, 1, 1))
    world.encoder = held = HeldEncoder()
    end = world.publish(upload("b"))
    with world.running():
        eventually(lambda: (world.lag_seconds() or 0.0) >= 3600)
        held.may_encode.set()
        world.wait_committed(end)
        eventually(lambda: world.lag_seconds() == 0.0)


def test_a_watermark_is_not_renewed_while_the_broker_does_not_answer(world: World) -> None:
    with world.running():
        world.wait_committed(world.publish(upload("a")))
        eventually(lambda: world.watermark_ms() is not None)
        world.log.fail_next("log_range", TransientLogError("away"), times=10_000)
        away_since_ms = time.time() * 1000
        eventually(lambda: (world.failures("log") or 0) >= 16)
        assert (world.watermark_ms() or 0) <= away_since_ms
