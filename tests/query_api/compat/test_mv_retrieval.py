"""What the first reference service's calls rank, and what they leave out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from clip_index.content import EncodedContent
from fakes.hash_encoder import draw_picture
from fakes.shards import with_facts
from tests.query_api.conftest import StartService
from tests.query_api.small_index import SmallIndex

Client = TestClient[Any, Any]
NOTHING: dict[str, list[Any]] = {"contents": [], "scores": []}
SUBJECTS = ("boats", "cats", "trains", "cakes")


def texts(index: SmallIndex, subject: str, numbers: range, user: str | None = None) -> list[EncodedContent]:
    words = f"{subject} with a nice {subject} beside one more {subject}"
    return [index.text(f"text:{subject}-{n}", f"{words} {n}", owner_id=user) for n in numbers]


def pictures(index: SmallIndex, seed: int, numbers: range, user: str | None = None) -> list[EncodedContent]:
    image = index.image("a", draw_picture(seed))
    return [replace(with_facts(image, owner_id=user), content_id=f"image:{seed}-{n}") for n in numbers]


@pytest.fixture
async def platform(small_index: SmallIndex, start_service: StartService) -> Client:
    """Texts of four subjects and copies of a picture; Bea likes boats and cats, and has that picture."""
    for subject in SUBJECTS:
        small_index.commit(0, *texts(small_index, subject, range(20)))
    small_index.commit(1, *pictures(small_index, 9, range(5)))
    small_index.commit(1, *texts(small_index, "boats", range(100, 106), "bea"))
    small_index.commit(1, *texts(small_index, "cats", range(100, 103), "bea"))
    small_index.commit(1, *pictures(small_index, 9, range(100, 130), "bea"))
    return await start_service(small_index)


async def call(client: Client, name: str, body: str | bytes = b"", **parameters: Any) -> dict[str, Any]:
    response = await client.post(f"/mv_retrieval/v0.1/{name}", params=parameters, data=body)
    answer: dict[str, Any] = await response.json()
    assert response.status == 200, answer
    return answer


def subjects(ranked: dict[str, Any]) -> list[str]:
    return [content_id.split("-")[0] for content_id in ranked["contents"]]


async def test_every_interest_of_the_texts_recommends_its_share_of_them(platform: Client) -> None:
    ranked = (await call(platform, "recommend_contents", k=10, user="bea"))["text"]["text"]
    counts = [subjects(ranked).count(subject) for subject in ("boats", "cats")]
    assert counts == [5, 3]  # 8 of 10 by the weights 2 : 1, and 2 outside the interests
    own = {f"{subject}-{n}" for subject in SUBJECTS for n in range(100, 106)}
    assert not own & set(ranked["contents"])
    assert ranked["scores"] == sorted(ranked["scores"], reverse=True)


async def test_the_images_of_a_history_seed_for_themselves(platform: Client) -> None:
    answer = await call(platform, "recommend_contents", k=3, user="bea")
    assert set(answer["image"]["image"]["contents"][:2]) <= {f"9-{n}" for n in range(5)}
    assert answer["image"]["image"]["scores"][0] == pytest.approx(1.0, abs=1e-3)
    assert {len(answer[seed][kind]["contents"]) for seed in answer for kind in answer[seed]} == {3}


async def test_a_history_of_texts_alone_seeds_nothing_for_images(
    small_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(small_index)
    answer = await call(client, "recommend_contents", k=2, user="ann")
    assert answer["image"] == {"text": NOTHING, "image": NOTHING}
    assert sorted(answer["text"]["text"]["contents"]) == ["t-blue", "t-shoe"]
    assert len(answer["text"]["image"]["contents"]) == 2


@pytest.mark.parametrize("who", [{}, {"user": ""}, {"user": "nobody"}], ids=["none", "empty", "unknown"])
async def test_without_a_history_nothing_is_recommended(platform: Client, who: dict[str, str]) -> None:
    answer = await call(platform, "recommend_contents", k=5, **who)
    assert answer == {seed: {"text": NOTHING, "image": NOTHING} for seed in ("text", "image")}


async def test_the_askers_own_contents_are_left_out_however_many_rank_first(platform: Client) -> None:
    picture = draw_picture(9)
    everyone = await call(platform, "retrieve_contents", picture, k=40, type="image")
    listed = [c for c in everyone["image"]["contents"] if c.startswith("9-")]
    assert listed == ["9-0", "9-1", "9-129", "9-2", "9-3", "9-4"]  # of Bea's thirty copies the latest
    others = await call(platform, "retrieve_contents", picture, k=5, type="image", user="bea")
    assert others["image"]["contents"] == [f"9-{n}" for n in range(5)]
    assert subjects(others["text"]) != []


@pytest.mark.parametrize("k", [1, 2, 3, 4, 40])
async def test_what_a_user_uploaded_several_times_is_one_hit_under_its_latest_id(
    small_index: SmallIndex, start_service: StartService, k: int
) -> None:
    copies = pictures(small_index, 9, range(100, 130), "bea")
    small_index.commit(1, *copies[:20], *pictures(small_index, 9, range(2)))
    small_index.commit(0, *copies[20:])
    client = await start_service(small_index)
    answer = await call(client, "retrieve_contents", draw_picture(9), k=k, type="image")
    expected = ["9-0", "9-1", "9-119"]
    assert answer["image"]["contents"][:3] == expected[:k]
    assert len(answer["image"]["contents"]) == min(k, 3 + 3)  # three other pictures are in the index


async def test_one_content_of_two_users_is_two_hits(
    small_index: SmallIndex, start_service: StartService
) -> None:
    for user, number in (("ann", 1), ("bob", 2), ("ann", 3)):
        small_index.commit(0, small_index.text(f"text:{number}", "a lonely lamp", owner_id=user))
    client = await start_service(small_index)
    answer = await call(client, "retrieve_contents", "a lonely lamp", k=2, type="text")
    assert sorted(answer["text"]["contents"]) == ["2", "3"]


async def test_unknown_parameters_are_passed_over_and_the_last_of_two_counts(platform: Client) -> None:
    url = "/mv_retrieval/v0.1/retrieve_contents?k=5&type=text&k=2&debug=1&trace="
    answer = await (await platform.post(url, data=b"boats")).json()
    assert len(answer["text"]["contents"]) == 2


@pytest.mark.parametrize(
    ("name", "body", "parameters"),
    [
        ("retrieve_contents", "boats", {"k": 0, "type": "text"}),
        ("retrieve_contents", draw_picture(9), {"k": 0, "type": "image"}),
        ("retrieve_contents", "", {"k": 5, "type": "text"}),
        ("retrieve_contents", " \n", {"k": 5, "type": "text"}),
    ],
    ids=["no hits wanted", "no hits wanted for a picture", "an empty text", "a blank text"],
)
async def test_a_question_for_nothing_is_answered_with_nothing(
    platform: Client, name: str, body: str | bytes, parameters: dict[str, Any]
) -> None:
    assert await call(platform, name, body, **parameters) == {"text": NOTHING, "image": NOTHING}


async def test_no_recommendation_is_wanted_and_none_is_given(platform: Client) -> None:
    answer = await call(platform, "recommend_contents", k=0, user="bea")
    assert answer == {seed: {"text": NOTHING, "image": NOTHING} for seed in ("text", "image")}


async def test_a_text_and_an_image_of_one_number_are_two_contents(
    small_index: SmallIndex, start_service: StartService
) -> None:
    """The user owns the text `1`, somebody else the image `1`."""
    small_index.commit(0, small_index.text("text:1", "a lonely lamp", owner_id="bea"))
    small_index.commit(1, with_facts(small_index.image("image:1", draw_picture(9)), owner_id="cid"))
    client = await start_service(small_index)
    own = await call(client, "retrieve_contents", draw_picture(9), k=9, type="image", user="bea")
    assert own["image"]["contents"][0] == "1"
    assert "1" not in own["text"]["contents"]
    others = await call(client, "retrieve_contents", "a lonely lamp", k=9, type="text", user="cid")
    assert others["text"]["contents"][0] == "1"
    assert "1" not in others["image"]["contents"]
