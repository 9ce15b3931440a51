"""The objects in deploy/kubernetes fit Kubernetes' schemas, the code's settings and the other deployments."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import jsonschema
import kubernetes_validate
import pytest
import yaml  # type: ignore[import-untyped]

import consumer.settings
import query_api.settings
from event_log.kafka.settings import MAX_RECORD_BYTES, KafkaSettings
from service.environment import PREFIX
from service.process.exit_deadline import MARGIN_SECONDS
from tests.kubernetes_schemas import CUSTOM
from tools.kubernetes_alerts import build_rules
from tools.settings_table import variables_of

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "deploy" / "kubernetes"
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
FOLDERS = ("base", "overlays/demo", "overlays/opensearch", "overlays/production")
OURS = ("base", "overlays/opensearch", "overlays/production")
VERSIONS = ("1.30", "1.33", "1.36")
WORKLOADS = {
    "consumer": ("StatefulSet", "cliptide-consumer"),
    "query_api": ("Deployment", "cliptide-query-api"),
}
SETTINGS = {"consumer": consumer.settings, "query_api": query_api.settings}
KEYS = {  # what the Secret cliptide-keys holds, which is not in the repository
    "CLIPTIDE_QUERY_API__READ_KEYS": json.dumps(["0" * 64]),
    "CLIPTIDE_QUERY_API__WRITE_KEYS": json.dumps(["1" * 64]),
    "CLIPTIDE_QUERY_API__CURSOR_KEY": "x" * 16,
}
Object = Mapping[str, Any]


def renderer() -> list[str]:
    """Return the command that renders a folder. Without one the test is skipped."""
    if kubectl := shutil.which("kubectl"):
        return [kubectl, "kustomize"]
    built = shutil.which("kustomize")
    if built is None:
        pytest.skip("neither kubectl nor kustomize found: make kustomize")
    return [built, "build"]


@cache
def rendered(folder: str) -> tuple[Object, ...]:
    command = [*renderer(), str(FOLDER / folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(folder: str, kind: str) -> list[Object]:
    return [one for one in rendered(folder) if one["kind"] == kind]


def the(folder: str, kind: str, name: str) -> Any:
    [found] = [one for one in of_kind(folder, kind) if one["metadata"]["name"] == name]
    return found


def pod(folder: str, service: str) -> Any:
    return the(folder, *WORKLOADS[service])["spec"]["template"]["spec"]


def container(folder: str, service: str) -> Any:
    [found] = pod(folder, service)["containers"]
    return found


def variables(folder: str, service: str) -> dict[str, str]:
    """Return the environment of a service's container, as its first pod gets it."""
    [settings] = of_kind(folder, "ConfigMap")
    found: dict[str, str] = dict(settings["data"]) | (KEYS if service == "query_api" else {})
    for one in container(folder, service)["env"]:
        source = one.get("valueFrom", {})
        if "fieldRef" in source:
            found[one["name"]] = f"{WORKLOADS[service][1]}-0"
        elif "resourceFieldRef" in source:
            found[one["name"]] = container(folder, service)["resources"]["requests"]["cpu"]
        else:
            # As Kubernetes does: a name that is not defined before stays as it is.
            found[one["name"]] = re.sub(r"\$\((\w+)\)", lambda n: found.get(n[1], n[0]), one["value"])
    return found


