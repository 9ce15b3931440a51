"""How a writer becomes the owner of a shard."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from clip_index.generations import GenerationTaken, link_manifest, read_newest
from clip_index.manifest import Manifest


def take_over_manifest(shard_path: Path, *, writer_id: str, first_offset: int) -> Manifest:
    """Commit a generation with the same content and a greater writer epoch; retry until it wins.

    A former owner may commit between the reading and the link: then its generation is
    read and taken over. When this returns, every commit that the former owner still
    tries finds its number taken, or a greater generation.
    """
    while True:
        newest = read_newest(shard_path)
        manifest = _successor(newest, writer_id) if newest else _first(writer_id, first_offset)
        try:
            link_manifest(shard_path, manifest)
        except GenerationTaken:
            continue
        return manifest


def _successor(newest: Manifest, writer_id: str) -> Manifest:
    return replace(
        newest,
        generation=newest.generation + 1,
        writer_epoch=newest.writer_epoch + 1,
        writer_id=writer_id,
        nonce=uuid4().hex,
    )


def _first(writer_id: str, first_offset: int) -> Manifest:
    return Manifest(
        generation=1,
        writer_epoch=1,
        writer_id=writer_id,
        nonce=uuid4().hex,
        first_offset=first_offset,
        next_offset=first_offset,
    )
