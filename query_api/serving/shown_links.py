"""A reader whose contents show their links in another form, such as signed addresses of a private bucket.

It stands between the engine and everything above, so every answer shows such links.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings, LongFact, Modality, StoredContent
from clip_index.row_filter import RowFilter
from query_api.serving.engine import (
    CountedField,
    FileDigest,
    GenerationKey,
    Headline,
    Hit,
    Index,
    Location,
    NewestContent,
    Reader,
    SearchObserver,
    ShardSnapshot,
    Snapshot,
    TimePosition,
    TracedRecord,
    ValueCounts,
)

ShownLinks: TypeAlias = Callable[[Sequence[str | None]], Sequence[str | None]]
"""Returns the links to show in place of the stored ones, in their order. Blocking, thread-safe."""

T = TypeVar("T")


class LinkShowingReader:
    """Implements `Reader` over another one."""

    def __init__(self, reader: Reader, shown_links: ShownLinks) -> None:
        self._reader = reader
        self._shown_links = shown_links
        self._searcher: LinkShowingSnapshot | None = None

    @property
    def index(self) -> Index | None:
        return self._reader.index

    @property
    def searcher(self) -> Snapshot | None:
        """One object as long as the other reader has one, because snapshots are compared by identity."""
        inner, known = self._reader.searcher, self._searcher
        if inner is None:
            return None
        if known is None or known.inner is not inner:
            known = self._searcher = LinkShowingSnapshot(inner, self._shown_links)
        return known

    @property
    def lease_failure(self) -> str | None:
        return self._reader.lease_failure

    def may_have_news(self) -> bool:
        return self._reader.may_have_news()

    def reload(self) -> bool:
        return self._reader.reload()

    def close(self) -> None:
        self._reader.close()

    def open_former(self, generations: Mapping[str, GenerationKey]) -> Snapshot:
        return LinkShowingSnapshot(self._reader.open_former(generations), self._shown_links)

    def read_traces(self, shard: str) -> Sequence[TracedRecord]:
        return self._reader.read_traces(shard)

    def served_files(self) -> Mapping[Path, FileDigest]:
        return self._reader.served_files()

    def mend(self, path: Path) -> bool:
        return self._reader.mend(path)


class LinkShowingSnapshot:
    """Implements `Snapshot` over another one."""

    def __init__(self, inner: Snapshot, shown_links: ShownLinks) -> None:
        self.inner = inner
        self._built: dict[Callable[[LinkShowingSnapshot], object], object] = {}
        self._shown_links = shown_links

    @property
    def dimension(self) -> int:
        return self.inner.dimension

    @property
    def shards(self) -> Mapping[str, ShardSnapshot]:
        return self.inner.shards

    @property
    def lineage(self) -> object:
        return self.inner.lineage

    def observed_by(self, observer: SearchObserver | None) -> Snapshot:
        observed = self.inner.observed_by(observer)
        return self if observed is self.inner else LinkShowingSnapshot(observed, self._shown_links)

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
        return self.inner.search(
            queries, k=k, modality=modality, min_score=min_score, row_filter=row_filter, depth=depth
        )

    def search_exactly(
        self,
        queries: Embeddings,
        *,
        k: int,
        modality: Modality,
        row_filter: RowFilter | None = None,
        after_each: Callable[[float], object],
    ) -> list[list[Hit]]:
        return self.inner.search_exactly(
            queries, k=k, modality=modality, row_filter=row_filter, after_each=after_each
        )

    def find(self, content_id: str) -> Location | None:
        return self.inner.find(content_id)

    def floor(self, content_id: str) -> int | None:
        return self.inner.floor(content_id)

    def find_owner(self, owner_id: str) -> list[Location]:
        return self.inner.find_owner(owner_id)

    def newest(
        self,
        *,
        k: int,
        modality: Modality,
        row_filter: RowFilter | None = None,
        after: TimePosition | None = None,
    ) -> list[NewestContent]:
        return self.inner.newest(k=k, modality=modality, row_filter=row_filter, after=after)

    def count_values(
        self, field: CountedField, row_filter: RowFilter | None = None, *, max_values: int
    ) -> ValueCounts:
        return self.inner.count_values(field, row_filter, max_values=max_values)

    def has_field(self, field: str) -> bool:
        return self.inner.has_field(field)

    def sample(self, modality: Modality, num_contents: int) -> list[Location]:
        return self.inner.sample(modality, num_contents)

    def newcomers_since(self, former: LinkShowingSnapshot) -> NDArray[np.int64]:
        return self.inner.newcomers_since(former.inner)

    def read_many(
        self, locations: Iterable[Location], long_facts: Collection[LongFact]
    ) -> list[StoredContent]:
        """Read contents, with the links that are to be shown."""
        contents = self.inner.read_many(locations, long_facts)
        links = [content.facts.link for content in contents]
        return [
            content
            if shown == content.facts.link
            else replace(content, facts=replace(content.facts, link=shown))
            for content, shown in zip(contents, self._shown_links(links), strict=True)
        ]

    def headlines(self, locations: Iterable[Location]) -> list[Headline]:
        """Read what every answer shows, with the links that are to be shown."""
        return self._with_shown_links(self.inner.headlines(locations))

    def headlines_of_hits(self, hits: Iterable[Hit]) -> list[Headline]:
        """Read the same of hits, with the links that are to be shown."""
        return self._with_shown_links(self.inner.headlines_of_hits(hits))

    def _with_shown_links(self, found: Sequence[Headline]) -> list[Headline]:
        shown = self._shown_links([one.link for one in found])
        return [
            one if link == one.link else one._replace(link=link)
            for one, link in zip(found, shown, strict=True)
        ]

    def once(self, build: Callable[[LinkShowingSnapshot], T]) -> T:
        known: Any = self._built.get(build)
        if known is None:
            known = self._built[build] = build(self)
        built: T = known
        return built

    def embeddings(self, location: Location) -> Embeddings:
        return self.inner.embeddings(location)

    def thumbnail(self, location: Location) -> bytes | None:
        return self.inner.thumbnail(location)
