"""Puts a consumer together from plain values: the one place where its parts meet."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from opentelemetry.trace import Tracer

from clip_index.encoder.protocol import Encoder
from clip_index.storage.index_roots import local_directory
from clip_index.writing.shard_writer import WriterSettings
from consumer.backlog.backlog import Backlog, BacklogLimits
from consumer.dead_letters.dead_letter import DeadLetters
from consumer.dead_letters.dead_letter_limit import DeadLetterLimit, FloodThreshold
from consumer.encoding.batcher import BatchLimits
from consumer.encoding.canary_watch import CanaryWatch
from consumer.encoding.thread import BatchEncoder, DeadLetterOutlet, Encoding
from consumer.intake.assignment import Assignment, RecordPath
from consumer.intake.dispatcher import Dispatcher
from consumer.intake.patience import AssignmentPatience, TakeoverRetry
from consumer.intake.progress import Progress
from consumer.intake.start_check import StartOptions
from consumer.intake.takeover import StartFinder, Takeover
from consumer.intake.thread import Intake, IntakeParts, IntakeSettings
from consumer.intake.topic_watch import TopicWatch
from consumer.notices import Notices
from consumer.opened_index import IndexLocation, OpenedIndex, open_index
from consumer.pipeline import Pipeline, PipelineParts
from consumer.pipeline_state import PipelineState
from consumer.preparation.placement import Placement
from consumer.preparation.record_reader import RecordReader
from consumer.preparation.steps import Fetchers, Preparation, PreparationOptions
from consumer.preparation.upload_contents import UploadContents
from consumer.quarantine.risk_gate import RiskGate
from consumer.references.fetching import FetchLimits, References
from consumer.references.policy import ReferencePolicy
from consumer.registry.fetching import Registry, RegistryPatience, RegistrySchemas
from consumer.registry.kept_schemas import KeptSchemas
from consumer.saved_encodings import ContentDigests, NothingStored, SavedEncodings
from consumer.telemetry.metrics import Metrics
from consumer.tracing import RecordTracing
from consumer.writing.commit_policy import CommitPolicy
from consumer.writing.thread import Writing
from event_log.publisher import NonBlockingPublisher
from event_log.records import TopicDescription
from event_log.source import RecordSource
from schemas.codec import EventDecoder
from schemas.mapping.rules import EventMapping


@dataclass(frozen=True, slots=True)
class ConsumerOptions:
    """Everything about a consumer that is not a connection. The defaults suit one machine.

    The index's canaries are encoded at the start and every `canary_seconds`; not at all if that is None.
    """

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
    mapping: EventMapping | None = None
    fetches: FetchLimits = field(default_factory=FetchLimits)
    registry: RegistryPatience = field(default_factory=RegistryPatience)
    reuses_stored_encodings: bool = True
    canary_seconds: float | None = None
    probe_seconds: float = 1.0
    topic_check_seconds: float = 5.0
    stop_timeout_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Connections:
    """What a consumer reads from, publishes to and encodes with.

    The caller closes the publisher; the intake thread closes the source. Without a tracer nothing is
    traced.
    """

    source: RecordSource
    publisher: NonBlockingPublisher
    encoder: Encoder
    topic: TopicDescription
    dead_letter_topic: str
    tracer: Tracer | None = None
    registry: Registry | None = None


def build_consumer(
    connections: Connections, location: IndexLocation, options: ConsumerOptions, metrics: Metrics
) -> Pipeline:
    """Build everything, start nothing. Raises `IndexRefused`, and `DamagedIndexFile` for its canaries."""
    index = open_index(location, connections.topic, connections.encoder, options.writer)
    return _Assembly(connections, location, index=index, options=options, metrics=metrics).build()


class _Assembly:
    """Builds the parts of one consumer; its attributes are what several parts are built with."""

    def __init__(
        self,
        connections: Connections,
        location: IndexLocation,
        *,
        index: OpenedIndex,
        options: ConsumerOptions,
        metrics: Metrics,
    ) -> None:
        self._connections = connections
        self._location = location
        self._options = options
        self._metrics = metrics
        self._index = index
        tracer = connections.tracer
        tracing = RecordTracing(tracer, location.group_id) if tracer is not None else None
        self._backlog = Backlog(options.backlog, tracing)
        self._gate = RiskGate()
        self._notices = Notices()
        self._state = PipelineState()
        self._schemas = self._build_schemas()
        self._saved = self._build_saved_encodings()

    def build(self) -> Pipeline:
        """A part is handed parts that exist already, so the writer, which needs no other, comes first."""
        options = self._options
        writing = Writing(
            self._index.shards, policy=options.commits, notices=self._notices, metrics=self._metrics
        )
        encoding = self._build_encoding(writing)
        references = References(options.references, options.fetches, failing=self._metrics.references_failing)
        preparation = self._build_preparation(references)
        intake = self._build_intake(RecordPath(self._backlog, encoding, writing), preparation)
        parts = PipelineParts(
            intake, preparation, references, encoding, writing, self._index.shards, schemas=self._schemas
        )
        return Pipeline(
            parts,
            self._state,
            outages=self._metrics.outages,
            stop_timeout_seconds=options.stop_timeout_seconds,
        )

    def _build_schemas(self) -> RegistrySchemas | None:
        registry = self._connections.registry
        if registry is None:
            return None
        kept = KeptSchemas(local_directory(self._location.root), registry.address)
        return RegistrySchemas(registry, kept, outages=self._metrics.outages, patience=self._options.registry)

    def _build_saved_encodings(self) -> SavedEncodings:
        digests = ContentDigests(self._connections.encoder.fingerprint, self._options.preparation.recipe)
        stored = self._index.stored if self._options.reuses_stored_encodings else NothingStored()
        return SavedEncodings(digests, stored, self._metrics.encodings_saved)

    def _build_encoding(self, writing: Writing) -> Encoding:
        dead_letters = DeadLetters(
            self._connections.publisher,
            self._connections.dead_letter_topic,
            connector=self._location.group_id,
            worker_id=self._index.writer_id,
        )
        return Encoding(
            self._backlog,
            BatchEncoder(self._connections.encoder, self._gate, self._metrics, self._saved),
            outlet=DeadLetterOutlet(dead_letters, DeadLetterLimit(self._options.flood)),
            limits=self._options.batches,
            writing=writing,
            metrics=self._metrics,
            canaries=self._open_canaries(),
        )

    def _open_canaries(self) -> CanaryWatch | None:
        every_seconds = self._options.canary_seconds
        store, encoder = self._index.store, self._connections.encoder
        if every_seconds is None or store is None:
            return None
        return CanaryWatch.open(store, encoder, metrics=self._metrics, every_seconds=every_seconds)

    def _build_preparation(self, references: References) -> Preparation:
        placement = Placement(
            self._connections.topic.num_partitions,
            self._metrics.misplaced_records,
            sets_aside=self._options.preparation.sets_misplaced_aside,
        )
        decoder = EventDecoder(
            mapping=self._options.mapping,
            registry=self._schemas,
            on_passed_over=lambda rule: self._metrics.passed_over.labels(rule).inc(),
        )
        return Preparation(
            reader=RecordReader(decoder, placement, self._metrics.other_keys),
            contents=UploadContents(
                self._connections.encoder,
                self._saved,
                truncated_texts=self._metrics,
                make_thumbnail=self._options.preparation.make_thumbnail,
            ),
            fetchers=Fetchers(references, self._schemas),
            meter=self._metrics,
            options=self._options.preparation,
            settled=self._backlog,
        )

    def _build_intake(self, path: RecordPath, preparation: Preparation) -> Intake:
        source, options = self._connections.source, self._options
        topic_watch = TopicWatch(source, self._connections.topic, every_seconds=options.topic_check_seconds)
        parts = IntakeParts(
            assignment=self._build_assignment(path, topic_watch),
            backlog=self._backlog,
            dispatcher=self._build_dispatcher(preparation),
            progress=self._build_progress(path.writing),
            topic_watch=topic_watch,
        )
        return Intake(source, parts, notices=self._notices, settings=options.intake, metrics=self._metrics)

    def _build_assignment(self, path: RecordPath, topic_watch: TopicWatch) -> Assignment:
        return Assignment(
            self._build_takeover(path.writing, topic_watch),
            path,
            source=self._connections.source,
            release_seconds=self._options.patience.release_seconds,
            state=self._state,
        )

    def _build_takeover(self, writing: Writing, topic_watch: TopicWatch) -> Takeover:
        source, patience = self._connections.source, self._options.patience
        retry = TakeoverRetry(patience, self._state, self._metrics)
        has_topic_id = self._connections.topic.topic_id is not None
        start_finder = StartFinder(
            source,
            retry,
            options=replace(self._options.start, trusts_log_end=not has_topic_id),
            log_end_seconds=patience.log_end_seconds,
        )
        return Takeover(
            source,
            writing,
            topic_watch=topic_watch,
            shard_paths=self._index.shard_paths,
            start_finder=start_finder,
            retry=retry,
        )

    def _build_dispatcher(self, preparation: Preparation) -> Dispatcher:
        return Dispatcher(
            self._backlog,
            preparation,
            gate=self._gate,
            encoder=self._connections.encoder,
            metrics=self._metrics,
        )

    def _build_progress(self, writing: Writing) -> Progress:
        return Progress(
            self._backlog,
            shard_names=self._index.names,
            writing=writing,
            metrics=self._metrics,
            probe_seconds=self._options.probe_seconds,
        )
