"""Hosts: what a name of one looks like, and which of them are this machine."""

from __future__ import annotations

import ipaddress

HOST_PATTERN = r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?"  # `*.` stands for all below it


def is_loopback(host: str) -> bool:
    """Whether an address reaches this machine only. Of names, only `localhost` is known to do so."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
