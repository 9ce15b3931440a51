"""The file of one state of a shard: which segments it has and how far it covers the log."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import xxhash

from clip_index.content import Modality
from clip_index.errors import DamagedFile, OtherFormat
from clip_index.storage.digested_json import dump_digested, parse_digested
from clip_index.storage.file_digest import FileDigest

FORMAT_MAJOR = 1
FORMAT_MINOR = 0
SEGMENTS = "segments"
TOMBSTONES = "tombstones"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_GREATEST = 2**63 - 1


def segment_name(segment_id: str) -> str:
    """Return the name of a segment's folder in the shard's store."""
    return f"{SEGMENTS}/{segment_id}"


def tombstones_name(file_name: str) -> str:
    """Return the name in the shard's store of a file of tombstones."""
    return f"{TOMBSTONES}/{file_name}"


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """A segment as a manifest names it; `num_vectors` counts distinct embeddings by modality."""

    segment_id: str
    num_contents: int
    num_deletes: int
    num_vectors: Mapping[Modality, int]
    files: Mapping[str, FileDigest]

    @property
    def num_entries(self) -> int:
        return self.num_contents + self.num_deletes

    @property
    def size_bytes(self) -> int:
        return sum(digest.size_bytes for digest in self.files.values())


@dataclass(frozen=True, slots=True)
class TombstonesEntry:
    """The dead rows of one segment; `oldest_dead_ms` is when the first of them died."""

    file_name: str
    digest: FileDigest
    num_dead: int
    oldest_dead_ms: int


class GenerationKey(NamedTuple):
    """Names one commit for good. After a backup is restored, numbers are used again; digests are not.

    `digest` has 16 hexadecimal digits. It is empty for number 0, a shard without a generation.
    """

    number: int
    digest: str


