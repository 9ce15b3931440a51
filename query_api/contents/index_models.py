"""What answers show of the index and of the contents in it."""

from __future__ import annotations

from pydantic import Field
from typing_extensions import Self

from clip_index.content import MetadataValue, Modality
from clip_index.encoder.protocol import EncoderFingerprint
from query_api.contract.models import Answer, RfcTime, ShardCoverage, Snapshot, Timings


class ContentHeadline(Answer):
    """What an answer shows of a content."""

    content_id: str
    modality: Modality
    source: str
    owner_id: str | None
    occurred_at: RfcTime
    link: str | None
    version: int | None
    text: str | None = Field(default=None, description="On demand.")
    metadata: dict[str, MetadataValue] | None = Field(default=None, description="On demand.")
    vector: list[float] | None = Field(
        default=None, description="On demand: what a search by this content id asks by."
    )
    thumbnail: str | None = Field(
        default=None,
        description="On demand: the kept thumbnail, a WebP file in base64; null where none is kept.",
        json_schema_extra={"contentEncoding": "base64", "contentMediaType": "image/webp"},
    )
    thumbnail_url: str | None = Field(
        default=None,
        description="On demand: the path of the thumbnail, another one when the content changes.",
    )


class ContentFields(Answer):
    """A live content; `text` is null for images."""

    content_id: str
    modality: Modality
    source: str
    owner_id: str | None
    occurred_at: RfcTime
    link: str | None
    version: int | None
    text: str | None
    metadata: dict[str, MetadataValue]
    offset: int
    vector: list[float] | None = Field(
        default=None, description="On demand: what a search by this content id asks by."
    )


class ContentAnswer(Answer):
    content: ContentFields
    snapshot: Snapshot
    timings: Timings


class EncoderAnswer(Answer):
    architecture: str
    dimension: int
    weights_digest: str
    preprocessing: str
    windowing: str
    fingerprint: str = Field(description="A short digest of all the others.")

    @classmethod
    def of(cls, fingerprint: EncoderFingerprint) -> Self:
        return cls(
            architecture=fingerprint.architecture,
            dimension=fingerprint.dimension,
            weights_digest=fingerprint.weights_digest,
            preprocessing=fingerprint.preprocessing,
            windowing=fingerprint.windowing,
            fingerprint=fingerprint.short,
        )


class ShardAnswer(ShardCoverage):
    first_offset: int
    num_contents: dict[Modality, int]


class IndexAnswer(Answer):
    index_id: str
    topic: str
    num_partitions: int
    encoder: EncoderAnswer
    num_contents: dict[Modality, int]
    shards: dict[str, ShardAnswer]
    snapshot: Snapshot
