"""One upload as a source file describes it, checked field by field."""

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
from schemas.validation import MAX_TITLE_CHARACTERS
from service.value_errors import value_error

Text = Annotated[str, StringConstraints(min_length=1)]


def _exact(value: object) -> object:
    """Refuse an integer that no double can hold, as JSON events do. Numbers are stored as doubles."""
    if type(value) is not int:
        return value
    try:
        return double_from_integer(value)
    except BadEvent as error:
        raise PydanticCustomError(
            "invalid_value", "a double cannot hold this integer; send it as a text"
        ) from error


Value = Annotated[MetadataValue, BeforeValidator(_exact)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def _split(value: object) -> object:
    """Split tags at commas, as a CSV has them. JSON has lists."""
    if isinstance(value, str):
        return [tag.strip() for tag in value.split(",") if tag.strip()]
    return value


Tags = Annotated[tuple[Text, ...], BeforeValidator(_split)]
OTHER_NAMES = {
    "content_id": "content_id",
    "id": "content_id",
    "owner_id": "owner_id",
    "owner": "owner_id",
    "file": "file",
    "image": "file",
    "file_name": "file",
}
"""Columns that mean the same, as other tools name them; a row has one of them."""


def _named(field: str) -> AliasChoices:
    return AliasChoices(*(name for name, meant in OTHER_NAMES.items() if meant == field))


class UploadFields(BaseModel):
    """The columns of a CSV and the keys of a JSONL line. One of file, text and link gives the content.

    A `link` beside a file or a text is shown with the content. A `link` alone is the address of the
    content; it needs `modality`, and should have `sha256` and `size_bytes`, so that the bytes can be checked.
    `title` is shown with the content; without one the `caption` is. `caption` and `tags` become entries of
    its metadata.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    content_id: Text | None = Field(None, validation_alias=_named("content_id"))
    file: Text | None = Field(None, validation_alias=_named("file"))
    text: Text | None = None
    link: Text | None = None
    owner_id: Text | None = Field(None, validation_alias=_named("owner_id"))
    title: Text | None = None
    caption: Text | None = None
    tags: Tags | None = None
    source: Text | None = None
    version: int | None = None
    occurred_at: AwareDatetime | None = None
    metadata: dict[str, Value] = Field(default_factory=dict)
    sha256: Sha256 | None = None
    size_bytes: int | None = Field(None, ge=1)
    modality: Modality | None = None

    @property
    def shown_title(self) -> str | None:
        """The title; without one the caption, if it is short enough for a title."""
        if self.title is not None or self.caption is None:
            return self.title
        return self.caption if len(self.caption) <= MAX_TITLE_CHARACTERS else None

    @property
    def descriptions(self) -> dict[str, MetadataValue]:
        """The entries of the metadata that have columns of their own, as far as the row has them."""
        found: dict[str, MetadataValue | None] = {"caption": self.caption, "tags": self.tags}
        return {name: value for name, value in found.items() if value}


COLUMNS = ", ".join(UploadFields.model_fields)


@dataclass(frozen=True, slots=True)
class UploadRow:
    """A row that can become an event. `label` names it to a person: a line number or a file name."""

    label: str
    fields: UploadFields
    folder: Path  # relative `file` paths start here


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot become an event; `reason` says why."""

    label: str
    reason: str


def row_from_values(label: str, values: dict[str, Any], folder: Path) -> UploadRow | BadRow:
    """Check the values of one row. The reason of a bad row names the column."""
    try:
        fields = UploadFields.model_validate(_with_link(values))
    except ValidationError as error:
        return BadRow(label, _reason(error))
    if twice := sorted(fields.descriptions.keys() & fields.metadata.keys()):
        return BadRow(label, f"{', '.join(twice)}: given as a column and in metadata")
    if fields.file is not None and fields.text is not None:
        return BadRow(label, "has both file and text")
    if fields.file is None and fields.text is None:
        return _reference_row(label, fields, folder)
    return UploadRow(label, fields, folder)


def _reference_row(label: str, fields: UploadFields, folder: Path) -> UploadRow | BadRow:
    if fields.link is None:
        hint = (
            " (a caption describes a picture; the column of a text is named text)" if fields.caption else ""
        )
        return BadRow(label, f"has no file, text or link{hint}")
    if fields.modality is None:
        return BadRow(label, "a link without file or text needs modality (text or image)")
    return UploadRow(label, fields, folder)


def _with_link(values: dict[str, Any]) -> dict[str, Any]:
    """Take an address in the column of a picture as a link, because it is the name of no file."""
    picture = values.get("image")
    if "link" in values or not str(picture).startswith(("http://", "https://", "s3://", "gs://", "az://")):
        return values
    others = {name: value for name, value in values.items() if name != "image"}
    return {"modality": "image", **others, "link": picture}


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    column = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden" and column in OTHER_NAMES:
        return f"{column}: another column gives the {OTHER_NAMES[column]} already"
    if first["type"] == "extra_forbidden":
        return f"{column}: there is no such column; there are {COLUMNS}"
    return f"{column}: {value_error(first)}"
