"""Formats told apart by their content, the checks all of them share, and readers that nothing brings down."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import sample
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vglm.data.images import check_image_header, image_sha256, open_image
from vglm.data.problems import BadRow, only_samples
from vglm.data.readers import formats, json_files, read, read_samples, recognise
from vglm.data.readers.json_files import peek_json
from vglm.data.readers.rows import language_of, split_name
from vglm.data.sample import Sample
from vglm.data.slices import ImageSlice
from vglm.errors import ConfigError, DataError

# One file of every text format, as its publisher writes it.
FILES: dict[str, tuple[str, str]] = {
    "fewshot": ("dataset.json", '[{"img": "a.png", "prompt": "背景？", "label": "蓝天。"}]'),
    "xrayglm": ("openi.json", '{\n "annotations": [\n  {"image_id": "2_1", "caption": "心脏大小正常。"}]}'),
    "llava": (
        "llava.json",
        '[{"id": "1", "image": "a.png", "conversations": '
        '[{"from": "human", "value": "<image>\\nWhat?"}, {"from": "gpt", "value": "A cat."}]}]',
    ),
    "messages": (
        "chat.jsonl",
        '{"messages": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "Cat."}], "images": []}',
    ),
    "coco_captions": (
        "captions_val2017.json",
        '{"info": {"year": 2017}, "licenses": [{"id": 1, "name": "x"}], "images": [{"license": 1, "file_name": "a", '
        '"height": 4, "width": 4, "id": 9}], "annotations": [{"image_id": 9, "id": 7, "caption": "A cat."}]}',
    ),
    "vqa_v2": (
        "v2_questions.json",
        '{"info": {}, "task_type": "Open-Ended", "data_type": "mscoco", "license": {}, "data_subtype": "train2014", '
        '"questions": [{"image_id": 9, "question": "What?", "question_id": 9000}]}',
    ),
    "csv": ("table.csv", "image,question,answer\na.png,What?,A cat.\n"),
    "jsonl": ("rows.jsonl", '{"image": "a.png", "question": "What?", "answer": "A cat."}\n'),
}


@pytest.mark.parametrize("name", FILES)
def test_a_format_is_recognised_by_its_content(tmp_path: Path, name: str) -> None:
    (tmp_path / "data").write_text(FILES[name][1], encoding="utf-8-sig")  # no suffix, and a byte order mark
    assert name == recognise(tmp_path / "data").NAME


def test_every_format_describes_itself() -> None:
    assert len(formats()) >= 13
    for name, reader in formats().items():
        assert name == reader.NAME
        assert len(f"  {name}  {reader.SCHEMA}") <= 120
        is_table = name in ("csv", "lightcurves", "mimic_cxr", "openi_xml")
        assert is_table or (reader.__doc__ or "").count("{")  # each shows a real record


def test_an_object_that_goes_on_for_long_is_recognised(tmp_path: Path) -> None:
    images = [{"file_name": f"{number}.png", "id": number} for number in range(5000)]
    captions = [{"image_id": number, "id": number, "caption": "A cat."} for number in range(5000)]
    coco, other = tmp_path / "coco.json", tmp_path / "other.json"
    coco.write_text(json.dumps({"info": {}, "images": images, "annotations": captions}))
    assert coco.stat().st_size > 1 << 17
    assert recognise(coco).NAME == "coco_captions"
    other.write_text(json.dumps({"annotations": [{"image_id": "2_1", "caption": "心" * 100_000}] * 2}))
    assert recognise(other).NAME == "xrayglm"


@pytest.mark.parametrize(
    ("content", "description"),
    [
        ("", "an empty file"),
        ("hello", "a file that begins with b'hello'"),
        ('[{"colour": "red", "name": "a"}]', "a JSON list whose first row has the keys 'colour', 'name'"),
        ("[1, 2]", "a JSON list without objects"),
        ('{"train": {}, "b": 1}', "a JSON object with the keys 'train', 'b'"),
        ('{"a": 1}\n{"a": 2}\n', "JSON Lines whose first row has the keys 'a'"),
    ],
)
def test_what_no_format_recognises_is_described(tmp_path: Path, content: str, description: str) -> None:
    path = tmp_path / "data.json"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        recognise(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: expected one of the known formats, found {description}. Correct it")
    assert "dataset.format=<name>" in message
    assert all(f"  {name} " in message for name in formats())


def test_broken_json_says_where(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"img": "cat.png",\n "prompt" "?"}]')
    with pytest.raises(DataError, match=r"a\.json: not valid JSON at line 2, column 11: Expecting ':' delimiter"):
        recognise(tmp_path / "a.json")


@given(
    st.lists(st.recursive(st.one_of(st.none(), st.floats(), st.integers(), st.text()), st.lists, max_leaves=4)),
    st.sampled_from([None, 1]),
    st.one_of(st.none(), st.tuples(st.integers(0, 60), st.sampled_from(["", ",", "]", "x"]))),
)
def test_a_list_is_read_in_pieces_as_it_is_read_whole(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], indent: int | None, damage: tuple[int, str] | None
) -> None:
    path = tmp_path_factory.mktemp("lists") / "a.json"
    text = json.dumps(rows, indent=indent)
    if damage is not None:
        text = text[: damage[0]] + damage[1] + text[damage[0] + 1 :]
    path.write_text(text)

    def read_by(function: Callable[[Path, str], Iterator[Any] | list[Any]]) -> str:
        try:
            return repr(list(function(path, "rows")))
        except DataError as error:
            return str(error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_files, "_CHUNK", 5)
        assert read_by(json_files.iterate_list) == read_by(json_files.load_list)


def test_folders_and_paths_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found an empty folder\."):
        recognise(tmp_path)
    (tmp_path / "notes.md").touch()
    with pytest.raises(DataError, match=r"found a folder with notes\.md\."):
        recognise(tmp_path)
    with pytest.raises(DataError, match=r"none does not exist\. Pass a file or a folder, or hf://owner/name"):
        recognise(tmp_path / "none")
    with pytest.raises(DataError, match=r"none does not exist\. Expected data in the format csv"):
        read(tmp_path / "none", format="csv")


def test_two_formats_at_once_leave_the_choice(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "A cat."}\n')
    (tmp_path / "a.png").touch()
    assert recognise(tmp_path).NAME == "imagefolder"
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(DataError, match=r"could be arrow and imagefolder\. Choose with dataset\.format=<name>"):
        recognise(tmp_path)
    assert len(list(read_samples(tmp_path, format="imagefolder"))) == 1


def test_a_format_or_option_that_does_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(FILES["csv"][1])
    with pytest.raises(ConfigError, match=r"there is no format 'jsnl'\. Did you mean jsonl\?"):
        read(path, format="jsnl")
    with pytest.raises(
        ConfigError, match=r"dataset\.options\.anser_column: the format csv has no such option; did you"
    ):
        read(path, anser_column="a")
    with pytest.raises(ConfigError, match=r"the format fewshot has no such option; its options: window, keep\."):
        read(path, format="fewshot", question="?")
    with pytest.raises(ConfigError, match=r"several_images must be one of refuse, first, each, got 'all'"):
        list(read(path, several_images="all"))


def test_bad_rows_are_told_at_the_end_and_good_ones_before() -> None:
    rows: list[Sample | BadRow] = [sample("x#1"), BadRow(2, "expected a, found b; fix: c"), sample("x#3")]
    passed = only_samples("a.json", iter(rows))
    assert next(passed).id == "x#1"
    assert next(passed).id == "x#3"
    with pytest.raises(DataError) as caught:
        next(passed)
    assert str(caught.value) == (
        "a.json: 1 of 3 rows cannot be used (rows count from 1):\n"
        "  a.json:2: expected a, found b; fix: c\n"
        "Correct these rows."
    )


def test_a_million_bad_rows_are_counted_not_kept() -> None:
    def rows() -> Iterator[BadRow]:
        return (
            BadRow(number, "expected a, found b; fix: c", is_missing_image=number > 10) for number in range(1, 1001)
        )

    with pytest.raises(DataError, match=r"(?s)1000 of 1000 rows.*a\.json:5: .*\n  \.\.\. and 995 more\nCorrect .*skip"):
        list(only_samples("a.json", rows()))
    with pytest.raises(DataError, match=r"10 of 1000 rows"):
        list(only_samples("a.json", rows(), skip_missing=True))
    with pytest.raises(DataError, match=r"a\.json: no rows\. Expected at least one"):
        list(only_samples("a.json", []))


def test_a_picture_inside_a_larger_file(tmp_path: Path, few_shot_folder: Path) -> None:
    content = (few_shot_folder / "red.png").read_bytes()
    (tmp_path / "shard").write_bytes(b"before" + content + b"after")
    slice_ = ImageSlice(tmp_path / "shard", 6, len(content))
    assert slice_.read_bytes() == content
    assert open_image(slice_).getpixel((0, 0)) == (255, 0, 0)
    assert image_sha256(slice_) == image_sha256(few_shot_folder / "red.png")
    assert len({slice_, ImageSlice(tmp_path / "shard", 6, len(content))}) == 1
    check_image_header(slice_)
    with pytest.raises(DataError, match=r"shard\[0:4\] is no picture that can be read"):
        check_image_header(ImageSlice(tmp_path / "shard", 0, 4))
    with pytest.raises(DataError, match=r"is cut off: .*shard is shorter than when it was read first"):
        open_image(ImageSlice(tmp_path / "shard", 6, 10_000))
    with pytest.raises(DataError, match=r"gone\[0:4\] cannot be read: No such file"):
        open_image(ImageSlice(tmp_path / "gone", 0, 4))


def test_languages_and_splits() -> None:
    assert language_of("A cat.", "Zwei Katzen") == "en"
    assert language_of("cat", "猫") == "zh"
    assert [split_name(name) for name in ("train", "Val", "dev", " TEST ", "validation", "extra", 3)] == [
        "train",
        "validation",
        "validation",
        "test",
        "validation",
        None,
        None,
    ]


# --- whatever a file holds --------------------------------------------------------------------------------------------

KEYS = sorted(
    {
        *("img", "prompt", "label", "history", "english", "kind", "split", "image", "images", "conversations"),
        *("messages", "from", "value", "role", "content", "type", "text", "path", "image_url", "annotations", "id"),
        *(
            "image_id",
            "caption",
            "questions",
            "question",
            "question_id",
            "answers",
            "answer",
            "file_name",
            "completion",
        ),
        *("multiple_choice_answer", "data_subtype", "data_type", "group", "../x", "\ud83d", ""),
    }
)
TEXTS = st.sampled_from(
    ["", " ", "a.png", "../a.png", "/etc/passwd", "user", "gpt", "image", "<image>", "\ud83d", "猫", "\0"]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=20,
)
ROWS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6)


def attempt(path: Path, name: str, **options: Any) -> tuple[list[Sample | BadRow], str | None]:
    """The rows of a file, or the message with which the whole of it is refused; any other exception goes on."""
    try:
        return list(read(path, format=name, **options)), None
    except DataError as error:
        return [], str(error)


@pytest.fixture(scope="module")
def write_json(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any, bool], Path]:
    folder = tmp_path_factory.mktemp("random")
    (folder / "a.png").touch()

    def write(value: Any, as_lines: bool) -> Path:
        path = folder / "data.json"
        lines = "\n".join(map(json.dumps, value)) if as_lines and isinstance(value, list) else json.dumps(value)
        path.write_text(lines, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("name", ["fewshot", "xrayglm", "llava", "messages", "coco_captions", "vqa_v2", "jsonl"])
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(ROWS | VALUES, max_size=4) | VALUES | st.fixed_dictionaries({"annotations": st.lists(ROWS | VALUES)}),
    st.booleans(),
)
@example([{"messages": [{"role": "user", "content": [{"type": "image", "image": {"url": "a"}}, None]}]}], True)
@example([{"conversations": [None, {"from": ["x"]}], "image": {"bytes": 3}}], False)
@example(
    {"images": [{"id": 1}], "annotations": [{"image_id": 1, "caption": "x"}, {"image_id": {}, "caption": 1}]}, False
)
@example({"questions": [{"question_id": [], "image_id": True}], "annotations": [{"question_id": 1}]}, False)
@example([{"answer": float("nan"), "question": "?", "group": [1]}], True)
def test_no_json_brings_a_reader_down(
    write_json: Callable[[Any, bool], Path], name: str, value: Any, lines: bool
) -> None:
    path = write_json(value, lines)
    options = {"annotations": "data.json"} if name == "vqa_v2" else {}
    rows, refusal = attempt(path, name, **options)
    assert refusal is None or refusal.startswith(str(path))
    for row in rows:
        if isinstance(row, BadRow):
            assert re.search("expected .*, found .*; fix: ", row.fault, re.DOTALL)
        else:
            assert row.turns
            assert all(turn.question.strip() and turn.answer.strip() for turn in row.turns)
            json.dumps([row.meta, row.group, *map(str, row.turns)], ensure_ascii=False).encode()
            assert row.image is None or str(row.image).endswith("a.png")
    peek_json(path)


@settings(max_examples=40)
@given(
    content=st.binary(max_size=200) | st.text(alphabet='{}[]":, \n\tatextimageanswer猫', max_size=80).map(str.encode)
)
def test_no_bytes_bring_recognition_down(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes"
    path.write_bytes(content)
    for reader in formats().values():
        assert reader.recognises(path) in (True, False)
    for name in ("csv", "webdataset", "jsonl", "arrow"):
        _, refusal = attempt(path, name)
        assert refusal is None or refusal.startswith(str(path))
