"""The headers of a dead letter: what the consumer writes is what a reader finds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas.dead_letters import (
    Failure,
    Headers,
    RecordPosition,
    append_explanation,
    append_value_omitted,
    headers_of_record,
    is_value_omitted,
    read_explanation,
    summarise,
)

ORIGIN = RecordPosition("uploads", 3, 41)
FAILURE = Failure("truncated_image", "truncated after 12 bytes", "prepare", "BadContent", "cliptide", "w-1")
OWN: Headers = (("content-type", b"application/json"), ("trace", None))


def test_the_headers_are_kafka_connects_and_then_the_reason() -> None:
    assert append_explanation(OWN, origin=ORIGIN, failure=FAILURE) == (
        *OWN,
        ("__connect.errors.topic", b"uploads"),
        ("__connect.errors.partition", b"3"),
        ("__connect.errors.offset", b"41"),
        ("__connect.errors.connector.name", b"cliptide"),
        ("__connect.errors.task.id", b"w-1"),
        ("__connect.errors.stage", b"PREPARE"),
        ("__connect.errors.class.name", b"consumer"),
        ("__connect.errors.exception.class.name", b"BadContent"),
        ("__connect.errors.exception.message", b"truncated after 12 bytes"),
        ("__connect.errors.exception.stacktrace", b"BadContent: truncated after 12 bytes"),
        ("cliptide.reason", b"truncated_image"),
    )


def test_what_was_written_is_read() -> None:
    said = read_explanation(append_explanation(OWN, origin=ORIGIN, failure=FAILURE))
    assert (said.origin, said.reason, said.error) == (ORIGIN, FAILURE.reason, FAILURE.detail)


FORGED: dict[str, Headers] = {
    "none": (),
    "a former dead letter's": append_explanation((), origin=RecordPosition("else", 0, 1), failure=FAILURE),
    "a topic alone": (("__connect.errors.topic", None),),
    "a reason alone": (("cliptide.reason", b"forged"),),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED.keys())
def test_the_records_own_headers_come_back_whatever_they_are_named(forged: Headers) -> None:
    letter = append_explanation((*OWN, *forged), origin=ORIGIN, failure=FAILURE)
    assert headers_of_record(letter) == (*OWN, *forged)
    assert read_explanation(letter).origin == ORIGIN


def test_headers_that_explain_nothing_leave_the_origin_open() -> None:
    said = read_explanation((("__connect.errors.offset", b"many"), ("cliptide.reason", None)))
    assert (said.origin, said.reason, said.error) == (None, "", "")
    assert read_explanation(OWN).reason == "unknown"


def test_a_letter_without_its_value_says_so() -> None:
    letter = append_explanation(OWN, origin=ORIGIN, failure=FAILURE)
    omitted = append_value_omitted(letter)
    assert [is_value_omitted(letter), is_value_omitted(omitted)] == [False, True]
    assert headers_of_record(omitted) == OWN
    assert omitted[-1] == ("cliptide.value_omitted", b"too_large")


def test_a_position_is_written_as_topic_partition_and_offset() -> None:
    assert str(ORIGIN) == "uploads-3@41"


def test_a_summary_keeps_the_trace_context_and_no_other_header_of_its_record() -> None:
    context = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    headers = (("traceparent", b"x" * 65), ("colour", b"red"), context)
    letter = summarise(b"key", b"value", headers, origin=ORIGIN, failure=FAILURE)
    assert headers_of_record(letter.headers) == (context,)


def test_a_letter_can_be_written_whatever_characters_its_failure_names() -> None:
    failure = replace(FAILURE, detail="the type \ud800 is unknown")
    written = append_explanation(OWN, origin=ORIGIN, failure=failure)
    assert read_explanation(written).error == r"the type \ud800 is unknown"
    shortened = summarise(b"key", b"value", OWN, origin=ORIGIN, failure=failure)
    assert read_explanation(shortened.headers).error == r"the type \ud800 is unknown"
