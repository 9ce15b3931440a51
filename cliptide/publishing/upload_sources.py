"""Reads uploads from a folder of pictures and texts, from one of them, from a CSV or from a JSONL."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clip_index.encoder.picture_signatures import NUM_SIGNATURE_BYTES, picture_format
from cliptide.publishing.upload_row import (
    COLUMNS,
    OTHER_NAMES,
    BadRow,
    UploadFields,
    UploadRow,
    row_from_values,
)
from schemas.events import Modality

MODALITY_OF_SUFFIX: dict[str, Modality] = {
    ".jpg": "image",
    ".jpeg": "image",
    ".png": "image",
    ".webp": "image",
    ".gif": "image",
    ".txt": "text",
}
HIDDEN, WITHOUT_SUFFIX, LINK = "hidden", "no suffix", "link to a folder or to nothing"
NO_FILE = "pipe, socket or device"
SYSTEM_FOLDERS = frozenset(  # where machines keep copies and thumbnails of what people keep beside them
    {
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "@tmp",
        "__macosx",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "lost+found",
    }
)
"""In lower case, because some file systems keep other cases."""
METADATA_PREFIX = "metadata."
MAX_CSV_FIELD_BYTES = 16 * 1024 * 1024
_JSON_ERRORS = (ValueError, RecursionError)  # bad syntax or encoding, too many digits; too deep


class SourceUnreadable(Exception):
    """The source is absent, of an unknown type, or has no usable header."""


def read_source(
    path: Path, left_out: Counter[str] | None = None, given: Mapping[str, str] | None = None
) -> Iterator[UploadRow | BadRow]:
    """Yield the rows of a source, in the same order every time. Raises `SourceUnreadable`.

    Files of a folder that are no upload are counted in `left_out`, by the end of their names. `given` are
    further columns of a single picture or text; no other source takes them.
    """
    if given and not _is_single_file(path):
        flags = " and ".join(f"--{name.removeprefix('content_')}" for name in given)
        raise SourceUnreadable(f"{flags}: for a single picture or text only, and {path} is none")
    if path.is_dir():
        return _read_folder(path, Counter() if left_out is None else left_out)
    if not path.exists():
        raise SourceUnreadable(f"{path} does not exist")
    if path.suffix.lower() == ".csv":
        return _read_csv(path)
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return _read_jsonl(path)
    modality = modality_of_file(path) if path.is_file() else None
    if modality is None:
        kinds = "a folder, a picture, a .txt file, or a .csv, .jsonl or .ndjson file"
        raise SourceUnreadable(f"{path} is none of these: {kinds}")
    values = {"file": path.name, "modality": modality, **(given or {})}
    return iter((row_from_values(path.name, values, path.parent),))


def _is_single_file(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() not in (".csv", ".jsonl", ".ndjson")


def read_sources(
    paths: Sequence[Path], left_out: Counter[str] | None = None, given: Mapping[str, str] | None = None
) -> Iterator[UploadRow | BadRow]:
    """Yield the rows of several sources, one source after the other. Their labels then name the source."""
    for path in paths:
        for row in read_source(path, left_out, given):
            is_named = len(paths) == 1 or row.label == path.name
            yield row if is_named else replace(row, label=f"{path}: {row.label}")


def modality_of_file(path: Path) -> Modality | None:
    """Tell a picture from a text by the file's name, or else by its first bytes; None for another file."""
    if (by_name := MODALITY_OF_SUFFIX.get(path.suffix.lower())) is not None:
        return by_name
    with path.open("rb") as file:
        return None if picture_format(file.read(NUM_SIGNATURE_BYTES)) is None else "image"


