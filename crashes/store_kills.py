"""Writers of an index in a bucket, killed by SIGKILL at random times while a reader reads.

The bucket is that of the variable `CLIPTIDE_CRASHES_BUCKET`, such as `s3://bucket`. A fork cannot use the
threads that a client of a bucket has started, so this process never opens the bucket: its forks do.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from clip_index.storage.index_roots import ObjectRoot
from clip_index.writing.shard_writer import WriterSettings
from crashes.kills import Life, killed_in_time
from crashes.shard_life import SETTINGS
from crashes.small_log import build_log

BUCKET_VARIABLE = "CLIPTIDE_CRASHES_BUCKET"
_LIVES = 10
_LONGEST_SECONDS = 1.0
_MACHINES = 2


def store_kills(
    directory: Path, *, seed: int, number: int, settings: WriterSettings = SETTINGS
) -> Iterator[list[str]]:
    """Yield the violations of each kill: up to 10 kills of one index, whose log grows.

    The lives of an index are on two machines in turn, so that a writer finds copies of an earlier time.
    """
    dice = random.Random(seed)
    for start in range(0, number, _LIVES):
        url = f"{os.environ[BUCKET_VARIABLE]}/{uuid4().hex}"
        with TemporaryDirectory(dir=directory) as caches:
            for life in range(min(_LIVES, number - start)):
                log = build_log(seed + start, 24 * (life + 1))
                root = ObjectRoot(url, Path(caches) / f"machine-{life % _MACHINES}")
                yield killed_in_time(
                    root,
                    Path(caches) / "report",
                    Life(log, settings, has_child=life % _LIVES == _LIVES - 1),
                    seconds=dice.uniform(0.0, _LONGEST_SECONDS),
                )
