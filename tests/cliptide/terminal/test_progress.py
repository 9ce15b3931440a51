import io

from rich.console import Console

from cliptide.terminal.progress import PlainProgress, show_progress


def test_without_a_terminal_there_is_a_plain_line_now_and_then() -> None:
    now = [0.0]
    output = io.StringIO()
    progress = PlainProgress(Console(file=output), {"published": 10, "searchable": 10}, clock=lambda: now[0])
    for step in range(6):
        now[0] = step * 0.5
        progress.update("published", step)
    assert output.getvalue() == "published 4/10  searchable 0/10\n"


def test_the_last_state_is_always_shown() -> None:
    output = io.StringIO()
    with show_progress(Console(file=output), {"uploads": 3}) as progress:
        progress.update("uploads", 3)
    assert output.getvalue() == "uploads 3/3\n"


def test_a_terminal_gets_a_bar() -> None:
    output = io.StringIO()
    with show_progress(Console(file=output, force_terminal=True, width=80), {"uploads": 3}) as progress:
        progress.update("uploads", 2)
    assert "2/3" in output.getvalue()
