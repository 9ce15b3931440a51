"""The embed step: what the queries of a request name becomes embeddings."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from clip_index.content import unit_mean
from query_api.answers.headlines import locate
from query_api.encoding.query_encoder import QueryEncoder
from query_api.errors import ApiError
from query_api.percentiles.renewal import PercentileScales
from query_api.search.ranking.query_embedding import QueryEmbedding, combined_query, embedding_from_numbers
from query_api.search.request.models import Example, Query, Term
from query_api.search.request.options import RatedOptions
from query_api.serving.engine import Snapshot
from query_api.serving.workers import Workers


@dataclass(frozen=True, slots=True)
class QueryResolver:
    """Embeds one request's queries: texts and pictures in the encoder, content ids from the searcher.

    Its methods raise `ApiError` (unknown_content) for an id without a live content, and `ContentRefused`
    for a text or a picture that cannot be encoded.
    """

    searcher: Snapshot
    encoder: QueryEncoder
    workers: Workers

    async def embed_all(self, queries: Sequence[Query]) -> list[QueryEmbedding]:
        """Embed several queries, so that they are encoded together. The first bad one fails all."""
        if all(query.vector is not None for query in queries):  # nothing to wait for, so no tasks
            return [await self.embed(query) for query in queries]
        return list(await asyncio.gather(*(self.embed(query) for query in queries)))

    async def embed(self, query: Query) -> QueryEmbedding:
        if query.terms is None:
            return await self.embed_example(query)
        return await self._embed_terms(query.terms)

    async def _embed_terms(self, terms: Sequence[Term]) -> QueryEmbedding:
        parts = await asyncio.gather(*(self.embed_example(term) for term in terms))
        return combined_query(parts, [term.weight for term in terms])

    async def embed_example(self, example: Example) -> QueryEmbedding:
        if example.text is not None:
            return QueryEmbedding(await self.encoder.encode_text(example.text), modality="text")
        if example.image is not None:
            return QueryEmbedding.of_picture(await self.encoder.encode_content(example.image))
        if example.vector is not None:
            return QueryEmbedding(embedding_from_numbers(example.vector, self.encoder.fingerprint.dimension))
        return await self.workers.run(embed_like_content, self.searcher, example.content_id or "")


def embed_like_content(searcher: Snapshot, content_id: str) -> QueryEmbedding:
    """Look for what is like a content, and leave out the content itself. Blocking."""
    location = locate(searcher, content_id)
    [stored] = searcher.read_many([location], ())
    embeddings = searcher.embeddings(location)
    if stored.modality == "image":
        return QueryEmbedding.of_picture(embeddings, frozenset({content_id}))
    return QueryEmbedding(unit_mean(embeddings), frozenset({content_id}), stored.modality)


def with_scales(
    query: QueryEmbedding, options: RatedOptions, known: PercentileScales | None
) -> QueryEmbedding:
    """Add the scales by which the query's hits get their percentiles, as far as there are any.

    Raises `ApiError` (percentiles_off, not_ready) if the options need percentiles and there are none.
    """
    if known is None and options.needs_percentiles:
        raise ApiError("percentiles_off", "this service rates no hits by percentile")
    scales = known.find(query.modality) if known else {}
    if scales is None and options.needs_percentiles:
        message = "the scales for percentiles are not built yet"
        raise ApiError("not_ready", message, headers={"Retry-After": "1"})
    return replace(query, scales=scales) if scales else query
