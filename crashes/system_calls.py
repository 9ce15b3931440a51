"""Passes every system call that changes the disk through an observer, before and after the call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NAMES = ("open", "fsync", "link", "rename", "replace", "unlink", "mkdir", "rmdir")


@dataclass(frozen=True)
class Call:
    """A call with absolute paths. An `fsync` has the path of its descriptor."""

    name: str
    paths: tuple[str, ...]


class Observer:
    """The observer that does nothing. Others may raise or kill the process before a call."""

    def before(self, call: Call) -> None: ...

    def after(self, call: Call) -> None: ...


@contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """Route the calls of this process through the observer.

    Opening an existing file is not observed, because it does not change the disk.
    """
    originals = {name: getattr(os, name) for name in _NAMES}
    path_methods = {"unlink": Path.unlink, "mkdir": Path.mkdir}
    for name, original in originals.items():
        setattr(os, name, _route(name, original, observer))
    Path.unlink, Path.mkdir = _unlink, _mkdir  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(os, name, original)
        for name, method in path_methods.items():
            setattr(Path, name, method)


def _route(name: str, original: Callable[..., Any], observer: Observer) -> Callable[..., Any]:
    def routed(*arguments: Any, **keywords: Any) -> Any:
        if name == "open" and not arguments[1] & os.O_CREAT:
            return original(*arguments, **keywords)
        call = Call(name, _paths(name, arguments, keywords.get("dir_fd")))
        observer.before(call)
        result = original(*arguments, **keywords)
        observer.after(call)
        return result

    return routed


def _paths(name: str, arguments: tuple[Any, ...], dir_fd: int | None) -> tuple[str, ...]:
    if name == "fsync":
        return (os.readlink(f"/proc/self/fd/{arguments[0]}"),)
    num_paths = 2 if name in ("link", "rename", "replace") else 1
    base = os.getcwd() if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
    return tuple(os.path.join(base, os.fspath(path)) for path in arguments[:num_paths])


def _unlink(path: Path, missing_ok: bool = False) -> None:
    """Replaces `Path.unlink`, which on Python 3.10 holds the original `os.unlink`."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        if not missing_ok:
            raise


def _mkdir(path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not exist_ok:
            raise
