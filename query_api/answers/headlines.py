"""The one writer of a content's fields, as every answer shows them."""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from typing import Any, TypeAlias
from urllib.parse import quote

from pydantic import Field

from clip_index.content import MetadataValue, Modality, StoredContent, unit_mean
from query_api.answers.snapshot import RfcTime, rfc_time
from query_api.contract.models import Answer, Include
from query_api.errors import ApiError
from query_api.serving.engine import ALL_FIELDS, Location, Snapshot, StoredField


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


Written: TypeAlias = dict[str, Any]
"""A part of an answer as it is written. Answers of many hits are not built of models first, which
would cost more than all else about them; tests hold them to the models that document them."""


def locate(searcher: Snapshot, content_id: str) -> Location:
    location = searcher.find(content_id)
    if location is None:
        raise ApiError("unknown_content", "there is no live content with this id")
    return location


def read_headlines(
    searcher: Snapshot, locations: Sequence[Location], include: Collection[Include]
) -> list[Written]:
    """Read the fields of a `ContentHeadline` for each location."""
    fields: list[StoredField] = [field for field in ALL_FIELDS if field in include]
    stored = searcher.read_many(locations, fields)
    written = [_write_headline(content) for content in stored]
    if include:
        for location, content, headline in zip(locations, stored, written, strict=True):
            headline.update(_included(searcher, location, content, include))
    return written


def _write_headline(content: StoredContent) -> Written:
    return {
        "content_id": content.content_id,
        "modality": content.modality,
        "source": content.source,
        "owner_id": content.owner_id,
        "occurred_at": rfc_time(content.occurred_at_ms),
        "link": content.link,
        "version": content.version,
    }


def _included(
    searcher: Snapshot, location: Location, content: StoredContent, include: Collection[Include]
) -> Written:
    included: Written = {}
    if "text" in include:
        included["text"] = content.text
    if "metadata" in include:
        included["metadata"] = content.metadata
    if "vector" in include:
        included["vector"] = unit_mean(searcher.embeddings(location)).tolist()
    if "thumbnail" in include or "thumbnail_url" in include:
        included.update(_thumbnail(searcher.thumbnail(location), content, include))
    return included


def _thumbnail(
    thumbnail: bytes | None, content: StoredContent, include: Collection[Include]
) -> dict[str, str | None]:
    values = {
        "thumbnail": base64.b64encode(thumbnail).decode() if thumbnail else None,
        "thumbnail_url": thumbnail_url(content) if thumbnail else None,
    }
    return {name: value for name, value in values.items() if name in include}


def thumbnail_url(content: StoredContent) -> str:
    """Return the path of a thumbnail; the offset makes it another one when the content changes."""
    return f"/v1/contents/{quote(content.content_id, safe='')}/thumbnail?offset={content.offset}"


def read_content(searcher: Snapshot, content_id: str, include: Collection[str]) -> ContentFields:
    """Return all that is kept of a live content; `unknown_content` if there is none."""
    location = locate(searcher, content_id)
    [stored] = searcher.read_many([location], ALL_FIELDS)
    vector = {"vector": unit_mean(searcher.embeddings(location)).tolist()} if "vector" in include else {}
    return ContentFields(
        content_id=stored.content_id,
        modality=stored.modality,
        source=stored.source,
        owner_id=stored.owner_id,
        occurred_at=rfc_time(stored.occurred_at_ms),
        link=stored.link,
        version=stored.version,
        text=stored.text,
        metadata=dict(stored.metadata),
        offset=stored.offset,
        **vector,
    )
