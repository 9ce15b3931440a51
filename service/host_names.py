"""Which names a listener without keys answers to.

A web page can give its own name the address of this machine (DNS rebinding). A browser then takes
the service for a part of that page, and lets the page read, upload and delete. The browser still
sends the page's name in `Host`, and so a listener without keys answers only to addresses, to
`localhost` and to the names that the operator has set.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable

_HOST = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(:[0-9]{0,5})?")
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")


def is_host_name(text: str) -> bool:
    """Whether a setting can be the name of a host, without a port."""
    return _NAME.fullmatch(text.lower()) is not None


def are_own_hosts(hosts: Iterable[str], names: Collection[str]) -> bool:
    """Whether every `Host` of a request is an address, `localhost` or one of the names, with any port.

    A request without `Host` passes, because every browser sends one.
    """
    known = {"localhost", *(name.lower() for name in names)}
    return all(_is_own(host.strip().lower(), known) for host in hosts)


def _is_own(host: str, known: Collection[str]) -> bool:
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found[1]
    return name.removesuffix(".") in known or _is_address(name)


def _is_address(name: str) -> bool:
    is_version_6 = name.startswith("[")
    try:
        address = ipaddress.ip_address(name[1:-1] if is_version_6 else name)
    except ValueError:
        return False
    return address.version == (6 if is_version_6 else 4)
