"""Each example runs against one demo, by the very commands of its page."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.consumer.running import eventually
from tests.examples.running_demo import PATIENCE_SECONDS, ROOT, RunningDemo, commands_for, commands_of

pytestmark = [pytest.mark.broker, pytest.mark.encoder]

EXAMPLES = ROOT / "examples"
PICTURES = EXAMPLES / "shop_catalogue" / "pictures"
PRODUCERS: dict[str, tuple[str, ...]] = {
    "Python": (),
    "JavaScript": ("node", "npm"),
    "Go": ("go",),
    "Java": ("javac", "mvn"),
}
"""The languages of the smallest producers, and the programs that they need."""
if os.environ.get("CLIPTIDE_TEST_RUST"):  # its build takes minutes: make producer-rust
    PRODUCERS = {"Rust": ("cargo",)}


def test_every_example_is_in_the_table() -> None:
    page = (EXAMPLES / "README.md").read_text()
    folders = [path.name for path in EXAMPLES.iterdir() if path.is_dir()]
    assert [name for name in folders if f"[{name}]({name}/)" not in page] == []


def test_a_shops_catalogue_is_published_and_found_with_its_prices(demo: RunningDemo) -> None:
    output = demo.run(f"cd {ROOT}; {commands_of(EXAMPLES / 'shop_catalogue/README.md')}", ROOT)
    (ROOT / "uploads.jsonl").unlink()
    answer = json.loads(output[output.rindex('{"results"') :])
    assert answer["results"]["image"]["hits"][0]["content_id"] == "picture:U-310"
    found = demo.contents_of("shop")
    assert len(found) == 10
    assert found["name:D-101"]["link"] == "https://shop.example/D-101"


def test_a_photo_library_is_kept_in_step(demo: RunningDemo, tmp_path: Path) -> None:
    pictures = tmp_path / "Pictures"
    (pictures / "2024").mkdir(parents=True)
    shutil.copy(PICTURES / "D-101.jpg", pictures / "2024" / "dress.jpg")
    shutil.copy(PICTURES / "S-204.jpg", pictures / "shoe.jpg")
    (pictures / "broken.jpg").write_bytes(b"no picture")
    commands = commands_of(EXAMPLES / "photo_library" / "README.md").splitlines()
    sync, search = commands[0], commands[-1]
    assert "--every" in commands[1]

    first = demo.run(sync, ROOT, HOME=str(tmp_path))
    assert "not taken: broken.jpg" in first
    assert "2 uploaded, 0 deleted, 0 unchanged" in first
    demo.wait_for(first)
    found = json.loads(demo.run(search, ROOT))["results"]["image"]["hits"]
    assert {hit["content_id"] for hit in found} == {"2024/dress.jpg", "shoe.jpg"}

    (pictures / "broken.jpg").unlink()
    (pictures / "shoe.jpg").unlink()
    shutil.copy(PICTURES / "B-415.jpg", pictures / "2024" / "dress.jpg")
    os.utime(pictures / "2024" / "dress.jpg", (2_000_000_000, 2_000_000_000))
    second = demo.run(sync, ROOT, HOME=str(tmp_path))
    assert "1 uploaded, 1 deleted, 0 unchanged" in second
    demo.wait_for(second)
    assert {name: hit["version"] for name, hit in demo.contents_of("photos").items()} == {
        "2024/dress.jpg": 2_000_000_000 * 10**9
    }
    assert "0 uploaded, 0 deleted, 1 unchanged" in demo.run(sync, ROOT, HOME=str(tmp_path))


def test_a_library_that_is_not_there_deletes_nothing(demo: RunningDemo, tmp_path: Path) -> None:
    before = demo.contents_of("photos")
    missing = "python examples/photo_library/sync.py ~/Pictures 2>&1 || true"
    assert "is not a folder" in demo.run(missing, ROOT, HOME=str(tmp_path))
    assert demo.contents_of("photos") == before


@pytest.mark.parametrize(
    ("language", "expected_id", "programs"),
    [("java", "jumper-8", ("javac", "mvn")), ("go", "umbrella-8", ("go",))],
    ids=["java", "go"],
)
def test_a_producer_of_another_language_publishes_a_text_a_picture_and_a_delete(
    demo: RunningDemo, tmp_path: Path, language: str, expected_id: str, programs: tuple[str, ...]
) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not found: make system-deps")
    name = f"{language}_producer"
    copy = tmp_path / "examples" / name
    shutil.copytree(EXAMPLES / name, copy, ignore=shutil.ignore_patterns("target"))
    shutil.copytree(PICTURES, tmp_path / PICTURES.relative_to(ROOT))  # the page names one of them
    output = demo.run(commands_of(copy / "README.md"), tmp_path)
    demo.wait_for(output)
    [(content_id, hit)] = demo.contents_of(language).items()
    assert (content_id, hit["modality"]) == (expected_id, "image")


@pytest.mark.parametrize("language", PRODUCERS)
def test_the_smallest_producer_publishes_to_the_demo_by_the_commands_of_its_page(
    demo: RunningDemo, tmp_path: Path, language: str
) -> None:
    missing = [program for program in PRODUCERS[language] if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not found: make system-deps")
    built = shutil.ignore_patterns("target", "node_modules")
    shutil.copytree(EXAMPLES / "producers", tmp_path / "examples" / "producers", ignore=built)
    shutil.copytree(ROOT / "schemas", tmp_path / "schemas", ignore=shutil.ignore_patterns("*.py"))
    demo.run(commands_for(language, EXAMPLES / "producers" / "README.md"), tmp_path)
    eventually(lambda: demo.client.content("shoe-1") is not None, PATIENCE_SECONDS)
    demo.run("cliptide delete shoe-1", ROOT)
    eventually(lambda: demo.client.content("shoe-1") is None, PATIENCE_SECONDS)


def test_langchain_retrieves_texts_and_pictures(demo: RunningDemo) -> None:
    commands = commands_of(EXAMPLES / "langchain_retriever" / "README.md").splitlines()
    assert commands[0] == "pip install langchain-core"
    lines = demo.run(commands[1], ROOT).splitlines()
    assert len(lines) == 10
    assert "umbrella" in lines[0]
    assert demo.client.url in lines[5]  # the link of a picture
