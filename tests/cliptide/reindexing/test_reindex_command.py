"""`cliptide reindex`: an index for another model is described, and what the log lost is taken over."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from clip_index.content import (
    Change,
    ContentFacts,
    Delta,
    EncodedContent,
    PatchedContent,
    RemovedContent,
)
from clip_index.encoder.protocol import Encoder, Prepared
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import IndexRefused
from clip_index.generations.history import read_newest
from clip_index.generations.takeover import Claim
from clip_index.indexes.index_directory import IndexDescription, IndexDirectory
from clip_index.indexes.recorded_model import RecordedModel, read_model
from clip_index.reading.index_reader import IndexReader
from clip_index.searching.searcher import Searcher
from clip_index.storage.index_roots import IndexRoot, ObjectRoot, open_root
from clip_index.writing.shard_writer import ShardWriter
from cliptide.__main__ import main
from cliptide.reindexing import log_access, reindex_command, seeding
from cliptide.reindexing.build_watch import BuildWatch
from cliptide.reindexing.forecast import build_forecast, in_words
from cliptide.reindexing.log_access import Log
from cliptide.reindexing.retained_log import RetainedLog
from cliptide.reindexing.seeding import Seeding
from cliptide.verify.verification import LogFold
from event_log.records import LogRange, Record, TopicDescription
from fakes.hash_encoder import HashEncoder, draw_picture
from schemas.codec import EventDecoder, encode_event
from schemas.events import Event, ImageContent, PatchEvent, TextContent, UploadEvent

TOPIC = "content-uploads"
SHARD = f"{TOPIC}-0"
OLD, NEW = HashEncoder(dimension=32), HashEncoder(dimension=64, seed=1)
PICTURE = draw_picture(1)
LOG_START = 6


def encoded(
    encoder: Encoder, content: str | bytes, content_id: str, offset: int, **facts: Any
) -> EncodedContent:
    is_text = isinstance(content, str)
    prepared = encoder.prepare_text(content) if isinstance(content, str) else encoder.prepare_image(content)
    [rows] = encoder.encode([prepared])
    version = facts.pop("version", None)
    about = ContentFacts(source="shop", occurred_at_ms=1_700_000_000_000 + offset, **facts)
    if isinstance(content, str):
        about = replace(about, text=content)
    return EncodedContent(content_id, offset, "text" if is_text else "image", rows, about, version)


def uploads(encoder: Encoder) -> list[Change]:
    """Eight offsets, of which the log will have lost the first six."""
    digest = hashlib.sha256(PICTURE).hexdigest()
    return [
        encoded(encoder, "a red dress", "t-old", 0, version=3, metadata={"price": 9.0}, title="Dress"),
        encoded(encoder, PICTURE, "p-linked", 1, link="https://shop.test/p.png", sha256=digest),
        encoded(encoder, draw_picture(2), "p-inline", 2),
        encoded(encoder, "versioned", "t-floor", 3, version=7),
        encoded(encoder, "then without one", "t-floor", 4),
        RemovedContent("t-gone", 5, version=4),
        encoded(encoder, "a green hat", "t-new", 6),
        encoded(encoder, draw_picture(3), "p-new", 7),
    ]


def describe(index_id: str, encoder: Encoder) -> IndexDescription:
    return IndexDescription(TOPIC, "topic-1", 1, f"cliptide-{index_id}", encoder.fingerprint)


def fill(index: IndexDirectory, changes: Sequence[Change], first_offset: int = 0) -> None:
    writer = ShardWriter.take_over(index, 0, Claim("consumer", first_offset))
    writer.add(Delta(writer.next_offset, writer.next_offset + len(changes), changes))
    writer.commit()
    writer.close()


def searcher_of(root: IndexRoot, index_id: str) -> Searcher:
    reader = IndexReader(root, index_id)
    reader.reload()
    assert reader.searcher is not None
    return reader.searcher


@pytest.fixture(params=["directory", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> IndexRoot:
    """A root whose served index holds eight records."""
    root: IndexRoot = tmp_path
    if request.param == "bucket":
        root = ObjectRoot(f"memory://{tmp_path.name}", tmp_path / "cache")
    fill(IndexDirectory.create(root, "main", describe("main", OLD)), uploads(OLD))
    return root


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log holds offsets from `LOG_START` on, and every model is the new one."""
    topic = TopicDescription(TOPIC, "topic-1", 1)
    ranges = [LogRange(LOG_START, 8)]
    monkeypatch.setattr(reindex_command, "ask_log", lambda *_: Log(topic, ranges))
    monkeypatch.setattr(reindex_command, "_load", lambda *_: NEW)


