"""What stands where a picture's file name is expected, in every format that names files."""

import base64
import io
import json
import logging
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vglm.data.problems import BadRow
from vglm.data.readers import read, read_samples
from vglm.data.readers.image_names import explain, plain
from vglm.errors import DataError


def few_shot(image: str) -> Any:
    return [{"img": image, "prompt": "q", "label": "a"}]


def table(image: str) -> Any:
    return [{"image": image, "question": "q", "answer": "a"}]


def llava(image: str) -> Any:
    return [{"image": image, "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}]


def messages(image: str) -> Any:
    content = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": "q"}]
    return [{"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "a"}]}]


def coco(image: str) -> Any:
    return {"images": [{"id": 1, "file_name": image}], "annotations": [{"id": 1, "image_id": 1, "caption": "a"}]}


def r2gen(image: str) -> Any:
    return {"train": [{"id": "1", "report": "a", "image_path": [image]}], "val": [], "test": []}


SHAPES = pytest.mark.parametrize("shape", [few_shot, table, llava, messages, coco, r2gen])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("images/cat.png", "Dog.PNG", unicodedata.normalize("NFC", "résumé.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def write(folder: Path, content: Any) -> Path:
    (folder / "data.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "data.json"


@SHAPES
@pytest.mark.parametrize(
    ("written", "there"),
    [
        ("images\\cat.png", "images/cat.png"),
        (".\\images\\cat.png", "images/cat.png"),
        ("images/cat.png ", "images/cat.png"),
        (" images /cat.png\n", "images/cat.png"),
        (unicodedata.normalize("NFD", "résumé.png"), unicodedata.normalize("NFC", "résumé.png")),
    ],
)
def test_another_spelling_of_the_same_name_is_found(folder: Path, shape: Any, written: str, there: str) -> None:
    # R2Gen's pictures lie in `images/` where there is such a folder.
    (sample,) = read_samples(write(folder, shape(written)), image_dir=folder)
    assert sample.image is not None
    assert Path(str(sample.image)).samefile(folder / there)
    (same,) = read_samples(write(folder, shape(there)), image_dir=folder)
    assert sample.group == same.group


@SHAPES
def test_another_case_is_named_and_not_left_out(folder: Path, shape: Any) -> None:
    path = write(folder, shape("dog.png"))
    (bad,) = read(path, image_dir=folder)
    assert isinstance(bad, BadRow)
    assert not bad.is_missing_image
    assert "'Dog.PNG', in other upper and lower case; fix: write it as the file has it" in bad.fault
    with pytest.raises(DataError, match=r"Dog\.PNG"):
        list(read_samples(path, image_dir=folder, skip_missing=True))


def picture() -> str:
    file = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


NO_NAMES = {
    "https://example.org/p/b.png": "'https://example.org/p/b.png'; fix: save the image as a file and name it",
    "s3://bucket/b.png": "'s3://bucket/b.png'; fix: save the image as a file",
    f"data:image/png;base64,{picture()}": "the picture itself as text; fix: save the image as a file",
    picture(): "the picture itself in base64; fix: save the image as a file",
    f"/9j/{picture()[4:]}": "the picture itself in base64; fix: save the image as a file",
    "b'\\x89PNG\\r\\n'": "the picture itself as text; fix: save",
    "{'bytes': b'\\x89PNG', 'path': None}": "the picture itself as text; fix: save",
    "['a.png', 'b.png']": "a list or an object as text; fix: write one file name",
    "file:///tmp/a.png": "an address of a file; fix: write its name without file://",
    "C:\\Users\\me\\a.png": "a path of another machine; fix: write it from the data set's folder on",
}


@SHAPES
@pytest.mark.parametrize("name", NO_NAMES, ids=range(len(NO_NAMES)))
def test_what_is_no_file_name_is_no_missing_picture(folder: Path, shape: Any, name: str) -> None:
    path = write(folder, shape(name))
    (bad,) = read(path, image_dir=folder)
    assert isinstance(bad, BadRow)
    assert bad.fault.startswith("expected the name of an image file, found ")
    assert NO_NAMES[name] in bad.fault
    assert len(bad.fault) < 300
    with pytest.raises(DataError, match="expected the name of an image file"):
        list(read_samples(path, image_dir=folder, skip_missing=True))


def test_base64_in_the_cell_of_a_table(folder: Path) -> None:
    (folder / "vqa.tsv").write_text(f"index\tquestion\tanswer\timage\n1\tWhich?\ta cat\t{picture()}\n")
    (bad,) = read(folder / "vqa.tsv")
    assert isinstance(bad, BadRow)
    assert "the picture itself in base64" in bad.fault


def test_a_picture_that_is_not_there_is_still_missing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(folder, [*few_shot("moon.png"), *few_shot("images/cat.png")])
    with caplog.at_level(logging.WARNING):
        assert len(list(read_samples(path, skip_missing=True))) == 1
    assert "left out 1 of 2 rows, whose image is missing" in caplog.text
    for name in ("../moon.png", "..\\moon.png"):
        (bad,) = read(write(folder, few_shot(name)))
        assert isinstance(bad, BadRow)
        assert not bad.is_missing_image
        assert "which leaves it; fix: name a file inside" in bad.fault


def test_two_files_that_fit_are_not_chosen_from(folder: Path) -> None:
    (folder / "CAT.png").touch()
    (folder / "Cat.png").touch()
    (bad,) = read(write(folder, few_shot("cat.png")))
    assert isinstance(bad, BadRow)
    assert bad.is_missing_image


def test_suffixes_in_capitals(tmp_path: Path) -> None:
    (tmp_path / "2_1.PNG").touch()
    (sample,) = read_samples(write(tmp_path, {"annotations": [{"image_id": "2_1", "caption": "Clear."}]}))
    assert sample.image == tmp_path / "2_1.PNG"


@given(st.text(max_size=60))
def test_any_text_can_be_looked_at(name: str) -> None:
    assert plain(plain(name)) == plain(name)
    assert explain(name) is None or all(isinstance(part, str) for part in explain(name) or ())
