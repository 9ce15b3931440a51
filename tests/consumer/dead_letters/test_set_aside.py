"""Which reasons are about what a user uploads, and which may spoil all records."""

from __future__ import annotations

import pytest

from consumer.dead_letters.dead_letter import SetAside
from schemas.errors import BAD_EVENT_REASONS

ABOUT_UPLOADS = {"empty_content", "metadata_too_large", "content_id_too_long"}


@pytest.mark.parametrize("reason", sorted(BAD_EVENT_REASONS))
def test_an_event_that_cannot_be_understood_may_be_one_of_many(reason: str) -> None:
    assert SetAside(reason, "", "decode", "").is_about_upload is (reason in ABOUT_UPLOADS)


@pytest.mark.parametrize("reason", ["unsupported_image", "truncated_image", "image_too_large"])
def test_a_content_that_cannot_be_prepared_is_its_users(reason: str) -> None:
    assert SetAside(reason, "", "prepare", "").is_about_upload


@pytest.mark.parametrize(
    ("reason", "is_about_upload"),
    [
        ("reference_refused", False),
        ("reference_absent", False),
        ("reference_too_large", True),
        ("etag_mismatch", True),  # a newer version of the object has an event of its own
    ],
)
def test_a_reference_is_the_platforms_but_its_size_and_version_are_not(
    reason: str, is_about_upload: bool
) -> None:
    assert SetAside(reason, "", "reference", "").is_about_upload is is_about_upload
