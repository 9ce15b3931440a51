"""What `--hold` does: a consumer that only a person can help stays, not ready, instead of ending.

A supervisor that starts every ended process again, as Kubernetes does, would repeat the same failure for
ever. After a flood of dead letters, each start would even set further records aside. A held consumer reads
and writes nothing. It is live, so that nobody restarts it, and `/readyz` says why it is held.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import structlog
from prometheus_client import CollectorRegistry

from consumer.health import HealthServer
from consumer.settings import ConsumerSettings
from consumer.starting.refusals import Refusal
from consumer.telemetry.metrics import Metrics
from service.environment import PREFIX
from service.program_metrics import describe_program, measure_process

_HOST = f"{PREFIX}CONSUMER__HEALTH_HOST"
_PORT = f"{PREFIX}CONSUMER__HEALTH_PORT"
_MAX_PORT = 65_535
_log = structlog.get_logger(__name__)


def hold(refusal: Refusal, environment: Mapping[str, str], wait_for_stop: Callable[[], None]) -> None:
    """Answer health checks and metrics until `wait_for_stop` returns.

    If the address cannot be listened on, the consumer is held without answers.
    """
    _log.error("held until a signal", exit_code=refusal.exit_code, reason=refusal.sentence)
    host, port = health_address(environment)
    try:
        server = HealthServer(host, port, check=refusal, registry=_registry(refusal))
    except OSError as error:
        _log.error("held without health checks", host=host, port=port, error=str(error))
        return wait_for_stop()
    server.start()
    try:
        wait_for_stop()
    finally:
        server.close()


def health_address(environment: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """Return where health checks are expected, even if other settings cannot be read."""
    defaults = ConsumerSettings()
    host, port = environment.get(_HOST, defaults.health_host), environment.get(_PORT, "")
    is_port = port.isascii() and port.isdecimal() and int(port) <= _MAX_PORT
    return host, int(port) if is_port else defaults.health_port


def _registry(refusal: Refusal) -> CollectorRegistry:
    metrics = Metrics()
    describe_program(metrics.registry)
    measure_process(metrics.registry)
    metrics.held_exit_code.set(refusal.exit_code)
    return metrics.registry