def read_settings(folder: str, service: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    for name, value in variables(folder, service).items():
        monkeypatch.setenv(name, value)
    read: Callable[[], Any] = SETTINGS[service].read_settings
    return read()


def objects() -> Iterator[tuple[str, Path]]:
    for path in sorted(FOLDER.rglob("*.yaml")):
        yield str(path.relative_to(FOLDER)), path


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", FOLDERS)
def test_kubernetes_accepts_every_object_and_knows_every_field(folder: str, version: str) -> None:
    built_in = [one for one in rendered(folder) if one["kind"] not in CUSTOM]
    assert built_in
    for one in built_in:
        kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_operators_accept_every_object_and_know_every_field(folder: str) -> None:
    for one in rendered(folder):
        if one["kind"] in CUSTOM:
            jsonschema.validate(one, CUSTOM[one["kind"]])


@pytest.mark.parametrize("mistake", [{"replica": 3}, {"config": {"retention.ms": [1]}}, {"partitions": "12"}])
def test_a_mistake_in_an_object_of_an_operator_is_found(mistake: Object) -> None:
    topic = the("overlays/production", "KafkaTopic", "content-uploads")
    wrong = {**topic, "spec": {**topic["spec"], **mistake}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, CUSTOM["KafkaTopic"])


def test_every_file_is_part_of_what_is_applied() -> None:
    named = set()
    for folder in FOLDERS:
        kustomization = yaml.safe_load((FOLDER / folder / "kustomization.yaml").read_text())
        parts = [
            *kustomization["resources"],
            *(p["path"] for p in kustomization.get("patches", []) if "path" in p),
        ]
        named |= {f"{folder}/{part}" for part in parts if part.endswith(".yaml")} | {
            f"{folder}/kustomization.yaml"
        }
    assert {name for name, _ in objects()} == named


@pytest.mark.parametrize("folder", FOLDERS)
def test_everything_lies_in_one_namespace(folder: str) -> None:
    [namespace] = of_kind(folder, "Namespace")
    assert {one["metadata"].get("namespace", "") for one in rendered(folder)} == {
        "",
        namespace["metadata"]["name"],
    }


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_image_is_one_that_the_dockerfile_builds_at_the_version_of_the_package(folder: str) -> None:
    targets = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    for workload in [*of_kind(folder, "Deployment"), *of_kind(folder, "StatefulSet")]:
        for one in workload["spec"]["template"]["spec"]["containers"]:
            name, _, tag = one["image"].partition(":")
            assert name.removeprefix("cliptide-").replace("-", "_") in targets
            assert tag == version[1]


@pytest.mark.parametrize("service", WORKLOADS)
def test_images_are_those_of_compose(service: str) -> None:
    assert container("base", service)["image"] == COMPOSE[service]["image"]


def test_the_consumer_runs_its_program_and_is_held_where_only_a_person_can_help() -> None:
    command = container("base", "consumer")["command"]
    assert command == COMPOSE["consumer"]["command"] == ["python", "-m", "consumer", "--hold"]
    assert importlib.util.find_spec(f"{command[2]}.__main__") is not None


@pytest.mark.parametrize("folder", OURS)
@pytest.mark.parametrize("service", WORKLOADS)
def test_every_variable_is_a_setting_and_each_service_accepts_its_own(
    service: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {name for module in SETTINGS.values() for name, *_ in variables_of(module.Settings, PREFIX)}
    assert {name for name in variables(folder, service) if name.startswith(PREFIX)} <= known
    settings = read_settings(folder, service, monkeypatch)
    assert str(settings.index.root) == "/var/lib/cliptide/index"
    KafkaSettings(settings.kafka.bootstrap_servers, settings.kafka.properties)


@pytest.mark.parametrize("service", WORKLOADS)
def test_an_index_in_opensearch_is_reached_with_the_users_secret(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = read_settings("overlays/opensearch", service, monkeypatch)
    assert (settings.index.engine, settings.opensearch.num_replicas) == ("opensearch", 1)
    sources = container("overlays/opensearch", service)["envFrom"]
    assert {"secretRef": {"name": "cliptide-opensearch"}} in sources
    policies = {
        one["metadata"]["name"]: one["spec"] for one in of_kind("overlays/opensearch", "NetworkPolicy")
    }
    [rule] = policies["cliptide-opensearch"]["egress"]
    assert f":{rule['ports'][0]['port']}" in str(settings.opensearch.url)


@pytest.mark.parametrize("folder", OURS)
def test_a_consumer_keeps_its_partitions_over_a_restart(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    properties = read_settings(folder, "consumer", monkeypatch).kafka.properties
    assert properties["group.instance.id"] == "cliptide-consumer-0"
    assert properties["session.timeout.ms"] == 45_000


@pytest.mark.parametrize("service", WORKLOADS)
def test_tls_in_production_reads_files_that_are_mounted(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = read_settings("overlays/production", service, monkeypatch)
    mounts = {mount["mountPath"] for mount in container("overlays/production", service)["volumeMounts"]}
    files = [str(value) for name, value in settings.kafka.properties.items() if name.endswith(".location")]
    assert settings.kafka.properties["security.protocol"] == "SSL"
    assert len(files) == 3
    assert {os.path.dirname(file) for file in files} <= mounts


@pytest.mark.parametrize("folder", OURS)
@pytest.mark.parametrize("service", WORKLOADS)
def test_ports_are_those_that_the_services_listen_on(
    service: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = {port["name"]: port["containerPort"] for port in container(folder, service)["ports"]}
    settings = read_settings(folder, service, monkeypatch)
    if service == "consumer":
        assert ports == {"metrics": settings.consumer.health_port}
        assert settings.consumer.health_host == "0.0.0.0"
    else:
        assert ports == {"http": settings.query_api.port, "metrics": settings.query_api.metrics_port}
        assert settings.query_api.host == settings.query_api.metrics_host == "0.0.0.0"


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_named_port_is_one_of_the_pods_that_are_selected(folder: str) -> None:
    pods = [
        one["spec"]["template"] for one in rendered(folder) if one["kind"] in ("Deployment", "StatefulSet")
    ]
    for service in of_kind(folder, "Service"):
        selected = [
            one for one in pods if service["spec"]["selector"].items() <= one["metadata"]["labels"].items()
        ]
        assert len(selected) == 1
        ports = {
            port["name"]: port["containerPort"] for port in selected[0]["spec"]["containers"][0]["ports"]
        }
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in ports
            if service["spec"].get("clusterIP") == "None":  # nothing translates its ports
                assert port["port"] == ports[port["targetPort"]]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_probe_asks_a_route_that_needs_no_key(folder: str) -> None:
    for workload in [*of_kind(folder, "Deployment"), *of_kind(folder, "StatefulSet")]:
        [one] = workload["spec"]["template"]["spec"]["containers"]
        paths = {
            name: one[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")
        }
        assert paths == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
        names = {port["name"] for port in one["ports"]}
        assert {one[name]["httpGet"]["port"] for name in paths} <= names


@pytest.mark.parametrize("folder", OURS)
@pytest.mark.parametrize("service", WORKLOADS)
def test_kubernetes_waits_for_an_orderly_stop(
    service: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = read_settings(folder, service, monkeypatch)
    if service == "consumer":
        needed = settings.consumer.stop_timeout_seconds
    else:
        needed = settings.query_api.drain_seconds + settings.query_api.shutdown_seconds
    assert pod(folder, service)["terminationGracePeriodSeconds"] > needed + MARGIN_SECONDS


def test_the_drain_is_longer_than_readiness_needs_to_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = container("base", "query_api")["readinessProbe"]
    drain = read_settings("base", "query_api", monkeypatch).query_api.drain_seconds
    assert drain > probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_container_can_gain_privileges_or_write_outside_its_volumes(folder: str) -> None:
    [user] = re.findall(r"--uid (\d+)", DOCKERFILE)
    for workload in [*of_kind(folder, "Deployment"), *of_kind(folder, "StatefulSet")]:
        spec = workload["spec"]["template"]["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == int(user)
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for one in spec["containers"]:
            assert one["securityContext"] == {
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert one["resources"]["limits"]["memory"]
            assert one["terminationMessagePolicy"] == "FallbackToLogsOnError"


@pytest.mark.parametrize("service", WORKLOADS)
def test_folders_that_a_service_uses_are_mounted(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read_settings("base", service, monkeypatch)
    mounts = {mount["mountPath"]: mount for mount in container("base", service)["volumeMounts"]}
    assert mounts.keys() == {str(settings.index.root), str(settings.encoder.cache_dir), "/tmp"}
    assert mounts[str(settings.index.root)].get("readOnly", False) is (service == "query_api")
    declared = json.loads(re.findall(r"^VOLUME (.+)$", DOCKERFILE, re.MULTILINE)[0])
    assert set(declared) < mounts.keys()


def test_every_volume_can_be_shared_by_all_pods() -> None:
    claims = {claim["metadata"]["name"]: claim for claim in of_kind("base", "PersistentVolumeClaim")}
    used = [
        v["persistentVolumeClaim"]["claimName"]
        for s in WORKLOADS
        for v in pod("base", s)["volumes"]
        if "persistentVolumeClaim" in v
    ]
    assert set(used) == claims.keys()
    assert all(claim["spec"]["accessModes"] == ["ReadWriteMany"] for claim in claims.values())


@pytest.mark.parametrize("service", WORKLOADS)
def test_a_drained_node_takes_one_process_at_a_time(service: str) -> None:
    budget = the("base", "PodDisruptionBudget", WORKLOADS[service][1])["spec"]
    labels = the("base", *WORKLOADS[service])["spec"]["template"]["metadata"]["labels"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("folder", OURS)
def test_the_network_allows_kafka_where_it_is_and_nothing_that_is_not_listed(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind(folder, "NetworkPolicy")}
    closed = policies["cliptide-nothing"]
    assert closed["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in closed
    assert "egress" not in closed
    allowed = {port["port"] for rule in policies["cliptide-egress"]["egress"] for port in rule["ports"]}
    servers = read_settings(folder, "consumer", monkeypatch).kafka.bootstrap_servers
    assert {int(server.rpartition(":")[2]) for server in servers.split(",")} <= allowed


def test_topics_are_those_of_the_settings_with_room_for_the_largest_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = read_settings("overlays/production", "consumer", monkeypatch)
    topics = {one["spec"]["topicName"]: one["spec"] for one in of_kind("overlays/production", "KafkaTopic")}
    assert topics.keys() == {settings.topic, settings.dead_letter_topic}
    assert not settings.consumer.create_topics
    for topic in topics.values():
        assert topic["config"]["max.message.bytes"] == MAX_RECORD_BYTES
        assert topic["config"]["cleanup.policy"] == "delete"
        assert topic["replicas"] > topic["config"]["min.insync.replicas"] > 1
    assert topics[settings.topic]["config"]["retention.ms"] == -1


def test_users_have_the_rights_that_the_code_uses_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read_settings("overlays/production", "consumer", monkeypatch)
    needed = {
        "cliptide-consumer": {
            ("topic", settings.topic, "Read"),
            ("topic", settings.dead_letter_topic, "Write"),
            ("group", settings.group_id, "Read"),
        },
        "cliptide-query-api": {("topic", settings.topic, "Write")},
        "cliptide-scaler": {("topic", settings.topic, "Describe"), ("group", settings.group_id, "Describe")},
    }
    assert {
        one["metadata"]["name"]: set(rights_of(one)) for one in of_kind("overlays/production", "KafkaUser")
    } == needed


def rights_of(user: Object) -> Iterator[tuple[str, str, str]]:
    for acl in user["spec"]["authorization"]["acls"]:
        assert acl["resource"]["patternType"] == "literal"
        for operation in acl["operations"]:
            yield acl["resource"]["type"], acl["resource"]["name"], operation


def test_the_scaler_follows_the_group_and_stops_at_the_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read_settings("overlays/production", "consumer", monkeypatch)
    scaler = the("overlays/production", "ScaledObject", "cliptide-consumer")["spec"]
    topic = the("overlays/production", "KafkaTopic", settings.topic)["spec"]
    assert (scaler["scaleTargetRef"]["kind"], scaler["scaleTargetRef"]["name"]) == WORKLOADS["consumer"]
    assert scaler["maxReplicaCount"] == topic["partitions"]
    assert scaler["minReplicaCount"] >= 1
    [trigger] = scaler["triggers"]
    assert trigger["metadata"]["consumerGroup"] == settings.group_id
    assert trigger["metadata"]["topic"] == settings.topic
    assert trigger["metadata"]["bootstrapServers"] == settings.kafka.bootstrap_servers
    assert (
        "replicas" not in the("overlays/production", *WORKLOADS["consumer"])["spec"]
    )  # an apply must not undo it


def test_every_secret_is_one_that_strimzi_makes_or_the_page_says_how_to_make() -> None:
    made = {one["metadata"]["name"] for one in of_kind("overlays/production", "KafkaUser")}
    text = yaml.safe_dump_all(rendered("overlays/production"))
    used = set(re.findall(r"secretName: (\S+)", text))
    used |= {
        ref["secretRef"]["name"]
        for s in WORKLOADS
        for ref in container("base", s)["envFrom"]
        if "secretRef" in ref
    }
    authentication = the("overlays/production", "TriggerAuthentication", "cliptide-scaler")["spec"]
    used |= {ref["name"] for ref in authentication["secretTargetRef"]}
    assert used - made == {"cliptide-keys", "kafka-cluster-ca"}
    for name in used - made:
        assert re.search(rf"create secret generic {name}\b", PAGE), name
    assert all(variable in PAGE for variable in KEYS)


def test_prometheus_finds_both_services_under_the_jobs_that_the_alerts_name() -> None:
    monitor = the("overlays/production", "ServiceMonitor", "cliptide")["spec"]
    [endpoint] = monitor["endpoints"]
    scraped = [
        service["metadata"]["labels"]
        for service in of_kind("overlays/production", "Service")
        if endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    ]
    assert all(monitor["selector"]["matchLabels"].items() <= labels.items() for labels in scraped)
    jobs = {labels[monitor["jobLabel"]] for labels in scraped}
    alerts = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text()
    assert jobs == set(re.findall(r'absent\(up\{job="(\w+)"\}\)', alerts)) == set(WORKLOADS)


def test_the_alerts_are_those_of_prometheus() -> None:
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
    assert cast(Any, yaml.safe_load(build_rules()))["spec"] == rules
    assert the("overlays/production", "PrometheusRule", "cliptide")["spec"] == rules


def test_the_demo_listens_where_its_image_says() -> None:
    [port] = re.findall(r"CLIPTIDE_DEMO_PORT=(\d+)", DOCKERFILE)
    [one] = the("overlays/demo", "Deployment", "cliptide-demo")["spec"]["template"]["spec"]["containers"]
    assert [found["containerPort"] for found in one["ports"]] == [int(port)]
