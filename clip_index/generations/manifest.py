"""The file of one state of a shard: which segments it has and how far it covers the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import xxhash

from clip_index.content import Modality
from clip_index.storage.file_digest import FileDigest
from clip_index.storage.pack import PackPart

FORMAT_MAJOR = 2
FORMAT_MINOR = 1
QUANTISED_MAJOR = 3
"""The format of a generation that has quantised lists. Others would take the codes for embeddings."""
EMBEDDINGS_SUFFIX = ".embeddings.npy"
"""The parts that only segments with quantised lists have end so."""
SEGMENTS = "segments"
TOMBSTONES = "tombstones"
CENTROIDS = "centroids"
_PACK_SUFFIX = ".pack"


def pack_name(segment_id: str) -> str:
    """Return the name in the shard's store of a segment's pack."""
    return f"{SEGMENTS}/{segment_id}{_PACK_SUFFIX}"


def centroids_name(digest: FileDigest) -> str:
    """Return the name in the shard's store of the set of centroids with this digest."""
    return f"{CENTROIDS}/{digest.xxh3_128}.npy"


def tombstones_name(file_name: str) -> str:
    """Return the name in the shard's store of a file of tombstones."""
    return f"{TOMBSTONES}/{file_name}"


@dataclass(frozen=True, slots=True)
class SegmentPack:
    """The one file of a segment, and where its parts lie in it."""

    digest: FileDigest
    parts: Mapping[str, PackPart]


@dataclass(frozen=True)
class SegmentEntry:
    """A segment as a manifest names it; `num_vectors` counts distinct embeddings by modality.

    A segment of format 1 has no `pack`: its parts are `files` in a folder. `centroids` tells, by
    modality, the file of the set of centroids that the segment's lists share with other segments, where
    they do. Flat vectors may name a set as well: then the pack tells which of its lists each would lie in.

    It has no slots, because the names of its files are made once: every reload asks for those of all
    segments.
    """

    segment_id: str
    num_contents: int
    num_deletes: int
    num_vectors: Mapping[Modality, int]
    files: Mapping[str, FileDigest] = field(default_factory=dict)
    pack: SegmentPack | None = None
    centroids: Mapping[Modality, FileDigest] = field(default_factory=dict)

    @property
    def num_entries(self) -> int:
        return self.num_contents + self.num_deletes

    @property
    def size_bytes(self) -> int:
        return sum(digest.size_bytes for _, digest in self.stored_files())

    @cached_property
    def stored_name(self) -> str:
        """The name in the shard's store of the pack or the folder."""
        return pack_name(self.segment_id) if self.pack else f"{SEGMENTS}/{self.segment_id}"

    def stored_files(self) -> Iterator[tuple[str, FileDigest]]:
        """Yield the name in the shard's store of each file of the segment, with its digest."""
        if self.pack is not None:
            yield self.stored_name, self.pack.digest
        for name, digest in self.files.items():
            yield f"{self.stored_name}/{name}", digest

    @cached_property
    def files_needed(self) -> Sequence[tuple[str, FileDigest]]:
        """The same, and also the sets of centroids, which other segments may need as well."""
        sets = ((centroids_name(digest), digest) for digest in self.centroids.values())
        return (*self.stored_files(), *sets)

    @property
    def is_quantised(self) -> bool:
        names = self.pack.parts if self.pack else self.files
        return any(name.endswith(EMBEDDINGS_SUFFIX) for name in names)

    def has_part(self, name: str) -> bool:
        return name in (self.pack.parts if self.pack else self.files)


@dataclass(frozen=True, slots=True)
class TombstonesFile:
    """A file of dead rows. It holds those that had died when it was written."""

    file_name: str
    digest: FileDigest


@dataclass(frozen=True, slots=True)
class TombstonesEntry:
    """The dead rows of one segment; `oldest_dead_ms` is when the first of them died.

    They are the rows of the `file`, if there is one, together with those of `bitmap`: a serialised
    roaring bitmap in the manifest itself, or nothing. So a commit that kills a few rows writes no file.
    """

    num_dead: int
    oldest_dead_ms: int
    bitmap: bytes = b""
    file: TombstonesFile | None = None


class GenerationKey(NamedTuple):
    """Names one commit for good. After a backup is restored, numbers are used again; digests are not.

    `digest` has 16 hexadecimal digits. It is empty for number 0, a shard without a generation.
    """

    number: int
    digest: str


NO_GENERATION = GenerationKey(0, "")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One generation. Its segments hold the fold of the log range `[first_offset, next_offset)`.

    Every record up to `watermark_ms` (ms since 1970) is in that range. A watermark that was published later
    lies in a file of its own.
    """

    generation: int
    writer_epoch: int
    writer_id: str
    nonce: str
    first_offset: int
    next_offset: int
    segments: tuple[SegmentEntry, ...] = ()
    tombstones: Mapping[str, TombstonesEntry] = field(default_factory=dict)
    watermark_ms: int | None = None

    @property
    def key(self) -> GenerationKey:
        identity = f"{self.generation} {self.next_offset} {self.writer_id} {self.nonce}"
        return GenerationKey(self.generation, xxhash.xxh3_64_hexdigest(identity.encode()))

    @property
    def format_major(self) -> int:
        """The format that it is written in, which is the least that readers must know."""
        return QUANTISED_MAJOR if any(entry.is_quantised for entry in self.segments) else FORMAT_MAJOR

    def segment_ids(self) -> set[str]:
        return {entry.segment_id for entry in self.segments}

    def num_live(self) -> int:
        num_dead = sum(entry.num_dead for entry in self.tombstones.values())
        return sum(entry.num_contents for entry in self.segments) - num_dead

    def files(self) -> Iterator[tuple[str, FileDigest]]:
        """Yield the name of every file that this generation needs once, with the digest that it must have."""
        yield from dict(file for entry in self.segments for file in entry.files_needed).items()
        yield from self.tombstone_files()

    def tombstone_files(self) -> Iterator[tuple[str, FileDigest]]:
        """Yield the name and the digest of every file of tombstones."""
        for dead in self.tombstones.values():
            if dead.file is not None:
                yield tombstones_name(dead.file.file_name), dead.file.digest
