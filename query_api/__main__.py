"""`python -m query_api`: serve one index until SIGTERM or SIGINT.

Exit codes: 0 after a signal; 1 if the index or the encoder cannot be used, or after a fault, whose
traceback is in the log; 2 for bad settings, which include an address that is in use. Each failure is
one sentence on stderr.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard
from urllib.parse import unquote, urlsplit

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from clip_index.encoder.canary import warm_up
from clip_index.encoder.protocol import Encoder, EncoderFingerprint
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import (
    ClipIndexError,
    DamagedFile,
    DamagedIndexFile,
    IndexMissing,
    IndexUnavailable,
)
from clip_index.generations.index_directory import IndexDirectory
from clip_index.generations.kept_crops import with_crops_of_index
from clip_index.generations.recorded_model import RecordedModel
from clip_index.reading.index_reader import IndexReader
from clip_index.storage.file_systems import is_shared
from clip_index.storage.shard_store import StoreUnreachable
from event_log.errors import RegistryMisconfigured
from event_log.kafka.publisher import KafkaPublisher
from event_log.kafka.settings import KafkaSettings
from event_log.publisher import Publisher
from event_log.schema_registry.client import RegistryClient
from event_log.schema_registry.writing import register_for
from opensearch_engine.connection import Connection, OpenSearchSettings
from opensearch_engine.index import with_crops_in_opensearch
from opensearch_engine.reader import OpenSearchReader
from query_api.app import AppSettings, build_app
from query_api.encoding.query_encoder import QueryEncoderSettings
from query_api.http.connections.connection import ConnectionLimits
from query_api.http.connections.listener import Address, AddressRefused, listening
from query_api.http.connections.open_connections import bound_connections
from query_api.http.connections.stopping import STOPPING, StopSignals
from query_api.http.guards.api_keys import ApiKeys
from query_api.http.guards.rate_limit import RateLimit
from query_api.root_candidates import RootCandidates
from query_api.search.recall_watch import RecallSettings
from query_api.serving.engine import Reader
from query_api.serving.shown_links import LinkShowingReader
from query_api.settings import (
    MULTIPROC_VARIABLE,
    SECTION,
    HoldFiles,
    IndexSettings,
    ModelSection,
    QueryApiSettings,
    Settings,
    read_settings,
    registry_settings,
)
from query_api.swap.candidates import NamedIndex
from query_api.swap.index_swap import INDEX_SWAP
from query_api.telemetry.metrics_app import build_metrics_app
from query_api.telemetry.multiprocess import num_alive, scrape_registry
from query_api.telemetry.tracing import SERVICE
from query_api.uploads.contents_store import (
    BucketContents,
    BucketTrouble,
    ContentsStore,
    DirectoryContents,
)
from query_api.uploads.large_contents import LargeContents
from query_api.uploads.publishing import PublishSettings
from schemas.codec import EncodedEvent, encode_event
from schemas.events import Event
from schemas.framed_writing import framing_encoder
from service.command_line import build_parser
from service.environment import BadSettings
from service.event_loop import run_in_loop
from service.exit_deadline import MARGIN_SECONDS, ExitDeadline, leave
from service.freed_memory import return_freed_memory
from service.logs import configure_logs, trace_crashes
from service.memory import free_bytes
from service.processors import num_processors
from service.program_metrics import describe_program, measure_process
from service.tracing import open_tracer

_RELOAD_SECONDS = 0.05
_BUCKET_RELOAD_SECONDS = 0.2
_WAIT_FOR_STORE_SECONDS = 2.0

log = structlog.get_logger()
_WAY_ON = "`cliptide snapshot list` shows what is good, `cliptide snapshot repair` goes back to it"


@dataclass(frozen=True, slots=True)
class Models:
    """Implements `ModelLoader`. Without `weigh_model` nobody looks whether two encoders fit into memory."""

    load_model: Callable[[EncoderSettings], Encoder]
    weigh_model: Callable[[EncoderSettings], int | None] = lambda _: None

    def load(self, settings: EncoderSettings) -> Encoder:
        return self.load_model(settings)

    def weigh(self, settings: EncoderSettings) -> int | None:
        return self.weigh_model(settings)


def main(arguments: Sequence[str] | None = None, called_as: str | None = None) -> int:
    build_parser("python -m query_api", __doc__, called_as).parse_args(arguments)
    return run(_load_encoder, _weigh_model)


def run(
    load_encoder: Callable[[EncoderSettings], Encoder],
    weigh_model: Callable[[EncoderSettings], int | None] = lambda _: None,
) -> int:
    """Read the environment, open everything, serve; return the exit code."""
    try:
        settings = read_settings()
    except BadSettings as error:
        return _refuse(str(error), exit_code=2)
    configure_logs(settings.log.level, settings.log.format)
    trace_crashes()
    try:
        _open_and_serve(settings, Models(load_encoder, weigh_model))
    except AddressRefused as error:
        return _refuse(f"{_variable_of(error, settings.query_api)}: {error}", exit_code=2)
    except BadSettings as error:
        return _refuse(str(error), exit_code=2)
    except DamagedIndexFile as error:  # its message names the way on
        return _refuse(str(error), exit_code=1)
    except DamagedFile as error:
        return _refuse(f"{error}; {_WAY_ON}", exit_code=1)
    except (ClipIndexError, OSError) as error:
        return _refuse(str(error), exit_code=1)
    except KeyboardInterrupt:  # while the encoder is being loaded: no event loop handles signals yet
        log.info("stopping")
    except Exception as error:
        log.error("fault", exc_info=error)
        return _refuse(" ".join(str(error).split()) or type(error).__name__, exit_code=1)
    return 0


def _open_and_serve(settings: Settings, models: Models) -> None:
    with ExitStack() as stack:
        tracer = stack.enter_context(open_tracer(SERVICE, settings.query_api.otlp_endpoint))
        contents = open_contents_store(settings.query_api)
        candidates = build_candidates(settings, models, contents) if follows_root(settings.index) else None
        encoder = load_first_encoder(settings, models, candidates)
        reader = showing_links(_open_index(settings, encoder.fingerprint), contents)
        registry = CollectorRegistry()
        publisher = stack.enter_context(open_publisher(settings))
        scraped = stack.enter_context(scrape_registry(registry, _shared_metrics()))
        describe_program(scraped)
        if scraped is registry:  # with several processes, each scrape would show another one
            measure_process(scraped)
        app = build_app(
            encoder,
            reader,
            registry,
            app_settings(settings, contents),
            publisher=publisher,
            tracer=tracer,
            candidates=candidates,
        )
        metrics_app = build_metrics_app(scraped, settings.query_api.host_names, refresh=app[INDEX_SWAP].show)
        with closing(ExitDeadline()) as deadline:
            run_in_loop(_serve(app, metrics_app, settings.query_api, deadline))


def _as_index_was_built(settings: Settings) -> EncoderSettings:
    """Ask the index how pictures are cut; wait while a store over the network does not answer."""
    while True:
        try:
            if settings.index.engine == "opensearch":
                opensearch = OpenSearchSettings(**settings.opensearch.connection())
                return with_crops_in_opensearch(settings.encoder, opensearch, settings.index.id)
            return with_crops_of_index(settings.encoder, settings.index.location, settings.index.id)
        except StoreUnreachable as error:
            log.warning("waiting for the store of the index", reason=str(error))
            time.sleep(_WAIT_FOR_STORE_SECONDS)


def _load_encoder(settings: EncoderSettings) -> Encoder:
    log.info("loading the encoder", model=settings.model)
    from clip_index.encoder.open_clip import (  # here: importing torch takes seconds
        find_download,
        load_encoder,
    )

    if (download := find_download(settings)) is not None:
        log.info("fetching the model", url=download.url, size_bytes=download.size_bytes)
    encoder = load_encoder(settings)
    warm_up(encoder)
    return_freed_memory()
    return encoder


def _weigh_model(settings: EncoderSettings) -> int | None:
    from clip_index.encoder.open_clip import weigh_model  # here: importing torch takes seconds

    return weigh_model(settings)


def load_first_encoder(settings: Settings, models: Models, candidates: RootCandidates | None) -> Encoder:
    """Load the encoder of the index that is to be served, or the configured one while there is none.

    An index that names no model which can be loaded is refused later, by the reader.
    """
    as_built = _as_index_was_built(settings)  # it waits for a store that does not answer yet
    if candidates is not None and (named := _find_named(candidates)) is not None:
        return candidates.load_for(named.index_id)
    encoder = models.load(as_built)
    if candidates is not None:
        candidates.know(encoder)
    return encoder


def _find_named(candidates: RootCandidates) -> NamedIndex | None:
    """Return the index that serves, if it can be looked at. If it cannot, the reader says why."""
    try:
        named = candidates.named()
        if named is not None:
            IndexDirectory.open(candidates.root, named.index_id)
    except (ClipIndexError, OSError):
        return None
    return named


def build_candidates(settings: Settings, models: Models, contents: ContentsStore | None) -> RootCandidates:
    """Say how to open any index of the root, for the time when another one is to be served."""

    def open_index(index_id: str, fingerprint: EncoderFingerprint) -> Reader:
        named = settings.index.model_copy(update={"id": index_id})
        return showing_links(open_reader(named, fingerprint, settings.query_api.hold_files), contents)

    return RootCandidates(
        settings.index.location,
        settings.encoder,
        models,
        open_index,
        free_bytes,
        {index_id: _recorded(section) for index_id, section in settings.query_api.models.items()},
        _num_processes,
    )


def _num_processes() -> int:
    """Count the processes that share the port: each of them loads the encoder of another index."""
    directory = _shared_metrics()
    return 1 if directory is None else num_alive(directory)


def _recorded(section: ModelSection) -> RecordedModel:
    return RecordedModel.of(EncoderSettings(model=section.model, pretrained=section.pretrained))


def follows_root(settings: IndexSettings) -> bool:
    """Whether the service serves the index that its root names, and follows it to another one."""
    return settings.id is None and settings.engine == "directory"


def _open_index(settings: Settings, fingerprint: EncoderFingerprint) -> Reader:
    if settings.index.engine == "opensearch":
        opensearch = OpenSearchSettings(**settings.opensearch.connection())
        return open_in_opensearch(opensearch, settings.index.id, fingerprint)
    return open_reader(settings.index, fingerprint, settings.query_api.hold_files)


def open_in_opensearch(
    settings: OpenSearchSettings, index_id: str | None, fingerprint: EncoderFingerprint
) -> Reader:
    """Open the index. While there is none, or OpenSearch does not answer, the service waits."""
    reader = OpenSearchReader(Connection(settings), index_id, fingerprint)
    try:
        reader.reload()
    except IndexMissing as error:
        log.warning("waiting for an index", reason=str(error))
    except IndexUnavailable as error:
        log.warning("waiting for the search engine", reason=str(error))
    return reader


def open_reader(
    settings: IndexSettings, fingerprint: EncoderFingerprint, hold_files: HoldFiles = "never"
) -> Reader:
    """Open the index. If there is none yet, the service waits. A foreign index is an error.

    If the newest generation of a shard is damaged, its newest good one is served; without one it is an error.
    """
    holds_files = hold_files == "always" or (hold_files == "auto" and _is_shared(settings))
    reader = IndexReader(settings.location, settings.id, fingerprint, holds_files=holds_files)
    try:
        reader.reload()
    except (IndexMissing, StoreUnreachable) as error:
        log.warning("waiting for an index", reason=str(error))
    except DamagedFile as damage:
        if not reader.fall_back():
            raise
        log.error("serving an older generation", error=str(damage), way_on=_WAY_ON)
    return reader


def open_contents_store(settings: QueryApiSettings) -> ContentsStore | None:
    """Open where uploads are stored. `BadSettings` if the bucket's settings or credentials are missing."""
    url, base_url = settings.contents_store, settings.contents_base_url
    if url is None:
        return None
    if url.startswith("file://"):
        return DirectoryContents(Path(unquote(urlsplit(url).path)), base_url)
    try:
        bucket = BucketContents(url, base_url)
        log.info("storing contents", store=url, shown_from=bucket.link_host)
    except BucketTrouble as error:
        raise BadSettings(f"{SECTION}CONTENTS_STORE: {url} cannot be used: {error}") from error
    return bucket


