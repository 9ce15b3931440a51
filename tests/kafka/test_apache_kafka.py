"""If Apache Kafka cannot run, its suites are skipped with a line that says how to enable them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kafka import apache_kafka
from tests.kafka.apache_kafka import ApacheKafka, ApacheKafkaUnavailable


def test_a_missing_tool_is_named_with_the_way_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ApacheKafkaUnavailable, match=r"java and mvn not found.*KAFKA_BOOTSTRAP_SERVERS"):
        ApacheKafka().__enter__()


def test_jars_that_cannot_be_fetched_leave_no_half_filled_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tool in ("java", "mvn"):
        (tmp_path / tool).write_text("#!/bin/sh\necho no route to host\nexit 1\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    cache = tmp_path / "cache"
    monkeypatch.setattr(apache_kafka, "_CACHE", cache)
    with pytest.raises(ApacheKafkaUnavailable, match="no route to host"):
        ApacheKafka().__enter__()
    assert list(cache.iterdir()) == []


def test_a_broker_that_ends_at_once_is_started_again_and_quoted_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have taken the ports between their choice and the start of the broker."""
    started = tmp_path / "started"
    scripts = {
        "mvn": "exit 0",
        "java": f'case "$*" in *kafka.Kafka*) echo "$*" >> {started}; echo address in use; exit 1;; esac',
    }
    for tool, script in scripts.items():
        (tmp_path / tool).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(apache_kafka, "_CACHE", tmp_path / "cache")
    with pytest.raises(RuntimeError, match="address in use"):
        ApacheKafka().__enter__()
    assert len(set(started.read_text().splitlines())) == 3
