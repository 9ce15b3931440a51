"""The settings sections that both services read, and the defaults that the command line shares with them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from clip_index.errors import IndexRefused
from clip_index.indexes.pointer import check_index_id
from service.environment import Section
from service.host_names import is_host_name

DEFAULT_TOPIC = "content-uploads"
DEFAULT_DEAD_LETTER_TOPIC = "content-uploads.dead-letters"
DEFAULT_BOOTSTRAP_SERVERS = "127.0.0.1:9092"
DEFAULT_INDEX_ROOT = Path("index")
DEFAULT_CACHE_DIRECTORY = Path("index-cache")


def _valid_host_name(text: str) -> str:
    if not is_host_name(text):
        raise ValueError("must be host names such as search.example.com, without https:// and without a port")
    return text


def _not_empty(path: str) -> str:
    """An empty path would be the current directory, which nobody means who has left a variable empty."""
    if not path.strip():
        raise ValueError("must not be empty; the current directory is .")
    return path


def valid_topic(name: str) -> str:
    """Return the name if Kafka takes it for a topic. Raises `ValueError`."""
    if not _TOPIC.fullmatch(name) or name in (".", ".."):
        raise ValueError(f"{name!r} is no name of a topic: {_TOPIC_RULE}")
    return name


_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_TOPIC_RULE = "it has 1 to 249 letters, digits, dots, underscores and hyphens"


def valid_index_id(name: str) -> str:
    """Return the name if an index can have it. Raises `ValueError`."""
    if not name.strip():
        raise ValueError("must not be empty")
    try:
        check_index_id(name)
    except IndexRefused as error:
        raise ValueError(str(error)) from error
    return name


def root_from_text(text: str) -> Path | str:
    """Return the path of a directory, or the URL of a bucket, which as a path would lose one of its slashes.

    Raises `ValueError`.
    """
    text = _not_empty(text.removeprefix("file://"))
    if not _URL.match(text):
        return Path(text)
    scheme, _, rest = text.partition("://")
    if scheme not in ROOT_SCHEMES or not rest.partition("/")[0]:
        raise ValueError("must be a directory, or a bucket's URL such as s3://bucket/prefix, gs:// or az://")
    return text.rstrip("/")


_URL = re.compile(r"[a-z][a-z0-9+]*:/")
ROOT_SCHEMES = ("s3", "gs", "az", "memory")
"""`memory` ends with its process; it is for tests."""
RootName = Annotated[Path | str, BeforeValidator(lambda value: root_from_text(str(value)))]
DirectoryName = Annotated[Path, BeforeValidator(lambda value: _not_empty(str(value)))]
TopicName = Annotated[str, AfterValidator(valid_topic)]
IndexId = Annotated[str, AfterValidator(valid_index_id)]
HostName = Annotated[str, AfterValidator(_valid_host_name)]


class KafkaSection(Section):
    """How to reach Kafka."""

    bootstrap_servers: str = Field(
        default=DEFAULT_BOOTSTRAP_SERVERS, description="Kafka's addresses: host:port, separated by commas."
    )
    properties: dict[str, str | int | float | bool] = Field(
        default_factory=dict,
        description="Further properties of librdkafka (SASL, TLS, …), as a JSON object.",
    )


class SchemaRegistrySection(Section):
    """A schema registry, for records with the framing of its serializers."""

    url: str | None = Field(
        default=None,
        description="The address of a schema registry's Confluent API, such as `https://registry:8081` (of "
        "Apicurio Registry it ends in `/apis/ccompat/v7`). Without one, records with the framing of a "
        "registry are set aside.",
    )
    user: str | None = Field(default=None, description="The user for HTTP basic authentication.")
    password: SecretStr | None = Field(default=None, description="The password of that user.")
    token: SecretStr | None = Field(
        default=None, description="A bearer token that is sent instead of user and password."
    )
    ca_file: Path | None = Field(
        default=None, description="A PEM file of the authorities that sign the registry's certificate."
    )
    timeout_seconds: float = Field(
        default=10.0, gt=0, description="A request to the registry takes at most this long."
    )

    write_framing: Literal["none", "prefix", "header"] = Field(
        default="none",
        description="How the query service and `cliptide publish` frame their events: not (none), with the "
        "schema's id as a prefix (prefix), or with its GUID in a header (header). They register the schema "
        "under the subject `<topic>-value`.",
    )

    write_keys: Literal["plain", "framed"] = Field(
        default="plain",
        description="How the query service and `cliptide publish` and `delete` write keys: the content id in "
        "UTF-8 (plain), or as a registry's Avro serializer writes a text (framed, under the subject "
        "`<topic>-key`). Choose what your producers do, because the bytes of the key choose the partition.",
    )

    def access(self) -> dict[str, Any]:
        """Return who asks the registry, and how, as the arguments of event_log's `RegistrySettings`."""
        return {
            "user": self.user,
            "password": None if self.password is None else self.password.get_secret_value(),
            "token": None if self.token is None else self.token.get_secret_value(),
            "ca_file": self.ca_file,
            "timeout_seconds": self.timeout_seconds,
        }

    @model_validator(mode="after")
    def _is_complete(self) -> SchemaRegistrySection:
        if self.url is not None and not self.url.startswith(("http://", "https://", "mock://")):
            raise ValueError("CLIPTIDE_SCHEMA_REGISTRY__URL: must begin with http:// or https://")
        if self.url is None and self.write_framing != "none":
            raise ValueError("CLIPTIDE_SCHEMA_REGISTRY__WRITE_FRAMING: needs CLIPTIDE_SCHEMA_REGISTRY__URL")
        if self.url is None and self.write_keys != "plain":
            raise ValueError("CLIPTIDE_SCHEMA_REGISTRY__WRITE_KEYS: needs CLIPTIDE_SCHEMA_REGISTRY__URL")
        if self.token is not None and self.user is not None:
            raise ValueError("CLIPTIDE_SCHEMA_REGISTRY__TOKEN: there is a user, too; give one of the two")
        if self.password is not None and self.user is None:
            raise ValueError("CLIPTIDE_SCHEMA_REGISTRY__PASSWORD: there is no CLIPTIDE_SCHEMA_REGISTRY__USER")
        if self.ca_file is not None and not self.ca_file.is_file():
            raise ValueError(f"CLIPTIDE_SCHEMA_REGISTRY__CA_FILE: there is no file {self.ca_file}")
        return self


