"""Turns the settings, which are flat, into the options that each part is given."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from clip_index.encoder.images import make_thumbnail
from clip_index.encoder.settings import EncoderSettings
from clip_index.generations.reader_leases import LEAST_RETAINED_SECONDS
from clip_index.storage.file_systems import is_shared
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.shard_writer import WriterSettings
from consumer.app import ConsumerOptions
from consumer.backlog.backlog import BacklogLimits
from consumer.dead_letters.dead_letter_limit import FloodThreshold
from consumer.encoding.batcher import BatchLimits
from consumer.intake.start_check import StartOptions
from consumer.preparation.steps import PreparationOptions
from consumer.references.fetching import FetchLimits
from consumer.references.policy import ReferencePatience, ReferencePolicy
from consumer.settings import ConsumerSettings, Settings
from consumer.writing.commit_policy import CommitPolicy
from opensearch_engine.connection import OpenSearchSettings
from schemas.mapping.loading import load_mapping

_BUCKET_COMMITS = CommitPolicy(interval_seconds=1.0, watermark_every_seconds=10.0)
_BUCKET_WRITER = WriterSettings(collect_every_seconds=60.0)
"""Each request to a bucket costs money, so what is only displayed or tidied up is done less often."""
_OPENSEARCH_COMMITS = CommitPolicy(interval_seconds=0.5)
"""Each commit is a refresh of OpenSearch."""
_CANARY_SECONDS = 600.0  # encoding them takes a tenth of a second


def options_from_settings(settings: Settings) -> ConsumerOptions:
    consumer = settings.consumer
    return ConsumerOptions(
        backlog=BacklogLimits(consumer.buffer_bytes, consumer.max_prepared),
        batches=BatchLimits(consumer.batch_max_rows, consumer.batch_max_age_seconds),
        commits=_commits(settings),
        writer=_writer(settings),
        flood=FloodThreshold(consumer.flood_share, consumer.flood_min_dead_letters, consumer.flood_window),
        preparation=_preparation(consumer, settings.encoder),
        start=StartOptions(consumer.accept_data_loss, consumer.accept_rewind),
        references=_reference_policy(consumer),
        fetches=_fetch_limits(consumer),
        mapping=None if settings.mapping is None else load_mapping(settings.mapping),
        reuses_stored_encodings=consumer.reuse_encodings,
        canary_seconds=_CANARY_SECONDS,
        stop_timeout_seconds=consumer.stop_timeout_seconds,
    )


def opensearch_settings(settings: Settings) -> OpenSearchSettings | None:
    """Return how to reach OpenSearch; None if the index lies in a directory or a bucket."""
    if settings.index.engine != "opensearch":
        return None
    return OpenSearchSettings(**settings.opensearch.connection())


def _commits(settings: Settings) -> CommitPolicy:
    consumer, defaults = settings.consumer, _default_commits(settings)
    return replace(
        defaults,
        interval_seconds=consumer.commit_interval_seconds or defaults.interval_seconds,
        max_merge_debt=consumer.max_merge_debt,
    )


def _default_commits(settings: Settings) -> CommitPolicy:
    if settings.index.engine == "opensearch":
        return _OPENSEARCH_COMMITS
    return _BUCKET_COMMITS if settings.index.is_bucket else CommitPolicy()


def _writer(settings: Settings) -> WriterSettings:
    consumer = settings.consumer
    merge = MergeSettings(
        erase_within_seconds=consumer.erase_within_seconds,
        erase_bytes_a_day=consumer.erase_bytes_per_day,
        max_bytes=consumer.max_merge_bytes,
        target_recall=consumer.target_recall,
        max_debt=consumer.max_merge_debt,
        vectors=settings.index.vectors,
    )
    defaults = _BUCKET_WRITER if settings.index.is_bucket else WriterSettings()
    return replace(defaults, retain_for_seconds=_retain_for(settings), merge=merge)


def _retain_for(settings: Settings) -> float:
    """A query service of a shared file system names what it has opened only so often."""
    root, wanted = settings.index.root, settings.consumer.retain_for_seconds
    return max(wanted, LEAST_RETAINED_SECONDS) if isinstance(root, Path) and is_shared(root) else wanted


def _preparation(consumer: ConsumerSettings, encoder: EncoderSettings) -> PreparationOptions:
    side = consumer.thumbnail_side
    return PreparationOptions(
        num_threads=consumer.preparation_threads,
        sets_unknown_schemas_aside=consumer.on_unknown_schema == "dead_letter",
        stops_at_unknown_schemas=consumer.on_unknown_schema == "stop",
        sets_misplaced_aside=consumer.on_misplaced_record == "dead_letter",
        make_thumbnail=partial(make_thumbnail, side=side, limits=encoder.image_limits) if side else None,
        recipe=f"thumbnails of {side} pixels, {encoder.image_limits}",
    )


def _reference_policy(consumer: ConsumerSettings) -> ReferencePolicy:
    return ReferencePolicy(
        hosts=frozenset(host.lower() for host in consumer.reference_hosts),
        buckets=consumer.reference_buckets,
        file_roots=consumer.reference_file_roots,
        max_size_bytes=consumer.reference_max_bytes,
    )


def _fetch_limits(consumer: ConsumerSettings) -> FetchLimits:
    return FetchLimits(
        max_concurrent=consumer.reference_concurrency,
        timeout_seconds=consumer.reference_timeout_seconds,
        patience=ReferencePatience(consumer.reference_grace_seconds, consumer.reference_patience_seconds),
    )
