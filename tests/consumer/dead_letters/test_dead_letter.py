"""A dead letter on its way."""

from __future__ import annotations

from concurrent.futures import Future
from hashlib import sha256

import pytest

from consumer.dead_letters.dead_letter import DeadLetters, SetAside
from event_log.errors import FatalLogError
from event_log.memory.clients import MemoryLog, MemoryPublisher
from event_log.records import Delivery, Headers, Record
from schemas.dead_letters import is_value_omitted, read_explanation
from tests.consumer.records import record


class WaitingPublisher(MemoryPublisher):
    """Its queue is full, and its broker away."""

    def publish(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> Future[Delivery]:
        raise AssertionError("a thread of the consumer would wait here")


KEYS = {"no": None, "a short": b"k", "a huge": b"k" * 100_000}
VALUES = {"no": None, "a short": b"v", "a huge": b"v" * 100_000}
HEADERS: dict[str, Headers] = {
    "no": (),
    "many": tuple((f"h{number}", b"x") for number in range(20_000)),
    "a huge": (("trace", b"x" * 100_000),),
    "a hugely named": (("n" * 100_000, None),),
}
ASIDE = SetAside("invalid_field", "a field is wrong: " + "ä" * 50_000, "decode", "schemas.errors.BadEvent")


def delivered_letter(log: MemoryLog, one: Record, aside: SetAside = ASIDE) -> Record:
    """Send the record's dead letter, and return it as the topic holds it."""
    log.create_topic("letters")
    delivery = DeadLetters(MemoryPublisher(log), "letters", connector="c" * 300, worker_id="w" * 300).send(
        one, aside
    )
    while not delivery.is_delivered(0.0):
        pass
    [letter] = log.partition("letters", 0).records
    return letter


@pytest.mark.parametrize("key", KEYS.values(), ids=[f"{name} key" for name in KEYS])
@pytest.mark.parametrize("value", VALUES.values(), ids=[f"{name} value" for name in VALUES])
@pytest.mark.parametrize("headers", HEADERS.values(), ids=[f"{name} header" for name in HEADERS])
def test_a_letter_of_two_kilobytes_can_be_sent_of_any_record(
    key: bytes | None, value: bytes | None, headers: Headers
) -> None:
    one = Record("uploads", 3, 41, key, value, headers, 0, 1)
    letter = delivered_letter(MemoryLog(max_record_bytes=1500), one)
    said = read_explanation(letter.headers)
    assert (str(said.origin), said.reason) == ("uploads-3@41", "invalid_field")
    assert said.error.startswith("a field is wrong")
    assert is_value_omitted(letter.headers)


def test_a_summary_has_the_digests_of_what_was_left_out() -> None:
    key, value = b"k" * 5_000, b"v" * 5_000
    one = Record("uploads", 3, 41, key, value, (("trace", b"x" * 5_000), ("other", None)), 0, 1)
    letter = delivered_letter(MemoryLog(max_record_bytes=1500), one)
    said = dict(letter.headers)
    assert letter.value is None
    assert letter.key == b"uploads-3@41"
    assert said["cliptide.value_digest"] == b"5000 bytes, sha256 %s" % sha256(value).hexdigest().encode()
    assert said["cliptide.key_omitted"] == b"5000 bytes, sha256 %s" % sha256(key).hexdigest().encode()
    assert said["cliptide.headers_omitted"].startswith(b"2 headers, 5014 bytes, sha256 ")  # type: ignore[union-attr]


def test_a_letter_keeps_as_much_as_its_topic_takes() -> None:
    def aside() -> SetAside:
        return SetAside("undecodable", "no JSON", "decode", "BadEvent")

    whole = Record("uploads", 3, 41, b"k", b"v" * 3_000, (("trace", b"7"),), 0, 1)
    letter = delivered_letter(MemoryLog(max_record_bytes=6_000), whole, aside())
    assert (letter.key, letter.value, letter.headers[0]) == (b"k", whole.value, ("trace", b"7"))
    letter = delivered_letter(MemoryLog(max_record_bytes=2_900), whole, aside())
    assert (letter.key, letter.value, letter.headers[0]) == (b"k", None, ("trace", b"7"))


def test_a_letter_that_no_form_of_can_be_published_names_its_record_and_the_way_on() -> None:
    log = MemoryLog(max_record_bytes=100)
    log.create_topic("letters")
    letters = DeadLetters(MemoryPublisher(log), "letters", connector="main", worker_id="w")
    delivery = letters.send(record(4), SetAside("undecodable", "no JSON", "decode", "BadEvent"))
    said = r"dead letter of uploads-0@4 \(undecodable\) to letters.*max\.message\.bytes"
    for _ in range(2):
        assert delivery.is_delivered(0.0) is False
    for _ in range(2):
        with pytest.raises(FatalLogError, match=said):
            delivery.is_delivered(0.0)


def test_no_thread_waits_until_a_dead_letter_has_room() -> None:
    log = MemoryLog()
    log.create_topic("letters")
    letters = DeadLetters(WaitingPublisher(log), "letters", connector="main", worker_id="w")
    delivery = letters.send(record(4), SetAside("undecodable", "no JSON", "decode", "BadEvent"))
    assert delivery.is_delivered(0.0)
