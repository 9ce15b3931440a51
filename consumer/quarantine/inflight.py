"""Which records were in flight when a process died: `inflight.json` in a shard's directory.

The file has no entry for each record. Offsets are handled in order, and the manifest says what is
committed. So after an unclean end the suspects are `[committed next offset, in-flight next
offset)`. The file changes once for each group of records that is submitted, and never at a
commit, because a commit moves the lower end of that range.

The manifest may have gone back since: after a repair, or in a restored backup. So the file also says
what was committed when it was last written. What lies below that was handled once and is not suspect.

The file is not fsynced, because it must outlive the process, not the machine. If a power cut leaves
it empty, there are no suspects.

`alone` and `deaths` are replaced by a rename. `next_offset` changes with every window, so it is
overwritten in place, in one write that a kill cannot interrupt: a rename waits for the file
system's journal, which the fsyncs of commits keep busy (300 to 1,400 µs; an overwrite takes 30 to
40 µs). A file with a second hard link belongs to a backup too, and is replaced instead.

The index may lie in a bucket, where a write for each group would cost money and time. Then the file lies on
this machine, and `SharedInFlight` is a second one in the bucket. It is written once a death was found, and
at each record that is handled alone. So deaths count wherever the partition goes, while the first death of
a process is noticed only where its machine's file is: that directory must outlive the process.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import structlog

from clip_index.storage.durable_files import replace_file
from clip_index.storage.regular_files import open_regular, read_regular

FILE_NAME = "inflight.json"
MAX_DEATHS = 3
_PAGE_BYTES = 4096  # a kill cannot interrupt a write within one page
_PADDED_BYTES = 256
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class InFlight:
    """Every record below `next_offset` that is not committed may have been in flight.

    `alone` is the offset that is handled in quarantine. `deaths` says for an offset how many
    processes have died while it was alone. `committed` is what was committed when the file was written.
    """

    next_offset: int = 0
    alone: int | None = None
    deaths: Mapping[int, int] = field(default_factory=dict)
    committed: int = field(default=0, compare=False)

    def after_unclean_end(self, committed_next_offset: int) -> InFlight:
        """Count a death for the offset that was alone, and forget the deaths of committed offsets."""
        deaths = dict(self.deaths)
        if self.alone is not None:
            deaths[self.alone] = deaths.get(self.alone, 0) + 1
        kept = {offset: count for offset, count in deaths.items() if offset >= committed_next_offset}
        has_gone_back = committed_next_offset < self.committed
        next_offset = committed_next_offset if has_gone_back else self.next_offset
        return InFlight(next_offset, None, kept, committed_next_offset)

    def suspects(self, committed_next_offset: int) -> range:
        """The offsets that may have killed the process that left this file."""
        return range(max(self.committed, committed_next_offset), self.next_offset)

    def kills(self, offset: int) -> bool:
        return self.deaths.get(offset, 0) >= MAX_DEATHS


class SharedInFlight(Protocol):
    """The in-flight file that all machines see. Every method may raise `OSError`."""

    def read(self) -> bytes:
        """Return the file; `FileNotFoundError` if there is none."""
        ...

    def write(self, data: bytes) -> None: ...

    def remove(self) -> None: ...


class InFlightClosed(Exception):
    """The shard, and its in-flight file with it, is given away: this process must not write it any more."""


class InFlightFile:
    """The in-flight set of one shard. Thread-safe. Writing raises `OSError` or `InFlightClosed`."""

    def __init__(
        self,
        path: Path,
        state: InFlight,
        suspects: range = range(0),
        *,
        shared: SharedInFlight | None = None,
    ) -> None:
        self.suspects = suspects
        self._path = path
        self._shared = shared
        self._is_shared = False
        self._state = state
        self._committed = state.committed
        self._lock = threading.Lock()
        self._is_closed = False

    @classmethod
    def recover(
        cls, shard_path: Path, committed_next_offset: int, shared: SharedInFlight | None = None
    ) -> InFlightFile:
        """Read what the former process left, and write the counted death back before anything is handled.

        The shared file is written first, because it alone says which record was alone. A second call
        would otherwise count one death twice.
        """
        path = shard_path / FILE_NAME
        here, known = read_inflight(path), None if shared is None else _read_shared(shared)
        found = here if shared is None else _merged(here, known)
        state = found.after_unclean_end(committed_next_offset)
        suspects = found.suspects(committed_next_offset)
        recovered = cls(path, state, suspects, shared=shared)
        if known is not None or suspects or state.deaths:
            recovered._share(state)
        if state != here:
            recovered._write(state)
        return recovered

    @property
    def state(self) -> InFlight:
        return self._state

    def note_committed(self, next_offset: int) -> None:
        """Remember what is committed, for the next time that the file is written."""
        self._committed = next_offset

    def name(self, next_offset: int) -> None:
        """Say that every record below `next_offset` may be in flight from now on."""
        if next_offset > self._state.next_offset:
            with self._owned():
                self._overwrite(replace(self._state, next_offset=next_offset, committed=self._committed))

    def mark_alone(self, offset: int) -> None:
        self._replace(alone=offset)

    def unmark_alone(self) -> None:
        self._replace(alone=None)

    def clear(self) -> None:
        """Remove the file, because the process ends well and leaves no suspects."""
        with self._lock:
            if self._shared is not None and self._is_shared:
                self._shared.remove()
            self._path.unlink(missing_ok=True)
            self._state = InFlight()
            self._is_closed = True

    def close(self) -> None:
        """Stop writing, because the file belongs to the shard's next owner now."""
        with self._lock:
            self._is_closed = True

    def _replace(self, *, alone: int | None) -> None:
        with self._owned():
            state = replace(self._state, alone=alone)
            self._share(state)
            self._write(state)

    @contextmanager
    def _owned(self) -> Iterator[None]:
        with self._lock:
            if self._is_closed:
                raise InFlightClosed
            yield

    def _overwrite(self, state: InFlight) -> None:
        """Overwrite a file of the same length; replace a file of another length, or write a new one."""
        content = _content_from(state)
        if not _overwrite_page(self._path, content):
            self._write(state)
        self._state = state

    def _share(self, state: InFlight) -> None:
        if self._shared is not None:
            self._shared.write(_content_from(state))
            self._is_shared = True

    def _write(self, state: InFlight) -> None:
        replace_file(self._path, _content_from(state))
        self._state = state


