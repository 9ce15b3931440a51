"""`python -m benchmarks.clients.slow_connections PORT NUMBER`: hold connections that send a byte a second.

Half of the connections send their headers slowly, half their bodies. A closed connection is opened
again. The first line of output says that all are open. When standard input ends, one JSON line says
how many connections were opened in all, and which statuses were answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter
from dataclasses import dataclass, field

_HEAD = (
    "POST /v1/search HTTP/1.1\r\nHost: [::]\r\nContent-Type: application/json\r\nContent-Length: 9000\r\n\r\n"
)
_BYTE_SECONDS = 1.0


@dataclass(slots=True)
class Tally:
    """Counts connections and answers. `are_open` is set when the first `num_wanted` connections are open."""

    num_wanted: int
    num_opened: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    are_open: asyncio.Event = field(default_factory=asyncio.Event)

    def count_opened(self) -> None:
        self.num_opened += 1
        if self.num_opened == self.num_wanted:
            self.are_open.set()


async def hold(port: int, num_at_once: int, tally: Tally) -> None:
    """Open a connection, send some bytes at once and then one a second. Begin again when it is closed."""
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await _hold_one(port, num_at_once, tally)


async def _hold_one(port: int, num_at_once: int, tally: Tally) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    tally.count_opened()
    sending = asyncio.create_task(_send(writer, num_at_once))
    try:
        answer = await reader.readline()
        if answer:
            tally.statuses[answer.split()[1].decode()] += 1
    finally:
        sending.cancel()
        await asyncio.wait([sending])
        writer.close()


async def _send(writer: asyncio.StreamWriter, num_at_once: int) -> None:
    writer.write(_HEAD[:num_at_once].encode())
    for byte in _HEAD[num_at_once:] + " " * 9000:
        await asyncio.sleep(_BYTE_SECONDS)
        writer.write(byte.encode())
        await writer.drain()


async def _main(port: int, num_connections: int) -> None:
    tally = Tally(num_connections)
    holding = [
        asyncio.create_task(hold(port, 20 if number % 2 else len(_HEAD), tally))
        for number in range(num_connections)
    ]
    await tally.are_open.wait()
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in holding:
        task.cancel()
    await asyncio.wait(holding)
    print(json.dumps({"opened": tally.num_opened, "statuses": tally.statuses}))


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2])))
