"""Pages: nothing repeated, nothing skipped, while uploads and deletes go on."""

from __future__ import annotations

import base64
import hmac
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from clip_index.errors import GenerationGone
from clip_index.generations.manifest import GenerationKey
from clip_index.reading.index_reader import IndexReader
from fakes.hash_encoder import draw_picture
from query_api.search.request.models import MAX_TERMS
from query_api.serving.former_searchers import MAX_FORMER_SEARCHERS
from tests.query_api.conftest import StartService
from tests.query_api.small_index import SmallIndex

Client = TestClient[Any, Any]
NUM_TEXTS = 40


@pytest.fixture
def many_texts(small_index: SmallIndex) -> SmallIndex:
    """Forty texts more in both shards; every fourth is a copy of another."""
    for partition in (0, 1):
        small_index.commit(
            partition,
            *(
                small_index.text(f"{partition}-{n:02}", f"red thing number {n // 4 * 4 if n % 4 == 1 else n}")
                for n in range(NUM_TEXTS // 2)
            ),
        )
    return small_index


async def post(client: Client, **body: Any) -> tuple[int, dict[str, Any]]:
    response = await client.post("/v1/search", json=body)
    return response.status, await response.json()


def ids(answer: dict[str, Any], modality: str = "text") -> list[str]:
    return [hit["content_id"] for hit in answer["results"][modality]["hits"]]


async def read_pages(client: Client, **body: Any) -> list[list[str]]:
    """Read a search of texts to its end."""
    status, answer = await post(client, paged=True, modality="text", **body)
    assert status == 200, answer
    pages = [ids(answer)]
    while (cursor := answer.get("next_cursor")) is not None:
        status, answer = await post(client, cursor=cursor)
        assert status == 200, answer
        pages.append(ids(answer))
    return pages


@pytest.mark.parametrize("k", [1, 7, 43])
async def test_pages_together_are_the_whole_ranking(
    many_texts: SmallIndex, start_service: StartService, k: int
) -> None:
    client = await start_service(many_texts)
    _, whole = await post(client, text="red thing", modality="text", k=1000)
    pages = await read_pages(client, text="red thing", k=k)
    assert [content_id for page in pages for content_id in page] == ids(whole)
    assert len(pages[0]) == k


async def test_pages_keep_the_options_of_the_first(
    many_texts: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(many_texts)
    prefix = {"must_not": [{"field": "content_id", "any_of": ["0-00", "0-02"]}]}
    pages = await read_pages(client, text="red thing", k=5, filter=prefix, collapse_identical=True)
    found = [content_id for page in pages for content_id in page]
    assert len(found) == len(set(found)) == 3 + 3 * (NUM_TEXTS // 2) // 4
    assert not {"0-00", "0-02"} & set(found)


async def test_uploads_between_pages_do_not_shift_them_and_deletes_apply(
    many_texts: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(many_texts)
    _, whole = await post(client, text="red thing", modality="text", k=1000)
    _, first = await post(client, text="red thing", modality="text", k=10, paged=True)
    gone = ids(whole)[15]
    many_texts.commit(0, *(many_texts.text(f"new-{n}", "red thing") for n in range(5)))
    many_texts.commit(int(gone[0]) if gone[0] in "01" else 0, many_texts.removal(gone))
    await client.get("/v1/contents/new-4")  # looks for newer generations first
    _, second = await post(client, cursor=first["next_cursor"], k=1000)
    expected = [content_id for content_id in ids(whole)[10:] if content_id != gone]
    assert ids(second) == expected
    assert second["snapshot"] == first["snapshot"]


async def test_a_copy_stands_for_a_content_that_was_deleted_before_its_page(
    small_index: SmallIndex, start_service: StartService
) -> None:
    small_index.commit(0, *(small_index.text(name, "red wine") for name in ("w-1", "w-2", "w-3")))
    client = await start_service(small_index)
    asked = {"text": "a red dress", "modality": "text", "collapse_identical": True}
    _, first = await post(client, **asked, k=1, paged=True)
    assert ids(first) == ["t-red"]
    small_index.commit(0, small_index.removal("w-1"))
    await client.get("/v1/contents/w-1")  # looks for newer generations first
    _, second = await post(client, cursor=first["next_cursor"], k=10)
    assert [name for name in ids(second) if name.startswith("w")] == ["w-2"]


async def test_another_process_answers_the_next_page(
    many_texts: SmallIndex, start_service: StartService
) -> None:
    one = await start_service(many_texts)
    _, first = await post(one, text="red thing", modality="text", k=10, paged=True)
    many_texts.commit(0, many_texts.text("new", "red thing"))
    other = await start_service(many_texts)
    _, here = await post(one, cursor=first["next_cursor"])
    status, there = await post(other, cursor=first["next_cursor"])
    assert status == 200
    assert ids(there) == ids(here)


async def test_both_modalities_go_on_until_each_ends(client: Client, small_index: SmallIndex) -> None:
    small_index.commit(0, small_index.image("p-4", draw_picture(4)))
    await client.get("/v1/contents/p-4")
    _, first = await post(client, text="red", k=2, paged=True)
    _, second = await post(client, cursor=first["next_cursor"])
    assert [len(ids(second, modality)) for modality in ("text", "image")] == [1, 2]
    _, third = await post(client, cursor=second["next_cursor"])
    assert third["results"] == {"image": {"hits": []}}
    assert third["next_cursor"] is None


async def test_a_collected_generation_is_gone(many_texts: SmallIndex, start_service: StartService) -> None:
    one = await start_service(many_texts)
    _, first = await post(one, text="red thing", modality="text", k=10, paged=True)
    many_texts.commit(0, many_texts.text("new", "red thing"))
    generation = first["snapshot"]["content-uploads-0"]["generation"]
    [manifest] = many_texts.root.rglob(f"content-uploads-0/manifest-{generation:020d}.json")
    manifest.unlink()
    other = await start_service(many_texts)
    status, answer = await post(other, cursor=first["next_cursor"])
    assert (status, answer["error"]["code"]) == (410, "generation_gone")


async def test_a_damaged_former_generation_is_gone_too(
    many_texts: SmallIndex, start_service: StartService
) -> None:
    one = await start_service(many_texts)
    _, first = await post(one, text="red thing", modality="text", k=10, paged=True)
    many_texts.commit(0, many_texts.text("new", "red thing"))
    generation = first["snapshot"]["content-uploads-0"]["generation"]
    [manifest] = many_texts.root.rglob(f"content-uploads-0/manifest-{generation:020d}.json")
    manifest.chmod(0o644)
    manifest.write_bytes(manifest.read_bytes().replace(b'"generation"', b'"generatioN"'))
    other = await start_service(many_texts)
    status, answer = await post(other, cursor=first["next_cursor"])
    assert (status, answer["error"]["code"]) == (410, "generation_gone")


async def test_a_generation_number_used_again_is_not_the_first_pages(
    many_texts: SmallIndex, start_service: StartService, tmp_path: Path
) -> None:
    """A restored backup goes on with numbers that the lost state had given to other commits."""
    backup = tmp_path / "backup"
    shutil.copytree(many_texts.root, backup)
    many_texts.commit(0, many_texts.text("lost", "red thing"))
    one = await start_service(many_texts)
    _, first = await post(one, text="red thing", modality="text", k=10, paged=True)
    _, rest = await post(one, cursor=first["next_cursor"])

    restored = SmallIndex(backup).open()
    shard = first["snapshot"]["content-uploads-0"]
    while restored.generation(0) < shard["generation"]:
        restored.commit(0, restored.text("other", "red thing"))
    other = await start_service(restored)
    status, answer = await post(other, cursor=first["next_cursor"])
    assert (status, answer["error"]["code"]) == (410, "generation_gone")
    assert answer["error"]["message"] == (
        f"content-uploads-0: generation {shard['generation']} is gone; begin again without a cursor"
    )
    assert (await post(one, cursor=first["next_cursor"]))[1]["results"] == rest["results"]


async def test_a_cursor_of_the_former_format_is_refused_and_says_why(
    small_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(small_index, cursor_key="key")
    _, first = await post(client, text="red", k=1, paged=True)
    payload = payload_of(first)
    payload["generations"] = {name: number for name, (number, _) in payload["generations"].items()}
    status, answer = await post(client, cursor=signed_with(b"key", payload))
    assert (status, answer["error"]["code"]) == (400, "bad_cursor")
    assert "another release" in answer["error"]["message"]


def payload_of(answer: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(base64.urlsafe_b64decode(answer["next_cursor"])[32:])
    return fields


def signed_with(key: bytes, payload: dict[str, Any]) -> str:
    signed = json.dumps(payload).encode()
    digest = hmac.digest(key, b"cliptide cursor 1\n" + signed, "sha256")
    return base64.urlsafe_b64encode(digest + signed).decode()


@pytest.mark.parametrize(
    "wrong",
    [{"num_before": -50}, {"num_before": 0}, {"num_before": 10**12}, {"score": float("nan")}],
    ids=str,
)
async def test_a_place_that_no_page_ends_at_is_refused_whoever_signed_it(
    small_index: SmallIndex, start_service: StartService, wrong: dict[str, Any]
) -> None:
    client = await start_service(small_index, cursor_key="key")
    _, first = await post(client, text="red", modality="text", k=1, paged=True)
    payload = payload_of(first)
    assert (await post(client, cursor=signed_with(b"key", payload)))[0] == 200
    payload["places"]["text"] |= wrong
    status, answer = await post(client, cursor=signed_with(b"key", payload))
    assert (status, answer["error"]["code"]) == (400, "bad_cursor")


async def test_a_cursor_excludes_no_more_contents_than_a_query_has_terms_whoever_signed_it(
    small_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(small_index, cursor_key="key")
    _, first = await post(client, text="red", modality="text", k=1, paged=True)
    for number, expected in ((MAX_TERMS, 200), (MAX_TERMS + 1, 400)):
        payload = payload_of(first) | {"excluded_ids": [f"id-{n}" for n in range(number)]}
        assert (await post(client, cursor=signed_with(b"key", payload)))[0] == expected


async def test_a_forged_cursor_is_refused(client: Client) -> None:
    _, first = await post(client, text="red", k=1, paged=True)
    decoded = bytearray(base64.urlsafe_b64decode(first["next_cursor"]))
    for place in (0, 31, 40, len(decoded) - 1):
        forged = bytes(decoded[:place]) + bytes([decoded[place] ^ 1]) + bytes(decoded[place + 1 :])
        status, answer = await post(client, cursor=base64.urlsafe_b64encode(forged).decode())
        assert (status, answer["error"]["code"]) == (400, "bad_cursor")


@pytest.mark.parametrize("cursor", ["a", "ä", "====", "AAAA", json.dumps({"v": 1})])
async def test_what_is_no_cursor_is_refused(client: Client, cursor: str) -> None:
    status, answer = await post(client, cursor=cursor)
    assert (status, answer["error"]["code"]) == (400, "bad_cursor")


async def test_a_cursor_of_another_key_is_refused(
    small_index: SmallIndex, start_service: StartService
) -> None:
    one = await start_service(small_index, cursor_key="the key of these processes")
    other = await start_service(small_index, cursor_key="the key of some others")
    _, first = await post(one, text="red", k=1, paged=True)
    assert (await post(one, cursor=first["next_cursor"]))[0] == 200
    assert (await post(other, cursor=first["next_cursor"]))[0] == 400


async def test_only_k_may_stand_beside_a_cursor(client: Client) -> None:
    assert (await post(client, cursor="AAAA", modality="text"))[0] == 422


async def test_former_searchers_are_kept_in_bounds(
    many_texts: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(many_texts)
    cursors = []
    for n in range(MAX_FORMER_SEARCHERS + 3):
        many_texts.commit(0, many_texts.text(f"new-{n}", "red thing"))
        await client.get(f"/v1/contents/new-{n}")
        cursors.append((await post(client, text="red thing", k=3, paged=True))[1]["next_cursor"])
    answers = [await post(client, cursor=cursor) for cursor in cursors]
    assert [status for status, _ in answers] == [200] * len(cursors)


def test_a_former_generation_shows_what_it_held(small_index: SmallIndex, tmp_path: Path) -> None:
    reader = IndexReader(small_index.root)
    reader.reload()
    assert reader.searcher is not None
    before = {name: shard.key for name, shard in reader.searcher.shards.items()}
    small_index.commit(0, small_index.text("new", "red"), small_index.removal("t-red"), watermark_ms=10**13)
    reader.reload()
    former = reader.open_former(before)
    assert former.find("t-red") is not None
    assert former.find("new") is None
    assert former.shards["content-uploads-0"].watermark_ms != 10**13
    with pytest.raises(GenerationGone, match="content-uploads-1: generation 99 is gone"):
        reader.open_former({**before, "content-uploads-1": GenerationKey(99, "")})
    with pytest.raises(GenerationGone, match="another-0"):
        reader.open_former({**before, "another-0": GenerationKey(1, "")})
