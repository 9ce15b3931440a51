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
from service.tracing import open_tracer
from tests.integration.monitoring import DEPLOY, alert_rules, dashboard, read_yaml, variables
from tools.flags_table import commands_of, variable_of
from tools.runbooks import UID as RUNBOOKS
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
    assert set(targets) == {"wheel", "base", "consumer", "query_api", "demo"}
    assert COMMANDS == ["consumer", "query_api", "cliptide.demo"]


@pytest.mark.parametrize("path", re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE))
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


@pytest.mark.parametrize("page", ["README.md", "docs/command_line.md", "docker-compose.yml"])
def test_pages_say_where_programs_outside_reach_kafka(page: str) -> None:
    [published] = SERVICES["kafka"]["ports"]
    address = published.rpartition(":")[0]
    assert f"HOST://{address}" in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert re.search(rf"{re.escape(address)}\b", (ROOT / page).read_text())


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


@_each(SERVICES)
def test_no_container_can_take_the_machine(name: str) -> None:
    """Memory, processes and logs are bounded, and nothing gains privileges."""
    described = SERVICES[name]
    assert described["mem_limit"]
    assert described["pids_limit"] > 0
    assert described["logging"]["options"]["max-size"]
    assert described["cap_drop"] == ["ALL"]
    assert described["security_opt"] == ["no-new-privileges:true"]


def test_opensearch_starts_only_where_it_is_asked_for_and_both_services_find_it() -> None:
    assert SERVICES["opensearch"]["profiles"] == ["opensearch"]
    assert "ports" not in SERVICES["opensearch"]
    for name in OWN:
        environment = SERVICES[name]["environment"]
        assert environment["CLIPTIDE_INDEX__ENGINE"] == "${CLIPTIDE_INDEX__ENGINE:-directory}"
        assert (
            environment["CLIPTIDE_OPENSEARCH__URL"] == "${CLIPTIDE_OPENSEARCH__URL:-http://opensearch:9200}"
        )


def test_grafana_has_no_default_password() -> None:
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"
    assert environment["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


@pytest.mark.parametrize("rule", alert_rules(), ids=lambda rule: rule["alert"])
def test_every_alert_has_a_severity_and_leads_to_its_runbook(rule: Mapping[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    address = "http://" + SERVICES["grafana"]["ports"][0].rpartition(":")[0] + f"/d/{RUNBOOKS}"
    assert rule["annotations"]["runbook_url"] == f"{address}#{rule['alert'].lower()}"
    assert rule["annotations"]["summary"]


@pytest.mark.parametrize("rule", alert_rules(), ids=lambda rule: rule["alert"])
def test_the_section_of_an_alert_begins_with_its_severity(rule: Mapping[str, Any]) -> None:
    section = OPERATIONS.partition(f"\n### {rule['alert']}\n")[2].strip()
    assert section.lower().startswith(f"{rule['labels']['severity']}. ")


def test_prometheus_sends_alerts_to_a_service_of_the_compose_file() -> None:
    configuration = read_yaml(DEPLOY / "prometheus" / "prometheus.yml")
    [address] = configuration["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    host, _, port = address.partition(":")
    assert SERVICES[host]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_both_services_send_their_traces_to_jaeger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the compose network: Jaeger's own port for OTLP is not published."""
    for name in OWN:
        for variable, value in SERVICES[name]["environment"].items():
            if variable.startswith("OTEL_"):
                monkeypatch.setenv(variable, re.sub(r"\$\{\w+:-(.*?)\}", r"\1", str(value)))
        assert os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://jaeger:4318"
        with open_tracer(name) as tracer:
            assert tracer is not None
    assert SERVICES["jaeger"]["ports"] == ["127.0.0.1:16686:16686"]


PANELS = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_panel_says_what_it_shows_and_follows_the_chosen_source(panel: Mapping[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["datasource"]["uid"] == "${datasource}"
    for target in panel["targets"]:
        assert re.findall(r"\[(\d+\w)\]", target["expr"]) == []  # $__rate_interval follows the zoom
        chosen = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
        assert chosen <= set(variables())
    if panel["type"] == "stat":
        assert len(panel["fieldConfig"]["defaults"]["thresholds"]["steps"]) > 1


def test_no_panel_lies_on_another_and_each_has_an_id_and_a_known_kind() -> None:
    """What Grafana would move or drop in silence. No Grafana renders the dashboard in these tests."""
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {panel["type"] for panel in panels} <= {"row", "stat", "timeseries", "table", "bargauge", "gauge"}
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        columns = range(place["x"], place["x"] + place["w"])
        cells = {(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])}
        assert cells
        assert set(columns) <= set(range(24))
        assert not cells & taken, panel["title"]
        taken |= cells
        names = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(names)) == len(names)


def test_the_dashboard_has_rows_and_variables() -> None:
    rows = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]
    assert rows == ["At a glance", "Ingest", "Index and disk", "Queries", "Processes"]
    assert variables() == ["shard", "route"]


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
