"""How a writer becomes the owner of a shard."""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import uuid4

from clip_index.errors import Fenced
from clip_index.generations.history import GenerationTaken, OldListings, link_manifest, read_newest
from clip_index.generations.manifest import Manifest
from clip_index.storage.shard_store import ShardStore


@dataclass(frozen=True, slots=True)
class Claim:
    """Who wants to own a shard.

    A new shard begins at `first_offset`, the log's start. A writer that lost track of its own commit
    passes the epoch that it had as `own_epoch`.
    """

    writer_id: str
    first_offset: int = 0
    own_epoch: int | None = None


def take_over_manifest(store: ShardStore, claim: Claim) -> Manifest:
    """Commit a generation with the same content and a greater writer epoch; retry until it wins.

    A former owner may commit after this has read the newest generation. Then this reads and
    takes over the former owner's generation. When this returns, every commit that the former
    owner still tries finds its number taken, or a greater generation.

    If the store's listing is old, this waits for a newer one, and raises `StoreUnreachable` in the end.
    If the claim has an `own_epoch`, this raises `Fenced` if another writer has taken the shard over since.
    """
    old_listings = OldListings(store)
    while True:
        newest = read_newest(store)
        if newest is not None and claim.own_epoch is not None:
            _check_own(store, newest, claim.writer_id, claim.own_epoch)
        manifest = _successor(newest, claim.writer_id) if newest else _first(claim)
        try:
            link_manifest(store, manifest)
        except GenerationTaken:
            old_listings.wait(manifest.generation - 1)
            continue
        return manifest


def _check_own(store: ShardStore, newest: Manifest, writer_id: str, own_epoch: int) -> None:
    if newest.writer_epoch > own_epoch and newest.writer_id != writer_id:
        raise Fenced(store.name, own_epoch, newest.writer_epoch)


def _successor(newest: Manifest, writer_id: str) -> Manifest:
    return replace(
        newest,
        generation=newest.generation + 1,
        writer_epoch=newest.writer_epoch + 1,
        writer_id=writer_id,
        nonce=uuid4().hex,
    )


def _first(claim: Claim) -> Manifest:
    return Manifest(
        generation=1,
        writer_epoch=1,
        writer_id=claim.writer_id,
        nonce=uuid4().hex,
        first_offset=claim.first_offset,
        next_offset=claim.first_offset,
    )
