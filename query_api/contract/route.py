"""What a route is: how it is called, who may call it, and how the OpenAPI document describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel

Access: TypeAlias = Literal["open", "read", "write", "admin"]
Examples: TypeAlias = Mapping[str, Any]  # title → body
Schema: TypeAlias = Mapping[str, Any]
Described: TypeAlias = type[BaseModel] | Schema

JSON = "application/json"
METHODS_WITH_BODY = ("POST", "PATCH")
MERGE_PATCH = "application/merge-patch+json"
FORM = "multipart/form-data"
HTML = "text/html"
OCTETS = "application/octet-stream"
BINARY: Schema = {"type": "string", "format": "binary"}

ACCESS: web.AppKey[Mapping[tuple[str, str], Access]] = web.AppKey("access")  # by method and path
ENDLESS = web.AppKey("endless", frozenset[str])  # paths whose answers are streams without an end


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path. What is served and what is documented are both made from routes.

    `answers` are the successful answers, by status. `codes` are the error codes of this route
    alone; `openapi.error_codes` adds those of every route of its kind. `bodies` are by content
    type, `examples` are JSON bodies. The document groups routes by `tag`; a route without a tag
    is not in the document. Generated clients call the operation by `name`.
    """

    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    handler: Handler
    access: Access
    summary: str
    answers: Mapping[int, Described]
    answer_type: str = JSON
    parameters: type[BaseModel] | None = None
    required_parameters: frozenset[str] | None = None  # None: those that the model requires
    bodies: Mapping[str, Described] = field(default_factory=dict)
    codes: frozenset[str] = frozenset()
    is_endless: bool = False  # its answer is a stream that ends when the client leaves
    examples: Examples = field(default_factory=dict)
    name: str = ""  # empty: the handler's
    description: str = ""
    tag: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.method, self.path

    def definition(self) -> web.RouteDef:
        """Return the route as aiohttp registers it. GET includes HEAD.

        A `{name}` in the path matches everything but a slash. aiohttp's own pattern would also
        exclude braces, which content ids may have. `{file}` matches the whole rest of the path.
        """
        path = self.path.replace("{file}", "{file:.+}") if "{file}" in self.path else _plain(self.path)
        if self.method == "GET":
            return web.get(path, self.handler, expect_handler=defer_continue)
        return web.route(self.method, path, self.handler, expect_handler=defer_continue)


def _plain(path: str) -> str:
    return path.replace("}", ":[^/]+}")


async def defer_continue(_: web.Request) -> None:
    """Send no "100 Continue" yet. aiohttp would send it before the key is checked; the receiver sends it."""