class IndexSection(Section):
    """Where indexes lie. Each service adds `id`, which means something else to a writer than to a reader."""

    root: RootName = Field(
        default=DEFAULT_INDEX_ROOT,
        description="What holds the indexes, shared by consumers and query services: a directory, or a "
        "prefix of a bucket (`s3://bucket/prefix`, `gs://`, `az://`; see `docs/object_store.md`).",
    )
    engine: Literal["directory", "opensearch"] = Field(
        default="directory",
        description="What holds and searches the index: files below ROOT (directory), or OpenSearch k-NN "
        "(opensearch, see `docs/opensearch.md`). With opensearch a consumer keeps only its in-flight files "
        "below ROOT.",
    )
    cache_dir: DirectoryName = Field(
        default=DEFAULT_CACHE_DIRECTORY,
        description="With a root in a bucket: the directory of this machine for copies of the index's files "
        "and for the consumer's record of what is in flight. It must outlive the process. Processes of one "
        "machine may share it.",
    )
    cache_bytes: int = Field(
        default=20 * 2**30,
        ge=2**20,
        description="The copies in CACHE_DIR take at most this many bytes, unless more is open at once.",
    )
    vectors: Literal["fp16", "sq8"] = Field(
        default="fp16",
        description="What searches scan in merged segments: embeddings as they are (fp16), or codes of half "
        "their size (sq8), whose best candidates are scored again. With sq8 hits and scores stay, a query "
        "machine needs half the memory, and the disk holds half as much again. A change applies to later "
        "merges of the consumer; a query service reads both.",
    )

    @property
    def is_bucket(self) -> bool:
        return isinstance(self.root, str)


class OpenSearchSection(Section):
    """How to reach OpenSearch, and what a new index is created with. Read if the engine is opensearch."""

    url: str | None = Field(
        default=None,
        description="The address of OpenSearch, such as `https://search:9200`; several nodes are separated "
        "by commas.",
    )
    user: str | None = Field(default=None, description="The user for HTTP basic authentication.")
    password: SecretStr | None = Field(default=None, description="The password of that user.")
    ca_file: Path | None = Field(
        default=None, description="A PEM file of the authorities that sign OpenSearch's certificate."
    )
    aws_region: str | None = Field(
        default=None,
        description="The region of an OpenSearch that AWS manages. Requests are then signed (SigV4) with the "
        "credentials that AWS's tools find.",
    )
    timeout_seconds: float = Field(
        default=10.0, gt=0, description="A request to OpenSearch takes at most this long."
    )
    knn_engine: Literal["faiss", "lucene"] = Field(
        default="faiss",
        description="The library with which a new index searches vectors. Use lucene where the plugin has no "
        "native libraries.",
    )
    num_shards: int = Field(
        default=1, ge=1, description="A new index has this many primary shards; that cannot change later."
    )
    num_replicas: int = Field(
        default=1, ge=0, description="Each shard of a new index has this many copies on other nodes."
    )

    def connection(self) -> dict[str, Any]:
        """Return all of it as the arguments of the engine's `OpenSearchSettings`."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return {**fields, "password": None if self.password is None else self.password.get_secret_value()}

    @model_validator(mode="after")
    def _is_complete(self) -> OpenSearchSection:
        prefix = "CLIPTIDE_OPENSEARCH__"
        for url in (self.url or "").split(",") if self.url is not None else ():
            parts = urlsplit(url.strip())
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"{prefix}URL: must begin with http:// or https:// and name a host")
            if parts.username is not None:
                raise ValueError(f"{prefix}URL: may not hold a user; set {prefix}USER and {prefix}PASSWORD")
        if (self.user is None) != (self.password is None):
            raise ValueError(f"{prefix}USER: give {prefix}PASSWORD with it, or neither")
        if self.user is not None and self.aws_region is not None:
            raise ValueError(f"{prefix}AWS_REGION: there is a user, too; give one of the two")
        if self.ca_file is not None and not self.ca_file.is_file():
            raise ValueError(f"{prefix}CA_FILE: there is no file {self.ca_file}")
        return self


def check_engine(index: IndexSection, index_id: str | None, opensearch: OpenSearchSection) -> None:
    """Raise `ValueError` where one of the two sections needs the other."""
    if index.engine == "opensearch" and index_id is not None and index_id != index_id.lower():
        raise ValueError("CLIPTIDE_INDEX__ID: OpenSearch takes no capital letters in the name of an index")
    if index.engine == "opensearch" and opensearch.url is None:
        raise ValueError("CLIPTIDE_OPENSEARCH__URL: CLIPTIDE_INDEX__ENGINE=opensearch needs it")
    if index.engine == "opensearch" and index.is_bucket:
        raise ValueError(
            "CLIPTIDE_INDEX__ROOT: with CLIPTIDE_INDEX__ENGINE=opensearch it must be a directory"
        )
