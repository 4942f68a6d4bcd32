"""Tables as spreadsheets and pandas write them: encodings, separators, numbers, gaps, own names of columns, .xlsx."""

import codecs
import datetime
import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from vglm.data.doctor import examine
from vglm.data.loading import load_dataset
from vglm.data.problems import BadRow
from vglm.data.readers import read, read_samples, recognise
from vglm.data.readers.encodings import name_encoding
from vglm.data.sample import Turn
from vglm.errors import ConfigError, DataError

ROW = '{"image": "a.png", "question": "图里有什么？", "answer": "一只箱子。"}'
TABLES = {
    "table.csv": "image,question,answer\na.png,图里有什么？,一只箱子。\n",
    "header.csv": "图片,问题,答案\na.png,图里有什么？,一只箱子。\n",
    "text.tsv": "image\tquestion\tanswer\na.png\t图里有什么？\t一只箱子。\n",
    "rows.jsonl": f"{ROW}\n{ROW}\n",
    "list.json": f"[{ROW}]",
    "few.json": '[{"img": "a.png", "prompt": "图里有什么？", "label": "一只箱子。"}]',
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    return tmp_path


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def faults(path: Path, **options: Any) -> dict[int | str, str]:
    return {row.row: row.fault for row in read(path, **options) if isinstance(row, BadRow)}


# --- encodings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    ("encoding", "hint"),
    [("utf-16", "UTF-16"), ("gb18030", "probably GBK"), ("utf-32", "UTF-32")],
)
def test_another_encoding_is_named(folder: Path, name: str, encoding: str, hint: str) -> None:
    path = write(folder / name, TABLES[name], encoding)
    with pytest.raises(DataError, match=rf"{name}: .*not UTF-8: it is {hint}\. Save the file as UTF-8\."):
        list(read(path))


@pytest.mark.parametrize("name", TABLES)
def test_utf8_is_read_with_and_without_its_mark(folder: Path, name: str) -> None:
    for encoding in ("utf-8", "utf-8-sig"):
        assert next(iter(read_samples(write(folder / name, TABLES[name], encoding)))).answer == "一只箱子。"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_its_mark_is_told_by_its_zeros(folder: Path, encoding: str) -> None:
    path = write(folder / "t.csv", "image,question,answer\na.png,What?,A box.\n", encoding)
    with pytest.raises(DataError, match=r"t\.csv: not UTF-8: it is probably UTF-16\. Save"):
        list(read(path, format="csv"))


def test_latin_letters_are_told_from_chinese(folder: Path) -> None:
    path = write(folder / "t.csv", "image,question,answer\na.png,Où est-ce?,Très près du château.\n", "latin-1")
    with pytest.raises(DataError, match=r"it is probably Latin-1 \(Windows-1252\)\. Save the file as UTF-8"):
        list(read(path))


def test_what_is_utf8_or_no_text_has_no_other_encoding() -> None:
    for content in (b"", b"image", "图片".encode(), codecs.BOM_UTF8 + b"a", "图片".encode()[:-1], bytes(range(256))):
        assert name_encoding(content) is None


# --- Excel's CSV ------------------------------------------------------------------------------------------------------


def test_excels_own_habits(folder: Path) -> None:
    rows = ["sep=;", "image;question;answer;;", 'a.png;Which?;"=""007""";;', ";;;;", "b.png;Where?;Here.;;", ";;;;", ""]
    path = write(folder / "t.csv", "\r\n".join(rows), "utf-8-sig")
    assert recognise(path).NAME == "csv"
    first, second = read_samples(path)
    assert (first.id, first.answer) == ("t.csv#3", "007")
    assert (second.id, second.answer, second.meta) == ("t.csv#5", "Here.", {})


def test_a_cell_that_holds_a_large_picture_is_named(folder: Path) -> None:
    path = write(folder / "t.csv", f"image,question,answer\n{'iVBORw0K' * (1 << 18)},What?,A box.\n")
    with pytest.raises(DataError, match=r"t\.csv:2: expected cells of at most 1,048,576 .* Save images as files"):
        list(read(path))


def test_more_cells_than_names_are_still_refused(folder: Path) -> None:
    path = write(folder / "t.csv", "image;question;answer;\na.png;Which?;This.;lost\n")
    assert faults(path) == {
        2: "expected 3 cells as in the header, found 4; fix: quote cells that contain the separator, or fill the row up"
    }


