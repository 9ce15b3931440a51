"""The fixtures of this folder."""

from __future__ import annotations

from tests.fixtures.roots import root

__all__ = ["root"]
