"""The flags that name pairs, and reading what they name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from cliptide.dead_letters.reading import TopicScan
from cliptide.pairs.log import LogPairs
from cliptide.pairs.pair import BadPair, Pair
from cliptide.pairs.sources import read_pairs
from cliptide.publishing.upload_sources import SourceUnreadable
from cliptide.terminal.connections import open_source
from cliptide.terminal.numbers import FiniteRange
from cliptide.terminal.options import kafka_options, mapping_option, option, topic_option
from cliptide.terminal.paths import PathType
from event_log.kafka.settings import KafkaSettings
from schemas.codec import EventDecoder
from schemas.mapping.rules import EventMapping

_MAX_BAD_SHARE = 0.05


class BadInput(click.ClickException):
    """What the command was given cannot be used. The exit code is 2, and no usage is printed."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class PairRequest:
    """Which pairs a command reads: those of sources, or those of the log."""

    sources: tuple[Path, ...]
    from_topic: bool
    pair_key: str | None
    topic: str
    mapping: EventMapping | None
    kafka: KafkaSettings
    max_bad_share: float

    @classmethod
    def of_sources(cls, sources: Sequence[Path]) -> PairRequest:
        """Ask for the pairs of files and folders, with the usual share of bad ones."""
        return cls(tuple(sources), False, None, "", None, KafkaSettings(""), _MAX_BAD_SHARE)

    @property
    def is_empty(self) -> bool:
        return not self.sources and not self.from_topic

    @property
    def description(self) -> str:
        return f"the topic {self.topic}" if self.from_topic else ", ".join(path.name for path in self.sources)

    def read(self) -> Iterator[Pair | BadPair]:
        """Yield the pairs. Raises `BadInput` for a source that cannot be read, or an `EventLogError`."""
        if self.from_topic:
            yield from self._read_log()
            return
        try:
            for source in self.sources:
                yield from _labelled(source, len(self.sources))
        except SourceUnreadable as error:
            raise BadInput(str(error)) from error

    def _read_log(self) -> Iterator[Pair | BadPair]:
        found = LogPairs(EventDecoder(mapping=self.mapping), self.pair_key)
        with open_source(self.kafka) as source:
            for record in TopicScan(source, self.topic).records():
                found.add(record)
        yield from found.pairs()

    def check(self) -> None:
        """Raise `click.UsageError` for flags that do not fit each other."""
        if self.sources and self.from_topic:
            raise click.UsageError("give either PAIRS or --from-topic")
        if self.pair_key and not self.from_topic:
            raise click.UsageError("--pair-key belongs to --from-topic")


def _labelled(source: Path, num_sources: int) -> Iterator[Pair | BadPair]:
    """Name the source, too, where there are several."""
    for pair in read_pairs(source):
        if num_sources == 1:
            yield pair
        elif isinstance(pair, BadPair):
            yield BadPair(f"{source}: {pair.label}", pair.reason, pair.detail)
        else:
            yield Pair(f"{source}: {pair.label}", pair.content_id, pair.read, pair.caption, pair.metadata)


def pair_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add PAIRS and the flags about pairs; the command receives them as `pairs`, a `PairRequest`."""

    @click.argument("sources", nargs=-1, metavar="[PAIRS]...", type=PathType(path_type=Path))
    @option("--from-topic", is_flag=True, help="Take the pairs from the log instead of PAIRS.")
    @option(
        "--pair-key",
        help="With --from-topic: pictures and texts whose metadata agrees in this key are pairs.",
    )
    @option(
        "--max-bad-share",
        type=FiniteRange(0, 1),
        default=_MAX_BAD_SHARE,
        help="The largest share of pairs that may be skipped. Above it, the exit code is 2.",
    )
    @topic_option
    @mapping_option
    @kafka_options
    @wraps(command)
    def with_pairs(*args: Any, **flags: Any) -> Any:
        names = ("sources", "from_topic", "pair_key", "topic", "mapping", "kafka", "max_bad_share")
        pairs = PairRequest(**{name: flags.pop(name) for name in names})
        pairs.check()
        return command(*args, pairs=pairs, **flags)

    return with_pairs


def described(lines: Sequence[str]) -> None:
    """Print lines about pairs on standard error."""
    for line in lines:
        click.echo(line, err=True)
