"""Reads uploads from a folder of pictures and texts, from one of them, from a CSV or from a JSONL."""

from __future__ import annotations

import codecs
import csv
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

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
_OF_SPREADSHEETS, _OF_JSON_LINES = (".csv", ".tsv"), (".jsonl", ".ndjson")
_DELIMITERS = ",;\t"
_ADDRESS = re.compile("[a-z][a-z0-9+]+:/")
_NOT_UTF_8 = "it is not UTF-8: save it again with that encoding"
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
        is_address = _ADDRESS.match(str(path)) is not None
        way_on = ". Sources are files and folders here, not addresses" if is_address else ""
        raise SourceUnreadable(f"{path} does not exist{way_on}")
    if path.suffix.lower() in _OF_SPREADSHEETS:
        return _read_csv(path)
    if path.suffix.lower() in _OF_JSON_LINES:
        return _read_jsonl(path)
    modality = modality_of_file(path) if path.is_file() else None
    if modality is None:
        kinds = "a folder, a picture, a .txt file, or a .csv, .tsv, .jsonl or .ndjson file"
        raise SourceUnreadable(f"{path} is none of these: {kinds}")
    values = {"file": path.name, "modality": modality, **(given or {})}
    return iter((row_from_values(path.name, values, path.parent),))


def _is_single_file(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() not in _OF_SPREADSHEETS + _OF_JSON_LINES


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
    with path.open(encoding=_encoding_of(path), newline="") as lines:
        reader = csv.DictReader(lines, strict=True, delimiter=_delimiter_of(path))
        try:
            reader.fieldnames = _checked_header(path, reader.fieldnames)
            for cells in reader:
                yield _row_from_cells(f"line {reader.line_num}", cells, path.parent)
        except (csv.Error, UnicodeDecodeError) as error:  # the following rows cannot be told apart
            label = f"line {reader.line_num + 1} and after"
            yield BadRow(label, f"not readable as CSV ({_in_words(error)})")


def _encoding_of(path: Path) -> str:
    """Return UTF-16 where a file begins with its mark, as spreadsheets write Unicode texts; else UTF-8."""
    with path.open("rb") as file:
        is_utf_16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return "utf-16" if is_utf_16 else "utf-8-sig"


def _delimiter_of(path: Path) -> str:
    """Return what separates the most columns that are known: spreadsheets write semicolons or tabs, too."""
    with path.open(encoding=_encoding_of(path), newline="", errors="replace") as lines:
        header = lines.readline(MAX_CSV_FIELD_BYTES)

    def num_known(delimiter: str) -> int:
        return sum(_is_column(_column(name)) for name in next(csv.reader([header], delimiter=delimiter), ()))

    return max(_DELIMITERS, key=num_known)


def _in_words(error: csv.Error | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return _NOT_UTF_8
    return "a quotation mark is not closed" if str(error) == "unexpected end of data" else str(error)


def _checked_header(path: Path, header: Sequence[str] | None) -> list[str]:
    """Return the names of the columns as we write them, or raise `SourceUnreadable`."""
    if not header:
        raise SourceUnreadable(f"{path} has no header line")
    names = [_column(name) for name in header]
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise SourceUnreadable(f"{path} names a column twice: {', '.join(repeated)}")
    if unknown := [name for name in names if name and not _is_column(name)]:
        raise SourceUnreadable(
            f"{path} has columns that do not exist: {', '.join(unknown)}. There are {COLUMNS}, and "
            f"{METADATA_PREFIX}KEY for fields of your own, such as {METADATA_PREFIX}{unknown[0]}"
        )
    return names


def _column(name: str) -> str:
    """Return a column's name without spaces around it, in small letters where that makes it one of ours."""
    name = name.strip()
    return name.lower() if _is_column(name.lower()) and not _is_metadata(name) else name


def _is_metadata(name: str) -> bool:
    return name.startswith(METADATA_PREFIX)


def _is_column(name: str) -> bool:
    return name in UploadFields.model_fields or name in OTHER_NAMES or _is_metadata(name)


def _row_from_cells(label: str, cells: dict[str | None, Any], folder: Path) -> UploadRow | BadRow:
    if None in cells:
        return BadRow(label, "has more cells than the header has columns")
    filled = {str(name): cell for name, cell in cells.items() if cell not in (None, "")}
    try:
        metadata = json.loads(filled.pop("metadata", "{}"))
    except _JSON_ERRORS as error:
        return BadRow(label, f"metadata: not a JSON object ({error})")
    columns = [name for name in filled if name.startswith(METADATA_PREFIX)]
    if columns and isinstance(metadata, dict):
        metadata |= {name.removeprefix(METADATA_PREFIX): filled.pop(name) for name in columns}
    return row_from_values(label, {**filled, "metadata": metadata}, folder)


def _read_jsonl(path: Path) -> Iterator[UploadRow | BadRow]:
    with _open_lines(path) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _row_from_line(f"line {number}", line, path.parent)


def _open_lines(path: Path) -> IO[Any]:
    """Open as bytes, so that a line which is not UTF-8 spoils itself alone; UTF-16 has no such lines."""
    if _encoding_of(path) == "utf-16":
        return path.open(encoding="utf-16", errors="replace")
    return path.open("rb")


def _row_from_line(label: str, line: bytes | str, folder: Path) -> UploadRow | BadRow:
    try:
        values = json.loads(line)
    except UnicodeDecodeError:
        return BadRow(label, f"not JSON ({_NOT_UTF_8})")
    except _JSON_ERRORS as error:
        return BadRow(label, f"not JSON ({error})")
    if not isinstance(values, dict):
        return BadRow(label, "not a JSON object")
    return row_from_values(
        label, {name: value for name, value in values.items() if value is not None}, folder
    )
