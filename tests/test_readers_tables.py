"""Tables as text, folders with metadata, and tar shards: which column is what, and what is told of bad rows."""

import gzip
import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from vglm.data.images import open_image
from vglm.data.problems import BadRow
from vglm.data.readers import read, read_samples, recognise
from vglm.data.readers.columns import TableReader
from vglm.data.sample import Sample, Turn
from vglm.data.slices import ImageSlice
from vglm.errors import DataError

HEADER = "image,question,answer\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cat.png", "dog.png", "pets/cat.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def lines(path: Path, *rows: Any) -> Path:
    return write(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))


def faults(path: Path, **options: Any) -> dict[int | str, str]:
    return {row.row: row.fault for row in read(path, **options) if isinstance(row, BadRow)}


# --- CSV and TSV ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_a_table(folder: Path, separator: str) -> None:
    rows = [
        ("image", "question", "answer", "patient_id", "split", "note"),
        ("cat.png", '"How many?\nCats, ""I"" mean; or\tdogs"', "2", "p7", "val", "x"),
        ("", "你好？", "你好。", "p8", "train", ""),
    ]
    path = write(folder / "table.txt", "\r\n".join(separator.join(cells) for cells in rows))
    assert recognise(path).NAME == "csv"
    first, second = read_samples(path)
    assert first.id == "table.txt#2"
    assert first.image == folder / "cat.png"
    assert first.turns == (Turn('How many?\nCats, "I" mean; or\tdogs', "2"),)
    assert first.group == "p7"
    assert first.language == "en"
    assert first.meta == {"patient_id": "p7", "split": "validation", "note": "x"}
    assert second.id == "table.txt#4"  # the line where it begins
    assert second.image is None
    assert second.language == "zh"


def test_told_columns(folder: Path) -> None:
    path = write(folder / "t.csv", "scan,text,label,star\ncat.png,hello,RR Lyrae,s1\n")
    options = {"image_column": "scan", "answer_column": "label", "group_column": "star", "question": "Which type?"}
    (sample,) = read_samples(path, format="csv", **options)
    assert sample.turns == (Turn("Which type?", "RR Lyrae"),)
    assert (sample.image, sample.group, sample.meta) == (folder / "cat.png", "s1", {"text": "hello", "star": "s1"})


def test_chinese_columns(folder: Path) -> None:
    path = write(folder / "t.csv", "图片,问题,回答\ncat.png,几只？,一只。\n")
    (sample,) = read_samples(path)
    assert (sample.image, sample.turns) == (folder / "cat.png", (Turn("几只？", "一只。"),))


def test_captions_need_no_question(folder: Path) -> None:
    path = write(folder / "t.csv", "file_name,caption\ncat.png,A cat.\ndog.png,一只狗。\n")
    assert [(sample.question, sample.language) for sample in read_samples(path)] == [
        ("Describe the picture.", "en"),
        ("描述这张图片。", "zh"),
    ]
    assert next(read_samples(path, question="What?", language="zh")).question == "What?"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "image,label",
            r"expected a column with the question, .* Its columns are 'image', 'label'\. .*dataset\.options\.qu",
        ),
        (
            "image,answer,caption",
            r"each of 'answer', 'caption' could be the column with the answer\. Choose in dataset\.",
        ),
        (
            "image,question",
            r"expected a column with the answer, such as 'answer', 'label' or 'caption'\. Its columns are",
        ),
        ("image,image,answer", r"the header has 'image' more than once"),
        ("", r"expected a header in line 1, found an empty line"),
    ],
)
def test_a_header_that_does_not_do(folder: Path, header: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"t\.csv: {message}"):
        list(read(write(folder / "t.csv", f"{header}\n"), format="csv"))
    with pytest.raises(DataError, match=r"t\.csv: there is no column 'scan'\. Its columns are 'image', 'caption'"):
        list(read(write(folder / "t.csv", "image,caption\n"), image_column="scan"))


