"""The running service that the hostile requests are sent to."""

from __future__ import annotations

from tests.query_api.conftest import _filled_root, client, small_index, start_service

__all__ = ["_filled_root", "client", "small_index", "start_service"]
