"""On the demo's model and catalogue, a least percentile of 0.9 tells nonsense from sense.

The phrases were written before any score was seen, and nothing was tuned on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from clip_index.content import ContentFacts, Embeddings, EncodedContent, Modality, unit_mean
from clip_index.encoder.open_clip import load_encoder
from clip_index.encoder.protocol import Encoder
from clip_index.encoder.settings import EncoderSettings
from clip_index.searching.searcher import Searcher
from cliptide.demo.garments.catalogue import CatalogueContent, build_catalogue
from cliptide.demo.small_clip.model import write_model_directory
from query_api.percentiles.background_queries import Scales, build_scales, read_phrases
from tests.query_api.small_index import SmallIndex

MIN_PERCENTILE = 0.9
NONSENSE = """\
lkjh poiu
ffghw zk
qpwo eiruty
xxxxxx
hjkl fdsa
zxcv bnm qwe
r4 k8 j1
wkdj nvpq rltm
tyghvb
pq zr
mervin clatterfudge
the snibble of grompt
whizzlebop frandango
tronkle vesp
quibblefarn
umbrious stretchel
flobber glunx iddle
harkwizzle moordle
senate blanket arithmetic
carrot monarchy ladder twelve
avalanche secretary tomorrow physics
garlic telescope apologise
tunnel geometry glacier thirsty
eraser hurricane although bulldozer
ocean receipt planet
climb freedom monitor cabbage
quickly turbine monastery
axle theory whisker antenna
annual shareholder meeting
how to repair a bicycle tyre
basketball scores this weekend
the president of brazil
update a graphics driver
train times to munich
violin lessons for beginners
a diagram of the heart
cat sleeping on the sofa
mortgage interest calculator
desert road at night
a bowl of tomato soup
with a of and the
in in in in
on by or as
it was of an
the for with new
at an a the
me is this at look
why how which whose
987654
??? --- !!!
""".splitlines()
SENSE = """\
a dotted green dress
a striped grey jumper
plain red umbrella
striped black trousers
a white coat
blue sneaker
brown handbag
an orange boot with dots
a pink scarf
a yellow hat
something purple
something checked and teal
a black sock
green shorts
a pair of striped trousers
checked dress
crimson dress
scarlet tee with checks
tangerine pullover
a stripy bow tie
snow white backpack
an emerald shawl with stripes
violet fedora
i am looking for a red handbag
show me a dotted cap
a picture of a blue glove
look at this plaid coat
checkered sock
polka dot scarf in purple
unpatterned teal jumper
royal blue rain boot
rose pink running shoe
turquoise mitten
a trainer in yellow
a pair of jet black pants
skirt
jumper
handbag
mittens
a coat
a cosy brown sweater for autumn
beach shorts with orange stripes
little black purse for my mother
a scarf
festive red bow tie for the party
a gray frock
spotted rucksack
green and plain
teal brolly for rainy days
red stripes
""".splitlines()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    model = write_model_directory(tmp_path_factory.mktemp("model"))
    return load_encoder(EncoderSettings(model=str(model), pretrained=None, precision="fp32"))


UNLIKE_THE_OTHERS = ("Dotted school backpack", "Checked canvas sneaker", "Plain winter coat")
"""Texts that are nearest to nearly all background phrases: this model does not know most of their words."""


@pytest.fixture(scope="module")
def searcher(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    """The demo's catalogue, with fewer pictures."""
    index = SmallIndex(tmp_path_factory.mktemp("demo") / "index", encoder=encoder, num_partitions=1).create()
    index.commit(0, *encode_contents(encoder, build_catalogue(240, 200, seed=1)))
    reader = index.open_reader()
    reader.reload()
    assert reader.searcher is not None
    return reader.searcher


@pytest.fixture(scope="module")
def scales(encoder: Encoder, searcher: Searcher) -> Scales:
    return build_scales(searcher, encode_texts(encoder, read_phrases()))["text"]


def encode_contents(encoder: Encoder, contents: Sequence[CatalogueContent]) -> list[EncodedContent]:
    prepared = [
        encoder.prepare_image(content.image_bytes())
        if content.modality == "image"
        else encoder.prepare_text(content.text)
        for content in contents
    ]
    return [
        EncodedContent(
            content.content_id, 0, content.modality, rows, ContentFacts(source="demo", occurred_at_ms=0)
        )
        for content, rows in zip(contents, encoder.encode(prepared), strict=True)
    ]


def encode_texts(encoder: Encoder, texts: Sequence[str]) -> list[Embeddings]:
    return [unit_mean(rows) for rows in encoder.encode([encoder.prepare_text(text) for text in texts])]


@pytest.mark.parametrize("modality", ["image", "text"])
def test_nonsense_finds_nothing_and_sense_finds_something(
    encoder: Encoder, searcher: Searcher, scales: Scales, modality: Modality
) -> None:
    def num_found(texts: Sequence[str]) -> int:
        found = 0
        for query in encode_texts(encoder, texts):
            least = scales[modality].least_score(query, MIN_PERCENTILE)
            [hits] = searcher.search(query[None], k=1, modality=modality, min_score=least)
            found += len(hits)
        return found

    assert num_found(NONSENSE) <= 0.1 * len(NONSENSE)
    assert num_found(SENSE) >= 0.95 * len(SENSE)


def test_a_text_that_is_the_best_hit_of_nearly_all_nonsense_leaves_sense_its_percentiles(
    encoder: Encoder, tmp_path: Path
) -> None:
    index = SmallIndex(tmp_path / "index", encoder=encoder, num_partitions=1).create()
    rows = encoder.encode([encoder.prepare_text(text) for text in UNLIKE_THE_OTHERS])
    facts = ContentFacts(source="shop", occurred_at_ms=0)
    odd = [
        EncodedContent(text, 0, "text", row, facts) for text, row in zip(UNLIKE_THE_OTHERS, rows, strict=True)
    ]
    index.commit(0, *encode_contents(encoder, build_catalogue(20, 200, seed=1)), *odd)
    reader = index.open_reader()
    reader.reload()
    assert reader.searcher is not None
    phrases = encode_texts(encoder, read_phrases())
    best = [hits[0].content_id for hits in reader.searcher.search(np.stack(phrases), k=1, modality="text")]
    assert best.count(UNLIKE_THE_OTHERS[0]) > 0.8 * len(best)

    scale = build_scales(reader.searcher, phrases)["text"]["text"]
    queries = encode_texts(encoder, SENSE)
    found = reader.searcher.search(np.stack(queries), k=1, modality="text")
    good = [
        scale.percentiles(q, [hits[0].score])[0] >= MIN_PERCENTILE
        for q, hits in zip(queries, found, strict=True)
    ]
    assert sum(good) >= 0.95 * len(good)
