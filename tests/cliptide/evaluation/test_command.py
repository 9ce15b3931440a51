import base64
import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cliptide.__main__ import main
from cliptide.demo.garments.catalogue import CatalogueContent, build_catalogue
from cliptide.evaluation.demo_gallery import build_demo_gallery, gallery_of_catalogue
from cliptide.pairs.quality import MEASURES
from tests.cliptide.pairs.pictures import COLOURS, png, write_pair_folder
from tests.cliptide.stub_query_service import StubQueryService
from tests.cliptide.untrained_model import write_untrained_model


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pair_folder(tmp_path_factory.mktemp("pairs"), num_each=2)


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def last_json(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.encoder
def test_a_model_is_measured_in_both_directions_by_slice_and_against_another(pairs: Path, tmp_path: Path):
    first, second = (write_untrained_model(tmp_path / str(seed), seed) for seed in (1, 2))
    worst = tmp_path / "worst.html"
    flags = ["--slice", "colour", "--worst", worst, "--num-worst", 3, "--samples", 50]

    found = last_json(evaluate(pairs, "--model", first, "--against", second, *flags))

    assert list(found)[:3] == ["text_to_image", "image_to_text", "num_pairs"]
    assert tuple(found["text_to_image"]) == tuple(found["image_to_text"]) == MEASURES
    assert found["num_pairs"] == 16
    assert set(found["slices"]["colour"]["image_to_text"]) == set(COLOURS)
    gap = found["text_to_image"]["mrr"] - found["against"]["text_to_image"]["mrr"]
    assert found["difference"]["text_to_image"]["mrr"] == pytest.approx(gap, abs=2e-4)
    low, high = found["difference"]["text_to_image"]["intervals"]["mrr"]
    assert low <= gap <= high
    page = worst.read_text()
    assert page.count("<section>") == 6
    assert "right answer: " in page
    assert "data:image/webp;base64," in page


@pytest.mark.encoder
def test_a_model_does_not_differ_from_itself(pairs: Path, tmp_path: Path):
    model = write_untrained_model(tmp_path)

    found = last_json(evaluate(pairs, "--model", model, "--against", model, "--samples", 20))

    for gaps in found["difference"].values():
        assert all(gaps[name] == 0 for name in MEASURES)
        assert all(bounds == [0, 0] for bounds in gaps["intervals"].values())


def service(*, texts: bool = True, known: bool = True, lacking: Collection[str] = ()) -> StubQueryService:
    """A service that finds a picture by its colour, and for a picture the text that names it.

    Its index holds everything but the `lacking` ids and captions.
    """
    by_picture = {base64.b64encode(png(colour, n)).decode(): colour for colour in COLOURS for n in (0, 1)}

    def search(request: dict[str, Any]) -> dict[str, Any]:
        if request["modality"] == "text" and "text" in request:  # whether the index holds this caption
            text = request["text"].upper() if request["text"] in lacking or not texts else request["text"]
            return {"results": {"text": {"hits": [{"content_id": "t", "score": 1.0, "text": text}]}}}
        assert request["k"] == 100
        if request["modality"] == "image":
            colour = request["text"].split()[1]
            ids = ["another", f"{colour}-1.png", f"{colour}-0.png"]
            return {"results": {"image": {"hits": [{"content_id": i, "score": 0.5} for i in ids]}}}
        text = f"a {by_picture[request['image']]}  cloth" if texts else "something else"
        hits = [{"content_id": "t", "score": 0.5, "text": text}] * 2
        return {"results": {"text": {"hits": hits}}}

    def browse(request: dict[str, Any]) -> dict[str, Any]:
        ids = [one for one in request["filter"]["must"][0]["any_of"] if known and one not in lacking]
        return {"results": {"image": {"hits": [{"content_id": one} for one in ids]}}}

    return StubQueryService({"POST /v1/search": (200, search), "POST /v1/browse": (200, browse)})


def test_a_service_is_measured_over_http_where_other_contents_take_ranks(pairs: Path):
    with service().serving() as running:
        flags = ["--service", "--query-url", running.url, "--min-percentile", 0.5, "--filter", '{"must": []}']
        found = last_json(evaluate(pairs, *flags))

    assert found["text_to_image"]["recall@1"] == 0
    assert found["text_to_image"]["recall@5"] == 1
    assert found["text_to_image"]["mrr"] == 0.5
    assert found["image_to_text"] == dict.fromkeys(MEASURES, 1.0)
    assert found["num_other_hits"] == len(COLOURS)
    searches = [body for call, _, body in running.requests if call == "POST /v1/search"]
    measured = [body for body in searches if body["k"] == 100]
    assert len(measured) == 16 + len(COLOURS)
    assert all(body["min_percentile"] == 0.5 and body["filter"] == {"must": []} for body in measured)
    assert found["num_left_out"] == {"pictures": 0, "captions": 0}


def test_a_service_whose_index_holds_no_captions_is_measured_in_one_direction(pairs: Path):
    with service(texts=False).serving() as running:
        found = last_json(evaluate(pairs, "--service", "--query-url", running.url))

    assert found["image_to_text"] is None
    assert found["text_to_image"]["recall@5"] == 1


def test_pairs_that_the_index_does_not_hold_are_left_out_and_counted(pairs: Path):
    colour, *others = COLOURS
    lacking = {f"{colour}-0.png", f"{colour}-1.png", f"{others[0]}-0.png", f"a {others[1]} cloth"}
    with service(lacking=lacking).serving() as running:
        result = evaluate(pairs, "--service", "--query-url", running.url)
    found = last_json(result)

    assert "left out: 3 of the 16 pictures; the index does not hold them" in result.stderr
    assert f"left out of image to text: 1 of the {len(COLOURS)} captions" in result.stderr
    assert found["num_left_out"] == {"pictures": 3, "captions": 1}
    assert found["num_pairs"] == 13
    assert found["text_to_image"]["recall@5"] == 1  # a colour without a picture is no query
    assert found["image_to_text"]["recall@1"] == 1  # nor is a picture whose caption is lacking


def demo_service(catalogue: Iterable[CatalogueContent]) -> StubQueryService:
    """A service whose index holds a catalogue, and that finds for every query the first picture and text."""
    hits = {c.content_id: as_hit(c) for c in catalogue}
    best = {kind: [hit for hit in hits.values() if hit["modality"] == kind][:1] for kind in ("image", "text")}

    def search(request: dict[str, Any]) -> dict[str, Any]:
        held = [hit for hit in hits.values() if hit["text"] == request.get("text", "")]
        found = held if held and request["modality"] == "text" else best[request["modality"]]
        return {"results": {request["modality"]: {"hits": found}}}

    def browse(request: dict[str, Any]) -> dict[str, Any]:
        ids = request["filter"]["must"][0]["any_of"]
        return {"results": {"image": {"hits": [hits[one] for one in ids if one in hits]}}}

    return StubQueryService({"POST /v1/search": (200, search), "POST /v1/browse": (200, browse)})


def as_hit(content: CatalogueContent) -> dict[str, Any]:
    text = " ".join(content.text.split()) if content.modality == "text" else None
    return {
        "content_id": content.content_id,
        "modality": content.modality,
        "score": 0.5,
        "owner_id": content.owner_id,
        "metadata": content.metadata,
        "text": text,
    }


def test_a_demo_of_another_size_is_measured_on_what_it_has_published():
    """Its pictures have the ids of the default catalogue, and show something else."""
    catalogue = build_catalogue(300, 40, seed=1)
    with demo_service(catalogue).serving() as running:
        found = last_json(evaluate("--demo", "--service", "--query-url", running.url))

    gallery = gallery_of_catalogue(catalogue)
    assert found["num_pairs"] == gallery.num_pairs > 0
    assert found["num_left_out"] == {"pictures": 0, "captions": 0}


def test_a_demo_from_which_contents_were_deleted_says_how_many_are_left_out():
    catalogue = build_catalogue(2_000, 200, seed=1)
    with demo_service([*catalogue[7:2_000], *catalogue[2_001:]]).serving() as running:
        result = evaluate("--demo", "--service", "--query-url", running.url)

    assert "left out: 7 of the 2,000 pictures; the index does not hold them" in result.stderr
    assert last_json(result)["num_left_out"]["pictures"] == 7


def test_a_demo_with_another_seed_is_an_error_that_says_so():
    with demo_service(build_catalogue(50, 10, seed=2)).serving() as running:
        result = evaluate("--demo", "--service", "--query-url", running.url)

    assert result.exit_code == 2
    assert "does not hold the demo's catalogue. A demo with a --seed of its own" in result.stderr


def test_a_demo_in_which_no_text_describes_a_picture_is_an_error_that_asks_for_a_larger_one():
    with demo_service(build_catalogue(150, 40, seed=1)).serving() as running:
        result = evaluate("--demo", "--service", "--query-url", running.url)

    assert result.exit_code == 2
    assert "is too small: none of its 40 texts describes one of its pictures" in result.stderr


def test_a_service_that_holds_none_of_the_pictures_is_an_error_that_names_an_id(pairs: Path):
    with service(known=False).serving() as running:
        result = evaluate(pairs, "--service", "--query-url", running.url)

    assert result.exit_code == 2
    assert "holds none of the 16 pictures (the first id is red-0.png)" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param([], "give one of PAIRS, --from-topic and --demo", id="no pairs"),
        pytest.param(["x.csv", "--demo"], "give one of PAIRS", id="two sources"),
        pytest.param(["x.csv", "--from-topic"], "give either PAIRS or --from-topic", id="source and log"),
        pytest.param(["x.csv", "--pair-key", "sku"], "belongs to --from-topic", id="a key of the log"),
        pytest.param(["--demo", "--min-percentile", "0.5"], "belong to --service", id="for a service"),
        pytest.param(["--demo", "--filter", "[]"], "not a JSON object", id="no filter"),
        pytest.param(
            ["--service", "http://127.0.0.1:8080", "--demo"],
            "for --service write --service --query-url http://127.0.0.1:8080",
            id="an address behind --service",
        ),
        pytest.param(
            ["--service", "https://shop.example/search"],
            "--query-url https://shop.example/search",
            id="an address for pairs",
        ),
        pytest.param(["absent.csv", "--service"], "absent.csv does not exist", id="no file"),
    ],
)
def test_flags_that_fit_nothing_are_one_sentence_and_exit_code_2(arguments: list[str], message: str):
    result = evaluate(*arguments)

    assert result.exit_code == 2
    assert message in result.stderr


