"""Changes that a writer has added but not committed, folded by content id."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pyroaring import BitMap

from clip_index.content import Change, EncodedContent
from clip_index.fold import IdState, fold
from clip_index.segments.columns import BufferedContent, RememberedDelete
from clip_index.writing.shard_state import KnownId


@dataclass(frozen=True, slots=True)
class _Pending:
    state: IdState
    offset: int
    content: EncodedContent | None


class Buffer:
    """At most one pending state of each id, and the committed rows that these states kill."""

    def __init__(self) -> None:
        self._pending: dict[str, _Pending] = {}
        self._dead: dict[str, BitMap] = {}

    def __contains__(self, content_id: str) -> bool:
        return content_id in self._pending

    @property
    def is_empty(self) -> bool:
        return not self._pending

    @property
    def dead(self) -> Mapping[str, BitMap]:
        """Committed rows that have died since the last commit, by segment."""
        return self._dead

    def apply(self, change: Change, known: KnownId) -> bool:
        """Fold one change in; False if it does not apply. `known` is the committed state of its id."""
        pending = self._pending.get(change.content_id)
        before = pending.state if pending else known.state
        content = change if isinstance(change, EncodedContent) else None
        after = fold(before, version=change.version, is_delete=content is None)
        if after is None:
            return False
        if after == before and content is None:
            return True  # a delete of a deleted id: there is nothing to write
        if pending is None and known.live_row is not None:
            self._dead.setdefault(known.live_row.segment_id, BitMap()).add(known.live_row.row)
        self._pending[change.content_id] = _Pending(after, change.offset, content)
        return True

    def contents(self) -> list[BufferedContent]:
        return [BufferedContent(p.content, p.state.floor) for p in self._pending.values() if p.content]

    def deletes(self) -> list[RememberedDelete]:
        """Return the deletes that must be remembered, because their ids have a floor."""
        return [
            RememberedDelete(content_id, p.offset, p.state.floor)
            for content_id, p in self._pending.items()
            if p.content is None and p.state.floor is not None
        ]

    def follow_merge(self, merged_id: str, sources: Collection[str], dead: BitMap) -> None:
        """Replace the dead rows of `sources` by `dead`, their numbers in the merged segment."""
        for source in sources:
            self._dead.pop(source, None)
        if dead:
            self._dead[merged_id] = dead


def num_bytes_of(change: Change | None) -> int:
    """Return roughly how many bytes of memory a change takes."""
    if not isinstance(change, EncodedContent):
        return 200
    facts = change.facts
    variable = len(facts.text or "") + len(change.thumbnail or b"") + 64 * len(facts.metadata)
    return int(change.embeddings.nbytes) + variable + 400
