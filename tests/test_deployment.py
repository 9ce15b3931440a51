"""Compose file, images, alerts and docs/operations.md name what the code has, and all of it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import prometheus_client
import pytest
import yaml  # type: ignore[import-untyped]

import consumer.settings
import consumer.telemetry.metrics
import query_api.settings
import query_api.telemetry.metrics
import service.environment
from cliptide.__main__ import main
from service.environment import PREFIX
from service.program_metrics import describe_program
from tests.integration.monitoring import alert_rules
from tools.flags_table import commands_of, variable_of
from tools.settings_table import variables_of

ROOT = Path(__file__).parent.parent
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
COMMANDS = re.findall(r'^CMD \["python", "-m", "([\w.]+)"\]$', DOCKERFILE, re.MULTILINE)
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
OWN = {"consumer": consumer.settings, "query_api": query_api.settings}
_COUNTER_SUFFIX = "_total"
KUBERNETES_LINKS = (  # variables that Kubernetes sets for each Service, beside addresses
    "SERVICE_HOST",
    "SERVICE_PORT",
    "SERVICE_PORT_HTTP",
    "SERVICE_PORT_METRICS",
    "PORT_8080_TCP_PROTO",
    "PORT_8080_TCP_PORT",
    "PORT_8080_TCP_ADDR",
)


def _each(services: Mapping[str, Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", sorted(services))


@_each(OWN)
def test_a_service_ignores_what_others_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same environment may hold the variables of both services and of every command."""
    own = {variable for variable, *_ in variables_of(OWN[name].Settings, PREFIX)}
    assert set(service.environment.variables_of(OWN[name].Settings)) == own
    others = {
        variable for settings in OWN.values() for variable, *_ in variables_of(settings.Settings, PREFIX)
    }
    for words, command in commands_of(main):
        others.update(variable_of(flag, words) for flag in command.params if isinstance(flag, click.Option))
    for other in ("CONSUMER", "QUERY_API", "INDEX", "KAFKA", "ENCODER", "TOPIC"):
        others.update(f"CLIPTIDE_{other}_{link}" for link in KUBERNETES_LINKS)
    for variable in os.environ.keys() & own:
        monkeypatch.delenv(variable)
    for variable in others - own:
        monkeypatch.setenv(variable, "x")
    assert OWN[name].read_settings() == OWN[name].Settings()


def test_compose_accepts_the_file() -> None:
    binary = shutil.which("docker-compose")
    if binary is None:
        pytest.skip("docker-compose not found: make system-deps")
    command = [binary, "--file", str(COMPOSE), "config", "--quiet"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


@_each(OWN)
def test_every_build_target_exists(name: str) -> None:
    build = SERVICES[name]["build"]
    assert (ROOT / build["context"] / build["dockerfile"]).is_file()
    assert build["target"] in re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)


@pytest.mark.parametrize(
    "command", re.findall(r'^CMD \["python", "-m", "([\w.]+)"\]$', DOCKERFILE, re.MULTILINE)
)
def test_every_command_is_a_program_of_the_repository(command: str) -> None:
    assert importlib.util.find_spec(f"{command}.__main__") is not None


def test_every_target_but_the_base_has_a_command() -> None:
    targets = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)
    assert set(targets) == {"base", "consumer", "query_api", "demo"}
    assert COMMANDS == ["consumer", "query_api", "cliptide.demo"]


@pytest.mark.parametrize("path", re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE))
def test_every_copied_path_exists(path: str) -> None:
    assert all((ROOT / part).exists() for part in path.split())


@_each(OWN)
def test_every_variable_is_a_setting_of_its_service(name: str) -> None:
    settings = OWN[name]
    known = {variable for variable, _, _ in variables_of(settings.Settings, PREFIX)}
    given = {variable for variable in SERVICES[name]["environment"] if variable.startswith("CLIPTIDE_")}
    # The variables that services share are written once; a service ignores those it does not have.
    shared = set(yaml.safe_load(COMPOSE.read_text())["x-cliptide"])
    both = {v for module in OWN.values() for v, _, _ in variables_of(module.Settings, PREFIX)}
    assert given - shared <= known
    assert shared <= both


@_each(OWN)
def test_each_service_accepts_its_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [variable for variable in os.environ if variable.startswith("CLIPTIDE_")]:
        monkeypatch.delenv(variable)
    for variable, value in SERVICES[name]["environment"].items():
        monkeypatch.setenv(variable, re.sub(r"\$\{\w+:-(.*?)\}", r"\1", str(value)))
    read: Callable[[], Any] = OWN[name].read_settings
    assert str(read().index.root) == "/var/lib/cliptide/index"


@_each(SERVICES)
def test_every_published_port_is_on_loopback(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@_each(SERVICES)
def test_every_mounted_path_exists(name: str) -> None:
    volumes = yaml.safe_load(COMPOSE.read_text())["volumes"]
    sources = [volume.split(":")[0] for volume in SERVICES[name].get("volumes", [])]
    assert [s for s in sources if not ((ROOT / s).exists() if s.startswith(".") else s in volumes)] == []


@_each(SERVICES)
def test_every_image_is_pinned_and_every_service_has_a_health_check(name: str) -> None:
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", SERVICES[name]["image"])
    assert SERVICES[name]["healthcheck"]["test"]


@_each(OWN)
def test_our_services_cannot_write_outside_their_volumes(name: str) -> None:
    assert SERVICES[name]["read_only"] is True
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert "\nUSER cliptide\n" in DOCKERFILE


def test_every_alert_has_its_heading_and_every_heading_its_alert() -> None:
    headings = set(re.findall(r"^### (Cliptide\w+)$", OPERATIONS, re.MULTILINE))
    assert headings == {rule["alert"] for rule in alert_rules()}


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    rows = set(re.findall(r"^\| `(cliptide_\w+)`", OPERATIONS, re.MULTILINE))
    assert rows == set(_exported())


@pytest.mark.parametrize("name", sorted(OWN))
def test_every_metric_says_in_its_name_which_service_exports_it(name: str) -> None:
    registry = prometheus_client.CollectorRegistry()
    metrics = {"consumer": consumer.telemetry.metrics, "query_api": query_api.telemetry.metrics}[name]
    metrics.Metrics(registry)
    prefix = {"consumer": "cliptide_consumer_", "query_api": "cliptide_query_"}[name]
    names = {metric.name for metric in registry.collect()} - {"cliptide_searchable_after_event_seconds"}
    assert {metric for metric in names if not metric.startswith(prefix)} == set()


def _exported() -> Iterator[str]:
    """Yield the names that Prometheus sees. The name of a counter ends in _total."""
    services = prometheus_client.CollectorRegistry()
    consumer.telemetry.metrics.Metrics(services)
    describe_program(services)
    queries = prometheus_client.CollectorRegistry()
    query_api.telemetry.metrics.Metrics(queries)
    for metric in [*services.collect(), *queries.collect()]:
        if metric.name == "python_info":  # not ours
            continue
        yield metric.name + (_COUNTER_SUFFIX if metric.type == "counter" else "")


def test_every_exit_code_of_the_consumer_is_documented() -> None:
    import consumer.__main__ as program

    assert program.__doc__ is not None
    codes = re.findall(r"^(\d) ", program.__doc__, re.MULTILINE)
    assert re.findall(r"^\| (\d) \|", OPERATIONS, re.MULTILINE) == codes