def run(root: IndexRoot, *words: str) -> Result:
    options = ["--index-root", str(root)]
    if isinstance(root, ObjectRoot):
        options += ["--index-cache-dir", str(root.cache_directory)]
    arguments = ["reindex", *options, "--index-id", "v2", *words]
    return CliRunner(env={"COLUMNS": "200"}).invoke(main, arguments)


def is_begun(root: IndexRoot, index_id: str) -> bool:
    return bool(open_root(root).list_names(f"indexes/{index_id}"))


def seed(
    root: IndexRoot,
    fetched: Mapping[str, bytes] | None = None,
    log: RetainedLog | None = None,
) -> Seeding:
    index = IndexDirectory.create(root, "v2", describe("v2", NEW))

    def fetch(address: str) -> bytes:
        if fetched is None or address not in fetched:
            raise OSError(f"{address}: 404")
        return fetched[address]

    begun = Seeding(index, NEW, fetch if fetched is not None else None)
    begun.write(searcher_of(root, "main"), log or RetainedLog({SHARD: LOG_START}))
    return begun


@pytest.mark.usefixtures("log")
def test_the_index_is_described_as_its_consumer_will_describe_it(root: IndexRoot) -> None:
    result = run(root, "--model", "tuned")
    assert result.exit_code == 0, result.output
    index = IndexDirectory.open(root, "v2")
    assert index.description == describe("v2", NEW)
    assert read_model(index.store) == RecordedModel("tuned", EncoderSettings().pretrained)
    assert IndexDirectory.open(root).index_id == "main"


@pytest.mark.usefixtures("log")
def test_it_says_beforehand_what_the_index_will_take(root: IndexRoot) -> None:
    result = run(root, "--model", "tuned", "--dry-run")
    assert result.exit_code == 0, result.output
    told = " ".join(result.stderr.split())
    assert "3 pictures and 3 texts are live; the log holds 2 records" in told
    assert "a machine like this one encodes" in told
    assert "the log does not hold 4 live contents any more" in told
    assert "2 are texts, which are taken from the served index" in told
    assert "1 are pictures that were fetched" in told
    assert "1 are lost to the new index" in told
    summary = json.loads(result.stdout.splitlines()[-1])
    assert summary["contents"] == {"text": 3, "image": 3}
    assert summary["not_in_log"] == {"text": 2, "link": 1, "lost": 1}
    assert summary["described"] is False
    assert not is_begun(root, "v2")
    is_bounded = isinstance(root, Path)
    assert (" MiB are free" in told) == is_bounded, "a bucket has no bound"
    assert (summary["free_bytes"] is not None) == is_bounded


