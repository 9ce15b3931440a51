import io

import pytest
from rich.console import Console

from cliptide.searching.answers import AnsweredHit, build_table

CONTENT_ID = "photos/2024/summer-holidays-at-the-sea/IMG_20240712_184500_a_very_long_name_of_a_file.jpg"
HITS = [
    AnsweredHit("image", CONTENT_ID, 0.3125, None, f"https://cdn.example.com/{CONTENT_ID}", None),
    AnsweredHit("text", "t1", -0.1, "a very long text\n" * 20, None, None),
]


@pytest.mark.parametrize("width", [80, 60, 40])
def test_in_a_narrow_terminal_ids_and_scores_of_hits_are_whole_and_texts_take_one_line(
    width: int,
) -> None:
    output = io.StringIO()
    Console(file=output, width=width).print(build_table("image", HITS))
    lines = output.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert CONTENT_ID in "".join("".join(lines).split())
    assert [line.split()[:2] for line in lines if line[:1] in ("1", "2")] == [["1", "0.312"], ["2", "-0.100"]]
    assert sum("a very long" in line for line in lines[-3:]) == 1


def test_a_picture_is_shown_by_its_title_and_link_and_a_text_by_itself() -> None:
    picture = AnsweredHit("image", "p1", 0.5, None, "https://x/p1.jpg", None, "A  red\nboot")
    text = AnsweredHit("text", "t1", 0.5, "a red\nboot", "https://x/t1", None, "Boots")
    assert (picture.shown, text.shown) == ("A red boot · https://x/p1.jpg", "a red boot")
