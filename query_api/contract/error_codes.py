"""Error codes that several routes may answer, grouped by what a route does."""

from __future__ import annotations

REFUSED_TEXT = frozenset({"empty_text", "text_too_long"})
REFUSED_IMAGE = frozenset({"not_an_image", "unsupported_image", "image_too_large", "truncated_image"})
SEARCHING = frozenset({"no_index", "reload_stopped"})
RATING = frozenset({"not_ready", "percentiles_off"})
WRITING = frozenset(
    {
        "publishing_off",
        "superseded",
        "content_too_large",
        "set_aside",
        "log_unavailable",
        "not_searchable_in_time",
    }
)