def _is_signing(contents: ContentsStore | None) -> TypeGuard[BucketContents]:
    """Whether answers show signed addresses, because a bucket is private."""
    return isinstance(contents, BucketContents) and not contents.is_public


def showing_links(reader: Reader, contents: ContentsStore | None) -> Reader:
    """Show signed addresses in place of the links into a private bucket."""
    if _is_signing(contents):
        return LinkShowingReader(reader, contents.shown_links)
    return reader


@contextmanager
def open_publisher(settings: Settings) -> Iterator[Publisher | None]:
    """Connect to Kafka if uploads are enabled. At the end, queued events are delivered before it closes."""
    if not settings.query_api.can_publish:
        yield None
        return
    with closing(_build_publisher(settings)) as publisher:
        yield publisher


def _build_publisher(settings: Settings) -> KafkaPublisher:
    """Turn a `ValueError` into `BadSettings`, because it names a property. Elsewhere it is a defect."""
    try:
        return KafkaPublisher(KafkaSettings(settings.kafka.bootstrap_servers, settings.kafka.properties))
    except ValueError as error:
        raise BadSettings(str(error)) from error


async def _serve(
    app: web.Application, metrics_app: web.Application, settings: QueryApiSettings, deadline: ExitDeadline
) -> None:
    """Serve until a signal. Then be unready, drain, stop listening, finish what is under way, and return."""
    signals = StopSignals()
    signals.listen()
    limits = ConnectionLimits(
        idle_seconds=settings.keepalive_seconds,
        send_seconds=settings.send_timeout_seconds,
        max_connections=bound_connections(settings.max_connections),
    )
    async with listening(metrics_app, _metrics_address(settings), limits) as metrics_address:
        public = Address(settings.host, settings.port, settings.reuse_port)
        async with listening(app, public, limits, settings.shutdown_seconds) as address:
            log.info("listening", addresses=[address], metrics=metrics_address)
            await signals.wait()
            log.info("stopping", drain_seconds=settings.drain_seconds)
            app[STOPPING].begin()
            deadline.start(settings.drain_seconds + settings.shutdown_seconds + MARGIN_SECONDS)
            await signals.drain(settings.drain_seconds)


