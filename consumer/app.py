"""Puts a consumer together from plain values: the one place where its parts meet."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path

from clip_index.encoder.protocol import Encoder
from clip_index.generations.index_directory import IndexDescription, IndexDirectory
from clip_index.writing.merge_worker import MergeLanes
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from consumer.backlog.backlog import Backlog, BacklogLimits
from consumer.dead_letters.dead_letter import DeadLetters
from consumer.dead_letters.dead_letter_limit import DeadLetterLimit, FloodThreshold
from consumer.encoding.batcher import BatchLimits
from consumer.encoding.thread import BatchEncoder, DeadLetterOutlet, Encoding
from consumer.intake.assignment import Assignment, Stages
from consumer.intake.dispatcher import Dispatcher
from consumer.intake.progress import Progress
from consumer.intake.start_check import StartOptions
from consumer.intake.takeover import AssignmentPatience, Takeover
from consumer.intake.thread import Intake, IntakeParts, IntakeSettings
from consumer.intake.topic_watch import TopicWatch
from consumer.pipeline import Pipeline, PipelineParts, PipelineState
from consumer.preparation.steps import Preparation, PreparationOptions
from consumer.quarantine.risk_gate import RiskGate
from consumer.references.fetching import FetchLimits, References
from consumer.references.policy import ReferencePolicy
from consumer.telemetry.metrics import Metrics
from consumer.work import Committed
from consumer.writing.owned_shard import CommitPolicy
from consumer.writing.thread import WriterNotices, Writing
from event_log.publisher import NonBlockingPublisher
from event_log.records import TopicDescription
from event_log.source import RecordSource
from schemas.codec import EventDecoder


@dataclass(frozen=True, slots=True)
class ConsumerOptions:
    """Everything about a consumer that is not a connection, with defaults for one machine."""

    backlog: BacklogLimits = field(default_factory=BacklogLimits)
    batches: BatchLimits = field(default_factory=BatchLimits)
    commits: CommitPolicy = field(default_factory=CommitPolicy)
    writer: WriterSettings = field(default_factory=WriterSettings)
    flood: FloodThreshold = field(default_factory=FloodThreshold)
    intake: IntakeSettings = field(default_factory=IntakeSettings)
    preparation: PreparationOptions = field(default_factory=PreparationOptions)
    patience: AssignmentPatience = field(default_factory=AssignmentPatience)
    start: StartOptions = field(default_factory=StartOptions)
    references: ReferencePolicy = field(default_factory=ReferencePolicy)
    fetches: FetchLimits = field(default_factory=FetchLimits)
    probe_seconds: float = 1.0
    topic_check_seconds: float = 5.0
    stop_timeout_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Connections:
    """What a consumer works between. The caller closes the publisher; intake closes the source."""

    source: RecordSource
    publisher: NonBlockingPublisher
    encoder: Encoder
    topic: TopicDescription
    dead_letter_topic: str


@dataclass(frozen=True, slots=True)
class IndexPlace:
    """Where the index lies and whose it is."""

    root: Path
    index_id: str
    group_id: str


def open_index(place: IndexPlace, topic: TopicDescription, encoder: Encoder) -> IndexDirectory:
    """Create the index or open the one there; `IndexRefused` when it is not this log's and encoder's."""
    description = IndexDescription(
        topic=topic.name,
        topic_id=topic.topic_id,
        num_partitions=topic.num_partitions,
        group_id=place.group_id,
        fingerprint=encoder.fingerprint,
    )
    return IndexDirectory.create(place.root, place.index_id, description)


def build_writer_id() -> str:
    """Unlike any other process's, and readable in a manifest."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def build_consumer(
    connections: Connections, place: IndexPlace, options: ConsumerOptions, metrics: Metrics
) -> Pipeline:
    """Build everything, start nothing. Raises `IndexRefused`."""
    index = open_index(place, connections.topic, connections.encoder)
    backlog = Backlog(options.backlog)
    house = _House(connections, place, index, options, metrics, backlog, build_writer_id())
    notices, lanes = _IntakeNotices(), MergeLanes()
    writing = _build_writing(house, lanes, notices)
    references = References(options.references, options.fetches, waiting=metrics.references_failing.set)
    preparation = _build_preparation(house, references)
    encoding = _build_encoding(house, writing)
    notices.intake = intake = _build_intake(house, preparation, encoding, writing)
    parts = PipelineParts(intake, preparation, references, encoding, writing, lanes)
    return Pipeline(parts, house.state, stop_timeout_seconds=options.stop_timeout_seconds)