def test_the_demo_asks_for_what_it_publishes():
    gallery = build_demo_gallery(300, 100)
    right = gallery.image_to_text()

    assert len(gallery.pictures) == 300
    assert gallery.pictures[0].key == "image-00000"
    assert gallery.num_pairs == len(right.asked) > 0
    for number in right.asked:
        garments = [right.targets[n].values["garment"] for n in right.of(number)]
        assert all(right.queries[number].values["garment"] & found for found in garments)


def colours(caption: str = "a {} cloth") -> list[tuple[str, str, str]]:
    return [(f"{colour}-{n}.png", caption.format(colour), "x") for colour in COLOURS for n in range(2)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained_model(tmp_path_factory.mktemp("model"))


def evaluate_table(folder: Path, data: bytes, *flags: object) -> Result:
    table = folder / "other.csv"
    table.write_bytes(data)
    try:
        return evaluate(table, *flags)
    finally:
        table.unlink()


def csv_of(rows: Iterable[tuple[str, str, str]]) -> str:
    return "\n".join(["file,caption,metadata.shop", *(",".join(row) for row in rows)]) + "\n"


@pytest.mark.encoder
@pytest.mark.parametrize(
    ("data", "flags", "message"),
    [
        pytest.param(b"file,caption\n", [], "there is no usable pair", id="no row"),
        pytest.param(
            csv_of(colours("d\u00e9j\u00e0 {}")).encode("latin-1"), [], "it is not UTF-8", id="Latin 1"
        ),
        pytest.param(csv_of(colours(" ")).encode(), [], "empty caption 16", id="no caption"),
        pytest.param(
            csv_of(("https://example.com/a.png", "a cloth", "x") for _ in range(3)).encode(),
            [],
            "missing picture 3",
            id="addresses as files",
        ),
        pytest.param(csv_of(colours()[:1]).encode(), [], "every caption is right", id="one pair"),
        pytest.param(csv_of(colours("a cloth")).encode(), [], "every caption is right", id="one caption"),
        pytest.param(
            csv_of(("red-0.png", f"caption {number}", "x") for number in range(9)).encode(),
            [],
            "every caption is right",
            id="one picture",
        ),
        pytest.param(
            csv_of(colours()).encode(), ["--group-by", "shop"], "every caption is right", id="one group"
        ),
        pytest.param(
            csv_of(colours()).encode(),
            ["--slice", "colour"],
            "no pair has the metadata key colour: there are shop",
            id="a slice that no pair has",
        ),
        pytest.param(
            csv_of(colours()).encode(),
            ["--group-by", "colour"],
            "no pair has the metadata key colour",
            id="a group that no pair has",
        ),
    ],
)
def test_pairs_that_tell_nothing_are_one_sentence_and_exit_code_2(
    pairs: Path, model: Path, data: bytes, flags: list[str], message: str
):
    result = evaluate_table(pairs, data, "--model", model, *flags)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stdout == ""


@pytest.mark.encoder
def test_a_table_that_a_spreadsheet_saved_in_utf_16_is_measured(pairs: Path, model: Path):
    result = evaluate_table(pairs, csv_of(colours()).encode("utf-16"), "--model", model)
    assert last_json(result)["num_pairs"] == 16


@pytest.mark.encoder
def test_captions_in_any_script_are_measured(pairs: Path, model: Path):
    scripts = ["红色的布", "قماش", "ткань", "लाल", "🧵", "\u202e cloth", "e\u0301" * 5, "a" * 5000]
    rows = [(f"{colour}-0.png", text, "x") for colour, text in zip(COLOURS, scripts, strict=True)]
    result = evaluate_table(pairs, csv_of(rows).encode(), "--model", model, "--slice", "shop")
    found = last_json(result)
    assert found["num_pairs"] == len(scripts)
    assert found["slices"]["shop"]["text_to_image"].keys() == {"x"}  # all pairs may lie in one slice


def test_a_service_is_asked_about_one_pair_because_other_contents_take_ranks(pairs: Path):
    with service().serving() as running:
        flags = ["--service", "--query-url", running.url]
        found = last_json(evaluate_table(pairs, csv_of(colours()[:1]).encode(), *flags))
    assert found["text_to_image"]["mrr"] < 1
