"""`python -m tools.sbom LOCK`: print what a lock installs, as a CycloneDX document.

It lists each package with its version, its licence as the package itself states it, and what it
depends on. Licences and dependencies come from the installed packages (`make install`).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)(?: ; ([^\\\n]+?))? \\$", re.MULTILINE)
_OURS = "cliptide"


@dataclass(frozen=True, slots=True)
class Pin:
    """A package that a lock installs on this platform."""

    name: str
    version: str

    @property
    def purl(self) -> str:
        return f"pkg:pypi/{self.name}@{self.version}"


def pins_of(lock: Path) -> list[Pin]:
    """Return what the lock installs on this platform and with this Python, by name."""
    found = _PIN.findall(lock.read_text())
    chosen = {
        Pin(canonicalize_name(name), version)
        for name, version, marker in found
        if not marker or Marker(marker).evaluate()
    }
    return sorted(chosen, key=lambda pin: pin.name)


def requirements_of(name: str, extras: frozenset[str] = frozenset()) -> Iterator[Requirement]:
    """Yield what an installed package needs on this platform, with these extras."""
    for text in distribution(name).requires or []:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def build_sbom(lock: Path) -> dict[str, Any]:
    pins = pins_of(lock)
    purls = {pin.name: pin.purl for pin in pins}
    application = {"type": "application", "name": _OURS, "bom-ref": _OURS}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": application},
        "components": [_component(pin) for pin in pins],
        "dependencies": [{"ref": pin.purl, "dependsOn": sorted(_needed(pin.name, purls))} for pin in pins],
    }


def _component(pin: Pin) -> dict[str, Any]:
    component = {
        "type": "library",
        "bom-ref": pin.purl,
        "name": pin.name,
        "version": pin.version,
        "purl": pin.purl,
    }
    licence = _licence_of(pin.name)
    return {**component, "licenses": [{"license": {"name": licence}}]} if licence else component


def _licence_of(name: str) -> str:
    """Return the licence's name; some packages put its whole text there, of which the first line says it."""
    try:
        metadata = distribution(name).metadata.json
    except PackageNotFoundError:
        return ""
    stated = str(metadata.get("license_expression") or metadata.get("license") or "")
    classifiers = [line for line in metadata.get("classifier", []) if line.startswith("License")]
    return stated.strip().partition("\n")[0] or ", ".join(c.rpartition(" :: ")[2] for c in classifiers)


def _needed(name: str, purls: dict[str, str]) -> set[str]:
    try:
        names = {canonicalize_name(requirement.name) for requirement in requirements_of(name)}
    except PackageNotFoundError:
        return set()
    return {purls[needed] for needed in names if needed in purls}


def main() -> None:
    json.dump(build_sbom(Path(sys.argv[1])), sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
