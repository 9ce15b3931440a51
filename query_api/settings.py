"""The query service's settings, which it reads from its environment."""

from __future__ import annotations

import os
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator

from clip_index.encoder.settings import EncoderSettings
from clip_index.storage.index_roots import IndexRoot, index_root
from event_log.schema_registry.settings import RegistrySettings
from query_api.hosts import HOST_PATTERN, is_loopback
from service.environment import PREFIX, EnvironmentSettings, Section, read_environment
from service.sections import (
    DEFAULT_TOPIC,
    DirectoryName,
    HostName,
    IndexId,
    IndexSection,
    KafkaSection,
    OpenSearchSection,
    SchemaRegistrySection,
    TopicName,
    check_engine,
)

SECTION = f"{PREFIX}QUERY_API__"
MULTIPROC_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client reads it when it is imported


def _valid_digest(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError("must be digests, not keys: the 64 hexadecimal digits of printf %s KEY | sha256sum")
    return text


def _valid_host(text: str) -> str:
    if not re.fullmatch(HOST_PATTERN, text):
        raise ValueError("must be hosts such as img.example.com or *.example.com, without https://")
    return text


HoldFiles = Literal["auto", "always", "never"]
KeyDigest = Annotated[str, AfterValidator(_valid_digest)]
LinkHost = Annotated[str, AfterValidator(_valid_host)]


class IndexSettings(IndexSection):
    """Which index is served."""

    id: IndexId | None = Field(
        default=None,
        description="The index to serve for the whole life of the process. Unset: the one that the newest "
        "current-<n>.json names; the service follows it to another index without a pause.",
    )

    @property
    def location(self) -> IndexRoot:
        return index_root(self.root, self.cache_dir, self.cache_bytes)


class ModelSection(Section):
    """A model, as CLIPTIDE_ENCODER__MODEL and CLIPTIDE_ENCODER__PRETRAINED name it."""

    model: str
    pretrained: str | None = None


class QueryApiSettings(Section):
    """How requests are received and answered."""

    host: str = Field(
        default="127.0.0.1",
        description="Address to listen on. Beyond loopback, configure API keys or set ALLOW_ANONYMOUS.",
    )
    port: int = Field(
        default=8080, ge=0, le=65535, description="Port to listen on. 0 takes a free one; the log says which."
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address on which /metrics is served.")
    metrics_port: int = Field(
        default=8082, ge=0, le=65535, description="Port of /metrics. 0 takes a free one; the log says which."
    )
    reuse_port: bool = Field(
        default=False,
        description="Let several processes listen on the same ports. Set PROMETHEUS_MULTIPROC_DIR to one "
        "directory for all of them, and empty it before the first one starts. Each process then serves the "
        "metrics of all.",
    )
    read_keys: frozenset[KeyDigest] = Field(
        default=frozenset(),
        description="API keys that may read, as a JSON list of their SHA-256 digests in hexadecimal: "
        "printf %s KEY | sha256sum.",
    )
    write_keys: frozenset[KeyDigest] = Field(
        default=frozenset(),
        description="API keys that may upload and delete, in the same form. A key for both is in both lists.",
    )
    admin_keys: frozenset[KeyDigest] = Field(
        default=frozenset(),
        description="API keys that may read the queries that QUERY_SAMPLE_SIZE keeps, in the same form. They "
        "open nothing else, and no other key opens that.",
    )
    allow_anonymous: bool = Field(
        default=False,
        description="Listen beyond loopback without API keys. Everybody may then call.",
    )
    cors_origins: frozenset[str] = Field(
        default=frozenset(),
        description="Origins whose web pages may call the service (CORS), as a JSON list.",
    )
    host_names: frozenset[HostName] = Field(
        default=frozenset(),
        description="Names that a listener without API keys answers to, as a JSON list without ports. It "
        "always answers to addresses and to localhost. Others are answered 403, because a web page could "
        "use them to reach the service through a visitor's browser. /metrics never has keys.",
    )
    cursor_key: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Key that signs cursors. All processes that serve an index need the same. Unset: a key "
        "derived from the index's description, which others may know.",
    )
    link_hosts: tuple[LinkHost, ...] = Field(
        default=(),
        description="Hosts from which the web page and the galleries may load linked images, as a JSON list. "
        "*.example.com stands for all hosts below example.com.",
    )
    max_body_bytes: int = Field(
        default=16 * 2**20, ge=1024, description="Maximum size of a request's body. Larger: 413."
    )
    max_json_bytes: int = Field(
        default=2**20,
        ge=1024,
        description="Maximum size of a JSON body without the pictures in it. Larger: 413. Increase it if "
        "clients search by many vectors of a large model in one request.",
    )
    max_concurrent_requests: int | None = Field(
        default=None,
        ge=1,
        description="Maximum number of requests worked on at once. Unset: 8 for each processor that the "
        "process may use. More requests queue, up to 8 for each of these; beyond that they are answered 503. "
        "The last quarter of both is for callers that have few. As many of each caller may wait for "
        "uploads besides (unset: 128).",
    )
    queue_seconds: float = Field(
        default=5.0,
        ge=0,
        description="Answer 503 when a request has queued for this long. 0: no request queues.",
    )
    max_connections: int = Field(
        default=1000,
        ge=1,
        description="Maximum number of open connections. When full, the longest-idle one is closed for a new "
        "one; if none is idle, the new one is answered 503. At most a quarter of the open files that the "
        "process is allowed.",
    )
    rate_per_second: float = Field(
        default=1000.0,
        gt=0,
        description="Sustained requests per second per API key (per address without keys). More are answered "
        "429. A batch, long texts, many conditions or hits, and an owner's recommendation count as "
        "several requests. Behind a proxy, all clients share the proxy's address.",
    )
    rate_burst: int = Field(
        default=2000,
        ge=1,
        description="Requests that one key or address may send at once, above the sustained rate.",
    )
    max_wait_seconds: float = Field(
        default=60.0,
        ge=0,
        description="Maximum time for which a request may wait until its offsets are searchable.",
    )
    answer_seconds: float = Field(
        default=60.0,
        gt=0,
        description="Answer 503 when a request is not answered within this time and MAX_WAIT_SECONDS. Time "
        "in the queue does not count.",
    )
    slow_request_seconds: float = Field(
        default=1.0,
        gt=0,
        description="Log requests that take longer than this, with their stages. The time in which a body "
        "arrives does not count.",
    )
    otlp_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Send traces here, by OTLP over HTTP: http://host:4318/v1/traces. Unset: where the "
        "standard variables say, such as OTEL_EXPORTER_OTLP_ENDPOINT (docs/tracing.md).",
    )
    receive_timeout_seconds: float = Field(
        default=20.0, gt=0, description="Answer 408 when a request's body does not arrive within this time."
    )
    keepalive_seconds: float = Field(
        default=75.0,
        gt=0,
        description="Close an idle connection after this long without a complete request header. Keep it "
        "above the idle time of the load balancer, which is 60 s in most, because a balancer that sends into "
        "a closing connection answers its client with an error.",
    )
    send_timeout_seconds: float = Field(
        default=30.0,
        gt=0,
        description="Close a connection when the client has not read its answer for this long.",
    )
    drain_seconds: float = Field(
        default=5.0,
        ge=0,
        description="Answer requests for this long after SIGTERM while /readyz is red, so that load "
        "balancers take the process out; then stop listening. SIGINT or a second signal ends the drain.",
    )
    shutdown_seconds: float = Field(
        default=30.0, ge=0, description="Time that requests in flight have to finish after the drain."
    )
    num_workers: int | None = Field(
        default=None,
        ge=1,
        description="Number of worker threads. Unset: the number of processors that the "
        "process may use, plus two.",
    )
    loop_search_seconds: float = Field(
        default=0.01,
        ge=0,
        description="Run a plain search or a small batch on the event loop instead of a worker thread if no "
        "other request is worked on and the last search took no longer than this, which saves handing it "
        "over. Choose 0, never, if the index is on a network mount that may hang.",
    )
    reload_interval_seconds: float | None = Field(
        default=None,
        gt=0,
        description="Interval at which the service looks for a newer generation. Unset: 0.01; 0.05 "
        "with a directory that machines share (NFS and others) or the engine opensearch, because each look "
        "there asks another machine; 0.2 with an index in a bucket, because each look there is a request for "
        "each shard.",
    )
    max_encoded_together: int = Field(
        default=32,
        ge=1,
        description="Maximum queries in one encoder batch. Each window of a long text counts.",
    )
    access_log: bool = Field(
        default=True,
        description="Write a log line for each request, with its id, route, status and time. It never holds "
        "the path, the query or a key.",
    )
    models: dict[str, ModelSection] = Field(
        default_factory=dict,
        description="Where the models of indexes are on this machine, as a JSON object by index id: "
        '{"v2": {"model": "/models/tuned"}}. Needed for an index whose model lies elsewhere than where it '
        "was begun. Each takes the place of CLIPTIDE_ENCODER__MODEL when its index serves.",
    )
    text_cache_entries: int = Field(
        default=10_000, ge=0, description="Number of query texts whose embeddings are cached."
    )
    scrub_hours: float = Field(
        default=24.0,
        ge=0,
        description="Compare each served file with its digest once in this many hours. 0: never.",
    )
    hold_files: HoldFiles = Field(
        default="auto",
        description="Whether the query service names in the index root which generations it has open, so "
        "that consumers on other machines keep their files for it. `auto`: only on a file system that "
        "machines share (NFS, CephFS, Lustre, SMB and others). The root must be writable for that.",
    )
    recall_sample_every: int = Field(
        default=500,
        ge=0,
        description="One of this many searches and recommendations is answered again, exactly, to measure "
        "the recall of live queries (cliptide_query_recall_at_k). This takes at most 4 % of one processor. "
        "0: none. With the engine opensearch none is.",
    )
    query_sample_size: int = Field(
        default=0,
        ge=0,
        le=10_000,
        description="How many live queries each process keeps in memory, for `cliptide compare --live`. They "
        "are a random sample of the texts, content ids and filters of the last QUERY_SAMPLE_HOURS. Queries "
        "can be personal, so the default, 0, keeps none. Needs ADMIN_KEYS.",
    )
    query_sample_hours: float = Field(
        default=24.0, gt=0, le=24 * 31, description="Forget a kept query after this many hours."
    )
    percentiles: bool = Field(
        default=True,
        description="Answer percentiles of hits. This costs encoding 256 phrases at the start, and from time "
        "to time some hundred searches, which take at most 4 % of one processor.",
    )
    can_publish: bool = Field(
        default=False, description="Enable uploads and deletes. The service publishes them to CLIPTIDE_TOPIC."
    )
    publish_timeout_seconds: float = Field(
        default=10.0, gt=0, description="Answer 503 when Kafka has not acknowledged an upload for this long."
    )
    inline_limit_bytes: int = Field(
        default=10 * 2**20,
        ge=1,
        description="Larger contents are stored in CONTENTS_STORE or LARGE_CONTENTS_DIRECTORY, or answered "
        "413 without one.",
    )
    large_contents_directory: DirectoryName | None = Field(
        default=None,
        description="Directory in which large contents are stored. They are published as file:// references, "
        "so consumers need the directory in CLIPTIDE_CONSUMER__REFERENCE_FILE_ROOTS.",
    )
    contents_store: str | None = Field(
        default=None,
        pattern=r"^((s3|gs|az)://[\w.-]+(/[\w.~/-]*)?|file:///[^?#]+)$",
        description="Where large contents are stored instead of LARGE_CONTENTS_DIRECTORY, each under its "
        "SHA-256: s3://bucket/folder, gs://…, az://… or file:///…. They are published as references, so "
        "consumers need the bucket in CLIPTIDE_CONSUMER__REFERENCE_BUCKETS, or the directory in "
        "CLIPTIDE_CONSUMER__REFERENCE_FILE_ROOTS. Credentials are those of the cloud's own tools.",
    )
    contents_stored: Literal["large", "all"] = Field(
        default="large",
        description="Which uploads are stored in CONTENTS_STORE: large (above INLINE_LIMIT_BYTES), or all.",
    )
    contents_base_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^/?#\s]+(/[^?#\s]*)?$",
        description="The public address of CONTENTS_STORE, such as https://pictures.example.com. Stored "
        "uploads without a link get a link below it. Unset: answers show signed addresses of a bucket, which "
        "are good for half an hour at least, and no link to a directory.",
    )

    @model_validator(mode="after")
    def _has_a_key_beyond_loopback(self) -> QueryApiSettings:
        if not (is_loopback(self.host) or self.read_keys or self.write_keys or self.allow_anonymous):
            raise ValueError(
                f"{SECTION}HOST: {self.host} is beyond loopback, and no API keys are configured: set "
                f"{SECTION}READ_KEYS and {SECTION}WRITE_KEYS, or {SECTION}ALLOW_ANONYMOUS=true"
            )
        if self.contents_store is None and (self.contents_base_url or self.contents_stored == "all"):
            name = "CONTENTS_BASE_URL" if self.contents_base_url else "CONTENTS_STORED"
            raise ValueError(f"{SECTION}{name}: set {SECTION}CONTENTS_STORE as well")
        if self.contents_store is not None and self.large_contents_directory is not None:
            raise ValueError(f"{SECTION}CONTENTS_STORE: set either this or {SECTION}LARGE_CONTENTS_DIRECTORY")
        if self.query_sample_size and not self.admin_keys:
            raise ValueError(f"{SECTION}QUERY_SAMPLE_SIZE: set {SECTION}ADMIN_KEYS as well")
        if self.reuse_port and not os.environ.get(MULTIPROC_VARIABLE):
            raise ValueError(
                f"{SECTION}REUSE_PORT: set {MULTIPROC_VARIABLE} to a directory that all processes share"
            )
        return self


class Settings(EnvironmentSettings):
    """All settings that `python -m query_api` reads from its environment."""

    topic: TopicName = Field(default=DEFAULT_TOPIC, description="The topic that uploads are published to.")
    kafka: KafkaSection = KafkaSection()
    schema_registry: SchemaRegistrySection = SchemaRegistrySection()
    index: IndexSettings = IndexSettings()
    opensearch: OpenSearchSection = OpenSearchSection()
    encoder: EncoderSettings = EncoderSettings()
    query_api: QueryApiSettings = QueryApiSettings()

    @model_validator(mode="after")
    def _fit_together(self) -> Settings:
        check_engine(self.index, self.index.id, self.opensearch)
        return self


def registry_settings(section: SchemaRegistrySection) -> RegistrySettings:
    """Return how to reach the registry that the section names."""
    return RegistrySettings(section.url or "", **section.access())


def read_settings() -> Settings:
    """Read the environment. Raises `BadSettings`, which names the first variable that cannot be used."""
    return read_environment(Settings)
