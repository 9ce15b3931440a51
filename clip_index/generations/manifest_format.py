"""The bytes of a manifest: JSON that is written, and parsed again and checked.

A process parses the manifests of one shard one after another, and the segments of each that are new.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any

from pyroaring import BitMap

from clip_index.errors import DamagedFile, OtherFormat
from clip_index.generations.manifest import (
    FORMAT_MAJOR,
    FORMAT_MINOR,
    QUANTISED_MAJOR,
    Manifest,
    SegmentEntry,
    SegmentPack,
    TombstonesEntry,
    TombstonesFile,
)
from clip_index.storage.digested_json import canonical_of, dump_digested, parse_digested
from clip_index.storage.file_digest import FileDigest
from clip_index.storage.pack import ALIGNMENT, PackPart

READABLE_MAJORS = (1, FORMAT_MAJOR, QUANTISED_MAJOR)
"""Format 1 had a folder for each segment and a file for all tombstones of one. Its segments stay as they
are until a merge rewrites them, so a manifest of format 2 may name segments of both forms."""
_SEGMENTS_BEGIN, _SEGMENTS_END = b'"segments":[', b'],"tombstones":{'
"""Around the segments in a manifest as it is written now. A text in it would have its quotes escaped."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_DIGEST = re.compile(r"[0-9a-f]{32}")
_GREATEST = 2**63 - 1


def dump_manifest(manifest: Manifest) -> bytes:
    fields: dict[str, Any] = {
        "format": [manifest.format_major, FORMAT_MINOR],
        "generation": manifest.generation,
        "writer_epoch": manifest.writer_epoch,
        "writer_id": manifest.writer_id,
        "nonce": manifest.nonce,
        "first_offset": manifest.first_offset,
        "next_offset": manifest.next_offset,
        "segments": [segment_fields(entry) for entry in manifest.segments],
        "tombstones": {name: _dump_tombstones(entry) for name, entry in manifest.tombstones.items()},
    }
    if manifest.watermark_ms is not None:
        fields["watermark_ms"] = manifest.watermark_ms
    return dump_digested(fields)