def test_broken_rows_of_a_table(folder: Path) -> None:
    text = (
        f"{HEADER}cat.png,How many?,One.\n"
        "cat.png,How many?\n"
        "bird.png,How many?,One.\n"
        "\n"
        "cat.png,,One.\n"
        "../cat.png,How many?,\n"
        "cat.png,How many?,One.,Two.\n"
    )
    by_row = faults(write(folder / "t.csv", text))
    assert list(by_row) == [3, 4, 6, 7, 8]
    assert by_row[3] == (
        "expected 3 cells as in the header, found 2; fix: quote cells that contain the separator, or fill the row up"
    )
    assert re.match(r"expected image 'bird\.png' in .*, found no such file; fix: add the file", by_row[4])
    assert by_row[6] == "expected 'question' to say something, found an empty text; fix: write it or take the row out"
    assert by_row[7].count("expected") == 2
    assert "3 cells as in the header, found 4" in by_row[8]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            f'{HEADER}cat.png,How many?,One.\ncat.png,"How many?,One.\n'.encode(),
            r"t\.csv:3: expected a row .*, found unexp",
        ),
        (
            f'{HEADER}cat.png,"How" many?,One.\n'.encode(),
            r"t\.csv:2: expected a row of cells, found ',' expected after",
        ),
        (HEADER.encode() + "cat.png,多少？,一。\n".encode("gb18030"), r"t\.csv: not UTF-8: .*Save the file as UTF-8"),
    ],
)
def test_a_damaged_table(folder: Path, content: bytes, message: str) -> None:
    (folder / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read(folder / "t.csv"))


def test_no_picture_is_passed_over(folder: Path) -> None:
    path = write(folder / "t.csv", "scan,question,answer\ncat.png,How many?,One.\n")
    assert faults(path)[2] == (
        "expected the column with the picture to be known, found 'scan': 'cat.png'; fix: set "
        "dataset.options.image_column=scan"
    )


# --- JSON Lines -------------------------------------------------------------------------------------------------------


def test_lines(folder: Path) -> None:
    rows = [
        {"img": "cat.png", "prompt": "How many?", "label": 1, "history": [["Hi.", "Hello."]], "kind": "count"},
        {"img": None, "prompt": "你好？", "label": "你好。", "english": True},
    ]
    first, second = read_samples(lines(folder / "r.jsonl", *rows))
    assert first.turns == (Turn("Hi.", "Hello."), Turn("How many?", "1"))
    assert (first.group, first.meta) == ("cat.png", {"kind": "count"})
    assert second.language == "en"
    path = write(folder / "list.json", json.dumps([{"image": "cat.png", "question": "How many?", "answer": "One."}]))
    assert recognise(path).NAME == "jsonl"
    assert [sample.id for sample in read_samples(path)] == ["list.json#1"]


def test_several_pictures_of_a_row(folder: Path) -> None:
    path = lines(
        folder / "r.jsonl", {"images": ["cat.png", "dog.png"], "question": "?", "answer": "!", "study_id": "s"}
    )
    assert faults(path)[1].startswith("expected one image, as the model takes no more, found 2")
    assert [sample.image for sample in read_samples(path, several_images="first")] == [folder / "cat.png"]
    assert [(sample.id, sample.group) for sample in read_samples(path, several_images="each")] == [
        ("r.jsonl#1.1", "s"),
        ("r.jsonl#1.2", "s"),
    ]


def test_answers_of_several_people(folder: Path) -> None:
    answers = ["red", "dark red", "red", "blue"]
    as_objects = [{"answer": answer, "answer_confidence": "yes"} for answer in answers]
    rows = [
        {"image": "cat.png", "question": "Which colour?", "answers": answer_list}
        for answer_list in (answers, as_objects)
    ]
    for sample in read_samples(lines(folder / "textvqa.jsonl", *rows)):
        assert (sample.answer, sample.meta["answers"]) == ("red", answers)
    path = write(folder / "vizwiz.csv", 'image,question,answers\ncat.png,Which?,"[""blue"", ""red"", ""red""]"\n')
    (sample,) = read_samples(path)
    assert (sample.answer, sample.meta["answers"]) == ("red", ["blue", "red", "red"])
    path = write(folder / "pandas.csv", "image,question,answers\ncat.png,Which?,['blue' 'red']\n")
    assert faults(path)[2].startswith("expected 'answers' to be a JSON list, found \"['blue' 'red']\"; fix: write")
    both = {"image": "cat.png", "question": "Which?", "multiple_choice_answer": "blue", "answers": as_objects}
    (sample,) = read_samples(lines(folder / "vqav2.jsonl", both))
    assert (sample.answer, sample.meta["answers"]) == ("blue", answers)
    bad = lines(folder / "bad.jsonl", rows[0], rows[0] | {"answers": []}, rows[0] | {"answers": ["red", None]})
    assert faults(bad) == {
        2: "expected 'answers' to be a list of answers, found an empty list; fix: list what people answered",
        3: "expected 'answers', 2 to be text, found null; fix: write a text in quotes",
    }