NO_GENERATION = GenerationKey(0, "")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One generation. Its segments hold the fold of the log range `[first_offset, next_offset)`."""

    generation: int
    writer_epoch: int
    writer_id: str
    nonce: str
    first_offset: int
    next_offset: int
    segments: tuple[SegmentEntry, ...] = ()
    tombstones: Mapping[str, TombstonesEntry] = field(default_factory=dict)

    @property
    def key(self) -> GenerationKey:
        identity = f"{self.generation} {self.next_offset} {self.writer_id} {self.nonce}"
        return GenerationKey(self.generation, xxhash.xxh3_64_hexdigest(identity.encode()))

    def segment_ids(self) -> set[str]:
        return {entry.segment_id for entry in self.segments}

    def num_live(self) -> int:
        num_dead = sum(entry.num_dead for entry in self.tombstones.values())
        return sum(entry.num_contents for entry in self.segments) - num_dead

    def files(self) -> Iterator[tuple[str, FileDigest]]:
        """Yield the name of every file that this generation needs, with the digest that it must have."""
        for entry in self.segments:
            for name, digest in entry.files.items():
                yield f"{segment_name(entry.segment_id)}/{name}", digest
        for dead in self.tombstones.values():
            yield tombstones_name(dead.file_name), dead.digest


def dump_manifest(manifest: Manifest) -> bytes:
    fields: dict[str, Any] = {
        "format": [FORMAT_MAJOR, FORMAT_MINOR],
        "generation": manifest.generation,
        "writer_epoch": manifest.writer_epoch,
        "writer_id": manifest.writer_id,
        "nonce": manifest.nonce,
        "first_offset": manifest.first_offset,
        "next_offset": manifest.next_offset,
        "segments": [segment_fields(entry) for entry in manifest.segments],
        "tombstones": {name: _dump_tombstones(entry) for name, entry in manifest.tombstones.items()},
    }
    return dump_digested(fields)


def parse_manifest(data: bytes, file: str) -> Manifest:
    """Parse any minor version of this major format; raise `OtherFormat` or `DamagedFile` otherwise.

    `file` names the file in these errors.
    """
    fields = parse_digested(data, file)
    try:
        manifest = _manifest_from_fields(fields, file)
        _check(manifest)
        return manifest
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DamagedFile(file, f"unexpected content ({error!r})") from error


def _manifest_from_fields(fields: dict[str, Any], file: str) -> Manifest:
    major = fields["format"][0]
    if major != FORMAT_MAJOR:
        raise OtherFormat(file, major, FORMAT_MAJOR)
    return Manifest(
        generation=int(fields["generation"]),
        writer_epoch=int(fields["writer_epoch"]),
        writer_id=str(fields["writer_id"]),
        nonce=str(fields["nonce"]),
        first_offset=int(fields["first_offset"]),
        next_offset=int(fields["next_offset"]),
        segments=tuple(segment_from_fields(entry) for entry in fields["segments"]),
        tombstones={name: _parse_tombstones(entry) for name, entry in fields["tombstones"].items()},
    )


def _check(manifest: Manifest) -> None:
    """Raise `ValueError` for what no writer writes: it would lead out of the shard, or divide by zero.

    The digest of a manifest proves that it is whole, not who has written it.
    """
    if not 0 <= manifest.first_offset <= manifest.next_offset <= _GREATEST:
        raise ValueError(f"offsets [{manifest.first_offset}, {manifest.next_offset})")
    num_contents = {entry.segment_id: entry.num_contents for entry in manifest.segments}
    for entry in manifest.segments:
        _check_names(entry.segment_id, *entry.files)
        _check_counts(entry.num_contents, entry.num_deletes, *entry.num_vectors.values())
        _check_counts(*(digest.size_bytes for digest in entry.files.values()))
    for segment_id, dead in manifest.tombstones.items():
        _check_names(dead.file_name)
        _check_counts(dead.num_dead, dead.oldest_dead_ms, dead.digest.size_bytes)
        if not 0 < dead.num_dead <= num_contents.get(segment_id, 0):
            raise ValueError(f"{dead.num_dead} dead rows of segment {segment_id!r}")


def _check_names(*names: str) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"the name {name!r}")


def _check_counts(*counts: int) -> None:
    for count in counts:
        if type(count) is not int or not 0 <= count <= _GREATEST:
            raise ValueError(f"the count {count!r}")


def segment_fields(entry: SegmentEntry) -> dict[str, Any]:
    return {
        "id": entry.segment_id,
        "num_contents": entry.num_contents,
        "num_deletes": entry.num_deletes,
        "num_vectors": dict(entry.num_vectors),
        "files": {name: _dump_digest(digest) for name, digest in entry.files.items()},
    }


def segment_from_fields(fields: dict[str, Any]) -> SegmentEntry:
    return SegmentEntry(
        segment_id=fields["id"],
        num_contents=fields["num_contents"],
        num_deletes=fields["num_deletes"],
        num_vectors=fields["num_vectors"],
        files={name: _parse_digest(digest) for name, digest in fields["files"].items()},
    )


def _dump_tombstones(entry: TombstonesEntry) -> dict[str, Any]:
    return {
        "file": entry.file_name,
        "digest": _dump_digest(entry.digest),
        "num_dead": entry.num_dead,
        "oldest_dead_ms": entry.oldest_dead_ms,
    }


def _parse_tombstones(fields: dict[str, Any]) -> TombstonesEntry:
    return TombstonesEntry(
        file_name=fields["file"],
        digest=_parse_digest(fields["digest"]),
        num_dead=fields["num_dead"],
        oldest_dead_ms=fields["oldest_dead_ms"],
    )


def _dump_digest(digest: FileDigest) -> list[Any]:
    return [digest.size_bytes, digest.xxh3_128]


def _parse_digest(fields: list[Any]) -> FileDigest:
    size_bytes, xxh3_128 = fields
    return FileDigest(int(size_bytes), str(xxh3_128))
