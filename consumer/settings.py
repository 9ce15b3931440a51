"""The consumer's settings, as its environment gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from clip_index.encoder.settings import EncoderSettings
from clip_index.storage.index_roots import IndexRoot, index_root
from clip_index.writing.merge_policy import DEFAULT_MAX_BYTES, MAX_DEBT
from event_log.kafka.settings import KafkaSettings
from event_log.schema_registry.settings import RegistrySettings
from schemas.mapping.loading import load_mapping
from service import sections
from service.environment import EnvironmentSettings, Section, read_environment


class KafkaSection(sections.KafkaSection):
    """How to reach Kafka, checked when the settings are read."""

    @model_validator(mode="after")
    def _is_accepted(self) -> KafkaSection:
        self.connection()
        return self

    def connection(self) -> KafkaSettings:
        """Keep long polls short, because every other request to a broker waits behind them."""
        return KafkaSettings(self.bootstrap_servers, {"fetch.wait.max.ms": 50, **self.properties})


class SchemaRegistrySection(sections.SchemaRegistrySection):
    """The registry whose serializers framed the records."""

    def connection(self) -> RegistrySettings | None:
        """Return how to reach the registry; None if there is none."""
        if self.url is None:
            return None
        return RegistrySettings(self.url, **self.access())


class IndexSettings(sections.IndexSection):
    """Which index is written."""

    id: sections.IndexId = Field(default="main", description="The name of the index that is written.")

    @property
    def location(self) -> IndexRoot:
        return index_root(self.root, self.cache_dir, self.cache_bytes)


class ConsumerSettings(Section):
    """How records become shards. `*_seconds` and `*_bytes` say their units. Lists are written as JSON."""

    group_id: str | None = Field(
        default=None,
        description="The Kafka consumer group. If it is not set, the group is cliptide-<index id>.",
    )
    create_topics: bool = Field(
        default=False, description="The consumer creates its topics at the start if they are missing."
    )
    num_partitions: int = Field(
        default=4,
        ge=1,
        description="A topic that the consumer creates has this many partitions; that cannot change later.",
    )
    health_host: str = Field(
        default="127.0.0.1", description="The consumer answers /livez, /readyz and /metrics on this address."
    )
    health_port: int = Field(
        default=8081,
        ge=0,
        le=65535,
        description="The consumer answers health checks and metrics on this port; 0 takes a free port.",
    )
    health_host_names: frozenset[sections.HostName] = Field(
        default=frozenset(),
        description="Names to which that listener answers besides addresses and localhost, as a JSON list "
        "without ports. Others are answered 403.",
    )
    batch_max_rows: int = Field(
        default=32, ge=1, description="A batch is encoded when it holds this many pictures and text windows."
    )
    batch_max_age_seconds: float = Field(
        default=0.05,
        ge=0,
        description="A batch waits at most this long to fill while more records are being prepared.",
    )
    commit_interval_seconds: float | None = Field(
        default=None,
        gt=0,
        description="Changes are committed, and so searchable, this long after the first of them. Unset: "
        "0.05; 1 with an index in a bucket, because each commit there is requests that cost money; 0.5 with "
        "the engine opensearch, because each commit is a refresh there. A shard that commits all the time "
        "goes on at 0.2 after about a second, because query services open what each commit has added, "
        "and old generations are kept for minutes.",
    )
    buffer_bytes: int = Field(
        default=256 * 2**20,
        ge=2**20,
        description="Records read ahead of the encoder take at most this many bytes, over all partitions.",
    )
    max_prepared: int = Field(
        default=512,
        ge=1,
        description="At most this many contents are decoded ahead of the encoder, over all partitions.",
    )
    preparation_threads: int = Field(
        default=2, ge=1, description="This many threads decode and resize contents beside the encoder."
    )
    reuse_encodings: bool = Field(
        default=True,
        description="An upload takes its embeddings from an indexed content of the same bytes. False encodes "
        "every upload again, for example after an encoder was repaired.",
    )
    thumbnail_side: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="The longer side of each kept thumbnail is this many pixels; 0 keeps no thumbnails. 512 "
        "looks sharp on screens of twice the density; others get smaller ones.",
    )
    on_unknown_schema: Literal["wait", "stop", "dead_letter"] = Field(
        default="wait",
        description="A record of an unknown Avro fingerprint makes its partition wait (wait), stops the "
        "consumer (stop), or is set aside (dead_letter).",
    )
    on_misplaced_record: Literal["index", "dead_letter"] = Field(
        default="index",
        description="A record in another partition than its key belongs to is indexed where it lies (index), "
        "or set aside (dead_letter).",
    )
    flood_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="The consumer stops when a larger share of the latest records are dead letters for a "
        "reason other than what a user uploaded.",
    )
    flood_min_dead_letters: int = Field(
        default=100, ge=1, description="Fewer dead letters than this are no flood, whatever their share."
    )
    flood_window: int = Field(
        default=1000, ge=1, description="FLOOD_SHARE is computed over this many of the latest records."
    )
    reference_hosts: frozenset[str] = Field(
        default=frozenset(), description="An https reference is fetched if its host is in this list."
    )
    reference_buckets: frozenset[str] = Field(
        default=frozenset(),
        description="An s3, gs or az reference is fetched if its bucket (s3://name) is in this list.",
    )
    reference_file_roots: tuple[Path, ...] = Field(
        default=(), description="A file reference is read if it lies below one of these directories."
    )
    reference_max_bytes: int = Field(
        default=64 * 2**20, ge=1, description="A reference of more bytes becomes a dead letter."
    )
    reference_concurrency: int = Field(
        default=16,
        ge=1,
        description="At most this many references are being fetched or waiting to be prepared.",
    )
    reference_timeout_seconds: float = Field(
        default=30.0, gt=0, description="One attempt to fetch a reference takes at most this long."
    )
    reference_grace_seconds: float = Field(
        default=30.0,
        ge=0,
        description="An absent or wrong reference is tried again for this long, then a dead letter.",
    )
    reference_patience_seconds: float = Field(
        default=300.0,
        ge=0,
        description="A reference whose store answers with an error is a dead letter after this long, and one "
        "whose store does not answer, if other fetches succeed.",
    )
    retain_for_seconds: float = Field(
        default=600.0,
        gt=0,
        description="Replaced index files are kept this long for readers that are behind; at least a minute "
        "on a file system that machines share.",
    )
    erase_within_seconds: float = Field(
        default=86_400.0,
        gt=0,
        description="A segment is rewritten so that no deleted or replaced content stays in it for longer "
        "than this.",
    )
    erase_bytes_per_day: float = Field(
        default=100 * 2**30,
        gt=0,
        description="A consumer rewrites at most this many bytes of segments a day only to erase deleted "
        "contents, the oldest deletion first. If that is too little for ERASE_WITHIN_SECONDS, the alert "
        "CliptideErasureLate says so.",
    )
    target_recall: float = Field(
        default=0.99,
        ge=0.5,
        le=0.999,
        description="Merged segments are searched so that this share of the ten best contents is found.",
    )
    max_merge_bytes: int = Field(
        default=DEFAULT_MAX_BYTES,
        ge=64 * 2**20,
        description="Segments of at most this many bytes together are merged into one. The process that "
        "merges them takes about one and a half times as much memory. A larger bound leaves fewer segments "
        "to search.",
    )
    max_merge_debt: int = Field(
        default=MAX_DEBT,
        ge=16,
        description="A shard with this many segments more than merging leaves commits nothing until a merge "
        "has ended.",
    )
    accept_data_loss: bool = Field(
        default=False,
        description="The consumer goes on although records that the index lacks are gone from the log.",
    )
    accept_rewind: bool = Field(
        default=False,
        description="The consumer reads records again although the group's offset is ahead of the index's.",
    )
    stop_timeout_seconds: float = Field(
        default=30.0, gt=0, description="A graceful stop takes at most this long."
    )


def _check_mapping(name: str) -> str:
    load_mapping(name)
    return name


class Settings(EnvironmentSettings):
    """Everything that `python -m consumer` reads from its environment."""

    topic: sections.TopicName = Field(
        default=sections.DEFAULT_TOPIC, description="The consumer reads uploads from this topic."
    )
    dead_letter_topic: sections.TopicName = Field(
        default=sections.DEFAULT_DEAD_LETTER_TOPIC,
        description="Records that cannot be indexed are sent to this topic.",
    )
    mapping: Annotated[str, AfterValidator(_check_mapping)] | None = Field(
        default=None,
        description="The rules that turn records of another form into upload events: the path of a file, or "
        "the name of a preset (see `docs/mappings.md`).",
    )
    kafka: KafkaSection = KafkaSection()
    schema_registry: SchemaRegistrySection = SchemaRegistrySection()
    index: IndexSettings = IndexSettings()
    opensearch: sections.OpenSearchSection = sections.OpenSearchSection()
    encoder: EncoderSettings = EncoderSettings()
    consumer: ConsumerSettings = ConsumerSettings()

    @model_validator(mode="after")
    def _fit_together(self) -> Settings:
        sections.check_engine(self.index, self.index.id, self.opensearch)
        return self

    @property
    def group_id(self) -> str:
        """The group belongs to the index, so that each of two indexes reads all of one topic."""
        return self.consumer.group_id or f"cliptide-{self.index.id}"


def read_settings() -> Settings:
    """Read the environment. Raises `BadSettings`, which names the first variable that cannot be used."""
    return read_environment(Settings)
