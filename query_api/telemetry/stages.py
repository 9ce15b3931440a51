"""The stages of one request, and the time that it spends in each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from aiohttp import web

from clip_index.content import Modality


@dataclass(frozen=True, slots=True)
class Interval:
    """One pass through a stage, by the clock of its `Stages`. `inside` are its parts."""

    name: str
    began: float
    ended: float
    attributes: Mapping[str, str] = field(default_factory=dict)
    inside: tuple[Interval, ...] = ()


class Stages:
    """Seconds spent in each stage of one request, in the order in which the stages began.

    The event loop writes it, and the one worker that the loop is waiting for; so there are never
    two writers at once. Single passes and their parts are kept only if `is_traced`.
    """

    __slots__ = ("_is_traced", "_parts", "_seconds", "began", "intervals", "now", "seconds_of_client")

    def __init__(self, clock: Callable[[], float] = time.perf_counter, *, is_traced: bool = False) -> None:
        self.now = clock
        self.began = clock()
        self.seconds_of_client = 0.0  # for which the client let the service wait for the body
        self.intervals: list[Interval] = []
        self._seconds: dict[str, float] = {}
        self._parts: list[Interval] = []
        self._is_traced = is_traced

    @property
    def search_observer(self) -> Stages | None:
        """What times each shard's part of a search; None if the request is not traced."""
        return self if self._is_traced else None

    def measure(self, stage: str) -> AbstractContextManager[None]:
        """Return a context that adds its time to a stage."""
        return _Measured(self, stage)

    def add(self, stage: str, began: float, ended: float) -> None:
        """Add one pass through a stage. The parts that were timed meanwhile become its parts."""
        self._seconds[stage] += ended - began
        if self._is_traced:
            self.intervals.append(Interval(stage, began, ended, inside=tuple(self._parts)))
            self._parts.clear()

    def begin(self, stage: str) -> float:
        """Note that a stage begins, which fixes its position among the stages; return the time."""
        self._seconds.setdefault(stage, 0.0)
        return self.now()

    @contextmanager
    def searching(self, shard: str, modality: Modality, /) -> Iterator[None]:
        """Time a shard's part of the stage that is being measured."""
        began = self.now()
        try:
            yield
        finally:
            attributes = {"cliptide.shard": shard, "cliptide.modality": modality}
            self._parts.append(Interval("search shard", began, self.now(), attributes))

    @property
    def seconds(self) -> Mapping[str, float]:
        return self._seconds

    def as_milliseconds(self) -> dict[str, float]:
        """Return `{"read_ms": 0.41, …}`, as answers carry it."""
        return {f"{stage}_ms": round(seconds * 1000, 3) for stage, seconds in self._seconds.items()}

    def as_server_timing(self) -> str:
        """Return the value of a `Server-Timing` header (durations in milliseconds)."""
        return ", ".join(f"{stage};dur={seconds * 1000:.3f}" for stage, seconds in self._seconds.items())


STAGES = web.RequestKey("stages", Stages)
REQUEST_ID = web.RequestKey("request_id", str)
HAS_ACCESS_LOG = web.AppKey("has_access_log", bool)
SLOW_SECONDS = web.AppKey("slow_seconds", float)  # a request that takes longer is logged


class _Measured(AbstractContextManager[None]):
    """One pass through a stage. Not a generator, which would cost three times as much."""

    __slots__ = ("_began", "_stage", "_stages")

    def __init__(self, stages: Stages, stage: str) -> None:
        self._stages = stages
        self._stage = stage

    def __enter__(self) -> None:
        self._began = self._stages.begin(self._stage)

    def __exit__(self, *_: object) -> None:
        self._stages.add(self._stage, self._began, self._stages.now())
