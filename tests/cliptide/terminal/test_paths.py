"""What a disk refuses is told without the number of the error."""

from __future__ import annotations

import errno
import os

import pytest

from cliptide.terminal.paths import in_words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOENT, os.strerror(errno.ENOENT), "/srv/x"), "/srv/x: No such file or directory"),
        (OSError(errno.EACCES, os.strerror(errno.EACCES), b"/srv/x"), "/srv/x: Permission denied"),
        (OSError("the store does not answer"), "the store does not answer"),
    ],
    ids=["a path", "a path as bytes", "words alone"],
)
def test_an_error_of_a_disk_names_the_path_and_what_it_refused(error: OSError, words: str) -> None:
    assert in_words(error) == words