@pytest.mark.parametrize("word", ["nan", "NaN", "<NA>", "#N/A", "#REF!", "#NAME?"])
def test_words_for_no_value_are_not_learned(folder: Path, word: str) -> None:
    path = write(folder / "t.csv", f"image,question,answer\na.png,Which?,{word}\n{word},Which?,This.\n")
    answer, image = faults(path).values()
    assert answer == f"expected 'answer' to say something, found {word}, no value; fix: write it or take the row out"
    assert image.startswith(f"expected the image's name to say something, found {word}, no value")


# --- what pandas makes of numbers -------------------------------------------------------------------------------------


def test_not_a_number_is_no_value(folder: Path) -> None:
    rows = ['{"image":"a.png","question":"q","answer":NaN}', '{"image":NaN,"question":"q","answer":"a"}']
    by_row = faults(write(folder / "nan.jsonl", "\n".join(rows)))
    assert [fault.partition(";")[0] for fault in by_row.values()] == [
        "expected 'answer' to be text, found NaN (no value)",
        "expected the image's name to be text, found NaN (no value)",
    ]
    (sample,) = read_samples(write(folder / "x.jsonl", '{"question":"q","answer":"a","score":NaN}\n'), format="jsonl")
    assert sample.meta == {"score": None}


@pytest.mark.parametrize(
    ("values", "answers"),
    [(["3.0", "2.0"], ["3", "2"]), (["3.0", "2"], ["3", "2"]), (["3.0", "2.5"], ["3.0", "2.5"])],
)
def test_whole_numbers_that_pandas_made_decimal(
    folder: Path, values: list[str], answers: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    rows = "".join(f'{{"image":"a.png","question":"q","answer":{value}}}\n' for value in values)
    table = "image,question,answer\n" + "".join(f"a.png,q,{value}\n" for value in values)
    for path in (write(folder / "d.jsonl", rows), write(folder / "d.csv", table)):
        caplog.clear()
        assert [sample.answer for sample in read_samples(path)] == answers
        note = "column 'answer' holds whole numbers written as 3.0, which are read as 3"
        assert (note in caplog.text) == (answers != values)


def test_a_gap_keeps_a_column_whole_and_a_text_does_not(folder: Path) -> None:
    row = '{{"image":"a.png","question":"q","answer":{}}}\n'
    path = write(folder / "d.jsonl", row.format("3.0") + row.format("null"))
    assert [sample.answer for sample in read(path) if not isinstance(sample, BadRow)] == ["3"]
    path = write(folder / "d.jsonl", row.format("3.0") + row.format('"many"'))
    assert [sample.answer for sample in read_samples(path)] == ["3.0", "many"]


def test_whole_numbers_in_arrow(folder: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"question": ["How many?"] * 3, "answer": [3.0, None, 2.0]})
    with pa.OSFile(str(folder / "t.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    assert [sample.answer for sample in read(folder / "t.arrow") if not isinstance(sample, BadRow)] == ["3", "2"]


# --- own names of columns ---------------------------------------------------------------------------------------------

OWN = {"image": "Bild", "question": "Frage", "answer": "Antwort"}


@pytest.mark.parametrize("name", ["own.csv", "own.jsonl", "own.json", "metadata.jsonl"])
def test_own_names_of_columns(folder: Path, name: str) -> None:
    row = {"Bild": "a.png", "Frage": "Was?", "Antwort": "Ein Haus.", "note": "x"}
    if name == "own.csv":
        path = write(folder / name, f"{','.join(row)}\n{','.join(row.values())}\n")
    else:
        path = write(folder / name, json.dumps([row]) if name.endswith(".json") else f"{json.dumps(row)}\n" * 2)
    source = folder if name.startswith("metadata") else path
    sample = next(iter(read_samples(source, columns=OWN)))
    assert (sample.turns, sample.meta) == ((Turn("Was?", "Ein Haus."),), {"note": "x"})
    assert sample.image == folder / "a.png"


def test_wrong_names_are_answered_with_those_there_are(folder: Path) -> None:
    path = write(folder / "own.csv", "Bild,Frage,Antwort\na.png,Was?,Ein Haus.\n")
    with pytest.raises(
        DataError, match=r"found a table with the columns 'Bild', 'Frage', 'Antwort'\. .*dataset\.columns="
    ):
        read(path)
    with pytest.raises(DataError, match=r"no column 'Antwrt'\. Its columns are 'Bild', 'Frage', 'Antwort'\."):
        list(read(path, columns={**OWN, "answer": "Antwrt"}))
    with pytest.raises(ConfigError, match=r"dataset\.columns must name columns for some of image, question, answer, "):
        list(read(path, columns={"bild": "Bild"}))


def test_own_names_in_training_and_in_the_doctor(few_shot_folder: Path, tmp_path: Path) -> None:
    for name in ("red.png", "blue.png"):
        shutil.copy(few_shot_folder / name, tmp_path)
    path = write(tmp_path / "own.csv", "Bild,Frage,Antwort\nred.png,Was?,Rot.\nblue.png,Was?,Blau.\n")
    assert [sample.answer for sample in load_dataset(path, columns=OWN).train] == ["Rot.", "Blau."]
    with examine(path, options={"columns": OWN}) as diagnosis:
        assert (diagnosis.usable, diagnosis.survey.source.format) == (2, "csv")


# --- .xlsx ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def workbook() -> Any:
    return pytest.importorskip("openpyxl").Workbook()


def test_a_spreadsheet(folder: Path, workbook: Any) -> None:
    sheet = workbook.active
    for row in (
        ["image", "question", "answer", "patient_id", None],
        ["a.png", "How many?", 3, "p1"],
        [],
        ["b.png", "When?", datetime.date(2024, 5, 1), "p1"],
        [None, "你好", "你好。", None],
    ):
        sheet.append(row)
    workbook.save(folder / "t.xlsx")
    assert recognise(folder / "t.xlsx").NAME == "xlsx"
    first, second, third = read_samples(folder / "t.xlsx")
    assert (first.id, first.image, first.answer, first.group) == ("t.xlsx#2", folder / "a.png", "3", "p1")
    assert (second.id, second.answer) == ("t.xlsx#4", "2024-05-01")
    assert third.image is None


def test_what_a_spreadsheet_cannot_say(folder: Path, workbook: Any) -> None:
    sheet = workbook.active
    for row in (["image", "question", "answer"], ["a.png", "Sum?", "=1+1"], ["a.png", "What?", "x", "y"]):
        sheet.append(row)
    workbook.create_sheet("empty")
    workbook.save(folder / "t.xlsx")
    formula, more = faults(folder / "t.xlsx").values()
    assert formula == "expected a value in 'answer', found a formula alone; fix: open and save the file in Excel"
    assert more.startswith("expected 3 cells as in row 1, found more; fix: name the column")
    workbook["empty"].append(["image", "question", "answer"])
    workbook.save(folder / "t.xlsx")
    with pytest.raises(DataError, match=r"'Sheet', 'empty' have data\. Choose one in dataset\.options\.sheet"):
        list(read(folder / "t.xlsx"))
    assert list(read(folder / "t.xlsx", sheet="empty")) == []
    with pytest.raises(DataError, match=r"there is no sheet 'x'\. Its sheets are 'Sheet', 'empty'"):
        list(read(folder / "t.xlsx", sheet="x"))


def test_pasted_pictures_are_not_passed_over(folder: Path, workbook: Any) -> None:
    workbook.active.append(["image", "question", "answer"])
    workbook.active.append([None, "What?", "A box."])
    workbook.save(folder / "t.xlsx")
    with zipfile.ZipFile(folder / "t.xlsx", "a") as archive:
        archive.writestr("xl/media/image1.png", b"x")
    (fault,) = faults(folder / "t.xlsx").values()
    assert "an empty cell, and pictures pasted into the file; fix: save the pictures as files and name them" in fault


def test_old_and_damaged_spreadsheets_are_named(folder: Path) -> None:
    (folder / "t.xls").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512))
    with pytest.raises(DataError, match=r"Excel's old kind \(\.xls; save it as \.xlsx or as CSV UTF-8\)"):
        read(folder / "t.xls")
    with pytest.raises(DataError, match=r"t\.xls: expected a spreadsheet, found: File is not a zip file\. Save it as"):
        list(read(folder / "t.xls", format="xlsx"))


def test_a_spreadsheet_without_openpyxl(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(folder / "t.xlsx", "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(
        ConfigError, match=r"t\.xlsx: spreadsheets need openpyxl: pip install .* Or save the sheet as CSV"
    ):
        list(read(folder / "t.xlsx"))
