"""Prometheus itself scrapes both services with the repository's configuration, rules and queries."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cliptide.child_process import LOOPBACK, end, free_port, spawn
from event_log.kafka_settings import KafkaSettings
from tests.integration.fleet import Fleet, Member, running_fleet
from tests.integration.history import History
from tests.integration.monitoring import (
    DEPLOY,
    Prometheus,
    alert_rules,
    dashboard_expressions,
    metrics_in,
    program,
    running_prometheus,
    write_configuration,
)

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

ALERTS = [pytest.param(rule["expr"], id=rule["alert"]) for rule in alert_rules()]
QUERIES = [pytest.param(expression, id=expression) for expression in dashboard_expressions()]


@dataclass(frozen=True)
class Watched:
    """A consumer and a query service at work, and the Prometheus that scrapes them."""

    fleet: Fleet
    consumer: Member
    history: History
    prometheus: Prometheus


@pytest.fixture(scope="module")
def watched(embedded_settings: KafkaSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    program("prometheus")
    with running_fleet(embedded_settings, "watched-uploads", folder) as fleet:
        consumer_port = free_port()
        consumer = fleet.start(CLIPTIDE_CONSUMER__HEALTH_PORT=str(consumer_port))
        history = History(fleet.kafka, fleet.topic)
        history.publish(100)
        history.wait_until_indexed(fleet)
        with _query_service(fleet) as metrics_port:
            targets = {
                "consumer": f"{LOOPBACK}:{consumer_port}",
                "query_api": f"{LOOPBACK}:{metrics_port}",
            }
            with running_prometheus(write_configuration(folder / "prometheus", targets)) as prometheus:
                fleet.wait(lambda: prometheus.value("count(up == 1)") == 2.0)
                yield Watched(fleet, consumer, history, prometheus)


@contextmanager
def _query_service(fleet: Fleet) -> Iterator[int]:
    """A query service over the fleet's index; yields the port of its metrics."""
    port, metrics_port = free_port(), free_port()
    variables = {
        "CLIPTIDE_INDEX__ROOT": str(fleet.root),
        "CLIPTIDE_QUERY_API__PORT": str(port),
        "CLIPTIDE_QUERY_API__METRICS_PORT": str(metrics_port),
    }
    command = [sys.executable, "-m", "tests.integration.hash_query_service"]
    process = spawn(command, fleet.folder / "query_service.log", environment={**os.environ, **variables})
    try:
        yield metrics_port
    finally:
        end(process, patience_seconds=10.0)


def test_promtool_accepts_configuration_and_rules(tmp_path: Path) -> None:
    configuration = DEPLOY / "prometheus" / "prometheus.yml"
    command = [program("promtool"), "check", "config", str(configuration)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert f"{len(alert_rules())} rules found" in checked.stdout


def test_every_metric_of_alerts_and_dashboard_is_exported(watched: Watched) -> None:
    expressions = [rule["expr"] for rule in alert_rules()] + dashboard_expressions()
    watched.fleet.wait(lambda: bool(watched.prometheus.exported()))
    assert metrics_in(expressions) - watched.prometheus.exported() == set()


@pytest.mark.parametrize("expression", QUERIES)
def test_every_query_of_the_dashboard_is_answered(watched: Watched, expression: str) -> None:
    watched.prometheus.query(expression)


@pytest.mark.parametrize("expression", ALERTS)
def test_every_condition_of_an_alert_is_answered(watched: Watched, expression: str) -> None:
    watched.prometheus.query(expression)


def test_what_is_scraped_is_what_happened(watched: Watched) -> None:
    prometheus, fleet, history = watched.prometheus, watched.fleet, watched.history
    fleet.wait(lambda: prometheus.value("cliptide_ready") == 1.0)
    fleet.wait(lambda: prometheus.value("cliptide_query_ready") == 1.0)
    history.publish(40)
    history.wait_until_indexed(fleet)
    num_events = float(sum(history.ends.values()))
    fleet.wait(lambda: prometheus.value("sum(cliptide_records_total)") == num_events)
    fleet.wait(lambda: prometheus.value("sum(cliptide_query_searcher_next_offset)") == num_events)
    fleet.wait(lambda: prometheus.value("sum(cliptide_lag_records)") == 0.0)
    free = prometheus.value("cliptide_index_free_bytes")
    assert free is not None
    assert free > 0


def test_a_healthy_pipeline_raises_no_alert_and_a_dead_consumer_does(watched: Watched) -> None:
    prometheus = watched.prometheus
    names = {rule["alert"] for rule in alert_rules()}
    watched.fleet.wait(lambda: prometheus.alert_states().keys() == names)
    raised = {name: state for name, state in prometheus.alert_states().items() if state != "inactive"}
    assert raised.keys() <= {"CliptideDiskFilling"}, "how full the disk is, is this machine's business"
    assert watched.consumer.stop() == 0
    watched.fleet.wait(lambda: prometheus.alert_states()["CliptideServiceDown"] == "pending")
