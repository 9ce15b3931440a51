"""The flags that several commands share. Each can be set by a variable, too."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from clip_index.storage.index_roots import DEFAULT_CACHE_BYTES
from clip_index.storage.index_roots import index_root as index_root_from
from clip_index.storage.shard_store import StoreTrouble
from cliptide.terminal.paths import PathType
from event_log.kafka.settings import KafkaSettings
from schemas.mapping.loading import BadMapping, load_mapping
from schemas.mapping.rules import EventMapping
from service.sections import (
    DEFAULT_BOOTSTRAP_SERVERS,
    DEFAULT_CACHE_DIRECTORY,
    DEFAULT_DEAD_LETTER_TOPIC,
    DEFAULT_INDEX_ROOT,
    DEFAULT_TOPIC,
    root_from_text,
    valid_index_id,
    valid_topic,
)

ROOT_TEXT = "What holds the indexes: a directory, or a bucket such as s3://bucket/prefix."
Command = TypeVar("Command", bound=Callable[..., Any])


class Flag(click.Option):
    """A flag whose variable is named in --help and in errors."""

    def get_error_hint(self, ctx: click.Context | None) -> str:
        hint = super().get_error_hint(ctx)
        if self.envvar is None and ctx is not None and ctx.auto_envvar_prefix is not None and self.name:
            return f"{hint} (env var: '{ctx.auto_envvar_prefix}_{self.name.upper()}')"
        return hint


option = partial(click.option, cls=Flag, show_envvar=True)


def _properties_from_json(_: click.Context, param: click.Parameter, value: str) -> dict[str, str]:
    try:
        properties = json.loads(value)
    except json.JSONDecodeError as error:
        raise click.BadParameter(f"not JSON ({error})", param=param) from error
    if not isinstance(properties, dict):
        raise click.BadParameter("not a JSON object", param=param)
    return {str(name): _property_text(setting) for name, setting in properties.items()}


def _property_text(setting: Any) -> str:
    return str(setting).lower() if isinstance(setting, bool) else str(setting)


def _not_empty(_: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.strip():
        raise click.BadParameter("must not be empty", param=param)
    return value


def _topic_name(_: click.Context, param: click.Parameter, value: str) -> str:
    try:
        return valid_topic(value)
    except ValueError as error:
        raise click.BadParameter(str(error), param=param) from error


def checked_index_id(_: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse a name that no index can have, as the callback of a flag or an argument."""
    try:
        return None if value is None else valid_index_id(value)
    except ValueError as error:
        raise click.BadParameter(str(error), param=param) from error


def kafka_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --bootstrap-servers and --kafka-properties; the command receives both as `kafka`."""

    @option(
        "--bootstrap-servers",
        default=DEFAULT_BOOTSTRAP_SERVERS,
        callback=_not_empty,
        envvar="CLIPTIDE_KAFKA__BOOTSTRAP_SERVERS",
        help="Kafka's addresses: host:port, separated by commas.",
    )
    @option(
        "--kafka-properties",
        callback=_properties_from_json,
        default="{}",
        envvar="CLIPTIDE_KAFKA__PROPERTIES",
        help="Further properties of librdkafka (SASL, TLS, …), as a JSON object.",
    )
    @wraps(command)
    def with_kafka(*args: Any, bootstrap_servers: str, kafka_properties: dict[str, str], **flags: Any) -> Any:
        try:
            kafka = KafkaSettings(bootstrap_servers, kafka_properties)
        except ValueError as error:  # the property may not be changed
            raise click.UsageError(str(error)) from error
        return command(*args, kafka=kafka, **flags)

    return with_kafka


def _read_root(exists: bool) -> Callable[[click.Context, click.Parameter, str], Path | str]:
    directory = PathType(exists=exists, file_okay=False, path_type=Path)

    def read(context: click.Context, param: click.Parameter, value: str) -> Path | str:
        try:
            root = root_from_text(value)
        except ValueError as error:
            raise click.BadParameter(str(error), param=param) from error
        if isinstance(root, str) or context.params.get("engine") == "opensearch":
            return root  # what lies in OpenSearch needs no directory
        if "engine" not in context.params and os.environ.get("CLIPTIDE_INDEX__ENGINE") == "opensearch":
            raise click.UsageError(
                "this command works on an index in a directory, and CLIPTIDE_INDEX__ENGINE is opensearch: "
                "docs/opensearch.md says how to back up and restore an index there"
            )
        return Path(directory.convert(root, param, context))

    return read


def root_argument(name: str, *, exists: bool) -> Callable[[Command], Command]:
    """Add an argument that is a directory or the URL of a bucket. `index_root_option` opens it."""
    return click.argument(name, callback=_read_root(exists))


def index_root_option(
    *, exists: bool, text: str, arguments: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add --index-root, --index-cache-dir and --index-cache-bytes; the command gets an `IndexRoot`.

    It gets one for each of the `arguments` that name another root, too. They share the cache.
    """

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        @option(
            "--index-root",
            callback=_read_root(exists),
            default=str(DEFAULT_INDEX_ROOT),
            envvar="CLIPTIDE_INDEX__ROOT",
            help=text,
        )
        @option(
            "--index-cache-dir",
            type=PathType(file_okay=False, path_type=Path),
            default=DEFAULT_CACHE_DIRECTORY,
            envvar="CLIPTIDE_INDEX__CACHE_DIR",
            help="For an index in a bucket: where copies of its files are kept.",
        )
        @option(
            "--index-cache-bytes",
            type=click.IntRange(2**20),
            default=DEFAULT_CACHE_BYTES,
            envvar="CLIPTIDE_INDEX__CACHE_BYTES",
            help="For an index in a bucket: the most bytes of those copies.",
        )
        @wraps(command)
        def with_root(
            *args: Any, index_root: Path | str, index_cache_dir: Path, index_cache_bytes: int, **flags: Any
        ) -> Any:
            named = {"index_root": index_root, **{name: flags.pop(name) for name in arguments}}
            roots = {
                name: index_root_from(root, index_cache_dir, index_cache_bytes)
                for name, root in named.items()
            }
            with store_errors_named():
                return command(*args, **roots, **flags)

        return with_root

    return add


