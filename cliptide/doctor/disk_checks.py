"""Tries the directory of the indexes: whether it can be written, its free space, and the index in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from clip_index.errors import ClipIndexError, IndexMissing
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.storage.durable_files import has_hard_links
from clip_index.storage.index_roots import IndexRoot, ObjectRoot, local_directory, open_root
from cliptide.doctor.findings import Finding, failed, ok, warning
from consumer.settings import Settings

MIN_FREE_BYTES = 2 * 2**30
MIN_FREE_SHARE = 0.05
_ROOT = "CLIPTIDE_INDEX__ROOT"
_CACHE = "CLIPTIDE_INDEX__CACHE_DIR"


def check_disk(settings: Settings) -> Iterator[Finding]:
    """Try the disk of the index's root, or its bucket, as a consumer will use it."""
    location = settings.index.location
    if isinstance(location, ObjectRoot):
        yield _check_bucket(location)
        yield from _check_cache(location.cache_directory.absolute())
        return
    root = local_directory(location).absolute()
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
    yield _free_space(root, directory, _ROOT)


def check_index(settings: Settings) -> Iterator[Finding]:
    """Compare the index that is there with the settings."""
    root, index_id = _absolute(settings.index.location), settings.index.id
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


def _absolute(root: IndexRoot) -> IndexRoot:
    return root.absolute() if isinstance(root, Path) else root


def _check_bucket(location: ObjectRoot) -> Finding:
    """Put, compare, list and delete an object, as a commit does."""
    try:
        store = open_root(location)
        if store.can_create_exclusively():
            return ok("bucket", f"{location} takes writes, and keeps an object that exists")
    except OSError as error:
        remedy = f"set {_ROOT}, AWS_ENDPOINT_URL, AWS_REGION and the credentials so that they fit together"
        return failed("bucket", str(error), remedy)
    return failed("bucket", store.missing_primitive, f"set {_ROOT} to a store that knows If-None-Match")


def _check_cache(root: Path) -> Iterator[Finding]:
    directory = _nearest_directory(root)
    if not os.access(directory, os.W_OK):
        yield failed("disk", f"{directory} cannot be written", f"set {_CACHE} to a directory of this user")
        return
    yield _free_space(root, directory, _CACHE)


def _nearest_directory(path: Path) -> Path:
    """Return the path, or the nearest directory above it that exists."""
    return next(one for one in (path, *path.parents) if one.exists())


def _free_space(root: Path, directory: Path, variable: str) -> Finding:
    try:
        usage = shutil.disk_usage(directory)
    except OSError as error:
        return warning("disk", f"the free space of {directory} is not known: {error.strerror}", "check it")
    free = f"{usage.free / 2**30:.1f} GiB of {usage.total / 2**30:.1f} GiB are free at {root}"
    if usage.free < max(MIN_FREE_BYTES, MIN_FREE_SHARE * usage.total):
        return warning("disk", free, f"make room, or set {variable} to a directory on a larger disk")
    return ok("disk", free)
