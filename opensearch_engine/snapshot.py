"""What a request holds of the index: how far each partition was, and the way to ask.

OpenSearch has no generation that covers all partitions at one moment. So `next_offset` is a lower
bound: an answer shows every change below it, and may show later ones.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings, Headline, LongFact, Modality, StoredContent
from clip_index.row_filter import Exists, RowFilter
from clip_index.searching.browsing import NewestContent, TimePosition
from clip_index.searching.value_counts import CountedField, ValueCounts
from clip_index.views.snapshot import Hit, Location, SearchObserver, ShardSnapshot
from opensearch_engine.connection import Json
from opensearch_engine.documents import (
    SHOWN_FIELDS,
    Document,
    content_from_document,
    document_at,
    document_id,
    embeddings_from_source,
    headline_from_document,
    location_of,
    thumbnail_from_source,
)
from opensearch_engine.errors import EngineUnavailable
from opensearch_engine.filters import live_contents
from opensearch_engine.index import OpenSearchIndex
from opensearch_engine.rankings import MAX_RESULTS, Ranked, copies_for, cosine_from_score, exact, nearest

T = TypeVar("T")
_MAX_EXACT = 20_000
"""How many contents are scored one by one for a ranking that the graph has answered with too few."""

_SEARCHED_TOGETHER = 32
_READ_TOGETHER = 100
_NEWEST_FIRST = [{"occurred_at_ms": "desc"}, {"shard": "asc"}, {"offset": "desc"}]


class StoredOffset(NamedTuple):
    """The offset of the last event of an id that applied, and whether its content is live."""

    shard: str
    content_id: str
    offset: int
    is_live: bool


class OpenSearchSnapshot:
    """Implements `Snapshot` of the query service. Thread-safe; its methods block, except for properties."""

    def __init__(
        self,
        index: OpenSearchIndex,
        shards: Mapping[str, ShardSnapshot],
        *,
        observer: SearchObserver | None = None,
    ) -> None:
        self._newcomers: tuple[Mapping[str, ShardSnapshot], NDArray[np.int64]] | None = None
        self._built: dict[Any, Any] = {}
        self._index = index
        self._observer = observer
        self.shards = shards
        self.dimension = index.description.fingerprint.dimension
        self.lineage: object = object()

    def observed_by(self, observer: SearchObserver | None) -> OpenSearchSnapshot:
        if observer is None:
            return self
        return OpenSearchSnapshot(self._index, self.shards, observer=observer)

    def search(
        self,
        queries: Embeddings,
        *,
        k: int,
        modality: Modality,
        min_score: float | None = None,
        row_filter: RowFilter | None = None,
        depth: int | None = None,
    ) -> list[list[Hit]]:
        if k < 1 or not len(queries):
            return [[] for _ in range(len(queries))]
        ranked = Ranked(modality, k, k if depth is None else max(k, depth), row_filter)
        vectors = [_vector(query) for query in queries]
        with self._searching(modality):
            answers = self._rank([nearest(vector, ranked) for vector in vectors], modality)
            for number in self._short(answers, ranked):
                [answers[number]] = self._rank([exact(vectors[number], ranked)], modality)
        least = -math.inf if min_score is None else min_score
        return [[hit for hit in hits if hit.score >= least][:k] for hits in answers]

    def search_exactly(
        self,
        queries: Embeddings,
        *,
        k: int,
        modality: Modality,
        row_filter: RowFilter | None = None,
        after_each: Callable[[float], object],
    ) -> list[list[Hit]]:
        """Have every content scored. `after_each` is told how long OpenSearch took, which is not our time."""
        ranked, answers = Ranked(modality, k, k, row_filter), []
        for query in queries:
            began = time.monotonic()
            answers += self._rank([exact(_vector(query), ranked)], modality)
            after_each(time.monotonic() - began)
        return [hits[:k] for hits in answers]

    def find(self, content_id: str) -> Location | None:
        """Return where a live content lies: the newest one if producers sent its id to several partitions."""
        live = [found for found in self._read_everywhere(content_id, SHOWN_FIELDS) if not found["dead"]]
        documents = [Document(_id_of(self._index, source), source) for source in live]
        newest = max(documents, key=lambda document: document.recency, default=None)
        return None if newest is None else location_of(newest)

    def floor(self, content_id: str) -> int | None:
        floors = [found["floor"] for found in self._read_everywhere(content_id, ("floor",))]
        return max((floor for floor in floors if floor is not None), default=None)

    def find_owner(self, owner_id: str) -> list[Location]:
        if not _is_unicode(owner_id):
            return []
        query = {"bool": {"filter": [live_contents(), {"term": {"owner_id": owner_id}}]}}
        return [location_of(document) for document in self._scan(query, _NEWEST_FIRST, SHOWN_FIELDS)]

    def newest(
        self,
        *,
        k: int,
        modality: Modality,
        row_filter: RowFilter | None = None,
        after: TimePosition | None = None,
    ) -> list[NewestContent]:
        body: Json = {"query": live_contents(modality, row_filter), "sort": _NEWEST_FIRST, "size": k}
        if after is not None:
            body["search_after"] = [after.occurred_at_ms, after.shard, after.offset]
        hits = self._search({**body, "_source": list(SHOWN_FIELDS), "track_total_hits": False})
        return [NewestContent(TimePosition(*hit["sort"]), location_of(_document(hit))) for hit in hits]

    def count_values(
        self, field: CountedField, row_filter: RowFilter | None = None, *, max_values: int
    ) -> ValueCounts:
        """Equal counts are in alphabetical order. The number of more than 40,000 values is estimated."""
        order = [{"_count": "desc"}, {"_key": "asc"}]
        terms = {"field": field, "size": max_values, "shard_size": 2 * max_values + 100, "order": order}
        body = {
            "query": live_contents(row_filter=row_filter),
            "size": 0,
            "aggs": {
                "values": {"terms": terms},
                "number": {"cardinality": {"field": field, "precision_threshold": 40_000}},
            },
        }
        found = self._ask(body)["aggregations"]
        values = tuple((one["key"], one["doc_count"]) for one in found["values"]["buckets"])
        return ValueCounts(values, found["number"]["value"])

    def has_field(self, field: str) -> bool:
        body = {"query": live_contents(row_filter=RowFilter((Exists(field),))), "size": 1, "_source": False}
        return bool(self._search({**body, "track_total_hits": False}))

    def sample(self, modality: Modality, num_contents: int) -> list[Location]:
        """Draw live contents with their embeddings. Offsets decide, so the draw is the same each time."""
        scored = {
            "function_score": {
                "query": live_contents(modality),
                "random_score": {"seed": 1, "field": "offset"},
                "boost_mode": "replace",
            }
        }
        size = min(num_contents, MAX_RESULTS)
        hits = self._search({"query": scored, "size": size, "_source": list(SHOWN_FIELDS)})
        documents = [_document(hit) for hit in sorted(hits, key=lambda hit: str(hit["_id"]))]
        return [location_of(document) for document in self._with_embeddings(documents)]

    def find_newcomers(self, former: Mapping[str, ShardSnapshot]) -> None:
        """Ask for the newcomers now, because the event loop will ask for them and must not wait."""
        self._newcomers = (former, self._occurrence_times(former))

    def newcomers_since(self, former: OpenSearchSnapshot) -> NDArray[np.int64]:
        """At most 10,000 are returned, which is enough for a measure of freshness."""
        if self._newcomers is not None and self._newcomers[0] == former.shards:
            return self._newcomers[1]
        return self._occurrence_times(former.shards)

    def _occurrence_times(self, former: Mapping[str, ShardSnapshot]) -> NDArray[np.int64]:
        ranges = []
        for name, shard in self.shards.items():
            since = former[name].next_offset if name in former else 0
            if shard.next_offset > since:
                offsets = {"range": {"offset": {"gte": since, "lt": shard.next_offset}}}
                ranges.append({"bool": {"filter": [{"term": {"shard": name}}, offsets]}})
        if not ranges:
            return np.empty(0, np.int64)
        query = {"bool": {"filter": [live_contents()], "should": ranges, "minimum_should_match": 1}}
        hits = self._search(
            {"query": query, "size": MAX_RESULTS, "_source": False, "docvalue_fields": ["occurred_at_ms"]}
        )
        return np.array([hit["fields"]["occurred_at_ms"][0] for hit in hits], np.int64)

    def read_many(
        self, locations: Iterable[Location], long_facts: Collection[LongFact]
    ) -> list[StoredContent]:
        """A content that was deleted or replaced meanwhile is read without its long facts."""
        documents = [document_at(location) for location in locations]
        if long_facts:
            documents = list(self._with_fields(documents, list(long_facts)))
        return [content_from_document(document, long_facts) for document in documents]

    def headlines(self, locations: Iterable[Location]) -> list[Headline]:
        return [headline_from_document(document_at(location)) for location in locations]

    def headlines_of_hits(self, hits: Iterable[Hit]) -> list[Headline]:
        return self.headlines(hit.location for hit in hits)

    def once(self, build: Callable[[OpenSearchSnapshot], T]) -> T:
        known: Any = self._built.get(build)
        if known is None:
            known = self._built[build] = build(self)
        built: T = known
        return built

    def embeddings(self, location: Location) -> Embeddings:
        """If the content was deleted meanwhile, this is an `EngineUnavailable`: who asks again finds none."""
        document = document_at(location)
        if document.embeddings is not None:
            return document.embeddings
        source = self._read_source(document, "vectors")
        if source is None:
            raise EngineUnavailable(f"{document.document_id}: the content has been deleted meanwhile")
        return embeddings_from_source(source)

    def thumbnail(self, location: Location) -> bytes | None:
        source = self._read_source(document_at(location), "thumbnail")
        return None if source is None else thumbnail_from_source(source)

    def stored_offsets(self) -> Iterator[StoredOffset]:
        """Yield what is stored of every id, deletes included, for a comparison with the log."""
        order = [{"shard": "asc"}, {"content_id": "asc"}]
        fields = ("shard", "content_id", "offset", "dead")
        for document in self._scan({"match_all": {}}, order, fields):
            source = document.source
            yield StoredOffset(source["shard"], document.content_id, source["offset"], not source["dead"])

    def _searching(self, modality: Modality) -> AbstractContextManager[None]:
        observer = self._observer
        return nullcontext() if observer is None else observer.searching(self._index.contents, modality)

    def _rank(self, bodies: Sequence[Json], modality: Modality) -> list[list[Hit]]:
        answers: list[list[Hit]] = []
        for start in range(0, len(bodies), _SEARCHED_TOGETHER):
            for hits in self._search_many(bodies[start : start + _SEARCHED_TOGETHER]):
                scored = [(_document(hit), cosine_from_score(hit["_score"])) for hit in hits]
                answers.append(_best_first(scored, modality))
        return answers

    def _short(self, answers: Sequence[list[Hit]], ranked: Ranked) -> list[int]:
        """Return which rankings hold fewer contents than exist, where so few exist that all can be scored."""
        short = [number for number, hits in enumerate(answers) if len(hits) < ranked.k]
        if not short:
            return []
        body = {"query": live_contents(ranked.modality, ranked.row_filter), "size": 0}
        found = self._ask({**body, "track_total_hits": _MAX_EXACT + 1})
        num_existing = int(found["hits"]["total"]["value"])
        if num_existing > _MAX_EXACT:
            return []
        return [number for number in short if len(answers[number]) < num_existing]

    def _search(self, body: Json) -> list[Json]:
        hits: list[Json] = self._ask(body)["hits"]["hits"]
        return hits

    def _ask(self, body: Json) -> Json:
        """Search; an answer without a part of the contents is an error."""
        whole = {"allow_partial_search_results": False, **self._preference}
        return self._index.connection.ask("POST", f"/{self._index.contents}/_search", body, **whole)

    def _search_many(self, bodies: Sequence[Json]) -> list[list[Json]]:
        lines = (line for body in bodies for line in (self._header(body), body))
        answer = self._index.connection.ask_lines(f"/{self._index.contents}/_msearch", lines)
        for one in answer["responses"]:
            if "error" in one:
                raise self._index.connection.error_of_part("a search failed", one["status"], one["error"])
        return [one["hits"]["hits"] for one in answer["responses"]]

    def _header(self, body: Json) -> Json:
        preference = self._index.preference or copies_for(body)
        return {"allow_partial_search_results": False, "preference": preference}

    @property
    def _preference(self) -> dict[str, str]:
        preference = self._index.preference
        return {} if preference is None else {"preference": preference}

    def _scan(self, query: Json, order: Sequence[Json], fields: Sequence[str]) -> Iterator[Document]:
        """Yield everything that a query finds, page by page, in an order in which no two are equal."""
        after: Json = {}
        while True:
            body = {"query": query, "sort": order, "size": 1000, "_source": list(fields), **after}
            hits = self._search(body)
            yield from map(_document, hits)
            if len(hits) < 1000:
                return
            after = {"search_after": hits[-1]["sort"]}

    def _read_everywhere(self, content_id: str, fields: Sequence[str]) -> list[Json]:
        """Return what every partition holds of an id, deletes included."""
        if not _is_unicode(content_id):
            return []
        ids = [document_id(p, content_id) for p in range(self._index.description.num_partitions)]
        found = self._read(ids, [*fields, "dead"])
        return [document["_source"] for document in found if document["found"]]

    def _read(self, ids: Sequence[str], fields: Iterable[str]) -> list[Json]:
        return self._index.connection.read_documents(
            self._index.contents, ids, _source_includes=",".join(fields), **self._preference
        )

    def _read_source(self, document: Document, field: str) -> Json | None:
        """Return a field of a document as it is now; None if the content is deleted."""
        [found] = self._read([document.document_id], [field, "dead"])
        return found["_source"] if found["found"] and not found["_source"]["dead"] else None

    def _with_fields(self, documents: Sequence[Document], fields: Sequence[str]) -> Iterator[Document]:
        for start in range(0, len(documents), _READ_TOGETHER):
            some = documents[start : start + _READ_TOGETHER]
            found = self._read([document.document_id for document in some], [*fields, "offset"])
            for document, answer in zip(some, found, strict=True):
                source = answer["_source"] if answer["found"] else {}
                is_same = source.pop("offset", None) == document.source["offset"]
                yield replace(document, source={**document.source, **source}) if is_same else document

    def _with_embeddings(self, documents: Sequence[Document]) -> Iterator[Document]:
        """Read the vectors of many documents; leave out those that were deleted meanwhile."""
        for document in self._with_fields(documents, ["vectors"]):
            if "vectors" in document.source:
                source = {name: value for name, value in document.source.items() if name != "vectors"}
                yield replace(document, source=source, embeddings=embeddings_from_source(document.source))


def _vector(query: Embeddings) -> list[float]:
    row: list[float] = query.astype(np.float64).round(9).tolist()
    return row


def _document(hit: Json) -> Document:
    return Document(str(hit["_id"]), hit["_source"])


def _id_of(index: OpenSearchIndex, source: Json) -> str:
    return document_id(index.partition_of(source["shard"]), source["content_id"])


def _best_first(scored: Iterable[tuple[Document, float]], modality: Modality) -> list[Hit]:
    """Keep the newest of each content id; order by score, equal scores by content id."""
    newest: dict[str, tuple[Document, float]] = {}
    for document, score in scored:
        known = newest.get(document.content_id)
        if known is None or document.recency > known[0].recency:
            newest[document.content_id] = (document, score)
    hits = [
        Hit(content_id, score, modality, location_of(document))
        for content_id, (document, score) in newest.items()
    ]
    return sorted(hits, key=lambda hit: (-hit.score, hit.content_id))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