def _metrics_address(settings: QueryApiSettings) -> Address:
    return Address(settings.metrics_host, settings.metrics_port, settings.reuse_port)


def _variable_of(refused: AddressRefused, settings: QueryApiSettings) -> str:
    prefix = "METRICS_" if refused.address == _metrics_address(settings) else ""
    return SECTION + prefix + ("HOST" if refused.is_unknown_host else "PORT")


def app_settings(all_settings: Settings, contents: ContentsStore | None = None) -> AppSettings:
    settings = all_settings.query_api
    return AppSettings(
        max_body_bytes=settings.max_body_bytes,
        max_json_bytes=settings.max_json_bytes,
        num_workers=settings.num_workers or num_processors() + 2,
        loop_search_seconds=_loop_search_seconds(all_settings, contents),
        reload_interval_seconds=_reload_interval(all_settings),
        query_encoder=QueryEncoderSettings(
            max_batch=settings.max_encoded_together, text_cache_entries=settings.text_cache_entries
        ),
        cursor_key=settings.cursor_key.get_secret_value() if settings.cursor_key else None,
        keys=ApiKeys.from_hex(settings.read_keys, settings.write_keys),
        cors_origins=settings.cors_origins,
        host_names=settings.host_names,
        rate_limit=RateLimit(settings.rate_per_second, settings.rate_burst),
        receive_timeout_seconds=settings.receive_timeout_seconds,
        slow_seconds=settings.slow_request_seconds,
        has_access_log=settings.access_log,
        max_wait_seconds=settings.max_wait_seconds,
        answer_seconds=settings.answer_seconds,
        max_concurrent_requests=settings.max_concurrent_requests,
        queue_seconds=settings.queue_seconds,
        link_hosts=_link_hosts(settings, contents),
        has_percentiles=settings.percentiles,
        scrub_seconds=settings.scrub_hours * 3600 if settings.scrub_hours else None,
        recall=RecallSettings(_recall_sample_every(all_settings)),
        publish=PublishSettings(
            topic=all_settings.topic,
            timeout_seconds=settings.publish_timeout_seconds,
            large_contents=LargeContents(
                settings.inline_limit_bytes,
                settings.large_contents_directory,
                contents,
                stores_all=settings.contents_stored == "all",
            ),
            encode=_build_encoder(all_settings),
        ),
    )