@pytest.mark.usefixtures("log")
def test_what_is_lost_is_named_and_written_to_a_file(root: IndexRoot, tmp_path: Path) -> None:
    result = run(root, "--model", "tuned", "--lost", str(tmp_path / "lost.jsonl"))
    assert "lost: p-inline: the index keeps no copy of it" in result.stderr
    lost = [json.loads(line) for line in (tmp_path / "lost.jsonl").read_text().splitlines()]
    assert [one["content_id"] for one in lost] == ["p-linked", "p-inline"]
    assert json.loads(result.stdout.splitlines()[-1])["taken"] == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        pytest.param([], "name the --model of the new index", id="no model"),
        pytest.param(["--model", "m", "--index-id", "main"], "the index main serves", id="the served index"),
        pytest.param(["--model", "m", "--index-id", "../x"], "must match", id="a path"),
        pytest.param(["--watch"], "no index 'v2'", id="nothing to watch"),
    ],
)
@pytest.mark.usefixtures("log")
def test_what_cannot_be_done_is_one_sentence(root: IndexRoot, words: list[str], sentence: str) -> None:
    result = run(root, *words)
    assert result.exit_code in (1, 2)
    assert sentence in " ".join(result.stderr.split())
    assert not is_begun(root, "v2")


@pytest.mark.usefixtures("log")
def test_a_second_call_with_another_model_is_refused_and_names_both(
    root: IndexRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(root, "--model", "tuned")
    monkeypatch.setattr(reindex_command, "_load", lambda *_: HashEncoder(seed=9))
    again = run(root, "--model", "other")
    assert again.exit_code == 1
    assert "the index was built by hash" in again.stderr


def test_texts_that_the_log_lost_are_taken_over_with_all_their_facts(root: IndexRoot) -> None:
    begun = seed(root)
    served, new = searcher_of(root, "main"), searcher_of(root, "v2")
    assert begun.num_taken == 2
    assert new.shards[SHARD].next_offset == LOG_START
    location = new.find("t-old")
    assert location is not None
    kept, original = new.read(location), served.read(served.find("t-old"))  # type: ignore[arg-type]
    assert kept == original
    [rows] = NEW.encode([NEW.prepare_text("a red dress")])
    assert new.embeddings(location) == pytest.approx(rows, abs=1e-3)


def test_a_linked_picture_is_taken_only_while_it_is_the_same_file(root: IndexRoot) -> None:
    changed = seed(root, {"https://shop.test/p.png": draw_picture(9)})
    assert [(one.content.content_id, why) for one, why in changed.lost if one.source == "link"] == [
        ("p-linked", "what its link gives is another file now")
    ]


def test_a_linked_picture_is_fetched_again(root: IndexRoot) -> None:
    seed(root, {"https://shop.test/p.png": PICTURE})
    new = searcher_of(root, "v2")
    [hits] = new.search(NEW.encode([NEW.prepare_image(PICTURE)])[0], k=1, modality="image")
    assert hits[0].content_id == "p-linked"
    assert hits[0].score == pytest.approx(1.0, abs=1e-3)


def test_a_link_that_does_not_answer_loses_one_content_and_no_other(root: IndexRoot) -> None:
    begun = seed(root, {})
    assert ("p-linked", "https://shop.test/p.png: 404") in [
        (one.content.content_id, why) for one, why in begun.lost
    ]
    assert begun.num_taken == 2


def test_floors_and_remembered_deletes_are_taken_over_so_that_late_versions_stay_away(
    root: IndexRoot,
) -> None:
    seed(root)
    index = IndexDirectory.open(root, "v2")
    late = [
        encoded(NEW, "a late older version", "t-gone", 6, version=3),
        encoded(NEW, "a late older version", "t-floor", 7, version=6),
    ]
    fill(index, late)
    new = searcher_of(root, "v2")
    assert new.find("t-gone") is None
    location = new.find("t-floor")
    assert location is not None
    assert new.read(location).facts.text == "then without one"


def test_after_its_consumer_has_read_the_log_the_new_index_holds_what_the_served_one_does(
    root: IndexRoot,
) -> None:
    seed(root, {"https://shop.test/p.png": PICTURE})
    fill(IndexDirectory.open(root, "v2"), uploads(NEW)[LOG_START:])
    served, new = searcher_of(root, "main"), searcher_of(root, "v2")
    ids = {"t-old", "p-linked", "p-inline", "t-floor", "t-gone", "t-new", "p-new"}
    assert {one for one in ids if served.find(one)} - {one for one in ids if new.find(one)} == {"p-inline"}
    assert new.shards[SHARD].next_offset == served.shards[SHARD].next_offset
    for one in ids - {"p-inline", "t-gone"}:
        assert new.read(new.find(one)) == served.read(served.find(one))  # type: ignore[arg-type]


def test_contents_are_not_taken_over_into_an_index_that_a_consumer_builds_already(root: IndexRoot) -> None:
    index = IndexDirectory.create(root, "v2", describe("v2", NEW))
    fill(index, uploads(NEW)[LOG_START:], first_offset=LOG_START)
    with pytest.raises(IndexRefused, match="is being built already"):
        Seeding(index, NEW).write(searcher_of(root, "main"), RetainedLog({SHARD: LOG_START}))


class Killed(BaseException):
    """Ends a command wherever it is, as a SIGKILL does."""


@pytest.mark.parametrize("num_commits", range(4))
def test_a_call_that_was_killed_is_repeated_and_encodes_only_what_is_missing(
    root: IndexRoot, monkeypatch: pytest.MonkeyPatch, num_commits: int
) -> None:
    commit, left = seeding._commit, num_commits

    def commit_until_killed(*arguments: Any) -> None:
        nonlocal left
        if not left:
            raise Killed
        left -= 1
        commit(*arguments)

    monkeypatch.setattr(seeding, "CHANGES_OF_A_COMMIT", 1)
    monkeypatch.setattr(seeding, "_commit", commit_until_killed)
    with pytest.raises(Killed):
        seed(root)
    already = len(live_ids(root, "v2"))
    monkeypatch.setattr(seeding, "_commit", commit)
    counted: list[Prepared] = []
    encode = HashEncoder.encode
    monkeypatch.setattr(
        HashEncoder, "encode", lambda self, items: counted.extend(items) or encode(self, items)
    )
    again = seed(root)
    assert (again.num_taken, len(counted)) == (2, 2 - already)
    assert live_ids(root, "v2") == {"t-old", "t-floor"}
    assert searcher_of(root, "v2").shards[SHARD].next_offset == LOG_START
    late = [encoded(NEW, "late", one, n, version=3) for n, one in enumerate(("t-gone", "t-floor"), LOG_START)]
    fill(IndexDirectory.open(root, "v2"), late)
    new = searcher_of(root, "v2")
    assert new.find("t-gone") is None
    assert new.read(new.find("t-floor")).facts.text == "then without one"  # type: ignore[arg-type]


def test_a_repeated_call_takes_what_the_first_one_could_not(root: IndexRoot) -> None:
    assert seed(root).num_taken == 2
    assert seed(root, {"https://shop.test/p.png": PICTURE}).num_taken == 3
    assert live_ids(root, "v2") == {"t-old", "t-floor", "p-linked"}


def test_a_repeated_call_follows_a_log_that_has_lost_more_since(root: IndexRoot) -> None:
    """The consumer had refused to start, because the records behind the end of the first call were gone."""
    seed(root)
    fill(IndexDirectory.open(root, "main"), [RemovedContent("t-old", 8)])
    seed(root, log=RetainedLog({SHARD: 9}))
    assert live_ids(root, "v2") == {"t-floor", "t-new"}
    assert searcher_of(root, "v2").shards[SHARD].next_offset == 9


def test_a_repeated_call_that_finds_a_consumer_at_work_changes_nothing(root: IndexRoot) -> None:
    seed(root)
    fill(IndexDirectory.open(root, "v2"), uploads(NEW)[LOG_START:])
    with pytest.raises(IndexRefused, match="is being built already"):
        seed(root)
    assert searcher_of(root, "v2").shards[SHARD].next_offset == 8


def test_a_floor_whose_event_the_log_lost_is_taken_over_though_it_holds_a_later_event(
    root: IndexRoot,
) -> None:
    """Both ids were changed again in what is left of the log, by events without a version."""
    later: list[Change] = [RemovedContent("t-old", 8), encoded(OLD, "again", "t-gone", 9)]
    fill(IndexDirectory.open(root, "main"), later)
    seed(root)
    rest = [
        *uploads(NEW)[LOG_START:],
        RemovedContent("t-old", 8),
        encoded(NEW, "again", "t-gone", 9),
        encoded(NEW, "late", "t-old", 10, version=2),
        encoded(NEW, "late", "t-gone", 11, version=3),
    ]
    fill(IndexDirectory.open(root, "v2"), rest)
    new = searcher_of(root, "v2")
    assert new.find("t-old") is None
    assert new.read(new.find("t-gone")).facts.text == "again"  # type: ignore[arg-type]


PATCHED = ("t-old", "t-new", "p-inline", "t-again")
"""Of these, `t-new` and `t-again` have uploads in what is left of the log, at 6 and 8."""


def patch_all(root: IndexRoot) -> None:
    """Upload one more text, and patch four contents: offsets 8 to 12."""
    patches = [PatchedContent(one, 9 + n, 9, metadata={"price": 5.0}) for n, one in enumerate(PATCHED)]
    uploaded = encoded(OLD, "uploaded again", "t-again", 8, version=2)
    fill(IndexDirectory.open(root, "main"), [uploaded, *patches])


def records_that_are_left() -> list[Record]:
    at = datetime(2026, 1, 1, tzinfo=timezone.utc)
    events: list[Event] = [
        UploadEvent("e6", "t-new", "shop", at, TextContent("a green hat")),
        UploadEvent("e7", "p-new", "shop", at, ImageContent(draw_picture(3))),
        UploadEvent("e8", "t-again", "shop", at, TextContent("uploaded again"), version=2),
        *(PatchEvent(f"e{n}", one, "shop", at, metadata={"price": 5.0}) for n, one in enumerate(PATCHED)),
    ]
    encoded_events = map(encode_event, events)
    return [
        Record(TOPIC, 0, offset, one.key, one.value, one.headers, 1_700_000_000_000, 1)
        for offset, one in enumerate(encoded_events, LOG_START)
    ]


@pytest.fixture
def patched(root: IndexRoot, monkeypatch: pytest.MonkeyPatch) -> IndexRoot:
    """A root with patched contents, and a log that can be read."""
    patch_all(root)

    def fold_log(_: Any, topics: Any, covered: Mapping[int, range], decoder: EventDecoder) -> LogFold:
        folded = LogFold(covered, set(), decoder)
        for record in records_that_are_left():
            folded.add(record)
        return folded

    monkeypatch.setattr(log_access, "fold_log", fold_log)
    ranges = [LogRange(LOG_START, 13)]
    found = Log(TopicDescription(TOPIC, "topic-1", 1), ranges)
    monkeypatch.setattr(reindex_command, "ask_log", lambda *_: found)
    monkeypatch.setattr(reindex_command, "_load", lambda *_: NEW)
    return root


def test_a_patched_content_whose_upload_the_log_lost_is_taken_over_or_listed(patched: IndexRoot) -> None:
    """Its row has the offset of the patch, which the log still holds."""
    result = run(patched, "--model", "tuned")
    assert result.exit_code == 0, result.output
    told = " ".join(result.stderr.split())
    assert "4 contents got patches since: reading the log to see which uploads it still holds" in told
    assert "the log does not hold 4 live contents any more" in told
    assert "lost: p-inline: the index keeps no copy of it" in told
    assert live_ids(patched, "v2") == {"t-old", "t-floor"}
    rest = [
        *uploads(NEW)[LOG_START:],
        encoded(NEW, "uploaded again", "t-again", 8, version=2),
        *(PatchedContent(one, 9 + n, 9, metadata={"price": 5.0}) for n, one in enumerate(PATCHED)),
    ]
    fill(IndexDirectory.open(patched, "v2"), rest)
    served, new = searcher_of(patched, "main"), searcher_of(patched, "v2")
    for one in ("t-old", "t-new", "t-again", "t-floor"):
        assert new.read(new.find(one)) == served.read(served.find(one)), one  # type: ignore[arg-type]


def test_an_upload_that_compaction_removed_is_listed(
    patched: IndexRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be put before the beginning of such a log, which stays where it was."""
    found = Log(TopicDescription(TOPIC, "topic-1", 1), [LogRange(0, 13)], is_compacted=True)
    monkeypatch.setattr(reindex_command, "ask_log", lambda *_: found)
    result = run(patched, "--model", "tuned")
    assert result.exit_code == 0, result.output
    told = " ".join(result.stderr.split())
    assert "the topic is compacted: reading the log" in told
    assert "4 are lost to the new index" in told
    assert "lost: t-old: compaction has removed its upload" in told
    assert json.loads(result.stdout.splitlines()[-1])["lost"] == 4


def live_ids(root: IndexRoot, index_id: str) -> set[str]:
    return {
        segment.segment.contents.column("content_id")[row].as_py()
        for view in searcher_of(root, index_id).shard_views
        for segment in view.segments
        for row in segment.eligible_rows(None).nonzero()[0].tolist()
    }


def test_a_log_that_holds_everything_leaves_nothing_to_take_over(root: IndexRoot) -> None:
    index = IndexDirectory.create(root, "v2", describe("v2", NEW))
    Seeding(index, NEW).write(searcher_of(root, "main"), RetainedLog({SHARD: 0}))
    assert read_newest(index.shard_store(0)) is None


def test_the_forecast_grows_with_the_dimension_and_with_replaced_uploads(root: IndexRoot) -> None:
    served = searcher_of(root, "main")
    forecast = build_forecast(served, NEW, [LogRange(0, 12)], free_bytes=10**9)
    assert forecast.new_bytes - forecast.served_bytes == 6 * 2 * (NEW.dimension - OLD.dimension)
    assert forecast.most_seconds == pytest.approx(2 * forecast.seconds)


def test_an_empty_index_takes_no_time(tmp_path: Path) -> None:
    fill(IndexDirectory.create(tmp_path, "main", describe("main", OLD)), [RemovedContent("x", 0)])
    forecast = build_forecast(searcher_of(tmp_path, "main"), NEW, [LogRange(0, 1)], free_bytes=1)
    assert (forecast.seconds, forecast.most_seconds) == (0, 0)


@pytest.mark.parametrize(("seconds", "words"), [(5, "5 s"), (600, "10 min"), (36_000, "10.0 h")])
def test_a_time_is_told_in_the_unit_that_a_person_thinks_in(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_progress_tells_rate_and_time_left_until_the_index_has_caught_up(root: IndexRoot) -> None:
    index, served = IndexDirectory.create(root, "v2", describe("v2", NEW)), IndexDirectory.open(root, "main")
    steps: Iterator[Sequence[Change]] = iter([uploads(NEW)[:2], uploads(NEW)[2:4], uploads(NEW)[4:]])
    said: list[str] = []
    times = iter(range(0, 100, 2))
    watch = BuildWatch(
        index, served, said.append, pause=lambda _: fill(index, next(steps)), clock=lambda: next(times)
    )
    assert watch.run() == 8
    assert said[0] == "v2: 0 of 8 records: no consumer has begun yet"
    assert said[2] == "v2: 4 of 8 records, 1/s, 4 s left"
    assert said[-1] == "v2: 8 of 8 records: it has caught up with main"


def test_nothing_larger_than_any_content_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(seeding, "MAX_FETCHED_BYTES", 10)
    (tmp_path / "file").write_bytes(b"x" * 11)
    with pytest.raises(OSError, match="more than 10 bytes"):
        seeding.fetch_by_http((tmp_path / "file").as_uri())
