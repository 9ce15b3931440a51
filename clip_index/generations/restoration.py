"""Goes back to a former generation, by a new generation that shows the same.

Nothing is removed and no number is used again. To readers and writers the new generation is
like any other. The consumer reads the log again from its `next_offset`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

from clip_index.errors import DamagedFile, IndexRefused
from clip_index.generations.history import GenerationTaken, list_generations
from clip_index.generations.inspection import InspectedGeneration, Inspection
from clip_index.generations.installation import PlannedGeneration, install
from clip_index.generations.manifest import Manifest
from clip_index.storage.shard_store import ShardStore


@dataclass(frozen=True, slots=True)
class Restoration:
    """A plan to go back; nothing is done yet.

    The next generation will show what `source` shows. `left_behind` are generations newer
    than the source: all of them for a repair, only the newest one for a rollback.
    """

    source: Manifest
    newest: int
    left_behind: tuple[InspectedGeneration, ...]

    @property
    def next_offset_before(self) -> int | None:
        """The next offset that the shard had reached; None if no manifest left behind can be read."""
        return max((found.manifest.next_offset for found in self.left_behind if found.manifest), default=None)

    @property
    def left_segments(self) -> list[str]:
        """The segments that generations left behind name and the source does not."""
        named = {i for found in self.left_behind if found.manifest for i in found.manifest.segment_ids()}
        return sorted(named - self.source.segment_ids())


def plan_repair(inspection: Inspection) -> Restoration | None:
    """Plan to go back to the newest good generation.

    Returns None if the newest generation is good, or if the shard has no generation. Raises
    `IndexRefused` if no generation is good.
    """
    left_behind: list[InspectedGeneration] = []
    for found in inspection.newest_first():
        if found.manifest is None or found.damage is not None:
            left_behind.append(found)
        elif left_behind:
            return _restoration(found.manifest, left_behind)
        else:
            return None
    if left_behind:
        raise IndexRefused(
            f"{inspection.store.name}: none of {len(left_behind)} generations is good; "
            f"the newest one has {left_behind[0].damage}"
        )
    return None


def plan_refill(inspection: Inspection) -> Restoration:
    """Plan to go back to an empty shard at its first offset.

    The newest readable manifest tells the first offset. Raises `IndexRefused` if no manifest
    can be read.
    """
    left_behind: list[InspectedGeneration] = []
    for found in inspection.newest_first():
        left_behind.append(found)
        if found.manifest is not None:
            start = found.manifest.first_offset
            empty = replace(found.manifest, next_offset=start, segments=(), tombstones={}, watermark_ms=None)
            return _restoration(empty, left_behind)
    shard = inspection.store.name
    raise IndexRefused(f"{shard}: no manifest can be read, so its first offset is unknown")


def plan_rollback(inspection: Inspection, generation: int) -> Restoration:
    """Plan to go back to a generation by its number.

    Raises `IndexRefused` if it is not there, not good, or already the newest.
    """
    shard = inspection.store.name
    found = inspection.inspect(generation)
    if found is None or found.manifest is None:
        raise IndexRefused(f"{shard}: generation {generation} {found.damage if found else 'is not there'}")
    if found.damage is not None:
        raise IndexRefused(f"{shard}: generation {generation}: {found.damage}")
    newest = next(inspection.newest_first(), found)
    if newest.generation == generation:
        raise IndexRefused(f"{shard}: generation {generation} is the newest already")
    return _restoration(found.manifest, [newest])


def _restoration(source: Manifest, left_behind: Sequence[InspectedGeneration]) -> Restoration:
    return Restoration(source, left_behind[0].generation, tuple(left_behind))


def commit_restoration(store: ShardStore, plan: Restoration, *, writer_id: str) -> Manifest:
    """Make the planned generation current and fence every former writer of the shard.

    Either this returns, and the generation is durable and the newest; or it raises as
    `install` does. It raises `GenerationTaken` if anything was committed after the plan was
    made, so that a plan never hides a generation that it has not seen.

    The writer epoch becomes the generation's number. An epoch never exceeds the number of its
    generation: both begin at 1, a takeover adds 1 to both, a commit adds 1 to the number alone.
    So this epoch is greater even than the one in a manifest that cannot be read.
    """
    if list_generations(store)[-1:] != [plan.newest]:
        raise GenerationTaken
    generation = plan.newest + 1
    manifest = replace(
        plan.source,
        generation=generation,
        writer_epoch=generation,
        writer_id=writer_id,
        nonce=uuid4().hex,
    )
    install(store, PlannedGeneration(manifest), open_state=lambda linked: linked)
    _refuse_collected(store, manifest)
    return manifest


def _refuse_collected(store: ShardStore, manifest: Manifest) -> None:
    """Check that all files are there: a former writer could collect garbage until it was fenced."""
    for name, _ in manifest.files():
        if not store.exists(name):
            raise DamagedFile(
                store.address_of(name), f"collected before generation {manifest.generation} named it"
            )
