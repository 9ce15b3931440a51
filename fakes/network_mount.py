"""A shared directory as one machine sees it through a network file system, which remembers what it saw."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from clip_index.storage.file_digest import FileDigest
from clip_index.storage.local_store import LocalShardStore


class Mount:
    """What one client of the server remembers: listings, and with `remembers_absence` what was not there.

    It sees its own changes at once, and those of others when `seconds` of `clock` have passed, as NFS does
    with `actimeo` and `lookupcache`.
    """

    def __init__(
        self, clock: Callable[[], float], seconds: float = 30.0, *, remembers_absence: bool = False
    ) -> None:
        self._clock = clock
        self._seconds = seconds
        self._remembers_absence = remembers_absence
        self._listings: dict[Path, tuple[float, list[str]]] = {}
        self._absent: dict[Path, float] = {}

    def listing(self, folder: Path, ask: Callable[[], list[str]]) -> list[str]:
        known = self._listings.get(folder)
        if known is None or self._clock() - known[0] >= self._seconds:
            known = self._listings[folder] = (self._clock(), ask())
        return known[1]

    def is_there(self, path: Path, ask: Callable[[], bool]) -> bool:
        if path in self._absent and self._clock() - self._absent[path] < self._seconds:
            return False
        is_there = ask()
        if not is_there and self._remembers_absence:
            self._absent[path] = self._clock()
        return is_there

    def forget(self, path: Path) -> None:
        """The client itself has changed something at a path."""
        self._absent.pop(path, None)
        for folder in (path, path.parent):
            self._listings.pop(folder, None)


@dataclass(frozen=True, slots=True)
class MountedStore(LocalShardStore):
    """Implements `ShardStore` over a mount."""

    mount: Mount = field(default_factory=lambda: Mount(time.monotonic), compare=False)

    def below(self, folder: str) -> MountedStore:
        return MountedStore(self.path / folder, self.root or self.path, self.mount)

    def list_names(self, folder: str = "") -> list[str]:
        ask = partial(LocalShardStore.list_names, self, folder)
        return self.mount.listing(self.path / folder, ask)

    def exists(self, name: str) -> bool:
        return self.mount.is_there(self.path / name, (self.path / name).exists)

    def look_for(self, name: str) -> Callable[[], bool]:
        return partial(self.exists, name)

    def prepare(self, folders: Sequence[str]) -> None:
        self._changed("", LocalShardStore.prepare, folders)

    def create_exclusively(self, name: str, data: bytes) -> None:
        self._changed(name, LocalShardStore.create_exclusively, name, data)

    def ensure(self, name: str, data: bytes) -> None:
        self._changed(name, LocalShardStore.ensure, name, data)

    def renew(self, name: str, data: bytes) -> None:
        self._changed(name, LocalShardStore.renew, name, data)

    def put(self, files: Mapping[str, bytes]) -> None:
        for name, data in files.items():
            self._changed(name, LocalShardStore.put, {name: data})

    def replace(self, name: str, data: bytes) -> None:
        self._changed(name, LocalShardStore.replace, name, data)

    def publish(self, name: str) -> FileDigest:
        digest: FileDigest = self._changed(name, LocalShardStore.publish, name)
        return digest

    def remove(self, name: str) -> None:
        self._changed(name, LocalShardStore.remove, name)

    def _changed(self, name: str, action: Callable[..., Any], *arguments: object) -> Any:
        """A failed attempt changes nothing that this client would have to forget."""
        result = action(self, *arguments)
        self.mount.forget(self.path / name)
        return result
