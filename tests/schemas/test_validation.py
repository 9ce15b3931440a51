from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from fakes.sample_events import build_delete, build_reference, build_upload
from schemas.errors import BadEvent
from schemas.events import Event, ImageContent, TextContent
from schemas.validation import validate_event

LONE_SURROGATE = "\ud800"


def upload_case(reason: str, case: str, **fields: Any) -> Any:
    return pytest.param(build_upload(**fields), reason, id=case)


def reference_case(reason: str, case: str, **fields: Any) -> Any:
    return pytest.param(build_upload(content=build_reference(**fields)), reason, id=case)


BAD_EVENTS = [
    upload_case("invalid_field", "empty content id", content_id=""),
    upload_case("content_id_too_long", "content id of 513 bytes", content_id="x" * 513),
    upload_case("content_id_too_long", "content id of 171 characters, 513 bytes", content_id="靴" * 171),
    upload_case("not_unicode", "content id with a lone surrogate", content_id=LONE_SURROGATE),
    upload_case("invalid_field", "event id of 513 bytes", event_id="x" * 513),
    upload_case("not_unicode", "event id with a lone surrogate", event_id=LONE_SURROGATE),
    upload_case("invalid_field", "source of 513 bytes", source="x" * 513),
    upload_case("invalid_field", "empty owner", owner_id=""),
    upload_case("invalid_field", "owner of 513 bytes", owner_id="x" * 513),
    upload_case("invalid_field", "empty link", link=""),
    upload_case("invalid_field", "link of 8193 bytes", link="x" * 8193),
    upload_case("invalid_field", "title of 513 characters", title="x" * 513),
    upload_case("not_unicode", "title with a lone surrogate", title=LONE_SURROGATE),
    upload_case("invalid_field", "version above 64 bits", version=2**63),
    upload_case("invalid_field", "version below 64 bits", version=-(2**63) - 1),
    upload_case("invalid_field", "time without zone", occurred_at=datetime(2026, 1, 1)),
    upload_case("invalid_field", "time of 1989", occurred_at=datetime(1989, 12, 31, tzinfo=timezone.utc)),
    upload_case("invalid_field", "time of 2100", occurred_at=datetime(2100, 1, 1, tzinfo=timezone.utc)),
    upload_case("empty_content", "empty text", content=TextContent("")),
    upload_case("empty_content", "blank text", content=TextContent(" \n\u00a0")),
    upload_case("not_unicode", "text with a lone surrogate", content=TextContent(LONE_SURROGATE)),
    upload_case("empty_content", "empty image", content=ImageContent(b"")),
    reference_case("empty_content", "reference to nothing", size_bytes=0),
    reference_case("invalid_field", "reference of negative size", size_bytes=-1),
    reference_case("invalid_field", "reference of a size above 64 bits", size_bytes=2**63),
    reference_case("invalid_field", "short digest", sha256="ab"),
    reference_case("invalid_field", "digest in upper case", sha256="AB" * 32),
    reference_case("invalid_field", "digest with a newline", sha256="ab" * 32 + "\n"),
    reference_case("invalid_field", "empty uri", uri=""),
    reference_case("invalid_field", "uri without scheme", uri="/etc/passwd"),
    reference_case("not_unicode", "uri with a lone surrogate", uri="s3://" + LONE_SURROGATE),
    reference_case("invalid_field", "a video", modality="video"),
    upload_case("invalid_field", "empty metadata key", metadata={"": 1.0}),
    upload_case("not_unicode", "metadata key with a lone surrogate", metadata={LONE_SURROGATE: 1.0}),
    upload_case("not_unicode", "metadata text with a lone surrogate", metadata={"a": LONE_SURROGATE}),
    upload_case("invalid_field", "metadata not a number", metadata={"a": float("nan")}),
    upload_case("invalid_field", "metadata infinite", metadata={"a": float("-inf")}),
    upload_case("metadata_too_large", "65 metadata entries", metadata={str(i): 1.0 for i in range(65)}),
    upload_case("metadata_too_large", "metadata key of 257 bytes", metadata={"x" * 257: 1.0}),
    upload_case("metadata_too_large", "metadata of 16 KiB and a byte", metadata={"x": "y" * 16 * 1024}),
    pytest.param(build_delete(content_id=""), "invalid_field", id="delete with an empty content id"),
    pytest.param(build_delete(version=2**63), "invalid_field", id="delete with a version above 64 bits"),
]

GOOD_EVENTS = [
    pytest.param(build_upload(content_id="x" * 512), id="content id of 512 bytes"),
    pytest.param(build_upload(content_id="a\x00b\n"), id="control characters in a content id"),
    pytest.param(build_upload(event_id="", source=""), id="no event id and no source"),
    pytest.param(build_upload(version=-(2**63)), id="least version"),
    pytest.param(build_upload(occurred_at=datetime(1990, 1, 1, tzinfo=timezone.utc)), id="1990"),
    pytest.param(build_upload(metadata={str(i): 1.0 for i in range(64)}), id="64 metadata entries"),
    pytest.param(build_upload(metadata={"x" * 256: ""}), id="metadata key of 256 bytes, empty text"),
    pytest.param(build_upload(metadata={"x": "y" * (16 * 1024 - 1)}), id="metadata of 16 KiB"),
    pytest.param(build_upload(content=build_reference(size_bytes=2**63 - 1)), id="a huge reference"),
]


@pytest.mark.parametrize(("event", "reason"), BAD_EVENTS)
def test_an_event_that_breaks_a_rule_is_bad_for_a_stable_reason(event: Event, reason: str) -> None:
    with pytest.raises(BadEvent) as caught:
        validate_event(event)
    assert caught.value.reason == reason
    assert str(caught.value) == f"{reason}: {caught.value.detail}"


@pytest.mark.parametrize("event", GOOD_EVENTS)
def test_an_event_at_the_edge_of_a_rule_is_good(event: Event) -> None:
    validate_event(event)


@pytest.mark.parametrize("letter", ["x", "é", "ж", "ก", "क", "靴", "👟"])
def test_a_title_may_have_as_many_characters_in_every_script(letter: str) -> None:
    validate_event(build_upload(title=letter * 512))
    with pytest.raises(BadEvent, match="title: 513 characters, at most 512"):
        validate_event(build_upload(title=letter * 513))


def test_a_bad_event_does_not_quote_its_content() -> None:
    with pytest.raises(BadEvent) as caught:
        validate_event(build_upload(content=TextContent("secret" + LONE_SURROGATE)))
    assert "secret" not in str(caught.value)
