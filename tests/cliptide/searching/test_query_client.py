from typing import Any

import pytest

from cliptide.searching.query_client import (
    IndexState,
    QueryClient,
    QueryRefused,
    QueryServiceAway,
    QueryServiceError,
)
from tests.cliptide.stub_query_service import StubQueryService, refusal

INDEX = {
    "shards": {
        "up-0": {"generation": 3, "next_offset": 5, "num_contents": {"image": 3, "text": 1}},
        "up-1": {"generation": 0, "next_offset": 2, "num_contents": {"image": 2}},
    }
}


def test_the_index_says_what_is_searchable() -> None:
    with StubQueryService({"GET /v1/index": (200, INDEX)}).serving() as service:
        assert QueryClient(service.url).index() == IndexState({"up-0": 5, "up-1": 2}, 6, num_owned=1)


def test_a_content_is_asked_for_by_its_quoted_id() -> None:
    found = {"content": {"content_id": "a/b ü?"}}
    with StubQueryService({"GET /v1/contents/a%2Fb%20%C3%BC%3F": (200, found)}).serving() as service:
        assert QueryClient(service.url).content("a/b ü?") == {"content_id": "a/b ü?"}


def test_an_unknown_content_is_none_but_an_unknown_route_is_not() -> None:
    answers = {"GET /v1/contents/gone": (404, refusal("unknown_content"))}
    with StubQueryService(answers).serving() as service:
        assert QueryClient(service.url).content("gone") is None
        with pytest.raises(QueryRefused, match="unknown_route"):
            QueryClient(service.url + "/elsewhere").content("gone")


def test_a_search_sends_json_and_the_key() -> None:
    with StubQueryService({"POST /v1/search": (200, {"results": {}})}).serving() as service:
        assert QueryClient(service.url, api_key="secret").search({"text": "red"}) == {"results": {}}
        [(_, headers, body)] = service.requests
    assert body == {"text": "red"}
    assert headers["Authorization"] == "Bearer secret"
    assert headers["Content-Type"] == "application/json"


ERRORS: dict[str, tuple[int, Any, type[QueryServiceError], str]] = {
    "refused": (422, refusal("out_of_range"), QueryRefused, "422 out_of_range: because of"),
    "not_ready": (503, refusal("no_index"), QueryServiceAway, "no_index"),
    "busy": (429, refusal("too_many"), QueryServiceAway, "busy"),
    "someone_elses_error": (500, b"<html>", QueryRefused, "500 unknown: <html>"),
    "someone_elses_page": (200, b"<html>", QueryServiceError, "is this the query service"),
    "a_list": (200, [], QueryServiceError, "is this the query service"),
}


@pytest.mark.parametrize(("status", "body", "kind", "words"), ERRORS.values(), ids=ERRORS.keys())
def test_an_answer_that_cannot_be_used_is_sorted(
    status: int, body: Any, kind: type[QueryServiceError], words: str
) -> None:
    with StubQueryService({"POST /v1/search": (status, body)}).serving() as service:
        with pytest.raises(QueryServiceError, match=words) as raised:
            QueryClient(service.url).search({"text": "red"})
    assert type(raised.value) is kind


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed_because_the_key_would_go_to_another_host(status: int) -> None:
    with StubQueryService({"GET /v1/index": (200, INDEX), "GET /readyz": (200, {})}).serving() as other:
        answers = {call: (status, f"{other.url}{call.split()[1]}?t=1") for call in other.answers}
        answers["POST /v1/search"] = (status, f"{other.url}/v1/index")
        with StubQueryService(answers).serving() as service:
            client = QueryClient(service.url, api_key="secret")
            with pytest.raises(QueryServiceError, match=f"redirect to {other.url}/v1/index,") as raised:
                client.index()
            with pytest.raises(QueryServiceError, match="redirect to"):
                client.search({"text": "red"})
            assert not client.is_ready()
    assert other.requests == []
    assert "secret" not in str(raised.value)


def test_known_ids_are_asked_for_by_the_hundred() -> None:
    def newest(request: Any) -> Any:
        [condition] = request["filter"]["must"]
        known = [content_id for content_id in condition["any_of"] if content_id.endswith("7")]
        return {"results": {"image": {"hits": [{"content_id": i} for i in known]}, "text": {"hits": []}}}

    with StubQueryService({"POST /v1/browse": (200, newest)}).serving() as service:
        ids = [f"a{n}" for n in range(600)]
        assert QueryClient(service.url).known_ids(ids) == {i for i in ids if i.endswith("7")}
        long_ids = [f"{n:0512}" for n in range(256)]
        assert len(QueryClient(service.url).known_ids(long_ids)) == 25
        calls = [len(request["filter"]["must"][0]["any_of"]) for _, _, request in service.requests]
    assert calls == [256, 256, 88, 117, 117, 22]


def test_nobody_listening_is_worth_a_retry() -> None:
    with StubQueryService({}).serving() as service:
        pass
    client = QueryClient(service.url)
    with pytest.raises(QueryServiceAway, match=service.url):
        client.index()
    assert not client.is_ready()


@pytest.mark.parametrize("url", ["search.example", "http://[x"], ids=["no_scheme", "half_an_address"])
def test_an_address_that_is_none_is_named(url: str) -> None:
    with pytest.raises(QueryServiceError, match="http://") as raised:
        QueryClient(url).index()
    assert url in str(raised.value)


@pytest.mark.parametrize("key", ["secret\n", "sécret€"], ids=["line", "unicode"])
def test_a_key_that_no_header_can_hold_is_not_told(key: str) -> None:
    with pytest.raises(QueryServiceError, match="API key") as raised:
        QueryClient("http://127.0.0.1:1", api_key=key).index()
    assert key.strip() not in str(raised.value)


def test_readiness_is_the_services_own_word() -> None:
    with StubQueryService({"GET /readyz": (200, {"status": "ok"})}).serving() as service:
        assert QueryClient(service.url).is_ready()
    with StubQueryService({"GET /readyz": (503, refusal("not_ready"))}).serving() as service:
        assert not QueryClient(service.url).is_ready()
