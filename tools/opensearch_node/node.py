"""OpenSearch nodes as child processes, which end with the block or the process that started them."""

from __future__ import annotations

import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from cliptide.demo.child_process import LOOPBACK, end, free_port, read_tail, spawn
from tools.opensearch_node.jars import find_or_fetch_jars

_LAUNCHER = Path(__file__).with_name("OneNode.java")
_START_SECONDS = 120.0
_ATTEMPTS = 3
_HEAP = "400m"


class OpenSearchNode:
    """`with OpenSearchNode() as node:` runs a cluster of one node until the end of the block."""

    def __init__(self, port: int | None = None) -> None:
        self.url = ""
        self._port = port
        self._scratch = tempfile.TemporaryDirectory(prefix="cliptide-opensearch-")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> OpenSearchNode:
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

    def _start(self, folder: Path) -> None:
        for attempt in range(_ATTEMPTS):  # another process may have taken a free port meanwhile
            port, home = self._port or free_port(), folder / f"home-{attempt}"
            settings = {"node.name": "node-1", "discovery.type": "single-node", "http.port": port}
            self._process = start_node(home, {**settings, "transport.port": free_port()})
            self.url = f"http://{LOOPBACK}:{port}"
            if is_ready(self._process, self.url):
                return
            end(self._process, patience_seconds=10.0)
        raise RuntimeError(f"OpenSearch did not start: {read_tail(home / 'node.log')}")


class OpenSearchCluster:
    """`with OpenSearchCluster(3) as cluster:` runs that many nodes; each can be killed as a machine fails."""

    def __init__(self, num_nodes: int) -> None:
        self.urls: list[str] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self._num_nodes = num_nodes
        self._stack = ExitStack()

    def __enter__(self) -> OpenSearchCluster:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="cliptide-opensearch-")))
        try:
            self._start(folder, [(free_port(), free_port()) for _ in range(self._num_nodes)])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def kill(self, number: int) -> None:
        self.processes[number].kill()
        self.processes[number].wait()

    def _start(self, folder: Path, ports: Sequence[tuple[int, int]]) -> None:
        shared = {
            "discovery.seed_hosts": ",".join(f"{LOOPBACK}:{port}" for _, port in ports),
            "cluster.initial_cluster_manager_nodes": ",".join(f"node-{n}" for n in range(len(ports))),
        }
        for number, (port, transport_port) in enumerate(ports):
            own = {"node.name": f"node-{number}", "http.port": port, "transport.port": transport_port}
            process = start_node(folder / f"home-{number}", {**shared, **own})
            self._stack.callback(end, process, patience_seconds=10.0)
            self.processes.append(process)
            self.urls.append(f"http://{LOOPBACK}:{port}")
        query = f"/_cluster/health?wait_for_nodes={len(ports)}&timeout=1s"
        for number, process in enumerate(self.processes):
            if not is_ready(process, self.urls[number] + query):
                raise RuntimeError(f"no node: {read_tail(folder / f'home-{number}' / 'node.log')}")


def start_node(home: Path, settings: Mapping[str, object]) -> subprocess.Popen[bytes]:
    (home / "config").mkdir(parents=True)
    all_settings = {
        "path.home": home,
        "cluster.name": "cliptide",
        "network.host": LOOPBACK,
        "cluster.routing.allocation.disk.threshold_enabled": "false",  # a developer's disk may be nearly full
        **settings,
    }
    flags = [f"-Xmx{_HEAP}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    command = ["java", *flags, "-cp", f"{find_or_fetch_jars()}/*", str(_LAUNCHER)]
    return spawn([*command, *(f"{name}={value}" for name, value in all_settings.items())], home / "node.log")


def is_ready(process: subprocess.Popen[bytes], url: str) -> bool:
    """Wait until the address answers. Return False if the process has ended or takes too long."""
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5.0):
                return process.poll() is None
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    return False
