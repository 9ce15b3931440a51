import errno
import os
from collections import Counter
from pathlib import Path

import pytest

from cliptide.publishing.upload_row import BadRow, UploadRow
from cliptide.publishing.upload_sources import SourceUnreadable, read_source, read_sources


def rows_of(path: Path) -> list[UploadRow | BadRow]:
    return list(read_source(path))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_folder_yields_its_pictures_and_texts_in_a_stable_order(tmp_path: Path) -> None:
    for name in ("b/two.PNG", "a.txt", "b/one.jpeg", "notes.md", ".hidden/x.png", "b/.y.jpg"):
        write(tmp_path / name, "x")
    assert [row.label for row in rows_of(tmp_path)] == ["a.txt", "b/one.jpeg", "b/two.PNG"]


HEIC, AVIF, JPEG = b"\0\0\0\x18ftypheic", b"\0\0\0\x20ftypavif", b"\xff\xd8\xff\xe0\0\x10JFIF"


def test_pictures_of_a_folder_are_known_by_their_bytes_and_the_rest_is_counted(tmp_path: Path) -> None:
    pictures = {"a.heic": HEIC, "b.avif": AVIF, "c.jfif": JPEG, "d.jpe": JPEG, "e": JPEG, "f.tmp": JPEG}
    others = {"g.mov": b"\0\0\0\x14ftypqt  ", "h.MOV": b"", "README": b"words", "i.md": b"words"}
    for name, data in (pictures | others).items():
        (tmp_path / name).write_bytes(data)
    left_out: Counter[str] = Counter()
    rows = list(read_source(tmp_path, left_out))
    assert [row.label for row in rows] == sorted(pictures)
    assert {row.fields.modality for row in rows if isinstance(row, UploadRow)} == {"image"}
    assert left_out == {".mov": 2, "no suffix": 1, ".md": 1}


@pytest.mark.parametrize(
    "folder",
    ["@eaDir", "__MACOSX", "a/#recycle/b", ".thumbnails", "$RECYCLE.BIN", "@Recycle", "$Recycle.Bin"],
)
def test_what_machines_keep_beside_pictures_is_left_out_and_counted(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "thumb.jpg").write_bytes(JPEG)
    left_out: Counter[str] = Counter()
    assert list(read_source(tmp_path, left_out)) == []
    assert left_out == {"hidden": 1}


