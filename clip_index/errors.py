"""What can go wrong with an index, sorted by what the caller does next.

ClipIndexError
├── BadContent            set this one content aside, go on with the rest
├── EncoderUnavailable    stop: the model cannot be loaded
├── EncoderBroken         stop: the model returns what is no embedding
├── IndexMissing          wait: nobody has created the index yet
├── Fenced                drop the shard for good: another writer owns it
├── CommitUnknown         stop the shard's writer and recover from disk
├── DeltaMismatch         a fault of the caller: records were skipped or repeated
├── GenerationGone        begin again with the newest generation
├── DamagedFile           refuse to use the file, name it
└── IndexRefused          stop: configuration and index do not fit together
    ├── EncoderMismatch   the index was built by another encoder
    └── OtherFormat       another version wrote what this one cannot read
"""

from __future__ import annotations

from pathlib import Path


class ClipIndexError(Exception):
    """The root of the tree."""


class BadContent(ClipIndexError):
    """A content that can never be encoded; `reason` is a stable code, `detail` explains it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class EncoderUnavailable(ClipIndexError):
    """A model that is unknown, cannot be fetched, or does not fit its weights."""

    def __init__(self, model: str, detail: str) -> None:
        super().__init__(f"the encoder {model} cannot be loaded: {detail}")
        self.model = model
        self.detail = detail


class EncoderBroken(ClipIndexError):
    """The model returned NaN, infinity or zero: its weights or the machine are not sound."""


class IndexMissing(ClipIndexError):
    """There is no index at this place yet."""


class Fenced(ClipIndexError):
    """A writer of a greater epoch owns the shard."""

    def __init__(self, shard: str, own_epoch: int, found_epoch: int) -> None:
        super().__init__(f"{shard}: fenced: own writer epoch {own_epoch}, found {found_epoch}")
        self.shard = shard
        self.own_epoch = own_epoch
        self.found_epoch = found_epoch


class CommitUnknown(ClipIndexError):
    """A commit may or may not have happened; only the disk can tell."""


class DeltaMismatch(ClipIndexError):
    """A delta does not start where its writer is."""

    def __init__(self, shard: str, expected: int, actual: int) -> None:
        super().__init__(f"{shard}: delta starts at {actual}, expected {expected}")
        self.shard = shard
        self.expected = expected
        self.actual = actual


class GenerationGone(ClipIndexError):
    """A generation that was asked for by its number is no longer on disk."""

    def __init__(self, shard: str, generation: int) -> None:
        super().__init__(f"{shard}: generation {generation} is gone")
        self.shard = shard
        self.generation = generation


class DamagedFile(ClipIndexError):
    """A file is not what its manifest or its self-digest says."""

    def __init__(self, file: Path | str, detail: str) -> None:
        super().__init__(f"damaged file {file}: {detail}")
        self.file = str(file)
        self.detail = detail


class IndexRefused(ClipIndexError):
    """Index, log and settings contradict each other."""


class OtherFormat(IndexRefused):
    """Sound, but of a format that this version does not read; nothing of it may be repaired away."""

    def __init__(self, file: Path | str, found: object, readable: int) -> None:
        super().__init__(
            f"{file} has format {found}, and this version of cliptide reads {readable}: "
            "run the version that wrote it"
        )


class EncoderMismatch(IndexRefused):
    """The index was built by another encoder."""

    def __init__(self, *, built_by: str, running: str) -> None:
        """`built_by` and `running` are the texts of the two encoders' fingerprints."""
        super().__init__(f"the index was built by {built_by}; this process runs {running}")
