"""Reads the settings of both services, as they do at their start."""

from __future__ import annotations

from collections.abc import Iterator

import consumer.settings
import query_api.settings
from cliptide.doctor.findings import Finding, failed, ok
from service.environment import BadSettings

_TABLE = "docs/settings.md lists every variable"


def read_consumer_settings() -> consumer.settings.Settings | Finding:
    """Return the consumer's settings, or what is wrong with them."""
    try:
        return consumer.settings.read_settings()
    except BadSettings as error:
        return failed("settings", f"the consumer cannot start: {error}", f"correct that variable; {_TABLE}")


def read_query_settings() -> query_api.settings.Settings | Finding:
    """Return the query service's settings, or what is wrong with them."""
    try:
        return query_api.settings.read_settings()
    except BadSettings as error:
        message = f"the query service cannot start: {error}"
        return failed("settings", message, f"correct that variable; {_TABLE}")


def check_settings(
    of_consumer: consumer.settings.Settings | Finding, of_query_service: query_api.settings.Settings | Finding
) -> Iterator[Finding]:
    """Say which of the services could start with the present environment."""
    for name, settings in (("consumer", of_consumer), ("query service", of_query_service)):
        if isinstance(settings, Finding):
            yield settings
        else:
            yield ok("settings", f"the {name}'s settings can be used")
