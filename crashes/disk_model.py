"""What a POSIX file system may show after a power cut, given the calls made before it.

A file holds its content of the last fsync. Bytes written later may be lost, torn or complete.
A directory holds its names of the last fsync. Each later change of a name may have reached the
disk or not, independently of the others. The model promises nothing else.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path

from crashes.system_calls import Call


@dataclass
class File:
    """`durable` is the content of the last fsync, None before the first; `written` is what readers saw."""

    durable: bytes | None = None
    written: bytes = b""


@dataclass(frozen=True)
class Change:
    """Names that appear in a directory and names that vanish from it, in one call."""

    appears: dict[str, File | Directory]
    vanishes: tuple[str, ...]


@dataclass
class Directory:
    names: dict[str, File | Directory] = field(default_factory=dict)
    durable: dict[str, File | Directory] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)

    def apply(self, change: Change) -> None:
        self.pending.append(change)
        self.names = _changed(self.names, change)


class DiskModel:
    """Follows the calls of a process below one directory. The directory itself is durable."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self.top = Directory()

    def settle(self) -> None:
        """Take what is on the disk now for durable, whoever wrote it."""
        self.top = _durable(Path(self._root))

    def follow(self, call: Call) -> None:
        """Record a call that has just succeeded. Must be called before the next call changes the disk."""
        if not all(path == self._root or path.startswith(f"{self._root}/") for path in call.paths):
            return
        getattr(self, f"_{call.name}")(*call.paths)

    def _open(self, path: str) -> None:
        directory, name = self._locate(path)
        directory.apply(Change({name: File()}, ()))

    def _fsync(self, path: str) -> None:
        node = self._node(path)
        if isinstance(node, File):
            node.durable = node.written = Path(path).read_bytes()
        else:
            self._discover(path, node)
            node.durable, node.pending = dict(node.names), []

    def _link(self, source: str, target: str) -> None:
        directory, name = self._locate(target)
        directory.apply(Change({name: self._node(source)}, ()))

    def _rename(self, source: str, target: str) -> None:
        node = self._node(source)
        directory, name = self._locate(target)
        if isinstance(node, File):
            node.written = Path(target).read_bytes()
        directory.apply(Change({name: node}, (os.path.basename(source),)))

    _replace = _rename

    def _unlink(self, path: str) -> None:
        directory, name = self._locate(path)
        directory.apply(Change({}, (name,)))

    _rmdir = _unlink

    def _mkdir(self, path: str) -> None:
        directory, name = self._locate(path)
        directory.apply(Change({name: Directory()}, ()))

    def _node(self, path: str) -> File | Directory:
        """Return the node of a path; add a file that a library wrote without an observed call."""
        if path == self._root:
            return self.top
        directory, name = self._locate(path)
        if name not in directory.names:
            directory.apply(Change({name: File()}, ()))
        return directory.names[name]

    def _locate(self, path: str) -> tuple[Directory, str]:
        node = self.top
        *parents, name = os.path.relpath(path, self._root).split("/")
        for parent in parents:
            child = node.names[parent]
            assert isinstance(child, Directory), path
            node = child
        return node, name

    def _discover(self, path: str, directory: Directory) -> None:
        for name in os.listdir(path):
            if name not in directory.names:
                directory.apply(Change({name: File()}, ()))


def _durable(path: Path) -> Directory:
    names: dict[str, File | Directory] = {}
    for child in path.iterdir():
        names[child.name] = _durable(child) if child.is_dir() else _durable_file(child.read_bytes())
    return Directory(names, dict(names))


def _durable_file(data: bytes) -> File:
    return File(data, data)


def write_state(directory: Directory, path: Path, dice: random.Random) -> None:
    """Create at `path` one state that a power cut may leave now; `path` must not exist yet."""
    path.mkdir()
    for name, node in _surviving_names(directory, dice).items():
        if isinstance(node, Directory):
            write_state(node, path / name, dice)
        else:
            (path / name).write_bytes(_surviving_bytes(node, dice))


def _surviving_names(directory: Directory, dice: random.Random) -> dict[str, File | Directory]:
    """Let each pending change survive or not; in some draws all survive, in some none."""
    share = dice.choice([0.0, 0.5, 0.5, 0.9, 1.0])
    names = directory.durable
    for change in directory.pending:
        if dice.random() < share:
            names = _changed(names, change)
    return names


def _surviving_bytes(file: File, dice: random.Random) -> bytes:
    if file.durable is not None:
        return file.durable
    torn = file.written[: dice.randint(0, len(file.written))]
    return dice.choice([b"", torn, bytes(len(file.written)), file.written])


def _changed(names: dict[str, File | Directory], change: Change) -> dict[str, File | Directory]:
    kept = {name: node for name, node in names.items() if name not in change.vanishes}
    return {**kept, **change.appears}
