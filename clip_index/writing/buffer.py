"""Changes that a writer has added but not committed, folded by content id."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from pyroaring import BitMap

from clip_index.content import Change, EncodedContent, PatchedContent
from clip_index.fold import IdState, fold, takes_patch
from clip_index.patching import patched_facts
from clip_index.segments.columns import BufferedContent, RememberedDelete
from clip_index.writing.shard_state import KnownId, RowId


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
        self.read_bytes = 0
        """Roughly the bytes of the contents that were read again because patches apply to them."""

    def __contains__(self, content_id: str) -> bool:
        return content_id in self._pending

    @property
    def is_empty(self) -> bool:
        return not self._pending

    @property
    def dead(self) -> Mapping[str, BitMap]:
        """Committed rows that have died since the last commit, by segment."""
        return self._dead

    def apply(self, change: Change, known: KnownId, read_row: Callable[[RowId], EncodedContent]) -> bool:
        """Fold one change in; False if it does not apply.

        `known` is the committed state of its id. `read_row` reads a committed content and its embeddings.
        """
        pending = self._pending.get(change.content_id)
        before = pending.state if pending else known.state
        if isinstance(change, PatchedContent):
            return takes_patch(before) and self._patch(change, before, known, read_row)
        content = change if isinstance(change, EncodedContent) else None
        after = fold(before, version=change.version, is_delete=content is None)
        if after is None:
            return False
        if after == before and content is None:
            return True  # a delete of a deleted id: there is nothing to write
        self._replace(change.content_id, known, _Pending(after, change.offset, content))
        return True

    def _patch(
        self,
        patch: PatchedContent,
        state: IdState,
        known: KnownId,
        read_row: Callable[[RowId], EncodedContent],
    ) -> bool:
        """Write the content again with other facts: rows never change, and the newest one counts."""
        pending = self._pending.get(patch.content_id)
        content = pending.content if pending else read_row(_live_row(known))
        assert content is not None  # its id is live
        if pending is None:
            self.read_bytes += num_bytes_of(content)
        content = replace(content, offset=patch.offset, facts=patched_facts(content.facts, patch))
        self._replace(patch.content_id, known, _Pending(state, patch.offset, content))
        return True

    def _replace(self, content_id: str, known: KnownId, pending: _Pending) -> None:
        """Make a state pending. The row of the committed state dies with the first one."""
        if content_id not in self._pending and known.live_row is not None:
            self._dead.setdefault(known.live_row.segment_id, BitMap()).add(known.live_row.row)
        self._pending[content_id] = pending

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


def _live_row(known: KnownId) -> RowId:
    assert known.live_row is not None
    return known.live_row


def num_bytes_of(change: Change | None) -> int:
    """Return roughly how many bytes of memory a change takes."""
    if isinstance(change, PatchedContent):
        return 400 + 64 * len(change.metadata)
    if not isinstance(change, EncodedContent):
        return 200
    facts = change.facts
    variable = len(facts.text or "") + len(change.thumbnail or b"") + 64 * len(facts.metadata)
    return int(change.embeddings.nbytes) + variable + 400
