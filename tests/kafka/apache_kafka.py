"""An Apache Kafka broker (KRaft, controller and broker in one process), started from its own jars."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from cliptide.demo.child_process import LOOPBACK, end, free_port, read_tail, spawn
from event_log.errors import TransientLogError
from event_log.kafka.admin import KafkaAdmin
from event_log.kafka.settings import KafkaSettings

_POM = Path(__file__).with_name("pom.xml")
_CACHE = Path(__file__).parents[2] / ".cache" / "kafka"
_START_SECONDS = 60.0
_ATTEMPTS = 3
_MAX_RECORD_BYTES = 12 * 1024 * 1024


class ApacheKafkaUnavailable(Exception):
    """Kafka cannot run here. The message says what is missing."""


LIMITED_USERS = ("cliptide-consumer", "cliptide-query-api", "cliptide-scaler")


class ApacheKafka:
    """`with ApacheKafka() as kafka:` runs a broker on free loopback ports until the end of the block.

    A second listener, `sasl_servers`, takes the user `us` with the password `right` by SASL/PLAIN alone, and
    the users of `LIMITED_USERS` with the same password. These may do nothing but what a test allows them.
    """

    def __init__(self) -> None:
        self.bootstrap_servers = ""
        self.sasl_servers = ""
        self._scratch = tempfile.TemporaryDirectory(prefix="cliptide-kafka-")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ApacheKafka:
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

    def kill(self) -> None:
        """End the broker at once, as a machine that fails does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _start(self, folder: Path) -> None:
        class_path = f"{_jars()}/*"
        log_path = folder / "kafka.log"
        for attempt in range(_ATTEMPTS):  # another process may have taken a free port meanwhile
            port, sasl_port = free_port(), free_port()
            properties = folder / f"server-{attempt}.properties"
            properties.write_text(
                _server_properties(folder / f"data-{attempt}", port, sasl_port, free_port())
            )
            _format_storage(class_path, properties)
            self._process = spawn([*_java(class_path), "kafka.Kafka", str(properties)], log_path)
            self.bootstrap_servers = f"{LOOPBACK}:{port}"
            self.sasl_servers = f"{LOOPBACK}:{sasl_port}"
            if self._is_ready(self._process):
                return
            end(self._process, patience_seconds=10.0)
        raise RuntimeError(f"Apache Kafka did not start: {read_tail(log_path)}")

    def _is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait until the broker answers. Return False if it has ended or does not answer in time."""
        admin = KafkaAdmin(KafkaSettings(self.bootstrap_servers), request_timeout_seconds=1.0)
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                admin.check_reachable()
                return process.poll() is None
            except TransientLogError:
                time.sleep(0.05)
        return False


def _jars() -> Path:
    """Return the folder of the jars that the pom names. They are downloaded once and kept."""
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if missing:
        raise ApacheKafkaUnavailable(
            f"{' and '.join(missing)} not found: install a JDK 17 and Maven, or set KAFKA_BOOTSTRAP_SERVERS"
        )
    folder = _CACHE / hashlib.sha256(_POM.read_bytes()).hexdigest()[:12]
    if not folder.exists():
        _fetch_jars(folder)
    return folder


def _fetch_jars(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix="partial-", dir=folder.parent))
    command = ["mvn", "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies"]
    fetched = subprocess.run(
        [*command, f"-DoutputDirectory={partial}"], capture_output=True, text=True, check=False
    )
    if fetched.returncode != 0:
        shutil.rmtree(partial)
        raise ApacheKafkaUnavailable(f"Maven could not fetch Apache Kafka: {fetched.stdout[:500]}")
    try:
        os.rename(partial, folder)
    except OSError:  # another test run has downloaded them meanwhile
        shutil.rmtree(partial)


def _java(class_path: str) -> list[str]:
    return ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", class_path]


def _format_storage(class_path: str, properties: Path) -> None:
    cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    command = [*_java(class_path), "kafka.tools.StorageTool", "format"]
    subprocess.run(
        [*command, "--cluster-id", f"c{cluster_id[1:]}", "--config", str(properties)],
        capture_output=True,
        check=True,
    )


def _server_properties(data: Path, port: int, sasl_port: int, controller_port: int) -> str:
    users = " ".join(f'user_{name}="right"' for name in ("us", *LIMITED_USERS))
    properties = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{LOOPBACK}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{port},SASL://{LOOPBACK}:{sasl_port},"
        f"CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port},SASL://{LOOPBACK}:{sasl_port}",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule"
        f" required {users};",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:us",  # the plain listener's clients have no name
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "message.max.bytes": _MAX_RECORD_BYTES,
        "offsets.topic.num.partitions": 1,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.num.partitions": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,  # do not wait for further members of a group
    }
    return "".join(f"{name}={value}\n" for name, value in properties.items())
