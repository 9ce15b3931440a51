"""Opaque, signed cursors: everything that the next page needs, whichever process answers it.

A cursor holds the query's embedding (of a wide picture one for each crop), the generations of the first
page by number and digest, the options, and the last hit of each modality. The query is not encoded again,
because the size of an encoder's batch slightly changes the embedding. A cursor is the base64url of an
HMAC-SHA-256 and of the JSON that it signs.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import math
from dataclasses import asdict

import numpy as np
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clip_index.content import Embeddings, Modality
from clip_index.encoder.picture_crops import GREATEST_MAX_CROPS
from query_api.errors import ApiError
from query_api.search.paging.pages import Page
from query_api.search.ranking.query_embedding import QueryEmbedding
from query_api.search.ranking.ranking_requests import MAX_DEPTH, PageEnd
from query_api.search.request.models import MAX_TERMS
from query_api.search.request.options import RatedOptions
from query_api.serving.engine import GenerationKey, IndexDescription

CURSOR_KEY: web.AppKey[str | None] = web.AppKey("cursor_key")

_DIGEST_BYTES = hashlib.sha256().digest_size


class _Payload(BaseModel):
    """What a cursor holds, under the names that the cursors of clients carry already."""

    model_config = ConfigDict(extra="forbid")

    embedding: str
    excluded_ids: list[str] = Field(max_length=MAX_TERMS, fail_fast=True)
    asked_by: Modality | None
    options: RatedOptions
    generations: dict[str, GenerationKey] = Field(fail_fast=True)
    places: dict[Modality, PageEnd | None] = Field(fail_fast=True)


def cursor_key(configured: str | None, description: IndexDescription) -> bytes:
    """Return the key that all processes of one index share.

    Without a configured key it is derived from the index's description. That detects accidents, but
    whoever knows the description can sign cursors. A cursor gives no access that a search does not give.
    """
    if configured is not None:
        return configured.encode()
    return json.dumps(asdict(description), sort_keys=True).encode()


def write_cursor(page: Page, key: bytes) -> str:
    payload = _Payload(
        embedding=base64.b64encode(page.query.searched.astype("<f4").tobytes()).decode(),
        excluded_ids=sorted(page.query.excluded_ids),
        asked_by=page.query.modality,
        options=page.options,
        generations=dict(page.generations),
        places=dict(page.ends),
    )
    signed = payload.model_dump_json(exclude_defaults=True).encode()
    return base64.urlsafe_b64encode(_digest(signed, key) + signed).decode()


def read_cursor(cursor: str, key: bytes, dimension: int) -> Page:
    """Return the page that a cursor stands for; `bad_cursor` if this index's services did not write it."""
    try:
        decoded = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise _bad_cursor() from None
    digest, signed = decoded[:_DIGEST_BYTES], decoded[_DIGEST_BYTES:]
    if not hmac.compare_digest(digest, _digest(signed, key)):
        raise _bad_cursor()
    try:
        payload = _Payload.model_validate_json(signed)
    except ValidationError:
        message = "this cursor is of another release of the service; begin again without a cursor"
        raise ApiError("bad_cursor", message) from None
    if any(end is not None and not _is_possible(end) for end in payload.places.values()):
        raise _bad_cursor()
    searched, excluded_ids = _read_embeddings(payload.embedding, dimension), frozenset(payload.excluded_ids)
    if len(searched) == 1:
        query = QueryEmbedding(searched[0], excluded_ids, payload.asked_by)
    else:
        query = QueryEmbedding.of_picture(searched, excluded_ids)
    return Page(query, payload.options, payload.generations, payload.places)


def is_cursor_of(cursor: str, description: IndexDescription, configured: str | None) -> bool:
    """Whether the services of another index wrote the cursor."""
    try:
        read_cursor(cursor, cursor_key(configured, description), description.fingerprint.dimension)
    except ApiError:
        return False
    return True


def _is_possible(end: PageEnd) -> bool:
    return 0 < end.num_before < MAX_DEPTH and math.isfinite(end.score)


def _read_embeddings(text: str, dimension: int) -> Embeddings:
    """Read one embedding, or those of a picture's crops, (crops, dimension).

    Even signed ones are checked, because the derived key is not secret.
    """
    try:
        numbers = np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)
    except ValueError:
        raise _bad_cursor() from None
    num_crops, rest = divmod(len(numbers), dimension)
    if rest or not 1 <= num_crops <= GREATEST_MAX_CROPS or not np.isfinite(numbers).all():
        raise _bad_cursor()
    return numbers.reshape(num_crops, dimension)


def _digest(signed: bytes, key: bytes) -> bytes:
    return hmac.new(key, b"cliptide cursor 1\n" + signed, hashlib.sha256).digest()


def _bad_cursor() -> ApiError:
    return ApiError("bad_cursor", "this is not a cursor of this index")
