"""Small picture files for tests: one plain colour each."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {
    "red": (220, 20, 20),
    "green": (20, 200, 20),
    "blue": (20, 20, 220),
    "yellow": (230, 220, 30),
    "black": (10, 10, 10),
    "white": (245, 245, 245),
    "purple": (140, 30, 160),
    "orange": (250, 130, 10),
}


def png(colour: str, number: int = 0) -> bytes:
    noise = np.random.default_rng([number, *COLOURS[colour]]).integers(-10, 10, (16, 16, 3))
    pixels = np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_pair_folder(folder: Path, num_each: int = 4) -> Path:
    """Write pictures of each colour, whose captions name it, and a JSONL that describes them."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for colour in COLOURS:
        for number in range(num_each):
            name = f"{colour}-{number}.png"
            (folder / name).write_bytes(png(colour, number))
            lines.append({"image": name, "caption": f"a {colour} cloth", "metadata": {"colour": colour}})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
