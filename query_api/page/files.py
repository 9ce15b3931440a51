"""The web page's files, and the headers that restrict what it may load."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from aiohttp import web

from query_api.hosts import HOST_PATTERN

if TYPE_CHECKING:
    from importlib.abc import Traversable

TYPES: Mapping[str, str] = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
INDEX = "index.html"
VERSION_PREFIX = "v-"


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file as it is sent."""

    body: bytes
    content_type: str
    etag: str


@dataclass(frozen=True, slots=True)
class Page:
    """The page's files by path, and the headers that go with each.

    `version` is a digest of all files. It is the first part of every address that the page
    loads, so browsers may keep those files for ever: other files have another address.
    """

    files: Mapping[str, PageFile]
    headers: Mapping[str, str]
    version: str

    def split(self, path: str) -> tuple[str, bool]:
        """Return a path without its version, and whether that is this page's version."""
        first, _, rest = path.partition("/")
        if first.startswith(VERSION_PREFIX):
            return rest, first == self.version
        return path, False


PAGE = web.AppKey("page", Page)


@dataclass(frozen=True, slots=True)
class PageSettings:
    """`link_hosts` are the hosts from which the page may load linked images (`*.`: all below it)."""

    link_hosts: tuple[str, ...] = ()
    can_publish: bool = False

    def __post_init__(self) -> None:
        """Raise `ValueError` if a text is not a host, because it would become part of a header."""
        for host in self.link_hosts:
            if not re.fullmatch(HOST_PATTERN, host):
                raise ValueError(f"{host!r} is not a host")


def read_page(settings: PageSettings) -> Page:
    """Read the page's files out of the package."""
    bodies = dict(_read_folder(files("query_api.page").joinpath("static"), ""))
    version = _version_of(bodies)
    values = {
        "version": version,
        "link_hosts": " ".join(settings.link_hosts),
        "can_publish": "true" if settings.can_publish else "false",
    }
    bodies[INDEX] = _filled(bodies[INDEX].decode(), values).encode()
    page_files = {name: _page_file(name, body) for name, body in bodies.items()}
    return Page(page_files, _headers(settings.link_hosts), version)


def _read_folder(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    """Yield the path and the bytes of each file of the page."""
    for file in folder.iterdir():
        if file.is_dir():
            yield from _read_folder(file, f"{prefix}{file.name}/")
        elif _type_of(file.name):
            yield prefix + file.name, file.read_bytes()


def _version_of(bodies: Mapping[str, bytes]) -> str:
    digest = sha256()
    for name, body in sorted(bodies.items()):
        digest.update(f"{name} {len(body)} ".encode() + body)
    return f"{VERSION_PREFIX}{digest.hexdigest()[:16]}"


def _headers(link_hosts: Iterable[str]) -> dict[str, str]:
    """Allow only what the page needs: no inline code, and no other hosts but for linked images."""
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": " ".join(["'self'", "data:", "blob:", *link_hosts]),
        "connect-src": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
        "form-action": "'self'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


def _filled(template: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        template = template.replace("{{" + name + "}}", escape(value))
    return template


def _page_file(name: str, body: bytes) -> PageFile:
    return PageFile(body, _type_of(name) or "", f'"{sha256(body).hexdigest()[:32]}"')


def _type_of(name: str) -> str | None:
    return TYPES.get(name.rpartition(".")[2])
