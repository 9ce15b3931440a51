"""Publishes an upload, a reference and a delete.

python producer.py BROKER TOPIC json|avro|registry SCHEMA [REGISTRY]

Needs confluent-kafka; fastavro for Avro; confluent-kafka[schemaregistry] for a registry.
"""

import io
import json
import sys
from pathlib import Path

import fastavro
from confluent_kafka import Producer

HEADER = bytes.fromhex("c30123d34fc1b3e2be17")  # the marker, and the fingerprint of upload_event.avsc
COMMON = {"occurred_at": 1772368215250, "source": "shop"}  # milliseconds
TEXT = {"text": "a red shoe"}
REFERENCE = {"uri": "s3://uploads/shoe-2.jpg", "modality": "image"}

IN_JSON = [
    {"content_id": "shoe-1", "content": TEXT, **COMMON},
    {"content_id": "shoe-2", "content": {"reference": REFERENCE}, **COMMON},
    {"content_id": "shoe-3", "operation": "delete", **COMMON},
]
IN_AVRO = [
    {**IN_JSON[0], "content": ("cliptide.TextContent", TEXT)},
    {**IN_JSON[1], "content": ("cliptide.Reference", REFERENCE)},
    IN_JSON[2],
]


def main(broker, topic, form, schema_file, registry=None):
    producer = Producer(
        {"bootstrap.servers": broker, "partitioner": "murmur2_random", "enable.idempotence": True}
    )
    text = Path(schema_file).read_text()
    if form == "json":
        headers = {"content-type": "application/json"}
        for event in IN_JSON:
            producer.produce(topic, key=event["content_id"], value=json.dumps(event), headers=headers)
    else:
        schema = fastavro.parse_schema(json.loads(text))
        prefix = HEADER if form == "avro" else prefix_from_registry(registry, topic, text)
        for event in IN_AVRO:
            datum = io.BytesIO()
            fastavro.schemaless_writer(datum, schema, event)
            producer.produce(topic, key=event["content_id"], value=prefix + datum.getvalue())
    if producer.flush(30) > 0:
        sys.exit("not every record was acknowledged")


def prefix_from_registry(url, topic, text):
    """Register the schema, and return 0 and its id: four bytes, big-endian."""
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

    with SchemaRegistryClient({"url": url}) as client:
        schema_id = client.register_schema(f"{topic}-value", Schema(text, "AVRO"))
    return b"\x00" + schema_id.to_bytes(4, "big")


if __name__ == "__main__":
    if len(sys.argv) not in (5, 6):
        sys.exit("usage: python producer.py BROKER TOPIC json|avro|registry SCHEMA [REGISTRY]")
    main(*sys.argv[1:])
