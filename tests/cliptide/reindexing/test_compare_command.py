"""`cliptide compare`: what two indexes share, which is better, and both answers side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from clip_index.content import Change
from clip_index.encoder.protocol import Encoder
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import EncoderUnavailable
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.indexes.pointer import read_pointer
from clip_index.indexes.recorded_model import RecordedModel, record_model
from clip_index.storage.index_roots import open_root
from cliptide.__main__ import main
from cliptide.reindexing import comparing
from fakes.hash_encoder import HashEncoder, draw_picture
from tests.cliptide.reindexing.test_reindex_command import describe, encoded, fill
from tests.cliptide.stub_query_service import StubQueryService

COLOURS, THINGS = ("red", "blue", "green"), ("dress", "coat", "hat", "bag", "sock", "shoe")
TEXTS = [f"a {colour} {thing}" for colour in COLOURS for thing in THINGS]
ENCODERS: dict[str, Encoder] = {"old": HashEncoder(dimension=32), "new": HashEncoder(dimension=64, seed=1)}


class Models:
    def load(self, settings: EncoderSettings) -> Encoder:
        if settings.model not in ENCODERS:
            raise EncoderUnavailable(settings.model, "there is no such model")
        return ENCODERS[settings.model]

    def weigh(self, _: EncoderSettings) -> None:
        return None


def uploads(encoder: Encoder) -> list[Change]:
    texts = [encoded(encoder, text, f"t-{n}", n) for n, text in enumerate(TEXTS)]
    pictures = [encoded(encoder, draw_picture(n), f"p-{n}.png", len(TEXTS) + n) for n in range(4)]
    return [*texts, *pictures]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three indexes of the same contents: main and same by one model, v2 by another."""
    monkeypatch.setattr(comparing, "Models", Models)
    root = tmp_path / "root"
    for index_id, model in (("main", "old"), ("same", "old"), ("v2", "new")):
        index = IndexDirectory.create(root, index_id, describe(index_id, ENCODERS[model]))
        record_model(index.store, RecordedModel(model))
        fill(index, uploads(ENCODERS[model]))
    return root


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Pictures of the indexes with captions of which each index holds the text."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    rows = ["file,caption,content_id"]
    for n in range(4):
        (folder / f"{n}.png").write_bytes(draw_picture(n))
        rows.append(f"{n}.png,{TEXTS[n]},p-{n}.png")
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n")
    return folder


def run(command: str, root: Path, *words: object) -> Result:
    arguments = [command, "--index-root", str(root), *map(str, words)]
    return CliRunner(env={"COLUMNS": "200"}).invoke(main, arguments)


def compare(root: Path, *words: object) -> dict[str, Any]:
    result = run("compare", root, *words)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def test_an_index_has_everything_in_common_with_its_equal(root: Path) -> None:
    found = compare(root, "main", "same", "-k", 3)
    assert found["overlap"] == 1.0
    assert found["overlaps"]["sampled"]["text"] == {"mean": 1.0, "num_queries": len(TEXTS) + 4}


def test_another_model_finds_other_contents(root: Path, tmp_path: Path) -> None:
    (tmp_path / "queries.txt").write_text("a red thing\n\nshoes of any colour\n")
    found = compare(root, "main", "v2", "-k", 2, "--queries", tmp_path / "queries.txt")
    assert 0 < found["overlap"] < 1
    assert found["overlaps"]["given"]["image"]["num_queries"] == 2
    assert set(found["overlaps"]) == {"given", "sampled"}


def test_a_sampled_content_is_not_its_own_answer(root: Path) -> None:
    found = compare(root, "main", "same", "-k", 100)
    assert found["overlap"] == 1.0
    assert compare(root, "main", "same", "--sample", 0)["overlap"] is None


def test_pairs_tell_which_index_is_better(root: Path, pairs: Path) -> None:
    found = compare(root, "main", "v2", pairs)
    quality = found["quality"]
    assert quality["num_pairs"] == 4
    assert quality["against"]["model"] == "main"
    assert quality["text_to_image"]["recall@10"] == 1.0
    assert 0 < quality["image_to_text"]["mrr"] < 1  # the pictures of the hashing encoder are like no text
    assert set(quality["difference"]) == {"text_to_image", "image_to_text"}
    assert found["overlaps"]["given"]["text"]["num_queries"] == 4


