"""`cliptide delete`: publish delete events."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import click

from cliptide.publishing.event_tracing import open_event_tracing
from cliptide.publishing.pacer import Pacer
from cliptide.publishing.publish import (
    Encode,
    EventPublisher,
    Failed,
    LabelledEvent,
    Published,
    deliveries_of,
    failures_of,
    label_event,
)
from cliptide.publishing.replacements import LOOK_UP_TIMEOUT_SECONDS, NotKnown, ids_in_index, is_content_id
from cliptide.searching.query_client import QueryClient
from cliptide.searching.searchable import wanted_offsets
from cliptide.terminal.connections import open_publisher
from cliptide.terminal.numbers import LARGEST
from cliptide.terminal.options import kafka_options, option, query_options, topic_option
from cliptide.terminal.plain_text import without_controls
from cliptide.terminal.registry import RegistryOptions, framing_option, open_encoder, registry_options
from cliptide.terminal.summary import counted, json_option, print_summary
from cliptide.terminal.waiting import tell, waiting_told
from event_log.kafka.settings import KafkaSettings
from schemas.errors import BadEvent
from schemas.events import DeleteEvent


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """The flags of one run."""

    topic: str
    kafka: KafkaSettings
    registry: RegistryOptions
    platform: str
    version: int | None
    query_url: str
    api_key: str | None
    as_json: bool


_NOT_HELD = "the index holds no such content; its delete event is published all the same"


@click.command("delete")
@click.argument("content_ids", nargs=-1, required=True, metavar="ID...")
@topic_option
@kafka_options
@registry_options
@framing_option
@option("--platform", default="cliptide", help="The event's source.")
@option(
    "--version",
    type=click.IntRange(-LARGEST - 1, LARGEST),
    help="Keep contents newer than this version. Default: delete every version.",
)
@json_option("delete")
@query_options
def delete_command(content_ids: tuple[str, ...], **flags: Any) -> None:
    """Publish a delete event for each content ID.

    A single - reads the IDs from standard input, one per line.

    The query service at --query-url is asked which of the contents the index holds. An ID that it does not
    hold is named on standard error. Its delete event is published all the same, because the content may
    be on its way. The last line of standard output is a summary: a sentence at a terminal, JSON in a pipe.
    """
    options = DeleteOptions(**flags)
    ids = _ids_from_input() if content_ids == ("-",) else content_ids
    unknown = _unknown_ids(ids, options)
    with (
        open_publisher(options.kafka, options.topic) as publisher,
        open_encoder(options.registry, options.topic) as encode,
        open_event_tracing() as tracing,
    ):
        sender = EventPublisher(publisher, options.topic, pacer=Pacer(None), tracing=tracing)
        outcomes = list(sender.publish(_delete_events(ids, options, encode)))
    failed = failures_of(outcomes)
    for failure in failed:
        tell(without_controls(f"{failure.label}: {failure.reason}"))
    summary = _summary(options.topic, outcomes, unknown)
    print_summary(summary, _in_words(summary), as_json=options.as_json)
    raise SystemExit(1 if failed else 0)


def _ids_from_input() -> list[str]:
    return [line.rstrip("\r\n") for line in sys.stdin if line.strip()]


def _delete_events(
    content_ids: Sequence[str], options: DeleteOptions, encode: Encode
) -> Iterator[LabelledEvent | Failed]:
    for content_id in content_ids:
        event = DeleteEvent(
            event_id=str(uuid.uuid4()),
            content_id=content_id,
            source=options.platform,
            occurred_at=datetime.now(timezone.utc),
            version=options.version,
        )
        try:
            yield label_event(content_id, event, encode)
        except BadEvent as error:
            yield Failed(content_id, str(error))


def _unknown_ids(content_ids: Sequence[str], options: DeleteOptions) -> list[str] | None:
    """Name the ids that the index does not hold, and return them; None if the query service cannot tell."""
    client = QueryClient(options.query_url, options.api_key, LOOK_UP_TIMEOUT_SECONDS)
    askable = list(filter(is_content_id, dict.fromkeys(content_ids)))
    try:
        with waiting_told(f"the query service at {client.url}"):
            known = ids_in_index(client, options.topic, askable)
    except NotKnown as error:
        tell(f"not known whether the index holds these contents: {error}")
        return None
    unknown = [content_id for content_id in askable if content_id not in known]
    for content_id in unknown:
        tell(without_controls(f"{content_id}: {_NOT_HELD}"))
    return unknown


def _summary(
    topic: str, outcomes: Sequence[Published | Failed], unknown: Sequence[str] | None
) -> dict[str, Any]:
    published = deliveries_of(outcomes)
    summary: dict[str, Any] = {
        "topic": topic,
        "published": len(published),
        "failed": len(outcomes) - len(published),
        "next_offsets": wanted_offsets(published),
    }
    return summary if unknown is None else summary | {"unknown": list(unknown)}


def _in_words(summary: Mapping[str, Any]) -> str:
    words = [f"published {counted(summary['published'], 'delete event')}"]
    if "unknown" not in summary:
        words.append("not known whether the index holds the contents")
    elif summary["unknown"]:
        words.append(f"{len(summary['unknown']):,} for ids that the index does not hold")
    if summary["failed"]:
        words.append(f"{summary['failed']:,} failed")
    return ", ".join(words)
