"""Ids that live in several shards, of which a searcher shows the newest content alone.

A content id belongs to one partition, its key's. Producers may yet send it to two: another partitioner
takes another partition for the same key, and a mapping may make the id of something else than the key.
Then each shard holds a live row of this id, and knows nothing of the other.

The ids of two segments are compared once, when the later one is opened. The small segments of a shard are
asked together whether they may share an id with it. Usually they share none, and no search pays anything.
Otherwise the older row counts as dead while the newer one lives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias
from weakref import WeakKeyDictionary, WeakSet, ref

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from clip_index.segments.id_table import have_common
from clip_index.segments.segment import Segment
from clip_index.views.segment_view import SegmentView
from clip_index.views.snapshot import ShardView, count_contents
from clip_index.views.tail import build_tails

_Rows: TypeAlias = NDArray[np.int64]
_ViewOf: TypeAlias = Mapping[Segment, SegmentView]
_OlderThan: TypeAlias = WeakKeyDictionary[Segment, tuple[_Rows, _Rows]]
"""Rows of one segment, by the segment that has newer ones, which stand beside them, (n,) each."""

_MAX_SMALL_ENTRIES = 1_000
_MIN_HASHES = 10_000


@dataclass(frozen=True, slots=True)
class _Masked:
    """What is shown of a segment: its view without the rows that are alive in the `newer` views."""

    view: SegmentView
    newer: tuple[SegmentView, ...]
    shown: SegmentView


class _KnownSegments:
    """The segments of one shard that were compared with those of the others.

    The hashes of the ids of all small ones stand in one sorted array, because a question to each of fifty
    small segments costs more than one to all. Hashes of segments that are gone stay there for a while.
    """

    def __init__(self) -> None:
        self._small: WeakSet[Segment] = WeakSet()
        self._large: WeakSet[Segment] = WeakSet()
        self._hashes = np.empty(0, np.uint64)
        self._max_hashes = _MIN_HASHES
        self._latest: list[ref[SegmentView]] = []

    def find_new(self, views: tuple[SegmentView, ...]) -> list[Segment]:
        """Return the segments of the shard's views that are not known; `add` makes them known.

        Most calls come because another shard has changed, and find the views of the call before. These are
        not kept alive, because they may be those of a former generation or of an index that was replaced.
        """
        latest = {id(view) for known in self._latest if (view := known()) is not None}
        changed = [view for view in views if id(view) not in latest]
        if changed:
            self._latest = list(map(ref, views))
        return [view.segment for view in changed if view.segment not in self]

    def __contains__(self, segment: Segment) -> bool:
        return segment in (self._small if _is_small(segment) else self._large)

    def add(self, segments: Sequence[Segment]) -> None:
        small = [segment for segment in segments if _is_small(segment)]
        self._small.update(small)
        self._large.update(segment for segment in segments if not _is_small(segment))
        self._add_hashes(small)
        if len(self._hashes) > self._max_hashes:
            self._hashes = np.empty(0, np.uint64)
            self._add_hashes(list(self._small))
            self._max_hashes = max(_MIN_HASHES, 2 * len(self._hashes))

    def _add_hashes(self, small: Sequence[Segment]) -> None:
        if small:
            hashes = [self._hashes, *(segment.id_hashes for segment in small)]
            self._hashes = np.sort(np.concatenate(hashes), kind="stable")

    def that_may_share_ids(self, segment: Segment) -> list[Segment]:
        """Return the segments that may have an id of this one."""
        small = self._small if have_common(segment.id_hashes, self._hashes) else ()
        return [*self._large, *small]


def _is_small(segment: Segment) -> bool:
    return segment.entry.num_entries <= _MAX_SMALL_ENTRIES


class DoubledIds:
    """Knows the ids that segments of different shards have in common. One thread owns it."""

    def __init__(self) -> None:
        self._known: list[_KnownSegments] = []  # for each shard
        self._older: WeakKeyDictionary[Segment, _OlderThan] = WeakKeyDictionary()
        self._shown: dict[str, ShardView] = {}
        self._masked: dict[Segment, _Masked] = {}

    def without_older(self, shards: Sequence[ShardView]) -> list[ShardView]:
        """Return the shards without the rows whose id has a newer live row in another shard.

        A shard without such rows is returned as it is. Of equally new rows the first shard's is shown.
        """
        self._compare_new_segments(shards)
        if not self._older:
            self._shown, self._masked = {}, {}
            return list(shards)
        view_of = {view.segment: view for shard in shards for view in shard.segments}
        former, self._masked = self._masked, {}
        shown = [self._without_older(shard, view_of, former) for shard in shards]
        self._shown = {
            shard.name: shard for shard, given in zip(shown, shards, strict=True) if shard is not given
        }
        return shown

    def _compare_new_segments(self, shards: Sequence[ShardView]) -> None:
        """Compare each new segment with all known ones of the other shards."""
        self._known += [_KnownSegments() for _ in range(len(shards) - len(self._known))]
        for known, shard in zip(self._known, shards, strict=False):
            new = known.find_new(shard.segments)
            if new:
                known.add(new)
            for segment in new:
                self._compare_with_others(segment, known)

    def _compare_with_others(self, segment: Segment, own_shard: _KnownSegments) -> None:
        is_behind = True  # equally new rows of earlier shards are shown
        for known in self._known:
            if known is own_shard:
                is_behind = False
                continue
            for other in known.that_may_share_ids(segment):
                self._compare(*((other, segment) if is_behind else (segment, other)))

    def _compare(self, first: Segment, second: Segment) -> None:
        """Note which rows of either are older than rows of the other; the first shard's win ties."""
        rows, other_rows = first.rows_in_common(second)
        if not len(rows):
            return
        is_older = second.recencies(other_rows).are_newer_than(first.recencies(rows))
        self._note(first, rows[is_older], second, other_rows[is_older])
        self._note(second, other_rows[~is_older], first, rows[~is_older])

    def _note(self, older: Segment, rows: _Rows, newer: Segment, newer_rows: _Rows) -> None:
        if len(rows):
            self._older.setdefault(older, WeakKeyDictionary())[newer] = (rows, newer_rows)

    def _without_older(
        self, shard: ShardView, view_of: _ViewOf, former: Mapping[Segment, _Masked]
    ) -> ShardView:
        segments = tuple(self._with_dead(view, view_of, former.get(view.segment)) for view in shard.segments)
        if segments == shard.segments:
            return shard
        known = self._shown.get(shard.name, shard)
        snapshot = replace(shard.snapshot, num_contents=count_contents(segments))
        tails = known.tails if segments == known.segments else build_tails(segments, shard.tails)
        return ShardView(shard.name, snapshot, segments, tails)

    def _with_dead(self, view: SegmentView, view_of: _ViewOf, former: _Masked | None) -> SegmentView:
        """Return a view whose older rows are dead: the former one, if the same rows are dead there.

        Nothing is computed where none of the views has changed that it was made of.
        """
        newer = self._newer_views(view.segment, view_of)
        if not newer:
            return view
        if former is None or former.view is not view or former.newer != newer:
            known = view if former is None else former.shown
            former = _Masked(view, newer, self._mask(view, newer, known))
        self._masked[view.segment] = former
        return former.shown

    def _newer_views(self, segment: Segment, view_of: _ViewOf) -> tuple[SegmentView, ...]:
        newer = self._older.get(segment, ())
        return tuple(view for one in newer if (view := view_of.get(one)) is not None)

    def _mask(self, view: SegmentView, newer: Sequence[SegmentView], known: SegmentView) -> SegmentView:
        older = [*self._older_rows(view.segment, newer)]
        if not older:
            return view
        dead = view.dead | BitMap(np.concatenate(older).astype(np.uint32))
        return known if known.dead == dead else SegmentView(view.segment, dead, known)

    def _older_rows(self, segment: Segment, newer: Sequence[SegmentView]) -> Iterator[_Rows]:
        """Yield the rows for which another segment has a newer one that is alive."""
        for view in newer:
            rows, newer_rows = self._older[segment][view.segment]
            are_beaten = view.are_eligible(newer_rows, None)
            if are_beaten.any():
                yield rows[are_beaten]
