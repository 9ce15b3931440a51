"""Asks the schema registry, if there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from cliptide.doctor.findings import Finding, failed, ok
from cliptide.terminal.waiting import waiting_told
from consumer.settings import Settings
from event_log.errors import RegistryMisconfigured, RegistryRefused, RegistryUnavailable
from event_log.schema_registry.client import RegistryClient

_CHECK = "registry"
_SECTION = "CLIPTIDE_SCHEMA_REGISTRY__"


def check_registry(settings: Settings) -> Iterator[Finding]:
    """Ask for the registry's configuration. Without a registry nothing is tried, and nothing is said."""
    connection = settings.schema_registry.connection()
    if connection is None:
        return
    try:
        with closing(RegistryClient(connection)) as client, waiting_told(f"the registry {client.address}"):
            client.check()
    except RegistryMisconfigured as error:
        yield failed(_CHECK, str(error), f"correct {_SECTION}URL or {_SECTION}CA_FILE")
    except RegistryRefused as error:
        yield failed(_CHECK, str(error), f"correct {_SECTION}USER and PASSWORD, or TOKEN")
    except RegistryUnavailable as error:
        yield failed(_CHECK, str(error), f"start the registry, or correct {_SECTION}URL")
    else:
        yield ok(_CHECK, f"{connection.address} answers and accepts this client")
