"""One index of a root: what it was built from, and the stores of its shards."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clip_index.encoder.protocol import EncoderFingerprint
from clip_index.errors import (
    DamagedFile,
    DamagedIndexFile,
    EncoderMismatch,
    IndexMissing,
    IndexRefused,
    OtherFormat,
)
from clip_index.generations.canaries import KeptCanaries, read_canaries
from clip_index.storage.digested_json import dump_digested, parse_digested
from clip_index.storage.local_store import LocalShardStore
from clip_index.storage.shard_store import ShardStore

FORMAT = 1
_INDEXES = "indexes"
_DESCRIPTION = "index.json"
_INDEX_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CURRENT_NAME = re.compile(r"current-(\d{1,18})\.json", re.ASCII)
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
MAX_PARTITIONS = 10_000
_MAX_DIMENSION = 65_536


@dataclass(frozen=True, slots=True)
class IndexDescription:
    """From which log and with which encoder an index was built; never changes.

    `topic_id` is None if the broker has no topic ids.
    """

    topic: str
    topic_id: str | None
    num_partitions: int
    group_id: str
    fingerprint: EncoderFingerprint


@dataclass(frozen=True, slots=True)
class IndexDirectory:
    """An index that exists. Its store holds `index.json` and a folder for each shard."""

    store: ShardStore
    index_id: str
    description: IndexDescription

    @classmethod
    def create(cls, root: Path, index_id: str, description: IndexDescription) -> IndexDirectory:
        """Create the index, or check that the existing one has the same description.

        If it has another one, this raises `IndexRefused`, which names both. The first index of a
        root becomes the current one. Several processes may create the index at once: one of them
        wins, the others compare. An existing index is compared before anything is written, so that
        a disk that takes no writes hides no refusal. Raises `OSError` if the disk takes no writes.
        """
        check_index_id(index_id)
        if (fault := _fault_of(description)) is not None:
            raise IndexRefused(fault)
        top: ShardStore = LocalShardStore(root)
        store = top.below(_folder(index_id))
        if (present := _find_description(store)) is not None:
            _compare(store, present, description)
        top.prepare([_INDEXES, _folder(index_id)])
        if not store.can_create_exclusively():
            raise IndexRefused(f"the file system of {store.address} has no hard links, which commits need")
        store.ensure(_DESCRIPTION, _dump_description(description))
        found = _read_description(store)
        _compare(store, found, description)
        top.ensure("current-1.json", dump_digested({"index_id": index_id}))
        return cls(store, index_id, found)

    @classmethod
    def open(cls, root: Path, index_id: str | None = None) -> IndexDirectory:
        """Open an index, the current one by default; `IndexMissing` if there is none yet."""
        top = LocalShardStore(root)
        index_id = index_id or _read_current(top)
        store = top.below(_folder(index_id))
        try:
            return cls(store, index_id, _read_description(store))
        except FileNotFoundError:
            raise IndexMissing(f"no index {index_id!r} in {root}") from None

    def read_canaries(self) -> KeptCanaries | None:
        """Return the canaries of the index; None if it has none. Raises `DamagedIndexFile`."""
        return read_canaries(self.store)

    @property
    def path(self) -> Path:
        """The local directory of the index, for files that are no part of a generation."""
        return Path(self.store.address)

    def shard_name(self, partition: int) -> str:
        return f"{self.description.topic}-{partition}"

    def partition_of(self, shard_name: str) -> int:
        return int(shard_name.rsplit("-", 1)[1])

    def shard_path(self, partition: int) -> Path:
        return self.path / self.shard_name(partition)

    def shard_store(self, partition: int) -> ShardStore:
        return self.store.below(self.shard_name(partition))


def check_index_id(index_id: str) -> None:
    """Raise `IndexRefused` for a name that no index can have, because it is the name of a folder."""
    if not _INDEX_ID.fullmatch(index_id):
        raise IndexRefused(f"index id {index_id!r} must match {_INDEX_ID.pattern}")


def repair_current(root: Path, index_id: str | None = None) -> str | None:
    """Name the index that serves anew if the file that names it is damaged; None if nothing is to be done.

    Without an `index_id` it is the only index of the root. Returns the id.
    """
    top = LocalShardStore(root)
    try:
        _read_current(top)
    except DamagedFile:
        index_id = _present_index(top, index_id)
        top.ensure(f"current-{_current_number(top) + 1}.json", dump_digested({"index_id": index_id}))
        return index_id
    except IndexMissing:
        pass
    return None


def _present_index(top: ShardStore, index_id: str | None) -> str:
    """Return the index of this id, or the only one."""
    found = sorted(name for name in top.list_names(_INDEXES) if _INDEX_ID.fullmatch(name))
    wanted = [name for name in found if index_id in (None, name)]
    if len(wanted) != 1:
        names = ", ".join(found) or "none"
        raise IndexRefused(f"{top.address} has these indexes: {names}: say with --index-id which one serves")
    return wanted[0]


def _current_number(top: ShardStore) -> int:
    matches = (_CURRENT_NAME.fullmatch(name) for name in top.list_names())
    return max((int(match[1]) for match in matches if match), default=0)


def _folder(index_id: str) -> str:
    return f"{_INDEXES}/{index_id}"


def _find_description(store: ShardStore) -> IndexDescription | None:
    try:
        return _read_description(store)
    except (FileNotFoundError, NotADirectoryError):
        return None


_WRITE_ANEW = (
    "put it back from a backup; or, if topic, group and model are still those that built the index, remove "
    "the file and start a consumer, which writes it anew"
)
_NAME_ANEW = "`cliptide snapshot repair` writes it anew; until then name the index with CLIPTIDE_INDEX__ID"


def _read_description(store: ShardStore) -> IndexDescription:
    """Read `index.json`; `DamagedIndexFile` if it is not what it says, or `OtherFormat`."""
    try:
        return _parse_description(store)
    except DamagedFile as damage:
        raise DamagedIndexFile(damage.file, damage.detail, way_on=_WRITE_ANEW) from damage


def _parse_description(store: ShardStore) -> IndexDescription:
    file = store.address_of(_DESCRIPTION)
    fields = parse_digested(store.read(_DESCRIPTION), file)
    try:
        if (found := fields.pop("format")) != FORMAT:
            raise OtherFormat(file, found, FORMAT)
        fingerprint = EncoderFingerprint(**_known(EncoderFingerprint, fields.pop("fingerprint")))
        description = IndexDescription(fingerprint=fingerprint, **_known(IndexDescription, fields))
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedFile(file, f"unexpected content ({error!r})") from error
    if (fault := _fault_of(description)) is not None:
        raise DamagedFile(file, fault)
    return description


def _fault_of(description: IndexDescription) -> str | None:
    """Say what no topic or encoder can have: a name that leads out of the root, or an absurd number."""
    if not isinstance(description.topic, str) or not _TOPIC.fullmatch(description.topic):
        return f"no topic is named {description.topic!r}"
    for name, number, greatest in (
        ("num_partitions", description.num_partitions, MAX_PARTITIONS),
        ("dimension", description.fingerprint.dimension, _MAX_DIMENSION),
    ):
        if type(number) is not int or not 1 <= number <= greatest:
            return f"{name} is {number!r}, where 1 to {greatest} are expected"
    return None


def _known(values: type, fields: dict[str, Any]) -> dict[str, Any]:
    """Leave out fields that a later version of the same format has added."""
    return {name: value for name, value in fields.items() if name in values.__slots__}  # type: ignore[attr-defined]


def _dump_description(description: IndexDescription) -> bytes:
    return dump_digested({"format": FORMAT, **asdict(description)})


def _compare(store: ShardStore, found: IndexDescription, wanted: IndexDescription) -> None:
    if found.fingerprint != wanted.fingerprint:
        raise EncoderMismatch(built_by=str(found.fingerprint), running=str(wanted.fingerprint))
    differences = [
        f"{name} {_value(found, name)!r} (now {_value(wanted, name)!r})"
        for name in ("topic", "topic_id", "num_partitions", "group_id")
        if _value(found, name) != _value(wanted, name)
    ]
    if differences:
        raise IndexRefused(f"the index at {store.address} was built for {', '.join(differences)}")


def _value(description: IndexDescription, name: str) -> Any:
    return getattr(description, name)


def _read_current(root: ShardStore) -> str:
    number = _current_number(root)
    if not number:
        raise IndexMissing(f"no index in {root.address} yet")
    name = f"current-{number}.json"
    try:
        index_id = parse_digested(root.read(name), root.address_of(name)).get("index_id")
        if not isinstance(index_id, str) or not _INDEX_ID.fullmatch(index_id):
            raise DamagedFile(root.address_of(name), f"no index has the id {index_id!r}")
    except DamagedFile as damage:
        raise DamagedIndexFile(damage.file, damage.detail, way_on=_NAME_ANEW) from damage
    return index_id
