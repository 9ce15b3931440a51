"""One index in OpenSearch: created once, and compared with log, encoder and cluster at each start."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from clip_index.encoder.picture_crops import max_crops_of
from clip_index.encoder.protocol import EncoderFingerprint
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import ClipIndexError, EncoderMismatch, IndexMissing
from clip_index.guarantees import Guarantees
from clip_index.indexes.index_directory import IndexDescription
from opensearch_engine.connection import Connection, Json, OpenSearchSettings
from opensearch_engine.errors import EngineConflict, EngineMissing, EngineRefused
from opensearch_engine.layout import (
    CURRENT,
    CURRENT_ID,
    DESCRIPTION_ID,
    SPACE,
    check_index_id,
    contents_alias,
    contents_fields,
    contents_index,
    pointer_index,
    state_alias,
    state_index,
)

FORMAT = 1
_LEAST_VERSION = (2, 19)
_DEFAULT_SPACE = "l2"
_MAKE_ANEW = "delete it, and let a consumer make it and read the log again"
_COMPARED = ("topic", "topic_id", "num_partitions", "group_id")


@dataclass(frozen=True, slots=True)
class OpenSearchIndex:
    """An index that exists. `root` is where this process keeps what is no part of the index."""

    connection: Connection
    index_id: str
    description: IndexDescription
    preference: str | None = None
    root: Path = Path()

    def read_canaries(self) -> None:
        return None  # none are kept in OpenSearch

    @property
    def guarantees(self) -> Guarantees:
        """OpenSearch gives none of them; docs/opensearch.md says what it gives instead."""
        return Guarantees(
            atomic_generations=False,
            stable_pages=False,
            complete_answers=False,
            measured_recall=False,
            verified_files=False,
            rollback=False,
            timely_erasure=False,
        )

    @property
    def contents(self) -> str:
        return contents_alias(self.index_id)

    @property
    def state(self) -> str:
        return state_alias(self.index_id)

    @property
    def shard_names(self) -> list[str]:
        return [self.shard_name(partition) for partition in range(self.description.num_partitions)]

    def shard_name(self, partition: int) -> str:
        return f"{self.description.topic}-{partition}"

    def partition_of(self, shard_name: str) -> int:
        return int(shard_name.rsplit("-", 1)[1])

    def shard_path(self, partition: int) -> Path:
        """Return the folder for the in-flight file of a partition, which stays on the consumer's machine."""
        folder = self.root / "indexes" / self.index_id / self.shard_name(partition)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def create_index(
    connection: Connection, root: Path, index_id: str, description: IndexDescription
) -> OpenSearchIndex:
    """Create the index, or check that the existing one has the same description.

    Raises `IndexRefused` when it has another one, or when the cluster does not fit. Several processes
    may create the index at once. The first index of a cluster becomes the current one.
    """
    check_index_id(index_id)
    _check_server(connection)
    if (present := _read_description(connection, index_id)) is not None:
        _compare(index_id, present, description)
    else:
        _create_parts(connection, index_id, description)
    _create_document(connection, CURRENT, CURRENT_ID, {"index_id": index_id}, require_alias=False)
    return _checked(connection, root, index_id, description)


def open_index(connection: Connection, index_id: str | None = None, root: Path = Path()) -> OpenSearchIndex:
    """Open an index, the current one by default; `IndexMissing` if there is none yet."""
    _check_server(connection)
    found_id = index_id or _read_current(connection)
    check_index_id(found_id)
    description = _read_description(connection, found_id)
    if description is None:
        raise IndexMissing(f"no index {found_id!r} in OpenSearch at {connection.settings.url}")
    return _checked(connection, root, found_id, description)


def remove_index(connection: Connection, index_id: str) -> None:
    """Delete the index with all that it holds. It is no longer the current one either."""
    for name in (f"{contents_alias(index_id)}-1", f"{state_alias(index_id)}-1"):
        with suppress(EngineMissing):
            connection.ask("DELETE", f"/{name}")
    with suppress(IndexMissing, EngineMissing):
        if _read_current(connection) == index_id:
            connection.ask("DELETE", f"/{CURRENT}/_doc/{CURRENT_ID}")


