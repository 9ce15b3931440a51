"""Prometheus on loopback with the repository's configuration, and a client of its HTTP interface."""

from __future__ import annotations

import json
import re
import shutil
import urllib.parse
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from cliptide.demo.child_process import LOOPBACK, end, read_tail, spawn
from tests.consumer.running import PATIENCE_SECONDS, eventually

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "cliptide.json"
_METRIC = re.compile(r"\bcliptide_\w+")
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("", "_total"), "gauge": ("",)}


def program(name: str) -> str:
    """Return the path of one of Debian's programs. Without it the test is skipped."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} not found: make system-deps")
    return path


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def alert_rules() -> list[Mapping[str, Any]]:
    groups = read_yaml(DEPLOY / "prometheus" / "alerts.yml")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> Any:
    return json.loads(DASHBOARD.read_text())


def dashboard_expressions() -> list[str]:
    """Return the queries as Grafana sends them when everything is selected."""
    targets = [target for panel in dashboard()["panels"] for target in panel.get("targets", [])]
    selected = [*((f"${name}", ".*") for name in variables()), ("$__rate_interval", "1m")]
    return [_replaced(target["expr"], selected) for target in targets]


def variables() -> list[str]:
    """Return the names of the dashboard's variables that stand in queries."""
    return [one["name"] for one in dashboard()["templating"]["list"] if one["type"] == "query"]


def _replaced(text: str, pairs: Collection[tuple[str, str]]) -> str:
    for old, new in pairs:
        text = text.replace(old, new)
    return text


def metrics_in(expressions: Collection[str]) -> set[str]:
    return {name for expression in expressions for name in _METRIC.findall(expression)}


def write_configuration(folder: Path, targets: Mapping[str, str]) -> Path:
    """Copy the repository's configuration, with shorter intervals and only those jobs that have a target."""
    shutil.copytree(DEPLOY / "prometheus", folder, dirs_exist_ok=True)
    path = folder / "prometheus.yml"
    configuration = read_yaml(path)
    # Not shorter: a scrape that takes longer than its interval counts as a target that is down.
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "200ms"}
    configuration.pop("alerting")
    configuration["scrape_configs"] = [j for j in configuration["scrape_configs"] if j["job_name"] in targets]
    for job in configuration["scrape_configs"]:
        for discovery in [key for key in job if key.endswith("_sd_configs")]:
            del job[discovery]
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    path.write_text(yaml.safe_dump(configuration))
    return path


@dataclass(frozen=True)
class Prometheus:
    address: str

    def get(self, path: str, **parameters: str) -> Any:
        """Return the `data` of a successful answer."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
            body = json.load(answer)
        assert body["status"] == "success"
        return body["data"]

    def query(self, expression: str) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = self.get("query", query=expression)["result"]
        return found

    def value(self, expression: str) -> float | None:
        """Return the only value of an expression, or None without a value."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def exported(self) -> set[str]:
        """Return every metric that the targets declare, those without a sample included."""
        metadata = self.get("metadata")
        return {
            name + suffix
            for name, entries in metadata.items()
            for suffix in _SUFFIXES.get(entries[0]["type"], ())
        }

    def evaluated_at(self) -> list[str]:
        """Return when the rules of each group were last evaluated."""
        return [group["lastEvaluation"] for group in self.get("rules")["groups"]]

    def alert_states(self) -> dict[str, str]:
        rules = [rule for group in self.get("rules")["groups"] for rule in group["rules"]]
        assert [rule["name"] for rule in rules if rule.get("lastError")] == []
        return {rule["name"]: rule["state"] for rule in rules}


@contextmanager
def running_prometheus(configuration: Path) -> Iterator[Prometheus]:
    command = [
        program("prometheus"),
        f"--config.file={configuration}",
        f"--storage.tsdb.path={configuration.parent / 'data'}",
        f"--web.listen-address={LOOPBACK}:0",
    ]
    log = configuration.parent / "prometheus.log"
    process = spawn(command, log)
    try:
        eventually(lambda: process.poll() is not None or _is_ready(log))
        assert process.poll() is None, read_tail(log)
        yield Prometheus(_address(log))
    finally:
        end(process, patience_seconds=10.0)


def _address(log: Path) -> str:
    """Return the address on which it listens, or "" while it does not listen."""
    said = re.search(r'"Listening on" address=(\S+)\s', log.read_text())
    return said[1] if said else ""


def _is_ready(log: Path) -> bool:
    address = _address(log)
    if not address:
        return False
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=1):
            return True
    except OSError:
        return False