def test_the_page_shows_both_answers_side_by_side(root: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    compare(root, "main", "v2", "--gallery", page, "--num-shown", 3)
    text = page.read_text()
    assert text.count('<div class="pair">') == 3
    assert "— main (" in text
    assert "— v2 (" in text


@pytest.mark.parametrize(
    ("words", "sentence", "code"),
    [
        pytest.param(["main", "nowhere"], "no index 'nowhere'", 1, id="no such index"),
        pytest.param(["main", "../v2"], "must match", 2, id="a path"),
        pytest.param(["main", "v2", "--queries", "{folder}/none.txt"], "cannot be read", 2, id="no file"),
        pytest.param(["main", "v2", "--queries", "{folder}/empty.txt"], "holds no text", 2, id="empty file"),
        pytest.param(["main", "v2", "--queries", "{folder}/latin.txt"], "cannot be read", 2, id="not UTF-8"),
        pytest.param(["main", "v2", "--model-of", "v2"], "write INDEX=MODEL", 2, id="no model"),
        pytest.param(["main", "v2", "--model-of", "v2=gone"], "there is no such model", 1, id="gone"),
        pytest.param(["main", "v2", "--model-of", "v2=old"], "the index was built by", 1, id="another"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(
    root: Path, tmp_path: Path, words: list[str], sentence: str, code: int
) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    result = run("compare", root, *(word.format(folder=tmp_path) for word in words))
    assert result.exit_code == code
    assert sentence in " ".join(result.stderr.split())


def test_a_switch_below_the_least_overlap_is_refused_with_the_figure(root: Path) -> None:
    result = run("switch", root, "v2", "--min-overlap", "0.99")
    assert result.exit_code == 1
    assert "the overlap@10 of v2 is 0." in result.stderr
    assert "below 0.99: `cliptide compare main v2 --gallery FILE` shows what differs" in result.stderr
    assert read_pointer(open_root(root)).index_id == "main"


def test_a_switch_below_the_least_recall_is_refused_with_the_figure(
    root: Path, pairs: Path, tmp_path: Path
) -> None:
    (pairs / "pairs.csv").write_text("file,caption,content_id\n0.png,a red dress,not-in-the-index\n")
    result = run("switch", root, "v2", "--min-recall", "0.5", "--pairs", pairs)
    assert result.exit_code == 1
    assert "the recall@10 of v2 is 0.000, below 0.5" in result.stderr
    assert "cliptide compare main v2 --gallery FILE" in result.stderr
    assert read_pointer(open_root(root)).index_id == "main"


def test_a_switch_that_is_good_enough_happens(root: Path, pairs: Path) -> None:
    words = ["--min-overlap", "0.2", "--min-recall", "0.9", "--pairs", pairs]
    result = run("switch", root, "v2", *words)
    assert result.exit_code == 0, result.output
    assert read_pointer(open_root(root)).index_id == "v2"


def test_a_least_recall_without_pairs_is_refused(root: Path) -> None:
    result = run("switch", root, "v2", "--min-recall", "0.5")
    assert result.exit_code == 2
    assert "--min-recall is measured on --pairs" in result.stderr


@pytest.mark.parametrize("command", ["compare", "switch"])
def test_bad_pairs_end_the_command_with_2_before_any_model_is_loaded(
    root: Path, pairs: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Models, "load", lambda *_: pytest.fail("a model was loaded"))
    (pairs / "pairs.csv").write_text("file,caption\ngone.png,a red dress\n0.png,\n")
    words = ["main", "v2", pairs] if command == "compare" else ["v2", "--min-recall", "0.5", "--pairs", pairs]
    result = run(command, root, *words)
    assert result.exit_code == 2
    assert "skipped 2 of 2 pairs: missing picture 1, empty caption 1" in result.stderr
    assert read_pointer(open_root(root)).index_id == "main"


def sampled(**query: Any) -> dict[str, Any]:
    return {"query": query, "weight": query.pop("weight", 1), "asked_at": 1.0}


def only_contents(*content_ids: str) -> dict[str, Any]:
    return {"must": [{"field": "content_id", "any_of": [*content_ids]}]}


def keeping(*queries: dict[str, Any], max_queries: int = 100) -> StubQueryService:
    answer = {"max_queries": max_queries, "hours": 24.0, "queries": queries, "not_kept": {"image": 7}}
    return StubQueryService({"GET /v1/query_sample": (200, answer)})


def test_live_queries_are_asked_as_they_were_asked(root: Path, tmp_path: Path) -> None:
    """Texts, contents and weighted parts, with their modality and their filter."""
    queries = [
        sampled(text="a red thing"),
        sampled(text="a red thing", modality="text"),
        sampled(content_id="t-1", modality="text"),
        sampled(terms=[{"text": "a dress"}, {"content_id": "t-2", "weight": -0.5}], modality="text"),
        sampled(
            text="a hat",
            modality="text",
            filter={"must": [{"field": "content_id", "any_of": ["t-1", "t-2"]}]},
        ),
        sampled(content_id="gone"),
        sampled(terms=[{"text": "a"}, {"text": "a", "weight": -1.0}]),
    ]
    page = tmp_path / "page.html"
    with keeping(*queries).serving() as service:
        words = ("--live", service.url, "--admin-key", "secret", "--sample", 0)
        same = compare(root, "main", "same", *words, "-k", 20)
        found = compare(root, "main", "v2", *words, "-k", 2, "--gallery", page)
    assert same["overlaps"]["live"]["text"] == {"mean": 1.0, "num_queries": 5}
    assert same["overlaps"]["live"]["image"]["num_queries"] == 1
    assert same["skipped"] == 2  # an index has not the content; the parts cancel each other out
    assert 0 < found["overlap"] < 1
    assert {headers["Authorization"] for _, headers, _ in service.requests} == {"Bearer secret"}
    assert "+1 a dress -0.5 t-2 — main" in page.read_text()
    assert "a hat (filtered) — v2 (100% in common)" in page.read_text()


def test_a_live_query_counts_as_often_as_it_was_asked(root: Path) -> None:
    """The filter leaves one content, which both answer; without it they answer different ones."""
    only = only_contents("t-1")
    rare = compare_live(root, sampled(text="shoes", modality="text"))
    assert rare["overlap"] < 1
    often = [sampled(text="shoes", modality="text", filter=only, weight=50)] * 2
    both = compare_live(root, sampled(text="shoes", modality="text"), *often)
    assert both["overlap"] == pytest.approx((100 + rare["overlap"]) / 101, abs=1e-4)
    assert both["overlaps"]["live"]["text"]["num_queries"] == 2


def compare_live(root: Path, *queries: dict[str, Any]) -> dict[str, Any]:
    with keeping(*queries).serving() as service:
        return compare(root, "main", "v2", "--live", service.url, "--sample", 5, "-k", 2)


@pytest.mark.parametrize(
    ("answer", "sentence", "code"),
    [
        pytest.param(
            (200, {"max_queries": 0, "hours": 24.0, "queries": [], "not_kept": {}}),
            "keeps no live queries: set CLIPTIDE_QUERY_API__QUERY_SAMPLE_SIZE there",
            2,
            id="off",
        ),
        pytest.param((200, {"queries": 1}), "answers no sample of live queries", 1, id="something else"),
        pytest.param(
            (200, {"max_queries": 1, "queries": [{"query": {"text": ""}, "weight": 1}], "not_kept": {}}),
            "answers no sample of live queries",
            1,
            id="no query",
        ),
        pytest.param(
            (403, {"error": {"code": "forbidden", "message": "this API key may not"}}),
            "403 forbidden",
            1,
            id="another key",
        ),
        pytest.param(
            (404, {"error": {"code": "unknown_route", "message": "x"}}), "unknown_route", 1, id="old"
        ),
    ],
)
def test_a_service_without_a_sample_is_one_sentence_before_a_model_is_loaded(
    root: Path, monkeypatch: pytest.MonkeyPatch, answer: tuple[int, Any], sentence: str, code: int
) -> None:
    monkeypatch.setattr(comparing, "Models", None)
    with StubQueryService({"GET /v1/query_sample": answer}).serving() as service:
        result = run("compare", root, "main", "v2", "--live", service.url)
    assert result.exit_code == code
    assert sentence in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


def test_a_switch_is_measured_on_live_queries(root: Path) -> None:
    """All of them have the same answers, but contents that are sampled have not."""
    only = only_contents("t-1")
    with keeping(sampled(text="shoes", filter=only)).serving() as service:
        live = run("switch", root, "v2", "--min-overlap", "0.99", "--live", service.url)
    assert live.exit_code == 0, live.output