def test_broken_lines(folder: Path) -> None:
    good = '{"image": "cat.png", "question": "How many?", "answer": "One.", "group": "g"}'
    text = f'{good}\n{good[:-1]}\n[1]\n{{"question": "?", "answer": true}}\n{good[:-1]}, "history": [["a"]]}}\n'
    by_row = faults(write(folder / "r.jsonl", text + f'{good[:-1]}, "group": [1], "split": "extra"}}\n'))
    assert list(by_row) == [2, 3, 4, 5, 6]
    assert "on one line, found text that is not valid JSON at column" in by_row[2]
    assert by_row[3].startswith("expected an object with the table's columns, found a list")
    assert by_row[4].startswith("expected 'answer' to be text, found true or false")
    assert by_row[5].startswith("expected 'history' to be a list of [question, answer] pairs")
    assert "expected 'split' to be train" in by_row[6]
    assert "expected 'group' to be text or a number, found a list" in by_row[6]


# --- folders of pictures ----------------------------------------------------------------------------------------------


def test_a_folder_with_metadata(folder: Path) -> None:
    lines(
        folder / "pets/metadata.jsonl", {"file_name": "cat.png", "text": "A cat."}, {"file_name": "x.png", "text": "?"}
    )
    good, bad = read(folder / "pets")
    assert isinstance(good, Sample)
    assert isinstance(bad, BadRow)
    assert recognise(folder / "pets").NAME == "imagefolder"
    assert (good.id, good.image, good.answer) == ("pets#metadata.jsonl:1", folder / "pets/cat.png", "A cat.")
    assert (bad.row, bad.is_missing_image) == ("metadata.jsonl:2", True)
    with pytest.raises(DataError, match=rf"\n  {folder}/pets/metadata\.jsonl:2: expected image 'x\.png' in"):
        list(read_samples(folder / "pets"))


def test_a_folder_with_splits(folder: Path) -> None:
    for split in ("train", "val"):
        (folder / "set" / split).mkdir(parents=True)
        (folder / "set" / split / "0.png").touch()
        write(folder / "set" / split / "metadata.csv", "file_name,question,answer\n0.png,What?,A cat.\n")
    assert [(sample.id, sample.meta["split"]) for sample in read_samples(folder / "set")] == [
        ("set#train/metadata.csv:2", "train"),
        ("set#val/metadata.csv:2", "validation"),
    ]


def test_a_folder_with_dialogues(folder: Path) -> None:
    messages = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A cat."}]
    lines(folder / "metadata.jsonl", {"file_names": ["cat.png"], "messages": messages})
    (sample,) = read_samples(folder)
    assert (sample.image, sample.turns) == (folder / "cat.png", (Turn("What?", "A cat."),))
    with pytest.raises(DataError, match=r"expected a folder with metadata\.jsonl or metadata\.csv, found neither"):
        list(read(folder / "pets", format="imagefolder"))


# --- tar shards -------------------------------------------------------------------------------------------------------


def shard(path: Path, **members: bytes | str) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_a_shard(tmp_path: Path, few_shot_folder: Path) -> None:
    red, blue = ((few_shot_folder / f"{colour}.png").read_bytes() for colour in ("red", "blue"))
    members = {"./0001.png": red, "./0001.txt": "A red wall.\n", "./0002.png": blue, "./0002.txt": "蓝色的墙。"}
    path = shard(tmp_path / "pets.tar", **members)
    assert recognise(path).NAME == "webdataset"
    first, second = read_samples(path)
    assert first.id == "pets.tar#./0001"
    assert first.turns == (Turn("Describe the picture.", "A red wall."),)
    assert isinstance(first.image, ImageSlice)
    assert isinstance(second.image, ImageSlice)
    assert first.image.read_bytes() == red
    assert open_image(second.image).getpixel((0, 0)) == (0, 0, 255)
    assert second.question == "描述这张图片。"