def test_links_and_what_is_no_file_are_counted_and_no_link_is_followed_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "album").mkdir()
    (tmp_path / "album/a.jpg").write_bytes(JPEG)
    (tmp_path / "album/around").symlink_to(tmp_path)
    (tmp_path / "elsewhere").symlink_to(tmp_path / "album")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing")
    (tmp_path / "same.jpg").symlink_to(tmp_path / "album/a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    left_out: Counter[str] = Counter()
    assert [row.label for row in read_source(tmp_path, left_out)] == ["album/a.jpg", "same.jpg"]
    assert left_out == {"link to a folder or to nothing": 3, "pipe, socket or device": 1}


def test_a_folder_that_cannot_be_read_is_named_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for album in ("a", "b", "c"):
        (tmp_path / album / "deep").mkdir(parents=True)
        (tmp_path / album / "deep/1.jpg").write_bytes(JPEG)
    scandir = os.scandir

    def refuse(place: str) -> object:
        if str(place) == str(tmp_path / "b/deep"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    *rows, refused = rows_of(tmp_path)
    assert [row.label for row in rows] == ["a/deep/1.jpg", "c/deep/1.jpg"]
    assert refused == BadRow("b/deep/", "the folder cannot be read (Permission denied)")


def test_a_single_picture_or_text_is_a_source_whose_id_is_its_name(tmp_path: Path) -> None:
    (tmp_path / "phone.bin").write_bytes(HEIC)
    for name, modality in (("a.txt", "text"), ("phone.bin", "image"), ("b.PNG", "image")):
        path = write(tmp_path / "deep" / name, "x") if name != "phone.bin" else tmp_path / name
        [row] = rows_of(path)
        assert isinstance(row, UploadRow)
        assert (row.label, row.fields.file, row.fields.modality) == (name, name, modality)
        assert (row.folder / name).is_file()


def test_several_sources_are_read_one_after_the_other_and_labels_name_theirs(tmp_path: Path) -> None:
    picture, table = write(tmp_path / "b.png", "x"), write(tmp_path / "a.csv", "id,text\nboot,red\n")
    assert [row.label for row in read_sources([picture, table])] == ["b.png", f"{table}: line 2"]
    assert [row.label for row in read_sources([table])] == ["line 2"]


def test_a_single_file_takes_an_id_and_a_title_and_no_other_source_does(tmp_path: Path) -> None:
    (tmp_path / "hat.txt").write_text("a hat")
    (tmp_path / "rows.csv").write_text("text\na hat\n")
    given = {"content_id": "hat-1", "title": "A hat"}
    [row] = read_source(tmp_path / "hat.txt", given=given)
    assert isinstance(row, UploadRow)
    assert (row.fields.content_id, row.fields.title) == ("hat-1", "A hat")
    for other in (tmp_path, tmp_path / "rows.csv"):
        with pytest.raises(SourceUnreadable, match="--id and --title: for a single picture or text only"):
            list(read_source(other, given=given))


def test_a_single_file_of_another_kind_is_refused_with_the_kinds_that_are_read(tmp_path: Path) -> None:
    with pytest.raises(
        SourceUnreadable, match=r"film.mov is none of these: a folder, a picture, a \.txt file"
    ):
        rows_of(write(tmp_path / "film.mov", "x"))


def test_columns_named_as_other_tools_name_them_are_understood(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'image,caption,title,tags\n1.jpg,A child,Stairs,"pink, dress"\n')
    [row] = rows_of(path)
    assert isinstance(row, UploadRow)
    assert row.fields.file == "1.jpg"
    assert row.fields.shown_title == "Stairs"
    assert row.fields.descriptions == {"caption": "A child", "tags": ("pink", "dress")}
    [other] = rows_of(write(tmp_path / "b.jsonl", '{"file_name": "2.jpg", "tags": ["pink", "dress"]}'))
    assert isinstance(other, UploadRow)
    assert (other.fields.file, other.fields.descriptions) == ("2.jpg", {"tags": ("pink", "dress")})
    [elsewhere] = rows_of(write(tmp_path / "c.jsonl", '{"image": "https://cdn/a.jpg"}'))
    assert isinstance(elsewhere, UploadRow)
    assert (elsewhere.fields.link, elsewhere.fields.modality) == ("https://cdn/a.jpg", "image")


CONFUSED = {
    "two_pictures": ('{"file": "a.jpg", "image": "b.jpg"}', "image: another column gives the file already"),
    "two_ids": ('{"id": "a", "content_id": "b", "text": "x"}', "id: another column gives the content_id"),
    "caption_twice": (
        '{"text": "x", "caption": "a", "metadata": {"caption": "b"}}',
        "caption: given as a column and in",
    ),
    "caption_alone": ('{"caption": "a red boot"}', "the column of a text is named text"),
    "tags_of_numbers": ('{"text": "x", "tags": [1]}', "tags.0: "),
}


@pytest.mark.parametrize(("line", "reason"), CONFUSED.values(), ids=CONFUSED.keys())
def test_a_row_that_can_be_understood_in_two_ways_is_refused(tmp_path: Path, line: str, reason: str) -> None:
    [row] = rows_of(write(tmp_path / "a.jsonl", line))
    assert isinstance(row, BadRow)
    assert reason in row.reason


def test_a_csv_row_carries_every_column(tmp_path: Path) -> None:
    source = write(
        tmp_path / "uploads.csv",
        "id,file,owner,source,version,occurred_at,link,metadata,metadata.colour\n"
        'boot-1,boot.png,ada,shop,3,2026-01-02T03:04:05Z,https://x/1,"{""price"": 9.5, ""new"": true}",red\n',
    )
    [row] = rows_of(source)
    assert isinstance(row, UploadRow)
    assert row.label == "line 2"
    assert row.folder == tmp_path
    assert row.fields.content_id == "boot-1"
    assert row.fields.owner_id == "ada"
    assert row.fields.version == 3
    assert row.fields.occurred_at is not None
    assert row.fields.metadata == {"price": 9.5, "new": True, "colour": "red"}


def test_a_jsonl_line_carries_a_text(tmp_path: Path) -> None:
    source = write(
        tmp_path / "uploads.jsonl", '\n{"content_id": "t", "text": "a red boot", "owner_id": null}\n'
    )
    [row] = rows_of(source)
    assert isinstance(row, UploadRow)
    assert row.label == "line 2"
    assert row.fields.text == "a red boot"
    assert row.fields.owner_id is None


BAD_LINES = {
    "not_json": ("{", "not JSON"),
    "nested_beyond_measure": ('{"text": "b", "metadata": ' + "[" * 100_000, "not JSON"),
    "a_number_of_5000_digits": ('{"text": "b", "version": ' + "9" * 5000 + "}", "not JSON"),
    "not_an_object": ("[1]", "not a JSON object"),
    "nothing_inside": ('{"content_id": "x"}', "has no file, text or link"),
    "file_and_text": ('{"file": "a.png", "text": "b"}', "has both file and text"),
    "bare_link": ('{"link": "https://x/1"}', "a link without file or text needs modality"),
    "unknown_column": (
        '{"text": "b", "colour": "red"}',
        "colour: there is no such column; there are content_id, file, text, ",
    ),
    "naive_time": (
        '{"text": "b", "occurred_at": "2026-01-01T00:00:00"}',
        "occurred_at: must have a time zone",
    ),
    "version_in_words": ('{"text": "b", "version": "new"}', "version: must be a whole number"),
    "an_integer_that_would_change": (
        '{"text": "b", "metadata": {"a": 9007199254740993}}',
        "a: a double cannot hold this integer; send it as a text",
    ),
    "nested_metadata": ('{"text": "b", "metadata": {"a": [1]}}', "metadata.a"),
    "digest_too_short": ('{"link": "s3://x/1", "sha256": "ab"}', "sha256: "),
}


@pytest.mark.parametrize(("line", "reason"), BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_bad_line_is_named_and_the_others_go_on(tmp_path: Path, line: str, reason: str) -> None:
    source = write(tmp_path / "uploads.jsonl", f'{{"text": "before"}}\n{line}\n{{"text": "after"}}\n')
    before, bad, after = rows_of(source)
    assert isinstance(before, UploadRow)
    assert isinstance(after, UploadRow)
    assert isinstance(bad, BadRow)
    assert bad.label == "line 2"
    assert reason in bad.reason


def test_a_csv_row_with_too_many_cells_is_bad(tmp_path: Path) -> None:
    source = write(tmp_path / "uploads.csv", "text,owner\na,b,c\nd,e\n")
    bad, good = rows_of(source)
    assert bad == BadRow("line 2", "has more cells than the header has columns")
    assert isinstance(good, UploadRow)


@pytest.mark.parametrize("metadata", ["{colour: red}", "[" * 100_000], ids=["words", "nested"])
def test_a_csv_cell_of_metadata_must_be_json(tmp_path: Path, metadata: str) -> None:
    source = write(tmp_path / "uploads.csv", f"text,metadata\na,{metadata}\n")
    [bad] = rows_of(source)
    assert isinstance(bad, BadRow)
    assert bad.reason.startswith("metadata: not a JSON object")


def test_a_csv_that_breaks_off_inside_quotes_names_the_line(tmp_path: Path) -> None:
    source = write(tmp_path / "uploads.csv", 'text\nfine\n"never closed\n')
    good, bad = rows_of(source)
    assert isinstance(good, UploadRow)
    assert isinstance(bad, BadRow)
    assert "not readable as CSV" in bad.reason


def test_a_csv_with_an_unknown_column_is_refused_once_and_not_row_by_row(tmp_path: Path) -> None:
    source = write(tmp_path / "shop.csv", "sku,text, metadata.colour,price,\n" + "a,a red boot,red,5,\n" * 3)
    with pytest.raises(SourceUnreadable, match=r"do not exist: sku, price\. There are .*metadata\.sku$"):
        rows_of(source)


UNREADABLE = {
    "absent": "nothing.csv",
    "another_type": "uploads.xlsx",
    "empty_csv": "empty.csv",
    "a_column_twice": "twice.csv",
}


@pytest.mark.parametrize("name", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_source_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path / "uploads.xlsx", "x")
    write(tmp_path / "empty.csv", "")
    write(tmp_path / "twice.csv", "id,text, id\na,words,b\n")
    with pytest.raises(SourceUnreadable):
        rows_of(tmp_path / name)


SPREADSHEETS = {
    "semicolons": ("a.csv", b"id;text;metadata.price\n1;a hat, red;9,5\n"),
    "tabs": ("a.csv", b"id\ttext\tmetadata.price\n1\ta hat, red\t9,5\n"),
    "tabs and another suffix": ("a.TSV", b"id\ttext\tmetadata.price\n1\ta hat, red\t9,5\n"),
    "a mark of UTF-8": ("a.csv", 'id;text;metadata.price\n1;"a hat, red";9,5\n'.encode("utf-8-sig")),
    "UTF-16": ("a.csv", "id\ttext\tmetadata.price\r\n1\ta hat, red\t9,5\r\n".encode("utf-16")),
    "UTF-16, the other order": (
        "a.csv",
        b"\xfe\xff" + 'id,text,metadata.price\n1,"a hat, red","9,5"\n'.encode("utf-16-be"),
    ),
    "capitals": ("a.csv", b'ID, Text ,metadata.price\n1,"a hat, red","9,5"\n'),
    "the ends of lines of old Macs": ("a.csv", b'id,text,metadata.price\r1,"a hat, red","9,5"\r'),
}


@pytest.mark.parametrize(("name", "content"), SPREADSHEETS.values(), ids=SPREADSHEETS)
def test_a_csv_is_read_as_spreadsheets_write_it(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    [row] = read_source(tmp_path / name)
    assert isinstance(row, UploadRow)
    assert (row.fields.content_id, row.fields.text) == ("1", "a hat, red")
    assert row.fields.metadata == {"price": "9,5"}


def test_a_comma_separates_where_both_would(tmp_path: Path) -> None:
    [row] = read_source(write(tmp_path / "a.csv", "id,text\n1,a hat; red\tblue\n"))
    assert isinstance(row, UploadRow)
    assert row.fields.text == "a hat; red\tblue"


def test_fields_of_ones_own_keep_their_capitals(tmp_path: Path) -> None:
    [row] = read_source(write(tmp_path / "a.csv", "Text,metadata.Colour\na hat,Red\n"))
    assert isinstance(row, UploadRow)
    assert row.fields.metadata == {"Colour": "Red"}


def test_two_columns_that_differ_by_capitals_alone_are_one_twice(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match="names a column twice: text"):
        list(read_source(write(tmp_path / "a.csv", "text,TEXT\na,b\n")))


@pytest.mark.parametrize(("name", "start"), [("a.csv", b"id,text\n"), ("a.jsonl", b"")])
def test_a_file_in_another_encoding_is_told_the_right_one(tmp_path: Path, name: str, start: bytes) -> None:
    (tmp_path / name).write_bytes(start + '{"text": "élégant"}\n'.encode("latin-1"))
    [row] = read_source(tmp_path / name)
    assert isinstance(row, BadRow)
    assert "it is not UTF-8: save it again with that encoding" in row.reason
    assert "codec" not in row.reason


def test_json_lines_in_utf_16_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes('{"id": "1", "text": "élégant"}\n\n{"text"\n'.encode("utf-16"))
    good, bad = read_source(tmp_path / "a.jsonl")
    assert isinstance(good, UploadRow)
    assert good.fields.text == "élégant"
    assert isinstance(bad, BadRow)
    assert bad.label == "line 3"


@pytest.mark.parametrize("address", ["https://shop.example/a.jpg", "s3://bucket/a.jpg", "file:///a.jpg"])
def test_an_address_is_told_that_sources_are_files(address: str) -> None:
    with pytest.raises(SourceUnreadable, match="files and folders here, not addresses"):
        read_source(Path(address))
