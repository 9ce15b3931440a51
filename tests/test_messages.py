"""docs/operations.md explains every sentence with which a service stops or waits."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
SERVICES = ("schemas", "event_log", "clip_index", "opensearch_engine", "service", "consumer", "query_api")
NOT_SERVICES = ("event_log/memory/", "clip_index/generations/restoration.py")  # a fake, and a command
ANY = "…"

STOPPING = {
    *(
        "StartRefused",
        "IndexRefused",
        "OtherFormat",
        "EncoderMismatch",
        "AssignmentFailed",
        "DeadLetterFlood",
    ),
    *("FencedWhileAssigned", "EncoderUnavailable", "EncoderBroken", "TopicMissing", "FatalLogError"),
    *("RecordUnreadable", "UnknownSchema", "DamagedFile", "DamagedIndexFile", "IndexMissing", "Fenced"),
    *("OffsetOutOfRange", "ConsumerFault", "DeltaMismatch", "TransientLogError", "BadSettings", "NoIndex"),
    *("EngineUnavailable", "EngineRefused", "EngineMissing"),
    *("AddressRefused", "RegistryUnavailable", "RegistryRefused", "RegistryMisconfigured"),
}
"""The errors that end a service or make it wait. The sentence of an error may stand in its class."""
HANDLED = {
    *("SchemasError", "EventLogError", "ClipIndexError", "ConsumerError"),  # the roots are never raised
    *("BadEvent", "BadContent"),  # one record is set aside
    *("RecordRefused", "RecordTooLarge"),  # its producer is told
    "SchemaNotAtHand",  # the schema is fetched, and the record decoded again
    *("GenerationGone", "TakeoverAbandoned"),  # the reader begins again; an ordinary stop
    "IndexUnavailable",  # the engine raises a class of its own below it
    "EngineConflict",  # the stored document is read again
    "BrokenEmbeddings",  # a merge leaves the segment out; the log line `merge failed` names it
    "CommitUnknown",  # the shard is taken over again; the wait for that is told as "waiting for assignment"
}
HEALTH = ("/health.py", "/background_job.py")
"""Modules whose sentences stand in the answers of health checks."""
TREES = tuple(
    f"{package}/errors.py"
    for package in ("schemas", "event_log", "clip_index", "opensearch_engine", "consumer")
)
SUFFICES_WITH_ITS_CLASS = {"DamagedFile", "DamagedIndexFile", "OtherFormat", "EncoderUnavailable", "Fenced"}


def _table_texts() -> list[str]:
    """Return what stands in backticks in the first cell of each row of the section's tables."""
    section = OPERATIONS.partition("## What you see, what it is, what to do")[2].partition("\n## ")[0]
    first_cells = [row.split(" | ")[0] for row in re.findall(r"^\| (.*) \|$", section, re.MULTILINE)]
    return [text for cell in first_cells for text in re.findall(r"`([^`]+)`", cell)]


def _sentences() -> Iterator[tuple[str, str]]:
    """Yield each sentence with the place where it is written."""
    for package in SERVICES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(NOT_SERVICES):
                module, is_health = ast.parse(path.read_text()), name.endswith(HEALTH)
                for line, sentence in _sentences_of(module, is_health=is_health):
                    if sentence.strip(f"{ANY}:;() "):
                        yield f"{name}:{line}", sentence


def _sentences_of(module: ast.Module, *, is_health: bool) -> Iterator[tuple[int, str]]:
    for scope in ast.walk(module):
        if isinstance(scope, ast.ClassDef) and scope.name in STOPPING:
            for call in _calls(scope):
                if _name(call) == "__init__" and call.args:
                    yield call.lineno, max(map(_text, call.args), key=len)
        if isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for call in _calls(scope):
                yield from ((call.lineno, text) for text in _told_by(call, scope, is_health=is_health))


def _told_by(call: ast.Call, scope: ast.AST, *, is_health: bool) -> list[str]:
    name, arguments = _name(call), call.args
    if name == "failed" and isinstance(arguments[0], ast.Constant):
        return [f"waiting for {arguments[0].value} {ANY}"]
    if is_health and name == "append":
        return [_text(arguments[0])]
    if is_health and name == "ApiError":
        return _texts_of(arguments[1], scope)
    if name in STOPPING - SUFFICES_WITH_ITS_CLASS and len(arguments) == 1:
        return _texts_of(arguments[0], scope)
    return []


def _texts_of(value: ast.expr, scope: ast.AST) -> list[str]:
    """Return the text of an expression; of a variable, all texts that the function gives it."""
    if not isinstance(value, ast.Name):
        return [_text(value)]
    assigned = [node for node in ast.walk(scope) if isinstance(node, ast.Assign)]
    return [_text(node.value) for node in assigned if getattr(node.targets[0], "id", "") == value.id]


def _text(value: ast.expr) -> str:
    if isinstance(value, ast.Constant):
        return str(value.value)
    if isinstance(value, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else ANY for part in value.values)
    return ANY


def _calls(scope: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(scope) if isinstance(node, ast.Call)]


def _name(call: ast.Call) -> str:
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


def _explains(row: str, sentence: str) -> bool:
    """Whether the row's words stand in the sentence in this order; `…` stands for anything."""
    return re.search(".*".join(re.escape(part) for part in row.split(ANY)), sentence, re.DOTALL) is not None


SENTENCES = list(dict(reversed(pair) for pair in _sentences()).items())


def test_the_search_finds_the_sentences() -> None:
    assert len(SENTENCES) > 40


@pytest.mark.parametrize("sentence", [s for s, _ in SENTENCES], ids=[place for _, place in SENTENCES])
def test_every_sentence_with_which_a_service_stops_or_waits_is_explained(sentence: str) -> None:
    rows = [row for row in _table_texts() if row.strip(f"{ANY}:, ")]
    assert any(_explains(row, sentence) for row in rows), sentence


@pytest.mark.parametrize("row", _table_texts())
def test_every_explained_sentence_is_one_that_the_code_says(row: str) -> None:
    source = "\n".join(path.read_text() for package in SERVICES for path in (ROOT / package).rglob("*.py"))
    words = re.sub(r'"\s*\n\s*f?"', "", source)  # a sentence that goes on in the next line
    is_told = any(_explains(row, sentence) for sentence, _ in SENTENCES)
    assert is_told or all(part.strip() in words for part in row.split(ANY)), row


@pytest.mark.parametrize("tree", TREES)
def test_every_error_class_is_sorted_by_whether_it_ends_a_service(tree: str) -> None:
    classes = [node for node in ast.parse((ROOT / tree).read_text()).body if isinstance(node, ast.ClassDef)]
    assert {node.name for node in classes} - STOPPING - HANDLED == set()
    assert not STOPPING & HANDLED
