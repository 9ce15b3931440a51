import io
from collections import Counter

import pytest
from rich.console import Console

from cliptide.dead_letters.command import print_letters
from cliptide.dead_letters.reading import DeadLetter
from schemas.dead_letters import RecordPosition

CONTENT_ID = "photos/2024/summer holidays at the sea/IMG_20240712_184500_a_very_long_name.jpg"
ERROR = "truncated after 12 bytes of 400: the file ends within its picture data"


def listed(width: int) -> list[str]:
    output = io.StringIO()
    letter = DeadLetter(
        position=RecordPosition("content-uploads.dead-letters", 0, 12),
        origin=RecordPosition("content-uploads", 3, 1_234_567),
        reason="truncated_image",
        error=ERROR,
        content_id=CONTENT_ID,
        size_bytes=400,
        timestamp_ms=1_753_000_000_000,
    )
    print_letters(Console(file=output, width=width), Counter(truncated_image=1), [letter])
    return output.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 60, 40])
def test_in_a_narrow_terminal_everything_of_a_dead_letter_can_be_read(width: int) -> None:
    lines = listed(width)
    assert max(map(len, lines)) <= width
    words = "".join("".join(lines).split())
    for text in (CONTENT_ID, ERROR, "content-uploads-3@1234567", "truncated_image", "2025-07-20 08:26:40Z"):
        assert "".join(text.split()) in words


def test_at_80_columns_the_time_the_reason_and_the_place_are_one_line() -> None:
    assert listed(80)[0] == "2025-07-20 08:26:40Z  truncated_image  content-uploads-3@1234567"


def test_the_counts_are_the_last_line() -> None:
    assert listed(80)[-1] == "1 dead letter: truncated_image 1"
