"""From a query's embedding to hits, on one searcher. Blocking: runs in a worker."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias
from urllib.parse import quote

import structlog
from pydantic_core import to_json

from clip_index.content import LONG_FACTS, MODALITIES, LongFact, Modality, StoredContent, unit_mean
from clip_index.reading.searcher import Searcher
from clip_index.reading.snapshot import Hit, Location
from clip_index.row_filter import AnyOf, RowFilter
from query_api.contents.index_models import ContentFields
from query_api.contract.models import Include, ShardCoverage, rfc_time
from query_api.errors import ApiError
from query_api.search.models import RankingOptions, RatedOptions
from query_api.search.query_embedding import QueryEmbedding
from query_api.search.ranking import Ask, Selected, find_all
from query_api.search.rating import RatedHit, bound, mix, rate
from query_api.telemetry.stages import Stages

log = structlog.get_logger()

Written: TypeAlias = dict[str, Any]
"""A part of an answer as it is written. Answers of many hits are not built of models first, which
would cost more than all else about them; tests hold them to the models that document them."""


def search(searcher: Searcher, query: QueryEmbedding, options: RatedOptions, stages: Stages) -> bytes:
    """Search, read the hits' columns and return the answer as JSON."""
    with stages.measure("search"):
        found = find_all(searcher.observed_by(stages.search_observer), build_rated_asks(query, options))
    return _answer_of(searcher, query, _by_modality(found, options), options, stages)


def _answer_of(
    searcher: Searcher,
    query: QueryEmbedding,
    found: Mapping[Modality, Selected],
    options: RatedOptions,
    stages: Stages,
) -> bytes:
    with stages.measure("columns"):
        results = build_results(searcher, query, found, options)
    return write_answer({"results": results}, searcher, stages)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request's search, when several requests are searched for in one call."""

    query: QueryEmbedding
    options: RatedOptions
    stages: Stages


def search_each(searcher: Searcher, asked: Sequence[Asked]) -> list[bytes | Exception]:
    """Search for several requests together, and answer each by itself or say why it fails.

    Should the common search fail, each is made alone: nobody pays for another's request.
    """
    if len(asked) > 1:
        try:
            return [*_search_for_all(searcher, asked)]
        except Exception:
            log.exception("shared search failed", searches=len(asked))
    return [_search_alone(searcher, one) for one in asked]


def _search_for_all(searcher: Searcher, asked: Sequence[Asked]) -> list[bytes]:
    began = [one.stages.begin("search") for one in asked]
    found = iter(
        find_all(searcher, [ask for one in asked for ask in build_rated_asks(one.query, one.options)])
    )
    for one, moment in zip(asked, began, strict=True):
        one.stages.add("search", moment, one.stages.now())
    return [
        _answer_of(searcher, one.query, _by_modality(found, one.options), one.options, one.stages)
        for one in asked
    ]


def _search_alone(searcher: Searcher, asked: Asked) -> bytes | Exception:
    try:
        return search(searcher, asked.query, asked.options, asked.stages)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is raised where it was asked)
        return error


def search_together(
    searcher: Searcher, queries: Sequence[tuple[QueryEmbedding, RatedOptions]], stages: Stages
) -> bytes:
    """Answer several queries in order, as JSON."""
    with stages.measure("search"):
        asks = [ask for query, options in queries for ask in build_rated_asks(query, options)]
        found = iter(find_all(searcher.observed_by(stages.search_observer), asks))
    with stages.measure("columns"):
        answers = [
            {"results": build_results(searcher, query, _by_modality(found, options), options)}
            for query, options in queries
        ]
    return write_answer({"answers": answers}, searcher, stages)


def write_answer(answer: Written, searcher: Searcher, stages: Stages) -> bytes:
    """Add to an answer what each carries, and write it as JSON."""
    coverage = {"snapshot": build_snapshot(searcher), "timings": stages.as_milliseconds()}
    return to_json(answer | coverage, inf_nan_mode="null")


def build_asks(query: QueryEmbedding, options: RankingOptions) -> list[Ask]:
    """One ranking for each modality that is asked for."""
    return [
        Ask(
            query,
            modality,
            options.k,
            min_score=options.min_score,
            row_filter=options.filter.as_row_filter() if options.filter else None,
            is_collapsing=options.collapse_identical,
        )
        for modality in modalities_of(options)
    ]


def build_rated_asks(query: QueryEmbedding, options: RatedOptions) -> list[Ask]:
    """The same, where a least percentile may be asked for."""
    asks = build_asks(query, options)
    if options.min_percentile is None:
        return asks
    return [bound(ask, options.min_percentile) for ask in asks]


