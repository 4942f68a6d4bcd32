"""XrayGLM's annotations, COCO captions and VQA v2."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from vglm.data.problems import BadRow
from vglm.data.readers import read, read_samples, recognise, xrayglm
from vglm.data.sample import Turn
from vglm.errors import ConfigError, DataError

CAPTION = "心胸廓形在正常范围内。"


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def fault_of(path: Path, row: int, **options: Any) -> str:
    (bad_row,) = (entry for entry in read(path, **options) if isinstance(entry, BadRow) and entry.row == row)
    return bad_row.fault


# --- XrayGLM ----------------------------------------------------------------------------------------------------------


def test_xrayglm(tmp_path: Path) -> None:
    touch(tmp_path, "images/2_1.png", "images/2_2.jpg", "images/861_1.png")
    rows = [("2_1", CAPTION), ("2_2", "No acute disease."), ("861_1", CAPTION)]
    path = write(tmp_path / "openi.json", {"annotations": [{"image_id": i, "caption": c} for i, c in rows]})
    first, second, third = read_samples(path, image_dir=tmp_path / "images", name="openi")
    assert first.id == "openi#1"
    assert (first.group, second.group, third.group) == ("2", "2", "861")
    assert first.turns == (Turn("通过这张胸部X光影像可以诊断出什么？", CAPTION),)
    assert first.language == "zh"
    assert second.turns == (Turn("What can be diagnosed from this chest X-ray?", "No acute disease."),)
    assert second.language == "en"
    assert second.image == tmp_path / "images/2_2.jpg"
    assert first.meta == {"image_id": "2_1"}
    sample = next(read_samples(path, image_dir=tmp_path / "images", question="正常吗？", language="en"))
    assert (sample.question, sample.language) == ("正常吗？", "en")


def test_broken_xrayglm_rows(tmp_path: Path) -> None:
    touch(tmp_path, "1_1.png", "7.png")
    rows: list[Any] = [
        {"image_id": "1_1", "caption": CAPTION},
        {"image_id": "1_2", "caption": CAPTION},
        {"image_id": "../1_1", "caption": CAPTION},
        {"caption": CAPTION},
        {"image_id": "1_1", "caption": ""},
        ["1_1", CAPTION],
        {"image_id": 7, "caption": CAPTION},
        {"image_id": None, "caption": 3},
    ]
    path = write(tmp_path / "openi.json", {"annotations": rows})
    bad = {row.row: row for row in read(path) if isinstance(row, BadRow)}
    assert sorted(map(int, bad)) == [2, 3, 4, 5, 6, 8]
    assert bad[2].is_missing_image
    assert re.match(r"expected image '1_2\.png' in .*, found no such file; fix: add the file", bad[2].fault)
    assert "found the path '../1_1.png', which leaves it" in bad[3].fault
    assert bad[4].fault == "expected 'image_id', found only 'caption'; fix: add it"
    assert bad[5].fault.startswith("expected 'caption' to say something, found an empty text")
    assert bad[6].fault.startswith('expected an object {"image_id", "caption"}, found a list')
    assert bad[8].fault.count("expected") == 2


@pytest.mark.parametrize(
    ("content", "problem"),
    [({"annotations": []}, "an empty one"), ({"a": 1}, "the keys 'a'"), ([], "a list")],
)
def test_what_is_no_xrayglm_file_is_refused(tmp_path: Path, content: Any, problem: str) -> None:
    path = write(tmp_path / "openi.json", content)
    with pytest.raises(DataError, match=rf"expected an object with a list 'annotations' of .*, found {problem}\."):
        list(read(path, format="xrayglm"))


@pytest.mark.real_data
@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_openi_sample(real_data: Path, language: str) -> None:
    path = real_data / "openi-sample" / f"openi-{language}.json"
    assert recognise(path).NAME == "xrayglm"
    samples = list(read_samples(path, skip_missing=True))
    assert [sample.meta["image_id"] for sample in samples] == ["2882_1", "2577_1", "861_1", "2_1", "2_2"]
    assert [sample.group for sample in samples] == ["2882", "2577", "861", "2", "2"]
    assert {sample.language for sample in samples} == {language}
    with pytest.raises(
        DataError, match=r"(?s)400 of 405 rows cannot be used.*:6: expected image '162_1\.png'.*skip_miss"
    ):
        list(read_samples(path))


# --- COCO -------------------------------------------------------------------------------------------------------------


def coco(*annotations: Any, images: Any = None) -> dict[str, Any]:
    default_images = [{"license": 5, "file_name": "000000057870.jpg", "height": 480, "width": 640, "id": 57870}]
    return {
        "info": {"description": "COCO 2014 Dataset", "year": 2014},
        "images": default_images if images is None else images,
        "licenses": [{"url": "http://creativecommons.org/licenses/by/2.0/", "id": 4, "name": "Attribution License"}],
        "annotations": list(annotations),
    }


RESTAURANT = {"image_id": 57870, "id": 787980, "caption": "A restaurant has modern wooden tables and chairs. \n"}


def test_coco_captions(tmp_path: Path) -> None:
    touch(tmp_path, "train2017/000000057870.jpg")
    path = write(tmp_path / "captions.json", coco(RESTAURANT, RESTAURANT | {"id": 2, "caption": "一家餐馆。"}))
    first, second = read_samples(path, image_dir=tmp_path / "train2017")
    assert first.turns == (Turn("Describe the picture.", "A restaurant has modern wooden tables and chairs."),)
    assert first.image == tmp_path / "train2017/000000057870.jpg"
    assert first.group == second.group == "57870"
    assert first.meta == {"image_id": 57870, "id": 787980}
    assert second.question == "描述这张图片。"


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (RESTAURANT | {"image_id": 1}, "expected 'image_id' to be the 'id' of an entry of 'images', found 1; fix: add"),
        (RESTAURANT | {"image_id": [1]}, "expected 'image_id' to be the 'id' of an entry of 'images', found a list"),
        ({"image_id": 57870, "id": 1, "bbox": []}, "expected 'caption', found only 'image_id', 'id', 'bbox'; fix: add"),
        (3, "expected an object .*, found a number"),
    ],
)
def test_broken_coco_rows(tmp_path: Path, row: Any, fault: str) -> None:
    touch(tmp_path, "000000057870.jpg")
    path = write(tmp_path / "captions.json", coco(RESTAURANT, row))
    assert re.match(fault, fault_of(path, 2))


def test_broken_coco_images(tmp_path: Path) -> None:
    entries: list[Any] = [{"id": 57870}, {"id": []}, "x"]
    path = write(tmp_path / "captions.json", coco(RESTAURANT, images=entries))
    assert fault_of(path, 1, format="coco_captions").startswith(
        "expected 'file_name' of image 57870 to be text, found null"
    )
    path = write(tmp_path / "captions.json", coco(RESTAURANT, images=[]))
    with pytest.raises(DataError, match="expected 'images' to be a list, found an empty list"):
        list(read(path, format="coco_captions"))


def test_coco_files_that_were_put_together_without_new_numbers(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png", "c.png")
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "c.png"}, {"id": 1, "file_name": "b.png"}]
    rows = [
        {"image_id": image, "id": id, "caption": text} for image, id, text in ((1, 1, "A"), (2, 2, "B"), (2, 2, "C"))
    ]
    path = write(tmp_path / "merged.json", coco(*rows, images=images))
    assert fault_of(path, 1).startswith(
        "expected one entry of 'images' with 'id' 1, found 'a.png' and 'b.png' (numbers 1"
    )
    assert fault_of(path, 3).startswith(
        "expected one annotation with 'id' 2, found 'B' and 'C' (numbers 2 and 3); fix: "
    )
    path = write(tmp_path / "copied.json", coco(*rows[:2], rows[0], images=[*images[:2], images[0]]))  # the same twice
    assert [sample.image for sample in read_samples(path)] == [tmp_path / f"{name}.png" for name in "aca"]


def test_the_patient_of_a_coco_picture_is_its_group(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    images = [{"id": id, "file_name": f"{name}.png", "PatientID": 7.0} for id, name in ((1, "a"), (2, "b"))]
    path = write(
        tmp_path / "c.json", coco(*({"image_id": id, "id": id, "caption": "A"} for id in (1, 2)), images=images)
    )
    assert [sample.group for sample in read_samples(path)] == ["7", "7"]


# --- VQA v2 -----------------------------------------------------------------------------------------------------------

QUESTION = {"image_id": 458752, "question": "What is this photo taken looking through?", "question_id": 458752000}
ANNOTATION = {
    "question_type": "what is this",
    "multiple_choice_answer": "net",
    "answers": [
        {"answer": answer, "answer_confidence": "maybe", "answer_id": 1} for answer in ("net", "netting", "net")
    ],
    "image_id": 458752,
    "answer_type": "other",
    "question_id": 458752000,
}
QUESTIONS, ANNOTATIONS = "v2_OpenEnded_mscoco_train2014_questions.json", "v2_mscoco_train2014_annotations.json"


def write_vqa(folder: Path, questions: list[Any], annotations: list[Any], subtype: str = "train2014") -> Path:
    head = {"info": {}, "data_type": "mscoco", "data_subtype": subtype, "license": {}}
    write(folder / ANNOTATIONS.replace("train2014", subtype), head | {"annotations": annotations})
    file = folder / QUESTIONS.replace("train2014", subtype)
    return write(file, head | {"task_type": "Open-Ended", "questions": questions})


def test_vqa(tmp_path: Path) -> None:
    touch(tmp_path, "train2014/COCO_train2014_000000458752.jpg", "val2014/COCO_val2014_000000458752.jpg")
    path = write_vqa(tmp_path, [QUESTION], [ANNOTATION])
    validation = write_vqa(tmp_path, [QUESTION], [ANNOTATION | {"multiple_choice_answer": "fence"}], "val2014")
    (sample,) = read_samples(path)
    assert recognise(path).NAME == "vqa_v2"
    assert sample.turns == (Turn("What is this photo taken looking through?", "net"),)
    assert sample.image == tmp_path / "train2014/COCO_train2014_000000458752.jpg"
    assert sample.group == "458752"
    assert sample.meta == {
        "image_id": 458752,
        "question_id": 458752000,
        "answers": ["net", "netting", "net"],
        "kind": "other",
        "question_type": "what is this",
        "split": "train",
    }
    (sample,) = read_samples(validation)  # each finds its own annotations, though both lie here
    assert (sample.answer, sample.meta["split"]) == ("fence", "validation")
    (sample,) = read_samples(path, annotations="v2_mscoco_val2014_annotations.json")
    assert sample.answer == "fence"


def test_broken_vqa_rows(tmp_path: Path) -> None:
    touch(tmp_path, "COCO_train2014_000000458752.jpg")
    questions = [QUESTION, QUESTION | {"question_id": 5}, QUESTION | {"image_id": "a"}, QUESTION | {"image_id": 9}, []]
    path = write_vqa(tmp_path, questions, [ANNOTATION, 3, {"question_id": []}])
    assert fault_of(path, 2).startswith("expected 'question_id' to be that of an annotation, found '5'; fix: add the")
    assert fault_of(path, 3).startswith("expected 'image_id' to be a whole number, found a text")
    assert fault_of(path, 4).startswith("expected image 'COCO_train2014_000000000009.jpg' in ")
    assert fault_of(path, 5).startswith("expected an object")
    write(tmp_path / ANNOTATIONS, {"annotations": [ANNOTATION | {"answers": [{"answer": "net"}, {"answer": None}]}]})
    assert fault_of(path, 1).startswith("expected 'answers' of its annotation, 2 to be text, found null")
    write(tmp_path / ANNOTATIONS, {"annotations": [ANNOTATION | {"multiple_choice_answer": ""}]})
    assert fault_of(path, 1).startswith("expected 'multiple_choice_answer' of its annotation to say something")


def test_vqa_files_that_were_put_together_without_new_numbers(tmp_path: Path) -> None:
    touch(tmp_path, "COCO_train2014_000000458752.jpg", "COCO_train2014_000000000009.jpg")
    path = write_vqa(tmp_path, [QUESTION], [ANNOTATION, ANNOTATION | {"multiple_choice_answer": "fence"}])
    assert fault_of(path, 1).startswith("expected one annotation with 'question_id' 458752000, found 'net' and 'fence'")
    path = write_vqa(tmp_path, [QUESTION, QUESTION | {"question": "Why?"}], [ANNOTATION])
    assert fault_of(path, 2).startswith("expected one question with 'question_id' 458752000, found 'What is this photo")
    path = write_vqa(tmp_path, [QUESTION | {"image_id": 9}], [ANNOTATION | {"image_id": 458752}])
    assert fault_of(path, 1).startswith("expected 'image_id' 9 in the annotation too, found another picture's")


def test_vqa_without_its_annotations(tmp_path: Path) -> None:
    path = write_vqa(tmp_path, [QUESTION], [ANNOTATION])
    (tmp_path / ANNOTATIONS).unlink()
    with pytest.raises(
        DataError, match=r"expected the file of its annotations beside it, found 0\. Name it in dataset"
    ):
        list(read(path))


def test_the_language_of_prompts_is_an_option_also_under_its_former_name(tmp_path: Path) -> None:
    path = tmp_path / "openi.json"
    path.write_text(json.dumps({"annotations": [{"image_id": "2_1", "caption": "Normal."}]}))
    touch(tmp_path, "2_1.png")
    cases = [({}, "en"), ({"language": "zh"}, "zh"), ({"english": False}, "zh"), ({"english": True}, "en")]
    for options, language in cases:
        (sample,) = read_samples(path, **options)
        assert sample.language == language
        assert sample.question == {"zh": xrayglm.QUESTION, "en": xrayglm.ENGLISH_QUESTION}[language]
    for options, message in (
        ({"language": "de"}, r"dataset\.options\.language must be one of zh, en"),
        ({"english": "no"}, r"dataset\.options\.english must be true or false, got 'no'"),
    ):
        with pytest.raises(ConfigError, match=message):
            list(read_samples(path, **options))
