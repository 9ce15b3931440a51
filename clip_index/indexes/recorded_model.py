"""`model.json` beside an index: with which model it was begun, so that a service can load that one.

The fingerprint in `index.json` tells whether a model is the right one, but not where it is. The file is no
part of a generation, and an index without it works: then settings name the model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import DamagedFile
from clip_index.storage.digested_json import dump_digested
from clip_index.storage.parsed_files import read_digested
from clip_index.storage.shard_store import ShardStore

_FILE = "model.json"


@dataclass(frozen=True, slots=True)
class RecordedModel:
    """A model as `EncoderSettings` names it. The path of a local one is absolute, as its machine had it."""

    model: str
    pretrained: str | None = None

    @classmethod
    def of(cls, settings: EncoderSettings) -> RecordedModel:
        """`pretrained` is left out where it says nothing, so that equal models have equal records."""
        path = Path(settings.model)
        if path.exists():
            return cls(str(path.resolve()))
        if settings.model.startswith("hf-hub:"):
            return cls(settings.model)
        return cls(settings.model, _absolute(settings.pretrained))

    def applied_to(self, settings: EncoderSettings) -> EncoderSettings:
        """Return how to run this model: everything else is as these settings say."""
        return replace(settings, model=self.model, pretrained=self.pretrained)

    @property
    def is_here(self) -> bool:
        """False if it is a path that this machine does not have. A name may be fetched."""
        return not self.model.startswith("/") or Path(self.model).exists()


def _absolute(pretrained: str | None) -> str | None:
    """Return a file of weights by its absolute path, and a tag as it is."""
    if pretrained is None or not Path(pretrained).is_file():
        return pretrained
    return str(Path(pretrained).resolve())


def record_model(store: ShardStore, model: RecordedModel) -> None:
    """Write which model an index is begun with, unless that is written already."""
    store.ensure(_FILE, dump_digested({"model": model.model, "pretrained": model.pretrained}))


def copy_model(source: ShardStore, target: ShardStore) -> None:
    """Write the same into another store of the index, such as a backup; nothing if nothing is written."""
    if (model := read_model(source)) is not None:
        record_model(target, model)


def read_model(store: ShardStore) -> RecordedModel | None:
    """Return the model that an index was begun with; None if that is not written, or not readable."""
    try:
        fields = read_digested(store, _FILE)
    except (DamagedFile, OSError):
        return None
    model, pretrained = fields.get("model"), fields.get("pretrained")
    if not isinstance(model, str) or not isinstance(pretrained, str | None):
        return None
    return RecordedModel(model, pretrained)