def with_crops_in_opensearch(
    settings: EncoderSettings, opensearch: OpenSearchSettings, index_id: str | None
) -> EncoderSettings:
    """Take the most crops of a picture from the index that is there; without one, leave them to the encoder.

    An index that cannot be read is refused, or waited for, by whoever opens it.
    """
    if settings.max_crops is not None:
        return settings
    try:
        with closing(Connection(opensearch)) as connection:
            description = _read_description(connection, index_id or _read_current(connection))
    except ClipIndexError:
        return settings
    if description is None:
        return settings
    return replace(settings, max_crops=max_crops_of(description.fingerprint.windowing))


def _create_parts(connection: Connection, index_id: str, description: IndexDescription) -> None:
    """Create what is missing. The description comes last, so it stands for an index that is complete."""
    dimension = description.fingerprint.dimension
    contents, state = contents_alias(index_id), state_alias(index_id)
    if not _is_there(connection, contents):  # an operator may have put an index behind the alias
        body = contents_index(connection.settings, index_id, dimension)
        _create_if_absent(connection, f"{contents}-1", body)
    if not _is_there(connection, state):
        _create_if_absent(connection, f"{state}-1", state_index(connection.settings, index_id))
    _create_if_absent(connection, CURRENT, pointer_index(connection.settings))
    fields = {"format": FORMAT, **asdict(description)}
    _create_document(connection, state_alias(index_id), DESCRIPTION_ID, fields, require_alias=True)
    found = _read_description(connection, index_id)
    if found is not None:
        _compare(index_id, found, description)


def _is_there(connection: Connection, name: str) -> bool:
    try:
        connection.ask("GET", f"/{name}/_settings")
    except EngineMissing:
        return False
    return True


def _create_if_absent(connection: Connection, name: str, body: Json) -> None:
    try:
        connection.ask("PUT", f"/{name}", body)
    except EngineRefused as refused:
        if "resource_already_exists_exception" in str(refused):
            return
        if re.search(r"unknown setting \[index\.knn\]|No handler for type \[knn_vector\]", str(refused)):
            raise EngineRefused(
                f"OpenSearch at {connection.settings.url} has no k-NN plugin: install opensearch-knn, which "
                "the full distribution holds"
            ) from refused
        raise


def _create_document(
    connection: Connection, index: str, document_id: str, source: Json, *, require_alias: bool
) -> None:
    try:
        connection.ask("PUT", f"/{index}/_create/{document_id}", source, require_alias=require_alias)
    except EngineConflict:
        return  # another process was first


def _check_server(connection: Connection) -> None:
    """Refuse what is no OpenSearch, or one that is too old."""
    version = connection.ask("GET", "/").get("version", {})
    number, where = str(version.get("number", "unknown")), connection.settings.url
    if version.get("distribution") != "opensearch":
        raise EngineRefused(
            f"{where} is not OpenSearch (version {number}): this engine works with nothing else"
        )
    if tuple(int(digits) for digits in re.findall(r"\d+", number)[:2]) < _LEAST_VERSION:
        least = ".".join(map(str, _LEAST_VERSION))
        raise EngineRefused(f"OpenSearch at {where} is version {number}: this engine needs {least} or newer")


def _checked(
    connection: Connection, root: Path, index_id: str, description: IndexDescription
) -> OpenSearchIndex:
    """Compare the parts in the cluster with what the index needs, and find out how it must be read."""
    settings = _read_settings(connection, index_id)
    _only_index_of(state_alias(index_id), connection.ask("GET", f"/{state_alias(index_id)}/_settings"))
    if settings.get("index.translog.durability", "request").lower() != "request":
        raise EngineRefused(
            f"the index {contents_alias(index_id)} acknowledges writes before they are on disk: set its "
            "index.translog.durability to request"
        )
    _check_mapping(connection, contents_alias(index_id), description.fingerprint.dimension)
    is_by_segment = settings.get("index.replication.type", "DOCUMENT").upper() == "SEGMENT"
    preference = "_primary" if is_by_segment else None  # a replica shows a refresh only later
    return OpenSearchIndex(connection, index_id, description, preference, root)


def _read_settings(connection: Connection, index_id: str) -> Mapping[str, str]:
    try:
        answer = connection.ask("GET", f"/{contents_alias(index_id)}/_settings", flat_settings=True)
    except EngineMissing as error:
        raise EngineRefused(
            f"{contents_alias(index_id)} is gone from OpenSearch at {connection.settings.url}, and its "
            "progress is still there: put it back from a snapshot, or delete "
            f"{state_alias(index_id)}-1 so that the log is read again"
        ) from error
    found: Mapping[str, str] = answer[_only_index_of(contents_alias(index_id), answer)]["settings"]
    return found


