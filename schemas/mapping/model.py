"""A mapping as its file writes it: rules, each with conditions and the values that it takes.

A value is a JSON pointer (RFC 6901, a text that begins with `/`), a constant, or an object with
a source and what is done with it.
"""

from __future__ import annotations

from string import Formatter
from typing import Annotated, Any, Literal, TypeAlias

from jsonpointer import JsonPointer, JsonPointerException
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Scalar: TypeAlias = str | int | float | bool
SOURCES = ("pointer", "header", "key", "const", "template", "first_of")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def _check_pointer(text: str) -> str:
    try:
        JsonPointer(text)
    except JsonPointerException:
        raise PydanticCustomError("pointer", "is not a JSON pointer: it begins with / or is empty") from None
    return text


def _as_source(value: object) -> object:
    """Read the short forms of a value: a pointer or a constant."""
    if isinstance(value, str) and value.startswith("/"):
        return {"pointer": value}
    return {"const": value} if isinstance(value, (str, int, float, bool)) else value


def _as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


Pointer = Annotated[str, AfterValidator(_check_pointer)]
Texts = Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1)]


class Value(_Part):
    """One value of an event: a source, then `decode`, `unit`, `table` and `encode` in this order.

    `key` is the record's key as text. `first_of` is the first of several values that is there.
    A value that is not there fails the record, unless it is `optional`.
    """

    pointer: Pointer | None = None
    header: str | None = None
    key: Literal[True] | None = None
    const: Scalar | None = None
    template: str | None = None
    parts: dict[str, ValueSpec] = Field(default_factory=dict, alias="with")
    first_of: list[ValueSpec] | None = Field(default=None, min_length=1)
    decode: Literal["url"] | None = None
    encode: Literal["url"] | None = None
    unit: Literal["s", "ms", "us", "ns"] | None = None
    table: dict[str, Scalar] | None = None
    optional: bool = False

    @model_validator(mode="after")
    def _has_one_source(self) -> Value:
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise PydanticCustomError("source", "needs exactly one of " + ", ".join(SOURCES))
        if self.template is not None:
            _check_template(self.template, self.parts)
        elif self.parts:
            raise PydanticCustomError("source", "has `with`, but no template")
        return self


def _check_template(template: str, parts: dict[str, Value]) -> None:
    try:
        fields = list(Formatter().parse(template))
    except ValueError:
        raise PydanticCustomError("template", "has a brace without its other half") from None
    for _, name, format_spec, conversion in fields:
        if name is not None and (name not in parts or format_spec or conversion):
            raise PydanticCustomError("template", "names something in braces that `with` does not have")


ValueSpec = Annotated[Value, BeforeValidator(_as_source)]


class Condition(_Part):
    """What a record must have for a rule to apply: a field or a header, and one test of its text.

    Every test but `exists: false` needs the field to be there; `none_of` too.
    """

    pointer: Pointer | None = None
    header: str | None = None
    equals: Scalar | None = None
    any_of: list[Scalar] | None = Field(default=None, min_length=1)
    none_of: list[Scalar] | None = Field(default=None, min_length=1)
    starts_with: Texts | None = None
    ends_with: Texts | None = None
    exists: bool | None = None

    @model_validator(mode="after")
    def _has_one_field_and_one_test(self) -> Condition:
        if (self.pointer is None) == (self.header is None):
            raise PydanticCustomError("condition", "needs exactly one of pointer and header")
        tests = ("equals", "any_of", "none_of", "starts_with", "ends_with", "exists")
        if sum(getattr(self, name) is not None for name in tests) != 1:
            raise PydanticCustomError("condition", "needs exactly one of " + ", ".join(tests))
        return self

    @property
    def subject(self) -> str:
        return f"header {self.header}" if self.pointer is None else self.pointer or "the value"


class Reference(_Part):
    """A content that lies elsewhere."""

    uri: ValueSpec
    modality: ValueSpec
    sha256: ValueSpec | None = None
    size_bytes: ValueSpec | None = None
    etag: ValueSpec | None = None


class ContentSource(_Part):
    """Where the content is: one of a text, an image in base64, a reference, and the record's whole value."""

    text: ValueSpec | None = None
    image: ValueSpec | None = None
    reference: Reference | None = None
    whole_value: Literal["text", "image"] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> ContentSource:
        if sum(getattr(self, name) is not None for name in type(self).model_fields) != 1:
            raise PydanticCustomError("content", "needs exactly one of text, image, reference, whole_value")
        return self


class MetadataSource(_Part):
    """The texts, numbers, booleans and lists of texts of the object at a pointer, and no other values."""

    pointer: Pointer
    leave_out: list[str] = []


class Taken(_Part):
    """The values of the event. `event` is the pointer of an object that already is an event in plain JSON."""

    event: Pointer | None = None
    content_id: ValueSpec | None = None
    operation: ValueSpec | None = None
    occurred_at: ValueSpec | None = None
    version: ValueSpec | None = None
    event_id: ValueSpec | None = None
    source: ValueSpec | None = None
    owner_id: ValueSpec | None = None
    link: ValueSpec | None = None
    title: ValueSpec | None = None
    content: ContentSource | None = None
    metadata: dict[str, ValueSpec] = {}
    metadata_from: MetadataSource | None = None


class Rule(_Part):
    """Applies to a record if all of `when` hold. The first rule that applies makes the event.

    `at` names the object in which all pointers start: the first of several that is there.
    `ignore` passes over the record: it is no upload and no failure. `refuse` sets it aside and says why.
    """

    name: str = Field(min_length=1)
    at: Annotated[list[Pointer], BeforeValidator(_as_list), Field(min_length=1)] = [""]
    when: list[Condition] = []
    ignore: bool = False
    refuse: str | None = None
    take: Taken | None = None

    @model_validator(mode="after")
    def _does_one_thing(self) -> Rule:
        if self.ignore + (self.take is not None) + (self.refuse is not None) != 1:
            raise PydanticCustomError("rule", "needs exactly one of take, ignore: true and refuse")
        if self.take is not None and self.take.event is None and self.take.content_id is None:
            raise PydanticCustomError("rule", "takes no content_id")
        return self


class MappingFile(_Part):
    """The whole file. `tombstones` says what a record with a null value does to the content of its key.

    `placeholder` is the text that the platform writes in place of a value that it left out of the record.
    A rule that would take it fails the record, so that it is never indexed as if it were the value.
    """

    rules: list[Rule] = Field(min_length=1)
    tombstones: Literal["delete", "ignore"] = "delete"
    placeholder: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _has_names_that_differ(self) -> MappingFile:
        names = [rule.name for rule in self.rules]
        if len(set(names)) < len(names):
            raise PydanticCustomError("rules", "two rules have the same name")
        return self


def validate_mapping(document: Any) -> MappingFile:
    """Read a parsed mapping file. Raises pydantic's `ValidationError`."""
    return MappingFile.model_validate(document)
