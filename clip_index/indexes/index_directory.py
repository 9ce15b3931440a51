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
from clip_index.guarantees import Guarantees
from clip_index.indexes.canaries import KeptCanaries, read_canaries
from clip_index.indexes.pointer import (
    INDEX_ID,
    check_index_id,
    dump_first,
    name_current,
    newest_number,
    read_pointer,
)
from clip_index.storage.digested_json import dump_digested
from clip_index.storage.index_roots import IndexRoot, open_root
from clip_index.storage.parsed_files import read_digested
from clip_index.storage.shard_store import ShardStore

FORMAT = 1
_INDEXES = "indexes"
DESCRIPTION = "index.json"
RESTORING = "restoring.json"
"""Lies in an index that a backup is being put into, until it is complete."""
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
    def create(cls, root: IndexRoot, index_id: str, description: IndexDescription) -> IndexDirectory:
        """Create the index, or check that the existing one has the same description.

        If it has another one, this raises `IndexRefused`, which names both. The first index of a
        root becomes the current one. Several processes may create the index at once: one of them
        wins, the others compare. An existing index is compared before anything is written, so that
        a disk that takes no writes hides no refusal. Raises `OSError` if the disk takes no writes.
        """
        check_index_id(index_id)
        if (fault := _fault_of(description)) is not None:
            raise IndexRefused(fault)
        top = open_root(root)
        store = top.below(folder_of(index_id))
        if (present := _find_description(store)) is not None:
            _compare(store, present, description)
        elif store.exists(RESTORING):
            raise IndexRefused(
                f"a backup was not put into {store.address} completely: run cliptide snapshot restore again"
            )
        top.prepare([_INDEXES, folder_of(index_id)])
        if not store.can_create_exclusively():
            raise IndexRefused(f"no index can be kept here: {store.missing_primitive}, which commits need")
        store.ensure(DESCRIPTION, _dump_description(description))
        found = _read_description(store)
        _compare(store, found, description)
        top.ensure(*dump_first(index_id))
        return cls(store, index_id, found)

    @classmethod
    def open(cls, root: IndexRoot, index_id: str | None = None) -> IndexDirectory:
        """Open an index, the current one by default; `IndexMissing` if there is none yet.

        Raises `IndexRefused` for an id that no index can have.
        """
        top = open_root(root)
        index_id = index_id or read_pointer(top).index_id
        check_index_id(index_id)
        store = top.below(folder_of(index_id))
        try:
            return cls(store, index_id, _read_description(store))
        except FileNotFoundError:
            raise IndexMissing(f"no index {index_id!r} in {root}") from None

    def read_canaries(self) -> KeptCanaries | None:
        """Return the canaries of the index; None if it has none. Raises `DamagedIndexFile`."""
        return read_canaries(self.store)

    @property
    def guarantees(self) -> Guarantees:
        return Guarantees()

    @property
    def path(self) -> Path:
        """This machine's directory for files of the index that are no part of a generation."""
        return self.store.local_directory

    @property
    def partitions(self) -> range:
        return range(self.description.num_partitions)

    def shard_name(self, partition: int) -> str:
        return f"{self.description.topic}-{partition}"

    def partition_of(self, shard_name: str) -> int:
        return int(shard_name.rsplit("-", 1)[1])

    def shard_path(self, partition: int) -> Path:
        return self.path / self.shard_name(partition)

    def shard_store(self, partition: int) -> ShardStore:
        return self.store.below(self.shard_name(partition))


def list_indexes(root: IndexRoot) -> list[str]:
    """Return the ids of the indexes of a root, damaged ones too."""
    return sorted(name for name in open_root(root).list_names(_INDEXES) if INDEX_ID.fullmatch(name))


def repair_current(root: IndexRoot, index_id: str | None = None) -> str | None:
    """Name the index that serves anew if the file that names it is damaged; None if nothing is to be done.

    Without an `index_id` it is the only index of the root. Returns the id.
    """
    top = open_root(root)
    try:
        read_pointer(top)
    except DamagedFile:
        named = _present_index(root, index_id)
        name_current(top, named, after=newest_number(top))
        return named
    except IndexMissing:
        pass
    return None


def _present_index(root: IndexRoot, index_id: str | None) -> str:
    """Return the index of this id, or the only one."""
    found = list_indexes(root)
    wanted = [name for name in found if index_id in (None, name)]
    if len(wanted) != 1:
        names = ", ".join(found) or "none"
        raise IndexRefused(
            f"{open_root(root).address} has these indexes: {names}: say with --index-id which one serves"
        )
    return wanted[0]


def folder_of(index_id: str) -> str:
    """Return where the index lies in its root."""
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


def _read_description(store: ShardStore) -> IndexDescription:
    """Read `index.json`; `DamagedIndexFile` if it is not what it says, or `OtherFormat`."""
    try:
        return _parse_description(store)
    except DamagedFile as damage:
        raise DamagedIndexFile(damage.file, damage.detail, way_on=_WRITE_ANEW) from damage


def _parse_description(store: ShardStore) -> IndexDescription:
    file = store.address_of(DESCRIPTION)
    fields = read_digested(store, DESCRIPTION)
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
