"""Which kind of file system a directory lies on."""

from __future__ import annotations

import os
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_SHARED = (
    *("9p", "afs", "beegfs", "ceph", "cifs", "gfs2", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2"),
    *("orangefs", "panfs", "pvfs2", "smb3", "smbfs", "virtiofs", "wekafs"),
)


def is_shared(directory: Path, mounts: Path = _MOUNTS) -> bool:
    """Whether another machine may use the directory, too. False where that cannot be told.

    On such a file system an open or mapped file may vanish when another machine removes it.
    """
    try:
        number = os.stat(_existing(directory)).st_dev
        lines = mounts.read_text().splitlines()
    except OSError:
        return False
    device = f"{os.major(number)}:{os.minor(number)}"
    kinds = {_kind(line) for line in lines if line.split()[2:3] == [device]}
    return any(kind in _SHARED or kind.startswith("fuse") for kind in kinds)


def _existing(directory: Path) -> Path:
    """Return the directory, or the nearest one above it that exists."""
    return next((path for path in (directory, *directory.absolute().parents) if path.exists()), directory)


def _kind(line: str) -> str:
    """The type of a mount's file system: proc(5), /proc/[pid]/mountinfo, the field behind the hyphen."""
    _, _, rest = line.partition(" - ")
    return rest.split(" ")[0]
