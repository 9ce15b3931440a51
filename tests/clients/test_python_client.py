"""The hand-written client against a running service, blocking and asynchronous."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cliptide.client import AsyncClient, Client, NotIndexed, NotInTime, Query, Refused, Unreachable, Upload
from cliptide.client.values import Acknowledgement

from fakes.hash_encoder import draw_picture

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client


def write(client: Client, content_id: str, text: str, **fields: Any) -> Acknowledgement:
    written = client.upload(content_id, text=text, **fields)
    client.wait_for(written, 60.0)
    return written


def test_what_was_uploaded_is_found_once_it_was_waited_for(client: Client) -> None:
    write(client, "py-1", "a yellow umbrella", metadata={"price": 5.5, "new": True}, source="shop")
    [hit] = client.search("a yellow umbrella", k=1, modality="text", include=["metadata", "text"]).hits
    assert (hit.content_id, hit.source, hit.text) == ("py-1", "shop", "a yellow umbrella")
    assert hit.metadata == {"price": 5.5, "new": True}
    assert hit.occurred_at.tzinfo is not None


def test_the_code_of_its_readme_runs_in_the_repositorys_root_and_ends_with_the_lines_that_are_shown(
    address: str,
) -> None:
    page = (ROOT / "clients" / "python" / "README.md").read_text()
    [code] = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    [shown] = re.findall(r"(?<=\n\n)```\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert "http://127.0.0.1:8080" in code
    done = subprocess.run(
        [sys.executable, "-c", code.replace("http://127.0.0.1:8080", address)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "clients" / "python" / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("shoe-1 1.0\n")
    assert done.stdout.endswith(f"\n{shown}")


def test_a_search_can_wait_for_an_upload_itself(client: Client) -> None:
    written = client.upload("py-2", text="a green kettle")
    answer = client.search("a green kettle", k=1, min_offsets=written.min_offsets, timeout_ms=60_000)
    assert answer.texts[0].content_id == "py-2"


def test_pictures_are_sent_as_bytes_or_by_their_path(client: Client, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(draw_picture(77))
    client.wait_for(client.upload("py-picture", image=tmp_path / "a.png", owner_id="pia"), 60.0)
    answer = client.search(Query(image=draw_picture(77)), modality="image", k=1)
    assert [hit.content_id for hit in answer.images] == ["py-picture"]
    assert answer.texts == ()


def test_a_deleted_content_is_gone_once_it_was_waited_for(client: Client) -> None:
    write(client, "py/deleted?", "a soap")
    assert (client.content("py/deleted?") or {})["text"] == "a soap"
    client.wait_for(client.delete("py/deleted?"), 60.0)
    assert client.content("py/deleted?") is None


def test_a_batch_says_of_each_upload_what_became_of_it(client: Client) -> None:
    good = Upload(
        "py-batch", text="a brass bell", fields={"title": "Bell", "metadata": {"tags": ["brass", "old"]}}
    )
    first, second = client.upload_batch([good, Upload("py-empty")])
    assert first.error is None
    assert first.acknowledgement is not None
    assert (second.acknowledgement, second.content_id) == (None, "py-empty")
    assert second.error is not None
    assert second.error.status == 422
    client.wait_for(first.acknowledgement, 60.0)
    [hit] = client.search("a brass bell", k=1, modality="text", include=["metadata"]).texts
    assert (hit.title, hit.metadata) == ("Bell", {"tags": ["brass", "old"]})


def test_contents_are_deleted_by_a_filter_after_a_dry_run(client: Client) -> None:
    for number in range(3):
        write(client, f"py-sold-{number}", f"a chair {number}", metadata={"state": ["sold", "old"]})
    sold = {"must": [{"field": "metadata.state", "all_of": ["sold", "old"]}]}
    planned = client.delete_by_filter(sold)
    assert (planned.num_found, planned.num_deleted) == (3, 0)
    with pytest.raises(Refused, match="too_many_contents"):
        client.delete_by_filter(sold, dry_run=False, max_contents=2)
    deleted = client.delete_by_filter(sold, dry_run=False)
    assert (deleted.num_found, deleted.num_deleted) == (3, 3)
    after = client.search("a chair", k=5, filter=sold, min_offsets=deleted.min_offsets, timeout_ms=60_000)
    assert after.hits == []


def test_recommendations_say_why_and_name_what_is_missing(client: Client) -> None:
    write(client, "py-like", "a wooden spoon")
    write(client, "py-near", "a wooden spoon large")
    answer = client.recommend([Query(content_id="py-like"), Query(content_id="nobody")], ["leather"], k=1)
    assert answer.texts[0].content_id == "py-near"
    assert answer.texts[0].because is not None
    assert answer.texts[0].because.content_id == "py-like"
    assert answer.missing_ids == ["nobody"]


def test_pages_go_on_until_every_hit_was_shown_once(client: Client) -> None:
    for number in range(5):
        written = client.upload(f"py-page-{number}", text=f"a page {number}", source="pages")
    client.wait_for(written, 60.0)
    wanted = {"must": [{"field": "source", "equals": "pages"}]}
    client.search("a page", min_offsets=written.min_offsets)
    pages = list(client.pages("a page", modality="text", k=2, filter=wanted))
    shown = [hit.content_id for page in pages for hit in page.hits]
    assert len(shown) == len(set(shown)) >= 3
    assert all(len(page.hits) <= 2 for page in pages)


def test_a_batch_answers_each_query_with_its_own_options(client: Client) -> None:
    write(client, "py-batch", "a batch of bread")
    asked = [("a batch of bread", {"k": 1, "modality": "text"}), (Query(content_id="py-batch"), {"k": 2})]
    first, second = client.search_batch(asked)
    assert [hit.content_id for hit in first.hits] == ["py-batch"]
    assert "py-batch" not in [hit.content_id for hit in second.hits]


def test_a_refusal_has_the_stable_code_and_says_what_is_wrong(client: Client) -> None:
    with pytest.raises(Refused, match="one_query_required") as caught:
        client.search(Query())
    assert (caught.value.status, caught.value.code) == (422, "one_query_required")
    assert caught.value.request_id


def test_who_waits_for_what_never_comes_is_told_so(client: Client) -> None:
    written = client.upload("py-late", text="late")
    never = Acknowledgement("py-late", written.shard, written.offset, written.next_offset + 1_000_000)
    began = time.monotonic()
    with pytest.raises(NotInTime, match="wait again"):
        client.wait_for(never, 0.1)
    assert time.monotonic() - began < 30


def test_who_waits_for_a_content_that_was_not_indexed_is_told_so(client: Client) -> None:
    written = client.upload("py-gone", text="soon gone")
    client.wait_for(client.delete("py-gone"), 60.0)
    with pytest.raises(NotIndexed, match="dead letter"):
        client.wait_for(written, 60.0)


def test_a_service_that_is_not_there_is_unreachable() -> None:
    with (
        Client("http://127.0.0.1:9", patience_seconds=0.0) as client,
        pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:9"),
    ):
        client.search("red")


def test_the_asynchronous_client_does_the_same(address: str) -> None:
    async def use() -> None:
        async with AsyncClient(address) as client:
            await client.wait_for(await client.upload("py-async", text="a purple bicycle"), 60.0)
            answer = await client.search("a purple bicycle", k=1, modality="text")
            assert [hit.content_id for hit in answer.hits] == ["py-async"]
            near = await client.recommend([Query(content_id="py-async")], k=1)
            assert len(near.texts) == 1
            pages = [page async for page in client.pages("a purple bicycle", modality="text", k=100)]
            assert sum(hit.content_id == "py-async" for page in pages for hit in page.hits) == 1
            [one] = await client.search_batch([("a purple bicycle", {"k": 1})])
            assert len(one.texts) == 1
            await client.wait_for(await client.delete("py-async"), 60.0)
            assert await client.content("py-async") is None

    asyncio.run(use())
