"""Tries the directory of the indexes: whether it can be written, its free space, and the index in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from clip_index.errors import ClipIndexError, IndexMissing, IndexRefused
from clip_index.generations.index_directory import IndexDirectory, check_index_id
from clip_index.storage.durable_files import has_hard_links
from cliptide.doctor.findings import Finding, failed, ok, warning
from consumer.settings import Settings

MIN_FREE_BYTES = 2 * 2**30
MIN_FREE_SHARE = 0.05
_ROOT = "CLIPTIDE_INDEX__ROOT"


def check_disk(settings: Settings) -> Iterator[Finding]:
    """Try the disk of the index's root, as a consumer will use it."""
    root = settings.index.root.absolute()
    directory = _nearest_directory(root)
    try:
        is_usable = has_hard_links(directory)
    except OSError as error:
        remedy = f"set {_ROOT} to a directory that this user can write to, and make room on its disk"
        yield failed("disk", f"{directory} cannot be written: {error.strerror}", remedy)
        return
    if not is_usable:
        message = f"the file system of {directory} has no hard links, which commits need"
        yield failed("disk", message, f"set {_ROOT} to a directory on another file system (ext4, xfs, NFS)")
        return
    yield _free_space(root, directory)


def check_index(settings: Settings) -> Iterator[Finding]:
    """Compare the index that is there with the settings."""
    root, index_id = settings.index.root.absolute(), settings.index.id
    try:
        check_index_id(index_id)
    except IndexRefused as error:
        yield failed("index", str(error), "correct CLIPTIDE_INDEX__ID")
        return
    try:
        found = IndexDirectory.open(root, index_id).description
    except IndexMissing:
        yield ok("index", f"there is no index {index_id} in {root} yet; a consumer creates it")
    except ClipIndexError as error:
        yield failed("index", str(error), "`cliptide snapshot list` and `repair` show and repair damage")
    except OSError as error:
        remedy = f"let this user read {_ROOT}, or set another directory"
        yield failed("index", f"{root} cannot be read: {error.strerror}", remedy)
    else:
        if found.topic == settings.topic:
            yield ok("index", f"{index_id}, {found.num_partitions} shards of {found.topic}")
            return
        message = f"the index {index_id} was built from {found.topic}, and CLIPTIDE_TOPIC is {settings.topic}"
        yield failed("index", message, "correct CLIPTIDE_TOPIC, or set another CLIPTIDE_INDEX__ID")


def _nearest_directory(path: Path) -> Path:
    """Return the path, or the nearest directory above it that exists."""
    return next(one for one in (path, *path.parents) if one.exists())


def _free_space(root: Path, directory: Path) -> Finding:
    try:
        usage = shutil.disk_usage(directory)
    except OSError as error:
        return warning("disk", f"the free space of {directory} is not known: {error.strerror}", "check it")
    free = f"{usage.free / 2**30:.1f} GiB of {usage.total / 2**30:.1f} GiB are free at {root}"
    if usage.free < max(MIN_FREE_BYTES, MIN_FREE_SHARE * usage.total):
        return warning("disk", free, f"make room, or set {_ROOT} to a directory on a larger disk")
    return ok("disk", free)
