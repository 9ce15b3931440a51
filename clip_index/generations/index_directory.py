"""The directory of one index: what it was built for, and where its shards are."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clip_index.encoder.protocol import EncoderFingerprint
from clip_index.errors import DamagedFile, EncoderMismatch, IndexMissing, IndexRefused, OtherFormat
from clip_index.storage.digested_json import dump_digested, parse_digested
from clip_index.storage.durable_files import create_exclusively, has_hard_links, make_directory
from clip_index.storage.local_store import LocalShardStore
from clip_index.storage.shard_store import ShardStore

FORMAT = 1
_INDEX_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CURRENT_NAME = re.compile(r"current-(\d+)\.json")


@dataclass(frozen=True, slots=True)
class IndexDescription:
    """What an index was built from and with; never changes. `topic_id` is None where the broker has none."""

    topic: str
    topic_id: str | None
    num_partitions: int
    group_id: str
    fingerprint: EncoderFingerprint


@dataclass(frozen=True, slots=True)
class IndexDirectory:
    """An index that exists on disk."""

    path: Path
    index_id: str
    description: IndexDescription

    @classmethod
    def create(cls, root: Path, index_id: str, description: IndexDescription) -> IndexDirectory:
        """Create the index, or check that the one there is the same; `IndexRefused` names both.

        The first index of a root becomes the current one. Safe against concurrent
        creators: the loser compares.
        """
        if not _INDEX_ID.fullmatch(index_id):
            raise IndexRefused(f"index id {index_id!r} must match {_INDEX_ID.pattern}")
        path = root / "indexes" / index_id
        for directory in (root, path.parent, path):
            make_directory(directory)
        if not has_hard_links(path):
            raise IndexRefused(f"the file system of {path} has no hard links, which commits need")
        create_exclusively(path / "index.json", _dump_description(description))
        found = read_description(path)
        _compare(path, found, description)
        create_exclusively(root / "current-1.json", dump_digested({"index_id": index_id}))
        return cls(path, index_id, found)

    @classmethod
    def open(cls, root: Path, index_id: str | None = None) -> IndexDirectory:
        """Open an index, the current one by default; `IndexMissing` if there is none yet."""
        index_id = index_id or _read_current(root)
        path = root / "indexes" / index_id
        try:
            return cls(path, index_id, read_description(path))
        except FileNotFoundError:
            raise IndexMissing(f"no index {index_id!r} in {root}") from None

    def shard_name(self, partition: int) -> str:
        return f"{self.description.topic}-{partition}"

    def partition_of(self, shard_name: str) -> int:
        return int(shard_name.rsplit("-", 1)[1])

    def shard_path(self, partition: int) -> Path:
        return self.path / self.shard_name(partition)

    def shard_store(self, partition: int) -> ShardStore:
        return LocalShardStore(self.shard_path(partition))


def read_description(path: Path) -> IndexDescription:
    """Read `index.json`; `DamagedFile` if it is not what it says, or `OtherFormat`."""
    file = path / "index.json"
    fields = parse_digested(file.read_bytes(), file)
    try:
        if (found := fields.pop("format")) != FORMAT:
            raise OtherFormat(file, found, FORMAT)
        fingerprint = EncoderFingerprint(**_known(EncoderFingerprint, fields.pop("fingerprint")))
        return IndexDescription(fingerprint=fingerprint, **_known(IndexDescription, fields))
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedFile(file, f"unexpected content ({error!r})") from error


def _known(values: type, fields: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a later version of the same format has added."""
    return {name: value for name, value in fields.items() if name in values.__slots__}  # type: ignore[attr-defined]


def _dump_description(description: IndexDescription) -> bytes:
    return dump_digested({"format": FORMAT, **asdict(description)})


def _compare(path: Path, found: IndexDescription, wanted: IndexDescription) -> None:
    if found.fingerprint != wanted.fingerprint:
        raise EncoderMismatch(built_by=str(found.fingerprint), running=str(wanted.fingerprint))
    differences = [
        f"{name} {_value(found, name)!r} (now {_value(wanted, name)!r})"
        for name in ("topic", "topic_id", "num_partitions", "group_id")
        if _value(found, name) != _value(wanted, name)
    ]
    if differences:
        raise IndexRefused(f"the index at {path} was built for {', '.join(differences)}")


def _value(description: IndexDescription, name: str) -> Any:
    return getattr(description, name)


def _read_current(root: Path) -> str:
    numbers = [int(m[1]) for p in root.glob("current-*.json") if (m := _CURRENT_NAME.fullmatch(p.name))]
    if not numbers:
        raise IndexMissing(f"no index in {root} yet")
    path = root / f"current-{max(numbers)}.json"
    index_id = parse_digested(path.read_bytes(), path).get("index_id")
    if not isinstance(index_id, str) or not _INDEX_ID.fullmatch(index_id):
        raise DamagedFile(path, f"no index has the id {index_id!r}")
    return index_id
