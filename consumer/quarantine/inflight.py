"""What was being handled when the process died: `inflight.json` in a shard's directory.

The set needs no entry per record. Offsets are handled in order and the manifest says
what is committed, so after an unclean end the suspects are `[committed next offset,
inflight next offset)`. The file therefore changes once for each group of records that
is submitted, never at a commit: a commit empties the set by moving its lower end.

It is not fsynced: it must outlive the process, not the machine. A file that a power cut
left empty names nothing. Who is alone and who died is replaced by rename. The next offset
is overwritten in place, in one write that a kill cannot tear: it moves with every window,
and a rename waits for the journal that the commits' fsyncs keep busy (300 to 1,400 µs each,
an overwrite 30 to 40).
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from clip_index.storage.durable_files import replace_file

FILE_NAME = "inflight.json"
MAX_DEATHS = 3
_PAGE_BYTES = 4096  # a write within one page is whole or not begun, whatever kills the process
_PADDED_BYTES = 256

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class InFlight:
    """Everything below `next_offset` that is not committed may have been under way.

    `alone` is the offset being handled in quarantine, `deaths` counts the processes
    that each offset took with it while it was alone.
    """

    next_offset: int = 0
    alone: int | None = None
    deaths: Mapping[int, int] = field(default_factory=dict)

    def after_unclean_end(self, committed_next_offset: int) -> InFlight:
        """Count a death against what was alone, and forget what is committed."""
        deaths = dict(self.deaths)
        if self.alone is not None:
            deaths[self.alone] = deaths.get(self.alone, 0) + 1
        kept = {offset: count for offset, count in deaths.items() if offset >= committed_next_offset}
        return InFlight(self.next_offset, None, kept)

    def kills(self, offset: int) -> bool:
        return self.deaths.get(offset, 0) >= MAX_DEATHS


class InFlightClosed(Exception):
    """The shard is no longer ours, and with it the file: what is still under way ends unheard."""


class InFlightFile:
    """The in-flight set of one shard; thread-safe. Writing raises `OSError`, and `InFlightClosed`."""

    def __init__(self, path: Path, state: InFlight) -> None:
        self._path = path
        self._state = state
        self._lock = threading.Lock()
        self._is_closed = False

    @classmethod
    def recover(cls, shard_path: Path, committed_next_offset: int) -> InFlightFile:
        """Read what the former process left behind, and make the counted death durable."""
        path = shard_path / FILE_NAME
        found = read_inflight(path)
        state = found.after_unclean_end(committed_next_offset)
        recovered = cls(path, state)
        if state != found:
            recovered._write(state)
        return recovered

    @property
    def state(self) -> InFlight:
        return self._state

    def name(self, next_offset: int) -> None:
        """Everything below `next_offset` may be under way from now on."""
        if next_offset > self._state.next_offset:
            with self._owned():
                self._overwrite(replace(self._state, next_offset=next_offset))

    def mark_alone(self, offset: int) -> None:
        self._replace(alone=offset)

    def unmark_alone(self) -> None:
        self._replace(alone=None)

    def clear(self) -> None:
        """The process ends well: nothing is suspect."""
        with self._lock:
            self._path.unlink(missing_ok=True)
            self._state = InFlight()
            self._is_closed = True

    def close(self) -> None:
        """Write no more: from now on the file is the next owner's."""
        with self._lock:
            self._is_closed = True

    def _replace(self, *, alone: int | None) -> None:
        with self._owned():
            self._write(replace(self._state, alone=alone))

    @contextmanager
    def _owned(self) -> Iterator[None]:
        with self._lock:
            if self._is_closed:
                raise InFlightClosed
            yield

    def _overwrite(self, state: InFlight) -> None:
        """Write over a file of the same length; one of another length, or none, is replaced."""
        content = _content_from(state)
        if not _overwrite_page(self._path, content):
            self._write(state)
        self._state = state

    def _write(self, state: InFlight) -> None:
        replace_file(self._path, _content_from(state))
        self._state = state


def _content_from(state: InFlight) -> bytes:
    """JSON, padded so that the next state is as long."""
    content = {
        "next_offset": state.next_offset,
        "alone": state.alone,
        "deaths": {str(offset): count for offset, count in state.deaths.items()},
    }
    encoded = json.dumps(content).encode()
    return encoded.ljust(-(-len(encoded) // _PADDED_BYTES) * _PADDED_BYTES)


def _overwrite_page(path: Path, content: bytes) -> bool:
    """Replace the content of a file in one write; False where that is not possible.

    Opened and closed each time: network file systems pass a write on when the file is closed.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY)
    except FileNotFoundError:
        return False
    try:
        is_possible = len(content) <= _PAGE_BYTES and os.fstat(descriptor).st_size == len(content)
        return is_possible and os.pwrite(descriptor, content, 0) == len(content)
    finally:
        os.close(descriptor)


def read_inflight(path: Path) -> InFlight:
    """Read the file; one that is absent or unreadable names nothing."""
    try:
        content = json.loads(path.read_text())
        deaths = {int(offset): int(count) for offset, count in content["deaths"].items()}
        alone = content["alone"]
        return InFlight(int(content["next_offset"]), None if alone is None else int(alone), deaths)
    except FileNotFoundError:
        return InFlight()
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        _log.warning("in-flight set unreadable, nothing is suspect", path=str(path), error=str(error))
        return InFlight()
