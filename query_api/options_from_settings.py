"""The settings of one process's application, from those of the environment."""

from __future__ import annotations

from query_api.app import AppSettings
from query_api.encoding.query_encoder import QueryEncoderSettings
from query_api.http.guards.api_keys import ApiKeys
from query_api.http.guards.rate_limit import RateLimit
from query_api.opened_index import lies_on_shared_files
from query_api.opened_uploads import build_event_encoder
from query_api.search.query_sample import QuerySampleSettings
from query_api.search.recall_watch import RecallSettings
from query_api.settings import IndexSettings, QueryApiSettings, Settings
from query_api.uploads.contents_store import ContentsStore, is_signing
from query_api.uploads.large_contents import LargeContents
from query_api.uploads.publishing import PublishSettings
from service.process.processors import num_processors

_RELOAD_SECONDS = 0.01
_REMOTE_RELOAD_SECONDS = 0.05
_BUCKET_RELOAD_SECONDS = 0.2


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
        keys=ApiKeys.from_hex(settings.read_keys, settings.write_keys, settings.admin_keys),
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
        query_sample=QuerySampleSettings(settings.query_sample_size, settings.query_sample_hours),
        publish=PublishSettings(
            topic=all_settings.topic,
            timeout_seconds=settings.publish_timeout_seconds,
            large_contents=LargeContents(
                settings.inline_limit_bytes,
                settings.large_contents_directory,
                contents,
                stores_all=settings.contents_stored == "all",
            ),
            encode=build_event_encoder(all_settings),
        ),
    )


def _recall_sample_every(settings: Settings) -> int:
    """OpenSearch would score every document for one sample, and at another state than that of the answer."""
    return 0 if settings.index.engine == "opensearch" else settings.query_api.recall_sample_every


def _loop_search_seconds(settings: Settings, contents: ContentsStore | None) -> float:
    """What asks another machine never runs on the event loop: OpenSearch, a shared disk, a cloud."""
    asks_others = (
        settings.index.engine == "opensearch" or is_signing(contents) or lies_on_shared_files(settings.index)
    )
    return 0.0 if asks_others else settings.query_api.loop_search_seconds


def _reload_interval(settings: Settings) -> float:
    return settings.query_api.reload_interval_seconds or _default_reload_interval(settings.index)


def _default_reload_interval(index: IndexSettings) -> float:
    """A look at this machine's own disk costs next to nothing. Any other one asks another machine."""
    if index.is_bucket:
        return _BUCKET_RELOAD_SECONDS
    asks_others = index.engine == "opensearch" or lies_on_shared_files(index)
    return _REMOTE_RELOAD_SECONDS if asks_others else _RELOAD_SECONDS


def _link_hosts(settings: QueryApiSettings, contents: ContentsStore | None) -> tuple[str, ...]:
    """Hosts from which pictures may be shown: also the one at which stored contents are."""
    if contents is None or contents.link_host is None:
        return settings.link_hosts
    return tuple(dict.fromkeys((*settings.link_hosts, contents.link_host)))
