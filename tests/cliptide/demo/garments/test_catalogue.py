import io
from collections import Counter

import pytest
from PIL import Image

from cliptide.demo.garments.catalogue import (
    MIN_PICTURES_PER_QUERY,
    CatalogueContent,
    build_catalogue,
    sample_queries,
)
from cliptide.demo.garments.combinations import is_held_out


@pytest.fixture(scope="module")
def catalogue() -> tuple[CatalogueContent, ...]:
    return build_catalogue(2_000, 200, seed=1)


def test_a_catalogue_has_as_many_pictures_and_texts_as_asked_for(catalogue: tuple[CatalogueContent, ...]):
    assert Counter(c.modality for c in catalogue) == {"image": 2_000, "text": 200}


def test_every_content_has_its_own_id(catalogue: tuple[CatalogueContent, ...]):
    assert len({c.content_id for c in catalogue}) == len(catalogue)


def test_the_same_seed_builds_the_same_catalogue(catalogue: tuple[CatalogueContent, ...]):
    assert build_catalogue(2_000, 200, seed=1) == catalogue
    assert build_catalogue(2_000, 200, seed=2) != catalogue


def test_six_texts_and_two_pictures_are_asked(catalogue: tuple[CatalogueContent, ...]):
    assert [q.modality for q in sample_queries(catalogue)] == ["text"] * 6 + ["image"] * 2


def test_every_query_has_at_least_8_pictures_to_find(catalogue: tuple[CatalogueContent, ...]):
    num_pictures = Counter(c.combination for c in catalogue if c.modality == "image")

    assert all(num_pictures[q.combination] >= 8 for q in sample_queries(catalogue))


def test_some_queries_ask_for_what_training_never_saw(catalogue: tuple[CatalogueContent, ...]):
    assert Counter(is_held_out(q.combination) for q in sample_queries(catalogue)) == {True: 4, False: 4}


def test_a_picture_that_is_asked_with_is_not_in_the_catalogue(catalogue: tuple[CatalogueContent, ...]):
    pictures = {c.image_bytes(size=64) for c in catalogue[:200]}
    seeds = {c.seed for c in catalogue}
    asked = [q for q in sample_queries(catalogue) if q.modality == "image"]

    assert not {q.seed for q in asked} & seeds
    assert not {q.image_bytes(size=64) for q in asked} & pictures


@pytest.mark.parametrize(
    ("num_images", "num_queries"),
    [
        pytest.param(0, 0, id="no picture"),
        pytest.param(11, 0, id="too few for one"),
        pytest.param(24, 2, id="two"),
    ],
)
def test_a_small_catalogue_is_asked_only_what_it_can_answer(num_images: int, num_queries: int):
    catalogue = build_catalogue(num_images, 3, seed=1)

    assert len(catalogue) == num_images + 3
    assert len(sample_queries(catalogue)) == num_queries


def test_a_query_needs_8_pictures():
    catalogue = build_catalogue(12, 0, seed=1)

    assert len(sample_queries(catalogue[:MIN_PICTURES_PER_QUERY])) == 1
    assert not sample_queries(catalogue[: MIN_PICTURES_PER_QUERY - 1])


def test_a_picture_is_a_jpeg_file_that_is_the_same_at_every_call(catalogue: tuple[CatalogueContent, ...]):
    file = catalogue[0].image_bytes()

    assert Image.open(io.BytesIO(file)).size == (320, 320)
    assert catalogue[0].image_bytes() == file


def test_a_text_has_no_picture(catalogue: tuple[CatalogueContent, ...]):
    with pytest.raises(ValueError, match="text-00000 is a text"):
        catalogue[-200].image_bytes()


def test_a_text_query_has_no_picture(catalogue: tuple[CatalogueContent, ...]):
    with pytest.raises(ValueError, match="is a text and has no picture"):
        sample_queries(catalogue)[0].image_bytes()


def test_metadata_tells_garment_colour_pattern_price_and_stock(catalogue: tuple[CatalogueContent, ...]):
    content = catalogue[0]

    assert {name: type(value) for name, value in content.metadata.items()} == {
        "garment": str,
        "colour": str,
        "pattern": str,
        "price": float,
        "in_stock": bool,
    }
    assert content.metadata["garment"] == content.combination.garment


def test_many_sellers_own_the_contents(catalogue: tuple[CatalogueContent, ...]):
    assert len({c.owner_id for c in catalogue}) == 25


def test_every_picture_is_drawn_with_a_seed_of_its_own(catalogue: tuple[CatalogueContent, ...]):
    assert len({c.seed for c in catalogue}) == len(catalogue)
