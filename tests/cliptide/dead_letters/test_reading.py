from collections.abc import Sequence

import pytest

from cliptide.dead_letters.reading import DeadLetter, TopicScan, dead_letter_from_record, tally
from cliptide.demo.embedded_broker import EmbeddedBroker
from event_log.errors import TopicMissing, TransientLogError
from event_log.kafka.admin import KafkaAdmin, TopicCreation
from event_log.kafka.settings import KafkaSettings
from event_log.kafka.source import KafkaRecordSource
from event_log.memory.clients import MemoryLog, MemoryPublisher, MemoryRecordSource
from event_log.records import EndOfPartition, Headers, LogRange, Record
from schemas.dead_letters import RecordPosition

CONTEXT: Headers = (
    ("content-type", b"application/json"),
    ("__connect.errors.topic", b"content-uploads"),
    ("__connect.errors.partition", b"3"),
    ("__connect.errors.offset", b"41"),
    ("__connect.errors.exception.message", b"truncated after 12 bytes"),
    ("cliptide.reason", b"truncated_image"),
)


def record(headers: Headers, key: bytes | None = b"boot-1") -> Record:
    return Record("letters", 0, 7, key, b"value", headers, timestamp_ms=5, assignment_epoch=1)


def test_a_dead_letter_says_place_reason_and_error() -> None:
    letter = dead_letter_from_record(record(CONTEXT))
    assert letter.origin == RecordPosition("content-uploads", 3, 41)
    assert letter.position == RecordPosition("letters", 0, 7)
    assert letter.reason == "truncated_image"
    assert letter.error == "truncated after 12 bytes"
    assert letter.content_id == "boot-1"
    assert letter.size_bytes == 11


def test_the_last_header_of_a_name_counts() -> None:
    forged = (("cliptide.reason", b"forged by a producer"), *CONTEXT)
    assert dead_letter_from_record(record(forged)).reason == "truncated_image"


HEADERS_OF_OTHERS: dict[str, Headers] = {
    "none": (),
    "offset_in_words": (*CONTEXT, ("__connect.errors.offset", b"many")),
    "null_topic_only": (("__connect.errors.topic", None),),
}


@pytest.mark.parametrize("headers", HEADERS_OF_OTHERS.values(), ids=HEADERS_OF_OTHERS.keys())
def test_a_record_that_someone_else_put_there_is_listed_too(headers: Headers) -> None:
    letter = dead_letter_from_record(record(headers, key=None))
    assert letter.origin is None
    assert letter.content_id is None


def test_the_latest_are_shown_in_whatever_order_partitions_are_read() -> None:
    def letter(name: str, timestamp_ms: int, offset: int) -> DeadLetter:
        origin = RecordPosition("content-uploads", 0, offset)
        return DeadLetter(origin, origin, "truncated_image", "", name, 1, timestamp_ms)

    read = [letter("d", 9, 8), letter("b", 7, 5), letter("c", 9, 6), letter("a", 5, 7)]
    counts, shown = tally(read, None, 2)
    assert counts == {"truncated_image": 4}
    assert [one.content_id for one in shown] == ["c", "d"]


def test_a_scan_reads_all_partitions_from_the_start_to_the_end() -> None:
    log = MemoryLog()
    log.create_topic("letters", num_partitions=3)
    publisher = MemoryPublisher(log)
    for n in range(50):
        publisher.publish("letters", key=str(n).encode(), value=b"v")
    source = MemoryRecordSource(log, "scan")
    records = list(TopicScan(source, "letters").records())
    source.close()
    assert sorted(int(r.key or b"") for r in records) == list(range(50))
    assert {r.partition for r in records} == {0, 1, 2}


def test_a_scan_of_an_empty_topic_ends() -> None:
    log = MemoryLog()
    log.create_topic("letters", num_partitions=2)
    source = MemoryRecordSource(log, "scan")
    assert list(TopicScan(source, "letters").records()) == []
    source.close()


class SlowSource(MemoryRecordSource):
    """Returns nothing for the next `num_empty` polls, each of which takes 0.1 s of its own clock."""

    num_empty = 0
    now = 0.0

    def poll(self, max_records: int, timeout_seconds: float) -> Sequence[Record | EndOfPartition]:
        if self.num_empty:
            self.num_empty -= 1
            self.now += 0.1
            return ()
        return super().poll(1, timeout_seconds)


def test_a_scan_to_which_nothing_comes_any_more_gives_up() -> None:
    log = MemoryLog()
    log.create_topic("letters")
    for _ in range(2):
        log.append("letters", 0, value=b"v")
    source = SlowSource(log, "scan")
    records = TopicScan(source, "letters", patience_seconds=0.2, clock=lambda: source.now).records()
    next(records)
    source.num_empty = 1_000_000
    with pytest.raises(TransientLogError, match=r"no record of letters came for 0\.2 seconds"):
        next(records)


def test_a_scan_that_waits_for_records_says_so_every_few_seconds() -> None:
    log = MemoryLog()
    log.create_topic("letters")
    log.append("letters", 0, value=b"v")
    source, said = SlowSource(log, "scan"), list[str]()
    source.num_empty = 120  # twelve seconds
    assert len(list(TopicScan(source, "letters", clock=lambda: source.now, say=said.append).records())) == 1
    assert said == [f"waiting for records of letters, for {n} s …" for n in (5, 10)]


def test_a_scan_of_a_long_topic_says_now_and_then_how_far_it_is() -> None:
    log = MemoryLog()
    log.create_topic("letters")
    for _ in range(4):
        log.append("letters", 0, value=b"v")
    source, said = SlowSource(log, "scan"), list[str]()
    for _ in TopicScan(source, "letters", clock=lambda: source.now, say=said.append).records():
        source.now += 3.0
    assert said == [f"read {n} records of letters …" for n in (2, 4)]


def test_a_scan_that_is_slow_does_not_give_up() -> None:
    log = MemoryLog()
    log.create_topic("letters")
    for _ in range(2):
        log.append("letters", 0, value=b"v")
    source = SlowSource(log, "scan")
    source.num_empty = 5
    records = TopicScan(source, "letters", patience_seconds=0.65, clock=lambda: source.now).records()
    next(records)
    source.now += 3600.0  # time that the caller takes must not count
    source.num_empty = 5
    assert len(list(records)) == 1


@pytest.mark.broker
def test_a_scan_of_a_broker_that_goes_away_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedBroker() as broker:
        settings = KafkaSettings(broker.bootstrap_servers)
        KafkaAdmin(settings).create_topic("letters", TopicCreation(num_partitions=1))
        source = KafkaRecordSource(settings, "scan", request_timeout_seconds=2.0)
        ask = source.log_range

        def ask_and_stop(partition: int) -> LogRange:
            found = ask(partition)
            broker.stop()
            return found

        monkeypatch.setattr(source, "log_range", ask_and_stop)
        with pytest.raises(TransientLogError, match="no record of letters came for 1 seconds"):
            list(TopicScan(source, "letters", patience_seconds=1.0).records())
        source.close()


def test_a_topic_that_is_not_there_is_named() -> None:
    source = MemoryRecordSource(MemoryLog(), "scan")
    with pytest.raises(TopicMissing, match="letters"):
        next(TopicScan(source, "letters").records())
