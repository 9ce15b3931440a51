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
import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from types import FrameType
from typing import TypeVar

import structlog

from clip_index.encoder.canary import warm_up
from clip_index.encoder.protocol import Encoder
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import ClipIndexError, DamagedFile, DamagedIndexFile, EncoderUnavailable, Fenced
from clip_index.generations.index_directory import IndexDirectory
from clip_index.generations.kept_crops import with_crops_of_index
from clip_index.generations.recorded_model import RecordedModel, record_model
from clip_index.storage.index_roots import IndexRoot, ObjectRoot, local_directory
from clip_index.storage.shard_store import StoreRefused
from consumer.app import Connections, build_consumer
from consumer.backoff import Backoff
from consumer.errors import AssignmentFailed, DeadLetterFlood, FencedWhileAssigned, StartRefused
from consumer.health import HealthCheck, HealthServer
from consumer.held import WANTS_A_PERSON, Refusal, hold
from consumer.opened_index import IndexLocation
from consumer.options_from_settings import opensearch_settings, options_from_settings
from consumer.pipeline import Pipeline
from consumer.settings import Settings, read_settings
from consumer.telemetry.metrics import Metrics
from consumer.tracing import SERVICE
from event_log.errors import EventLogError, RegistryRefused, RegistryUnavailable, TransientLogError
from event_log.kafka.admin import KafkaAdmin, TopicCreation
from event_log.kafka.publisher import KafkaPublisher
from event_log.kafka.settings import MAX_RECORD_BYTES, KafkaSettings
from event_log.kafka.source import KafkaRecordSource
from event_log.records import TopicDescription
from event_log.schema_registry.client import RegistryClient
from opensearch_engine.index import with_crops_in_opensearch
from schemas.errors import UnknownSchema
from service.command_line import build_parser
from service.environment import BadSettings
from service.exit_deadline import MARGIN_SECONDS, ExitDeadline, leave
from service.freed_memory import return_freed_memory
from service.gc_tuning import freeze_gc
from service.logs import configure_logs, trace_crashes
from service.openmp import PASSIVE, choose_waiting
from service.program_metrics import describe_program, measure_process
from service.tracing import open_tracer

_STALLED_AFTER_SECONDS = 120.0
_REQUEST_TIMEOUT_SECONDS = 5.0  # short, because intake waits for the answer and a stop waits for intake
_START_REQUEST_SECONDS = 10.0
_SIGNAL_POLL_SECONDS = 0.1
_START_BACKOFF = Backoff(0.5, 10.0)
_WRONG_ROOT = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EEXIST,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.EINVAL,
    }
)
"""What the disk answers when the path or its permissions are wrong. Any other error is waited for."""
BuiltT = TypeVar("BuiltT")
_log = structlog.get_logger(__name__)


class Signals:
    """Remembers that a stop was asked for.

    A signal handler must not do more, because the interrupted thread may hold any lock.
    """

    def __init__(self) -> None:
        self.is_stop_requested = False

    def listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request_stop)

    def pause(self, seconds: float) -> None:
        """Wait, but not after a stop was asked for."""
        deadline = time.monotonic() + seconds
        while not self.is_stop_requested and (rest := deadline - time.monotonic()) > 0:
            time.sleep(min(rest, _SIGNAL_POLL_SECONDS))

    def wait(self) -> None:
        """Wait until a stop is asked for."""
        while not self.is_stop_requested:
            time.sleep(_SIGNAL_POLL_SECONDS)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self.is_stop_requested = True


def main(arguments: Sequence[str] | None = None, called_as: str | None = None) -> int:
    return run(_load_encoder, arguments, called_as)


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


def exit_code_from(error: Exception) -> int:
    """The exit code of a failure, as the module's docstring lists it."""
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
    with ExitStack() as stack:
        tracer = stack.enter_context(open_tracer(SERVICE))
        kafka, metrics = settings.kafka.connection(), Metrics()  # one `kafka` for all, which share its log
        as_built = _wait_for_disk(lambda: _as_index_was_built(settings), metrics, signals)
        if as_built is None:
            return
        encoder = load_encoder(as_built)
        describe_program(metrics.registry)
        measure_process(metrics.registry)
        topic = _wait_for_topics(settings, kafka, metrics, signals)
        if topic is None:
            return
        connections = replace(_connect(settings, kafka, topic, encoder, stack), tracer=tracer)
        pipeline = _wait_for_disk(lambda: _build_pipeline(connections, settings, metrics), metrics, signals)
        if pipeline is None:
            return
        health = _build_health(settings, pipeline, metrics)
        freeze_gc()
        pipeline.start()
        health.start()
        stack.callback(health.close)
        _log.info("consuming", topic=topic.name, index=settings.index.id, health_port=health.port)
        _supervise(pipeline, signals, settings.consumer.stop_timeout_seconds)


def _connect(
    settings: Settings, kafka: KafkaSettings, topic: TopicDescription, encoder: Encoder, stack: ExitStack
) -> Connections:
    """Open Kafka's clients. The stack closes the publisher; the intake thread closes the source."""
    with _refusing_bad_properties():
        publisher = stack.enter_context(closing(KafkaPublisher(kafka)))
        source = KafkaRecordSource(kafka, settings.group_id, request_timeout_seconds=_REQUEST_TIMEOUT_SECONDS)
    registry = _open_registry(settings, stack)
    return Connections(source, publisher, encoder, topic, settings.dead_letter_topic, registry=registry)


