"""Documents: what is stored of a content or of a delete, and how it is read again. Pure.

`_id` is the partition and the content id, because each partition folds its own events even if a
producer sent an id to two of them. A delete is a document without a vector: a deleted document would
lose its version, and a late write could bring the content back.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from clip_index.content import (
    FACT_NAMES,
    LONG_FACTS,
    Change,
    ContentFacts,
    Embeddings,
    EncodedContent,
    Headline,
    LongFact,
    MetadataScalar,
    MetadataValue,
    Modality,
    StoredContent,
)
from clip_index.fold import UNSEEN, IdState
from clip_index.views.snapshot import Location
from opensearch_engine.connection import Json

_MAX_ID_BYTES = 512
_DECIMALS = 8  # of a component: the error is a tenth of what float32 can tell of a unit vector

SHOWN_FIELDS = ("content_id", "shard", "offset", "version", "modality", *(set(FACT_NAMES) - LONG_FACTS))
"""What is read of a document that is found. The long facts and vectors are read if somebody asks for them."""


@dataclass(frozen=True, slots=True)
class StoredState:
    """What the fold must know of an id: the offset of its last event that applied, and its state."""

    offset: int
    state: IdState


UNKNOWN = StoredState(-1, UNSEEN)


@dataclass(frozen=True, slots=True)
class Document:
    """A live content that was found. `source` holds at least the fields of `SHOWN_FIELDS`."""

    document_id: str
    source: Mapping[str, Any]
    embeddings: Embeddings | None = None

    @property
    def content_id(self) -> str:
        return str(self.source["content_id"])

    @property
    def recency(self) -> tuple[int, int]:
        """Version and time. The greater pair is newer: offsets of two shards do not compare."""
        version = self.source.get("version")
        return (-(2**63) if version is None else version, self.source["occurred_at_ms"])


def document_id(partition: int, content_id: str) -> str:
    """OpenSearch takes 512 bytes. Of a content id for which they are too few its digest is taken."""
    name = f"{partition}/{content_id}"
    if len(name.encode("utf-8", "replace")) <= _MAX_ID_BYTES:
        return name
    digest = hashlib.sha256(content_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{partition}//{digest}"


def document_from_change(change: Change, state: IdState, shard: str) -> Json:
    """Build what is stored of an id after an event that applied; `state` is the state after it."""
    common = {
        "content_id": change.content_id,
        "shard": shard,
        "offset": change.offset,
        "floor": state.floor,
        "dead": not state.is_live,
    }
    return {**common, **_live_fields(change)} if isinstance(change, EncodedContent) else common


def state_from_source(source: Mapping[str, Any]) -> StoredState:
    return StoredState(source["offset"], IdState(source["floor"], not source["dead"]))


def _live_fields(content: EncodedContent) -> Json:
    facts: Json = {name: getattr(content.facts, name) for name in FACT_NAMES if name != "metadata"}
    metadata = content.facts.metadata
    fields = {
        **facts,
        "modality": content.modality,
        "version": content.version,
        "metadata": json.dumps(metadata, ensure_ascii=False),  # a text, so that no key becomes a field
        "metadata_keys": sorted(metadata),
        "metadata_values": sorted({t for key, value in metadata.items() for t in value_terms(key, value)}),
        "metadata_numbers": [number_term(key, value) for key, value in metadata.items() if is_number(value)],
        "thumbnail": None if content.thumbnail is None else base64.b64encode(content.thumbnail).decode(),
        "vectors": [{content.modality: row} for row in _rounded(content.embeddings)],
    }
    return {name: value for name, value in fields.items() if value is not None and value is not False}


def _rounded(embeddings: Embeddings) -> list[list[float]]:
    rows: list[list[float]] = np.round(embeddings.astype(np.float64), _DECIMALS).tolist()
    return rows


def content_from_document(document: Document, long_facts: Collection[LongFact]) -> StoredContent:
    """A long fact that is not in `long_facts` is None or empty."""
    source = document.source
    left_out = LONG_FACTS - set(long_facts)
    facts: Json = {name: source[name] for name in FACT_NAMES if name in source and name not in left_out}
    if "metadata" in facts:
        facts["metadata"] = _metadata_from_text(facts["metadata"])
    return StoredContent(
        content_id=document.content_id,
        offset=source["offset"],
        modality=cast(Modality, source["modality"]),
        version=source.get("version"),
        facts=ContentFacts(**facts),
    )


def headline_from_document(document: Document) -> Headline:
    stored = content_from_document(document, ())
    facts = stored.facts
    return Headline(
        content_id=stored.content_id,
        modality=stored.modality,
        source=facts.source,
        owner_id=facts.owner_id,
        occurred_at_ms=facts.occurred_at_ms,
        link=facts.link,
        title=facts.title,
        version=stored.version,
    )


def encoded_content(document: Document) -> EncodedContent:
    """Return a content as it was written. `document` must have all its fields."""
    stored = content_from_document(document, LONG_FACTS)
    return EncodedContent(
        content_id=stored.content_id,
        offset=stored.offset,
        modality=stored.modality,
        embeddings=embeddings_from_source(document.source),
        facts=stored.facts,
        version=stored.version,
        thumbnail=thumbnail_from_source(document.source),
    )


def _metadata_from_text(text: str) -> dict[str, MetadataValue]:
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in json.loads(text, parse_int=float).items()
    }


def embeddings_from_source(source: Mapping[str, Any]) -> Embeddings:
    """Return the embeddings, (windows, dimension), with length 1 again after the rounding."""
    rows = np.array([next(iter(one.values())) for one in source["vectors"]], np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def thumbnail_from_source(source: Mapping[str, Any]) -> bytes | None:
    text = source.get("thumbnail")
    return None if text is None else base64.b64decode(text)


def is_number(value: MetadataValue) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def value_terms(key: str, value: MetadataValue) -> list[str]:
    """Return one term for the value of a key, or for each text of a list. Terms of two types never equal."""
    if isinstance(value, tuple):
        return [term for text in value for term in value_terms(key, text)]
    if isinstance(value, str):
        return [f"{_key_prefix(key)}t{value}"]
    if isinstance(value, bool):
        return [f"{_key_prefix(key)}b{value}"]
    return [number_term(key, value)]


def number_term(key: str, value: MetadataScalar | MetadataValue) -> str:
    """Return a term for a number of a key; such terms are ordered as the numbers are."""
    return f"{_key_prefix(key)}n{ordered_digits(float(cast(float, value)))}"


def ordered_digits(number: float) -> str:
    """Return 16 hexadecimal digits whose order is that of the numbers: the bits of a double, turned round
    where it is negative."""
    [bits] = struct.unpack(">Q", struct.pack(">d", number + 0.0))  # adding 0 makes -0.0 the same as 0.0
    ordered = bits ^ 0xFFFF_FFFF_FFFF_FFFF if bits >> 63 else bits | 1 << 63
    return f"{ordered:016x}"


def _key_prefix(key: str) -> str:
    return f"{len(key)}:{key}="  # the length, because a key may hold any character


def location_of(document: Document) -> Location:
    """A location of this engine carries its document. Only this module looks into one."""
    return Location(str(document.source["shard"]), cast(Any, document), 0)


def document_at(location: Location) -> Document:
    return cast(Document, location.view)
