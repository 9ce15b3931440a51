"""`cliptide dead-letters`: list the records that were set aside, or publish them again after a fix."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import click
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from cliptide.dead_letters.reading import DeadLetter, TopicScan, dead_letter_from_record, tally
from cliptide.dead_letters.republishing import HARMLESS, Republishing, content_by
from cliptide.publishing.pacer import Pacer
from cliptide.publishing.publish import (
    EventPublisher,
    Failed,
    LabelledEvent,
    Outcome,
    Published,
    check_events,
    deliveries_of,
    failures_of,
)
from cliptide.searching.searchable import wanted_offsets
from cliptide.terminal.connections import open_publisher, open_source
from cliptide.terminal.options import (
    dead_letter_topic_option,
    kafka_options,
    mapping_option,
    option,
    topic_option,
)
from cliptide.terminal.plain_text import plain, without_controls
from cliptide.terminal.summary import counted, print_summary
from cliptide.terminal.waiting import tell
from event_log.errors import TopicMissing
from event_log.kafka.settings import KafkaSettings
from event_log.records import Record
from schemas.mapping.rules import EventMapping


@click.command("dead-letters")
@dead_letter_topic_option
@kafka_options
@option("--reason", help="Take only dead letters with this reason code.")
@option("--last", type=click.IntRange(1), default=20, help="Show the latest N. The counts cover all.")
@option(
    "--json",
    "as_json",
    envvar="CLIPTIDE_DEAD_LETTERS_JSON",
    is_flag=True,
    help="Print one JSON object per line instead of text; with --republish, the summary.",
)
@option(
    "--republish",
    is_flag=True,
    help="Publish the records to --topic again, unchanged. No list.",
)
@topic_option
@mapping_option
@option(
    "--dry-run", is_flag=True, help="With --republish: count what would be published, and publish nothing."
)
def dead_letters_command(
    dead_letter_topic: str,
    kafka: KafkaSettings,
    republish: bool,
    topic: str,
    mapping: EventMapping | None,
    dry_run: bool,
    **shown: Any,
) -> None:
    """List the records that were set aside: where each lay, its reason and its error.

    --republish publishes them again with their bytes, keys and headers: those of --reason, or all. A
    record is left out if its content has a later record; to find that out, the whole topic is read. The key
    says which content it is; give --mapping if the consumer has one. The last line of standard output is
    then a summary: a sentence at a terminal, JSON in a pipe. The exit code is 1 if a record could not be
    published.
    """
    if republish:
        chosen = Republishing(topic, shown["reason"], content_by(mapping))
        summary = _republish(chosen, dead_letter_topic, kafka, is_dry_run=dry_run)
        print_summary(summary, _in_words(summary), as_json=shown["as_json"])
        raise SystemExit(1 if summary["failed"] or chosen.refused.keys() - HARMLESS else 0)
    if dry_run:
        raise click.UsageError("--dry-run needs --republish, because a list changes nothing")
    _list(dead_letter_topic, kafka, **shown)


def _list(
    dead_letter_topic: str, kafka: KafkaSettings, *, reason: str | None, last: int, as_json: bool
) -> None:
    with open_source(kafka) as source:
        records = TopicScan(source, dead_letter_topic).records()
        try:
            counts, shown = tally(map(dead_letter_from_record, records), reason, last)
        except TopicMissing:
            counts, shown = Counter(), []  # the topic is created with the first dead letter
    if as_json:
        for letter in shown:
            click.echo(json.dumps(_as_json(letter)))
    else:
        print_letters(Console(highlight=False), counts, shown)


def _republish(
    chosen: Republishing, dead_letter_topic: str, kafka: KafkaSettings, *, is_dry_run: bool
) -> dict[str, Any]:
    """Publish the chosen letters, name those that fail and return the summary."""
    outcomes = _republished(chosen, dead_letter_topic, kafka, is_dry_run=is_dry_run)
    failed, deliveries = failures_of(outcomes), deliveries_of(outcomes)
    for failure in failed:
        tell(without_controls(f"{failure.label}: {failure.reason}"))
    return {
        "topic": chosen.topic,
        "dry_run": is_dry_run,
        "eligible": len(outcomes),
        "republished": len(deliveries),
        "failed": len(failed),
        "refused": dict(chosen.refused),
        "next_offsets": wanted_offsets(deliveries),
    }


def _in_words(summary: Mapping[str, Any]) -> str:
    """Say in one sentence what was published again, and why the rest was not."""
    verb, number = "republished", summary["republished"]
    if summary["dry_run"]:
        verb, number = "dry run: would republish", summary["eligible"]
    words = [f"{verb} {counted(number, 'dead letter')} to {summary['topic']}"]
    if summary["failed"]:
        words.append(f"{summary['failed']:,} failed")
    words += [f"{count:,} left out ({reason})" for reason, count in summary["refused"].items()]
    return ", ".join(words)


def _republished(
    chosen: Republishing, dead_letter_topic: str, kafka: KafkaSettings, *, is_dry_run: bool
) -> list[Outcome]:
    try:
        chosen.offer(_scan(kafka, dead_letter_topic))
    except TopicMissing:
        return []  # the topic is created with the first dead letter
    chosen.compare(_scan(kafka, chosen.topic))
    events = chosen.events(_scan(kafka, dead_letter_topic))
    return list(check_events(events) if is_dry_run else _publish(events, kafka, chosen.topic))


def _publish(
    events: Iterator[LabelledEvent], kafka: KafkaSettings, topic: str
) -> Iterator[Published | Failed]:
    with open_publisher(kafka, topic) as publisher:
        yield from EventPublisher(publisher, topic, pacer=Pacer(None)).publish(events)


def _scan(kafka: KafkaSettings, topic: str) -> Iterator[Record]:
    with open_source(kafka) as source:
        yield from TopicScan(source, topic).records()


def _as_json(letter: DeadLetter) -> dict[str, Any]:
    fields = asdict(letter)
    return {"place": fields.pop("position"), **fields, "at": _iso(letter.timestamp_ms)}


def print_letters(console: Console, counts: Counter[str], letters: Sequence[DeadLetter]) -> None:
    """Print two lines or more for each letter, so that nothing is cut off in a narrow terminal."""
    if not letters:
        console.print("no dead letters")
        return
    for letter in letters:
        at = datetime.fromtimestamp(letter.timestamp_ms / 1000, timezone.utc)
        place = without_controls(str(letter.origin or letter.position))
        reason = (without_controls(letter.reason), "bold")
        console.print(Text.assemble(f"{at:%Y-%m-%d %H:%M:%S}Z  ", reason, f"  {place}"), overflow="fold")
        for line in (letter.content_id or "(no content id)", letter.error):
            console.print(Padding(plain(line), (0, 0, 0, 2), expand=False), overflow="fold")
    summary = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
    console.print(plain(f"{counted(counts.total(), 'dead letter')}: {summary}"))


def _iso(timestamp_ms: int) -> str:
    return datetime.fromtimestamp(timestamp_ms / 1000, timezone.utc).isoformat(timespec="milliseconds")
