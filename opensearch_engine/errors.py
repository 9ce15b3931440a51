"""What OpenSearch answers when it does not do what it was asked, sorted by what the caller does next.

EngineUnavailable   wait and ask again: nobody answers, or not now (an `IndexUnavailable`)
EngineRefused       stop: the cluster, its settings or its index do not fit (an `IndexRefused`)
EngineConflict      read what is stored now: somebody else has written meanwhile
EngineMissing       there is no such document or index
"""

from __future__ import annotations

from clip_index.errors import ClipIndexError, IndexRefused, IndexUnavailable


class EngineUnavailable(IndexUnavailable):
    """OpenSearch does not answer, or answers that it cannot do this now."""


class EngineRefused(IndexRefused):
    """OpenSearch cannot be used as it is set up."""


class EngineConflict(ClipIndexError):
    """The stored document is not the one that the write expected."""


class EngineMissing(ClipIndexError):
    """There is no such document or index."""
