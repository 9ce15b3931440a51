"""Fixtures for all tests, and a line for each suite that cannot run here."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.fixtures.brokers import (
    apache_kafka,
    embedded_broker,
    embedded_settings,
    kafka_settings,
    unique_name,
)
from tests.fixtures.buckets import azurite_server, moto_server, s3_gateway, s3_url
from tests.fixtures.registries import apicurio, told_registry
from tests.fixtures.search_engines import opensearch_node

# An example has no deadline, so that no test fails because the machine is busy.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

__all__ = [
    "apache_kafka",
    "apicurio",
    "azurite_server",
    "embedded_broker",
    "embedded_settings",
    "kafka_settings",
    "moto_server",
    "opensearch_node",
    "s3_gateway",
    "s3_url",
    "told_registry",
    "unique_name",
]


@pytest.fixture(autouse=True)
def _own_logs() -> Iterator[None]:
    """Reset the logs after each test, because every command line configures them."""
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print one line for each reason to skip; the reason says how to enable the suite."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped)
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"not run here: {count} tests: {reason}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """With CLIPTIDE_TEST_NO_SKIP (make test-all) a skipped test is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CLIPTIDE_TEST_NO_SKIP") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = exitstatus or pytest.ExitCode.TESTS_FAILED
