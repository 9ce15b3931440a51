import hashlib
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from cliptide.publishing.upload_event import BadUpload, EventBuilder, InlineLimit
from cliptide.publishing.upload_row import UploadRow, row_from_values
from schemas.events import ContentReference, ImageContent, TextContent

NOW = datetime(2026, 3, 4, 5, 6, 7, 891_234, tzinfo=timezone.utc)


def row(folder: Path, **values: Any) -> UploadRow:
    made = row_from_values("line 2", values, folder)
    assert isinstance(made, UploadRow)
    return made


def builder(**limit: Any) -> EventBuilder:
    return EventBuilder("shop", InlineLimit(**{"num_bytes": 100, **limit}), now=lambda: NOW)


def test_a_picture_file_becomes_an_inline_image_named_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "boots").mkdir()
    (tmp_path / "boots/1.png").write_bytes(b"picture")
    event = builder().build(row(tmp_path, file="./boots/1.png"))
    assert event.content_id == "boots/1.png"
    assert event.content == ImageContent(b"picture")
    assert event.source == "shop"
    assert event.occurred_at == NOW.replace(microsecond=891_000)


def test_a_title_is_the_event_s_and_caption_and_tags_become_metadata(tmp_path: Path) -> None:
    fields = {"text": "x", "title": "Boot", "caption": "A red boot", "tags": "red, new ,"}
    event = builder().build(row(tmp_path, **fields, metadata={"size": 38}))
    assert event.title == "Boot"
    assert event.metadata == {"size": 38.0, "caption": "A red boot", "tags": ("red", "new")}


def test_a_short_caption_stands_in_for_a_title(tmp_path: Path) -> None:
    assert builder().build(row(tmp_path, text="x", caption="A red boot")).title == "A red boot"
    assert builder().build(row(tmp_path, text="x", caption="long " * 200)).title is None
    assert builder().build(row(tmp_path, text="x", caption="赤い靴" * 100)).title == "赤い靴" * 100


def test_a_link_needs_neither_digest_nor_size(tmp_path: Path) -> None:
    event = builder().build(row(tmp_path, link="https://cdn.example/a.jpg", modality="image"))
    assert event.content == ContentReference("https://cdn.example/a.jpg", None, None, "image")


def test_a_text_file_becomes_a_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffa red böot".encode())
    assert builder().build(row(tmp_path, file="a.txt")).content == TextContent("a red böot")


def test_the_same_row_gives_the_same_ids_in_every_run(tmp_path: Path) -> None:
    first = builder().build(row(tmp_path, text="a red boot"))
    second = EventBuilder("shop", InlineLimit(100)).build(row(tmp_path, text="a red boot"))
    assert (first.content_id, first.event_id) == (second.content_id, second.event_id)
    assert first.content_id.startswith("text-")


def test_a_prefix_keeps_the_same_names_of_two_folders_apart_and_leaves_given_ids_alone(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.txt").write_text("a red boot")
    limit = InlineLimit(1000)
    first, second = (EventBuilder("shop", limit, prefix) for prefix in ("spring/", "autumn/"))
    unnamed, named = row(tmp_path, file="a.txt"), row(tmp_path, file="a.txt", content_id="boot")
    assert [one.build(unnamed).content_id for one in (first, second)] == ["spring/a.txt", "autumn/a.txt"]
    assert [one.build(named).content_id for one in (first, second)] == ["boot", "boot"]


def test_another_version_is_another_event_of_the_same_content(tmp_path: Path) -> None:
    first = builder().build(row(tmp_path, text="a red boot", version=1))
    second = builder().build(row(tmp_path, text="a red boot", version=2))
    assert first.content_id == second.content_id
    assert first.event_id != second.event_id


def test_a_row_says_more_than_the_defaults(tmp_path: Path) -> None:
    event = builder().build(
        row(tmp_path, id="x", text="t", source="app", owner="ada", link="https://x", metadata={"a": 1.5})
    )
    assert (event.content_id, event.source, event.owner_id, event.link) == ("x", "app", "ada", "https://x")
    assert event.metadata == {"a": 1.5}


def test_a_file_above_the_limit_becomes_a_reference_to_itself(tmp_path: Path) -> None:
    data = b"p" * 101
    (tmp_path / "big one.png").write_bytes(data)
    event = builder(refer=True).build(row(tmp_path, file="big one.png"))
    uri = (tmp_path / "big one.png").resolve().as_uri()
    assert event.content == ContentReference(uri, hashlib.sha256(data).hexdigest(), 101, "image")


def test_a_reference_base_stands_for_the_folder(tmp_path: Path) -> None:
    (tmp_path / "big one.png").write_bytes(b"p" * 101)
    event = builder(refer=True, reference_base="https://cdn.example/shop/").build(
        row(tmp_path, file="big one.png")
    )
    assert isinstance(event.content, ContentReference)
    assert event.content.uri == "https://cdn.example/shop/big%20one.png"


def test_a_link_with_digest_and_size_becomes_a_reference(tmp_path: Path) -> None:
    event = builder().build(
        row(tmp_path, link="https://x/1.jpg", sha256="ab" * 32, size_bytes=7, modality="image")
    )
    assert event.content == ContentReference("https://x/1.jpg", "ab" * 32, 7, "image")
    assert event.content_id == "https://x/1.jpg"


BAD_FILES = {
    "absent": ("gone.png", "cannot be read"),
    "empty": ("empty.png", "is empty"),
    "too_large": ("big.png", "the inline limit is 100"),
    "not_utf8": ("latin.txt", "not UTF-8"),
    "unknown_suffix": ("data.bin", "give modality"),
    "no_file_name": ("zero\0byte.png", "cannot be read"),
}


@pytest.mark.parametrize(("name", "reason"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_file_that_gives_no_event_says_why(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "big.png").write_bytes(b"p" * 101)
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    (tmp_path / "data.bin").write_bytes(b"p")
    with pytest.raises(BadUpload, match=reason):
        builder().build(row(tmp_path, file=name))


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00"])
def test_a_time_that_no_calendar_has_in_utc_gives_no_event(tmp_path: Path, time: str) -> None:
    with pytest.raises(BadUpload, match="occurred_at"):
        builder().build(row(tmp_path, text="words", occurred_at=time))


def test_a_stated_modality_tells_a_file_without_a_known_suffix(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"p")
    assert builder().build(row(tmp_path, file="data.bin", modality="image")).content == ImageContent(b"p")
