"""The pipeline, built over the index that the settings name; a place where no index can lie is refused."""

from __future__ import annotations

import errno

from clip_index.encoder.settings import EncoderSettings
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.indexes.kept_crops import with_crops_of_index
from clip_index.indexes.recorded_model import RecordedModel, record_model
from clip_index.storage.index_roots import IndexRoot, ObjectRoot
from clip_index.storage.shard_store import StoreRefused
from consumer.app import Connections, build_consumer
from consumer.opened_index import IndexLocation
from consumer.pipeline import Pipeline
from consumer.settings import Settings
from consumer.starting.options_from_settings import opensearch_settings, options_from_settings
from consumer.telemetry.metrics import Metrics
from opensearch_engine.index import with_crops_in_opensearch
from service.environment import BadSettings

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


def encoder_as_index_was_built(settings: Settings) -> EncoderSettings:
    """What the encoder is loaded with: an index that is there says how many crops a picture has."""
    opensearch = opensearch_settings(settings)
    if opensearch is None:
        return with_crops_of_index(settings.encoder, settings.index.location, settings.index.id)
    return with_crops_in_opensearch(settings.encoder, opensearch, settings.index.id)


def build_pipeline(connections: Connections, settings: Settings, metrics: Metrics) -> Pipeline:
    """Build the pipeline, and keep beside the index which model it was built with.

    Raises `BadSettings` where no index can lie, `IndexRefused`, and `OSError` while the disk fails.
    """
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
