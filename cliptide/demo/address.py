"""The address at which the demo's page is served, and whether a browser can be opened there."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import webbrowser
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from cliptide.demo.child_process import LOOPBACK, free_port

DEFAULT_PORT = 8080
NUM_PORTS_TRIED = 100
_BROWSERS_OF_TERMINALS = frozenset({"lynx", "links", "elinks", "w3m", "www-browser"})


class PortTaken(Exception):
    """The demo cannot listen at the chosen address."""


@dataclass(frozen=True, slots=True)
class PageAddress:
    """Where the query service listens. `public_url` is where others reach it, if that is elsewhere."""

    host: str
    port: int
    public_url: str | None = None

    @property
    def url(self) -> str:
        """The page's address for a browser on this machine."""
        host = LOOPBACK if ipaddress.ip_address(self.host).is_unspecified else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def link_url(self) -> str:
        """The address that the links of pictures begin with."""
        return self.public_url or self.url

    @property
    def link_host(self) -> str:
        """The host of the links, with its port."""
        return urlsplit(self.link_url).netloc

    @property
    def names(self) -> list[str]:
        """The names besides addresses and localhost at which the service must answer."""
        name = urlsplit(self.public_url or "").hostname
        return [] if name is None else [name]

    @property
    def is_loopback(self) -> bool:
        return ipaddress.ip_address(self.host).is_loopback


def choose_port(host: str, wanted: int | None) -> int:
    """Return the wanted port, or by default 8080 or the next one that is free. 0 stands for any.

    Raises `PortTaken` if it is not free, or if this machine does not have the address `host`.
    """
    if wanted is not None:
        return _listen_once(host, wanted) if wanted else free_port()
    for port in range(DEFAULT_PORT, DEFAULT_PORT + NUM_PORTS_TRIED - 1):
        try:
            return _listen_once(host, port)
        except PortTaken:
            continue
    return _listen_once(host, DEFAULT_PORT + NUM_PORTS_TRIED - 1)


def _listen_once(host: str, port: int) -> int:
    """Listen for a moment, as the query service will, and return the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as error:
            raise PortTaken(f"cannot listen at {host}, port {port}: {error.strerror}") from error
    return port


def has_desktop(environment: Mapping[str, str] = os.environ, platform: str = sys.platform) -> bool:
    """Whether a window can be opened here. A session over SSH is at another machine's screen."""
    if "SSH_CONNECTION" in environment:
        return False
    if platform in ("darwin", "win32"):
        return True
    return bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


def open_browser(url: str) -> bool:
    """Open the page in a browser that has a window. Return False if there is none."""
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return False
    if getattr(browser, "name", "") in _BROWSERS_OF_TERMINALS:
        return False
    return browser.open(url)
