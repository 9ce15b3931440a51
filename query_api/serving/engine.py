"""The seam to the engine: what the service needs of an index and of its reader, and no more.

The modules above import the engine's values from here. Only `query_api/opened_index.py` builds a reader, and
`query_api/root_candidates.py` says of which index. So another engine is one that has these methods.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from clip_index.content import LONG_FACTS, Embeddings, Headline, LongFact, Modality, StoredContent
from clip_index.generations.manifest import GenerationKey
from clip_index.generations.traces import TracedRecord
from clip_index.guarantees import Guarantees
from clip_index.indexes.canaries import KeptCanaries, library_versions
from clip_index.indexes.index_directory import IndexDescription
from clip_index.row_filter import RowFilter
from clip_index.searching.browsing import NewestContent, TimePosition
from clip_index.searching.value_counts import CountedField, ValueCounts
from clip_index.storage.file_digest import FileDigest, verify_slowly
from clip_index.views.snapshot import Hit, Location, SearchObserver, ShardSnapshot

if TYPE_CHECKING:
    from clip_index.reading.index_reader import IndexReader
    from clip_index.searching.searcher import Searcher
    from opensearch_engine.reader import OpenSearchReader
    from opensearch_engine.snapshot import OpenSearchSnapshot

__all__ = [
    "LONG_FACTS",
    "CountedField",
    "FileDigest",
    "GenerationKey",
    "Guarantees",
    "Headline",
    "Hit",
    "Index",
    "IndexDescription",
    "KeptCanaries",
    "Location",
    "LongFact",
    "NewestContent",
    "Reader",
    "SearchObserver",
    "ShardSnapshot",
    "Snapshot",
    "TimePosition",
    "TracedRecord",
    "ValueCounts",
    "library_versions",
    "verify_slowly",
]

T = TypeVar("T")


class Snapshot(Protocol):
    """One generation of each shard: what a request holds from its beginning to its answer.

    It is immutable and thread-safe. Its methods block, except for the two properties. A `Location`
    belongs to the snapshot that returned it; only its `shard` has a meaning outside.
    """

    @property
    def dimension(self) -> int: ...

    @property
    def shards(self) -> Mapping[str, ShardSnapshot]:
        """What is covered of each shard, by the shard's name."""
        ...

    @property
    def lineage(self) -> object:
        """The same object for snapshots of which the first search takes hardly longer than later ones.

        What each of them has beside the one before is small, and was read just now.
        """
        ...

    def observed_by(self, observer: SearchObserver | None) -> Snapshot:
        """Return the same snapshot, whose searches tell the observer of each shard's part."""
        ...

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
        """Return the k best live contents of each query (q, dimension), best first.

        There are fewer only if fewer exist, reach `min_score` and pass the filter. Equal scores are
        ordered by content id.
        With the same `depth`, the answer to a smaller k begins the answer to a greater one, up to that
        many hits.
        """
        ...

    def search_exactly(
        self,
        queries: Embeddings,
        *,
        k: int,
        modality: Modality,
        row_filter: RowFilter | None = None,
        after_each: Callable[[float], object],
    ) -> list[list[Hit]]:
        """Return the k best live contents of each query, and leave out nothing to save time.

        The search is made in parts. `after_each` is told the CPU seconds of each part, and may rest.
        """
        ...

    def find(self, content_id: str) -> Location | None:
        """Return where a live content lies, None if there is none."""
        ...

    def floor(self, content_id: str) -> int | None:
        """Return the greatest version seen of an id, live or deleted; None without any."""
        ...

    def find_owner(self, owner_id: str) -> list[Location]:
        """Return all live contents of an owner."""
        ...

    def newest(
        self,
        *,
        k: int,
        modality: Modality,
        row_filter: RowFilter | None = None,
        after: TimePosition | None = None,
    ) -> list[NewestContent]:
        """Return the k live contents that occurred last, the latest first; with `after` those behind it."""
        ...

    def count_values(
        self, field: CountedField, row_filter: RowFilter | None = None, *, max_values: int
    ) -> ValueCounts:
        """Return how many live contents have each value of a field, the most frequent values first."""
        ...

    def has_field(self, field: str) -> bool:
        """Whether a live content has a value of the field, such as `metadata.colour`; blocking."""
        ...

    def sample(self, modality: Modality, num_contents: int) -> list[Location]:
        """Draw live contents at random; the same snapshot gives the same sample."""
        ...

    def newcomers_since(self, former: Self) -> NDArray[np.int64]:
        """Return `occurred_at_ms` of every content that `former` did not cover yet, shape (n,)."""
        ...

    def read_many(
        self, locations: Iterable[Location], long_facts: Collection[LongFact]
    ) -> list[StoredContent]:
        """Read contents in the given order; `long_facts` names the long facts to read beside the others."""
        ...

    def headlines(self, locations: Iterable[Location]) -> list[Headline]:
        """Read what every answer shows of contents, in the given order."""
        ...

    def headlines_of_hits(self, hits: Iterable[Hit]) -> list[Headline]:
        """Read the same of hits of this snapshot, which have their ids and modalities already."""
        ...

    def once(self, build: Callable[[Self], T]) -> T:
        """Return what `build` makes of this snapshot. It is made once and kept with the snapshot."""
        ...

    def embeddings(self, location: Location) -> Embeddings:
        """Return a content's embeddings, shape (windows, dimension)."""
        ...

    def thumbnail(self, location: Location) -> bytes | None:
        """Return the thumbnail that is kept of a content, a WebP file."""
        ...


