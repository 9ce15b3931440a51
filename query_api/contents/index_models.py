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


class IndexAnswer(Answer):
    index_id: str
    topic: str
    num_partitions: int
    encoder: EncoderAnswer
    num_contents: dict[Modality, int]
    shards: dict[str, ShardAnswer]
    snapshot: SnapshotAnswer


class ContentParameters(Request):
    """The query string of `GET /v1/contents/{content_id}`."""

    include: Annotated[list[Literal["vector"]], SEPARATED, BeforeValidator(split_list)] = Field(
        default_factory=list
    )
