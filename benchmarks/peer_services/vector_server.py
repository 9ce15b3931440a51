"""`python vector_server.py LIBRARY DIRECTORY PORT`: a plain aiohttp handler in front of a library.

It runs in the peers' environment and imports nothing of this project. Ids are numbers. A search names
its effort, which is the library's `ef`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

_MAX_BODY_BYTES = 2**28
_NUM_NEIGHBOURS, _CONSTRUCTION_EFFORT = 16, 200
_REFINED = 3  # LanceDB ranks this many times k rows again by their exact vectors
_MIN_LANCE_ROWS = 256  # below, LanceDB can train no index and scans

Vectors = NDArray[np.float32]


class Library(Protocol):
    """What the handler asks of a library."""

    async def search(self, vector: Vectors, k: int, effort: int) -> tuple[list[int], list[float]]:
        """Return the ids of the k nearest rows and their scores."""

    async def append(self, ids: list[int], vectors: Vectors) -> None:
        """Add rows. They are on disk when this returns."""

    async def finish(self) -> None:
        """Build or renew the index over all rows, and write it to disk."""


class Lance:
    """LanceDB with the index that needs the least CPU time at recall 0.99 here: IVF_HNSW_SQ, refined."""

    def __init__(self, table: Any, database: Any) -> None:
        self._table = table
        self._database = database

    @classmethod
    async def open(cls, directory: Path) -> Lance:
        import lancedb

        database = await lancedb.connect_async(str(directory))
        names = (await database.list_tables()).tables
        return cls(await database.open_table("rows") if "rows" in names else None, database)

    async def search(self, vector: Vectors, k: int, effort: int) -> tuple[list[int], list[float]]:
        search = self._table.vector_search(vector).distance_type("dot").limit(k)
        search = search.ef(effort).refine_factor(_REFINED).select(["id", "_distance"])
        found = await search.to_arrow()
        return found["id"].to_pylist(), found["_distance"].to_pylist()

    async def append(self, ids: list[int], vectors: Vectors) -> None:
        import pyarrow as pa

        columns = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        rows = pa.table({"id": pa.array(ids), "vector": columns})
        if self._table is None:
            self._table = await self._database.create_table("rows", rows)
        else:
            await self._table.add(rows)

    async def finish(self) -> None:
        from lancedb.index import IvfHnswSq

        await self._table.optimize()
        if not await self._table.list_indices() and await self._table.count_rows() >= _MIN_LANCE_ROWS:
            index = IvfHnswSq(distance_type="dot", m=_NUM_NEIGHBOURS, ef_construction=_CONSTRUCTION_EFFORT)
            await self._table.create_index("vector", config=index)


class Graph:
    """hnswlib, with a file of the rows that were added since the graph was written."""

    def __init__(self, directory: Path) -> None:
        import hnswlib

        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / "graph"
        self._added = (directory / "added").open("ab")
        self._graph: Any = None
        self._library = hnswlib
        if self._path.exists():
            size = json.loads((directory / "size").read_text())
            self._graph = hnswlib.Index("ip", size["dimension"])
            self._graph.load_index(str(self._path), max_elements=size["rows"] * 2)

    async def search(self, vector: Vectors, k: int, effort: int) -> tuple[list[int], list[float]]:
        self._graph.set_ef(effort)
        ids, distances = self._graph.knn_query(vector, k, num_threads=1)
        return ids[0].tolist(), distances[0].tolist()

    async def append(self, ids: list[int], vectors: Vectors) -> None:
        self._added.write(np.asarray(ids, np.int64).tobytes() + vectors.tobytes())
        self._added.flush()
        os.fsync(self._added.fileno())
        self._make_room(len(ids), vectors.shape[1])
        self._graph.add_items(vectors, ids, num_threads=1)

    async def finish(self) -> None:
        self._graph.save_index(str(self._path))
        size = {"rows": self._graph.get_current_count(), "dimension": self._graph.dim}
        (self._path.parent / "size").write_text(json.dumps(size))

    def _make_room(self, num_rows: int, dimension: int) -> None:
        if self._graph is None:
            self._graph = self._library.Index("ip", dimension)
            self._graph.init_index(num_rows, _NUM_NEIGHBOURS, _CONSTRUCTION_EFFORT)
        wanted = self._graph.get_current_count() + num_rows
        if wanted > self._graph.get_max_elements():
            self._graph.resize_index(2 * wanted)


def build_app(library: Library) -> web.Application:
    """Build the handlers, which do no more than parse and write JSON."""

    async def search(request: web.Request) -> web.Response:
        asked = json.loads(await request.read())
        vector = np.array(asked["vector"], np.float32)
        ids, scores = await library.search(vector, asked["k"], asked["effort"])
        return web.json_response({"ids": ids, "scores": scores})

    async def append(request: web.Request) -> web.Response:
        rows = json.loads(await request.read())
        await library.append(rows["ids"], np.array(rows["vectors"], np.float32))
        return web.json_response({})

    async def finish(_: web.Request) -> web.Response:
        await library.finish()
        return web.json_response({})

    app = web.Application(client_max_size=_MAX_BODY_BYTES)
    app.router.add_post("/search", search)
    app.router.add_post("/append", append)
    app.router.add_post("/finish", finish)
    return app


async def _open(library: str, directory: Path) -> web.Application:
    return build_app(await Lance.open(directory) if library == "lancedb" else Graph(directory))


if __name__ == "__main__":
    web.run_app(_open(sys.argv[1], Path(sys.argv[2])), host="127.0.0.1", port=int(sys.argv[3]), print=None)
