"""A terminal that does not know every character shows what it can."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cliptide.terminal.streams import escape_what_cannot_be_shown, prepare_streams

NOBODY = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", b"\\u05ea \\xb7 \\udcff"),
        ("latin-1", b"\\u05ea \xb7 \\udcff"),
        ("cp1252", b"\\u05ea \xb7 \\udcff"),
    ],
)
def test_what_an_encoding_lacks_is_escaped(encoding: str, expected: bytes) -> None:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding=encoding)
    escape_what_cannot_be_shown(stream, None)
    stream.write("\u05ea \xb7 \udcff")
    stream.flush()
    assert written.getvalue() == expected


def test_utf_8_stays_as_it_is() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf8", errors="surrogateescape")
    escape_what_cannot_be_shown(stream)
    assert stream.errors == "surrogateescape"


@pytest.mark.parametrize("words", [["--help"], ["publish", "--help"], ["publish", "תמונה.txt", "--dry-run"]])
def test_a_terminal_that_knows_ascii_alone_sees_no_traceback(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "תמונה.txt").write_text("a hat")
    done = subprocess.run(
        [sys.executable, "-m", "cliptide", *words, *(["--query-url", NOBODY] if len(words) > 2 else [])],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("closed", "seen"), [({"stdout": None}, b""), ({"stderr": None}, b"a hat")], ids=["output", "errors"]
)
def test_a_stream_that_the_shell_has_closed_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, closed: dict[str, None], seen: bytes
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="utf-8"))
    for name, nothing in closed.items():
        monkeypatch.setattr(sys, name, nothing)
    prepare_streams()
    print("a hat", end="", flush=True)  # noqa: T201
    print("a shoe", file=sys.stderr)  # noqa: T201
    for name in closed:
        getattr(sys, name).close()
    assert written.getvalue() == seen


@pytest.mark.parametrize(("told", "kept"), [("0", None), ("1", None), ("40", "40"), ("", None), (None, None)])
def test_a_terminal_of_no_width_has_the_usual_one(
    monkeypatch: pytest.MonkeyPatch, told: str | None, kept: str | None
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if told is not None:
        monkeypatch.setenv("COLUMNS", told)
    prepare_streams()
    assert os.environ.get("COLUMNS") == kept
