"""The generations that readers hold, so that garbage collection keeps their files.

On a local file system an open file outlives its removal. On a shared one a reader that has mapped it is
killed (SIGBUS) when another machine removes it. So a reader there names what it has open in a file of its
own in `readers/`, and renews the file. The files are no part of a generation.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Mapping

from clip_index.errors import DamagedFile
from clip_index.storage.shard_store import ShardStore

READERS = "readers"
RENEW_SECONDS = 30.0
LEAST_RETAINED_SECONDS = 2 * RENEW_SECONDS
"""What readers of a shared file system opened since the last renewal must be kept without a lease."""
LEASE_SECONDS = 300.0
"""A lease that is older counts no more: its reader has ended, or has hung for so long."""
MAX_HELD_SECONDS = 6 * 3600.0
"""For so long a lease holds a generation that is no longer the newest, so that no reader fills the disk."""
_LEASE = re.compile(r"[0-9a-f]{32}\.json")
_MAX_LEASES = 1000
_MAX_GENERATIONS = 100


def write_lease(store: ShardStore, reader_id: str, generations: Collection[int]) -> None:
    """Hold these generations for `LEASE_SECONDS` from now; `OSError` where the store takes no writes."""
    store.prepare((READERS,))
    held = sorted(generations)[-_MAX_GENERATIONS:]
    store.replace(f"{READERS}/{reader_id}.json", json.dumps({"generations": held}).encode())


def read_leases(store: ShardStore, now: float) -> set[int]:
    """Return the generations that readers hold. What cannot be understood holds nothing."""
    held: set[int] = set()
    for name, at in _newest_leases(store).items():
        if now - at < LEASE_SECONDS:
            held |= _read_lease(store, name)
    return held


def old_leases(store: ShardStore, now: float) -> list[str]:
    """Return the files of leases that count no more."""
    times = _times(store)
    return [f"{READERS}/{name}" for name, at in times.items() if now - at >= LEASE_SECONDS]


def generations_that_may_be_held(created_at: Mapping[int, float], now: float) -> set[int]:
    """Return the generations that were the newest within `MAX_HELD_SECONDS`."""
    ascending = sorted(created_at)
    successors = dict(itertools.pairwise(ascending))
    return {
        generation
        for generation in ascending
        if generation not in successors or now - created_at[successors[generation]] < MAX_HELD_SECONDS
    }


def _newest_leases(store: ShardStore) -> dict[str, float]:
    times = {name: at for name, at in _times(store).items() if _LEASE.fullmatch(name)}
    newest = sorted(times, key=lambda name: times[name], reverse=True)[:_MAX_LEASES]
    return {name: times[name] for name in newest}


def _times(store: ShardStore) -> Mapping[str, float]:
    try:
        return store.list_times(READERS)
    except DamagedFile:  # a link or a file in place of the folder
        return {}


def _read_lease(store: ShardStore, name: str) -> set[int]:
    try:
        document = json.loads(store.read(f"{READERS}/{name}"))
        return {one for one in document["generations"][:_MAX_GENERATIONS] if type(one) is int}
    except (DamagedFile, FileNotFoundError, RecursionError, ValueError, KeyError, TypeError):
        return set()