def _content_from(state: InFlight) -> bytes:
    """JSON, padded so that the next state has the same length and can overwrite it."""
    content = {
        "next_offset": state.next_offset,
        "alone": state.alone,
        "committed": state.committed,
        "deaths": {str(offset): count for offset, count in state.deaths.items()},
    }
    encoded = json.dumps(content).encode()
    return encoded.ljust(-(-len(encoded) // _PADDED_BYTES) * _PADDED_BYTES)


def _overwrite_page(path: Path, content: bytes) -> bool:
    """Overwrite a file in one write; False where that is not possible.

    The file is opened and closed each time, because network file systems pass a write on when the
    file is closed.
    """
    try:
        descriptor = open_regular(path, os.O_WRONLY)
    except FileNotFoundError:
        return False
    try:
        status = os.fstat(descriptor)
        is_ours_alone = status.st_nlink == 1  # a hard link shows the file in a backup as well
        is_possible = is_ours_alone and len(content) <= _PAGE_BYTES and status.st_size == len(content)
        return is_possible and os.pwrite(descriptor, content, 0) == len(content)
    finally:
        os.close(descriptor)


def read_inflight(path: Path) -> InFlight:
    """Read the file. If it is absent or unreadable, there are no suspects.

    Raises `DamagedFile` if something else than a file lies there, which cannot be replaced by one.
    """
    try:
        return _state_from(read_regular(path))
    except FileNotFoundError:
        return InFlight()
    except _UNREADABLE as error:
        _log.warning("in-flight file unreadable: no suspects", path=str(path), error=str(error))
        return InFlight()


def _read_shared(shared: SharedInFlight) -> InFlight | None:
    try:
        return _state_from(shared.read())
    except FileNotFoundError:
        return None
    except _UNREADABLE as error:
        _log.warning("in-flight file unreadable: no suspects", path="shared", error=str(error))
        return None


def _merged(here: InFlight, shared: InFlight | None) -> InFlight:
    """Join what this machine knows and what all machines know.

    What was alone, and deaths, are always shared. What this machine says of them alone is left over from
    an earlier time at which the partition was here.
    """
    if shared is None:
        return InFlight(here.next_offset, None, {}, here.committed)
    next_offset = max(here.next_offset, shared.next_offset)
    return InFlight(next_offset, shared.alone, shared.deaths, max(here.committed, shared.committed))


def _state_from(data: bytes) -> InFlight:
    content = json.loads(data)
    deaths = {int(offset): int(count) for offset, count in content["deaths"].items()}
    alone = content["alone"]
    committed = int(content.get("committed", 0))  # former versions did not write it
    return InFlight(int(content["next_offset"]), None if alone is None else int(alone), deaths, committed)
