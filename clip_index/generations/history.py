"""The generations of a shard: numbered manifests, of which the one with the greatest number is current."""

from __future__ import annotations

import errno
import re
import time

from clip_index.errors import CommitUnknown, DamagedFile
from clip_index.generations.manifest import Manifest
from clip_index.generations.manifest_format import ParsedSegments, dump_manifest, parse_manifest
from clip_index.storage.parsed_files import parse_file
from clip_index.storage.shard_store import CreationUnknown, ShardStore, StoreUnreachable

_MANIFEST_NAME = re.compile(r"manifest-(\d{20})\.json", re.ASCII)
_TOO_GREAT = 10**18
"""No shard gets there. Behind a file of the greatest name no generation could follow."""
_MAX_LOOKS = 10
_PAUSE_SECONDS = 0.05


def manifest_name(generation: int) -> str:
    return f"manifest-{generation:020d}.json"


def generation_of(name: str) -> int | None:
    """Return the generation whose manifest has this file name, None for any other file."""
    match = _MANIFEST_NAME.fullmatch(name)
    generation = int(match[1]) if match else 0
    return generation if 0 < generation < _TOO_GREAT else None


def list_generations(store: ShardStore) -> list[int]:
    """Return the generations that the store lists, ascending; empty if nobody has begun the shard."""
    numbers = (generation_of(name) for name in store.list_names())
    return sorted(number for number in numbers if number is not None)


def read_manifest(store: ShardStore, generation: int) -> Manifest:
    """Read one generation; `DamagedFile` if it is not what it says, `FileNotFoundError` if it is gone."""
    return _read(store, generation)[0]


def _read(store: ShardStore, generation: int, parsed: ParsedSegments | None = None) -> tuple[Manifest, bytes]:
    address = store.address_of(manifest_name(generation))

    def parse(data: bytes) -> tuple[Manifest, bytes]:
        manifest = parse_manifest(data, address, parsed)
        if manifest.generation != generation:
            raise DamagedFile(address, f"it says generation {manifest.generation}")
        return manifest, data

    return parse_file(store, manifest_name(generation), parse)


def read_newest(store: ShardStore) -> Manifest | None:
    """Read the newest generation, None for a shard without one. A damaged one is never skipped."""
    found = ManifestReader(store).read_newest()
    return found[0] if found else None


class ManifestReader:
    """Reads the manifests of a shard that grows: of each, it parses what the one before did not have.

    Used by one thread. What it returns comes with the bytes of the file.
    """

    def __init__(self, store: ShardStore) -> None:
        self._store = store
        self._parsed = ParsedSegments()

    def read_newest(self) -> tuple[Manifest, bytes] | None:
        """Do what `read_newest` does."""
        old_listings = OldListings(self._store)
        while generations := list_generations(self._store):
            try:
                return self.read(generations[-1])
            except FileNotFoundError:  # it was collected after the listing, so a newer one exists
                old_listings.wait(generations[-1])
        return None

    def read(self, generation: int) -> tuple[Manifest, bytes]:
        """Do what `read_manifest` does."""
        return _read(self._store, generation, self._parsed)


class OldListings:
    """Waits while a store lists again what it has listed before, although another generation has followed.

    Network file systems and some stores answer a listing from memory for some seconds.
    """

    def __init__(self, store: ShardStore) -> None:
        self._store = store
        self._newest = 0
        self._num_looks = 0

    def wait(self, newest: int) -> None:
        """Pause if `newest` was the newest in the last listing, too; `StoreUnreachable` if that goes on."""
        self._num_looks = self._num_looks + 1 if newest == self._newest else 1
        self._newest = newest
        if self._num_looks > _MAX_LOOKS:
            raise StoreUnreachable(
                errno.EAGAIN,
                f"{self._store.address}: the listing is old: it ends with generation {newest}, "
                "and another one has followed",
            )
        if self._num_looks > 1:
            time.sleep(_PAUSE_SECONDS)


class GenerationTaken(Exception):
    """Another writer made this or a greater generation current: ours is not the newest."""


def link_manifest(store: ShardStore, manifest: Manifest) -> None:
    """Make the manifest current, or leave the shard as it was.

    Either this returns, and the generation is durable and the newest; or it raises:
    `GenerationTaken` (another writer was faster, or has already gone on from our generation),
    `OSError` (nothing happened, the commit may be tried again), `CommitUnknown` (the commit
    may have happened, and only the disk can tell).

    Step 1 creates the manifest under its number, which fails if the number is taken. The
    manifest's nonce tells our commit from another writer's. Step 2 lists the generations.
    Garbage collection frees old numbers, so a free number alone proves nothing: only if no
    greater generation exists has the commit succeeded. A listing without our own generation is
    older than it and proves nothing either.
    """
    try:
        store.create_exclusively(manifest_name(manifest.generation), dump_manifest(manifest))  # Step 1
    except FileExistsError as error:
        _check_other(store, manifest)
        raise GenerationTaken from error
    except CreationUnknown as error:
        raise _unknown(store, manifest.generation, error) from error
    if _list_newest(store, manifest.generation) > manifest.generation:  # Step 2
        raise GenerationTaken


def _check_other(store: ShardStore, manifest: Manifest) -> None:
    """Raise `CommitUnknown` unless another writer's manifest holds, or held, our number."""
    try:
        found = read_manifest(store, manifest.generation)
    except FileNotFoundError:
        return  # another writer's: it has been collected since
    except (OSError, DamagedFile) as error:
        raise _unknown(store, manifest.generation, error) from error
    if (found.writer_id, found.nonce) == (manifest.writer_id, manifest.nonce):
        raise _unknown(store, manifest.generation, "the store took our own manifest for another one")


def _list_newest(store: ShardStore, generation: int) -> int:
    """Return the newest generation of a listing that was made after ours was created.

    After the manifest was created every error leaves the outcome unknown.
    """
    for _ in range(_MAX_LOOKS):
        try:
            newest = max(list_generations(store), default=0)
        except OSError as error:
            raise _unknown(store, generation, error) from error
        if newest >= generation:
            return newest
        time.sleep(_PAUSE_SECONDS)
    raise _unknown(store, generation, "the listing does not show it")


def _unknown(store: ShardStore, generation: int, error: Exception | str) -> CommitUnknown:
    return CommitUnknown(f"{store.name}: generation {generation}: {error}")
