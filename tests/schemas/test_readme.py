"""What the page for producers shows is what the decoder reads."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from zlib import crc32

import pytest
from confluent_kafka import murmur2

from fakes.sample_events import NOON, NOON_MS
from schemas.avro.format import MARKER, current_schema
from schemas.codec import EventDecoder
from schemas.errors import BAD_EVENT_REASONS
from schemas.events import Event, TextContent, UploadEvent
from tools.release_schema import SCHEMA

ROOT = Path(__file__).parents[2]
README = (ROOT / "schemas" / "README.md").read_text("utf-8")


def code_blocks(language: str) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [block for found, block in blocks if found == language]


def table_names(heading: str) -> list[str]:
    """The names in the first column of the first table below a heading."""
    table = README.split(f"\n## {heading}\n")[1].split("\n\n|")[1].split("\n\n")[0]
    return re.findall(r"^\| `(\w+)` ", table, re.MULTILINE)


def decode(key: str, value: bytes) -> Event:
    return EventDecoder().decode(key=key.encode(), value=value, timestamp_ms=NOON_MS)


def test_there_are_json_examples() -> None:
    assert len(code_blocks("json")) == 4


@pytest.mark.parametrize("example", code_blocks("json"))
def test_a_json_example_is_an_event(example: str) -> None:
    assert decode("shoe-1", example.encode()).content_id == "shoe-1"


def test_the_first_json_example_shows_every_field_of_an_upload() -> None:
    names = {f["name"] for f in current_schema().parsed["fields"]}
    assert set(json.loads(code_blocks("json")[0])) == names - {"remove"}


def test_the_bytes_of_the_avro_example_are_the_event_that_it_explains() -> None:
    (block,) = code_blocks("hex")
    value = b"".join(bytes.fromhex(re.split(r"\s{2,}", line)[0]) for line in block.splitlines())
    assert decode("shoe-1", value) == UploadEvent(
        event_id="", content_id="shoe-1", source="shop", occurred_at=NOON, content=TextContent("a red shoe")
    )


def test_the_first_kcat_line_publishes_an_event_under_its_key() -> None:
    words = shlex.split(code_blocks("")[0])
    event = decode(words[words.index("-k") + 1], words[words.index("%s") + 1].encode())
    assert isinstance(event, UploadEvent)


def test_every_kcat_line_names_the_partitioner() -> None:
    lines = [line for block in code_blocks("") for line in block.splitlines() if "kcat -P" in line]
    assert len(lines) == 3
    assert all("-X partitioner=murmur2_random" in line for line in lines)


def test_the_keys_that_show_a_partitioner_are_placed_as_the_page_says() -> None:
    [placed] = re.findall(r"of four partitions (.*)\.$", README, re.MULTILINE)
    said = {
        key: int(partition)
        for keys, partition in re.findall(r"((?:`[\w-]+`(?: and )?)+) (?:goes )?into (\d)", placed)
        for key in re.findall(r"`([\w-]+)`", keys)
    }
    assert len(set(said.values())) > 1
    assert said == {key: murmur2(key.encode(), 4) for key in said}
    assert said != {key: crc32(key.encode()) % 4 for key in said}


def test_the_event_of_the_javascript_example_decodes() -> None:
    (block,) = code_blocks("js")
    literal = re.search(r"const event = (.*);$", block, re.MULTILINE)
    assert literal is not None
    event = decode("shoe-1", re.sub(r"(\w+):", r'"\1":', literal.group(1)).encode())
    assert isinstance(event, UploadEvent)


def test_the_event_of_the_go_example_decodes() -> None:
    (block,) = code_blocks("go")
    [value] = re.findall("`(.*)`", block)
    assert isinstance(decode("shoe-1", value.encode()), UploadEvent)


def test_the_event_of_the_python_example_decodes() -> None:
    (block,) = code_blocks("python")
    literal = re.search(r"^event = (.*)$", block, re.MULTILINE)
    assert literal is not None
    event = decode("shoe-1", literal.group(1).encode())  # this dict literal is JSON as well
    assert isinstance(event, UploadEvent)


def test_every_field_of_the_schema_is_in_the_table() -> None:
    names = [field["name"] for field in json.loads(SCHEMA.read_text("utf-8"))["fields"]]
    assert table_names("The event") == names


def test_every_reason_of_the_consumer_is_in_the_second_table() -> None:
    raised = r'(?:BadContent|ReferenceAbsent|SetAside)\(\s*"(\w+)"|^ +reason = "(\w+)"'
    paths = [*(ROOT / "consumer").rglob("*.py"), *(ROOT / "clip_index").rglob("*.py")]
    found = [pair for path in paths for pair in re.findall(raised, path.read_text(), re.MULTILINE)]
    reasons = {name for pair in found for name in pair if name}
    reasons |= {"reference_unreachable"}  # chosen by the kind of the failure
    second = README.split("\n| content | means |\n")[1].split("\n\n")[0]
    named = set(re.findall(r"^\| `(\w+)` ", second, re.MULTILINE))
    assert named == reasons - BAD_EVENT_REASONS


def test_the_ten_bytes_to_copy_are_the_header_of_our_schema() -> None:
    [header] = re.findall(r"`(c3 01(?: [0-9a-f]{2}){8})`", README)
    assert bytes.fromhex(header) == MARKER + current_schema().fingerprint


def test_every_example_that_the_page_names_is_there_and_named() -> None:
    named = {ROOT / path for path in re.findall(r"\]\(\.\./(examples/producers/\w+/[\w./]+)\)", README)}
    assert all(path.is_file() for path in named)
    producers = (ROOT / "examples" / "producers").iterdir()
    folders = {path for path in producers if path.is_dir() and any(path.iterdir())}
    assert {ROOT / Path(*path.relative_to(ROOT).parts[:3]) for path in named} == folders


def test_every_reason_is_in_the_table() -> None:
    assert sorted(table_names("When an event is not accepted")) == sorted(BAD_EVENT_REASONS)
