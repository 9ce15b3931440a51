"""Names for the enums, unions, objects and maps inside the schemas of the OpenAPI document.

Generators of clients make a type of each of them. Without a name here they would call the type by the place
where they meet it first, such as `PatchRequestMetadataValue`. A reordered document would change that name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

COMPONENTS = "#/components/schemas/"

_NULL = {"type": "null"}
_BOUNDS = ("maxProperties", "maxLength", "maxItems", "minimum", "maximum", "exclusiveMaximum")
_WORDS = ("description", "examples")  # these stay where the schema is used

NAMES: Mapping[str, str] = {
    "modality": "Modality",
    "type": "Modality",
    "include/items": "IncludedField",
    "operation": "Operation",
    "kind": "BecauseKind",
    "state": "CandidateState",
    "size": "ThumbnailSize",
    "occurred_at": "UploadTime",
    "metadata/additionalProperties": "MetadataValue",
    "equals": "FilterValue",
    "any_of/items": "FilterValue",
    "all_of/items": "FilterValue",
    "gt": "FilterBound",
    "gte": "FilterBound",
    "lt": "FilterBound",
    "lte": "FilterBound",
    "min": "FacetBound",
    "max": "FacetBound",
    "value": "FacetValue",
    "num_contents": "ContentsByModality",
    "CountRequest/fields/items": "CountedField",
    "CountAnswer/fields": "CountsByField",
    "BrowseAnswer/results": "NewestByModality",
    "QueryAnswer/results": "HitsByModality",
    "SearchAnswer/results": "HitsByModality",
    "RecommendAnswer/results": "RecommendedByModality",
}
"""By the place of the schema: its property (and what lies inside), after its component where that matters."""

NAMES_OF_MAPS: Mapping[str, str] = {
    "metadata": "Metadata",
    "UploadRequest/metadata": "GivenMetadata",
    "PatchRequest/metadata": "MetadataChanges",
    "snapshot": "CoverageByShard",
    "timings": "Timings",
    "min_offsets": "MinOffsets",
    "fields": "FacetsByField",
    "shards": "ShardsByName",
    "not_kept": "QueriesNotKept",
}
"""By the place of the map, as above: maps of any key, whose values have one type."""

_UNBOUNDED = frozenset({"MetadataValue", "MinOffsets"})
"""Requests bound what is in them, and answers do not. Clients get one type for both, without bounds."""


class NamedSchemas:
    """Replaces schemas by references, and collects what they refer to in `components`."""

    def __init__(self) -> None:
        self.components: dict[str, Json] = {}

    def of_component(self, name: str, schema: Json) -> Json:
        """Return a component whose properties refer to named schemas."""
        if "properties" not in schema:
            return schema
        properties = {key: self.of(value, key, name) for key, value in schema["properties"].items()}
        return {**schema, "properties": properties}

    def of(self, schema: Any, place: str, component: str = "") -> Any:
        """Return a schema, or a reference to it if it needs a name."""
        if not isinstance(schema, dict) or "$ref" in schema:
            return schema
        if not needs_name(schema):
            inside = {
                key: self.of(schema[key], f"{place}/{key}", component)
                for key in ("items", "additionalProperties")
                if key in schema
            }
            return self._of_map({**schema, **inside}, place, component)
        name = NAMES.get(f"{component}/{place}") or NAMES[place]
        words = {key: schema[key] for key in _WORDS if key in schema}
        self._add(name, _own_part(schema, is_bounded=name not in _UNBOUNDED))
        reference = {"$ref": f"{COMPONENTS}{name}"}
        if _NULL in schema.get("anyOf", ()):
            return {"anyOf": [reference, _NULL], **words}
        return {**reference, **words}

    def _of_map(self, schema: Json, place: str, component: str) -> Json:
        """Return a reference to the schema if it is a map: to what it is beside null."""
        if not isinstance(schema.get("additionalProperties"), dict):
            return schema
        name = NAMES_OF_MAPS.get(f"{component}/{place}") or NAMES_OF_MAPS[place]
        words = {key: schema[key] for key in _WORDS if key in schema}
        own = {key: value for key, value in schema.items() if key not in _WORDS} | {"type": "object"}
        if name in _UNBOUNDED:
            own = _without_bounds(
                {**own, "additionalProperties": _without_bounds(own["additionalProperties"])}
            )
        self._add(name, own)
        reference = {"$ref": f"{COMPONENTS}{name}"}
        return {"anyOf": [reference, _NULL], **words} if "null" in schema["type"] else {**reference, **words}

    def _add(self, name: str, schema: Json) -> None:
        if self.components.setdefault(name, schema) != schema:
            raise ValueError(f"two schemas have the name {name}: {self.components[name]} and {schema}")


def _own_part(schema: Mapping[str, Any], *, is_bounded: bool) -> Json:
    """Return what a schema is wherever it is used: without null and the words about one use."""
    own = {key: value for key, value in schema.items() if key not in _WORDS}
    if "anyOf" in own:
        choices = [choice for choice in own["anyOf"] if choice != _NULL]
        own["anyOf"] = choices if is_bounded else [_without_bounds(choice) for choice in choices]
    return own


def _without_bounds(schema: Mapping[str, Any]) -> Json:
    kept = {key: value for key, value in schema.items() if key not in _BOUNDS}
    return {**kept, "items": _without_bounds(kept["items"])} if "items" in kept else kept


def needs_name(schema: Mapping[str, Any]) -> bool:
    """Whether generators make a type of a schema: an enum, a union of several types, an object of its own."""
    if "enum" in schema:
        return True
    return "properties" in schema or len([one for one in schema.get("anyOf", ()) if one != _NULL]) > 1
