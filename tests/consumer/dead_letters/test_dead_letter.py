"""A dead letter on its way."""

from __future__ import annotations

from concurrent.futures import Future

from consumer.dead_letters.dead_letter import DeadLetters, SetAside
from event_log.memory.clients import MemoryLog, MemoryPublisher
from event_log.records import Delivery, Headers
from tests.consumer.records import record


class WaitingPublisher(MemoryPublisher):
    """Its queue is full, and its broker away."""

    def publish(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> Future[Delivery]:
        raise AssertionError("a thread of the consumer would wait here")


def test_no_thread_waits_until_a_dead_letter_has_room() -> None:
    log = MemoryLog()
    log.create_topic("letters")
    letters = DeadLetters(WaitingPublisher(log), "letters", connector="main", worker_id="w")
    delivery = letters.send(record(4), SetAside("undecodable", "no JSON", "decode", "BadEvent"))
    assert delivery.is_delivered(0.0)
