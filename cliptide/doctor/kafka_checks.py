"""Tries Kafka: the connection, both topics, their settings, and the partitioner of the producers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cliptide.dead_letters.reading import TopicScan
from cliptide.doctor.findings import Finding, failed, ok, skipped, warning
from cliptide.terminal.connections import open_source
from cliptide.terminal.waiting import waiting_told
from consumer.settings import Settings
from event_log.errors import EventLogError, FatalLogError, TopicMissing
from event_log.kafka.admin import KafkaAdmin
from event_log.kafka.settings import MAX_RECORD_BYTES, KafkaSettings
from event_log.partitioning import partition_from_key
from event_log.records import Record

REQUEST_TIMEOUT_SECONDS = 10.0
NUM_SAMPLED = 200
"""Records of each partition whose keys are compared with their partition."""

_PROPERTIES = "CLIPTIDE_KAFKA__PROPERTIES (security.protocol, sasl.*, ssl.*)"
_REBUILD = "an index can be built again only from the whole log"


def check_kafka(settings: Settings) -> Iterator[Finding]:
    """Try everything about Kafka. What needs an answer that did not come is skipped."""
    kafka = settings.kafka.connection()
    address = kafka.bootstrap_servers or "an empty address"
    try:
        admin = KafkaAdmin(kafka, request_timeout_seconds=REQUEST_TIMEOUT_SECONDS)
        with waiting_told(f"Kafka at {address}"):
            admin.check_reachable()
    except ValueError as error:  # librdkafka refuses a property; the message names it
        yield failed("kafka", str(error), "correct CLIPTIDE_KAFKA__PROPERTIES")
    except FatalLogError as error:
        yield failed("kafka", str(error), f"correct {_PROPERTIES}")
    except EventLogError as error:
        yield failed("kafka", f"no answer from {address}: {error}", _remedy_of_silence(kafka))
    else:
        yield ok("kafka", f"{address} answers and accepts this client")
        yield from _check_topics(admin, settings)
        return
    yield skipped("topics", "Kafka cannot be used")


def _remedy_of_silence(kafka: KafkaSettings) -> str:
    """A broker leaves a client without an answer, too, if only one of them speaks TLS."""
    remedy = "start Kafka, or set CLIPTIDE_KAFKA__BOOTSTRAP_SERVERS to an address that answers"
    if protocol := kafka.properties.get("security.protocol"):
        remedy += (
            f"; or correct security.protocol in CLIPTIDE_KAFKA__PROPERTIES, if that port is not {protocol}"
        )
    return remedy


def _check_topics(admin: KafkaAdmin, settings: Settings) -> Iterator[Finding]:
    topics = {"topic": settings.topic, "dead letters": settings.dead_letter_topic}
    for check, topic in topics.items():
        try:
            number = admin.describe_topic(topic).num_partitions
        except TopicMissing:
            yield _missing(check, topic, settings)
        except EventLogError as error:
            yield _refused(check, f"{topic}: {error}")
        else:
            yield ok(check, f"{topic} has {number} partition{'s' * (number != 1)}")
            yield from _check_topic_settings(check, topic, admin)
            if check == "topic":
                yield from _check_partitioner(topic, number, settings.kafka.connection())


def _missing(check: str, topic: str, settings: Settings) -> Finding:
    if settings.consumer.create_topics:
        return ok(check, f"{topic} does not exist yet; the consumer creates it")
    remedy = "create it, or set CLIPTIDE_CONSUMER__CREATE_TOPICS=true"
    variable = "CLIPTIDE_TOPIC" if check == "topic" else "CLIPTIDE_DEAD_LETTER_TOPIC"
    return failed(check, f"{topic} does not exist", f"{remedy}, or correct {variable}")


def _refused(check: str, message: str) -> Finding:
    remedy = (
        "let this user describe and read the topic (ACLs), and check the addresses that the brokers "
        "advertise (advertised.listeners)"
    )
    return failed(check, message, remedy)


def _check_topic_settings(check: str, topic: str, admin: KafkaAdmin) -> Iterator[Finding]:
    try:
        found = admin.topic_settings(topic)
    except EventLogError as error:
        remedy = "allow DescribeConfigs on the topic, or compare its settings with docs/operations.md"
        yield warning(check, f"the settings of {topic} cannot be read: {error}", remedy)
        return
    if not found:
        yield skipped(check, f"the broker does not tell the settings of {topic}")
        return
    problems = topic_problems(check, found)
    yield from problems
    if not problems:
        yield ok(check, f"the settings of {topic} fit")


def topic_problems(check: str, found: Mapping[str, str]) -> list[Finding]:
    """Warn of settings with which the broker refuses or removes uploads."""
    return [*_size_problems(check, found), *_retention_problems(check, found)]


def _size_problems(check: str, found: Mapping[str, str]) -> Iterator[Finding]:
    limit = _number(found, "max.message.bytes")
    if limit is not None and limit < MAX_RECORD_BYTES:
        message = f"max.message.bytes is {limit:,}: larger uploads are refused by the broker"
        yield warning(check, message, f"set the topic's max.message.bytes to {MAX_RECORD_BYTES}")


def _retention_problems(check: str, found: Mapping[str, str]) -> Iterator[Finding]:
    if check != "topic":
        return
    policy = found.get("cleanup.policy", "delete")
    if "compact" in policy:
        message = "the topic is compacted, which keeps only the newest event of each content"
        yield warning(check, message, "keep it so only if every event carries a whole content")
    if "delete" not in policy:
        return
    for name, unit in (("retention.ms", "ms"), ("retention.bytes", "bytes a partition")):
        limit = _number(found, name)
        if limit is not None and limit >= 0:
            message = f"{name} is {limit:,}: Kafka removes uploads after that many {unit}, and {_REBUILD}"
            yield warning(check, message, f"set {name}=-1, or back the index up")


def _number(found: Mapping[str, str], name: str) -> int | None:
    try:
        return int(found[name])
    except (KeyError, ValueError):
        return None


def _check_partitioner(topic: str, num_partitions: int, kafka: KafkaSettings) -> Iterator[Finding]:
    """Compare the partition of the newest records with the one that their keys belong to."""
    try:
        with open_source(kafka) as source:
            sampled = list(TopicScan(source, topic, last_records=NUM_SAMPLED).records())
    except EventLogError as error:
        yield _refused("partitioner", f"{topic} cannot be read: {error}")
        return
    keyed = [record for record in sampled if record.key is not None]
    if len(keyed) < len(sampled):
        message = f"{len(sampled) - len(keyed):,} of the newest {len(sampled):,} records have no key"
        yield failed("partitioner", message, "let the producer send the content id as the record's key")
    misplaced = [record for record in keyed if _is_misplaced(record, num_partitions)]
    if misplaced:
        example = f"for example {topic}-{misplaced[0].partition}@{misplaced[0].offset}"
        message = f"{len(misplaced):,} of {len(keyed):,} keys lie in another partition than murmur2's"
        remedy = "set the producer's partitioner to murmur2 (partitioner=murmur2_random over librdkafka)"
        yield failed("partitioner", f"{message}, {example}", remedy)
    elif keyed:
        yield ok("partitioner", f"the newest {len(keyed):,} keys lie where murmur2 puts them")
    elif not sampled:
        yield skipped("partitioner", "the topic has no record")


def _is_misplaced(record: Record, num_partitions: int) -> bool:
    return partition_from_key(record.key or b"", num_partitions) != record.partition
