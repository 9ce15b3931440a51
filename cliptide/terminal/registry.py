"""The schema registry of a command: its flags, and how events are encoded with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Literal

import click

from cliptide.terminal.options import option
from cliptide.terminal.paths import PathType
from consumer.registry.asked_schemas import AskedSchemas
from consumer.registry.kept_schemas import KeptSchemas
from event_log.schema_registry.client import RegistryClient
from event_log.schema_registry.settings import RegistrySettings
from event_log.schema_registry.writing import register_for
from schemas.codec import EncodedEvent, encode_event
from schemas.events import Event
from schemas.framed_writing import framing_encoder
from schemas.registered import SchemaRegistry

_PREFIX = "CLIPTIDE_SCHEMA_REGISTRY__"


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """How to reach a registry, if there is one, and how events are framed for it."""

    connection: RegistrySettings | None = None
    framing: Literal["none", "prefix", "header"] = "none"
    keys: Literal["plain", "framed"] = "plain"


def registry_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --registry-url and its credentials; the command receives a `RegistryOptions` as `registry`."""

    @option(
        "--registry-url", envvar=f"{_PREFIX}URL", help="The address of a schema registry's Confluent API."
    )
    @option("--registry-user", envvar=f"{_PREFIX}USER", help="The registry's user (HTTP basic).")
    @option("--registry-password", envvar=f"{_PREFIX}PASSWORD", help="The password of that user.")
    @option("--registry-token", envvar=f"{_PREFIX}TOKEN", help="A bearer token instead of user and password.")
    @option(
        "--registry-ca-file",
        envvar=f"{_PREFIX}CA_FILE",
        type=PathType(exists=True, dir_okay=False, path_type=Path),
        help="A PEM file of the authorities that sign the registry's certificate.",
    )
    @wraps(command)
    def with_registry(*args: Any, framing: Any = "none", keys: Any = "plain", **flags: Any) -> Any:
        given = {name: flags.pop(f"registry_{name}") for name in ("user", "password", "token", "ca_file")}
        url = flags.pop("registry_url")
        if not url and framing != "none":
            raise click.UsageError(f"--framing {framing} needs --registry-url ({_PREFIX}URL)")
        if not url and keys != "plain":
            raise click.UsageError(f"--keys {keys} needs --registry-url ({_PREFIX}URL)")
        connection = RegistrySettings(url, **given) if url else None
        return command(*args, registry=RegistryOptions(connection, framing, keys), **flags)

    return with_registry


def framing_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --framing and --keys. Below `registry_options`, which takes them."""
    with_keys = option(
        "--keys",
        type=click.Choice(["plain", "framed"]),
        default="plain",
        envvar=f"{_PREFIX}WRITE_KEYS",
        help="Write keys as the content id, or as a registry's Avro serializer does. Choose what your "
        "producers do: the bytes of the key choose the partition.",
    )(command)
    return option(
        "--framing",
        type=click.Choice(["none", "prefix", "header"]),
        default="none",
        envvar=f"{_PREFIX}WRITE_FRAMING",
        help="Write events with the schema's id as a prefix, or with its GUID in a header.",
    )(with_keys)


@contextmanager
def open_schemas(options: RegistryOptions, index_root: Path) -> Iterator[SchemaRegistry | None]:
    """Return the schemas of the registry, those first that consumers have kept; None without a registry."""
    if options.connection is None:
        yield None
        return
    with closing(RegistryClient(options.connection)) as client:
        yield AskedSchemas(client, KeptSchemas(index_root, client.address))


@contextmanager
def open_encoder(options: RegistryOptions, topic: str) -> Iterator[Callable[[Event], EncodedEvent]]:
    """Return how events are encoded. Asks the registry at once. Raises an `EventLogError`."""
    if options.connection is None or (options.framing == "none" and options.keys == "plain"):
        yield encode_event
        return
    with closing(RegistryClient(options.connection)) as client:
        client.check()
        register = register_for(client, "prefix" if options.framing == "none" else options.framing)
        frames_values, frames_keys = options.framing != "none", options.keys == "framed"
        yield framing_encoder(register, topic, frames_values=frames_values, frames_keys=frames_keys)