def _open_registry(settings: Settings, stack: ExitStack) -> RegistryClient | None:
    """Connect to the schema registry, and refuse wrong credentials. If it is away, records wait for it."""
    connection = settings.schema_registry.connection()
    if connection is None:
        return None
    client = stack.enter_context(closing(RegistryClient(connection)))
    try:
        client.check()
    except RegistryRefused:
        raise
    except RegistryUnavailable as error:
        _log.warning("starting without the schema registry", error=str(error))
    return client


@contextmanager
def _refusing_bad_properties() -> Iterator[None]:
    """Turns a `ValueError` of Kafka's clients into `BadSettings`, because it is about their properties.

    Anywhere else a `ValueError` is a defect.
    """
    try:
        yield
    except ValueError as error:
        raise BadSettings(str(error)) from error


def _as_index_was_built(settings: Settings) -> EncoderSettings:
    """What the encoder is loaded with: an index that is there says how many crops a picture has."""
    opensearch = opensearch_settings(settings)
    if opensearch is None:
        return with_crops_of_index(settings.encoder, settings.index.location, settings.index.id)
    return with_crops_in_opensearch(settings.encoder, opensearch, settings.index.id)


def _build_pipeline(connections: Connections, settings: Settings, metrics: Metrics) -> Pipeline:
    location = IndexLocation(
        settings.index.location, settings.index.id, settings.group_id, opensearch_settings(settings)
    )
    try:
        pipeline = build_consumer(connections, location, options_from_settings(settings), metrics)
        if location.opensearch is None:
            index = IndexDirectory.open(location.root, location.index_id)
            record_model(index.store, RecordedModel.of(settings.encoder))
        return pipeline
    except OSError as error:
        if error.errno not in _WRONG_ROOT:
            raise
        raise _wrong_root(location.root, error) from error


def _wrong_root(root: IndexRoot, error: OSError) -> BadSettings:
    if isinstance(error, StoreRefused):
        return BadSettings(f"CLIPTIDE_INDEX__ROOT: no index can be kept in {error}")
    if isinstance(root, ObjectRoot):
        directory = root.cache_directory
        return BadSettings(
            f"CLIPTIDE_INDEX__CACHE_DIR: no copies can be kept in {directory}: {error.strerror}"
        )
    return BadSettings(f"CLIPTIDE_INDEX__ROOT: no index can be kept in {root}: {error.strerror}")


def _wait_for_disk(build: Callable[[], BuiltT], metrics: Metrics, signals: Signals) -> BuiltT | None:
    """Build, and try again while the index's disk or store fails or is full; None when told to stop."""
    num_failures = 0
    with metrics.outages.watched("index", part="start"):
        while not signals.is_stop_requested:
            try:
                return build()
            except OSError as error:
                num_failures += 1
                metrics.outages.failed("index", error, part="start")
            signals.pause(_START_BACKOFF.seconds(num_failures))
    return None


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
    while not signals.is_stop_requested and not pipeline.wait(_SIGNAL_POLL_SECONDS):
        pass
    _log.info("stopping")
    with closing(ExitDeadline()) as deadline:
        deadline.start(stop_seconds + MARGIN_SECONDS)
        pipeline.finish()
    _log.info("stopped")


def _wait_for_topics(
    settings: Settings, kafka: KafkaSettings, metrics: Metrics, signals: Signals
) -> TopicDescription | None:
    """Wait for a broker, create missing topics if allowed, and describe the topic; None when told to stop.

    A broker that refuses the client (password, mechanism, TLS, protocol) is not waited for.
    """
    with _refusing_bad_properties():
        admin = KafkaAdmin(kafka, request_timeout_seconds=_START_REQUEST_SECONDS)
    num_failures, part = 0, kafka.bootstrap_servers
    with metrics.outages.watched("log", part=part):
        while not signals.is_stop_requested:
            try:
                return _ensure_topics(admin, settings)
            except TransientLogError as error:
                num_failures += 1
                metrics.outages.failed("log", error, part=part)
                signals.pause(_START_BACKOFF.seconds(num_failures))
    return None


def _ensure_topics(admin: KafkaAdmin, settings: Settings) -> TopicDescription:
    admin.ensure_topic(settings.dead_letter_topic, _topic_creation(settings, num_partitions=1))
    return admin.ensure_topic(
        settings.topic, _topic_creation(settings, num_partitions=settings.consumer.num_partitions)
    )


def _topic_creation(settings: Settings, *, num_partitions: int) -> TopicCreation | None:
    if not settings.consumer.create_topics:
        return None
    return TopicCreation(num_partitions, config={"max.message.bytes": MAX_RECORD_BYTES})


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


def _load_encoder(settings: EncoderSettings) -> Encoder:
    _log.info("loading the encoder", model=settings.model)
    choose_waiting(os.environ, PASSIVE)
    from clip_index.encoder.open_clip import (  # here: importing torch takes seconds
        find_download,
        load_encoder,
    )

    if (download := find_download(settings)) is not None:
        _log.info("fetching the model", url=download.url, size_bytes=download.size_bytes)
    encoder = load_encoder(settings)
    warm_up(encoder)
    return_freed_memory()
    return encoder


def _refuse(error: Exception) -> Refusal:
    code = exit_code_from(error)
    if code == 1:
        _log.error("fault", exc_info=error)
    sentence = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, DamagedFile) and not isinstance(error, DamagedIndexFile):
        sentence += (
            "; `cliptide snapshot list` shows what is good, `cliptide snapshot repair` goes back to it"
        )
    print(f"consumer: {sentence}", file=sys.stderr)  # noqa: T201 (one sentence for a person)
    return Refusal(code, sentence)


if __name__ == "__main__":
    leave(main())
