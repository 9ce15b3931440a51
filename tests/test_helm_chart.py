"""The Helm chart renders the objects of deploy/kubernetes, and refuses values that cannot work."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml  # type: ignore[import-untyped]

from tests.kubernetes_schemas import CUSTOM
from tests.test_kubernetes import VERSIONS, rendered

ROOT = Path(__file__).parent.parent
CHART = ROOT / "deploy" / "helm" / "cliptide"
FOLDERS = {
    "base": (),
    "overlays/production": ("production.yaml",),
    "overlays/opensearch": ("opensearch.yaml",),
}
OWN_LABELS = ("app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "app.kubernetes.io/version")
ALL_PODS = {"matchLabels": {"app.kubernetes.io/name": "cliptide"}}
Name = tuple[str, str]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("helm")
    if program is None:
        pytest.skip("helm not found: make helm")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=60)


def template(*arguments: str, release: str = "cliptide") -> subprocess.CompletedProcess[str]:
    return helm("template", release, str(CHART), "--namespace", "cliptide", *arguments)


@cache
def charted(*files: str, release: str = "cliptide", sets: tuple[str, ...] = ()) -> tuple[Any, ...]:
    options = [part for file in files for part in ("--values", str(CHART.parent / file))]
    options += [part for one in sets for part in ("--set", one)]
    done = template(*options, release=release)
    assert done.returncode == 0, done.stderr
    return tuple(one for one in yaml.safe_load_all(done.stdout) if one)


def by_name(objects: tuple[Any, ...]) -> dict[Name, Any]:
    return {(one["kind"], one["metadata"]["name"]): one for one in objects}


def without_what_is_helms(value: Any) -> Any:
    """Remove a release's labels and annotations, and read JSON in variables: its spaces do not count."""
    if isinstance(value, list):
        return [without_what_is_helms(one) for one in value]
    if not isinstance(value, dict):
        return value
    if value.get("name") == "CLIPTIDE_KAFKA__PROPERTIES":
        return {**value, "value": json.loads(value["value"])}
    own = {"helm.sh/chart", "annotations", *OWN_LABELS}
    return {key: without_what_is_helms(one) for key, one in value.items() if key not in own}


def without_what_is_kustomizes(objects: tuple[Any, ...]) -> tuple[Any, ...]:
    """Remove the digest in the name of the settings, and the namespace, which `helm install` makes."""
    text = re.sub(r"\bcliptide-settings-\w{10}\b", "cliptide-settings", yaml.safe_dump_all(objects))
    return tuple(one for one in yaml.safe_load_all(text) if one["kind"] != "Namespace")


def comparable(one: Any) -> Any:
    """Return an object without its pods, which `pod` compares, and without its own labels."""
    one = without_what_is_helms(copy.deepcopy(one))
    one["metadata"].pop("labels", None)
    one.get("spec", {}).pop("template", None)
    if one["kind"] == "NetworkPolicy" and one["spec"]["podSelector"] == ALL_PODS:
        one["spec"][
            "podSelector"
        ] = {}  # the folder's policies are for its namespace, those of a release for its pods
    return one


def pod(one: Any) -> Any:
    """Return what an object says of its pods, without the order of variables and volumes."""
    found = without_what_is_helms(copy.deepcopy(one))["spec"]["template"]
    [container] = found["spec"]["containers"]
    for part, key in (("env", "name"), ("volumeMounts", "name")):
        container[part] = {entry[key]: entry for entry in container[part]}
    found["spec"]["volumes"] = {entry["name"]: entry for entry in found["spec"]["volumes"]}
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_chart_renders_the_objects_of_the_folder_and_no_other(folder: str) -> None:
    wanted = by_name(without_what_is_kustomizes(rendered(folder)))
    found = by_name(charted(*FOLDERS[folder]))
    extra = {("NetworkPolicy", "cliptide-opensearch")}  # in the chart, a rule of cliptide-egress
    assert found.keys() == wanted.keys() - extra
    for name in found.keys() - {("NetworkPolicy", "cliptide-egress")}:
        assert comparable(found[name]) == comparable(wanted[name]), name
        labels = wanted[name]["metadata"].get("labels", {})
        kept = {key: value for key, value in labels.items() if key != "app.kubernetes.io/name"}
        assert kept.items() <= found[name]["metadata"]["labels"].items(), name
        if "template" in wanted[name].get("spec", {}):
            assert pod(found[name]) == pod(wanted[name]), name
    egress = ("NetworkPolicy", "cliptide-egress")
    rules = [*wanted[egress]["spec"]["egress"]]
    for name in wanted.keys() & extra:
        rules += wanted[name]["spec"]["egress"]
    assert found[egress]["spec"]["egress"] == rules


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", FOLDERS)
def test_kubernetes_and_the_operators_accept_what_the_chart_renders(folder: str, version: str) -> None:
    for one in charted(*FOLDERS[folder]):
        if one["kind"] in CUSTOM:
            own = copy.deepcopy(one)
            own["metadata"].pop("annotations", None)
            jsonschema.validate(own, CUSTOM[one["kind"]])
        else:
            kubernetes_validate.validate(one, version, strict=True)


