"""`python -m consumer`: read one topic into one index until SIGTERM or SIGINT.

Exit codes, each failure with one sentence on stderr:
0 stopped by a signal, everything encoded is committed;
1 a fault: what was in flight is handled one at a time at the next start;
2 bad settings;
3 refused: index, log, group, schema and settings do not fit together, or a file is damaged;
4 the encoder cannot be loaded;
5 the log cannot be used: unauthorised, misconfigured, a missing topic, no take-over in time;
6 a flood of dead letters;
7 another writer owns a shard of ours: start again.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from types import FrameType

import structlog

from clip_index.encoder.canary import warm_up
from clip_index.encoder.protocol import Encoder
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import ClipIndexError, DamagedFile, EncoderUnavailable, Fenced
from consumer.app import Connections, IndexPlace, build_consumer
from consumer.backoff import Backoff
from consumer.errors import AssignmentFailed, DeadLetterFlood, FencedWhileAssigned, StartRefused
from consumer.health import Health, HealthListener, check_health
from consumer.options_from_settings import options_from_settings
from consumer.pipeline import Pipeline
from consumer.settings import Settings, read_settings
from consumer.telemetry.metrics import Metrics
from event_log.errors import EventLogError, TransientLogError
from event_log.kafka.admin import KafkaAdmin, TopicCreation
from event_log.kafka.publisher import KafkaPublisher
from event_log.kafka.settings import MAX_RECORD_BYTES
from event_log.kafka.source import KafkaRecordSource
from event_log.records import TopicDescription
from schemas.errors import UnknownSchema
from service.command_line import build_parser
from service.gc_tuning import freeze_gc
from service.logs import configure_logs
from service.settings import BadSettings

_STALLED_AFTER_SECONDS = 120.0
_REQUEST_TIMEOUT_SECONDS = 5.0  # intake waits for an answer, and so does a stop
_SIGNAL_POLL_SECONDS = 0.1
_log = structlog.get_logger(__name__)


class Signals:
    """Remembers that a stop was asked for. A handler may do no more: locks could be held."""

    def __init__(self) -> None:
        self.is_stop_requested = False

    def listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request_stop)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self.is_stop_requested = True


def main(arguments: Sequence[str] | None = None) -> int:
    return run(_load_encoder, arguments)


def run(load_encoder: Callable[[EncoderSettings], Encoder], arguments: Sequence[str] | None = None) -> int:
    """Read settings, open everything, consume; return the exit code."""
    accepted = _accepted(arguments)
    signals = Signals()
    signals.listen()
    try:
        settings = _with_flags(read_settings(), accepted)
        configure_logs()
        _consume(settings, load_encoder, signals)
    except Exception as error:  # noqa: BLE001 - every failure becomes a sentence and a code
        return _refuse(error)
    return 0


def exit_code_from(error: Exception) -> int:
    """The documented code of a failure."""
    if isinstance(error, BadSettings):
        return 2
    if isinstance(error, EncoderUnavailable):
        return 4
    if isinstance(error, (FencedWhileAssigned, Fenced)):
        return 7
    if isinstance(error, (StartRefused, UnknownSchema, ClipIndexError)):
        return 3
    if isinstance(error, (EventLogError, AssignmentFailed)):
        return 5
    return 6 if isinstance(error, DeadLetterFlood) else 1


def _consume(
    settings: Settings, load_encoder: Callable[[EncoderSettings], Encoder], signals: Signals
) -> None:
    encoder = load_encoder(settings.encoder)
    with ExitStack() as stack:
        topic = _wait_for_topics(settings, signals)
        if topic is None:
            return
        with _judged_settings():
            publisher = stack.enter_context(closing(KafkaPublisher(settings.kafka.connection())))
            source = KafkaRecordSource(
                settings.kafka.connection(),
                settings.group_id,
                request_timeout_seconds=_REQUEST_TIMEOUT_SECONDS,
            )
        connections = Connections(source, publisher, encoder, topic, settings.dead_letter_topic)
        place = IndexPlace(settings.index.root, settings.index.id, settings.group_id)
        metrics = Metrics()
        pipeline = _build_pipeline(connections, place, settings, metrics)
        health = _build_health(settings, pipeline, metrics)
        freeze_gc()
        pipeline.start()
        health.start()
        stack.callback(health.close)
        _log.info("consuming", topic=topic.name, index=settings.index.id, health_port=health.port)
        _supervise(pipeline, signals)


@contextmanager
def _judged_settings() -> Iterator[None]:
    """Kafka's clients judge their properties: a `ValueError` here is no defect, as it is anywhere else."""
    try:
        yield
    except ValueError as error:
        raise BadSettings(str(error)) from error


