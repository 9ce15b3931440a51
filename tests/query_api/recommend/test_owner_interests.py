"""An owner's interests are found once for a history, and kept in bounded memory."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from query_api.recommend import owner_interests
from query_api.recommend.interests import find_interests
from query_api.recommend.owner_interests import OwnerInterests
from tests.query_api.small_index import SmallIndex

Client = TestClient[Any, Any]


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the histories in which interests were looked for."""
    lengths: list[int] = []

    def find(history: Any) -> Any:
        lengths.append(len(history))
        return find_interests(history)

    monkeypatch.setattr(owner_interests, "find_interests", find)
    return lengths


def test_interests_are_found_once_for_a_generation_and_again_when_the_history_changes(
    small_index: SmallIndex, found: list[int]
) -> None:
    small_index.commit(0, *(small_index.text(f"a-{n}", f"red dress {n}", owner_id="ann") for n in range(4)))
    reader, interests = small_index.open_reader(), OwnerInterests()
    reader.reload()
    first = interests.find(reader.searcher, "ann")
    assert interests.find(reader.searcher, "ann") is first
    assert found == [5]
    small_index.commit(1, small_index.text("t-other", "a green hat", owner_id="bob"))
    reader.reload()
    assert interests.find(reader.searcher, "ann") is first
    assert found == [5]
    small_index.commit(0, small_index.text("a-9", "green hat", owner_id="ann"))
    reader.reload()
    assert sum(one.num_uploads for one in interests.find(reader.searcher, "ann")) == 6
    assert found == [5, 6]


def test_owners_and_modalities_are_kept_apart(small_index: SmallIndex, found: list[int]) -> None:
    reader, interests = small_index.open_reader(), OwnerInterests()
    reader.reload()
    assert len(interests.find(reader.searcher, "ann", ["text"])) == 1
    assert interests.find(reader.searcher, "ann", ["image"]) == ()
    assert interests.find(reader.searcher, "nobody") == ()
    assert interests.find(reader.searcher, "ann", ["text"])[0].medoid.content_id == "t-red"


def test_what_is_kept_is_bounded_in_bytes(small_index: SmallIndex) -> None:
    reader, interests = small_index.open_reader(), OwnerInterests(max_bytes=10_000)
    reader.reload()
    for number in range(200):
        interests.find(reader.searcher, f"owner {number}")
    assert interests._of_generations._num_bytes <= 5_000


async def test_a_second_recommendation_for_an_owner_is_the_same(client: Client, found: list[int]) -> None:
    answers = [
        await (await client.post("/v1/recommend", json={"owner_id": "ann", "k": 3})).json() for _ in range(2)
    ]
    assert answers[0]["interests"] == answers[1]["interests"] != []
    assert answers[0]["results"] == answers[1]["results"]
    assert found == [1]
