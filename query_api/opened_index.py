"""The index that a query service serves, wherever it lies, and the encoder that it was built by."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from clip_index.encoder.protocol import Encoder, EncoderFingerprint
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import ClipIndexError, DamagedFile, IndexMissing, IndexUnavailable
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.indexes.kept_crops import with_crops_of_index
from clip_index.indexes.recorded_model import RecordedModel
from clip_index.reading.index_reader import IndexReader
from clip_index.storage.file_systems import is_shared
from clip_index.storage.shard_store import StoreUnreachable
from opensearch_engine.connection import Connection, OpenSearchSettings
from opensearch_engine.index import with_crops_in_opensearch
from opensearch_engine.reader import OpenSearchReader
from query_api.root_candidates import RootCandidates
from query_api.serving.engine import Reader
from query_api.serving.shown_links import LinkShowingReader
from query_api.settings import HoldFiles, IndexSettings, ModelSection, Settings
from query_api.swap.candidates import NamedIndex
from query_api.uploads.contents_store import ContentsStore, is_signing
from service.process.memory import free_bytes

_WAIT_FOR_STORE_SECONDS = 2.0
WAY_ON = "`cliptide snapshot list` shows what is good, `cliptide snapshot repair` goes back to it"
"""What a person can do about a damaged generation."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Models:
    """Implements `ModelLoader`. Without `weigh_model` nobody looks whether two encoders fit into memory."""

    load_model: Callable[[EncoderSettings], Encoder]
    weigh_model: Callable[[EncoderSettings], int | None] = lambda _: None

    def load(self, settings: EncoderSettings) -> Encoder:
        return self.load_model(settings)

    def weigh(self, settings: EncoderSettings) -> int | None:
        return self.weigh_model(settings)


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


def _find_named(candidates: RootCandidates) -> NamedIndex | None:
    """Return the index that serves, if it can be looked at. If it cannot, the reader says why."""
    try:
        named = candidates.named()
        if named is not None:
            IndexDirectory.open(candidates.root, named.index_id)
    except (ClipIndexError, OSError):
        return None
    return named


def build_candidates(
    settings: Settings, models: Models, contents: ContentsStore | None, num_processes: Callable[[], int]
) -> RootCandidates:
    """Say how to open any index of the root, for the time when another one is to be served.

    `num_processes` counts those that would load its encoder at the same time, this one among them.
    """

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
        num_processes,
    )


def _recorded(section: ModelSection) -> RecordedModel:
    return RecordedModel.of(EncoderSettings(model=section.model, pretrained=section.pretrained))


def follows_root(settings: IndexSettings) -> bool:
    """Whether the service serves the index that its root names, and follows it to another one."""
    return settings.id is None and settings.engine == "directory"


def open_index(settings: Settings, fingerprint: EncoderFingerprint) -> Reader:
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
    holds_files = hold_files == "always" or (hold_files == "auto" and lies_on_shared_files(settings))
    reader = IndexReader(settings.location, settings.id, fingerprint, holds_files=holds_files)
    try:
        _reload_first(reader)
    except Exception:
        reader.close()  # the service may go on with another index
        raise
    return reader


def _reload_first(reader: IndexReader) -> None:
    try:
        reader.reload()
    except (IndexMissing, StoreUnreachable) as error:
        log.warning("waiting for an index", reason=str(error))
    except DamagedFile as damage:
        if not reader.fall_back():
            raise
        log.error("serving an older generation", error=str(damage), way_on=WAY_ON)


def lies_on_shared_files(settings: IndexSettings) -> bool:
    """Copies of a bucket's files are of this machine alone."""
    return isinstance(settings.root, Path) and is_shared(settings.root)


def showing_links(reader: Reader, contents: ContentsStore | None) -> Reader:
    """Show signed addresses in place of the links into a private bucket."""
    if is_signing(contents):
        return LinkShowingReader(reader, contents.shown_links)
    return reader
