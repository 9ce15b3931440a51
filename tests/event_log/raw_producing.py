"""Produces a record that no client library can: with a header whose name is any bytes."""

from __future__ import annotations

import socket
import struct
import time

from tests.event_log.event_logs import DEADLINE_SECONDS

_ANY_PRODUCER = (-1, -1, -1)  # producer id, epoch, base sequence


def produce_with_header(
    bootstrap_servers: str, topic: str, *, key: bytes, value: bytes, header: tuple[bytes, bytes]
) -> None:
    """Append one record to partition 0 of a topic of a single broker (Kafka's Produce request, version 3)."""
    batch = _record_batch(_record(key, value, header))
    body = struct.pack(">hhi", -1, -1, round(DEADLINE_SECONDS * 1000))  # no transaction, all replicas
    body += struct.pack(">i", 1) + _text(topic)
    body += struct.pack(">iii", 1, 0, len(batch)) + batch
    request = struct.pack(">hhi", 0, 3, 1) + _text("raw") + body
    host, port = bootstrap_servers.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=DEADLINE_SECONDS) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = connection.makefile("rb")
        (size,) = struct.unpack(">i", answer.read(4))
        # correlation id, topics, name, partitions, partition, error code
        (error_code,) = struct.unpack_from(">h", answer.read(size), 4 + 4 + 2 + len(topic) + 4 + 4)
    assert error_code == 0, f"Kafka error {error_code}"


def _record(key: bytes, value: bytes, header: tuple[bytes, bytes]) -> bytes:
    body = bytes([0]) + _varint(0) + _varint(0) + _bytes(key) + _bytes(value)
    body += _varint(1) + b"".join(map(_bytes, header))
    return _varint(len(body)) + body


def _record_batch(record: bytes) -> bytes:
    now_ms = int(time.time() * 1000)
    rest = struct.pack(">hiqqqhii", 0, 0, now_ms, now_ms, *_ANY_PRODUCER, 1) + record
    rest = struct.pack(">ibI", -1, 2, _crc32c(rest)) + rest
    return struct.pack(">qi", 0, len(rest)) + rest


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _bytes(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _varint(number: int) -> bytes:
    zigzag, encoded = number << 1, b""
    while zigzag > 0x7F:
        encoded += bytes([zigzag & 0x7F | 0x80])
        zigzag >>= 7
    return encoded + bytes([zigzag])


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