@contextmanager
def store_errors_named() -> Iterator[None]:
    """Show what a store over the network answered as one sentence, because it is no fault of this program."""
    try:
        yield
    except StoreTrouble as error:
        raise click.ClickException(str(error)) from error


def index_options(command: Command) -> Callable[..., Any]:
    """Add --index-root, its cache, and --index-id."""
    return root_option(index_id_option(command))


def index_id_option(command: Command) -> Command:
    """Add --index-id."""
    return option(
        "--index-id",
        default=None,
        callback=checked_index_id,
        envvar="CLIPTIDE_INDEX__ID",
        help="The index to use. Default: the current one.",
    )(command)


def root_option(command: Command) -> Callable[..., Any]:
    """Add --index-root and its cache."""
    return index_root_option(exists=True, text=ROOT_TEXT)(command)


def topic_option(command: Command) -> Command:
    """Add --topic."""
    return option(
        "--topic",
        default=DEFAULT_TOPIC,
        callback=_topic_name,
        envvar="CLIPTIDE_TOPIC",
        help="The topic of upload events.",
    )(command)


def dead_letter_topic_option(command: Command) -> Command:
    """Add --dead-letter-topic."""
    return option(
        "--dead-letter-topic",
        default=DEFAULT_DEAD_LETTER_TOPIC,
        callback=_topic_name,
        envvar="CLIPTIDE_DEAD_LETTER_TOPIC",
        help="The topic of dead letters.",
    )(command)


def mapping_option(command: Command) -> Command:
    """Add --mapping; the command gets an `EventMapping` or None."""
    return option(
        "--mapping",
        envvar="CLIPTIDE_MAPPING",
        callback=_load_mapping,
        help="The consumer's mapping: a file, or the name of a preset.",
    )(command)


def _load_mapping(_: click.Context, param: click.Parameter, name: str | None) -> EventMapping | None:
    if not name:
        return None
    try:
        return load_mapping(name)
    except BadMapping as error:
        raise click.BadParameter(str(error), param=param) from error


def http_address(_: click.Context, param: click.Parameter, value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise click.BadParameter(f"{value!r} does not begin with http:// or https://", param=param)
    if "@" in value.partition("://")[2].partition("/")[0]:
        raise click.BadParameter("an address with a user or a password in it: use --api-key", param=param)
    if not _has_host(value):
        raise click.BadParameter(f"{value!r} has no host, or no port from 0 to 65535", param=param)
    return value


def _has_host(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return bool(parts.hostname) and (parts.port is None or parts.port >= 0)
    except ValueError:  # a port out of range, or half an IPv6 address
        return False


def query_options(command: Command) -> Command:
    """Add --query-url and --api-key."""
    command = option(
        "--api-key",
        default=None,
        envvar="CLIPTIDE_API_KEY",
        help="The API key that is sent to the query service, as a bearer token.",
    )(command)
    return option(
        "--query-url",
        default="http://127.0.0.1:8080",
        callback=http_address,
        envvar="CLIPTIDE_QUERY_URL",
        help="The address of the query service.",
    )(command)
