"""The page's files, and the fence around them."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from importlib.resources import files
from os.path import normpath
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from multidict import CIMultiDict

from event_log.memory.clients import MemoryLog, MemoryPublisher
from query_api.http.guards.api_keys import ApiKeys
from query_api.page.files import PageSettings, read_page
from tests.query_api.conftest import StartService
from tests.query_api.small_index import SmallIndex

Client = TestClient[Any, Any]
STATIC = Path(str(files("query_api.page"))) / "static"
PAGE_FILES = sorted(str(file.relative_to(STATIC)) for file in STATIC.rglob("*") if file.is_file())
SCRIPTS = [name for name in PAGE_FILES if name.endswith(".js")]


class Tags(HTMLParser):
    """Collects every tag with its attributes, and the text inside scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


async def tags_of(client: Client) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(await (await client.get("/")).text())
    return parser.tags


async def meta_of(client: Client, name: str) -> str | None:
    [content] = [a["content"] for tag, a in await tags_of(client) if tag == "meta" and a.get("name") == name]
    return content


async def test_the_page_allows_itself_and_nothing_else(client: Client) -> None:
    response = await client.get("/")
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Content-Security-Policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    )
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_the_page_has_no_inline_code_and_refers_to_its_own_files_alone(client: Client) -> None:
    tags = await tags_of(client)
    for tag, attributes in tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        assert tag != "style"
        address = attributes.get("src") or attributes.get("href")
        assert address is None or address == "/" or address.startswith(("/page/", "#")), address
    for address in [a["src"] for tag, a in tags if tag == "script"]:
        assert (await client.get(str(address))).status == 200


@pytest.mark.parametrize("name", PAGE_FILES)
async def test_every_file_has_its_type_and_the_same_fence(client: Client, name: str) -> None:
    response = await client.get(f"/page/{name}")
    expected = {
        "html": "text/html; charset=utf-8",
        "css": "text/css; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "svg": "image/svg+xml; charset=utf-8",
    }
    assert response.status == 200
    assert response.headers["Content-Type"] == expected[name.rpartition(".")[2]]
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")


KNOWN = {
    "the tag": ["{tag}"],
    "a tag that a compressing proxy made weak": ["W/{tag}"],
    "one of several": ['"other", W/{tag}, "third"'],
    "in the second of two headers": ['"other"', "{tag}"],
    "any": ["*"],
}
UNKNOWN = {
    "another": ['"other"'],
    "without its quotation marks": ["{bare}"],
    "a part of it": ['"x{bare}"'],
    "nothing": [""],
    "an open quotation mark": ['"{bare}'],
}


@pytest.mark.parametrize("told", KNOWN.values(), ids=KNOWN)
@pytest.mark.parametrize("path", ["/", "/page/page.js"])
async def test_a_file_that_the_browser_has_is_not_sent_again(
    client: Client, path: str, told: list[str]
) -> None:
    first = await client.get(path)
    again = await client.get(path, headers=tags_told(told, first.headers["ETag"]))
    assert (again.status, await again.read()) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert again.headers["Cache-Control"] == first.headers["Cache-Control"]


@pytest.mark.parametrize("told", UNKNOWN.values(), ids=UNKNOWN)
async def test_a_file_that_the_browser_does_not_have_is_sent(client: Client, told: list[str]) -> None:
    tag = (await client.get("/page/page.js")).headers["ETag"]
    again = await client.get("/page/page.js", headers=tags_told(told, tag))
    assert again.status == 200


def tags_told(told: list[str], tag: str) -> CIMultiDict[str]:
    return CIMultiDict(("If-None-Match", one.format(tag=tag, bare=tag.strip('"'))) for one in told)


async def test_the_files_that_the_page_names_are_kept_by_the_browser_for_ever(client: Client) -> None:
    addresses = [
        a.get("src") or a.get("href") for tag, a in await tags_of(client) if tag in ("script", "link")
    ]
    assert len(addresses) > 5
    for address in addresses:
        response = await client.get(str(address))
        assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable", address
    assert (await client.get("/")).headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("path", ["page.js", "v-0000000000000000/page.js"])
async def test_a_file_without_the_current_version_is_asked_for_again(client: Client, path: str) -> None:
    response = await client.get(f"/page/{path}")
    assert (response.status, response.headers["Cache-Control"]) == (200, "no-cache")


def test_the_version_of_the_page_follows_its_files_alone() -> None:
    pages = [read_page(PageSettings()), read_page(PageSettings(can_publish=True))]
    assert re.fullmatch("v-[0-9a-f]{16}", pages[0].version)
    assert pages[0].version == pages[1].version


@pytest.mark.parametrize("name", ["none.js", "..%2Fapp.py", "%2e%2e%2fapp.py", "__init__.py"])
async def test_nothing_but_the_page_is_sent(client: Client, name: str) -> None:
    response = await client.get(f"/page/{name}")
    assert (response.status, (await response.json())["error"]["code"]) == (404, "unknown_route")


async def test_linked_pictures_are_allowed_from_configured_hosts(
    small_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(small_index, link_hosts=("cdn.example", "*.pictures.example:8443"))
    policy = (await client.get("/")).headers["Content-Security-Policy"]
    assert "img-src 'self' data: blob: cdn.example *.pictures.example:8443;" in policy
    assert await meta_of(client, "cliptide-link-hosts") == "cdn.example *.pictures.example:8443"


@pytest.mark.parametrize("host", ["", "a b", "a;script-src *", "*", "https://a.example", "'self'", "a\n"])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="is not a host"):
        PageSettings(link_hosts=(host,))


async def test_the_page_offers_uploads_where_the_service_takes_them(
    client: Client, small_index: SmallIndex, start_service: StartService
) -> None:
    with_log = await start_service(small_index, publisher=MemoryPublisher(MemoryLog()))
    assert await meta_of(client, "cliptide-can-publish") == "false"
    assert await meta_of(with_log, "cliptide-can-publish") == "true"


async def test_the_page_is_open_and_asks_for_the_key_itself(
    small_index: SmallIndex, start_service: StartService
) -> None:
    keys = ApiKeys(read=frozenset({b"\0" * 32}), write=frozenset())
    client = await start_service(small_index, keys=keys)
    assert [(await client.get(path)).status for path in ("/", "/page/page.js")] == [200, 200]
    guarded = ("/v1/live", "/v1/contents/p-1/thumbnail")
    assert [(await client.get(path)).status for path in guarded] == [401, 401]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_makes_no_markup_out_of_texts(name: str) -> None:
    script = read_page(PageSettings()).files[name].body.decode()
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", script
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_imports_scripts_that_are_there(name: str) -> None:
    page = read_page(PageSettings())
    for imported in re.findall(r'from "([^"]+)"', page.files[name].body.decode()):
        assert imported.startswith((".", "..")), imported
        path = normpath(PurePosixPath(name).parent / imported)
        assert path in page.files, imported


def test_scripts_are_short_and_folders_small() -> None:
    """One idea a module: nobody has to scroll far, and no folder needs a map."""
    lines = {name: len((STATIC / name).read_text().splitlines()) for name in SCRIPTS}
    assert {name: number for name, number in lines.items() if number > 165} == {}
    folders = Counter(str(PurePosixPath(name).parent) for name in PAGE_FILES)
    assert max(folders.values()) <= 16