def _read_folder(folder: Path, left_out: Counter[str]) -> Iterator[UploadRow | BadRow]:
    """Yield every picture and text below the folder, and what cannot be read. Count the other files."""
    unreadable: list[OSError] = []
    for path in sorted(_entries_below(folder, unreadable.append)):
        relative = path.relative_to(folder)
        if any(part.startswith(".") or part.casefold() in SYSTEM_FOLDERS for part in relative.parts):
            left_out[HIDDEN] += 1
        elif path.is_symlink() and not path.is_file():
            left_out[LINK] += 1
        elif not path.is_file():
            left_out[NO_FILE] += 1
        elif (modality := _modality_if_readable(path)) is None:
            left_out[path.suffix.lower() or WITHOUT_SUFFIX] += 1
        else:
            name = relative.as_posix()
            yield row_from_values(name, {"file": name, "modality": modality}, folder)

    for error in unreadable:
        name = Path(str(error.filename)).relative_to(folder).as_posix()
        yield BadRow(f"{name}/", f"the folder cannot be read ({error.strerror})")


def _entries_below(folder: Path, on_error: Callable[[OSError], None]) -> Iterator[Path]:
    """Yield the files below a folder, and the links to other folders, which may lead in a circle."""
    for place, folders, files in os.walk(folder, onerror=on_error):
        yield from (Path(place, name) for name in files)
        yield from (Path(place, name) for name in folders if Path(place, name).is_symlink())


def _modality_if_readable(path: Path) -> Modality | None:
    try:
        return modality_of_file(path)
    except OSError:
        return None


def _read_csv(path: Path) -> Iterator[UploadRow | BadRow]:
    csv.field_size_limit(MAX_CSV_FIELD_BYTES)
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            _check_header(path, reader.fieldnames)
            for cells in reader:
                yield _row_from_cells(f"line {reader.line_num}", cells, path.parent)
        except (csv.Error, UnicodeDecodeError) as error:  # the following rows cannot be told apart
            yield BadRow(f"line {reader.line_num + 1} and after", f"not readable as CSV ({error})")


def _check_header(path: Path, names: Sequence[str] | None) -> None:
    if not names:
        raise SourceUnreadable(f"{path} has no header line")
    if repeated := [name for name, count in Counter(name.strip() for name in names).items() if count > 1]:
        raise SourceUnreadable(f"{path} names a column twice: {', '.join(repeated)}")
    if unknown := [name for name in map(str.strip, names) if name and not _is_column(name)]:
        raise SourceUnreadable(
            f"{path} has columns that do not exist: {', '.join(unknown)}. There are {COLUMNS}, and "
            f"{METADATA_PREFIX}KEY for fields of your own, such as {METADATA_PREFIX}{unknown[0]}"
        )


def _is_column(name: str) -> bool:
    return name in UploadFields.model_fields or name in OTHER_NAMES or name.startswith(METADATA_PREFIX)


def _row_from_cells(label: str, cells: dict[str | None, Any], folder: Path) -> UploadRow | BadRow:
    if None in cells:
        return BadRow(label, "has more cells than the header has columns")
    filled = {str(name).strip(): cell for name, cell in cells.items() if cell not in (None, "")}
    try:
        metadata = json.loads(filled.pop("metadata", "{}"))
    except _JSON_ERRORS as error:
        return BadRow(label, f"metadata: not a JSON object ({error})")
    columns = [name for name in filled if name.startswith(METADATA_PREFIX)]
    if columns and isinstance(metadata, dict):
        metadata |= {name.removeprefix(METADATA_PREFIX): filled.pop(name) for name in columns}
    return row_from_values(label, {**filled, "metadata": metadata}, folder)


def _read_jsonl(path: Path) -> Iterator[UploadRow | BadRow]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _row_from_line(f"line {number}", line, path.parent)


def _row_from_line(label: str, line: bytes, folder: Path) -> UploadRow | BadRow:
    try:
        values = json.loads(line)
    except _JSON_ERRORS as error:
        return BadRow(label, f"not JSON ({error})")
    if not isinstance(values, dict):
        return BadRow(label, "not a JSON object")
    return row_from_values(
        label, {name: value for name, value in values.items() if value is not None}, folder
    )