def _recall_sample_every(settings: Settings) -> int:
    """OpenSearch would score every document for one sample, and at another state than that of the answer."""
    return 0 if settings.index.engine == "opensearch" else settings.query_api.recall_sample_every


def _is_shared(settings: IndexSettings) -> bool:
    """Copies of a bucket's files are of this machine alone."""
    return isinstance(settings.root, Path) and is_shared(settings.root)


def _loop_search_seconds(settings: Settings, contents: ContentsStore | None) -> float:
    """What asks another machine never runs on the event loop: OpenSearch, a shared disk, a cloud."""
    asks_others = settings.index.engine == "opensearch" or _is_signing(contents) or _is_shared(settings.index)
    return 0.0 if asks_others else settings.query_api.loop_search_seconds


def _reload_interval(settings: Settings) -> float:
    default = _BUCKET_RELOAD_SECONDS if settings.index.is_bucket else _RELOAD_SECONDS
    return settings.query_api.reload_interval_seconds or default


def _link_hosts(settings: QueryApiSettings, contents: ContentsStore | None) -> tuple[str, ...]:
    """Hosts from which pictures may be shown: also the one at which stored contents are."""
    if contents is None or contents.link_host is None:
        return settings.link_hosts
    return tuple(dict.fromkeys((*settings.link_hosts, contents.link_host)))


def _build_encoder(settings: Settings) -> Callable[[Event], EncodedEvent]:
    """Return how uploads are encoded. A registry is asked before the first one, not at the start."""
    registry, framing = settings.schema_registry, settings.schema_registry.write_framing
    frames_values, frames_keys = framing != "none", registry.write_keys == "framed"
    if registry.url is None or not (frames_values or frames_keys) or not settings.query_api.can_publish:
        return encode_event
    try:
        client = RegistryClient(registry_settings(registry))
    except RegistryMisconfigured as error:
        raise BadSettings(str(error)) from error
    register = register_for(client, "prefix" if framing == "none" else framing)
    return framing_encoder(register, settings.topic, frames_values=frames_values, frames_keys=frames_keys)


def _shared_metrics() -> Path | None:
    directory = os.environ.get(MULTIPROC_VARIABLE)
    return Path(directory) if directory else None


def _refuse(reason: str, *, exit_code: int) -> int:
    print(f"query_api: {reason}", file=sys.stderr)  # noqa: T201 (one sentence for a person)
    return exit_code


if __name__ == "__main__":
    leave(main())
