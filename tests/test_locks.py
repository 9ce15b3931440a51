"""What an image installs is what it needs, in the versions that are tested."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.sbom import Pin, build_sbom, pins_of, requirements_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
FULL = ROOT / "requirements.lock"
EXTRAS = PROJECT["project"]["optional-dependencies"]
USES: dict[str, list[str]] = {
    "requirements-serve.lock": PROJECT["project"]["dependencies"] + EXTRAS["opensearch"],
    "requirements-demo.lock": PROJECT["project"]["dependencies"] + EXTRAS["demo"],
    "requirements-build.lock": PROJECT["build-system"]["requires"],
}
"""The lock of each use, and what is asked for there."""


def _closure(requirements: Iterable[str]) -> set[str]:
    """Return all packages that are needed on this platform, found through the installed packages."""
    names: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key not in names and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            names.add(key)
            waiting += [_without_marker(one) for one in requirements_of(*key)]
    return {name for name, _ in names}


def _without_marker(requirement: Requirement) -> Requirement:
    """A marker that has been evaluated already, and may name an extra."""
    requirement.marker = None
    return requirement


@pytest.mark.parametrize("lock", USES)
def test_a_lock_holds_exactly_what_its_use_needs(lock: str) -> None:
    assert {pin.name for pin in pins_of(ROOT / lock)} == _closure(USES[lock])


@pytest.mark.parametrize("lock", USES)
def test_an_image_runs_the_versions_that_are_tested(lock: str) -> None:
    assert set(pins_of(ROOT / lock)) <= set(pins_of(FULL))


@pytest.mark.parametrize("lock", [*USES, FULL.name])
def test_every_pin_of_a_lock_has_a_hash_and_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    pins = re.split(r"(?m)^(?=\S)", text)
    assert [pin for pin in pins if "==" in pin and "--hash=sha256:" not in pin] == []
    assert "://" not in text
    assert "--index" not in text


@pytest.mark.parametrize("lock", ["requirements-serve.lock", "requirements-demo.lock"])
def test_no_tool_for_tests_or_checks_is_in_an_image(lock: str) -> None:
    tools = {
        canonicalize_name(Requirement(text).name) for extra in ("test", "lint") for text in EXTRAS[extra]
    }
    needed_anyway = {"setuptools", "packaging", "httpx", "urllib3"}  # by torch, the hub's client and OTLP
    needed_anyway.add("python-dateutil")  # by OpenSearch's client
    assert {pin.name for pin in pins_of(ROOT / lock)} & tools <= needed_anyway


def test_each_image_installs_the_lock_of_its_use_with_hashes() -> None:
    stages = dict(re.findall(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM|\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL))
    used = {
        name: re.findall(r"pip install --require-hashes -r (\S+)", commands)
        for name, commands in stages.items()
    }
    assert used == {
        "wheel": ["requirements-build.lock"],
        "base": ["requirements-serve.lock"],
        "consumer": [],
        "query_api": [],
        "demo": ["requirements-demo.lock"],
    }


def test_the_bill_of_materials_lists_each_package_of_the_image_once() -> None:
    lock = ROOT / "requirements-serve.lock"
    document = build_sbom(lock)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    components = [Pin(one["name"], one["version"]) for one in document["components"]]
    assert components == pins_of(lock)
    references = {one["bom-ref"] for one in document["components"]}
    assert {ref for one in document["dependencies"] for ref in (one["ref"], *one["dependsOn"])} <= references
    licences = [one["licenses"][0]["license"]["name"] for one in document["components"] if "licenses" in one]
    assert len(licences) > 0.9 * len(components)
    assert max(map(len, licences)) < 200


def test_the_bill_of_materials_can_be_printed() -> None:
    command = [sys.executable, "-m", "tools.sbom", "requirements-build.lock"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert '"pkg:pypi/setuptools@' in printed.stdout, printed.stderr


_IMPORT_ALL = """
import importlib, importlib.metadata, pathlib, sys
from tools.sbom import pins_of

installed = {pin.name for pin in pins_of(pathlib.Path(sys.argv[1]))} | {"cliptide"}
canonical = lambda name: name.lower().replace("_", "-").replace(".", "-")
absent = {
    module
    for module, owners in importlib.metadata.packages_distributions().items()
    if not {canonical(owner) for owner in owners} & installed
} - {"tests", "tools", "fakes", "benchmarks", "crashes"}

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        is_absent = name.partition(".")[0] in absent
        return None if is_absent else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path if hasattr(finder, "find_spec")]
for name in [name for name in sys.modules if name.partition(".")[0] in absent]:
    del sys.modules[name]
services = ("service", "consumer", "query_api", "cliptide")
for package in ("schemas", "event_log", "clip_index", "opensearch_engine", *services):
    for path in sorted(pathlib.Path(package).rglob("*.py")):
        importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
print("imported", "pytest" in absent)
"""


@pytest.mark.encoder
def test_every_module_can_be_imported_where_only_the_lock_of_the_services_is_installed() -> None:
    command = [sys.executable, "-c", _IMPORT_ALL, "requirements-serve.lock"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "imported True", done.stderr
