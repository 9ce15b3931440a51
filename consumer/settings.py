"""The consumer's settings, as its environment gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from clip_index.encoder.settings import EncoderSettings
from event_log.kafka.settings import KafkaSettings
from service import sections
from service.settings import EnvironmentSettings, Section, read_environment


class KafkaSection(sections.KafkaSection):
    """How to reach Kafka, checked when the settings are read."""

    @model_validator(mode="after")
    def _is_accepted(self) -> KafkaSection:
        self.connection()
        return self

    def connection(self) -> KafkaSettings:
        """Keep long polls short, because every other request to a broker waits behind them."""
        return KafkaSettings(self.bootstrap_servers, {"fetch.wait.max.ms": 50, **self.properties})


class IndexSettings(sections.IndexSection):
    """Which index is written."""

    id: str = Field(default="main", description="The name of the index that is written.")


class ConsumerSettings(Section):
    """How records become shards. `*_seconds` and `*_bytes` say their units; lists are JSON."""

    group_id: str | None = Field(default=None, description="The consumer group; unset: cliptide-<index id>.")
    create_topics: bool = Field(default=False, description="Create missing topics.")
    num_partitions: int = Field(default=4, ge=1, description="Partitions of a topic that is created.")
    health_host: str = Field(
        default="127.0.0.1", description="Where /livez, /readyz and /metrics are answered."
    )
    health_port: int = Field(default=8081, ge=0, le=65535, description="Its port; 0 takes a free one.")
    batch_max_rows: int = Field(default=32, ge=1, description="Pictures and text windows encoded together.")
    batch_max_age_seconds: float = Field(
        default=0.05, ge=0, description="How long a batch waits for company while more is under way."
    )
    commit_interval_seconds: float = Field(
        default=0.2, gt=0, description="From the first change to the commit that makes it searchable."
    )
    buffer_bytes: int = Field(
        default=256 * 2**20, ge=2**20, description="Records read ahead, all partitions together."
    )
    max_prepared: int = Field(
        default=512, ge=1, description="Contents decoded ahead of the encoder, all partitions together."
    )
    preparation_threads: int = Field(
        default=2, ge=1, description="Threads that decode and resize beside the encoder."
    )
    thumbnail_side: int = Field(
        default=0, ge=0, le=1024, description="Longer side of kept thumbnails in pixels; 0 keeps none."
    )
    on_unknown_schema: Literal["stop", "dead_letter"] = Field(
        default="stop", description="stop: exit until the schema is known; dead_letter: set aside."
    )
    flood_share: float = Field(
        default=0.5, ge=0, le=1, description="Stop when more than this share of the window is set aside."
    )
    flood_min_dead_letters: int = Field(
        default=100, ge=1, description="Dead letters below which nothing counts as a flood."
    )
    flood_window: int = Field(default=1000, ge=1, description="The newest records, which the share is of.")
    reference_hosts: frozenset[str] = Field(
        default=frozenset(), description="Hosts that https references may name."
    )
    reference_buckets: frozenset[str] = Field(
        default=frozenset(), description="Buckets that s3, gs and az references may name (s3://name)."
    )
    reference_file_roots: tuple[Path, ...] = Field(
        default=(), description="Directories that file references may lie in."
    )
    reference_max_bytes: int = Field(
        default=64 * 2**20, ge=1, description="Larger references are dead letters."
    )
    reference_concurrency: int = Field(
        default=16, ge=1, description="Fetched at once, or waiting to be prepared."
    )
    reference_timeout_seconds: float = Field(default=30.0, gt=0, description="For one fetch.")
    reference_grace_seconds: float = Field(
        default=30.0, ge=0, description="How long an absent or wrong content is fetched again."
    )
    reference_patience_seconds: float = Field(
        default=300.0, ge=0, description="How long an unreachable content is fetched again."
    )
    retain_for_seconds: float = Field(
        default=600.0, gt=0, description="How long replaced files stay for readers that are behind."
    )
    erase_within_seconds: float = Field(
        default=86_400.0,
        gt=0,
        description="How long a deleted or replaced content may stay in a segment before that is rewritten.",
    )
    accept_data_loss: bool = Field(
        default=False, description="Go on although the log begins behind the index's next offset."
    )
    accept_rewind: bool = Field(
        default=False, description="Read again although the group's offset is ahead of the index's."
    )
    stop_timeout_seconds: float = Field(default=30.0, gt=0, description="How long a graceful stop may take.")


class Settings(EnvironmentSettings):
    """Everything that `python -m consumer` reads from its environment."""

    topic: str = Field(default=sections.DEFAULT_TOPIC, description="The topic that uploads are read from.")
    dead_letter_topic: str = Field(
        default=sections.DEFAULT_DEAD_LETTER_TOPIC, description="The topic that records are set aside on."
    )
    kafka: KafkaSection = KafkaSection()
    index: IndexSettings = IndexSettings()
    encoder: EncoderSettings = EncoderSettings()
    consumer: ConsumerSettings = ConsumerSettings()

    @property
    def group_id(self) -> str:
        """The group belongs to the index: two indexes of one topic each read all of it."""
        return self.consumer.group_id or f"cliptide-{self.index.id}"


def read_settings() -> Settings:
    """Read the environment; `BadSettings` names the first variable that cannot be used."""
    return read_environment(Settings)