def test_helm_finds_nothing_to_warn_of() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


def test_two_releases_in_one_namespace_share_no_object_and_select_no_pod_of_the_other() -> None:
    first, second = charted(release="cliptide"), charted(release="shoes")
    assert by_name(first).keys().isdisjoint(by_name(second))
    for one in second:
        selector = one.get("spec", {}).get("selector", one.get("spec", {}).get("podSelector"))
        if selector is not None:
            assert "'app.kubernetes.io/instance': 'shoes'" in str(selector)


def test_a_whole_number_stays_one_whatever_its_size_and_a_list_is_json() -> None:
    [settings] = [
        one
        for one in charted(
            sets=(
                "settings.CLIPTIDE_CONSUMER__REFERENCE_MAX_BYTES=134217728",
                "settings.CLIPTIDE_CONSUMER__REFERENCE_BUCKETS={s3://photos,s3://scans}",
            )
        )
        if one["kind"] == "ConfigMap"
    ]
    assert settings["data"]["CLIPTIDE_CONSUMER__REFERENCE_MAX_BYTES"] == "134217728"
    assert json.loads(settings["data"]["CLIPTIDE_CONSUMER__REFERENCE_BUCKETS"]) == [
        "s3://photos",
        "s3://scans",
    ]


def test_an_index_in_a_bucket_needs_no_volume() -> None:
    objects = charted(
        sets=("settings.CLIPTIDE_INDEX__ROOT=s3://shop/index", "persistence.index.enabled=false")
    )
    assert [one["metadata"]["name"] for one in objects if one["kind"] == "PersistentVolumeClaim"] == [
        "cliptide-weights"
    ]
    assert "claimName: cliptide-index" not in yaml.safe_dump_all(objects)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        pytest.param("consumer.replicas=many", "Expected: integer", id="a word for a number"),
        pytest.param(
            "consumer.replica=3", "Additional property replica is not allowed", id="a misspelt value"
        ),
        pytest.param("settings.CLIPTIDE_TOPICS=x", "CLIPTIDE_TOPICS is not allowed", id="a misspelt setting"),
        pytest.param("queryApi.keysSecret=", "String length must be greater", id="no Secret of keys"),
        pytest.param("settings.CLIPTIDE_QUERY_API__PORT=9", "its ports and probes rest on it", id="a port"),
        pytest.param("settings.CLIPTIDE_KAFKA__PROPERTIES=x", "as kafkaProperties", id="properties as text"),
        pytest.param(
            "settings.CLIPTIDE_INDEX__ROOT=s3://a/b", "set persistence.index.enabled to false", id="a bucket"
        ),
        pytest.param("persistence.index.enabled=false", "which needs the volume", id="no volume"),
        pytest.param("settings.CLIPTIDE_INDEX__ROOT=/srv", "is mounted at", id="another folder"),
        pytest.param("keda.enabled=true", "must be the number of the topic's partitions", id="no partitions"),
        pytest.param("strimzi.enabled=true,strimzi.replicas=2", "must be less than", id="no spare replica"),
        pytest.param("ingress.enabled=true", "ingress.host must name", id="an ingress without a host"),
        pytest.param("images.consumer.digest=abc", "Does not match pattern", id="a digest that is none"),
    ],
)
def test_values_that_cannot_work_are_refused_with_a_sentence(value: str, sentence: str) -> None:
    done = template("--set", value)
    assert done.returncode != 0
    assert sentence in done.stderr, done.stderr


def test_the_chart_has_the_version_of_the_package() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version[1], version[1])
