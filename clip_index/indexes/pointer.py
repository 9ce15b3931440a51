"""Which index of a root serves: files `current-<n>.json`, of which the one with the greatest number counts.

A file is created once and never replaced, so the files are also the history of what served. Each names the
file to return to, so a rollback undoes one switch, and a second rollback undoes the switch before it.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from uuid import uuid4

from clip_index.errors import DamagedFile, DamagedIndexFile, IndexMissing, IndexRefused
from clip_index.storage.digested_json import dump_digested
from clip_index.storage.parsed_files import read_digested
from clip_index.storage.shard_store import CreationUnknown, ShardStore

INDEX_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAME = re.compile(r"current-(\d{1,18})\.json", re.ASCII)
_NAME_ANEW = "`cliptide snapshot repair` writes it anew; until then name the index with CLIPTIDE_INDEX__ID"


@dataclass(frozen=True, slots=True)
class Pointer:
    """One file: since `named_at_ms` the index `index_id` has served.

    `returns_to` is the number of the pointer that a rollback repeats; None if there was nothing before.
    """

    number: int
    index_id: str
    named_at_ms: int | None = None
    returns_to: int | None = None


def read_pointer(top: ShardStore) -> Pointer:
    """Return the pointer that counts. Raises `IndexMissing` without one, or `DamagedIndexFile`."""
    number = newest_number(top)
    if not number:
        raise IndexMissing(f"no index in {top.address} yet")
    try:
        return _read(top, number)
    except DamagedFile as damage:
        raise DamagedIndexFile(damage.file, damage.detail, way_on=_NAME_ANEW) from damage


class PointerReader:
    """Reads the pointer of a root again and again. Any thread may call this.

    A listing that is older than the last one, as network file systems and some stores answer for some
    seconds, takes nothing back. A root that was replaced does: then the known file is gone.
    """

    def __init__(self) -> None:
        self._known: Pointer | None = None

    def read(self, top: ShardStore) -> Pointer:
        """Do what `read_pointer` does."""
        known = self._known
        try:
            found = read_pointer(top)
        except IndexMissing:
            if known is None or not _is_still_there(top, known):
                raise
            return known
        if known is not None and found.number < known.number and _is_still_there(top, known):
            return known
        self._known = found
        return found


def _is_still_there(top: ShardStore, known: Pointer) -> bool:
    try:
        return _read(top, known.number) == known
    except (FileNotFoundError, DamagedFile):
        return False


def newest_number(top: ShardStore) -> int:
    """Return the greatest number of a pointer, 0 if there is none."""
    return max(_numbers(top), default=0)


def read_history(top: ShardStore) -> list[Pointer]:
    """Return all pointers that can be read, the oldest first."""
    history = []
    for number in sorted(_numbers(top)):
        try:
            history.append(_read(top, number))
        except DamagedFile:
            continue  # only the newest one decides what serves, and whoever reads that one is told
    return history


def name_current(top: ShardStore, index_id: str, *, after: int) -> Pointer:
    """Let an index serve from now on, as the pointer that follows number `after`.

    Raises `IndexRefused` if that number is taken, because somebody else has named an index meanwhile.
    """
    return _create(top, Pointer(after + 1, index_id, _now_ms(), returns_to=after or None))


def name_former(top: ShardStore) -> Pointer:
    """Let the index serve again that served before the newest switch; `IndexRefused` if there was none."""
    former, current = find_former(top), read_pointer(top)
    return _create(top, Pointer(current.number + 1, former.index_id, _now_ms(), former.returns_to))


def find_former(top: ShardStore) -> Pointer:
    """Return the pointer that a rollback repeats; `IndexRefused` if no other index served before."""
    current = read_pointer(top)
    if current.returns_to is None:
        raise IndexRefused(f"no index served before {current.index_id}, so there is none to return to")
    try:
        return _read(top, current.returns_to)
    except FileNotFoundError:
        address = top.address_of(_name(current.returns_to))
        raise IndexRefused(f"{address} named the index to return to, and is gone") from None


def dump_first(index_id: str) -> tuple[str, bytes]:
    """Return name and bytes of the pointer that the first index of a root gets."""
    return _name(1), dump_digested({"index_id": index_id})


def _create(top: ShardStore, pointer: Pointer) -> Pointer:
    name = _name(pointer.number)
    fields = {
        "index_id": pointer.index_id,
        "named_at_ms": pointer.named_at_ms,
        "returns_to": pointer.returns_to,
        "nonce": uuid4().hex,  # tells the store our file from one that another process created
    }
    try:
        top.create_exclusively(name, dump_digested(fields))
    except FileExistsError:
        found = read_pointer(top)
        raise IndexRefused(
            f"{top.address_of(_name(found.number))} names {found.index_id} since another process wrote it "
            "meanwhile: look at it, then try again"
        ) from None
    except CreationUnknown as error:
        raise IndexRefused(
            f"it is unknown whether {top.address_of(name)} was created ({error}): look at it, then try again"
        ) from error
    return pointer


def check_index_id(index_id: str) -> None:
    """Raise `IndexRefused` for a name that no index can have, because it is the name of a folder."""
    if not INDEX_ID.fullmatch(index_id):
        raise IndexRefused(f"index id {index_id!r} must match {INDEX_ID.pattern}")


def _read(top: ShardStore, number: int) -> Pointer:
    address = top.address_of(_name(number))
    fields = read_digested(top, _name(number))
    index_id = fields.get("index_id")
    if not isinstance(index_id, str) or not INDEX_ID.fullmatch(index_id):
        raise DamagedFile(address, f"no index has the id {index_id!r}")
    returns_to = fields.get("returns_to")
    if returns_to is not None and not (isinstance(returns_to, int) and 0 < returns_to < number):
        raise DamagedFile(address, f"it returns to {returns_to!r}, where a smaller number is expected")
    named_at_ms = fields.get("named_at_ms")
    return Pointer(number, index_id, named_at_ms if isinstance(named_at_ms, int) else None, returns_to)


def _numbers(top: ShardStore) -> list[int]:
    return [int(match[1]) for name in top.list_names() if (match := _NAME.fullmatch(name))]


def _name(number: int) -> str:
    return f"current-{number}.json"


def _now_ms() -> int:
    return int(time.time() * 1000)
