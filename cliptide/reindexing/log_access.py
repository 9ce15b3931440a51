"""The log that a new index is built from: what it holds, and what it does not hold any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from clip_index.errors import IndexRefused
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.searching.searcher import Searcher
from clip_index.storage.index_roots import IndexRoot, local_directory
from cliptide.dead_letters.reading import TopicScan
from cliptide.reindexing.kept_contents import count_patched
from cliptide.reindexing.retained_log import RetainedLog
from cliptide.terminal.connections import open_source
from cliptide.terminal.registry import RegistryOptions, open_schemas
from cliptide.terminal.summary import counted
from cliptide.terminal.waiting import tell
from cliptide.verify.log_reading import LogTopics, fold_log
from cliptide.verify.verification import LogFold, covered_ranges
from event_log.errors import EventLogError
from event_log.kafka.admin import KafkaAdmin
from event_log.kafka.settings import KafkaSettings
from event_log.records import LogRange, TopicDescription
from schemas.codec import EventDecoder
from schemas.mapping.rules import EventMapping


@dataclass(frozen=True, slots=True)
class Log:
    """The log as it is now: its topic, and what each partition holds."""

    topic: TopicDescription
    ranges: Sequence[LogRange]
    is_compacted: bool = False

    def starts(self, index: IndexDirectory) -> dict[str, int]:
        """Return where the log of each shard begins."""
        return {index.shard_name(n): log.first_offset for n, log in enumerate(self.ranges)}


def ask_log(kafka: KafkaSettings, served: IndexDirectory) -> Log:
    """Describe the log. Raises `IndexRefused` if it is not the one that the served index is built from."""
    with open_source(kafka) as source:
        topic = source.describe_topic(served.description.topic)
        source.subscribe(topic.name, TopicScan(source, topic.name))  # which reads nothing: nobody polls
        if topic.topic_id != served.description.topic_id or (
            topic.num_partitions != served.description.num_partitions
        ):
            raise IndexRefused(
                f"the topic {topic.name} has the id {topic.topic_id} and {topic.num_partitions} partitions, "
                f"and {served.index_id} was built of {served.description.topic_id} with "
                f"{served.description.num_partitions}: a switch between two logs is not possible"
            )
        ranges = [source.log_range(n) for n in range(topic.num_partitions)]
    return Log(topic, ranges, _is_compacted(kafka, topic.name))


def _is_compacted(kafka: KafkaSettings, topic: str) -> bool:
    try:
        return "compact" in KafkaAdmin(kafka).topic_settings(topic).get("cleanup.policy", "")
    except EventLogError as error:
        tell(f"the settings of {topic} cannot be read ({error}): it is taken for a topic without compaction")
        return False


@dataclass(frozen=True, slots=True)
class LogAccess:
    """How to read the log, and to decode its records as the consumer does."""

    index_root: IndexRoot
    kafka: KafkaSettings
    dead_letter_topic: str
    mapping: EventMapping | None
    registry: RegistryOptions

    def find_retained(self, log: Log, served: IndexDirectory, searcher: Searcher) -> RetainedLog:
        """Find what the log still holds: by offsets, or by reading it where offsets do not tell."""
        by_offsets = RetainedLog(log.starts(served))
        num_patched = count_patched(searcher, by_offsets)
        if not log.is_compacted and not num_patched:
            return by_offsets
        why = (
            "the topic is compacted"
            if log.is_compacted
            else f"the log has lost records, and {counted(num_patched, 'content')} got patches since"
        )
        tell(f"{why}: reading the log to see which uploads it still holds …")
        folded = self._read(served, searcher)
        parts = {served.shard_name(number): part for number, part in folded.partitions.items()}
        return replace(
            by_offsets,
            leaves={shard: part.live for shard, part in parts.items()},
            unread={shard: part.unread for shard, part in parts.items()},
        )

    def _read(self, served: IndexDirectory, searcher: Searcher) -> LogFold:
        with open_schemas(self.registry, local_directory(self.index_root)) as schemas:
            return fold_log(
                self.kafka,
                LogTopics(served.description.topic, self.dead_letter_topic),
                covered_ranges(searcher, served.partition_of),
                EventDecoder(mapping=self.mapping, registry=schemas),
            )
