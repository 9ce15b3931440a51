"""Reads and parses small files of a store, and believes no damage that was read once.

A store over the network may answer one request with other bytes than it holds: an error's text behind a
proxy, a body that was cut and filled up, the bytes of another object. Damage of what it holds is read twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from clip_index.errors import DamagedFile
from clip_index.storage.digested_json import parse_digested
from clip_index.storage.shard_store import ShardStore

_ResultT = TypeVar("_ResultT")


def parse_file(store: ShardStore, name: str, parse: Callable[[bytes], _ResultT]) -> _ResultT:
    """Return what `parse` makes of a file. If it raises `DamagedFile`, read the file again, once."""
    data = store.read(name)
    try:
        return parse(data)
    except DamagedFile:
        again = store.read(name)
        if again == data:
            raise
    return parse(again)


def read_digested(store: ShardStore, name: str) -> dict[str, Any]:
    """Do what `parse_digested` does with a file of a store."""
    address = store.address_of(name)
    return parse_file(store, name, lambda data: parse_digested(data, address))
