"""Why fine-tuning ends without a model.

FinetuneError
├── FinetuneRefused      nothing was trained: the arguments, the pairs or the model must be changed
└── FinetuneFailed       training began and gave nothing that is worth keeping
"""

from __future__ import annotations


class FinetuneError(Exception):
    """The root of the tree."""


class FinetuneRefused(FinetuneError):
    """Nothing was trained. The message says what to change."""


class FinetuneFailed(FinetuneError):
    """Training gave no model. The message says why."""
