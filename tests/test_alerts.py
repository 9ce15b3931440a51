"""Alerts fire when they should, and Alertmanager brings them to somebody."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from cliptide.demo.child_process import LOOPBACK, end, read_tail, spawn
from tests.consumer.running import PATIENCE_SECONDS, eventually
from tests.integration.monitoring import DEPLOY, program

RULES = Path(__file__).parent / "alerts_test.yml"


def test_promtool_confirms_when_alerts_fire() -> None:
    command = [program("promtool"), "test", "rules", str(RULES)]
    tested = subprocess.run(command, capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout + tested.stderr


@dataclass
class Webhook:
    """Somebody who is told: an HTTP server that keeps what it is sent."""

    address: str
    told: list[tuple[str, Any]] = field(default_factory=list)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    told: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Not logged."""

    server = HTTPServer((LOOPBACK, 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Webhook(f"http://{LOOPBACK}:{server.server_address[1]}", told)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def running_alertmanager(folder: Path, webhook: str) -> Iterator[str]:
    """Run Alertmanager as the container does, except that it waits for no further alerts before it sends."""
    shutil.copytree(DEPLOY / "alertmanager", folder, dirs_exist_ok=True)
    configuration = folder / "alertmanager.yml"
    configuration.write_text(configuration.read_text().replace("group_wait: 10s", "group_wait: 0s"))
    variables = {
        "CLIPTIDE_ALERT_WEBHOOK": webhook,
        "ALERTMANAGER": program("prometheus-alertmanager"),
        "WRITTEN": str(folder / "written.yml"),
    }
    options = [f"--storage.path={folder / 'data'}", f"--web.listen-address={LOOPBACK}:0"]
    log = folder / "alertmanager.log"
    command = ["/bin/sh", str(folder / "start.sh"), *options]
    process = spawn(command, log, environment={**os.environ, **variables})
    try:
        eventually(lambda: process.poll() is not None or _address(log) != "")
        assert process.poll() is None, read_tail(log)
        yield _address(log)
    finally:
        end(process, patience_seconds=10.0)


def _address(log: Path) -> str:
    said = re.search(r'"?[Ll]istening on"? address=(\S+)', log.read_text())
    return said[1] if said else ""


def _raise(address: str, **labels: str) -> None:
    body = json.dumps([{"labels": labels, "annotations": {"runbook_url": "http://runbook"}}]).encode()
    request = urllib.request.Request(
        f"http://{address}/api/v2/alerts", data=body, headers={"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=PATIENCE_SECONDS).close()


def test_a_page_reaches_somebody(tmp_path: Path, webhook: Webhook) -> None:
    hook = f"{webhook.address}/hooks/a&b|c?token=x\\y"  # signs that sed reads as its own
    with running_alertmanager(tmp_path, hook) as address:
        _raise(address, alertname="CliptideServiceDown", severity="critical", instance="a")
        eventually(lambda: bool(webhook.told))
    path, told = webhook.told[0]
    assert path.startswith(("/hooks/a&b%7Cc?token=x", "/hooks/a&b|c?token=x"))
    [alert] = told["alerts"]
    assert (alert["status"], alert["labels"]["alertname"]) == ("firing", "CliptideServiceDown")
    assert alert["annotations"]["runbook_url"] == "http://runbook"


def test_without_a_webhook_alertmanager_starts_and_says_that_it_cannot_deliver(tmp_path: Path) -> None:
    with running_alertmanager(tmp_path, "") as address:
        _raise(address, alertname="CliptideServiceDown", severity="critical", instance="a")
        failed = re.compile(r"^alertmanager_notifications_failed_total\{.*webhook.*\} [1-9]", re.MULTILINE)
        eventually(
            lambda: (
                "webhook.invalid" in (tmp_path / "alertmanager.log").read_text()
                or failed.search(_metrics(address)) is not None
            )
        )


def _metrics(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=PATIENCE_SECONDS) as answer:
        return str(answer.read().decode())
