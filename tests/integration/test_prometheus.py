"""A real Prometheus scrapes both services with the repository's configuration, rules and queries."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cliptide.demo.child_process import LOOPBACK, end, read_tail, spawn
from event_log.kafka.settings import KafkaSettings
from tests.integration.fleet import Fleet, Member, first_entry, running_fleet
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


@dataclass
class Watched:
    """A running consumer and query service, and the Prometheus that scrapes them."""

    fleet: Fleet
    consumer: Member
    history: History
    prometheus: Prometheus
    longest_seconds: float = 0.0  # from publishing to searchable, measured here

    def publish(self, num_events: int) -> float:
        """Publish events, wait until all contents are searchable, and return the number of all events."""
        began = time.monotonic()
        self.history.publish(num_events)
        total = float(sum(self.history.ends.values()))
        self.fleet.wait(lambda: self.prometheus.value("sum(cliptide_query_searcher_next_offset)") == total)
        self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)
        return total


@pytest.fixture(scope="module")
def watched(embedded_settings: KafkaSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    program("prometheus")
    with running_fleet(embedded_settings, "watched-uploads", folder) as fleet:
        consumer = fleet.start()
        history = History(fleet.kafka, fleet.topic)
        history.publish(100)
        history.wait_until_indexed(fleet)
        with _query_service(fleet) as metrics_address:
            consuming = consumer.told("consuming")
            assert consuming is not None
            consumer_address = f"{LOOPBACK}:{consuming['health_port']}"
            targets = {"consumer": consumer_address, "query_api": metrics_address}
            with running_prometheus(write_configuration(folder / "prometheus", targets)) as prometheus:
                fleet.wait(lambda: prometheus.value("count(up == 1)") == 2.0)
                yield Watched(fleet, consumer, history, prometheus)


@contextmanager
def _query_service(fleet: Fleet) -> Iterator[str]:
    """Run a query service over the fleet's index. Yields the address of its metrics."""
    log = fleet.folder / "query_service.log"
    variables = {
        "CLIPTIDE_INDEX__ROOT": str(fleet.root),
        "CLIPTIDE_QUERY_API__PORT": "0",
        "CLIPTIDE_QUERY_API__METRICS_PORT": "0",
        "CLIPTIDE_QUERY_API__DRAIN_SECONDS": "0",
    }
    command = [sys.executable, "-m", "tests.integration.hash_query_service"]
    process = spawn(command, log, environment={**os.environ, **variables})
    try:
        fleet.wait(lambda: process.poll() is not None or first_entry(log, "listening") is not None)
        listening = first_entry(log, "listening")
        assert listening is not None, read_tail(log)
        yield listening["metrics"]
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
    prometheus, fleet = watched.prometheus, watched.fleet
    fleet.wait(lambda: prometheus.value("cliptide_consumer_ready") == 1.0)
    fleet.wait(lambda: prometheus.value("cliptide_query_ready") == 1.0)
    num_events = watched.publish(40)
    watched.history.wait_until_indexed(fleet)
    fleet.wait(lambda: prometheus.value("sum(cliptide_consumer_records_total)") == num_events)
    fleet.wait(lambda: prometheus.value("sum(cliptide_consumer_lag_records)") == 0.0)
    fleet.wait(lambda: (prometheus.value("cliptide_consumer_index_free_bytes") or 0.0) > 0)


def test_both_services_tell_their_version_and_what_the_process_takes(watched: Watched) -> None:
    prometheus = watched.prometheus
    watched.fleet.wait(lambda: prometheus.value("count(cliptide_build_info)") == 2.0)
    watched.fleet.wait(lambda: prometheus.value("count(process_resident_memory_bytes > 1e6)") == 2.0)
    assert prometheus.value("count(python_info)") == 2.0
    assert prometheus.query('{__name__=~".*_created"}') == []


def test_a_healthy_pipeline_raises_no_alert(watched: Watched) -> None:
    prometheus = watched.prometheus
    names = {rule["alert"] for rule in alert_rules()}
    watched.fleet.wait(lambda: prometheus.alert_states().keys() == names)
    watched.publish(40)
    seen_uploads = "rate(cliptide_searchable_after_event_seconds_count[5m]) > 0"
    watched.fleet.wait(lambda: bool(prometheus.query(seen_uploads)))
    before = prometheus.evaluated_at()
    watched.fleet.wait(lambda: prometheus.evaluated_at() != before)
    excused = {"CliptideDiskFilling", "CliptideDiskFull"}  # the disk of this machine may be full
    if watched.longest_seconds > 5:  # this machine stalled; the alert looks minutes back
        excused.add("CliptideSlowToSearchable")
    watched.fleet.wait(lambda: raised(prometheus) <= excused)


def test_a_consumer_that_does_not_answer_raises_an_alert(watched: Watched) -> None:
    watched.consumer.send(signal.SIGSTOP)
    try:
        watched.fleet.wait(lambda: "CliptideServiceDown" in raised(watched.prometheus))
    finally:
        watched.consumer.send(signal.SIGCONT)
    watched.fleet.wait(lambda: "CliptideServiceDown" not in raised(watched.prometheus))


def raised(prometheus: Prometheus) -> set[str]:
    """Return the alerts whose condition holds, even if not for as long as the rule demands."""
    return {name for name, state in prometheus.alert_states().items() if state != "inactive"}
