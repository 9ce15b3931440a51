"""One upload as a source file states it, checked field by field."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AliasChoices,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from schemas.errors import BadEvent
from schemas.events import MetadataValue, Modality
from schemas.json_format import double_from_integer

Text = Annotated[str, StringConstraints(min_length=1)]


def _exact(value: object) -> object:
    """Numbers are doubles; an integer that would become another one is refused, as in JSON events."""
    if type(value) is not int:
        return value
    try:
        return double_from_integer(value)
    except BadEvent as error:
        raise PydanticCustomError(
            "invalid_value", "an integer that no double holds; send it as a text"
        ) from error


Value = Annotated[MetadataValue, BeforeValidator(_exact)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class UploadFields(BaseModel):
    """The columns of a CSV and the keys of a JSONL line; one of file, text and link holds the content.

    A `link` beside a file or text is only shown with the content; alone it is where the
    content lies, and then `sha256`, `size_bytes` and `modality` say what must lie there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    content_id: Text | None = Field(None, validation_alias=AliasChoices("content_id", "id"))
    file: Text | None = None
    text: Text | None = None
    link: Text | None = None
    owner_id: Text | None = Field(None, validation_alias=AliasChoices("owner_id", "owner"))
    source: Text | None = None
    version: int | None = None
    occurred_at: AwareDatetime | None = None
    metadata: dict[str, Value] = Field(default_factory=dict)
    sha256: Sha256 | None = None
    size_bytes: int | None = Field(None, ge=1)
    modality: Modality | None = None


@dataclass(frozen=True, slots=True)
class UploadRow:
    """A row that can become an event. `place` names it to a person: a line number or a file name."""

    place: str
    fields: UploadFields
    folder: Path  # what a relative `file` starts from


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot, and why."""

    place: str
    reason: str


def row_from_values(place: str, values: dict[str, Any], folder: Path) -> UploadRow | BadRow:
    """Check one row's values; the reason of a bad row names the column."""
    try:
        fields = UploadFields.model_validate(values)
    except ValidationError as error:
        return BadRow(place, _reason(error))
    if fields.file is not None and fields.text is not None:
        return BadRow(place, "has both file and text")
    if fields.file is None and fields.text is None:
        return _reference_row(place, fields, folder)
    return UploadRow(place, fields, folder)


def _reference_row(place: str, fields: UploadFields, folder: Path) -> UploadRow | BadRow:
    if fields.link is None:
        return BadRow(place, "has no file, text or link")
    needed = {"sha256": fields.sha256, "size_bytes": fields.size_bytes, "modality": fields.modality}
    missing = [name for name, value in needed.items() if value is None]
    if missing:
        return BadRow(place, f"a link without file or text needs {', '.join(missing)}")
    return UploadRow(place, fields, folder)


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    column = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{column}: there is no such column; there are {', '.join(UploadFields.model_fields)}"
    return f"{column}: {first['msg'].lower()}"
