import base64
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cliptide.__main__ import main
from cliptide.evaluation.demo_gallery import build_demo_gallery
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


def service(*, texts: bool = True, known: bool = True) -> StubQueryService:
    """A service that finds a picture by its colour, and for a picture the text that names it."""
    by_picture = {base64.b64encode(png(colour, n)).decode(): colour for colour in COLOURS for n in (0, 1)}

    def search(request: dict[str, Any]) -> dict[str, Any]:
        assert request["k"] == 100
        if request["modality"] == "image":
            colour = request["text"].split()[1]
            ids = ["another", f"{colour}-1.png", f"{colour}-0.png"]
            return {"results": {"image": {"hits": [{"content_id": i, "score": 0.5} for i in ids]}}}
        text = f"a {by_picture[request['image']]}  cloth" if texts else "something else"
        hits = [{"content_id": "t", "score": 0.5, "text": text}] * 2
        return {"results": {"text": {"hits": hits}}}

    def browse(request: dict[str, Any]) -> dict[str, Any]:
        ids = request["filter"]["must"][0]["any_of"] if known else []
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
    assert all(body["min_percentile"] == 0.5 and body["filter"] == {"must": []} for body in searches)


def test_a_service_whose_index_holds_no_captions_is_measured_in_one_direction(pairs: Path):
    with service(texts=False).serving() as running:
        found = last_json(evaluate(pairs, "--service", "--query-url", running.url))

    assert found["image_to_text"] is None
    assert found["text_to_image"]["recall@5"] == 1


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
