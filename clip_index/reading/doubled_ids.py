"""Ids that live in several shards, of which a searcher shows the newest content alone.

A content id belongs to one partition, its key's. Producers may yet send it to two: another partitioner
takes another partition for the same key, and a mapping may make the id of something else than the key.
Then each shard holds a live row of this id, and knows nothing of the other.

The ids of two segments are compared once, when the later one is opened. Usually they have none in
common, and no search pays anything. Otherwise the older row counts as dead while the newer one lives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias
from weakref import WeakKeyDictionary, WeakSet, ref

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from clip_index.reading.segment_view import SegmentView
from clip_index.reading.snapshot import ShardView, count_contents
from clip_index.reading.tail import build_tails
from clip_index.segments.segment import Segment

_Rows: TypeAlias = NDArray[np.int64]
_ViewOf: TypeAlias = Mapping[Segment, SegmentView]


class _OlderRows:
    """Rows of one segment that are older than the rows of another, which stand beside them, (n,) each."""

    def __init__(self, rows: _Rows, newer_rows: _Rows) -> None:
        self._rows = rows
        self._newer_rows = newer_rows
        self._looked_at: ref[SegmentView] | None = None
        self._beaten = BitMap()

    def beaten_by(self, newer: SegmentView) -> BitMap:
        """Return the rows whose newer row is alive. Each view of the newer segment is looked at once."""
        if self._looked_at is None or self._looked_at() is not newer:
            are_beaten = newer.are_eligible(self._newer_rows, None)
            self._beaten = BitMap(self._rows[are_beaten].astype(np.uint32))
            self._looked_at = ref(newer)
        return self._beaten


class DoubledIds:
    """Knows the ids that segments of different shards have in common. One thread owns it."""

    def __init__(self) -> None:
        self._known: list[WeakSet[Segment]] = []  # for each shard
        self._older: WeakKeyDictionary[Segment, WeakKeyDictionary[Segment, _OlderRows]] = WeakKeyDictionary()
        self._shown: dict[str, ShardView] = {}

    def without_older(self, shards: Sequence[ShardView]) -> list[ShardView]:
        """Return the shards without the rows whose id has a newer live row in another shard.

        A shard without such rows is returned as it is. Of equally new rows the first shard's is shown.
        """
        self._compare_new_segments(shards)
        view_of = {view.segment: view for shard in shards for view in shard.segments}
        shown = [self._without_older(shard, view_of) for shard in shards]
        self._shown = {
            shard.name: shard for shard, given in zip(shown, shards, strict=True) if shard is not given
        }
        return shown

    def _compare_new_segments(self, shards: Sequence[ShardView]) -> None:
        """Compare each new segment with all known ones of the other shards."""
        self._known += [WeakSet() for _ in range(len(shards) - len(self._known))]
        for known, shard in zip(self._known, shards, strict=False):
            new = [view.segment for view in shard.segments if view.segment not in known]
            known.update(new)
            for segment in new:
                self._compare_with_others(segment, known)

    def _compare_with_others(self, segment: Segment, own_shard: WeakSet[Segment]) -> None:
        is_behind = True  # equally new rows of earlier shards are shown
        for known in self._known:
            if known is own_shard:
                is_behind = False
                continue
            for other in known:
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
            self._older.setdefault(older, WeakKeyDictionary())[newer] = _OlderRows(rows, newer_rows)

    def _without_older(self, shard: ShardView, view_of: _ViewOf) -> ShardView:
        known = self._shown.get(shard.name, shard)
        known_views = {view.segment: view for view in known.segments}
        segments = tuple(
            self._with_dead(view, known_views.get(view.segment, view), view_of) for view in shard.segments
        )
        if segments == shard.segments:
            return shard
        snapshot = replace(shard.snapshot, num_contents=count_contents(segments))
        tails = known.tails if segments == known.segments else build_tails(segments, shard.tails)
        return ShardView(shard.name, snapshot, segments, tails)

    def _with_dead(self, view: SegmentView, known: SegmentView, view_of: _ViewOf) -> SegmentView:
        """Return a view whose older rows are dead: the known one, if the same rows are dead there."""
        dead = view.dead
        for newer, older in self._older.get(view.segment, {}).items():
            if newer in view_of:
                dead = dead | older.beaten_by(view_of[newer])
        if dead == view.dead:
            return view
        return known if known.dead == dead else SegmentView(view.segment, dead, known)