def _build_pipeline(
    connections: Connections, place: IndexPlace, settings: Settings, metrics: Metrics
) -> Pipeline:
    try:
        return build_consumer(connections, place, options_from_settings(settings), metrics)
    except OSError as error:
        reason = f"CLIPTIDE_INDEX__ROOT: no index can be kept in {place.root}: {error.strerror}"
        raise BadSettings(reason) from error


def _build_health(settings: Settings, pipeline: Pipeline, metrics: Metrics) -> HealthListener:
    def check() -> Health:
        return check_health(pipeline, stalled_after_seconds=_STALLED_AFTER_SECONDS)

    metrics.watch(is_ready=lambda: not check().not_ready, index_root=settings.index.root)
    host, port = settings.consumer.health_host, settings.consumer.health_port
    try:
        return HealthListener(host, port, check=check, registry=metrics.registry)
    except OSError as error:
        reason = f"CLIPTIDE_CONSUMER__HEALTH_PORT: nothing can listen on {host}:{port}: {error.strerror}"
        raise BadSettings(reason) from error


def _supervise(pipeline: Pipeline, signals: Signals) -> None:
    while not signals.is_stop_requested and not pipeline.wait(_SIGNAL_POLL_SECONDS):
        pass
    _log.info("stopping")
    pipeline.finish()
    _log.info("stopped")


def _wait_for_topics(settings: Settings, signals: Signals) -> TopicDescription | None:
    """Describe the topic, created when allowed, as soon as a broker answers; None when told to stop."""
    with _judged_settings():
        admin = KafkaAdmin(settings.kafka.connection())
    backoff, num_failures = Backoff(0.5, 10.0), 0
    while not signals.is_stop_requested:
        try:
            admin.ensure_topic(settings.dead_letter_topic, _creation(settings, num_partitions=1))
            return admin.ensure_topic(
                settings.topic, _creation(settings, num_partitions=settings.consumer.num_partitions)
            )
        except TransientLogError as error:
            num_failures += 1
            servers = settings.kafka.bootstrap_servers
            _log.warning("waiting for the broker", bootstrap_servers=servers, error=str(error))
            time.sleep(backoff.seconds(num_failures))
    return None


def _creation(settings: Settings, *, num_partitions: int) -> TopicCreation | None:
    if not settings.consumer.create_topics:
        return None
    return TopicCreation(num_partitions, config={"max.message.bytes": MAX_RECORD_BYTES})


def _accepted(arguments: Sequence[str] | None) -> dict[str, bool]:
    """What the flags say yes to, once, for this start; the variables say the same."""
    parser = build_parser("python -m consumer", __doc__)
    parser.add_argument(
        "--accept-rewind", action="store_true", help="read records again from the index's offset"
    )
    parser.add_argument("--accept-data-loss", action="store_true", help="go on without records that are gone")
    return {name: True for name, given in vars(parser.parse_args(arguments)).items() if given}


def _with_flags(settings: Settings, accepted: dict[str, bool]) -> Settings:
    consumer = settings.consumer.model_copy(update=accepted)
    return settings.model_copy(update={"consumer": consumer})


def _load_encoder(settings: EncoderSettings) -> Encoder:
    _log.info("loading the encoder", model=settings.model)
    from clip_index.encoder.open_clip import load_encoder  # torch takes seconds: settings are judged first

    encoder = load_encoder(settings)
    warm_up(encoder)
    return encoder


def _refuse(error: Exception) -> int:
    code = exit_code_from(error)
    if code == 1:
        _log.error("fault", exc_info=error)
    sentence = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, DamagedFile):
        sentence += (
            "; `cliptide snapshot list` shows what is good, `cliptide snapshot repair` goes back to it"
        )
    print(f"consumer: {sentence}", file=sys.stderr)  # noqa: T201 (one sentence for a person)
    return code


def _leave(exit_code: int) -> None:
    """End now: a thread that is stuck in a decoder must not keep a stopped process alive."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


if __name__ == "__main__":
    _leave(main())
