"""AsyncAPI's own parser reads the document of the events, which tools for AsyncAPI are given."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from schemas.events import PatchEvent, UploadEvent
from tests.clients.toolchain import HERE, NODE, run
from tools.event_documents import ASYNC_API, JSON_SCHEMA

ERROR = 0
ADVICE = {"asyncapi-latest-version"}
"""3.0.0 is the version that every tool for AsyncAPI 3 reads."""


def judge(document: Path, packages: Path) -> dict[str, Any]:
    printed = run(NODE, HERE / "scripts" / "check_async_api.cjs", packages, document, cwd=document.parent)
    judged: dict[str, Any] = json.loads(printed)
    return judged


def test_the_parser_finds_nothing_wrong_and_reads_every_field_of_an_event(packages: Path) -> None:
    judged = judge(ASYNC_API, packages)
    assert {finding["code"] for finding in judged["findings"]} <= ADVICE, judged["findings"]
    assert judged["document"]["operations"] == ["receiveUploads", "sendDeadLetters"]
    fields = set(judged["document"]["fields"]["uploadEvent"])
    of_events = set(UploadEvent.__dataclass_fields__) | set(PatchEvent.__dataclass_fields__)
    assert fields == of_events | {"operation"}


def test_the_parser_would_name_what_is_wrong(packages: Path, tmp_path: Path) -> None:
    shutil.copy(JSON_SCHEMA, tmp_path)
    wrong = ASYNC_API.read_text("utf-8").replace("'#/channels/uploads'", "'#/channels/nowhere'")
    (tmp_path / "asyncapi.yaml").write_text(wrong, "utf-8")
    judged = judge(tmp_path / "asyncapi.yaml", packages)
    assert judged["document"] is None
    assert ERROR in {finding["severity"] for finding in judged["findings"]}
