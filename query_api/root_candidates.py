"""The indexes of a root as candidates for a swap: which one is named, and where the model of each is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from clip_index.encoder.picture_crops import max_crops_of
from clip_index.encoder.protocol import Encoder, EncoderFingerprint
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import (
    ClipIndexError,
    DamagedFile,
    EncoderMismatch,
    EncoderUnavailable,
    IndexMissing,
    IndexRefused,
    OtherFormat,
)
from clip_index.indexes.index_directory import IndexDescription, IndexDirectory
from clip_index.indexes.pointer import PointerReader, read_history
from clip_index.indexes.recorded_model import RecordedModel, read_model
from clip_index.storage.index_roots import IndexRoot, open_root
from query_api.serving.engine import Reader
from query_api.swap.candidates import NamedIndex, OpenedIndex

log = structlog.get_logger()
_LOADING_FACTOR = 2  # while a model is loaded, its weights are in memory twice


class ModelLoader(Protocol):
    """Loads models. `weigh` returns the bytes of a model's weights, None if nobody knows before loading."""

    def load(self, settings: EncoderSettings) -> Encoder: ...

    def weigh(self, settings: EncoderSettings) -> int | None: ...


OpenReader = Callable[[str, EncoderFingerprint], Reader]


@dataclass(frozen=True, slots=True)
class RootCandidates:
    """Implements `Candidates`.

    The model of an index is the one that `overrides` names for its id, the one that was recorded beside it,
    or the configured one (`settings`), in this order. Each is compared with the index's fingerprint.
    """

    root: IndexRoot
    settings: EncoderSettings
    loader: ModelLoader
    open_reader: OpenReader
    free_bytes: Callable[[], int | None]
    overrides: Mapping[str, RecordedModel] = field(default_factory=dict)
    num_processes: Callable[[], int] = lambda: 1  # those that share the port, and so the memory
    _known: dict[RecordedModel, EncoderFingerprint] = field(default_factory=dict)
    _pointers: PointerReader = field(default_factory=PointerReader)

    @property
    def look_every_seconds(self) -> float:
        return open_root(self.root).look_every_seconds

    def named(self) -> NamedIndex | None:
        try:
            pointer = self._pointers.read(open_root(self.root))
        except IndexMissing:
            return None
        return NamedIndex(pointer.index_id, pointer.number)

    def former_descriptions(self) -> Sequence[IndexDescription]:
        found = []
        for index_id in {pointer.index_id for pointer in read_history(open_root(self.root))}:
            try:
                found.append(IndexDirectory.open(self.root, index_id).description)
            except (ClipIndexError, OSError):
                continue  # an index that was removed since, whose cursors nobody can tell from others
        return found

    def refusal(self, index_id: str, running: EncoderFingerprint) -> str | None:
        try:
            index = IndexDirectory.open(self.root, index_id)
            if index.description.fingerprint.has_same_model_as(running):
                return None
            model = self._models(index)[0]
            return self._lack_of_memory(model, self.num_processes())
        except IndexMissing:
            return f"there is no index {index_id}"
        except (DamagedFile, OtherFormat, OSError) as error:
            log.warning("another index cannot be read", index=index_id, error=str(error))
            return f"the index {index_id} cannot be read: the log says why"
        except IndexRefused as error:
            return str(error)

    def open(self, index_id: str, running: EncoderFingerprint) -> OpenedIndex:
        """Load the encoder before the index, so that a model that is missing costs no open files."""
        index = IndexDirectory.open(self.root, index_id)
        if index.description.fingerprint.has_same_model_as(running):
            encoder, fingerprint = None, running
        else:
            encoder = self._load(index)
            fingerprint = encoder.fingerprint
        reader = self.open_reader(index_id, fingerprint)
        if reader.searcher is None:
            raise IndexMissing(f"the index {index_id} cannot be opened yet")
        return OpenedIndex(reader, encoder)

    def load_for(self, index_id: str) -> Encoder:
        """Load the encoder of an index when nothing is served yet."""
        return self._load(IndexDirectory.open(self.root, index_id), is_alone=True)

    def _load(self, index: IndexDirectory, *, is_alone: bool = False) -> Encoder:
        """Load the first of the models that fits. If none does, raise what the likeliest one failed with."""
        built_by = index.description.fingerprint
        failures: list[ClipIndexError] = []
        for model in self._models(index):
            if not is_alone and (lack := self._lack_of_memory(model)) is not None:
                raise EncoderUnavailable(model.model, lack)
            try:
                encoder = self.loader.load(model)
            except EncoderUnavailable as error:
                failures.append(error)
                continue
            self._known[RecordedModel.of(model)] = encoder.fingerprint
            if encoder.fingerprint.has_same_model_as(built_by):
                return encoder
            failures.append(EncoderMismatch(built_by=str(built_by), running=str(encoder.fingerprint)))
        raise failures[0]

    def _models(self, index: IndexDirectory) -> list[EncoderSettings]:
        """Return the models that may be the index's, the likeliest first; `IndexRefused` without any."""
        built_by = index.description.fingerprint
        configured = RecordedModel.of(self.settings)
        if (override := self.overrides.get(index.index_id)) is not None:
            candidates = [override]
        else:
            recorded = read_model(index.store)
            candidates = [recorded] if recorded is not None and recorded.is_here else []
            candidates += [configured] if configured not in candidates else []
        possible = [model for model in candidates if self._may_fit(model, built_by)]
        if not possible:
            raise IndexRefused(_no_model(index.index_id, built_by))
        crops = self.settings.max_crops or max_crops_of(built_by.windowing)
        settings = replace(self.settings, max_crops=crops)
        return [model.applied_to(settings) for model in possible]

    def _may_fit(self, model: RecordedModel, built_by: EncoderFingerprint) -> bool:
        """False for a model that was loaded before and is another one."""
        known = self._known.get(model)
        return known is None or known.has_same_model_as(built_by)

    def know(self, encoder: Encoder) -> None:
        """Remember the encoder that was loaded at the start by the configured model."""
        self._known[RecordedModel.of(self.settings)] = encoder.fingerprint

    def _lack_of_memory(self, model: EncoderSettings, num_processes: int = 1) -> str | None:
        """Say what is missing if so many processes load the model at once, as they do after a switch.

        A process that loads asks for itself alone, because what others have loaded is no longer free.
        """
        weight, free = self.loader.weigh(model), self.free_bytes()
        if weight is None or free is None:
            return None
        needed = weight * _LOADING_FACTOR * num_processes
        if needed <= free:
            return None
        who = f" in each of {num_processes} processes" if num_processes > 1 else ""
        return (
            f"both encoders do not fit into memory: to load the second one{who} takes {_megabytes(needed)}, "
            f"and {_megabytes(free)} are free"
        )


def _no_model(index_id: str, built_by: EncoderFingerprint) -> str:
    return (
        f"the model of the index {index_id} is not known here (it was built by {built_by}): name it in "
        f"CLIPTIDE_QUERY_API__MODELS"
    )


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.0f} MiB"
