"""Which partition a key belongs to, by the rule that all publishers of a topic must share."""

from __future__ import annotations

from confluent_kafka import murmur2


def partition_from_key(key: bytes, num_partitions: int) -> int:
    """Return the partition that Java's client chooses (murmur2); librdkafka calls it `murmur2_random`."""
    return int(murmur2(key, num_partitions))
