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


def check_settings(of_consumer: consumer.settings.Settings | Finding) -> Iterator[Finding]:
    """Say which of the services could start with the present environment."""
    if isinstance(of_consumer, Finding):
        yield of_consumer
    else:
        yield ok("settings", "the consumer's settings can be used")
    try:
        query_api.settings.read_settings()
    except BadSettings as error:
        message = f"the query service cannot start: {error}"
        yield failed("settings", message, f"correct that variable; {_TABLE}")
    else:
        yield ok("settings", "the query service's settings can be used")
