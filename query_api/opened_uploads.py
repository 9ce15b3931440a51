"""Where a query service sends uploads: the log, the store of large contents, the registry of schemas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import structlog

from event_log.errors import RegistryMisconfigured
from event_log.kafka.publisher import KafkaPublisher
from event_log.kafka.settings import KafkaSettings
from event_log.publisher import Publisher
from event_log.schema_registry.client import RegistryClient
from event_log.schema_registry.writing import register_for
from query_api.settings import SECTION, QueryApiSettings, Settings, registry_settings
from query_api.uploads.contents_store import (
    BucketContents,
    BucketTrouble,
    ContentsStore,
    DirectoryContents,
)
from schemas.codec import EncodedEvent, encode_event
from schemas.events import Event
from schemas.framed_writing import framing_encoder
from service.environment import BadSettings

log = structlog.get_logger()


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


def build_event_encoder(settings: Settings) -> Callable[[Event], EncodedEvent]:
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
