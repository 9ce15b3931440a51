"""Captures what other programs publish: `python -m tests.kafka.captures versitygw`, `connect` or `minio`.

The records lie in `tests/schemas/mapping/captured/`, a line each, with the key, the headers and the value as
they were in Kafka. The tests read them; nobody has to capture them again. `connect` needs PostgreSQL of
Debian and root's right to become the user `postgres`. `minio` needs MinIO on the path:
`go install github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c`, which takes many minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import boto3
from botocore.config import Config
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from cliptide.demo.child_process import LOOPBACK, end, free_port, read_tail, spawn
from fakes.hash_encoder import draw_picture
from tests.kafka.apache_kafka import ApacheKafka
from tests.kafka.versitygw import VersityGateway

CAPTURED = Path(__file__).parents[1] / "schemas" / "mapping" / "captured"
_POM = Path(__file__).with_name("capture-pom.xml")
_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
_PATIENCE_SECONDS = 120.0
_JSON = "org.apache.kafka.connect.json.JsonConverter"
_AS_EVENTS = {
    "transforms": "text,content,id,key,plain",
    "transforms.text.type": "org.apache.kafka.connect.transforms.HoistField$Value",
    "transforms.text.field": "text",
    "transforms.content.type": "org.apache.kafka.connect.transforms.HoistField$Value",
    "transforms.content.field": "content",
    "transforms.id.type": "org.apache.kafka.connect.transforms.InsertField$Value",
    "transforms.id.static.field": "content_id",
    "transforms.id.static.value": "line",
    "transforms.key.type": "org.apache.kafka.connect.transforms.ValueToKey",
    "transforms.key.fields": "content_id",
    "transforms.plain.type": "org.apache.kafka.connect.transforms.ExtractField$Key",
    "transforms.plain.field": "content_id",
}
_DEBEZIUM = {
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    "plugin.name": "pgoutput",
    "database.hostname": LOOPBACK,
    "database.user": "postgres",
    "database.password": "postgres",
    "database.dbname": "postgres",
    "publication.autocreate.mode": "filtered",
    "skipped.operations": "none",  # so that a truncated table is seen
}
_PRODUCTS = {"table.include.list": "public.products"}
_PLAIN = {
    **_PRODUCTS,
    "key.converter": _JSON,
    "key.converter.schemas.enable": "false",
    "value.converter": _JSON,
    "value.converter.schemas.enable": "false",
    "decimal.handling.mode": "double",
}
_OUTBOX = {
    "table.include.list": "public.outbox",
    "transforms": "outbox",
    "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
    "transforms.outbox.route.topic.replacement": "outbox",
    "transforms.outbox.table.expand.json.payload": "true",
    "key.converter": "org.apache.kafka.connect.storage.StringConverter",
    "value.converter": _JSON,
    "value.converter.schemas.enable": "false",
}


def capture_versitygw() -> None:
    """What a bucket of VersityGW publishes for each way to change an object."""
    with ApacheKafka() as kafka:
        create_topic(kafka, "bucket")
        with VersityGateway(kafka.bootstrap_servers, "bucket") as store:
            store.client().create_bucket(Bucket="photos")
            capture_changes(kafka, store.client(), "versitygw", ["test-message"])


def capture_minio() -> None:
    """What a bucket of MinIO publishes for the same changes."""
    with ApacheKafka() as kafka, scratch_folder() as folder:
        create_topic(kafka, "bucket")
        with minio(folder, kafka) as s3:
            s3.create_bucket(Bucket="photos")
            events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
            queue = {"QueueArn": "arn:minio:sqs::KAFKA:kafka", "Events": events}
            s3.put_bucket_notification_configuration(
                Bucket="photos", NotificationConfiguration={"QueueConfigurations": [queue]}
            )
            capture_changes(kafka, s3, "minio", [])


@contextmanager
def minio(folder: Path, kafka: ApacheKafka) -> Iterator[Any]:
    """Run MinIO with Kafka as a target of notifications; yield a client of it."""
    address = f"{LOOPBACK}:{free_port()}"
    environment = {
        **os.environ,
        "MINIO_ROOT_USER": "a-user",
        "MINIO_ROOT_PASSWORD": "a-password",
        "MINIO_NOTIFY_KAFKA_ENABLE_KAFKA": "on",
        "MINIO_NOTIFY_KAFKA_BROKERS_KAFKA": kafka.bootstrap_servers,
        "MINIO_NOTIFY_KAFKA_TOPIC_KAFKA": "bucket",
    }
    command = ["minio", "server", "--address", address, str(folder / "data")]
    process = spawn(command, folder / "minio.log", environment=environment)
    keys = {"aws_access_key_id": "a-user", "aws_secret_access_key": "a-password"}
    patient = Config(retries={"max_attempts": 12})  # until the server listens
    s3 = boto3.client("s3", endpoint_url=f"http://{address}", region_name="us-east-1", config=patient, **keys)
    try:
        yield s3
    except BaseException:
        sys.stderr.write(read_tail(folder / "minio.log"))
        raise
    finally:
        end(process, patience_seconds=10.0)


def capture_changes(kafka: ApacheKafka, s3: Any, source: str, names: list[str]) -> None:
    """Change objects, one step at a time, because not every store keeps the order of notifications."""
    for name, num_records in change_objects(s3):
        names += [name] * num_records
        records = read(kafka, "bucket", len(names))
    write(source, names, records)


def change_objects(s3: Any) -> Iterator[tuple[str, int]]:
    """Change objects step by step; yield the step's name and how many records it makes."""
    picture, where = draw_picture(1), {"Bucket": "photos"}
    s3.put_object(**where, Key="summer/red dress+1 %41 é.png", Body=picture, ContentType="image/png")
    yield "picture", 1
    s3.put_object(**where, Key="notes/café.txt", Body=b"a red dress", ContentType="text/plain")
    yield "text", 1
    s3.put_object(**where, Key="folder/", Body=b"")
    yield "folder", 1
    s3.copy_object(**where, Key="copy.png", CopySource={**where, "Key": "summer/red dress+1 %41 é.png"})
    yield "copy", 1
    upload_in_parts(s3, picture)
    yield "parts", 1
    s3.put_object_tagging(**where, Key="copy.png", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    yield "tags", 1
    s3.delete_object(**where, Key="copy.png")
    yield "delete", 1
    s3.delete_objects(**where, Delete={"Objects": [{"Key": "parts.png"}, {"Key": "notes/café.txt"}]})
    yield "delete-many", 2


def upload_in_parts(s3: Any, body: bytes) -> None:
    where = {"Bucket": "photos", "Key": "parts.png"}
    where["UploadId"] = s3.create_multipart_upload(**where)["UploadId"]
    part = s3.upload_part(**where, PartNumber=1, Body=body)
    s3.complete_multipart_upload(
        **where, MultipartUpload={"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    )


def capture_connect() -> None:
    """What Kafka Connect publishes of a file, and Debezium of tables, with schemas and without."""
    with scratch_folder() as folder, postgres(folder / "postgres") as port, ApacheKafka() as kafka:
        for topic in (
            "lines",
            "events",
            *(f"{name}.public.products" for name in ("plain", "schemas")),
            "outbox",
        ):
            create_topic(kafka, topic)
        (folder / "lines.txt").write_text("a red dress\na blue shoe\n")
        configurations = write_configurations(folder, kafka, port)
        with connect(folder, configurations):
            names = ["line", "second line"]
            write("connect-file", names, read(kafka, "lines", 2))
            write("connect-file-hoisted", names, read(kafka, "events", 2))
            for name in ("plain", "schemas"):
                read(kafka, f"{name}.public.products", 1)  # both have begun to follow the log
            for statement in CHANGES:
                sql(port, statement)
            for name in ("plain", "schemas"):
                write(f"debezium-{name}", ROWS, read(kafka, f"{name}.public.products", len(ROWS)))
            write("debezium-outbox", ["created", "removed"], read(kafka, "outbox", 2))


TABLES = """
create table products (id serial primary key, title text, description text, price numeric(8, 2),
  weight float8, in_stock boolean, tags text[], owner_id int, link text, added timestamptz);
create table outbox (id uuid primary key, aggregatetype text, aggregateid text, type text, payload jsonb);
insert into products values (1, 'Red dress', 'a red dress with straps', 49.50, 0.25, true,
  '{summer,sale}', 12, 'https://shop.example/1', '2026-11-20 09:12:31Z');
"""
_DIGITS = Random(7)
_LONG = " ".join(str(_DIGITS.random()) for _ in range(300))
"""A text that PostgreSQL keeps beside the row, because it has more than 2 kB even when compressed."""
_ABOUT = "'uploads', 'shoe-1'"
_CREATED = json.dumps({"content": {"text": "a red shoe"}, "metadata": {"price": 49.5}})
_REMOVED = json.dumps({"operation": "delete"})
CHANGES = (
    "insert into products (id, description, link) values (2, 'a blue shoe', '')",
    "update products set price = 39 where id = 1",
    f"insert into products (id, description) values (3, '{_LONG}')",
    "update products set price = 5 where id = 3",
    "delete from products where id = 1",
    "truncate products",
    f"insert into outbox values ('4d47e190-0402-4048-bc2c-89dd54343cdc', {_ABOUT}, 'created', '{_CREATED}')",
    f"insert into outbox values ('5d47e190-0402-4048-bc2c-89dd54343cdc', {_ABOUT}, 'removed', '{_REMOVED}')",
)
ROWS = ("snapshot", "insert", "update", "insert-long", "update-long", "delete", "tombstone", "truncate")


def write_configurations(folder: Path, kafka: ApacheKafka, port: int) -> list[Path]:
    """Write the properties of a worker and of its connectors; return their paths."""
    worker = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "key.converter": _JSON,
        "value.converter": _JSON,
        "offset.storage.file.filename": folder / "offsets",
        "listeners": f"http://{LOOPBACK}:{free_port()}",
        "plugin.discovery": "hybrid_warn",
    }
    file = {"connector.class": "FileStreamSource", "file": folder / "lines.txt"}
    connectors: dict[str, dict[str, object]] = {
        "lines": {**file, "topic": "lines"},
        "events": {**file, "topic": "events", **_AS_EVENTS},
    }
    for name, further in {"plain": _PLAIN, "schemas": _PRODUCTS, "outbox": _OUTBOX}.items():
        own = {"topic.prefix": name, "slot.name": name, "publication.name": name, "database.port": port}
        connectors[name] = {**_DEBEZIUM, **own, **further}
    return [write_properties(folder / "worker", worker)] + [
        write_properties(folder / name, {"name": name, "tasks.max": 1, **connector})
        for name, connector in connectors.items()
    ]


def write_properties(path: Path, properties: Mapping[str, object]) -> Path:
    path = path.with_suffix(".properties")
    path.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    return path


@contextmanager
def connect(folder: Path, configurations: Sequence[Path]) -> Iterator[None]:
    jars = folder / "jars"
    fetch = ["mvn", "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies"]
    subprocess.run([*fetch, f"-DoutputDirectory={jars}"], check=True)
    main = "org.apache.kafka.connect.cli.ConnectStandalone"
    command = ["java", "-Xmx768m", "-cp", f"{jars}/*", main, *map(str, configurations)]
    process = spawn(command, folder / "connect.log")
    try:
        yield
    except BaseException:
        sys.stderr.write(read_tail(folder / "connect.log"))
        raise
    finally:
        end(process, patience_seconds=10.0)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cliptide-captures-") as name:
        os.chmod(name, 0o755)  # the user postgres must reach its folder
        yield Path(name)


@contextmanager
def postgres(folder: Path) -> Iterator[int]:
    """Run a database whose log Debezium can follow; yield its port."""
    folder.mkdir()
    shutil.chown(folder, "postgres")
    programs, port = _POSTGRES[-1], free_port()
    as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    initdb = [
        *as_postgres,
        str(programs / "initdb"),
        "-D",
        str(folder),
        "--auth=trust",
        "--username=postgres",
    ]
    subprocess.run(initdb, check=True, capture_output=True)
    options = ["-c", "wal_level=logical", "-c", "max_replication_slots=8", "-k", str(folder)]
    server = [*as_postgres, str(programs / "postgres"), "-D", str(folder), "-p", str(port), *options]
    process = spawn([*server, "-h", LOOPBACK], folder.with_suffix(".log"))
    try:
        while subprocess.run(
            [programs / "pg_isready", "-h", LOOPBACK, "-p", str(port)], check=False
        ).returncode:
            time.sleep(0.2)
        sql(port, TABLES)
        yield port
    finally:
        end(process, patience_seconds=10.0)


def sql(port: int, statement: str) -> None:
    psql = [
        _POSTGRES[-1] / "psql",
        "-h",
        LOOPBACK,
        "-p",
        str(port),
        "-U",
        "postgres",
        "-v",
        "ON_ERROR_STOP=1",
    ]
    subprocess.run([*psql, "-qc", statement], check=True)


def create_topic(kafka: ApacheKafka, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for created in admin.create_topics([NewTopic(name, 1, 1)]).values():
        created.result()


def read(kafka: ApacheKafka, topic: str, num_records: int) -> list[Message]:
    """Return the first records of a topic, as soon as there are so many."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "captures"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    records: list[Message] = []
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while len(records) < num_records:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{topic} has {len(records)} records and not {num_records}")
        record = consumer.poll(0.2)
        if record is not None and record.error() is None:
            records.append(record)
    consumer.close()
    return records


def write(source: str, names: Sequence[str], records: Sequence[Message]) -> None:
    CAPTURED.mkdir(exist_ok=True)
    named = zip(names, records, strict=True)
    lines = [json.dumps(as_line(name, record), ensure_ascii=False) for name, record in named]
    (CAPTURED / f"{source}.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")


def as_line(name: str, record: Message) -> dict[str, object]:
    headers = [[header, text_of(value)] for header, value in record.headers() or ()]
    return {"name": name, "key": text_of(record.key()), "headers": headers, "value": text_of(record.value())}


def text_of(part: object) -> str | None:
    return part.decode() if isinstance(part, bytes) else None


if __name__ == "__main__":
    {"versitygw": capture_versitygw, "connect": capture_connect, "minio": capture_minio}[sys.argv[1]]()
