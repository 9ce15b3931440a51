"""What the log lines of a service show, and what they must never show."""

from __future__ import annotations

import io
import json
import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from service.logs import configure_logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def log_a_failure_beside_a_secret() -> None:
    password = "".join(reversed("2retnuh"))  # noqa: F841 (what a traceback with variables would show)
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        structlog.get_logger().exception("failed", shard="uploads-0")


@pytest.mark.parametrize("stream", [io.StringIO, Terminal], ids=["a file", "a terminal"])
def test_a_traceback_is_shown_without_the_values_of_variables(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO]
) -> None:
    monkeypatch.setattr(sys, "stderr", shown := stream())
    configure_logs()
    log_a_failure_beside_a_secret()
    assert "RuntimeError: broken" in shown.getvalue()
    assert "hunter2" not in shown.getvalue()


@pytest.mark.parametrize(("level", "shown_events"), [("debug", ["a", "b"]), ("info", ["b"]), ("error", [])])
def test_lines_below_the_level_are_left_out(
    monkeypatch: pytest.MonkeyPatch, level: str, shown_events: list[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", shown := io.StringIO())
    configure_logs(level)
    structlog.get_logger().debug("a")
    structlog.get_logger().info("b")
    assert [json.loads(line)["event"] for line in shown.getvalue().splitlines()] == shown_events


def test_away_from_a_terminal_a_line_is_one_json_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", shown := io.StringIO())
    configure_logs()
    structlog.get_logger().info("committed", generation=41)
    structlog.get_logger().debug("nothing to see")
    entry = json.loads(shown.getvalue())
    assert (entry["event"], entry["generation"], entry["level"]) == ("committed", 41, "info")


def test_a_line_begins_with_its_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", shown := io.StringIO())
    configure_logs()
    structlog.get_logger().warning("waiting", place="log")
    assert list(json.loads(shown.getvalue())) == ["event", "level", "timestamp", "place"]


def test_the_form_of_a_line_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, form, is_json in [(Terminal, "json", True), (io.StringIO, "console", False)]:
        monkeypatch.setattr(sys, "stderr", shown := stream())
        configure_logs(log_format=form)  # type: ignore[arg-type]
        structlog.get_logger().info("committed", generation=41)
        assert shown.getvalue().startswith('{"event": "committed"') == is_json
        assert "committed" in shown.getvalue()


def test_a_file_gets_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", shown := io.StringIO())
    configure_logs(log_format="console")
    structlog.get_logger().error("broken", part="lamp")
    assert "\x1b" not in shown.getvalue()
    assert "part=lamp" in shown.getvalue()


def test_what_a_library_logs_is_a_line_of_the_same_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", shown := io.StringIO())
    configure_logs()
    configure_logs()  # a second time: a line must not be written twice
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logging.getLogger("asyncio").exception("Task exception was never %s", "retrieved")
    entry = json.loads(shown.getvalue())
    assert (entry["event"], entry["level"], entry["library"]) == ("a library reports", "error", "asyncio")
    assert entry["message"] == "Task exception was never retrieved"
    assert "RuntimeError: broken" in entry["exception"]


def test_what_a_library_warns_of_is_a_line_and_what_pillow_says_of_a_picture_is_none() -> None:
    program = """
import io, struct, warnings
from PIL import Image
from service.logs import configure_logs

configure_logs("info", "json")
warnings.warn("this is old", DeprecationWarning)
entries = b"".join(struct.pack("<HHII", 1000 + n, 7, 1_000_000, 8) for n in range(500))
exif = Image.Exif()
exif.load(b"II*\\0" + struct.pack("<IH", 8, 500) + entries + bytes(4))
assert len(exif) == 0
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    [line] = done.stderr.splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["level"]) == ("a library reports", "warning")
    assert entry["message"] == "DeprecationWarning: this is old"


def test_a_process_that_a_truncated_mapped_file_kills_leaves_its_stack(tmp_path: Path) -> None:
    program = """
import mmap, pathlib, sys
from service.logs import trace_crashes
trace_crashes()
path = pathlib.Path(sys.argv[1])
path.write_bytes(bytes(8192))
with path.open("r+b") as file:
    mapped = mmap.mmap(file.fileno(), 0)
    file.truncate(0)
def read_mapped():
    return mapped[5000]
read_mapped()
"""
    died = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "mapped")], capture_output=True, text=True, check=False
    )
    assert died.returncode == -signal.SIGBUS
    assert "Fatal Python error: Bus error" in died.stderr
    assert "read_mapped" in died.stderr
