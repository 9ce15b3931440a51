"""The models of what the index holds, and of one content."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from clip_index.content import Modality
from query_api.answers.headlines import ContentFields
from query_api.answers.snapshot import EncoderAnswer, ShardCoverage, SnapshotAnswer
from query_api.contract.models import SEPARATED, Answer, Request, Timings, split_list


class ContentAnswer(Answer):
    content: ContentFields
    snapshot: SnapshotAnswer
    timings: Timings


class ShardAnswer(ShardCoverage):
    first_offset: int
    num_contents: dict[Modality, int]


class GuaranteesAnswer(Answer):
    """What the engine that holds the index guarantees."""

    atomic_generations: bool = Field(
        description="An answer shows exactly the changes below its `next_offset`. If not, `next_offset` is a "
        "lower bound: an answer may show later changes, too."
    )
    stable_pages: bool = Field(description="Further pages show the generation of the first one.")
    complete_answers: bool = Field(
        description="A search finds `k` contents wherever `k` exist and pass the filter."
    )
    measured_recall: bool = Field(
        description="How many of the ten best contents are found is measured and held at a target."
    )
    verified_files: bool = Field(description="Every file of the index is compared with its digest.")
    rollback: bool = Field(description="Former generations are kept, and an operator can go back to one.")
    timely_erasure: bool = Field(description="Deleted contents leave the disk within a set time.")


class IndexAnswer(Answer):
    index_id: str
    topic: str
    num_partitions: int
    encoder: EncoderAnswer
    num_contents: dict[Modality, int]
    shards: dict[str, ShardAnswer]
    snapshot: SnapshotAnswer
    guarantees: GuaranteesAnswer


class ContentParameters(Request):
    """The query string of `GET /v1/contents/{content_id}`."""

    include: Annotated[list[Literal["vector"]], SEPARATED, BeforeValidator(split_list)] = Field(
        default_factory=list
    )
