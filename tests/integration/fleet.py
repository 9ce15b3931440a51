"""Consumers as processes: the members of one group, their topic and their index root."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clip_index.errors import IndexMissing
from clip_index.reading.index_reader import IndexReader
from clip_index.searching.searcher import Searcher
from consumer.app import Connections, ConsumerOptions, build_consumer
from consumer.opened_index import IndexLocation
from consumer.telemetry.metrics import Metrics
from event_log.kafka.admin import KafkaAdmin, TopicCreation
from event_log.kafka.publisher import KafkaPublisher
from event_log.kafka.settings import KafkaSettings
from event_log.kafka.source import KafkaRecordSource
from event_log.records import LogRange
from tests.consumer.encoders import TallyingEncoder
from tests.consumer.running import eventually
from tests.event_log.event_logs import RecordingListener

PATIENCE_SECONDS = 120.0
NUM_PARTITIONS = 4


def first_entry(log: Path, event: str) -> Mapping[str, Any] | None:
    """Return the first log entry of an event, or None if the service has not logged it."""
    for line in log.read_text().splitlines():
        with suppress(ValueError):  # the line is not JSON, or is not complete yet
            entry = json.loads(line)
            if entry["event"] == event:
                return dict(entry)
    return None


@dataclass
class Member:
    """A consumer process and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def said(self) -> str:
        return self.log.read_text()

    def told(self, event: str) -> Mapping[str, Any] | None:
        """Return the fields of the first log entry of an event."""
        return first_entry(self.log, event)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit code."""
        self.send(number)
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)

    def children(self) -> list[int]:
        found = []
        for listing in Path(f"/proc/{self.pid}/task").glob("*/children"):
            with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended meanwhile
                found += [int(pid) for pid in listing.read_text().split()]
        return found

    def end(self) -> None:
        """Kill the process. SIGKILL also ends a suspended one."""
        self.process.kill()
        self.process.wait()


@dataclass
class Fleet:
    """Consumers of one topic. Beside the index `root` lie their logs and the files that steer them."""

    kafka: KafkaSettings
    topic: str
    folder: Path
    num_partitions: int = NUM_PARTITIONS
    members: list[Member] = field(default_factory=list)
    _reader: IndexReader | None = None

    @property
    def root(self) -> Path:
        return self.folder / "index"

    @property
    def dead_letter_topic(self) -> str:
        return f"{self.topic}.dead-letters"

    @property
    def group_id(self) -> str:
        return f"cliptide-{self.topic}"

    @property
    def num_encoded(self) -> int:
        """Return how many contents all members together have encoded."""
        tally = self.folder / "tally"
        return tally.stat().st_size if tally.exists() else 0

    @property
    def hold(self) -> Path:
        """While this file exists, members started with `is_held` do not finish encoding."""
        return self.folder / "encode.hold"

    @property
    def is_waiting_to_encode(self) -> bool:
        return self.hold.with_suffix(".waiting").exists()

    def start(
        self, *arguments: str, root: Path | None = None, is_held: bool = False, **variables: str
    ) -> Member:
        environment = {
            "CLIPTIDE_TOPIC": self.topic,
            "CLIPTIDE_DEAD_LETTER_TOPIC": self.dead_letter_topic,
            "CLIPTIDE_KAFKA__BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "CLIPTIDE_KAFKA__PROPERTIES": json.dumps(dict(self.kafka.properties)),
            "CLIPTIDE_INDEX__ROOT": str(root or self.root),
            "CLIPTIDE_CONSUMER__GROUP_ID": self.group_id,
            "CLIPTIDE_CONSUMER__HEALTH_PORT": "0",
            "TESTS_TALLY": str(self.folder / "tally"),
            **({"TESTS_HOLD": str(self.hold)} if is_held else {}),
            **variables,
        }
        path = self.folder / f"consumer-{len(self.members)}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.consumer.hash_consumer", *arguments],
                env={**os.environ, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.members.append(Member(process, path))
        return self.members[-1]

    def start_static(self, instance_id: str, *arguments: str) -> Member:
        """Start a static member: it keeps its partitions while it restarts or is suspended."""
        static = {"group.instance.id": instance_id, "session.timeout.ms": 240_000}
        properties = json.dumps({**self.kafka.properties, **static})
        return self.start(*arguments, CLIPTIDE_KAFKA__PROPERTIES=properties)

    @contextmanager
    def guest(self) -> Iterator[None]:
        """Run a consumer in this process, which joins and leaves fast. It leaves gracefully."""
        encoder = TallyingEncoder(tally=self.folder / "tally")
        with closing(KafkaPublisher(self.kafka)) as publisher:
            connections = Connections(
                KafkaRecordSource(self.kafka, self.group_id),
                publisher,
                encoder,
                KafkaAdmin(self.kafka).describe_topic(self.topic),
                self.dead_letter_topic,
            )
            location = IndexLocation(self.root, "main", self.group_id)
            pipeline = build_consumer(connections, location, ConsumerOptions(), Metrics())
            pipeline.start()
            try:
                yield
            finally:
                pipeline.finish()

    def end(self) -> None:
        for member in self.members:
            member.end()

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds. A failure shows the logs of all members."""
        try:
            eventually(condition, PATIENCE_SECONDS)
        except AssertionError as error:
            said = "\n".join(f"--- {member.log.name}\n{member.said[-3000:]}" for member in self.members)
            raise AssertionError(f"{error}; {self.owners()}\n{said}") from None

    def wait_for_owners(self, *members: Member) -> None:
        """Wait until exactly these members own the shards, and each owns some."""
        pids = {member.pid for member in members}
        self.wait(lambda: self.owners().keys() == pids and self.num_shards == self.num_partitions)

    def owners(self) -> Counter[int]:
        """Return for each process id how many shards it owns by the newest manifests."""
        return Counter(int(manifest["writer_id"].rsplit("-", 2)[1]) for manifest in self.manifests())

    @property
    def num_shards(self) -> int:
        return len(self.manifests())

    def manifests(self) -> list[Mapping[str, str]]:
        found = [sorted(shard.glob("manifest-*.json")) for shard in self.root.glob("indexes/main/*-*/")]
        return [json.loads(paths[-1].read_text()) for paths in found if paths]

    def searcher(self) -> Searcher | None:
        """Return a searcher over the current index, or None without an index."""
        reader = self._reader or IndexReader(self.root)
        try:
            reader.reload()
        except IndexMissing:
            return None
        self._reader = reader
        return reader.searcher

    def next_offsets(self) -> dict[int, int]:
        searcher = self.searcher()
        shards = searcher.shards if searcher else {}
        return {int(name.rsplit("-", 1)[1]): shard.next_offset for name, shard in shards.items()}

    def sum_of_epochs(self) -> int:
        return sum(int(manifest["writer_epoch"]) for manifest in self.manifests())

    def largest_num_segments(self) -> int:
        searcher = self.searcher()
        return max((shard.num_segments for shard in searcher.shards.values()), default=0) if searcher else 0

    def num_contents(self) -> int:
        searcher = self.searcher()
        shards = searcher.shards.values() if searcher else ()
        return sum(sum(shard.num_contents.values()) for shard in shards)

    @contextmanager
    def asking(self) -> Iterator[KafkaRecordSource]:
        """Open a record source with its own consumer group."""
        with closing(KafkaRecordSource(self.kafka, f"{self.group_id}-asking")) as source:
            yield source

    def log_ranges(self) -> list[LogRange]:
        with self.asking() as source:
            source.subscribe(self.topic, RecordingListener())
            return [source.log_range(partition) for partition in range(self.num_partitions)]

    def group_offsets(self) -> Mapping[int, int | None]:
        """Return the offsets that the group has committed. Call it only while the group has no member."""
        with closing(KafkaRecordSource(self.kafka, self.group_id)) as source:
            source.subscribe(self.topic, RecordingListener())
            return source.committed(range(self.num_partitions))

    def replace_index(self, backup: Path) -> None:
        shutil.rmtree(self.root)
        backup.rename(self.root)
        self._reader = None


@contextmanager
def running_fleet(kafka: KafkaSettings, topic: str, folder: Path) -> Iterator[Fleet]:
    fleet = Fleet(kafka, topic, folder)
    admin = KafkaAdmin(kafka, request_timeout_seconds=PATIENCE_SECONDS)
    admin.create_topic(topic, TopicCreation(fleet.num_partitions))
    admin.create_topic(fleet.dead_letter_topic, TopicCreation(1))
    try:
        yield fleet
    finally:
        fleet.end()
