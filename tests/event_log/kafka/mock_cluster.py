"""librdkafka's own mock cluster, which answers requests with the errors that a test gives it.

confluent_kafka does not wrap it, so its functions are called in the library that confluent_kafka has loaded.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import confluent_kafka  # noqa: F401 - loads the library

PRODUCE, INIT_PRODUCER_ID = 0, 22
_PRODUCER = 0


class MockCluster:
    """`with MockCluster() as cluster:` runs one broker, in which a topic is there once it is named."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(_path_of_library())
        for name in ("rd_kafka_new", "rd_kafka_conf_new", "rd_kafka_mock_cluster_new"):
            getattr(self._library, name).restype = ctypes.c_void_p
        self._library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p

    def __enter__(self) -> MockCluster:
        reason = ctypes.create_string_buffer(512)
        configuration = ctypes.c_void_p(self._library.rd_kafka_conf_new())
        client = self._library.rd_kafka_new(_PRODUCER, configuration, reason, ctypes.c_size_t(512))
        self._client = ctypes.c_void_p(client)
        self._cluster = ctypes.c_void_p(self._library.rd_kafka_mock_cluster_new(self._client, 1))
        self.bootstrap_servers: str = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        return self

    def __exit__(self, *_: object) -> None:
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._client)

    def answer(self, request: int, *errors: int) -> None:
        """Answer the next requests of a kind with these of Kafka's error codes, one after the other."""
        codes = [ctypes.c_int(error) for error in errors]
        self._library.rd_kafka_mock_push_request_errors(
            self._cluster, ctypes.c_int16(request), ctypes.c_size_t(len(errors)), *codes
        )


def _path_of_library() -> str:
    maps = Path("/proc/self/maps").read_text().splitlines()
    return next(line.split()[-1] for line in maps if "librdkafka" in line)
