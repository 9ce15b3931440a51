"""A process that asks a query service. It imports little, so that it uses little CPU time for a request.

Each line of its input is a JSON list of clients, and each client a list of bodies. The process answers
`ready` and waits for an empty line. Then all clients ask at once, each over its own connection and one
body after another. The answer is a JSON list: the seconds of each client's requests.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

_HEAD = "POST {} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"


def main(port: int, path: str) -> None:
    connections: list[socket.socket] = []
    for line in sys.stdin:
        clients = [[_request(path, body) for body in bodies] for bodies in json.loads(line)]
        while len(connections) < len(clients):
            connections.append(socket.create_connection(("127.0.0.1", port)))
        print("ready", flush=True)
        sys.stdin.readline()
        with ThreadPoolExecutor(len(clients)) as threads:
            print(json.dumps(list(threads.map(_ask, connections, clients))), flush=True)


def _ask(connection: socket.socket, requests: Sequence[bytes]) -> list[float]:
    seconds = []
    for request in requests:
        began = time.perf_counter()
        connection.sendall(request)  # headers and body in one write, like curl and Go's client
        _read_answer(connection)
        seconds.append(time.perf_counter() - began)
    return seconds


def _read_answer(connection: socket.socket) -> None:
    """Read one whole answer. Raises `RuntimeError` unless it is a 200 with a length."""
    answer = b""
    while (end := answer.find(b"\r\n\r\n")) < 0:
        answer += _receive(connection)
    head = answer[:end].lower()
    if not head.startswith(b"http/1.1 200"):
        raise RuntimeError(f"the service answered {answer[:500]!r}")
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    missing = end + 4 + length - len(answer)
    while missing > 0:
        missing -= len(_receive(connection))


def _receive(connection: socket.socket) -> bytes:
    received = connection.recv(2**16)
    if not received:
        raise RuntimeError("the service closed the connection")
    return received


def _request(path: str, body: str) -> bytes:
    sent = body.encode()
    return _HEAD.format(path, len(sent)).encode() + sent


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
