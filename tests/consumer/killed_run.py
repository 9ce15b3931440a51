"""One life of a consumer on a log of its own, in a process that a content may kill.

Called as `python -m tests.consumer.killed_run ROOT`: publishes the same records anew each
time (a recreated log under the same topic id would be refused, so the id is none), consumes
them, prints the dead letters' reasons, and leaves gracefully.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from event_log.memory.clients import MemoryLog
from event_log.records import TopicDescription
from schemas.events import TextContent
from tests.consumer.encoders import KillingEncoder
from tests.consumer.running import World, upload

NUM_RECORDS = 12
POISONED = 5


class LogWithoutIds(MemoryLog):
    """A broker that has no topic ids."""

    def describe_topic(self, topic: str) -> TopicDescription:
        return replace(super().describe_topic(topic), topic_id=None)


def main(root: Path) -> None:
    world = World(root, log=LogWithoutIds(), encoder=KillingEncoder())
    for number in range(NUM_RECORDS):
        text = "poison" if number == POISONED else f"a text, number {number}"
        world.publish(upload(f"c{number}", TextContent(text)))
    with world.running():
        world.wait_committed(NUM_RECORDS)
    sys.stdout.write(json.dumps(world.reasons()) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
