"""Keeps a sample of the searches that people make, for `cliptide compare`: few, for some hours, in memory.

Queries can be personal. So none is kept unless the operator asks for it, none is written to a disk, and
only an admin key reads them. What is kept is what another model can be asked again: texts, content ids, and
weighted parts of both. Pictures and vectors are only counted.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from aiohttp import web

from query_api.search.request.models import Example, Query

MAX_KEPT_BYTES = 8192  # of one query as JSON; beyond 10,000 of them a sample tells nothing more
_FIELDS = frozenset({"text", "content_id", "terms", "modality", "filter"})
NotKept: TypeAlias = Literal["image", "vector", "large"]


@dataclass(frozen=True, slots=True)
class QuerySampleSettings:
    """Keep at most `max_queries` of the last `hours`; none if it is 0."""

    max_queries: int = 0
    hours: float = 24.0


@dataclass(frozen=True, slots=True)
class KeptQuery:
    """A query as a body of `/v1/search`; it stands for `weight` queries of its time."""

    body: dict[str, Any]
    weight: int
    asked_at: float


@dataclass(slots=True)
class QuerySample:
    """One of `_every` queries is kept. When the sample is full, half of it goes, and the others count twice.

    So the weights add up to about the number of queries, however many there are. Used by the event loop
    alone.
    """

    settings: QuerySampleSettings
    draw: random.Random = field(default_factory=random.Random)
    clock: Callable[[], float] = time.time
    not_kept: Counter[NotKept] = field(default_factory=Counter)
    _kept: list[KeptQuery] = field(default_factory=list)
    _every: int = 1

    def offer(self, query: Query) -> None:
        """Draw whether the query is kept. It takes less than a microsecond if not."""
        if self.settings.max_queries and self.draw.random() * self._every < 1:
            self._keep(query)

    def offer_text(self, text: str, **options: Any) -> None:
        """The same for a query that came in another form than that of `/v1/search`."""
        if self.settings.max_queries and self.draw.random() * self._every < 1:
            self._keep(Query(text=text, **options))

    def offer_picture(self) -> None:
        """Count a picture that came in another form than that of `/v1/search`."""
        if self.settings.max_queries:
            self.not_kept["image"] += 1

    def queries(self) -> Sequence[KeptQuery]:
        """Return what is kept and not too old, the oldest first."""
        self._forget_old()
        return tuple(self._kept)

    def _keep(self, query: Query) -> None:
        self._forget_old()
        body = _body_of(query)
        if isinstance(body, str):
            self.not_kept[body] += self._every
            return
        self._kept.append(KeptQuery(body, self._every, self.clock()))
        if len(self._kept) > self.settings.max_queries:
            self._halve()

    def _halve(self) -> None:
        kept = (one for one in self._kept if self.draw.random() < 0.5)
        self._kept = [KeptQuery(one.body, one.weight * 2, one.asked_at) for one in kept]
        self._every *= 2

    def _forget_old(self) -> None:
        """Forget what is too old. Where few are left, more of the next ones are kept."""
        least = self.clock() - self.settings.hours * 3600
        self._kept = [one for one in self._kept if one.asked_at >= least]
        if self._every > 1 and len(self._kept) < self.settings.max_queries / 4:
            self._every //= 2


def _body_of(query: Query) -> dict[str, Any] | NotKept:
    """Return what is kept of a query, or why nothing is."""
    parts: Sequence[Example] = (query, *(query.terms or ()))
    if any(part.image is not None for part in parts):
        return "image"
    if any(part.vector is not None for part in parts):
        return "vector"
    body = query.model_dump(mode="json", include=set(_FIELDS), exclude_defaults=True)
    return "large" if len(json.dumps(body)) > MAX_KEPT_BYTES else body


QUERY_SAMPLE: web.AppKey[QuerySample] = web.AppKey("query_sample", QuerySample)
