"""The query service's settings, as its environment gives them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, model_validator

from clip_index.encoder.settings import EncoderSettings
from query_api.hosts import HOST_PATTERN, is_loopback
from service.settings import PREFIX, EnvironmentSettings, Section, read_environment

SECTION = f"{PREFIX}QUERY_API__"
MULTIPROC_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client reads it when it is imported


def _as_digest(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError("takes digests of keys, not keys: the 64 digits of printf %s KEY | sha256sum")
    return text


def _as_host(text: str) -> str:
    if not re.fullmatch(HOST_PATTERN, text):
        raise ValueError("takes hosts such as img.example.com or *.example.com, without https://")
    return text


KeyDigest = Annotated[str, AfterValidator(_as_digest)]
LinkHost = Annotated[str, AfterValidator(_as_host)]


class KafkaSection(Section):
    """How to reach Kafka, for a service that takes uploads."""

    bootstrap_servers: str = Field(default="127.0.0.1:9092", description="host:port, separated by commas.")
    properties: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="A JSON object of librdkafka's own properties (SASL, TLS, …)."
    )


class IndexSettings(Section):
    """Which index is served; without an id the one that is current when the service first sees one."""

    root: Path = Field(
        default=Path("index"), description="The directory that consumers and query services share."
    )
    id: str | None = Field(default=None, description="None: the index that is current at the start.")


class QueryApiSettings(Section):
    """How requests are taken and answered."""

    host: str = Field(default="127.0.0.1", description="Where to listen; beyond loopback it takes a key.")
    port: int = Field(default=8080, ge=0, le=65535, description="0: any free one, told in the log.")
    metrics_host: str = Field(default="127.0.0.1", description="Where /metrics is answered.")
    metrics_port: int = Field(default=8082, ge=0, le=65535, description="0: any free one, told in the log.")
    reuse_port: bool = Field(
        default=False,
        description="Let several processes listen on the same ports. They need PROMETHEUS_MULTIPROC_DIR, "
        "one directory for all, emptied before the first starts: any of them then shows the metrics of all.",
    )
    read_keys: frozenset[KeyDigest] = Field(
        default=frozenset(),
        description="A JSON list of SHA-256 digests (hexadecimal) of the API keys that may read: "
        "printf %s KEY | sha256sum.",
    )
    write_keys: frozenset[KeyDigest] = Field(
        default=frozenset(),
        description="The same of the keys that may upload and delete. A key for both is in both lists.",
    )
    allow_anonymous: bool = Field(
        default=False, description="Listen beyond loopback although there is no key: everybody may call."
    )
    cors_origins: frozenset[str] = Field(
        default=frozenset(), description="A JSON list of the origins whose pages may call, none by default."
    )
    cursor_key: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="What cursors are signed with, the same for all processes of an index. None: a key that "
        "follows from what the index was built for, which others may know.",
    )
    link_hosts: tuple[LinkHost, ...] = Field(
        default=(),
        description="A JSON list of hosts whose pictures the page may show by their links "
        "(*.example.com for all below one), none by default.",
    )
    max_body_bytes: int = Field(default=16 * 2**20, ge=1024, description="Larger requests are a 413.")
    max_concurrent_requests: int = Field(
        default=128, ge=1, description="Worked on at once, beyond which requests are a 503."
    )
    max_connections: int = Field(
        default=1000,
        ge=1,
        description="Open at once. Beyond, who has waited longest for a request is closed; if all are at "
        "work, a newcomer gets a 503. Bounded by a quarter of the files that the process may open.",
    )
    rate_per_second: float = Field(
        default=1000.0,
        gt=0,
        description="Requests of one key (or address, without keys) in the long run, beyond which they are "
        "a 429. Behind a proxy all callers have its address.",
    )
    rate_burst: int = Field(default=2000, ge=1, description="Requests of one key or address at once.")
    max_wait_seconds: float = Field(
        default=60.0, ge=0, description="No request waits longer than this for its offsets."
    )
    slow_request_seconds: float = Field(
        default=1.0, gt=0, description="Requests that take longer are logged with their stages."
    )
    otlp_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Where traces are sent by OTLP over HTTP: http://host:4318/v1/traces. None: nowhere.",
    )
    receive_timeout_seconds: float = Field(
        default=20.0, gt=0, description="For a request's body to arrive, beyond which it is a 408."
    )
    keepalive_seconds: float = Field(
        default=15.0, gt=0, description="For a connection to send its next headers before it is closed."
    )
    send_timeout_seconds: float = Field(
        default=30.0, gt=0, description="For an answer to stand unread before its connection is closed."
    )
    shutdown_seconds: float = Field(
        default=30.0, ge=0, description="For requests in flight to finish after SIGTERM."
    )
    num_workers: int | None = Field(
        default=None, ge=1, description="Threads; None: one for each processor and two more."
    )
    reload_interval_seconds: float = Field(
        default=0.05, gt=0, description="Between two looks for a newer generation."
    )
    max_encoded_together: int = Field(
        default=32, ge=1, description="Queries (of a long text its windows) in one pass of the encoder."
    )
    text_cache_entries: int = Field(
        default=10_000, ge=0, description="Query texts whose embeddings are remembered."
    )
    scrub_hours: float = Field(
        default=24.0,
        ge=0,
        description="Hours in which each served file is read again and compared with its digest; 0: never.",
    )
    percentiles: bool = Field(
        default=True,
        description="Rate hits by percentile. It costs 256 phrases to encode at the start, and now and then "
        "some hundred searches, a twenty-fifth of a processor at most.",
    )
    can_publish: bool = Field(
        default=False, description="Take uploads and deletes, and publish them to CLIPTIDE_TOPIC."
    )
    publish_timeout_seconds: float = Field(
        default=10.0, gt=0, description="How long to wait for Kafka's acknowledgement of an upload."
    )
    inline_limit_bytes: int = Field(
        default=10 * 2**20,
        ge=1,
        description="Contents above this are stored in large_contents_directory; without one they are a 413.",
    )
    large_contents_directory: Path | None = Field(
        default=None,
        description="Where large contents are stored by digest, to be published as file:// references; "
        "consumers need it among CLIPTIDE_CONSUMER__REFERENCE_FILE_ROOTS.",
    )

    @model_validator(mode="after")
    def _has_a_key_beyond_loopback(self) -> QueryApiSettings:
        if not (is_loopback(self.host) or self.read_keys or self.write_keys or self.allow_anonymous):
            raise ValueError(
                f"{SECTION}HOST: {self.host} is beyond loopback and there is no API key: set "
                f"{SECTION}READ_KEYS and {SECTION}WRITE_KEYS, or {SECTION}ALLOW_ANONYMOUS=true"
            )
        if self.reuse_port and not os.environ.get(MULTIPROC_VARIABLE):
            raise ValueError(
                f"{SECTION}REUSE_PORT: set {MULTIPROC_VARIABLE} to a directory that all processes share"
            )
        return self


class Settings(EnvironmentSettings):
    """Everything that `python -m query_api` reads from its environment."""

    topic: str = Field(default="content-uploads", description="The topic that uploads are published to.")
    kafka: KafkaSection = KafkaSection()
    index: IndexSettings = IndexSettings()
    encoder: EncoderSettings = EncoderSettings()
    query_api: QueryApiSettings = QueryApiSettings()


def read_settings() -> Settings:
    """Read the environment; `BadSettings` names the first variable that cannot be used."""
    return read_environment(Settings)
