"""The models of calls that write many contents at once."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import Self

from query_api.answers.snapshot import SnapshotAnswer
from query_api.contract.filters import Filter
from query_api.contract.models import Answer, Request, Timings
from query_api.errors import ErrorDetail
from query_api.uploads.models import UploadRequest

MAX_UPLOADS = 64
MAX_DELETED = 10_000  # of one call
NUM_SHOWN_IDS = 100

MinOffsets = Annotated[
    dict[str, int],
    Field(description="The `min_offsets` with which a search sees all that was written."),
]


class UploadBatchRequest(Request):
    """Up to 64 uploads and deletes. Events of one content are written in this order."""

    contents: list[UploadRequest] = Field(min_length=1, max_length=MAX_UPLOADS, fail_fast=True)


class UncheckedUploads(Request):
    """The same, whose items are read one by one, because a wrong one must not refuse the others."""

    contents: list[Any] = Field(min_length=1, max_length=MAX_UPLOADS, fail_fast=True)


class OutcomeError(Answer):
    code: str
    message: str
    details: list[ErrorDetail] | None = None


class UploadOutcome(Answer):
    """What became of one upload: its position in the log, or an error."""

    status: int = Field(description="The status that this upload would have had in a request of its own.")
    content_id: str | None = Field(default=None, description="Absent if the upload has none.")
    shard: str | None = None
    offset: int | None = None
    next_offset: int | None = None
    error: OutcomeError | None = None


class UploadBatchAnswer(Answer):
    outcomes: list[UploadOutcome] = Field(description="One for each upload, in order.")
    num_failed: int
    min_offsets: MinOffsets
    timings: Timings


class BulkDeleteRequest(Request):
    """Delete every content that passes a filter."""

    filter: Filter = Field(description="It needs at least one condition.")
    dry_run: bool = Field(default=True, description="Only say what would be deleted.")
    max_contents: int = Field(
        default=1000, ge=1, le=MAX_DELETED, description="Delete nothing if more contents than this pass."
    )

    @model_validator(mode="after")
    def _has_a_condition(self) -> Self:
        if self.filter.as_row_filter() is None:
            raise PydanticCustomError("invalid_value", "the filter needs at least one condition")
        return self


class BulkDeleteAnswer(Answer):
    dry_run: bool
    num_found: int = Field(description="How many contents of this snapshot pass the filter.")
    num_deleted: int = Field(description="How many deletes are in the log.")
    content_ids: list[str] = Field(description="The first 100 that pass, the newest first.")
    min_offsets: MinOffsets
    snapshot: SnapshotAnswer
    timings: Timings
