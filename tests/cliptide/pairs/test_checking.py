from pathlib import Path

import pytest

from cliptide.pairs.checking import PairTally, TooManyBadPairs, checked_pairs, decode_small
from cliptide.pairs.pair import BadPair, Pair
from tests.cliptide.pairs.pictures import png

RED, BLUE = png("red"), png("blue")


def pair(label: str, data: bytes, caption: str = "a cloth") -> Pair:
    return Pair(label, label, lambda: data, caption)


def test_what_cannot_be_used_is_counted_by_reason_and_the_rest_keeps_its_order(tmp_path: Path):
    tally = PairTally()
    pairs = [
        pair("first", RED),
        pair("again", RED, "a  cloth "),
        pair("other caption", RED, "a red cloth"),
        pair("blank", RED, "  "),
        pair("broken", BLUE[:60]),
        pair("no picture at all", b"nonsense"),
        Pair("absent", "absent", (tmp_path / "absent.png").read_bytes, "a cloth"),
        BadPair("line 9", "unreadable row", "not JSON"),
        pair("last", BLUE),
    ]

    usable = [found.pair.label for found in checked_pairs(pairs, decode_small, tally)]

    assert usable == ["first", "other caption", "last"]
    assert tally.reasons == {
        "broken picture": 2,
        "duplicate": 1,
        "empty caption": 1,
        "missing picture": 1,
        "unreadable row": 1,
    }
    assert tally.lines()[0].startswith("skipped 6 of 9 pairs: broken picture 2, ")
    assert "  line 9: unreadable row (not JSON)" in tally.lines()


def test_more_skipped_pairs_than_the_share_end_the_command_with_their_names():
    tally = PairTally(num_usable=9, skipped=[BadPair("line 3", "duplicate")])

    tally.check(0.1)
    with pytest.raises(TooManyBadPairs, match="line 3: duplicate"):
        tally.check(0.09)


def test_without_a_usable_pair_nothing_goes_on_whatever_the_share():
    with pytest.raises(TooManyBadPairs, match="there is no usable pair"):
        PairTally().check(1.0)
