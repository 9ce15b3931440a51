"""Checks pairs: every picture is decoded, and what cannot be used is counted and listed."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from clip_index.encoder.image_headers import ImageLimits
from clip_index.encoder.images import Resizing, read_pixels
from clip_index.errors import BadContent
from cliptide.pairs.pair import BadPair, Pair

Prepared = TypeVar("Prepared")
Item = TypeVar("Item")
Result = TypeVar("Result")

NUM_LISTED = 10
_NUM_WAITING = 32
_SMALL = Resizing(32, 32)


class TooManyBadPairs(Exception):
    """More pairs than the allowed share cannot be used; the message lists some of them."""


@dataclass(frozen=True, slots=True)
class CheckedPair(Generic[Prepared]):
    """A pair whose picture can be decoded, the SHA-256 of its bytes, and the picture prepared for its use."""

    pair: Pair
    digest: str
    prepared: Prepared


@dataclass(slots=True)
class PairTally:
    """Counts pairs, and keeps those that are skipped."""

    num_usable: int = 0
    skipped: list[BadPair] = field(default_factory=list)

    @property
    def num_seen(self) -> int:
        return self.num_usable + len(self.skipped)

    @property
    def reasons(self) -> dict[str, int]:
        """The number of skipped pairs for each reason, the most frequent first."""
        return dict(Counter(bad.reason for bad in self.skipped).most_common())

    def lines(self) -> list[str]:
        """Describe what is skipped: a line of counts, and some pairs by name. Without any: no line."""
        if not self.skipped:
            return []
        counts = ", ".join(f"{reason} {count:,}" for reason, count in self.reasons.items())
        more = len(self.skipped) - NUM_LISTED
        named = [f"  {bad}" for bad in self.skipped[:NUM_LISTED]]
        head = f"skipped {len(self.skipped):,} of {self.num_seen:,} pairs: {counts}"
        return [head, *named, *([f"  … and {more:,} more"] if more > 0 else [])]

    def check(self, max_bad_share: float) -> None:
        """Raise `TooManyBadPairs` if the skipped pairs are more than the share, or if nothing is left."""
        if self.num_usable == 0:
            raise TooManyBadPairs("\n".join(["there is no usable pair", *self.lines()]))
        if len(self.skipped) > max_bad_share * self.num_seen:
            share = f"more than the allowed {max_bad_share:.1%} (--max-bad-share)"
            raise TooManyBadPairs("\n".join([*self.lines(), f"that is {share}"]))


def decode_small(pair: Pair, data: bytes) -> None:
    """Decode a picture to see whether that works. Raises `BadContent`."""
    read_pixels(data, _SMALL, ImageLimits())


def checked_pairs(
    pairs: Iterable[Pair | BadPair], prepare: Callable[[Pair, bytes], Prepared], tally: PairTally
) -> Iterator[CheckedPair[Prepared]]:
    """Yield the usable pairs in their order, each once. Threads read and prepare some pictures ahead."""
    seen: set[tuple[str, str]] = set()
    for found in _in_threads(pairs, lambda pair: _check(pair, prepare)):
        if isinstance(found, BadPair):
            tally.skipped.append(found)
        elif (key := (found.digest, " ".join(found.pair.caption.split()))) in seen:
            tally.skipped.append(BadPair(found.pair.label, "duplicate", "an earlier pair is the same"))
        else:
            seen.add(key)
            tally.num_usable += 1
            yield found


def _check(
    pair: Pair | BadPair, prepare: Callable[[Pair, bytes], Prepared]
) -> CheckedPair[Prepared] | BadPair:
    if isinstance(pair, BadPair):
        return pair
    if not pair.caption.strip():
        return BadPair(pair.label, "empty caption")
    try:
        data = pair.read()
        return CheckedPair(pair, hashlib.sha256(data).hexdigest(), prepare(pair, data))
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        return BadPair(pair.label, "missing picture", getattr(error, "strerror", None) or str(error))
    except BadContent as error:
        is_of_text = error.reason == "empty_text"
        return BadPair(pair.label, "empty caption" if is_of_text else "broken picture", error.detail)


def _in_threads(items: Iterable[Item], work: Callable[[Item], Result]) -> Iterator[Result]:
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(thread_name_prefix="pairs") as threads:
        for item in items:
            waiting.append(threads.submit(work, item))
            if len(waiting) >= _NUM_WAITING:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
