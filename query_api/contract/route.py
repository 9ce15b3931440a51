"""What a route is: how it is called, who may call it, and what the document says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel

HTML = "text/html"


Access: TypeAlias = Literal["open", "read", "write"]


Examples: TypeAlias = Mapping[str, Any]  # what it is good for → the body


Schema: TypeAlias = Mapping[str, Any]
Described: TypeAlias = type[BaseModel] | Schema
BINARY: Schema = {"type": "string", "format": "binary"}
JSON = "application/json"
FORM = "multipart/form-data"
OCTETS = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path. The table of routes is what is served and what is documented.

    `answers` are the successes by status, `codes` the errors of its own; those that any
    route of its kind may give are added by `error_codes`. `bodies` are by content type,
    `examples` are JSON bodies. Routes of one `tag` stand together in the document.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    handler: Handler
    access: Access
    summary: str
    answers: Mapping[int, Described]
    answer_type: str = JSON
    parameters: type[BaseModel] | None = None
    required_parameters: frozenset[str] | None = None  # where a kind of body needs more than another
    bodies: Mapping[str, Described] = field(default_factory=dict)
    codes: frozenset[str] = frozenset()
    is_endless: bool = False  # its answer goes on until the client leaves
    examples: Examples = field(default_factory=dict)
    tag: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.method, self.path

    def definition(self) -> web.RouteDef:
        """Return the route as aiohttp registers it; HEAD comes with GET.

        A name stands for anything but a slash: by itself aiohttp leaves out braces, which ids may have.
        """
        path = self.path.replace("}", ":[^/]+}")
        if self.method == "GET":
            return web.get(path, self.handler, expect_handler=defer_continue)
        return web.route(self.method, path, self.handler, expect_handler=defer_continue)


async def defer_continue(_: web.Request) -> None:
    """Replace aiohttp's answer to `Expect: 100-continue`, which would come before keys are checked."""


ACCESS: web.AppKey[Mapping[tuple[str, str], Access]] = web.AppKey("access")  # by method and path


ENDLESS = web.AppKey("endless", frozenset[str])  # paths whose answers go on
