"""The errors of an index, sorted by what the caller does next.

ClipIndexError
├── BadContent            set this one content aside, go on with the rest
├── EncoderUnavailable    stop: the model cannot be loaded
├── EncoderBroken         stop: the model returns NaN, infinity or zero
├── IndexMissing          wait: nobody has created the index yet
├── IndexUnavailable      wait and ask again: what holds the index does not answer (an `OSError`, too)
├── Fenced                drop the shard: another writer owns it
├── CommitUnknown         stop the shard's writer and take the shard over again
├── DeltaMismatch         mend the caller: it skipped or repeated records
├── GenerationGone        begin again with the newest generation
├── BrokenEmbeddings      leave the segment as it is: it cannot be merged
├── DamagedFile           refuse to use the file, name it
│   └── DamagedIndexFile  the same of a file that no generation can replace: name the way on, too
└── IndexRefused          stop: the index does not fit the configuration
    ├── EncoderMismatch   the index was built by another encoder
    └── OtherFormat       another version wrote the file; this one cannot read it
"""

from __future__ import annotations

from pathlib import Path


class ClipIndexError(Exception):
    """The root of the tree."""


class BadContent(ClipIndexError):
    """A content that can never be encoded. `reason` is a stable code, `detail` explains it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class EncoderUnavailable(ClipIndexError):
    """The model is unknown, cannot be fetched, or does not fit its weights."""

    def __init__(self, model: str, detail: str) -> None:
        super().__init__(f"the encoder {model} cannot be loaded: {detail}")
        self.model = model
        self.detail = detail


class EncoderBroken(ClipIndexError):
    """The model returned NaN, infinity or zero: its weights or the machine are damaged."""


class IndexMissing(ClipIndexError):
    """There is no such index yet."""


class IndexUnavailable(ClipIndexError, OSError):
    """What holds the index does not answer, or cannot do now what it was asked."""


class Fenced(ClipIndexError):
    """A writer with a greater epoch owns the shard."""

    def __init__(self, shard: str, own_epoch: int, found_epoch: int) -> None:
        super().__init__(f"{shard}: fenced: own writer epoch {own_epoch}, found {found_epoch}")
        self.shard = shard
        self.own_epoch = own_epoch
        self.found_epoch = found_epoch


class CommitUnknown(ClipIndexError):
    """A commit may or may not have happened; only the disk can tell."""


class DeltaMismatch(ClipIndexError):
    """A delta does not start at its writer's next offset."""

    def __init__(self, shard: str, expected: int, actual: int) -> None:
        super().__init__(f"{shard}: delta starts at {actual}, expected {expected}")
        self.shard = shard
        self.expected = expected
        self.actual = actual


class GenerationGone(ClipIndexError):
    """A generation that the caller named is no longer on disk."""

    def __init__(self, shard: str, generation: int) -> None:
        super().__init__(f"{shard}: generation {generation} is gone")
        self.shard = shard
        self.generation = generation


class BrokenEmbeddings(ClipIndexError):
    """A segment holds live embeddings that are NaN or infinite, for which there are no nearest lists."""

    def __init__(self, segment_id: str, modality: str, num_broken: int) -> None:
        super().__init__(
            f"segment {segment_id} has {num_broken} {modality} embeddings that are not finite numbers: "
            "delete or publish again the contents that no search finds"
        )
        self.segment_id = segment_id


class DamagedFile(ClipIndexError):
    """A file does not have the digest that its manifest or the file itself says."""

    def __init__(self, file: Path | str, detail: str) -> None:
        super().__init__(f"damaged file {file}: {detail}")
        self.file = str(file)
        self.detail = detail


class DamagedIndexFile(DamagedFile):
    """A file that describes the whole index is damaged; `way_on` says what to do, as no generation helps."""

    def __init__(self, file: Path | str, detail: str, *, way_on: str) -> None:
        super().__init__(file, f"{detail}; {way_on}")


class IndexRefused(ClipIndexError):
    """The index does not fit the log or the settings."""


class OtherFormat(IndexRefused):
    """The file is sound, but this version does not read its format. A repair must not discard it."""

    def __init__(self, file: Path | str, found: object, *readable: int) -> None:
        *others, last = map(str, readable)
        formats = f"{', '.join(others)} and {last}" if others else last
        super().__init__(
            f"{file} has format {found}, and this version of cliptide reads {formats}: "
            "run the version that wrote it"
        )


class EncoderMismatch(IndexRefused):
    """The index was built by another encoder."""

    def __init__(self, *, built_by: str, running: str) -> None:
        """`built_by` and `running` are the texts of the two encoders' fingerprints."""
        super().__init__(f"the index was built by {built_by}; this process runs {running}")
