"""What a segment asks of the system: files of any size, and no descriptor of its own."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clip_index.indexes.index_directory import IndexDirectory
from clip_index.storage.pack import PackWriter
from clip_index.vectors.flat_vectors import write_flat
from clip_index.writing.shard_writer import ShardWriter
from fakes.shards import add, content, create_index, path_of, removal, take_over


@pytest.fixture
def index(tmp_path: Path) -> IndexDirectory:
    return create_index(tmp_path)


@pytest.fixture
def writer(index: IndexDirectory) -> ShardWriter:
    return take_over(index)


@contextlib.contextmanager
def small_files(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, as on a full disk; the kernel's signal is ignored.

    No longer than for a call: what reports on the tests may go to a file as well.
    """
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("num_rows", [20, 20_000])
def test_a_vector_file_that_the_disk_does_not_take_is_an_os_error(tmp_path: Path, num_rows: int) -> None:
    """The small one is lost where its file is closed, which FAISS's own writer would only print."""
    embeddings = np.zeros((num_rows, 16), np.float16)
    with small_files(500), pytest.raises(OSError, match="File too large"):
        with PackWriter(tmp_path / "pack") as pack, pack.part("image.faiss") as file:
            write_flat(file, embeddings)


def open_files() -> set[str]:
    """What the descriptors of this process lead to; pipes have numbers for names."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the folder's own, and what is closed meanwhile
            found.add(os.readlink(descriptor))
    return found


def test_an_opened_segment_holds_no_file_descriptor(writer: ShardWriter) -> None:
    for i in range(10):
        image = content(f"{i}", writer.next_offset, owner_id="ann", thumbnail=b"webp")
        text = content(f"t{i}", writer.next_offset + 1, modality="text", text="t")
        add(writer, [image, text, lambda o, i=i: removal(f"gone-{i}", o, version=1)])
        writer.commit()
    assert [name for name in open_files() if name.startswith(str(path_of(writer)))] == []
