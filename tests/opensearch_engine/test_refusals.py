"""OpenSearch that cannot be used: one plain sentence for each cause, and a wait where waiting helps."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clip_index.errors import EncoderMismatch, IndexRefused
from cliptide.demo.child_process import free_port
from fakes.shards import description, fingerprint
from opensearch_engine.connection import Connection, OpenSearchSettings
from opensearch_engine.errors import EngineMissing, EngineRefused, EngineUnavailable
from opensearch_engine.index import OpenSearchIndex, create_index, open_index
from opensearch_engine.shards import OpenSearchShards
from tests.opensearch_engine.conftest import settings_of
from tests.opensearch_engine.told_server import ToldServer, told_server


@pytest.fixture
def told() -> Iterator[ToldServer]:
    with told_server() as server:
        yield server


def create(url: str, tmp_path: Path, **changes: Any) -> OpenSearchIndex:
    return create_index(
        Connection(settings_of(url, timeout_seconds=2.0, **changes)), tmp_path, "main", description()
    )


def error_of(kind: str, reason: str) -> dict[str, Any]:
    return {"error": {"type": kind, "reason": reason, "root_cause": [{"type": kind, "reason": reason}]}}


def test_nobody_answers(tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(
        EngineUnavailable, match=f"OpenSearch at http://127.0.0.1:{port} does not answer: .*refused"
    ):
        create(f"http://127.0.0.1:{port}", tmp_path)


@pytest.mark.parametrize("status", [401, 403])
def test_the_credentials_are_refused(told: ToldServer, tmp_path: Path, status: int) -> None:
    told.answers["GET /"] = status, b"Unauthorized"
    with pytest.raises(
        EngineRefused, match=rf"refuses the credentials \({status}\): check CLIPTIDE_OPENSEARCH__USER"
    ):
        create(told.url, tmp_path)


@pytest.mark.parametrize(
    ("status", "kind"), [(429, "too_many"), (503, "none_ready"), (403, "cluster_block_exception")]
)
def test_a_cluster_that_asks_for_patience_is_waited_for(
    told: ToldServer, tmp_path: Path, status: int, kind: str
) -> None:
    told.answers["GET /"] = status, error_of(kind, "not now")
    with pytest.raises(EngineUnavailable, match=rf"cannot do this now \({status}\): {kind}: not now"):
        create(told.url, tmp_path)


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        (
            {"distribution": "opensearch", "number": "2.11.0"},
            "is version 2.11.0: this engine needs 2.19 or newer",
        ),
        ({"number": "8.15.0"}, "is not OpenSearch"),
        ({}, "is not OpenSearch"),
    ],
)
def test_a_server_of_another_kind_or_version_is_refused(
    told: ToldServer, tmp_path: Path, version: dict[str, str], sentence: str
) -> None:
    told.answers["GET /"] = 200, {"version": version}
    with pytest.raises(EngineRefused, match=sentence):
        create(told.url, tmp_path)


@pytest.mark.parametrize(
    "reason",
    [
        "unknown setting [index.knn] please check that any required plugins are installed",
        "Failed to parse mapping [_doc]: No handler for type [knn_vector] declared on field [text]",
    ],
)
def test_a_missing_plugin_is_named(told: ToldServer, tmp_path: Path, reason: str) -> None:
    told.answers["PUT /cliptide-main-contents-1"] = 400, error_of("illegal_argument_exception", reason)
    with pytest.raises(EngineRefused, match="has no k-NN plugin: install opensearch-knn"):
        create(told.url, tmp_path)


@pytest.mark.parametrize("status", [200, 502, 404])
@pytest.mark.parametrize("body", [b"<html>a proxy</html>", b"[]", b'"text"', b""])
def test_an_answer_that_is_not_opensearchs_is_no_fault_of_ours(
    told: ToldServer, tmp_path: Path, status: int, body: bytes
) -> None:
    told.answers["GET /"] = status, body
    with pytest.raises((EngineRefused, EngineUnavailable, EngineMissing)):
        create(told.url, tmp_path)


def test_no_message_shows_a_part_of_a_document(told: ToldServer) -> None:
    shown = "failed to parse field [offset] of type [long] in document. Preview of field's value: 'my secret'"
    told.answers["PUT /x"] = 400, error_of("mapper_parsing_exception", shown)
    with pytest.raises(EngineRefused, match="mapper_parsing_exception") as refused:
        Connection(settings_of(told.url)).ask("PUT", "/x")
    assert "secret" not in str(refused.value)


def test_a_password_is_sent_and_never_shown(told: ToldServer) -> None:
    settings = OpenSearchSettings(told.url, user="us", password="geheim")
    Connection(settings).ask("GET", "/")
    assert told.headers[0]["authorization"] == "Basic dXM6Z2VoZWlt"
    assert "geheim" not in repr(settings)


def test_requests_to_aws_are_signed(told: ToldServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalr")
    told.answers["POST /x"] = 200, {}
    Connection(OpenSearchSettings(told.url, aws_region="eu-west-1")).ask("POST", "/x/_search", {"size": 0})
    signature = told.headers[0]["authorization"]
    assert signature.startswith("AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/")
    assert "/eu-west-1/es/aws4_request" in signature


def test_missing_credentials_of_aws_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(EngineRefused, match="there are no AWS credentials"):
        Connection(OpenSearchSettings("http://127.0.0.1:1", aws_region="eu-west-1"))


def test_the_extra_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opensearchpy", None)
    with pytest.raises(EngineRefused, match=r"pip install 'cliptide\[opensearch\]'"):
        Connection(OpenSearchSettings("http://127.0.0.1:1"))


@pytest.mark.parametrize("index_id", ["Main", "-x", "a/b", "", "x" * 65])
def test_a_name_that_opensearch_does_not_take_is_refused(
    told: ToldServer, tmp_path: Path, index_id: str
) -> None:
    with pytest.raises(EngineRefused, match="must match"):
        create_index(Connection(settings_of(told.url)), tmp_path, index_id, description())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"topic": "others"}, "was built for topic 'content-uploads' \\(now 'others'\\)"),
        ({"topic_id": "other"}, "was built for topic_id"),
        ({"num_partitions": 3}, "was built for num_partitions 2 \\(now 3\\)"),
        ({"group_id": "g"}, "was built for group_id"),
    ],
)
def test_an_index_of_another_log_is_refused_with_both_named(
    index: OpenSearchIndex, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    wanted = description(**{"num_partitions": 2, **changes})
    with pytest.raises(IndexRefused, match=sentence):
        create_index(index.connection, tmp_path, "main", wanted)


def test_an_index_of_another_encoder_is_refused(index: OpenSearchIndex, tmp_path: Path) -> None:
    wanted = description(num_partitions=2, fingerprint=fingerprint(architecture="other"))
    with pytest.raises(EncoderMismatch):
        create_index(index.connection, tmp_path, "main", wanted)


def test_a_mapping_of_another_dimension_is_refused(connection: Connection, tmp_path: Path) -> None:
    create_index(connection, tmp_path, "other", description(fingerprint=fingerprint(dimension=8)))
    connection.ask("PUT", "/cliptide-main-state-1", {"aliases": {"cliptide-main-state": {}}})
    connection.ask(
        "POST",
        "/_aliases",
        {"actions": [{"add": {"index": "cliptide-other-contents-1", "alias": "cliptide-main-contents"}}]},
    )
    with pytest.raises(EngineRefused, match="holds vectors of 8 dimensions, and the encoder makes 16"):
        create_index(connection, tmp_path, "main", description())


def test_a_write_index_that_is_no_index_of_ours_is_refused(connection: Connection, tmp_path: Path) -> None:
    connection.ask("PUT", "/cliptide-main-contents-1", {"aliases": {"cliptide-main-contents": {}}})
    with pytest.raises(EngineRefused, match="has no vectors: its mapping is not one of cliptide"):
        create_index(connection, tmp_path, "main", description())


def test_contents_that_are_gone_while_their_progress_is_there_are_refused(
    index: OpenSearchIndex, tmp_path: Path
) -> None:
    index.connection.ask("DELETE", f"/{index.contents}-1")
    for open_again in (
        lambda: create_index(index.connection, tmp_path, "main", index.description),
        lambda: open_index(index.connection, "main"),
    ):
        with pytest.raises(
            EngineRefused, match=r"cliptide-main-contents is gone .* delete cliptide-main-state-1"
        ):
            open_again()


def test_writes_that_are_acknowledged_before_they_are_on_disk_are_refused(
    index: OpenSearchIndex, tmp_path: Path
) -> None:
    index.connection.ask("PUT", f"/{index.contents}/_settings", {"index.translog.durability": "async"})
    with pytest.raises(EngineRefused, match=r"set its index\.translog\.durability to request"):
        create_index(index.connection, tmp_path, "main", index.description)


def test_an_index_that_replicates_segments_is_read_from_its_primaries(
    connection: Connection, tmp_path: Path
) -> None:
    """A replica shows a refresh only later, so an answer from there could lack what is covered."""
    from opensearch_engine.layout import contents_index

    body = contents_index(connection.settings, "main", 16)
    body["settings"]["index"]["replication.type"] = "SEGMENT"
    connection.ask("PUT", "/cliptide-main-contents-1", body)
    index = create_index(connection, tmp_path, "main", description())
    assert index.preference == "_primary"


def test_several_consumers_create_one_index(connection: Connection, tmp_path: Path) -> None:
    first = create_index(connection, tmp_path, "main", description())
    second = create_index(connection, tmp_path, "main", description())
    assert first.description == second.description
    assert OpenSearchShards(second, "w").become_owner(0, first_offset=0, own_epoch=None).epoch == 1
