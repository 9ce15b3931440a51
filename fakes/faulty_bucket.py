"""A bucket whose requests fail as those of real stores do, at the request that a test chooses."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TypeVar

from clip_index.storage.buckets.object_bucket import ObjectBucket, ObjectFacts
from clip_index.storage.regular_files import MAX_DOCUMENT_BYTES
from clip_index.storage.shard_store import StoreUnreachable

_ResultT = TypeVar("_ResultT")


class Fault(Enum):
    """What happens to one request."""

    NOT_DONE = "unavailable, nothing done"
    DONE_THEN_UNAVAILABLE = "done, then unavailable"
    CONFLICT = "exists, nothing stored"
    DONE_THEN_EXISTS = "done, then exists: the answer was lost and the request repeated"
    LATE = "unavailable, and done before the next request but one"
    SLOW = "slow: another process acts before it is done"
    WRONG_BYTES = "an error's text, as long as the bytes that were asked for"
    NO_LISTING = "an error's text, which the client takes for an empty listing"
    OLD_LISTING = "listings show for some requests what was there some requests before"
    HIDDEN = "another process acts before it is done, and listings do not show it for some requests"


_OF_CONDITIONAL_PUTS = (Fault.CONFLICT, Fault.DONE_THEN_EXISTS)
_OF_READS = (Fault.WRONG_BYTES, Fault.NO_LISTING, Fault.OLD_LISTING)
_OLD_REQUESTS = 8
_ERROR = b'<?xml version="1.0"?><Error><Code>InternalError</Code></Error>'


class FaultyBucket(ObjectBucket):
    """Passes requests on to another bucket, and lets the request of one number fail.

    `meanwhile` acts as another process where the fault is `SLOW` or `HIDDEN`. It must use the other bucket.
    """

    def __init__(
        self, inner: ObjectBucket, number: int, fault: Fault, meanwhile: Callable[[], None] | None = None
    ) -> None:
        super().__init__(inner._store, inner.url)
        self._inner = inner
        self._number = number
        self._fault = fault
        self._meanwhile = meanwhile
        self._late: list[tuple[int, Callable[[], object]]] = []
        self._old: Mapping[str, ObjectFacts] = {}
        self.num_requests = 0

    @property
    def has_failed(self) -> bool:
        return self.num_requests >= self._number

    def put(self, key: str, data: bytes) -> None:
        self._request(lambda: self._inner.put(key, data))

    def put_if_absent(self, key: str, data: bytes) -> None:
        self._request(lambda: self._inner.put_if_absent(key, data), is_conditional=True)

    def upload(self, key: str, path: Path) -> None:
        data = path.read_bytes()  # a late upload may begin when the file is gone
        self._request(lambda: self._inner.put(key, data))

    def get(self, key: str, max_bytes: int = MAX_DOCUMENT_BYTES) -> bytes:
        return self._wrong(self._request(lambda: self._inner.get(key, max_bytes)))

    def chunks(self, key: str) -> Iterator[bytes]:
        return iter([self._wrong(b"".join(self._request(lambda: list(self._inner.chunks(key)))))])

    def chunks_of_range(self, key: str, start: int, end: int) -> Iterator[bytes]:
        found = self._request(lambda: list(self._inner.chunks_of_range(key, start, end)))
        return iter([self._wrong(b"".join(found))])

    def facts_of(self, key: str) -> ObjectFacts:
        return self._request(lambda: self._inner.facts_of(key))

    def delete(self, keys: Sequence[str]) -> None:
        self._request(lambda: self._inner.delete(keys))

    def list_level(self, prefix: str) -> list[str]:
        found = self._request(lambda: self._inner.list_level(prefix))
        if self._lists_nothing:
            return []
        if not self._lists_old:
            return found
        return sorted({_below(key, prefix).split("/")[0] for key in self._old_below(prefix)})

    def list_all(self, prefix: str) -> Mapping[str, ObjectFacts]:
        found = self._request(lambda: self._inner.list_all(prefix))
        if self._lists_nothing:
            return {}
        return self._old_below(prefix) if self._lists_old else found

    @property
    def _lists_nothing(self) -> bool:
        return self._fault is Fault.NO_LISTING and self.num_requests == self._number

    @property
    def _lists_old(self) -> bool:
        is_now = self._number <= self.num_requests < self._number + _OLD_REQUESTS
        return is_now and self._fault in (Fault.OLD_LISTING, Fault.HIDDEN)

    def _old_below(self, prefix: str) -> Mapping[str, ObjectFacts]:
        return {key: facts for key, facts in self._old.items() if not prefix or key.startswith(f"{prefix}/")}

    def _wrong(self, data: bytes) -> bytes:
        """Return other bytes if this is the request that is answered so."""
        if self._fault is not Fault.WRONG_BYTES or self.num_requests != self._number:
            return data
        return (_ERROR * (len(data) // len(_ERROR) + 1))[: len(data)]

    def _request(self, action: Callable[[], _ResultT], *, is_conditional: bool = False) -> _ResultT:
        self.num_requests += 1
        self._do_late()
        if self.num_requests == self._number - _OLD_REQUESTS and self._fault is Fault.OLD_LISTING:
            self._old = self._inner.list_all("")
        if self.num_requests != self._number or self._fault in _OF_READS:
            return action()
        fault = self._fault
        if fault in _OF_CONDITIONAL_PUTS and not is_conditional:
            fault = Fault.NOT_DONE
        return self._fail(fault, action)

    def _fail(self, fault: Fault, action: Callable[[], _ResultT]) -> _ResultT:
        if fault in (Fault.SLOW, Fault.HIDDEN):
            self._old = self._inner.list_all("")
            if self._meanwhile is not None:
                self._meanwhile()
            return action()
        if fault is Fault.LATE:
            self._late.append((self.num_requests + 2, action))
        if fault in (Fault.DONE_THEN_UNAVAILABLE, Fault.DONE_THEN_EXISTS):
            action()
        if fault in _OF_CONDITIONAL_PUTS:
            raise FileExistsError(errno.EEXIST, "said the store")
        raise StoreUnreachable(errno.EHOSTUNREACH, fault.value)

    def _do_late(self) -> None:
        due = [action for number, action in self._late if number <= self.num_requests]
        self._late = [one for one in self._late if one[0] > self.num_requests]
        for action in due:
            try:
                action()
            except OSError:
                continue  # nobody waits for its answer any more


def _below(key: str, prefix: str) -> str:
    return key.removeprefix(prefix).lstrip("/")
