"""Servers of object stores on this machine: versitygw and moto (S3), and Azurite (Azure)."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from tests.clients.toolchain import NODE, ToolsMissing, node_modules

HERE = Path(__file__).parent
_START_SECONDS = 60.0
_AZURE_ACCOUNT = "devstoreaccount1"
_AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account and key of every Azurite, as its documentation says."""
_S3_KEY, _S3_SECRET = "test-key", "test-secret"


class ServerUnavailable(Exception):
    """The server cannot be started here; the message says what to install."""


class ObjectServer(Protocol):
    """A server that runs. `environment` are the variables with which obstore reaches it."""

    environment: Mapping[str, str]

    def new_bucket(self) -> str:
        """Make an empty bucket and return its URL."""
        ...


@dataclass(frozen=True)
class S3Gateway:
    """versitygw over a directory, in which each folder is a bucket. It takes requests concurrently."""

    environment: Mapping[str, str]
    directory: Path

    def new_bucket(self) -> str:
        name = f"bucket-{uuid4().hex[:12]}"
        (self.directory / name).mkdir()
        return f"s3://{name}"


@dataclass(frozen=True)
class Moto:
    environment: Mapping[str, str]

    def new_bucket(self) -> str:
        name = f"bucket-{uuid4().hex[:12]}"
        _put(f"{self.environment['AWS_ENDPOINT_URL']}/{name}", {})
        return f"s3://{name}"


@dataclass(frozen=True)
class Azurite:
    environment: Mapping[str, str]

    def new_bucket(self) -> str:
        name = f"container-{uuid4().hex[:12]}"
        url = f"{self.environment['AZURE_ENDPOINT']}/{name}?restype=container"
        _put(url, _signed_for_azure(name))
        return f"az://{name}"


@contextmanager
def versitygw(directory: Path) -> Iterator[S3Gateway]:
    """Start versitygw, whose objects lie below the directory."""
    program = shutil.which("versitygw")
    if program is None:
        raise ServerUnavailable("versitygw not found: make versitygw")
    buckets, sidecar = directory / "buckets", directory / "sidecar"
    for folder in (buckets, sidecar):
        folder.mkdir(parents=True)
    port = free_port()
    options = ["--quiet", "--keep-alive", "--port", f"127.0.0.1:{port}", "--access", _S3_KEY]
    backend = ["posix", "--sidecar", str(sidecar), str(buckets)]
    with _running([program, *options, "--secret", _S3_SECRET, *backend], port, directory):
        yield S3Gateway(_s3_environment(port), buckets)


@contextmanager
def moto(directory: Path) -> Iterator[Moto]:
    """Start moto's server, which keeps its objects in memory and takes one request at a time."""
    port = free_port()
    directory.mkdir(parents=True)
    with _running([sys.executable, str(HERE / "moto_server.py"), str(port)], port, directory):
        yield Moto(_s3_environment(port))


@contextmanager
def azurite(directory: Path) -> Iterator[Azurite]:
    try:
        modules = node_modules(HERE / "azurite")
    except ToolsMissing as error:
        raise ServerUnavailable(f"Azurite: {error}") from error
    port = free_port()
    directory.mkdir(parents=True)
    script = modules / "azurite" / "dist" / "src" / "blob" / "main.js"
    options = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(directory)]
    flags = ["--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    with _running([str(NODE), str(script), *options, *flags], port, directory):
        yield Azurite(
            {
                "AZURE_STORAGE_ACCOUNT_NAME": _AZURE_ACCOUNT,
                "AZURE_STORAGE_ACCOUNT_KEY": _AZURE_KEY,
                "AZURE_ENDPOINT": f"http://127.0.0.1:{port}/{_AZURE_ACCOUNT}",
            }
        )


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def _running(command: Sequence[str], port: int, directory: Path) -> Iterator[None]:
    """Run a server until the context ends; its output is kept beside its files."""
    with (directory / "log").open("wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory)
    try:
        _wait_for(port, child, directory / "log")
        yield
    finally:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(10)
        child.kill()
        child.wait()


def _wait_for(port: int, child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{child.args!r} does not listen: {log.read_text()[-2000:]}")


def _s3_environment(port: int) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": _S3_KEY,
        "AWS_SECRET_ACCESS_KEY": _S3_SECRET,
        "AWS_REGION": "us-east-1",
    }


def _put(url: str, headers: Mapping[str, str]) -> None:
    request = urllib.request.Request(url, method="PUT", headers=dict(headers), data=b"")
    urllib.request.urlopen(request, timeout=30).close()


def _signed_for_azure(container: str) -> dict[str, str]:
    """Return the headers of a request that creates a container (Azure's "Shared Key")."""
    date, version = formatdate(usegmt=True), "2021-08-06"
    content_type = "application/octet-stream"
    headers = f"x-ms-date:{date}\nx-ms-version:{version}\n"
    resource = f"/{_AZURE_ACCOUNT}/{_AZURE_ACCOUNT}/{container}\nrestype:container"
    text = "\n".join(["PUT", "", "", "", "", content_type, "", "", "", "", "", "", headers + resource])
    digest = hmac.new(base64.b64decode(_AZURE_KEY), text.encode(), hashlib.sha256).digest()
    return {
        "x-ms-date": date,
        "x-ms-version": version,
        "Content-Type": content_type,
        "Authorization": f"SharedKey {_AZURE_ACCOUNT}:{base64.b64encode(digest).decode()}",
    }
