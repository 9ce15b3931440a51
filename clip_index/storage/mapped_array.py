"""NumPy arrays that are read where they lie in a mapped file.

`numpy.load(mmap_mode="r")` is not used: it knows no parts of a pack, and keeps a descriptor open for
the life of each array.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.lib import format as npy
from numpy.typing import NDArray

from clip_index.errors import DamagedFile
from clip_index.storage.mapped_part import MappedPart

PARSING_HEADERS = threading.Lock()
"""NumPy parses a header by `ast`. Python 3.11 counts the depth of that for all threads together, so that two
at a time may end in "SystemError: AST constructor recursion depth mismatch"."""


def map_array(part: MappedPart) -> NDArray[Any]:
    """Return the C-ordered array of a `.npy`, read-only. The mapping lives as long as the array."""
    with pa.BufferReader(part.data) as source:
        try:
            version = npy.read_magic(source)
            read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
            with PARSING_HEADERS:
                shape, _, dtype = read_header(source)
            data = np.frombuffer(source.read_buffer(), dtype)
            return data.reshape(shape)
        except (ValueError, KeyError) as error:
            raise DamagedFile(part.path, f"not an array ({error})") from error
