"""`python -m tools.write_golden_index DIRECTORY`: write the golden index of the current format.

With `sq8` behind the directory its lists are quantised, which is format 3.

Run it once for each released major format, into `tests/golden/index-format-<major>`, and commit the
result. Never run it again for the same format: the files must stay as that release wrote them.
`expected.json` is computed from the log alone (contents by the fold, search order by plain cosine
similarities), so that it does not repeat a mistake of the index.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from clip_index.content import MODALITIES, Change, Delta, EncodedContent, VectorForm
from clip_index.generations.history import manifest_name
from clip_index.generations.tombstones import MAX_BYTES_IN_MANIFEST
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.vectors import shared_vectors
from clip_index.vectors.lists import inverted_lists
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from crashes.small_log import folded
from fakes.inline_merges import InlineLanes
from fakes.shards import content, create_index, fingerprint, path_of, removal, take_over, unit_vectors

DIMENSION = 8
_CUTS = (3, 7, 9, 12)
_MERGED = 7
"""Segments that end at or before this offset are merged. Later ones stay unmerged."""


def build_logs() -> list[list[Change]]:
    """Build one log for each of two partitions: every column, every way to replace and to remove."""
    full = _content(
        "full",
        0,
        version=7,
        owner_id="ann",
        link="https://shop.example/full",
        metadata={"colour": "red", "price": 12.5, "in_stock": True},
        thumbnail=b"webp",
    )
    first: list[Change] = [
        full,
        _content("same picture", 1, seed=0),
        _content("replaced", 2, version=1),
        _content(
            "long text", 3, modality="text", num_rows=3, text="a red dress, and much more", owner_id="ann"
        ),
        removal("deleted at 5", 4, version=5),
        _content("unversioned", 5),
        removal("unversioned", 6),
        _content("replaced", 7, version=2),
        _content("bob's", 8, owner_id="bob", modality="text", text="größe 38", metadata={"note": "näh"}),
        _content("came back", 9, version=3),
        removal("came back", 10, version=4),
        _content("came back", 11, version=5),
    ]
    second: list[Change] = [_content(f"other {i}", i, owner_id="ann") for i in range(11)]
    return [first, [*second, removal("other 3", 11, version=1)]]


def _content(content_id: str, offset: int, **changes: Any) -> EncodedContent:
    seed = changes.pop("seed", offset)
    vectors = unit_vectors(seed, changes.pop("num_rows", 1), DIMENSION)
    return content(content_id, offset, embeddings=vectors, **changes)


def write_golden(directory: Path, vectors: VectorForm = "fp16") -> None:
    root = directory / "root"
    index = create_index(root, num_partitions=2, fingerprint=fingerprint(dimension=DIMENSION))
    logs = build_logs()
    for partition, log in enumerate(logs):
        _write_shard(index, partition, log, vectors)
    (directory / "expected.json").write_text(json.dumps(_expected(logs), indent=1, ensure_ascii=False) + "\n")


def _write_shard(index: IndexDirectory, partition: int, log: Sequence[Change], vectors: VectorForm) -> None:
    lanes = InlineLanes()
    lanes.release(is_released=True)
    settings = WriterSettings(
        retain_for_seconds=0.0,
        collect_every_seconds=0.0,
        merge=MergeSettings(merge_factor=2, max_dead_share=1.0, vectors=vectors),
        max_bitmap_bytes=0 if partition == 1 else MAX_BYTES_IN_MANIFEST,
    )
    writer = take_over(index, partition, settings=settings, lanes=lanes)
    for cut in _CUTS:
        first = writer.next_offset
        writer.add(Delta(first, cut, log[first:cut]))
        writer.commit()
        if cut == _MERGED:
            least = {"sq8": 2, "fp16": 4 if partition == 1 else inverted_lists.MIN_NODES}[vectors]
            _merge(writer, min_nodes_of_lists=least)
    writer.renew_watermark(1_700_000_000_000)
    writer.close()
    _keep_newest(writer)


def _merge(writer: ShardWriter, *, min_nodes_of_lists: int) -> None:
    with patch.object(shared_vectors, "MIN_NODES", min_nodes_of_lists):
        for _ in range(2):
            writer.maintain()


def _keep_newest(writer: ShardWriter) -> None:
    """Delete the files that only earlier generations name: no test reads them."""
    names = [name for name, _ in writer.manifest.files()]
    named = {path_of(writer) / n for n in (*names, manifest_name(writer.generation), "watermark.json")}
    for path in sorted(path_of(writer).rglob("*"), reverse=True):
        if path.is_file() and path not in named:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _expected(logs: Sequence[Sequence[Change]]) -> dict[str, Any]:
    live = [one for log in logs for one in folded(log).values()]
    return {
        "next_offsets": [len(log) for log in logs],
        "contents": {one.content_id: _fields(one) for one in live},
        "searches": [
            {
                "modality": modality,
                "query": query[0].tolist(),
                "best_first": _best_first(live, modality, query[0]),
            }
            for modality in MODALITIES
            for query in (unit_vectors(seed, 1, DIMENSION) for seed in (100, 101))
        ],
    }


def _fields(one: EncodedContent) -> dict[str, Any]:
    return {
        "offset": one.offset,
        "modality": one.modality,
        "version": one.version,
        **asdict(one.facts),
        "thumbnail": one.thumbnail.decode() if one.thumbnail else None,
        "embeddings": one.embeddings.tolist(),
    }


def _best_first(live: Sequence[EncodedContent], modality: str, query: np.ndarray) -> list[str]:
    scores = {
        one.content_id: float((one.embeddings @ query).max()) for one in live if one.modality == modality
    }
    return sorted(scores, key=lambda content_id: (-round(scores[content_id], 3), content_id))


if __name__ == "__main__":
    write_golden(Path(sys.argv[1]), "sq8" if "sq8" in sys.argv[2:] else "fp16")