class Index(Protocol):
    """An index that exists."""

    @property
    def index_id(self) -> str: ...

    @property
    def description(self) -> IndexDescription: ...

    @property
    def guarantees(self) -> Guarantees: ...
    def read_canaries(self) -> KeptCanaries | None:
        """Return what the index's canaries were encoded to when it was begun; None if it has none.

        Blocking. Raises `ClipIndexError` or `OSError`.
        """
        ...


class Reader(Protocol):
    """Follows the newest generations of one index. One thread at a time calls its methods."""

    @property
    def index(self) -> Index | None:
        """The index, None until there is one."""
        ...

    @property
    def searcher(self) -> Snapshot | None:
        """The newest snapshot, None until one could be opened."""
        ...

    @property
    def lease_failure(self) -> str | None:
        """Why another machine may remove what is served; None while it is held, or need not be."""
        ...

    def may_have_news(self) -> bool:
        """Whether a `reload` might switch to other generations, as far as a cheap look can tell.

        Any thread may call this, also beside `reload`. False is only a hint, so that `reload` must be
        called from time to time even then. Raises `ClipIndexError` or `OSError`, as `reload` then does.
        """
        ...

    def reload(self) -> bool:
        """Switch to the current generations; True if other ones are served now than before.

        Raises `ClipIndexError` or `OSError`. Shards that can be read have moved on even then.
        """
        ...

    def close(self) -> None:
        """Give up what this machine keeps for the reader. Any thread may call this, when nobody uses it."""
        ...

    def open_former(self, generations: Mapping[str, GenerationKey]) -> Snapshot:
        """Open just these generations, one of each shard; `GenerationGone` if one is no longer kept."""
        ...

    def read_traces(self, shard: str) -> Sequence[TracedRecord]:
        """Return the latest sampled records of a shard, in the order of their commits; blocking."""
        ...

    def served_files(self) -> Mapping[Path, FileDigest]:
        """Return the local files that are served, for reading them again; none if the engine has none."""
        ...

    def mend(self, path: Path) -> bool:
        """Fetch a damaged local copy of a served file again; False if it is the only one there is.

        The next reload opens the new copy. Any thread may call this.
        """
        ...


if TYPE_CHECKING:  # mypy refuses these lines as soon as an engine no longer fits the seam
    _SNAPSHOTS: tuple[type[Snapshot], ...] = (Searcher, OpenSearchSnapshot)
    _READERS: tuple[type[Reader], ...] = (IndexReader, OpenSearchReader)
