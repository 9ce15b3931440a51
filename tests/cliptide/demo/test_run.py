"""`python -m cliptide.demo` as a person starts it, with a smaller catalogue."""

import hashlib
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from html import escape
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from PIL import Image

from cliptide.__main__ import main
from cliptide.demo.__main__ import main as demo_command
from cliptide.demo.child_process import LOOPBACK
from cliptide.demo.embedded_broker import EmbeddedBroker
from cliptide.demo.garments.catalogue import build_catalogue
from cliptide.demo.garments.drawing import DEFAULT_SIZE
from cliptide.searching.query_client import QueryClient
from cliptide.searching.searchable import shard_of, wait_until_covered
from event_log.kafka.publisher import KafkaPublisher
from event_log.kafka.settings import KafkaSettings
from schemas.codec import encode_event_json
from schemas.events import ContentReference, UploadEvent

pytestmark = [pytest.mark.broker, pytest.mark.encoder]

SMALL = ("--num-images", "110", "--num-texts", "10", "--rate", "50", "--port", "0")
NUM_BAD_RECORDS = 1_200


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
    assert re.fullmatch(r"open http://127\.0\.0\.1:\d+/", lines[0])
    assert any(line.startswith("published 120/120") for line in lines)


def test_a_port_that_is_taken_is_told_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with demo("--port", port) as process:
            [line] = lines_of(process)
    assert (process.returncode, line) == (
        1,
        f"Error: cannot listen at 127.0.0.1, port {port}: Address already in use",
    )


@pytest.mark.parametrize(
    ("flag", "value", "reason"),
    [
        ("--host", "shop.example", "is not an IP address"),
        ("--public-url", "shop.example", "is not an address such as http://demo.example"),
        ("--port", "65536", "is not in the range"),
        ("--reference-folder", "/nowhere/at/all", "does not exist"),
    ],
)
def test_a_wrong_flag_is_refused_before_anything_starts(flag: str, value: str, reason: str) -> None:
    refused = CliRunner().invoke(demo_command, [flag, value])
    assert refused.exit_code == 2
    assert reason in " ".join(refused.output.split())


def shown_by(process: subprocess.Popen[str]) -> dict[str, str]:
    """Read until the demo waits for Ctrl-C, and return the addresses that it printed, by name."""
    shown: dict[str, str] = {}
    for line in lines_of(process):
        separator = "=" if line.startswith("  export ") else ":  "
        name, _, value = line.removeprefix("  export ").partition(separator)
        shown[name] = " ".join(shlex.split(value)) if separator == "=" else value.strip()
        if line.startswith("Ctrl-C"):
            return shown
    raise AssertionError(f"the demo ended: {shown}")


def test_it_stays_until_ctrl_c_and_then_stops_everything(tmp_path: Path) -> None:
    directory = tmp_path / "demo"
    with demo("--directory", str(directory), "--reference-folder", str(tmp_path)) as process:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("open ").rstrip("/\n")
        client = QueryClient(url)
        assert client.index().num_contents < 120  # the page answers before the catalogue is published
        assert b"<title>" in fetch(url)[1]
        shown = shown_by(process)
        assert shown["query service"] == url
        for service, metric in (("query service", b"cliptide_query_"), ("consumer", b"cliptide_consumer_")):
            assert metric in fetch(shown[f"metrics, {service}"])[1]
        assert client.index().num_contents == 120
        try_the_calls_of_earlier_services(url)
        publish_a_reference(shown, tmp_path / "large")
        with urllib.request.urlopen(shown["gallery of the answers"], timeout=60) as page:
            assert b"data:image/jpeg;base64," in page.read()
        assert json.loads(shown["CLIPTIDE_KAFKA__PROPERTIES"]) == EmbeddedBroker.client_properties
        assert shown["CLIPTIDE_ENCODER__MODEL"] == str(directory / "model")
        use_the_command_line(shown, tmp_path / "uploads")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everything in the foreground
        rest = list(lines_of(process))
    assert process.returncode == 0, "\n".join(rest)
    assert not client.is_ready()
    assert '"stopped"' in (directory / "consumer.log").read_text().splitlines()[-1]
    assert (directory / "gallery.html").is_file()


def fetch(url: str, body: bytes | None = None) -> tuple[Mapping[str, str], bytes]:
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=60) as answer:
        return answer.headers, answer.read()


def try_the_calls_of_earlier_services(url: str) -> None:
    """Their clients get links, which lead to pictures that their galleries may load."""
    links = json.loads(fetch(f"{url}/text_url?text_query=a+striped+red+dress", b"")[1])
    headers, picture = fetch(links[0])
    assert headers["Content-Type"].startswith("image/")
    assert Image.open(io.BytesIO(picture)).size == (DEFAULT_SIZE, DEFAULT_SIZE)
    headers, gallery = fetch(f"{url}/display_text?text_query=a+striped+red+dress", b"")
    assert escape(links[0]).encode() in gallery
    assert f"img-src {urlsplit(links[0]).netloc};" in headers["Content-Security-Policy"]


def publish_a_reference(shown: dict[str, str], folder: Path) -> None:
    """Publish a file of a folder that was named, by its address alone."""
    folder.mkdir()
    picture = build_catalogue(1, 0, seed=99)[0].image_bytes()
    path = folder / "hat.jpg"
    path.write_bytes(picture)
    reference = ContentReference(path.as_uri(), hashlib.sha256(picture).hexdigest(), len(picture), "image")
    event = UploadEvent("", "hat", "test", datetime.now(timezone.utc), reference)
    publisher = KafkaPublisher(KafkaSettings(shown["broker"]))
    encoded = encode_event_json(event)
    delivery = publisher.publish(
        "content-uploads", key=encoded.key, value=encoded.value, headers=encoded.headers
    ).result(60)
    client = QueryClient(shown["query service"])
    wait_until_covered(client, {shard_of(delivery): delivery.next_offset}, timeout_seconds=60)
    found = client.content("hat")
    assert found is not None
    assert found["modality"] == "image"
    publisher.close()


def test_the_page_outlives_a_consumer_that_a_flood_of_bad_records_has_stopped(tmp_path: Path) -> None:
    with demo("--directory", str(tmp_path / "demo")) as process:
        shown = shown_by(process)
        publisher = KafkaPublisher(KafkaSettings(shown["broker"]))
        for number in range(NUM_BAD_RECORDS):
            publisher.publish("content-uploads", key=b"%d" % number, value=b"no event")
        assert publisher.flush(60) == 0
        publisher.close()
        told = next(line for line in lines_of(process) if line.startswith("The page at "))
        assert shown["query service"] in told
        answer = QueryClient(shown["query service"]).search({"text": "a striped red dress", "k": 1})
        assert answer["results"]["image"]["hits"]
        os.killpg(process.pid, signal.SIGINT)
        rest = list(lines_of(process))
    assert process.returncode == 0, "\n".join(rest)


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
