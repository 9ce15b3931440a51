"""Maps `.npy` files into memory without keeping a file descriptor open for each.

`numpy.load(mmap_mode="r")` keeps a descriptor open for the life of the array. Four tables a
segment, a few dozen segments a shard and eight shards would alone reach the usual limit of
1,024 open files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.lib import format as npy
from numpy.typing import NDArray

from clip_index.errors import DamagedFile


def map_array(path: Path) -> NDArray[Any]:
    """Map a C-ordered array, read-only. The mapping lives as long as the array."""
    with pa.memory_map(str(path), "rb") as source:
        try:
            version = npy.read_magic(source)
            read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
            shape, _, dtype = read_header(source)
            data = np.frombuffer(source.read_buffer(), dtype)
            return data.reshape(shape)
        except (ValueError, KeyError) as error:
            raise DamagedFile(path, f"not an array ({error})") from error
