"""The one step that replaces the newest generation of a shard: a commit, a merge or a restoration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from pyroaring import BitMap

from clip_index.generations.history import link_manifest
from clip_index.generations.manifest import Manifest, TombstonesFile, pack_name, tombstones_name
from clip_index.generations.tombstones import write_tombstones
from clip_index.storage.shard_store import ShardStore

_StateT = TypeVar("_StateT")


@dataclass(frozen=True, slots=True)
class PlannedGeneration:
    """What the next generation will show.

    `files_to_write` are all dead rows of those segments whose tombstones go to a new file; of the
    others the manifest says everything. `added` are the segments that were written for this
    generation. No other generation names them.
    """

    manifest: Manifest
    files_to_write: Mapping[str, BitMap] = field(default_factory=dict)
    added: tuple[str, ...] = ()


def install(
    store: ShardStore, planned: PlannedGeneration, open_state: Callable[[Manifest], _StateT]
) -> _StateT:
    """Make the planned generation the newest one; return what `open_state` opens of it.

    Either this returns, and the generation is durable and the newest; or it raises:
    `OSError` (nothing happened, and the added files are removed, because a full disk must
    not fill up further with every attempt); `GenerationTaken` (another generation is the
    newest); `CommitUnknown` (only the disk can tell). After the last two every file stays,
    because the manifest on disk may name it.

    Step 1 writes those tombstones that need a file. Step 2 opens the new state, so that nothing
    unreadable ever becomes current. Step 3 links the manifest, the one atomic step. Nothing can fail
    after it.
    `link_manifest` lists the directory behind the link: garbage collection frees old numbers, so a
    link that succeeds does not prove that the generation is the newest.
    """
    written: dict[str, TombstonesFile] = {}
    try:
        generation = planned.manifest.generation
        written = write_tombstones(store, planned.files_to_write, generation=generation)  # Step 1
        manifest = _with_files(planned.manifest, written)
        state = open_state(manifest)  # Step 2
        link_manifest(store, manifest)  # Step 3
    except OSError:
        for segment_id in planned.added:
            store.remove(pack_name(segment_id))
        for file in written.values():
            store.remove(tombstones_name(file.file_name))
        raise
    return state


def _with_files(manifest: Manifest, written: Mapping[str, TombstonesFile]) -> Manifest:
    """Let the files hold all dead rows of their segments, which the manifest then does not repeat."""
    entries = {i: replace(manifest.tombstones[i], bitmap=b"", file=file) for i, file in written.items()}
    return replace(manifest, tombstones={**manifest.tombstones, **entries})
