import math

import numpy as np
import pytest

from cliptide.pairs.gallery import Gallery
from cliptide.pairs.pair import Pair, is_held_out
from cliptide.pairs.quality import MEASURES, Quality, difference, members_by_value, score_one
from cliptide.pairs.ranking import Embedded, measure, rank


@pytest.mark.parametrize(
    ("ranked", "right", "scores"),
    [
        pytest.param([7, 1, 2], {7}, [1, 1, 1, 1, 1], id="first"),
        pytest.param([1, 7, 2], {7}, [0, 1, 1, 0.5, 1 / math.log2(3)], id="second"),
        pytest.param([0, 1, 2, 3, 4, 7], {7}, [0, 0, 1, 1 / 6, 1 / math.log2(7)], id="sixth"),
        pytest.param([*range(11), 77], {77}, [0, 0, 0, 1 / 12, 0], id="beyond ten"),
        pytest.param([-1, -1], {7}, [0, 0, 0, 0, 0], id="other contents alone"),
        pytest.param([7, 0, 8], {7, 8}, [1, 1, 1, 1, 1.5 / (1 + 1 / math.log2(3))], id="two right answers"),
        pytest.param([], {7}, [0, 0, 0, 0, 0], id="nothing found"),
    ],
)
def test_a_query_is_scored_by_where_its_right_answers_stand(
    ranked: list[int], right: set[int], scores: list[float]
):
    assert score_one(np.array(ranked, dtype=np.int64), right) == pytest.approx(scores)


def test_the_interval_of_a_mean_holds_it_and_shrinks_with_more_queries():
    few, many = (Quality(np.repeat([[0.0] * 5, [1.0] * 5], n, axis=0)) for n in (10, 1000))
    (few_low, few_high), (low, high) = (quality.intervals(500)["mrr"] for quality in (few, many))

    assert few_low < low < 0.5 < high < few_high
    assert many.intervals(500) == many.intervals(500)


def test_a_model_does_not_differ_from_itself_and_a_constant_gap_is_certain():
    scores = np.random.default_rng(1).uniform(0, 0.5, (50, len(MEASURES)))
    ours, same, better = Quality(scores), Quality(scores.copy()), Quality(scores + 0.25)

    assert difference(ours, same, 100)[1]["recall@1"] == (0, 0)
    figures, intervals = difference(better, ours, 100)
    assert figures["mrr"] == 0.25
    assert intervals["mrr"] == (0.25, 0.25)


def pair(name: str, caption: str, **metadata: str) -> Pair:
    return Pair(name, name, bytes, caption, {key: (value,) for key, value in metadata.items()})


def test_pairs_of_one_caption_or_of_one_group_are_right_for_each_other():
    pairs = [pair("a", "red", shop="x"), pair("b", "red", shop="y"), pair("c", "blue", shop="x")]
    by_caption, by_shop = Gallery(), Gallery("shop")
    for one in pairs:
        by_caption.add(one, one.label)
        by_shop.add(one, one.label)

    assert by_caption.text_to_image().of(0) == {0, 1}
    assert by_caption.image_to_text().of(2) == {1}
    assert by_shop.image_to_text().of(2) == {0, 1}
    assert by_shop.num_pairs == 3


def test_slices_count_the_queries_of_each_value_the_largest_first():
    gallery = Gallery()
    for name, shop in (("a", "x"), ("b", "y"), ("c", "y")):
        gallery.add(pair(name, f"caption {name}", shop=shop), name)

    members = members_by_value(gallery.image_to_text(), "shop")

    assert list(members.items()) == [("y", [False, True, True]), ("x", [True, False, False])]


def test_the_best_window_of_a_long_caption_counts():
    east, north = [1.0, 0.0], [0.0, 1.0]
    rows = np.array([east, north, east], dtype=np.float32)
    long_and_short = Embedded.of_parts([rows[:2], rows[2:]])
    pictures = Embedded.one_row_each(np.array([north, east], dtype=np.float32))

    assert rank(pictures, long_and_short, [0, 1]).tolist() == [[0, 1], [0, 1]]
    assert rank(long_and_short, pictures, [1]).tolist() == [[1, 0]]


def test_a_model_that_embeds_each_pair_alike_is_perfect():
    gallery = Gallery()
    for name in "abc":
        gallery.add(pair(name, f"caption {name}"), name)
    rows = Embedded.one_row_each(np.eye(3, dtype=np.float32))

    quality = measure(gallery, rows, rows)

    assert quality.as_json() == {
        "text_to_image": dict.fromkeys(MEASURES, 1.0),
        "image_to_text": dict.fromkeys(MEASURES, 1.0),
        "num_pairs": 3,
    }


def test_a_hash_holds_out_the_share_of_pictures_that_is_asked_for_and_always_the_same():
    digests = [f"{number:064x}" for number in range(5000)]
    held_out = {digest for digest in digests if is_held_out(digest, 0.1)}

    assert 400 < len(held_out) < 600
    assert held_out <= {digest for digest in digests if is_held_out(digest, 0.2)}