def _only_index_of(alias: str, answer: Mapping[str, object]) -> str:
    """Return the index behind an alias, as an answer names it.

    A write or a read of one document needs to know the index, and a write is only made through an alias.
    """
    names = sorted(answer)
    if names == [alias]:
        raise EngineRefused(
            f"{alias} is an index, where an alias is needed: rename the index to {alias}-1 (for example by "
            f"_reindex), delete {alias}, and add the alias {alias}"
        )
    if len(names) != 1:
        raise EngineRefused(
            f"{alias} is an alias of {len(names)} indexes ({', '.join(names)}): take it from all but one"
        )
    return names[0]


def _check_mapping(connection: Connection, alias: str, dimension: int) -> None:
    """Compare what OpenSearch has with what a new index gets. Somebody may have made this one by hand."""
    answer = connection.ask("GET", f"/{alias}/_mapping")
    index, mappings = next((index, found["mappings"]) for index, found in answer.items())
    fields = mappings.get("properties", {})
    _check_vectors(index, fields.get("vectors", {}), dimension)
    for name, wanted in contents_fields(connection.settings, dimension).items():
        kind, found = wanted["type"], fields.get(name, {}).get("type")
        if name not in fields:
            raise EngineRefused(
                f"the index {index} does not map {name}, which cliptide needs as {kind}: {_MAKE_ANEW}"
            )
        if found != kind:
            raise EngineRefused(
                f"the index {index} maps {name} as {found}, where cliptide needs {kind}: {_MAKE_ANEW}"
            )
    if str(mappings.get("dynamic", True)).lower() != "false":
        raise EngineRefused(f"the index {index} maps fields by guess: set its dynamic to false")


def _check_vectors(index: str, vectors: Mapping[str, Any], dimension: int) -> None:
    for modality in ("text", "image"):
        vector = vectors.get("properties", {}).get(modality, {})
        if vectors.get("type") != "nested" or vector.get("type") != "knn_vector":
            raise EngineRefused(f"the index {index} has no vectors: its mapping is not one of cliptide")
        if vector.get("dimension") != dimension:
            raise EngineRefused(
                f"the index {index} holds vectors of {vector.get('dimension')} dimensions, and the "
                f"encoder makes {dimension}: another model needs another index (CLIPTIDE_INDEX__ID)"
            )
        space = vector.get("method", {}).get("space_type") or vector.get("space_type") or _DEFAULT_SPACE
        if space != SPACE:
            raise EngineRefused(
                f"the index {index} compares vectors by {space}, where cliptide needs {SPACE}: {_MAKE_ANEW}"
            )


def _read_current(connection: Connection) -> str:
    found = connection.read_document(CURRENT, CURRENT_ID)
    if found is None:
        raise IndexMissing(f"no index in OpenSearch at {connection.settings.url} yet")
    return str(found["_source"]["index_id"])


def _read_description(connection: Connection, index_id: str) -> IndexDescription | None:
    found = connection.read_document(state_alias(index_id), DESCRIPTION_ID)
    if found is None:
        return None
    source = dict(found["_source"])
    if (written := source.pop("format", None)) != FORMAT:
        raise EngineRefused(
            f"the index {index_id!r} in OpenSearch has format {written}, and this version of cliptide reads "
            f"{FORMAT}: run the version that wrote it"
        )
    fingerprint = EncoderFingerprint(**_known(EncoderFingerprint, source.pop("fingerprint")))
    return IndexDescription(fingerprint=fingerprint, **_known(IndexDescription, source))


def _known(value: type, source: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out fields that a later version of the same format has added."""
    names = {one.name for one in fields(value)}
    return {name: found for name, found in source.items() if name in names}


def _compare(index_id: str, found: IndexDescription, wanted: IndexDescription) -> None:
    if found.fingerprint != wanted.fingerprint:
        raise EncoderMismatch(built_by=str(found.fingerprint), running=str(wanted.fingerprint))
    differences = [
        f"{name} {getattr(found, name)!r} (now {getattr(wanted, name)!r})"
        for name in _COMPARED
        if getattr(found, name) != getattr(wanted, name)
    ]
    if differences:
        raise EngineRefused(f"the index {index_id!r} in OpenSearch was built for {', '.join(differences)}")
