"""Reads pairs from a CSV or a JSONL, or from a folder.

A folder holds one CSV or JSONL that describes its pictures, or a text file beside each picture: the caption
of `shirt.jpg` is `shirt.txt`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cliptide.pairs.pair import BadPair, Pair, metadata_texts
from cliptide.publishing.upload_event import default_content_id
from cliptide.publishing.upload_row import BadRow, UploadRow
from cliptide.publishing.upload_sources import SourceUnreadable, read_source

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")


def read_pairs(path: Path) -> Iterator[Pair | BadPair]:
    """Yield the pairs of a source, in the same order every time. Raises `SourceUnreadable`."""
    table = _table_of_folder(path) if path.is_dir() else path
    if table is None:
        return _pairs_beside_texts(path)
    if table.exists() and table.suffix.lower() not in TABLE_SUFFIXES:
        raise SourceUnreadable(f"{path} is none of these: a folder, or a .csv, .tsv, .jsonl or .ndjson file")
    return map(pair_from_row, read_source(table))


def _table_of_folder(folder: Path) -> Path | None:
    tables = sorted(p for p in folder.iterdir() if p.suffix.lower() in TABLE_SUFFIXES and p.is_file())
    if len(tables) > 1:
        names = ", ".join(table.name for table in tables)
        raise SourceUnreadable(f"{folder} holds several tables ({names}): name one of them")
    return tables[0] if tables else None


def _pairs_beside_texts(folder: Path) -> Iterator[Pair | BadPair]:
    for row in read_source(folder):
        if isinstance(row, BadRow):
            yield BadPair(row.label, "unreadable row", row.reason)
        elif row.fields.modality == "image" and row.fields.file is not None:
            yield _pair_beside_text(row, row.folder / row.fields.file)


def _pair_beside_text(row: UploadRow, picture: Path) -> Pair | BadPair:
    try:
        caption = picture.with_suffix(".txt").read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return BadPair(row.label, "no caption", f"there is no {picture.with_suffix('.txt').name} beside it")
    except (OSError, UnicodeDecodeError) as error:
        return BadPair(row.label, "no caption", f"{picture.with_suffix('.txt').name}: {error}")
    return Pair(row.label, default_content_id(row.fields), picture.read_bytes, caption.strip())


def pair_from_row(row: UploadRow | BadRow) -> Pair | BadPair:
    """Take a row as a pair: its file is the picture, and its caption or else its title the caption."""
    if isinstance(row, BadRow):
        return BadPair(row.label, "unreadable row", row.reason)
    fields = row.fields
    if fields.file is None:
        detail = "the picture behind a link is not fetched" if fields.link else "the row has a text only"
        return BadPair(row.label, "no picture", detail)
    caption = (fields.caption or fields.title or "").strip()
    metadata = metadata_texts({**fields.metadata, **({"tags": fields.tags} if fields.tags else {})})
    content_id = fields.content_id or default_content_id(fields)
    return Pair(row.label, content_id, (row.folder / fields.file).read_bytes, caption, metadata)
