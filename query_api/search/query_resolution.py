"""From what a request names to embeddings: texts and pictures through the encoder, ids from the index."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import web

from query_api.encoding.query_encoder import QUERY_ENCODER
from query_api.search import retrieval
from query_api.search.models import Example, Query, Term
from query_api.search.query_embedding import QueryEmbedding, combined_embedding, embedding_from_numbers
from query_api.serving.engine import Snapshot
from query_api.serving.workers import WORKERS


async def embed_all(
    request: web.Request, searcher: Snapshot, queries: Sequence[Query]
) -> list[QueryEmbedding]:
    """Embed several queries; what must be encoded is encoded together. `ApiError` for the first bad one."""
    if all(query.vector is not None for query in queries):  # no need for a task each
        return [await embed_query(request, searcher, query) for query in queries]
    return list(await asyncio.gather(*(embed_query(request, searcher, query) for query in queries)))


async def embed_query(request: web.Request, searcher: Snapshot, query: Query) -> QueryEmbedding:
    if query.terms is None:
        return await embed_example(request, searcher, query)
    return combine(await embed_terms(request, searcher, query.terms), [term.weight for term in query.terms])


async def embed_terms(
    request: web.Request, searcher: Snapshot, terms: Sequence[Term]
) -> list[QueryEmbedding]:
    return list(await asyncio.gather(*(embed_example(request, searcher, term) for term in terms)))


def combine(parts: Sequence[QueryEmbedding], weights: Sequence[float]) -> QueryEmbedding:
    """Ask by a weighted sum; none of the contents that it was made of is answered."""
    embedding = combined_embedding([part.embedding for part in parts], weights)
    return QueryEmbedding(embedding, frozenset().union(*(part.excluded_ids for part in parts)))


async def embed_example(request: web.Request, searcher: Snapshot, example: Example) -> QueryEmbedding:
    """`unknown_content` for an id without a live content, `ContentRefused` for what cannot be encoded."""
    encoder = request.app[QUERY_ENCODER]
    if example.text is not None:
        return QueryEmbedding(await encoder.encode_text(example.text), modality="text")
    if example.image is not None:
        return QueryEmbedding(await encoder.encode_image(example.image), modality="image")
    if example.vector is not None:
        return QueryEmbedding(embedding_from_numbers(example.vector, encoder.fingerprint.dimension))
    return await request.app[WORKERS].run(retrieval.query_like_content, searcher, example.content_id or "")
