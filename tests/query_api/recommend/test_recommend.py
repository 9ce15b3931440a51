"""What `/v1/recommend` answers."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from clip_index.content import EncodedContent
from clip_index.searching.searcher import Searcher
from fakes.hash_encoder import draw_picture
from fakes.shards import with_facts
from query_api.recommend import recommendation
from query_api.recommend.diversity import diversify
from tests.query_api.conftest import StartService
from tests.query_api.small_index import OCCURRED_AT_MS, SmallIndex

Client = TestClient[Any, Any]


async def recommend(client: Client, **body: Any) -> dict[str, Any]:
    response = await client.post("/v1/recommend", json=body)
    answer: dict[str, Any] = await response.json()
    assert response.status == 200, answer
    return answer


def ids(answer: dict[str, Any], modality: str = "text") -> list[str]:
    return [hit["content_id"] for hit in answer["results"][modality]["hits"]]


def subjects(answer: dict[str, Any]) -> list[str]:
    return [content_id.split("-")[0] for content_id in ids(answer)]


def texts(index: SmallIndex, subject: str, num: int, owner_id: str | None = None) -> list[EncodedContent]:
    """Texts that share most of their words."""
    words = f"{subject} with a nice {subject} beside one more {subject}"
    name = owner_id or "any"
    return [index.text(f"{subject}-{name}-{n}", f"{words} {n}", owner_id=owner_id) for n in range(num)]


@pytest.fixture
async def platform(small_index: SmallIndex, start_service: StartService) -> Client:
    """Twenty texts of each of four subjects; Bea likes two of them, Cid uploaded one, Dan many."""
    for subject in ("boats", "cats", "trains", "cakes"):
        small_index.commit(0, *texts(small_index, subject, 20))
    small_index.commit(1, *texts(small_index, "boats", 6, "bea"), *texts(small_index, "cats", 3, "bea"))
    small_index.commit(1, *texts(small_index, "trains", 1, "cid"))
    small_index.commit(1, *texts(small_index, "cakes", 40, "dan"))
    return await start_service(small_index)


async def test_examples_pull_in_what_is_like_them_and_hits_name_them(platform: Client) -> None:
    positive = [{"content_id": "boats-any-1"}, {"text": "cats with a nice cats"}]
    answer = await recommend(platform, positive=positive, modality="text", k=40)
    assert set(subjects(answer)) == {"boats", "cats"}
    assert "boats-any-1" not in ids(answer)
    for hit in answer["results"]["text"]["hits"]:
        named = {"boats": ("boats-any-1", 0), "cats": (None, 1)}[hit["content_id"].split("-")[0]]
        assert (hit["because"]["content_id"], hit["because"]["example"]) == named
    assert answer["missing_ids"] == []


async def test_a_negative_example_pushes_away(platform: Client) -> None:
    both = [{"text": "boats boats cats"}]
    plain = await recommend(platform, positive=both, modality="text", k=10)
    pushed = await recommend(
        platform, positive=both, negative=[{"text": "boats", "weight": 2}], modality="text", k=10
    )
    assert subjects(plain).count("boats") > 5
    assert subjects(pushed)[:5] == ["cats"] * 5


async def test_weights_decide_between_examples(platform: Client) -> None:
    boats, cats = {"text": "boats", "weight": 5}, {"text": "cats", "weight": 0.5}
    answer = await recommend(platform, positive=[boats, cats], modality="text", k=10)
    assert subjects(answer) == ["boats"] * 10


async def test_an_image_example_recommends_images(client: Client) -> None:
    image = base64.b64encode(draw_picture(2)).decode()
    assert ids(await recommend(client, positive=[{"image": image}]), "image")[0] == "p-2"


async def test_missing_ids_are_skipped_and_listed(client: Client) -> None:
    answer = await recommend(
        client,
        positive=[{"content_id": "gone"}, {"content_id": "t-red"}],
        negative=[{"content_id": "away"}],
    )
    assert answer["missing_ids"] == ["away", "gone"]
    assert answer["results"]["text"]["hits"][0]["because"]["content_id"] == "t-red"


async def test_nothing_but_missing_ids_is_not_found(client: Client) -> None:
    response = await client.post("/v1/recommend", json={"positive": [{"content_id": "gone"}]})
    assert (response.status, (await response.json())["error"]["code"]) == (404, "unknown_content")


async def test_an_owner_gets_every_interest_by_its_share_and_nothing_of_their_own(platform: Client) -> None:
    answer = await recommend(platform, owner_id="bea", modality="text", k=9, novelty=0.0)
    found = subjects(answer)
    assert (found.count("boats"), found.count("cats")) == (6, 3)
    assert not [content_id for content_id in ids(answer) if "bea" in content_id]
    assert [i["num_uploads"] for i in answer["interests"]] == [6, 3]
    for hit in answer["results"]["text"]["hits"]:
        assert hit["because"]["kind"] == "interest"
        assert hit["because"]["content_id"].split("-")[:2] == [hit["content_id"].split("-")[0], "bea"]


async def test_novelty_gives_its_share_to_what_lies_outside(platform: Client) -> None:
    answer = await recommend(platform, owner_id="bea", modality="text", k=10, novelty=0.4)
    kinds = [hit["because"]["kind"] for hit in answer["results"]["text"]["hits"]]
    assert kinds.count("novelty") == 4
    novel = [h["content_id"] for h in answer["results"]["text"]["hits"] if h["because"]["kind"] == "novelty"]
    assert all(content_id.split("-")[0] not in ("boats", "cats") for content_id in novel)


async def test_of_all_interests_together_no_more_hits_are_put_in_order_than_are_answered(
    platform: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def counted(*asked: Any) -> Iterator[int]:
        for position in diversify(*asked):
            taken.append(position)
            yield position

    monkeypatch.setattr(recommendation, "diversify", counted)
    answer = await recommend(platform, owner_id="bea", modality="text", k=10, novelty=0.3, diversity=0.5)
    assert len(ids(answer)) == 10
    assert len(taken) <= 10 + 10  # some are found by two interests


def test_of_a_long_history_only_the_last_uploads_are_read(
    small_index: SmallIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, upload in enumerate(texts(small_index, "cakes", 40, "dan")):
        when = OCCURRED_AT_MS + 1000 * (number % 20)
        small_index.commit(number % 2, with_facts(upload, occurred_at_ms=when))
    reader = small_index.open_reader()
    reader.reload()
    assert reader.searcher is not None
    read: list[int] = []
    read_many = Searcher.read_many
    monkeypatch.setattr(
        Searcher, "read_many", lambda s, found, facts: read.append(len(found)) or read_many(s, found, facts)
    )
    monkeypatch.setattr(recommendation, "NUM_REMEMBERED", 6)
    history = recommendation.find_history(reader.searcher, "dan")
    assert [upload.content_id for upload in history] == [
        f"cakes-dan-{number}" for number in (19, 39, 18, 38, 17, 37)
    ]
    assert read == [6]


@pytest.mark.parametrize(("owner_id", "subject"), [("cid", "trains"), ("dan", "cakes")], ids=["one", "many"])
async def test_any_length_of_history_works(platform: Client, owner_id: str, subject: str) -> None:
    answer = await recommend(platform, owner_id=owner_id, modality="text", k=10, novelty=0.0)
    assert len(ids(answer)) == 10
    assert set(subjects(answer)) == {subject}


async def test_an_owner_without_uploads_gets_nothing(platform: Client) -> None:
    answer = await recommend(platform, owner_id="nobody")
    assert answer["results"] == {"text": {"hits": []}, "image": {"hits": []}}
    assert answer["interests"] == []


async def test_more_than_an_interest_has_is_filled_from_elsewhere(platform: Client) -> None:
    answer = await recommend(platform, owner_id="cid", modality="text", k=60, novelty=0.2)
    assert len(set(ids(answer))) == 60


async def test_diversity_puts_copies_apart(small_index: SmallIndex, start_service: StartService) -> None:
    copies = [replace(small_index.text("x", "red dress red dress"), content_id=f"copy-{n}") for n in range(8)]
    small_index.commit(0, *copies)
    client = await start_service(small_index)
    example = [{"text": "red dress"}]
    plain = await recommend(client, positive=example, modality="text", k=3)
    diverse = await recommend(client, positive=example, modality="text", k=3, diversity=0.9)
    assert len([i for i in ids(plain) if i.startswith("copy")]) == 3
    assert len([i for i in ids(diverse) if i.startswith("copy")]) == 1


async def test_filters_hold_beside_the_owners_exclusion(platform: Client) -> None:
    condition = {"field": "owner_id", "equals": "dan"}
    answer = await recommend(platform, owner_id="bea", modality="text", k=5, filter={"must": [condition]})
    assert subjects(answer) == ["cakes"] * 5


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"positive": [{"text": "a"}], "owner_id": "a"}, id="both"),
        pytest.param({"owner_id": "a", "negative": [{"text": "a"}]}, id="negative ones alone"),
        pytest.param({"positive": []}, id="no examples"),
        pytest.param({"positive": [{"text": "a", "weight": -1}]}, id="negative weight"),
        pytest.param({"owner_id": "a", "novelty": 1.5}, id="more than all novel"),
    ],
)
async def test_a_malformed_recommendation_is_refused(client: Client, body: dict[str, Any]) -> None:
    assert (await client.post("/v1/recommend", json=body)).status == 422
