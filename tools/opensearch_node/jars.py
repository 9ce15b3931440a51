"""The jars of OpenSearch and of its k-NN plugin: fetched from Maven Central once, and kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

_POM = Path(__file__).with_name("pom.xml")
_CACHE = Path(__file__).parents[2] / ".cache" / "opensearch"


class OpenSearchUnavailable(Exception):
    """OpenSearch cannot run here. The message says what is missing."""


def find_or_fetch_jars() -> Path:
    """Return the folder of the jars that the pom names."""
    missing = [tool for tool in ("java", "javac", "mvn") if shutil.which(tool) is None]
    if missing:
        raise OpenSearchUnavailable(f"{' and '.join(missing)} not found: install a JDK 17 and Maven")
    folder = _CACHE / hashlib.sha256(_POM.read_bytes()).hexdigest()[:12]
    if not folder.exists():
        _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix="partial-", dir=folder.parent))
    command = ["mvn", "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies"]
    fetched = subprocess.run(
        [*command, f"-DoutputDirectory={partial}"], capture_output=True, text=True, check=False
    )
    try:
        if fetched.returncode != 0:
            raise OpenSearchUnavailable(f"Maven could not fetch OpenSearch: {fetched.stdout[:500]}")
        _unpack_plugins(partial)
        os.rename(partial, folder)
    except OSError:  # another process has fetched them meanwhile
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _unpack_plugins(folder: Path) -> None:
    for archive in folder.glob("*.zip"):
        with zipfile.ZipFile(archive) as packed:
            for name in packed.namelist():
                if name.endswith(".jar") and "/" not in name:
                    packed.extract(name, folder)
        archive.unlink()