@dataclass(frozen=True, slots=True)
class _House:
    """What several parts are built with."""

    connections: Connections
    place: IndexPlace
    index: IndexDirectory
    options: ConsumerOptions
    metrics: Metrics
    backlog: Backlog
    writer_id: str
    state: PipelineState = field(default_factory=PipelineState)
    gate: RiskGate = field(default_factory=RiskGate)


def _build_preparation(house: _House, references: References) -> Preparation:
    return Preparation(
        decoder=EventDecoder(),
        encoder=house.connections.encoder,
        references=references,
        timer=house.metrics,
        options=house.options.preparation,
        notify=house.backlog.notify,
    )


def _build_encoding(house: _House, writing: Writing) -> Encoding:
    dead_letters = DeadLetters(
        house.connections.publisher,
        house.connections.dead_letter_topic,
        connector=house.place.group_id,
        worker_id=house.writer_id,
    )
    return Encoding(
        house.backlog,
        BatchEncoder(house.connections.encoder, house.gate, house.metrics),
        outlet=DeadLetterOutlet(dead_letters, DeadLetterLimit(house.options.flood)),
        limits=house.options.batches,
        hand_over=writing.hand_over,
        metrics=house.metrics,
    )


def _build_assignment(
    house: _House, topic_watch: TopicWatch, encoding: Encoding, writing: Writing
) -> Assignment:
    return Assignment(
        _build_takeover(house, writing),
        Stages(house.backlog, encoding, writing),
        source=house.connections.source,
        check_topic=topic_watch.check,
        release_seconds=house.options.patience.release_seconds,
        has_faulted=house.state.has_faulted,
    )


def _build_takeover(house: _House, writing: Writing) -> Takeover:
    has_topic_id = house.connections.topic.topic_id is not None
    return Takeover(
        house.connections.source,
        writing,
        shard_path=house.index.shard_path,
        options=replace(house.options.start, trusts_log_end=not has_topic_id),
        patience=house.options.patience,
        metrics=house.metrics,
        stops_within=house.state.wait,
    )


def _build_intake(house: _House, preparation: Preparation, encoding: Encoding, writing: Writing) -> Intake:
    backlog, encoder, metrics = house.backlog, house.connections.encoder, house.metrics
    source, topic = house.connections.source, house.connections.topic
    topic_watch = TopicWatch(source, topic, every_seconds=house.options.topic_check_seconds)
    progress = Progress(
        backlog,
        shard_name=house.index.shard_name,
        caught_up=writing.caught_up,
        metrics=metrics,
        probe_seconds=house.options.probe_seconds,
    )
    parts = IntakeParts(
        assignment=_build_assignment(house, topic_watch, encoding, writing),
        backlog=backlog,
        dispatcher=Dispatcher(backlog, preparation, gate=house.gate, encoder=encoder, metrics=metrics),
        progress=progress,
        topic_watch=topic_watch,
    )
    return Intake(source, parts, settings=house.options.intake, metrics=metrics)


def _build_writing(house: _House, lanes: MergeLanes, notices: _IntakeNotices) -> Writing:
    def take_over(partition: int, first_offset: int, own_epoch: int | None) -> ShardWriter:
        return ShardWriter.take_over(
            house.index,
            partition,
            writer_id=house.writer_id,
            first_offset=first_offset,
            own_epoch=own_epoch,
            settings=house.options.writer,
            lanes=lanes,
        )

    return Writing(
        take_over,
        policy=house.options.commits,
        notices=WriterNotices(notices.committed, notices.fenced),
        metrics=house.metrics,
    )


class _IntakeNotices:
    """Lets the writer be built before the intake thread that it tells of its commits."""

    intake: Intake

    def committed(self, committed: Committed) -> None:
        self.intake.committed(committed)

    def fenced(self, partition: int, assignment_epoch: int) -> None:
        self.intake.fenced(partition, assignment_epoch)
