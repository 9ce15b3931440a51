"""`cliptide delete`: publish delete events."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import click

from cliptide.publishing.pacer import Pacer
from cliptide.publishing.publish import (
    EventPublisher,
    Failed,
    LabelledEvent,
    Published,
    deliveries_of,
    failures_of,
    label_event,
)
from cliptide.searching.searchable import wanted_offsets
from cliptide.terminal.connections import open_publisher
from cliptide.terminal.options import kafka_options, option, topic_option
from event_log.kafka.settings import KafkaSettings
from schemas.errors import BadEvent
from schemas.events import DeleteEvent


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """The flags of one run."""

    topic: str
    kafka: KafkaSettings
    platform: str
    version: int | None


@click.command("delete", short_help="Publish a delete event for each content id.")
@click.argument("content_ids", nargs=-1, required=True, metavar="ID...")
@topic_option
@kafka_options
@option("--platform", default="cliptide", help="The event's source.")
@option(
    "--version",
    type=int,
    help="Keep contents newer than this version. Default: delete every version.",
)
def delete_command(content_ids: tuple[str, ...], **flags: Any) -> None:
    """Publish a delete event for each content ID.

    A single - reads the IDs from standard input, one per line.
    """
    options = DeleteOptions(**flags)
    ids = _ids_from_input() if content_ids == ("-",) else content_ids
    with open_publisher(options.kafka, options.topic) as publisher:
        sender = EventPublisher(publisher, options.topic, pacer=Pacer(None))
        outcomes = list(sender.publish(_delete_events(ids, options)))
    failed = failures_of(outcomes)
    for failure in failed:
        click.echo(f"{failure.label}: {failure.reason}", err=True)
    click.echo(json.dumps(_summary(options.topic, outcomes)))
    raise SystemExit(1 if failed else 0)


def _ids_from_input() -> list[str]:
    return [line.rstrip("\r\n") for line in sys.stdin if line.strip()]


def _delete_events(content_ids: Sequence[str], options: DeleteOptions) -> Iterator[LabelledEvent | Failed]:
    for content_id in content_ids:
        event = DeleteEvent(
            event_id=str(uuid.uuid4()),
            content_id=content_id,
            source=options.platform,
            occurred_at=datetime.now(timezone.utc),
            version=options.version,
        )
        try:
            yield label_event(content_id, event)
        except BadEvent as error:
            yield Failed(content_id, str(error))


def _summary(topic: str, outcomes: Sequence[Published | Failed]) -> dict[str, Any]:
    published = deliveries_of(outcomes)
    return {
        "topic": topic,
        "published": len(published),
        "failed": len(outcomes) - len(published),
        "next_offsets": wanted_offsets(published),
    }
