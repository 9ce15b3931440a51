"""The one writer of a content's fields, as every answer shows them.

A field that every answer shows has a line in `ShownContent`, which documents it, one in `Headline`, which
reads it, and one in `_write_headlines`.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Sequence
from typing import Any, TypeAlias
from urllib.parse import quote

from pydantic import Field

from clip_index.content import MetadataValue, Modality, StoredContent, unit_mean
from query_api.answers.snapshot import RfcTime, rfc_time
from query_api.contract.models import Answer, Include
from query_api.contract.validation import shortened
from query_api.errors import ApiError
from query_api.serving.engine import LONG_FACTS, Headline, Hit, Location, LongFact, Snapshot


class ShownContent(Answer):
    """The fields of a content that every answer shows."""

    content_id: str
    modality: Modality
    source: str
    owner_id: str | None
    occurred_at: RfcTime
    link: str | None
    title: str | None
    version: int | None


class ContentHeadline(ShownContent):
    """What an answer shows of a content."""

    text: str | None = Field(default=None, description="Only if `include` names it.")
    metadata: dict[str, MetadataValue] | None = Field(default=None, description="Only if `include` names it.")
    vector: list[float] | None = Field(
        default=None,
        description="Only if `include` names it: the embedding that a search by this content id uses.",
    )
    thumbnail: str | None = Field(
        default=None,
        description="Only if `include` names it: the thumbnail, a WebP file in base64; null if none is kept.",
        json_schema_extra={"contentEncoding": "base64", "contentMediaType": "image/webp"},
    )
    thumbnail_url: str | None = Field(
        default=None,
        description="Only if `include` names it: the path of the thumbnail, which changes with the content.",
    )


class ContentFields(ShownContent):
    """All that is kept of a live content; `text` is null for images."""

    text: str | None
    metadata: dict[str, MetadataValue]
    truncated: bool = Field(
        description="The text was too long for the encoder: searches find it by its beginning."
    )
    sha256: str | None = Field(
        description="The digest of the bytes that were fetched, if the upload was a reference."
    )
    patched_at: str | None = Field(
        description="When a patch last changed title, link or metadata; null since the last upload."
    )
    offset: int
    vector: list[float] | None = Field(
        default=None,
        description="Only if `include` names it: the embedding that a search by this content id uses.",
    )


JsonObject: TypeAlias = dict[str, Any]
"""A part of an answer, ready for JSON. Models for each of many hits would cost more than everything else
about them, so hits are written as dictionaries; tests compare them with the models that document them."""

_MAX_ID_SHOWN = 100
_LONG_FIELDS: tuple[LongFact, ...] = ("text", "metadata")


def locate(searcher: Snapshot, content_id: str) -> Location:
    """Return where a live content lies; `ApiError` (unknown_content) if there is none."""
    location = searcher.find(content_id)
    if location is None:
        named = shortened(content_id, _MAX_ID_SHOWN)
        raise ApiError("unknown_content", f"there is no live content with the id {named!r}")
    return location


def read_headlines(
    searcher: Snapshot, locations: Sequence[Location], include: Collection[Include]
) -> list[JsonObject]:
    """Read the fields of a `ContentHeadline` for each location."""
    if not include:
        return _write_headlines(searcher.headlines(locations))
    fields = [field for field in _LONG_FIELDS if field in include]
    stored = searcher.read_many(locations, fields)
    written = [_write_shown(content) for content in stored]
    for location, content, shown in zip(locations, stored, written, strict=True):
        shown.update(_write_demanded(searcher, location, content, include))
    return written


def read_headlines_of_hits(
    searcher: Snapshot, hits: Sequence[Hit], include: Collection[Include]
) -> list[JsonObject]:
    """Read the same for each hit."""
    if not include:
        return _write_headlines(searcher.headlines_of_hits(hits))
    return read_headlines(searcher, [hit.location for hit in hits], include)


def read_content(searcher: Snapshot, content_id: str, include: Collection[Include]) -> ContentFields:
    """Return all that is kept of a live content; `ApiError` (unknown_content) if there is none."""
    location = locate(searcher, content_id)
    [stored] = searcher.read_many([location], LONG_FACTS)
    demanded = _write_demanded(searcher, location, stored, {*LONG_FACTS, *include})
    patched_at_ms = stored.facts.patched_at_ms
    return ContentFields(
        **_write_shown(stored),
        **demanded,
        truncated=stored.facts.is_truncated,
        sha256=stored.facts.sha256,
        patched_at=None if patched_at_ms is None else rfc_time(patched_at_ms),
        offset=stored.offset,
    )


def _write_shown(content: StoredContent) -> JsonObject:
    facts = content.facts
    headline = Headline(
        content.content_id,
        content.modality,
        facts.source,
        facts.owner_id,
        facts.occurred_at_ms,
        facts.link,
        facts.title,
        content.version,
    )
    [written] = _write_headlines([headline])
    return written


def _write_headlines(headlines: Iterable[Headline]) -> list[JsonObject]:
    return [
        {  # a literal, since a loop over names takes a third longer for each hit
            "content_id": content_id,
            "modality": modality,
            "source": source,
            "owner_id": owner_id,
            "occurred_at": rfc_time(occurred_at_ms),
            "link": link,
            "title": title,
            "version": version,
        }
        for content_id, modality, source, owner_id, occurred_at_ms, link, title, version in headlines
    ]


def _write_demanded(
    searcher: Snapshot, location: Location, content: StoredContent, include: Collection[Include]
) -> JsonObject:
    """Write the fields that are shown on demand alone."""
    written: JsonObject = {field: getattr(content.facts, field) for field in _LONG_FIELDS if field in include}
    if "vector" in include:
        written["vector"] = unit_mean(searcher.embeddings(location)).tolist()
    if "thumbnail" in include or "thumbnail_url" in include:
        written.update(_write_thumbnail(searcher.thumbnail(location), content, include))
    return written


def _write_thumbnail(
    thumbnail: bytes | None, content: StoredContent, include: Collection[Include]
) -> dict[str, str | None]:
    values = {
        "thumbnail": base64.b64encode(thumbnail).decode() if thumbnail else None,
        "thumbnail_url": thumbnail_url(content) if thumbnail else None,
    }
    return {name: value for name, value in values.items() if name in include}


def thumbnail_url(content: StoredContent) -> str:
    """Return the path of a thumbnail. The offset gives it another path when the content changes."""
    return f"/v1/contents/{quote(content.content_id, safe='')}/thumbnail?offset={content.offset}"
