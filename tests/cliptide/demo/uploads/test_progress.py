import io

from rich.console import Console

from cliptide.demo.uploads.progress import show_uploads


def test_at_a_terminal_one_line_with_both_counts_is_rewritten() -> None:
    output = io.StringIO()
    with show_uploads(Console(file=output, force_terminal=True, width=80), 2_200) as progress:
        progress.update("published", 1_500)
        progress.update("searchable", 1_400)
    assert "1,500 of 2,200 published, 1,400 searchable" in output.getvalue()
    assert output.getvalue().count("\n") == 1


def test_in_a_log_there_are_plain_lines() -> None:
    output = io.StringIO()
    with show_uploads(Console(file=output), 20) as progress:
        progress.update("published", 20)
        progress.update("searchable", 20)
    assert output.getvalue() == "published 20/20  searchable 20/20\n"
