"""`python -m cliptide.demo` as a person starts it, with a smaller catalogue."""

import json
import os
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from cliptide.__main__ import main
from cliptide.searching.query_client import QueryClient
from cliptide.searching.searchable import wait_until_covered

pytestmark = [pytest.mark.broker, pytest.mark.encoder]

SMALL = ("--num-images", "110", "--num-texts", "10", "--rate", "50")


@contextmanager
def demo(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "cliptide.demo", *SMALL, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def lines_of(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        yield line.rstrip("\n")


def test_once_ends_by_itself_and_reports_in_one_json_object() -> None:
    with demo("--once") as process:
        lines = list(lines_of(process))
    assert process.returncode == 0, "\n".join(lines)
    report = json.loads(lines[-1])
    assert report["published"] == report["searchable"] == 120
    assert report["lost"] == report["dead_letters"] == 0
    assert report["precision_at_8"] >= 0.9
    assert 0 < report["searchable_after_event_seconds"]["p50"] <= report["seconds"]
    assert any(line.startswith("published 120/120") for line in lines)


def shown_by(process: subprocess.Popen[str]) -> dict[str, str]:
    """Read until the demo waits for Ctrl-C, and return the addresses that it printed, by name."""
    shown = {}
    for line in lines_of(process):
        separator = "=" if line.startswith("  export ") else ":  "
        name, _, value = line.removeprefix("  export ").partition(separator)
        shown[name] = " ".join(shlex.split(value)) if separator == "=" else value.strip()
        if line.startswith("Ctrl-C"):
            return shown
    raise AssertionError(f"the demo ended: {shown}")


def test_it_stays_until_ctrl_c_and_then_stops_everything(tmp_path: Path) -> None:
    directory = tmp_path / "demo"
    with demo("--directory", str(directory)) as process:
        shown = shown_by(process)
        client = QueryClient(shown["query service"])
        assert client.index().num_contents == 120
        with urllib.request.urlopen(shown["gallery of the answers"], timeout=60) as page:
            assert b"data:image/jpeg;base64," in page.read()
        use_the_command_line(shown, tmp_path / "uploads")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everything in the foreground
        rest = list(lines_of(process))
    assert process.returncode == 0, "\n".join(rest)
    assert not client.is_ready()
    assert '"stopped"' in (directory / "consumer.log").read_text().splitlines()[-1]
    assert (directory / "gallery.html").is_file()


def use_the_command_line(shown: dict[str, str], folder: Path) -> None:
    """Upload a text and a broken picture to the running services, and find out what became of them."""
    runner = CliRunner(env={name: value for name, value in shown.items() if name.startswith("CLIPTIDE_")})
    folder.mkdir()
    (folder / "note.txt").write_text("a checked teal bow tie")
    (folder / "broken.png").write_bytes(b"no picture at all")
    published = runner.invoke(main, ["publish", str(folder), "--wait"])
    assert published.exit_code == 1
    summary = json.loads(published.stdout.splitlines()[-1])
    assert (summary["published"], summary["searchable"], summary["missing"]) == (2, 1, ["broken.png"])

    found = runner.invoke(main, ["search", "a checked teal bow tie", "--modality", "text", "--k", "1"])
    assert "note.txt" in found.stdout

    [letter] = map(json.loads, runner.invoke(main, ["dead-letters", "--json"]).stdout.splitlines())
    assert letter["content_id"] == "broken.png"
    assert letter["origin"]["topic"] == "content-uploads"
    assert letter["reason"] != "unknown"

    deleted = runner.invoke(main, ["delete", "note.txt"])
    offsets = json.loads(deleted.stdout)["next_offsets"]
    client = QueryClient(shown["query service"])
    wait_until_covered(client, offsets, timeout_seconds=60)
    assert client.content("note.txt") is None

    verified = runner.invoke(main, ["verify"])
    assert verified.exit_code == 0, verified.output
