"""What must hold before an index may serve, and waiting until the services serve it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clip_index.errors import IndexRefused
from clip_index.generations.inspection import Inspection
from clip_index.indexes.index_directory import IndexDirectory
from cliptide.reindexing.comparing import ComparisonRequest, compare
from cliptide.reindexing.shard_gaps import described, read_gaps, read_next_offsets
from cliptide.searching.query_client import QueryClient, QueryServiceAway, QueryServiceError
from cliptide.terminal.waiting import tell

_POLL_SECONDS = 0.5


class SwitchRefused(IndexRefused):
    """The index may not serve; the sentence names the numbers."""


def refuse_damaged(index: IndexDirectory) -> None:
    """Verify every file of the newest generation of each shard. A shard without one is no damage."""
    for partition in range(index.description.num_partitions):
        newest = next(Inspection(index.shard_store(partition)).newest_first(), None)
        if newest is not None and newest.damage is not None:
            raise SwitchRefused(
                f"the index {index.index_id} is damaged: {newest.damage}; `cliptide snapshot repair "
                f"--index-id {index.index_id}` goes back to what is good"
            )


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Waits until an index has caught up with another one; `pause` and `clock` are those of a test."""

    patience_seconds: float
    pause: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def wait(self, index: IndexDirectory, served: IndexDirectory) -> None:
        """Wait until each shard covers what the served index covered at the call; else `SwitchRefused`."""
        wanted, until = read_next_offsets(served), self.clock() + self.patience_seconds
        while True:
            gaps = read_gaps(index, wanted)
            num_behind = sum(gap.num_behind for gap in gaps)
            if not num_behind:
                return
            if self.clock() >= until:
                raise SwitchRefused(
                    f"the index {index.index_id} is {num_behind:,} records behind {served.index_id} "
                    f"({described(gaps)}): wait for its consumer, `cliptide reindex --index-id "
                    f"{index.index_id} --watch` shows how far it is"
                )
            self.pause(_POLL_SECONDS)


def refuse_low_quality(
    request: ComparisonRequest, min_overlap: float | None, min_recall: float | None
) -> None:
    """Ask both indexes; `SwitchRefused` if the figures are below the given ones, or cannot be measured."""
    result = compare(request)
    for name, found, least in (
        (f"overlap@{request.k}", result.comparison.overlap, min_overlap),
        ("recall@10", result.recall, min_recall),
    ):
        if least is None:
            continue
        if found is None:
            raise SwitchRefused(f"no query has an answer by which the {name} could be measured")
        if found < least:
            raise SwitchRefused(
                f"the {name} of {request.second_id} is {found:.3f}, below {least:g}: `cliptide compare "
                f"{request.first_id} {request.second_id} --gallery FILE` shows what differs"
            )


def refuse_where_it_cannot_be_served(index_id: str, services: Sequence[QueryClient]) -> None:
    """Ask each service whether it could serve the index; `SwitchRefused` names the first that could not."""
    for service in services:
        state, reason = service.candidate(index_id)
        if state in ("impossible", "failed"):
            raise SwitchRefused(f"the query service at {service.url} cannot serve {index_id}: {reason}")


@dataclass(frozen=True, slots=True)
class ServiceWatch:
    """Waits until query services serve an index."""

    patience_seconds: float
    pause: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    say: Callable[[str], None] = tell

    def wait(self, index_id: str, services: Sequence[QueryClient]) -> list[str]:
        """Return what went wrong, one sentence for each service that does not serve the index."""
        until = self.clock() + self.patience_seconds
        troubles = (self._wait_for(index_id, service, until) for service in services)
        return [trouble for trouble in troubles if trouble is not None]

    def _wait_for(self, index_id: str, service: QueryClient, until: float) -> str | None:
        trouble = f"does not serve {index_id} after {self.patience_seconds:g} s"
        while self.clock() < until:
            try:
                state, reason = service.candidate(index_id)
            except QueryServiceAway as error:
                trouble = str(error)
            except QueryServiceError as error:
                return f"{service.url}: {error}"
            else:
                if state == "served":
                    self.say(f"{service.url} serves {index_id}")
                    return None
                if state in ("failed", "impossible"):
                    return f"{service.url} cannot serve {index_id}: {reason}"
            self.pause(_POLL_SECONDS)
        return f"{service.url}: {trouble}"
