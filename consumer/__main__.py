"""`python -m consumer`: read one topic into one index until SIGTERM or SIGINT.

Exit codes; each failure also prints one sentence on stderr:
0 a signal stopped the consumer, and everything encoded is committed;
1 a fault: the next start handles the records that were in flight one at a time;
2 bad settings;
3 refused: index, log, group, schema and settings do not fit together, or a file is damaged;
4 the encoder cannot be loaded;
5 the log or the schema registry cannot be used: unauthorised, misconfigured, a missing topic, no takeover in
  time;
6 a flood of dead letters;
7 another writer owns a shard of this consumer: start again.

With --hold, a consumer that would end with 2, 3, 4 or 6 stays instead, live and not ready, until a signal.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace

import structlog

from clip_index.encoder.protocol import Encoder
from clip_index.encoder.settings import EncoderSettings
from clip_index.storage.index_roots import local_directory
from consumer.health import HealthCheck, HealthServer
from consumer.pipeline import Pipeline
from consumer.settings import Settings, read_settings
from consumer.starting.building import build_pipeline, encoder_as_index_was_built
from consumer.starting.connections import connect, find_topic
from consumer.starting.held import hold
from consumer.starting.refusals import FAULT, WANTS_A_PERSON, Refusal
from consumer.starting.signals import SIGNAL_POLL_SECONDS, Signals
from consumer.starting.waiting import Waits
from consumer.telemetry.metrics import Metrics
from consumer.tracing import SERVICE
from service.command_line import build_parser
from service.encoder import load_warm_encoder
from service.environment import BadSettings
from service.logs import configure_logs, trace_crashes
from service.process.exit_deadline import MARGIN_SECONDS, ExitDeadline, leave
from service.process.gc_tuning import freeze_gc
from service.program_metrics import describe_program, measure_process
from service.tracing import open_tracer

_STALLED_AFTER_SECONDS = 120.0
_log = structlog.get_logger(__name__)


def main(arguments: Sequence[str] | None = None, called_as: str | None = None) -> int:
    return run(load_warm_encoder, arguments, called_as)


def run(
    load_encoder: Callable[[EncoderSettings], Encoder],
    arguments: Sequence[str] | None = None,
    called_as: str | None = None,
) -> int:
    """Read settings, open everything, consume; return the exit code."""
    flags = _read_flags(arguments, called_as)
    signals = Signals()
    signals.listen()
    refusal = _try_to_consume(load_encoder, flags, signals)
    if flags.hold and refusal.exit_code in WANTS_A_PERSON:
        hold(refusal, os.environ, signals.wait)
    return refusal.exit_code


def _try_to_consume(
    load_encoder: Callable[[EncoderSettings], Encoder], flags: argparse.Namespace, signals: Signals
) -> Refusal:
    try:
        settings = _with_flags(read_settings(), flags)
        configure_logs(settings.log.level, settings.log.format)
        trace_crashes()
        _consume(settings, load_encoder, signals)
    except Exception as error:  # noqa: BLE001 - every failure becomes a sentence and a code
        return _refuse(error)
    return Refusal(0, "stopped by a signal")


def _consume(
    settings: Settings, load_encoder: Callable[[EncoderSettings], Encoder], signals: Signals
) -> None:
    """Open what the pipeline needs, and run it until it is to stop."""
    with ExitStack() as stack:
        tracer = stack.enter_context(open_tracer(SERVICE))
        kafka, metrics = settings.kafka.connection(), Metrics()  # one `kafka` for all, which share its log
        waits = Waits(metrics.outages, signals)
        as_built = waits.for_disk(lambda: encoder_as_index_was_built(settings))
        if as_built is None:
            return
        encoder = load_encoder(as_built)
        describe_program(metrics.registry)
        measure_process(metrics.registry)
        topic = find_topic(settings, kafka, waits)
        if topic is None:
            return
        connections = replace(connect(settings, kafka, topic, encoder, stack), tracer=tracer)
        pipeline = waits.for_disk(lambda: build_pipeline(connections, settings, metrics))
        if pipeline is None:
            return
        health = _build_health(settings, pipeline, metrics)
        freeze_gc()
        pipeline.start()
        health.start()
        stack.callback(health.close)
        _log.info("consuming", topic=topic.name, index=settings.index.id, health_port=health.port)
        _supervise(pipeline, signals, settings.consumer.stop_timeout_seconds)


def _build_health(settings: Settings, pipeline: Pipeline, metrics: Metrics) -> HealthServer:
    check = HealthCheck(pipeline, _STALLED_AFTER_SECONDS)
    metrics.watch(is_ready=check.is_ready, index_root=local_directory(settings.index.location))
    host, port = settings.consumer.health_host, settings.consumer.health_port
    try:
        return HealthServer(
            host,
            port,
            check=check,
            registry=metrics.registry,
            host_names=settings.consumer.health_host_names,
        )
    except OSError as error:
        reason = f"CLIPTIDE_CONSUMER__HEALTH_PORT: nothing can listen on {host}:{port}: {error.strerror}"
        raise BadSettings(reason) from error


def _supervise(pipeline: Pipeline, signals: Signals, stop_seconds: float) -> None:
    """Wait until the pipeline is to stop, and stop it; the process ends then, even if the disk hangs."""
    while not signals.is_stop_requested and not pipeline.wait(SIGNAL_POLL_SECONDS):
        pass
    _log.info("stopping")
    with closing(ExitDeadline()) as deadline:
        deadline.start(stop_seconds + MARGIN_SECONDS)
        pipeline.finish()
    _log.info("stopped")


def _read_flags(arguments: Sequence[str] | None, called_as: str | None) -> argparse.Namespace:
    """Read the flags. An --accept-… accepts for this start what the setting of that name always accepts."""
    parser = build_parser("python -m consumer", __doc__, called_as)
    parser.add_argument(
        "--accept-rewind", action="store_true", help="read records again from the index's offset"
    )
    parser.add_argument("--accept-data-loss", action="store_true", help="go on without records that are gone")
    parser.add_argument("--hold", action="store_true", help="stay, not ready, where only a person can help")
    return parser.parse_args(arguments)


def _with_flags(settings: Settings, flags: argparse.Namespace) -> Settings:
    accepted = {name: True for name, given in vars(flags).items() if given and name.startswith("accept_")}
    consumer = settings.consumer.model_copy(update=accepted)
    return settings.model_copy(update={"consumer": consumer})


def _refuse(error: Exception) -> Refusal:
    refusal = Refusal.of(error)
    if refusal.exit_code == FAULT:
        _log.error("fault", exc_info=error)
    print(f"consumer: {refusal.sentence}", file=sys.stderr)  # noqa: T201 (one sentence for a person)
    return refusal


if __name__ == "__main__":
    leave(main())