def test_shards_with_splits_and_json(tmp_path: Path) -> None:
    row = {"question": "How many?", "answer": "Two.", "patient_id": "p7", "image": "original/name.png"}
    long_name = f"{'x' * 150}/a.b"
    shard(tmp_path / "train-000.tar", **{f"{long_name}.jpg": b"1", f"{long_name}.json": json.dumps(row)})
    shard(tmp_path / "val-000.tar", **{"k.jpg": b"22", "k.question.txt": "How many?", "k.answer.txt": "Two."})
    first, second = read_samples(tmp_path, name="pets")
    assert first.id == f"pets#train-000.tar:{'x' * 150}/a"
    assert (first.group, first.meta) == ("p7", {"patient_id": "p7", "split": "train"})
    assert (second.id, second.meta) == ("pets#val-000.tar:k", {"split": "validation"})
    assert second.turns == (Turn("How many?", "Two."),)
    assert isinstance(second.image, ImageSlice)
    assert second.image.read_bytes() == b"22"


def test_no_member_of_a_long_shard_is_lost(tmp_path: Path) -> None:
    members = {f"{key:04d}.{suffix}": f"{key}" for key in range(3000) for suffix in ("jpg", "txt")}
    samples = list(read_samples(shard(tmp_path / "s.tar", **members)))
    assert [sample.answer for sample in samples] == [str(key) for key in range(3000)]
    assert all(isinstance(sample.image, ImageSlice) for sample in samples)
    assert [sample.image.read_bytes() for sample in samples[2990:] if isinstance(sample.image, ImageSlice)] == [
        str(key).encode() for key in range(2990, 3000)
    ]


def test_broken_members_of_a_shard(tmp_path: Path) -> None:
    members = {
        "a.jpg": b"1",
        "a.txt": "A.",
        "b.jpg": b"1",
        "c.txt": b"\xff",
        "d.txt": "D.",
        "d.pyd": b"",
        "e.jpg": b"1",
    }
    by_key = faults(shard(tmp_path / "s.tar", **members, **{"e.json": "[1]", "f.json": "{", "g.txt": " "}))
    assert list(by_key) == ["b", "c", "d", "e", "f", "g"]
    assert by_key["b"] == "expected 'txt', found only 'image'; fix: add it"
    assert by_key["c"].startswith("expected '.txt' to be UTF-8")
    assert by_key["d"].startswith("expected a picture, .json and .txt, found '.pyd'")
    assert by_key["e"].startswith("expected '.json' to be a JSON object, found a list")
    assert by_key["f"].startswith("expected '.json' to be a JSON object, found Expecting property name")
    assert by_key["g"].startswith("expected 'txt' to say something")


def test_compressed_and_damaged_shards(tmp_path: Path) -> None:
    content = shard(tmp_path / "s.tar", **{"a.jpg": bytes(5000), "a.txt": "A."}).read_bytes()
    (tmp_path / "z.tar").write_bytes(gzip.compress(content))
    (tmp_path / "cut.tar").write_bytes(content[:3000])
    for name in ("z.tar", "cut.tar"):
        with pytest.raises(DataError, match=rf"{name}: expected an uncompressed tar file, found .*gunzip"):
            list(read(tmp_path / name, format="webdataset"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"expected tar shards, found none"):
        list(read(tmp_path / "empty", format="webdataset"))


ODD = {
    "question": ["<image>\nwhich?", "which? [IMG]", "\u200b ", "nan", "3.0", 3, None, "half \ud83d", ["a", "b"], ""],
    "answer": ["<img>", "", "NaN", "4.0", 7, True, None, "\ud83d", ["a", "a", "b"]],
    "image": ["dog.png", "no.png", "../cat.png", "", None, ["cat.png", "dog.png"], "pets\\cat.png", "CAT.png", "nan"],
    "history": [[["q", "a"]], "x"],
    "english": [True],
    "answers": [["a", "b"], "a"],
    "patient_id": [7, "p7", ["p"]],
    "kind": [3, "colour"],
    "note": ["", float("nan"), "\ud83d", {"a": [1]}],
    "options": [["a", "b"]],
    "split": ["train", "no split"],
}


@pytest.mark.parametrize("options", [{}, {"language": "en"}, {"several_images": "each"}])
def test_the_short_way_through_plain_rows_finds_what_the_examination_finds(
    folder: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {"image": "cat.png", "question": "图中有什么？", "answer": "一只猫。"}
    rows = [plain, *({**plain, key: value} for key, values in ODD.items() for value in values)]
    for number, row in enumerate(rows):
        path = write(folder / f"{number}.jsonl", f"{json.dumps(plain)}\n{json.dumps(row)}\n")
        short = list(read(path, format="jsonl", **options))
        with monkeypatch.context() as slowly:
            slowly.setattr(TableReader, "_read_plain", lambda *_: None)
            assert list(read(path, format="jsonl", **options)) == short