class ParsedSegments:
    """The segments of the manifest that was parsed last: the next one names nearly the same.

    An entry of the same fields is the same object, so whoever compares two manifests is told by identity.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[dict[str, Any], SegmentEntry]] = {}
        self._text = b""
        self._fields: list[dict[str, Any]] = []

    def read(self, data: bytes, file: str) -> dict[str, Any]:
        """Do what `parse_digested` does. Segments that were named in front before are not parsed again.

        The digest is one of all bytes, so what is left out is what the manifest before said.
        """
        canonical = canonical_of(data)
        fields = None if canonical is None else self._read_new(canonical)
        return parse_digested(data, file) if fields is None else fields

    def _read_new(self, canonical: bytes) -> dict[str, Any] | None:
        """Parse the segments apart from the rest; None if the manifest is not of the form of this release.

        A later release may have lists behind the segments, or within fields that this one does not know.
        """
        before, begin, rest = canonical.partition(_SEGMENTS_BEGIN)
        text, end, behind = rest.partition(_SEGMENTS_END)
        known, known_fields, new = self._text, self._fields, text
        if known and text.startswith(known) and text[len(known) : len(known) + 1] in (b"", b","):
            new = text[len(known) + 1 :]
        else:
            known, known_fields = b"", []
        try:
            new_fields = json.loads(b"[%b]" % new)
            fields: dict[str, Any] = json.loads(b"".join([before, begin, b"null", end, behind]))
        except (ValueError, RecursionError):
            return None
        has_gap = bool(known) and len(text) > len(known) and not new_fields  # a comma with nothing behind it
        if has_gap or fields.get("segments") != [None]:
            return None
        self._text, self._fields = text, [*known_fields, *new_fields]
        return {**fields, "segments": self._fields}

    def parse(self, segments: Sequence[dict[str, Any]]) -> tuple[SegmentEntry, ...]:
        parsed: dict[str, tuple[dict[str, Any], SegmentEntry]] = {}
        for fields in segments:
            known = self._known.get(fields["id"])
            is_known = known is not None and (known[0] is fields or known[0] == fields)
            parsed[fields["id"]] = known if known and is_known else (fields, _parse_segment(fields))
        if len(parsed) != len(segments):
            raise ValueError("a segment is named twice")
        self._known = parsed
        return tuple(entry for _, entry in parsed.values())


def parse_manifest(data: bytes, file: str, parsed: ParsedSegments | None = None) -> Manifest:
    """Parse any minor version of a readable format; raise `OtherFormat` or `DamagedFile` otherwise.

    With `parsed`, only segments are parsed that the manifest before did not have.

    `file` names the file in these errors.
    """
    try:
        fields = parse_digested(data, file) if parsed is None else parsed.read(data, file)
        manifest = _manifest_from_fields(fields, file, parsed or ParsedSegments())
        _check(manifest)
        return manifest
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DamagedFile(file, f"unexpected content ({error!r})") from error


def _manifest_from_fields(fields: dict[str, Any], file: str, parsed: ParsedSegments) -> Manifest:
    major = fields["format"][0]
    if major not in READABLE_MAJORS:
        raise OtherFormat(file, major, *READABLE_MAJORS)
    return Manifest(
        generation=int(fields["generation"]),
        writer_epoch=int(fields["writer_epoch"]),
        writer_id=str(fields["writer_id"]),
        nonce=str(fields["nonce"]),
        first_offset=int(fields["first_offset"]),
        next_offset=int(fields["next_offset"]),
        segments=parsed.parse(fields["segments"]),
        tombstones={name: _parse_tombstones(entry) for name, entry in fields["tombstones"].items()},
        watermark_ms=fields.get("watermark_ms"),
    )


def _check(manifest: Manifest) -> None:
    """Raise `ValueError` for what no writer writes: it would lead out of the shard, or divide by zero.

    The digest of a manifest proves that it is whole, not who has written it.
    """
    if not 0 <= manifest.first_offset <= manifest.next_offset <= _GREATEST:
        raise ValueError(f"offsets [{manifest.first_offset}, {manifest.next_offset})")
    _check_counts(manifest.watermark_ms or 0)
    num_contents = {entry.segment_id: entry.num_contents for entry in manifest.segments}
    for segment_id, dead in manifest.tombstones.items():
        _check_counts(dead.num_dead, dead.oldest_dead_ms)
        if dead.file is not None:
            _check_names(dead.file.file_name)
            _check_counts(dead.file.digest.size_bytes)
        if not 0 < dead.num_dead <= num_contents.get(segment_id, 0):
            raise ValueError(f"{dead.num_dead} dead rows of segment {segment_id!r}")
        _check_bitmap(dead, num_contents[segment_id])


def _parse_segment(fields: dict[str, Any]) -> SegmentEntry:
    entry = segment_from_fields(fields)
    _check_names(entry.segment_id, *entry.files)
    _check_names(*(digest.xxh3_128 for digest in entry.centroids.values()))
    _check_counts(entry.num_contents, entry.num_deletes, *entry.num_vectors.values())
    _check_counts(*(digest.size_bytes for _, digest in entry.files_needed))
    if entry.pack is not None:
        _check_parts(entry.pack)
    return entry


def _check_parts(pack: SegmentPack) -> None:
    """Mapped columns and arrays lie at aligned places; FAISS maps lists by their place in the file."""
    for name, part in pack.parts.items():
        _check_counts(part.offset, part.size_bytes)
        if part.offset % ALIGNMENT or part.end > pack.digest.size_bytes:
            raise ValueError(f"the part {name!r} at [{part.offset}, {part.end})")
        if part.xxh3_128 is not None and not _DIGEST.fullmatch(part.xxh3_128):
            raise ValueError(f"the digest {part.xxh3_128!r} of the part {name!r}")


def _check_bitmap(dead: TombstonesEntry, num_contents: int) -> None:
    rows = BitMap.deserialize(dead.bitmap) if dead.bitmap else BitMap()
    has_all = len(rows) == dead.num_dead or (dead.file is not None and len(rows) < dead.num_dead)
    if not has_all or (rows and rows.max() >= num_contents):
        raise ValueError(f"{len(rows)} dead rows in the manifest, of {dead.num_dead} in {num_contents}")


def _check_names(*names: str) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"the name {name!r}")


def _check_counts(*counts: int) -> None:
    for count in counts:
        if type(count) is not int or not 0 <= count <= _GREATEST:
            raise ValueError(f"the count {count!r}")


def segment_fields(entry: SegmentEntry) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": entry.segment_id,
        "num_contents": entry.num_contents,
        "num_deletes": entry.num_deletes,
        "num_vectors": dict(entry.num_vectors),
    }
    if entry.pack is None:
        fields["files"] = {name: _dump_digest(digest) for name, digest in entry.files.items()}
    else:
        fields["size"], fields["xxh3_128"] = _dump_digest(entry.pack.digest)
        fields["parts"] = {name: _dump_part(part) for name, part in entry.pack.parts.items()}
    if entry.centroids:
        fields["centroids"] = {m: _dump_digest(digest) for m, digest in entry.centroids.items()}
    return fields


def segment_from_fields(fields: dict[str, Any]) -> SegmentEntry:
    return SegmentEntry(
        segment_id=fields["id"],
        num_contents=fields["num_contents"],
        num_deletes=fields["num_deletes"],
        num_vectors=fields["num_vectors"],
        files={name: _parse_digest(digest) for name, digest in fields.get("files", {}).items()},
        pack=_parse_pack(fields) if "parts" in fields else None,
        centroids={m: _parse_digest(digest) for m, digest in fields.get("centroids", {}).items()},
    )


def _parse_pack(fields: dict[str, Any]) -> SegmentPack:
    """A part may have its digest behind its place: since 2.1, in large packs, and for what look-ups need.

    What a later minor version adds is left out.
    """
    parts = {name: PackPart(*part[:3]) for name, part in fields["parts"].items()}
    return SegmentPack(_parse_digest([fields["size"], fields["xxh3_128"]]), parts)


def _dump_part(part: PackPart) -> list[Any]:
    place = [part.offset, part.size_bytes]
    return place if part.xxh3_128 is None else [*place, part.xxh3_128]


def _dump_tombstones(entry: TombstonesEntry) -> dict[str, Any]:
    fields: dict[str, Any] = {"num_dead": entry.num_dead, "oldest_dead_ms": entry.oldest_dead_ms}
    if entry.bitmap:
        fields["bitmap"] = b64encode(entry.bitmap).decode()
    if entry.file is not None:
        fields["file"], fields["digest"] = entry.file.file_name, _dump_digest(entry.file.digest)
    return fields


def _parse_tombstones(fields: dict[str, Any]) -> TombstonesEntry:
    has_file = "file" in fields
    return TombstonesEntry(
        num_dead=fields["num_dead"],
        oldest_dead_ms=fields["oldest_dead_ms"],
        bitmap=b64decode(fields.get("bitmap", ""), validate=True),
        file=TombstonesFile(fields["file"], _parse_digest(fields["digest"])) if has_file else None,
    )


def _dump_digest(digest: FileDigest) -> list[Any]:
    return [digest.size_bytes, digest.xxh3_128]


def _parse_digest(fields: list[Any]) -> FileDigest:
    size_bytes, xxh3_128 = fields
    return FileDigest(int(size_bytes), str(xxh3_128))
