"""Nothing is encoded twice: equal bytes take their embeddings from those that were encoded before."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from clip_index.content import DIGEST_BYTES, Derived
from clip_index.encoder.images import make_thumbnail
from clip_index.encoder.protocol import PreparedText
from clip_index.storage.index_roots import IndexRoot
from consumer.preparation.steps import PreparationOptions
from consumer.references.policy import ReferencePolicy
from consumer.saved_encodings import ContentDigests, NothingStored, PreparedContent, SavedEncodings
from consumer.telemetry.metrics import Metrics
from consumer.writing.commit_policy import CommitPolicy
from fakes.hash_encoder import HashEncoder, draw_picture
from schemas.events import Content, ContentReference, DeleteEvent, ImageContent, TextContent
from tests.consumer.encoders import CountingEncoder, HeldEncoder
from tests.consumer.running import QUICK, World, eventually, upload

LONG_TEXT = TextContent(" ".join(f"word{number}" for number in range(5_000)))


@pytest.fixture
def world(root: IndexRoot) -> World:
    """What is told here holds for a directory and for a bucket."""
    return World(root)


@pytest.fixture
def encoder(world: World) -> CountingEncoder:
    world.encoder = encoder = CountingEncoder()
    return encoder


def num_saved(world: World) -> float:
    return world.metrics.registry.get_sample_value("cliptide_consumer_encodings_saved_total") or 0.0


def embeddings(world: World, content_id: str) -> np.ndarray:
    searcher = world.searcher()
    location = searcher.find(content_id)
    assert location is not None
    return np.sort(searcher.embeddings(location), axis=0)


def publish_all(world: World, uploads: dict[str, Content]) -> int:
    return [world.publish(upload(content_id, content)) for content_id, content in uploads.items()][-1]


def test_the_same_catalogue_uploaded_again_is_not_encoded_again(
    world: World, encoder: CountingEncoder
) -> None:
    catalogue = {f"p{seed}": ImageContent(draw_picture(seed)) for seed in range(10)}
    catalogue |= {f"t{number}": TextContent(f"text {number}") for number in range(10)}
    with world.running():
        world.wait_committed(publish_all(world, catalogue))
    before = {content_id: embeddings(world, content_id) for content_id in catalogue}
    with world.running():  # another process: it knows only what is committed
        world.wait_committed(publish_all(world, catalogue))
        assert num_saved(world) == 20
    assert encoder.num_encoded == 20
    for content_id, embedding in before.items():
        np.testing.assert_array_equal(embeddings(world, content_id), embedding)


def test_one_picture_of_ten_shops_is_encoded_once_whatever_its_partition(tmp_path: Path) -> None:
    encoder = CountingEncoder()
    world = World(tmp_path, num_partitions=3, encoder=encoder)
    picture = ImageContent(draw_picture(1))
    with world.running():
        world.wait_committed(world.publish(upload("shop-0", picture), 0), 0)
    with world.running():
        eventually(lambda: all(world.owns(partition) for partition in range(3)))
        for number in range(1, 10):
            world.wait_committed(world.publish(upload(f"shop-{number}", picture), number % 3), number % 3)
    assert encoder.num_encoded == 1


def test_equal_contents_of_one_batch_are_decoded_and_encoded_once(world: World) -> None:
    class Decoding(HeldEncoder):
        num_prepared = 0

        def prepare_text(self, text: str) -> PreparedText:
            self.num_prepared += 1
            return super().prepare_text(text)

    counting = CountingEncoder()
    world.encoder = held = Decoding(counting)
    world.set_options(preparation=PreparationOptions(num_threads=1))
    with world.running():
        world.publish(upload("first", TextContent("holds the encoder")))
        assert held.is_encoding.wait(60)
        end = publish_all(world, {f"c{number}": TextContent("the same") for number in range(20)})
        eventually(lambda: held.num_prepared == 2)
        held.may_encode.set()
        world.wait_committed(end)
        assert num_saved(world) == 19
    assert counting.num_encoded == 2
    assert held.num_prepared == 2


def test_what_is_not_committed_yet_is_known_too(world: World, encoder: CountingEncoder) -> None:
    world.set_options(commits=CommitPolicy(interval_seconds=3600.0, backoff=QUICK))
    with world.running():
        world.publish(upload("a", TextContent("the same")))
        eventually(lambda: encoder.num_encoded == 1 and world.stage_count("add") == 1)
        world.publish(upload("b", TextContent("the same")))
        eventually(lambda: world.stage_count("add") == 2)
    assert encoder.num_encoded == 1
    np.testing.assert_array_equal(embeddings(world, "a"), embeddings(world, "b"))


def test_a_text_and_a_picture_of_the_same_bytes_are_two_contents() -> None:
    digests = ContentDigests(HashEncoder().fingerprint, "")
    sha256 = hashlib.sha256(b"bytes").digest()
    assert digests.of("text", sha256) != digests.of("image", sha256)
    assert len(digests.of("text", sha256)) == DIGEST_BYTES


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(ContentDigests(HashEncoder(max_crops=5).fingerprint, "r"), id="crops"),
        pytest.param(ContentDigests(HashEncoder(seed=1).fingerprint, "r"), id="weights"),
        pytest.param(ContentDigests(HashEncoder(dimension=32).fingerprint, "r"), id="dimension"),
        pytest.param(
            ContentDigests(replace(HashEncoder().fingerprint, windowing="70/50/64"), "r"), id="windows"
        ),
        pytest.param(
            ContentDigests(replace(HashEncoder().fingerprint, preprocessing="9x9"), "r"), id="preprocessing"
        ),
        pytest.param(ContentDigests(HashEncoder().fingerprint, "thumbnails of 64 pixels"), id="recipe"),
    ],
)
def test_whatever_changes_what_is_computed_changes_the_digest(other: ContentDigests) -> None:
    sha256 = hashlib.sha256(b"bytes").digest()
    assert other.of("image", sha256) != ContentDigests(HashEncoder().fingerprint, "r").of("image", sha256)


def test_a_changed_thumbnail_size_makes_pictures_anew(world: World, encoder: CountingEncoder) -> None:
    picture = ImageContent(draw_picture(1, size=(64, 48)))

    def with_thumbnails(side: int) -> PreparationOptions:
        make = partial(make_thumbnail, side=side, limits=HashEncoder().limits)
        return PreparationOptions(make_thumbnail=make, recipe=f"thumbnails of {side} pixels")

    def thumbnail() -> bytes | None:
        searcher = world.searcher()
        location = searcher.find("p")
        assert location is not None
        return searcher.thumbnail(location)

    with world.running():
        world.wait_committed(world.publish(upload("p", picture)))
    assert thumbnail() is None
    seen = []
    for side, num_encoded in ((16, 2), (16, 2), (8, 3)):
        world.set_options(preparation=with_thumbnails(side))
        with world.running():
            world.wait_committed(world.publish(upload("p", picture)))
        assert encoder.num_encoded == num_encoded
        seen.append(thumbnail())
    assert None not in seen
    assert seen[0] == seen[1] != seen[2]


def test_a_text_that_was_cut_is_still_said_to_be_cut(world: World, encoder: CountingEncoder) -> None:
    with world.running():
        world.wait_committed(world.publish(upload("a", LONG_TEXT)))
    with world.running():
        world.wait_committed(world.publish(upload("b", LONG_TEXT)))
        truncated = world.metrics.registry.get_sample_value("cliptide_consumer_truncated_texts_total")
        assert truncated == 1
    searcher = world.searcher()
    location = searcher.find("b")
    assert location is not None
    facts = searcher.read(location).facts
    assert (facts.is_truncated, facts.text) == (True, LONG_TEXT.text)
    assert encoder.num_encoded == 1
    np.testing.assert_array_equal(embeddings(world, "a"), embeddings(world, "b"))


def test_the_bytes_of_a_reference_are_the_same_content_as_those_of_an_event(
    world: World, encoder: CountingEncoder, tmp_path: Path
) -> None:
    data = draw_picture(1)
    file = tmp_path / "picture.png"
    file.write_bytes(data)
    world.set_options(references=ReferencePolicy(file_roots=(tmp_path,)))
    sha256 = hashlib.sha256(data).hexdigest()
    with world.running():
        world.wait_committed(world.publish(upload("inline", ImageContent(data))))
        for content_id, digest in (("given", sha256), ("unknown", None)):
            reference = ContentReference(file.as_uri(), digest, None, "image")
            world.wait_committed(world.publish(upload(content_id, reference)))
    assert world.reasons() == []
    assert encoder.num_encoded == 1
    searcher = world.searcher()
    location = searcher.find("unknown")
    assert location is not None
    assert searcher.read(location).facts.sha256 == sha256


def test_a_deleted_content_helps_while_its_row_is_there_and_leaves_nothing_of_itself(
    world: World, encoder: CountingEncoder
) -> None:
    with world.running():
        world.publish(upload("first", TextContent("the same")))
        world.publish(upload("kept", TextContent("another")))
        world.publish(DeleteEvent("e", "first", "tests", datetime.now(timezone.utc)))
        world.wait_committed(world.publish(upload("second", TextContent("the same"))))
    searcher = world.searcher()
    assert searcher.find("first") is None
    location = searcher.find("second")
    assert location is not None
    assert searcher.read(location).facts.source == "tests"
    assert encoder.num_encoded == 2


def test_a_consumer_that_is_told_to_encodes_what_the_index_has(
    world: World, encoder: CountingEncoder
) -> None:
    with world.running():
        world.wait_committed(world.publish(upload("a", TextContent("the same"))))
    world.set_options(reuses_stored_encodings=False)
    with world.running():
        world.wait_committed(world.publish(upload("a", TextContent("the same"))))
    assert encoder.num_encoded == 2
    world.set_options(reuses_stored_encodings=True)
    with world.running():
        world.wait_committed(world.publish(upload("a", TextContent("the same"))))
    assert encoder.num_encoded == 2


class Damaged:
    """Implements `StoredContents` with embeddings that a damaged file shows."""

    def __init__(self, embeddings: np.ndarray) -> None:
        self._derived = Derived(embeddings)

    def find_derived(self, partition: int, digest: bytes) -> Derived:
        return self._derived


@pytest.mark.parametrize(
    "embeddings",
    [
        pytest.param(np.full((1, 4), np.nan, np.float32), id="not a number"),
        pytest.param(np.array([[1, 0, 0, 0], [64, 0, 0, 0]], np.float32), id="too long"),
        pytest.param(np.zeros((1, 4), np.float32), id="zeros"),
        pytest.param(np.zeros((0, 4), np.float32), id="none"),
    ],
)
def test_embeddings_of_a_damaged_file_are_not_taken(embeddings: np.ndarray) -> None:
    metrics = Metrics()
    digests = ContentDigests(HashEncoder().fingerprint, "")
    saved = SavedEncodings(digests, Damaged(embeddings), metrics.encodings_saved)
    assert saved.find(0, b"d" * 16) is None
    assert metrics.registry.get_sample_value("cliptide_consumer_encodings_saved_total") == 0


def test_a_batch_that_fails_leaves_nothing_behind() -> None:
    metrics, encoder = Metrics(), HashEncoder()
    digests = ContentDigests(encoder.fingerprint, "")
    saved = SavedEncodings(digests, NothingStored(), metrics.encodings_saved)
    content = saved.prepare(b"d" * 16, lambda: PreparedContent(encoder.prepare_text("words")))

    def fail(_: object) -> list[np.ndarray]:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        saved.encode([(b"d" * 16, content)], fail)
    assert saved.find(0, b"d" * 16) is None
    [embedding] = saved.encode([(b"d" * 16, content)], encoder.encode)
    found = saved.find(0, b"d" * 16)
    assert found is not None
    np.testing.assert_array_equal(found.embeddings, embedding)
