"""How to reach a schema registry."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """The address of a registry's Confluent API, and who asks it.

    Either user and password, or a token, or neither. Without `ca_file` the usual authorities are trusted.
    """

    url: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    timeout_seconds: float = 10.0

    @property
    def address(self) -> str:
        """The URL for people and logs, without a user or a password in it."""
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    def config(self) -> dict[str, Any]:
        """Return the client's configuration. It tries once, because its callers wait and try again."""
        config: dict[str, Any] = {"url": self.url, "timeout": self.timeout_seconds, "max.retries": 0}
        if self.user is not None:
            config["basic.auth.user.info"] = f"{self.user}:{self.password or ''}"
        if self.token is not None:
            config["bearer.auth.credentials.source"] = "STATIC_TOKEN"
            config["bearer.auth.token"] = self.token
            config["bearer.auth.logical.cluster"] = ""
        if self.ca_file is not None:
            config["ssl.ca.location"] = str(self.ca_file)
        return config