def without_owner(row_filter: RowFilter | None, owner_id: str | None) -> RowFilter | None:
    """Let the filter leave out what an owner uploaded, too; of None nothing."""
    if owner_id is None:
        return row_filter
    wanted = row_filter or RowFilter()
    return replace(wanted, must_not=(*wanted.must_not, AnyOf("owner_id", (owner_id,))))


def modalities_of(options: RankingOptions) -> tuple[Modality, ...]:
    return (options.modality,) if options.modality else MODALITIES


def build_results(
    searcher: Searcher, query: QueryEmbedding, found: Mapping[Modality, Selected], options: RatedOptions
) -> dict[str, Written]:
    """Write the hits of each modality, or those of all in one ranking."""
    if not options.by_modality:
        ranked = mix(query, found)[: options.k]
        return {"all": {"hits": _write_rated(searcher, ranked, options.include)}}
    results: dict[str, Written] = {}
    for modality, selected in found.items():
        rated = rate(query, modality, selected.hits)
        results[modality] = {"hits": _write_rated(searcher, rated, options.include)}
    return results


def _write_rated(
    searcher: Searcher, rated: Sequence[RatedHit], include: Collection[Include]
) -> list[Written]:
    written = build_hits(searcher, [hit for hit, _ in rated], include)
    for fields, (_, percentile) in zip(written, rated, strict=True):
        if percentile is not None:
            fields["percentile"] = percentile
    return written


def _by_modality(found: Iterable[Selected], options: RankingOptions) -> dict[Modality, Selected]:
    """Take as many answers as there are modalities asked for."""
    return dict(zip(modalities_of(options), found, strict=False))


def query_like_content(searcher: Searcher, content_id: str) -> QueryEmbedding:
    """Ask by a content's own embedding and leave it out itself; `unknown_content` if it is not live."""
    location = locate(searcher, content_id)
    [stored] = searcher.read_many([location], ())
    embedding = unit_mean(searcher.embeddings(location))
    return QueryEmbedding(embedding, frozenset({content_id}), stored.modality)


def locate(searcher: Searcher, content_id: str) -> Location:
    location = searcher.find(content_id)
    if location is None:
        raise ApiError("unknown_content", "there is no live content with this id")
    return location


def build_hits(searcher: Searcher, hits: Sequence[Hit], include: Collection[Include]) -> list[Written]:
    """Read what the answer shows of each hit, the fields of a `HitAnswer`, and no more."""
    written = read_headlines(searcher, [hit.location for hit in hits], include)
    for hit, fields in zip(hits, written, strict=True):
        fields["score"] = hit.score
    return written


def read_headlines(
    searcher: Searcher, locations: Sequence[Location], include: Collection[Include]
) -> list[Written]:
    """Read the fields of a `ContentHeadline` for each location."""
    facts: list[LongFact] = [fact for fact in LONG_FACTS if fact in include]
    stored = searcher.read_many(locations, facts)
    written = [_write_headline(content) for content in stored]
    if include:
        for location, content, headline in zip(locations, stored, written, strict=True):
            headline.update(_included(searcher, location, content, include))
    return written


def _write_headline(content: StoredContent) -> Written:
    return {
        "content_id": content.content_id,
        "modality": content.modality,
        "source": content.facts.source,
        "owner_id": content.facts.owner_id,
        "occurred_at": rfc_time(content.facts.occurred_at_ms),
        "link": content.facts.link,
        "version": content.version,
    }


def _included(
    searcher: Searcher, location: Location, content: StoredContent, include: Collection[Include]
) -> Written:
    included: Written = {}
    if "text" in include:
        included["text"] = content.facts.text
    if "metadata" in include:
        included["metadata"] = content.facts.metadata
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


def read_content(searcher: Searcher, content_id: str, include: Collection[str]) -> ContentFields:
    """Return all that is kept of a live content; `unknown_content` if there is none."""
    location = locate(searcher, content_id)
    stored = searcher.read(location)
    vector = {"vector": unit_mean(searcher.embeddings(location)).tolist()} if "vector" in include else {}
    return ContentFields(
        content_id=stored.content_id,
        modality=stored.modality,
        source=stored.facts.source,
        owner_id=stored.facts.owner_id,
        occurred_at=rfc_time(stored.facts.occurred_at_ms),
        link=stored.facts.link,
        version=stored.version,
        text=stored.facts.text,
        metadata=dict(stored.facts.metadata),
        offset=stored.offset,
        **vector,
    )


def build_snapshot(searcher: Searcher) -> dict[str, ShardCoverage]:
    """Say what a searcher covers, shard by shard."""
    return {
        name: ShardCoverage(
            generation=shard.generation,
            next_offset=shard.next_offset,
            watermark=None if shard.watermark_ms is None else rfc_time(shard.watermark_ms),
        )
        for name, shard in searcher.shards.items()
    }
