"""VersityGW, an S3 server over a directory that publishes a bucket's notifications to Kafka, built by Go."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import boto3

from cliptide.demo.child_process import LOOPBACK, end, free_port, read_tail, spawn

VERSION = "v1.8.0"
TOOLCHAIN = "go1.25.12"
"""What builds it where the system's Go is older. Go's module proxy has it as a module."""
REGION = "us-east-1"
ACCESS_KEY = "us"
SECRET_KEY = "a-secret-of-the-tests"
_MODULE = "github.com/versity/versitygw/cmd/versitygw"
_CACHE = Path(__file__).parents[2] / ".cache" / "versitygw"
_START_SECONDS = 60.0
_ATTEMPTS = 3


class VersityUnavailable(Exception):
    """The server cannot be built here. The message says what is missing."""


class VersityGateway:
    """`with VersityGateway(servers, topic) as store:` runs a store on a free loopback port."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self.url = ""
        self._events = {"kafka-url": bootstrap_servers, "kafka-topic": topic, "kafka-key": "a-bucket"}
        self._scratch = tempfile.TemporaryDirectory(prefix="cliptide-versitygw-")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> VersityGateway:
        try:
            self._start(Path(self._scratch.name))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            end(self._process, patience_seconds=10.0)
        self._scratch.cleanup()

    def environment(self) -> dict[str, str]:
        """What an operator sets so that obstore reads this store."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )

    def _start(self, folder: Path) -> None:
        program, log_path = versitygw(), folder / "versitygw.log"
        for name in ("buckets", "versions"):
            (folder / name).mkdir()
        flags = [f"--event-{name}={value}" for name, value in self._events.items()]
        for _ in range(_ATTEMPTS):  # another process may have taken a free port meanwhile
            address = f"{LOOPBACK}:{free_port()}"
            keys = ("--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", REGION, "--health", "/health")
            posix = ("posix", "--versioning-dir", str(folder / "versions"), str(folder / "buckets"))
            self._process = spawn([str(program), "--port", address, *keys, *flags, *posix], log_path)
            self.url = f"http://{address}"
            if self._is_ready(self._process):
                return
            end(self._process, patience_seconds=10.0)
        raise RuntimeError(f"versitygw did not start: {read_tail(log_path)}")

    def _is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5.0):
                    return process.poll() is None
            except OSError:
                time.sleep(0.05)
        return False


def versitygw() -> Path:
    """Return the program. It is built once and kept."""
    program = _CACHE / VERSION / "versitygw"
    if not program.exists():
        _build(program)
    return program


def _build(program: Path) -> None:
    if shutil.which("go") is None:
        raise VersityUnavailable("go not found: make system-deps")
    program.parent.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix="partial-", dir=program.parent.parent))
    try:
        _run([_go(), "install", f"{_MODULE}@{VERSION}"], GOBIN=str(partial))
        os.rename(partial, program.parent)
    except OSError:  # another test run has built it meanwhile
        if not program.exists():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _go() -> str:
    """Return a Go that is new enough."""
    found = _run(["go", "env", "GOVERSION"]).strip().removeprefix("go")
    wanted = TOOLCHAIN.removeprefix("go")
    if _numbers(found) >= _numbers(wanted)[:2]:
        return "go"
    return str(_toolchain())


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("-")[0].split(".") if part.isdigit())


def _toolchain() -> Path:
    """Return a newer Go, downloaded as a module, whose files must be made executable."""
    platform = "-".join(_run(["go", "env", "GOOS", "GOARCH"]).split())
    module = f"golang.org/toolchain@v0.0.1-{TOOLCHAIN}.{platform}"
    where = _CACHE / TOOLCHAIN
    if not where.exists():
        cache = _run(["go", "env", "GOMODCACHE"]).strip()
        _run(["go", "mod", "download", module])
        partial = _CACHE / f"partial-{os.getpid()}"
        shutil.copytree(Path(cache) / module, partial)
        for path in (*(partial / "bin").iterdir(), *(partial / "pkg" / "tool").rglob("*")):
            path.chmod(0o755)
        os.rename(partial, where)
    return where / "bin" / "go"


def _run(command: list[str], **environment: str) -> str:
    with tempfile.TemporaryDirectory() as outside:  # of every module, so that no go.mod is read
        done = subprocess.run(
            command,
            cwd=outside,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise VersityUnavailable(f"{' '.join(command[:3])}: {done.stderr[-500:]}")
    return done.stdout
