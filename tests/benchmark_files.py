"""Small files in the formats of published benchmarks, as their releases lay them out."""

import base64
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

HEADER = ("index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "source", "l2-category")


def encode(colour: str, size: int = 24) -> str:
    """A plain picture in base64."""
    content = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


def mmbench_row(index: int, image: str, **changes: str) -> dict[str, str]:
    row = dict.fromkeys(HEADER, "") | {"index": str(index), "image": image, "question": "What is it?", "answer": "A"}
    return row | {"A": "a cat", "B": "a dog", "category": "object", "source": "x", "l2-category": "coarse"} | changes


def write_mmbench(path: Path, rows: list[dict[str, str]]) -> Path:
    lines = ["\t".join(HEADER), *("\t".join(row[name] for name in HEADER) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def mmbench_set(folder: Path) -> Path:
    """Two questions with both rotations, a third without; rotations name the picture of the first row."""
    turned = {"A": "a dog", "B": "a cat", "answer": "B"}
    rows = [
        mmbench_row(3, encode("red"), hint="Look closely."),
        mmbench_row(7, encode("blue"), question="图中是什么？", category="scene"),
        mmbench_row(9, encode("green"), C="a cow", answer="C"),
        mmbench_row(1_000_003, "3", hint="Look closely.", **turned),
        mmbench_row(1_000_007, "7", question="图中是什么？", category="scene", **turned),
    ]
    return write_mmbench(folder / "mmbench_dev_en.tsv", rows)


def mme_set(folder: Path) -> Path:
    """One category with pictures beside the questions, and one with folders of their own."""
    root = folder / "MME_Benchmark"
    flat, apart = root / "color", root / "artwork"
    for directory in (flat, apart / "images", apart / "questions_answers_YN"):
        directory.mkdir(parents=True)
    for name, colour in (("0001", "red"), ("0002", "blue")):
        Image.new("RGB", (20, 20), colour).save(flat / f"{name}.jpg")
        text = f"Is it {colour}? Please answer yes or no.\tYes\nIs it grey? Please answer yes or no.\tNo\n"
        (flat / f"{name}.txt").write_text(text, encoding="utf-8")
    Image.new("RGB", (20, 20), "white").save(apart / "images" / "10002.png")
    lines = "Is it a painting? Please answer yes or no.\tYes\nIs it a vase? Please answer yes or no.\tNo\n\n"
    (apart / "questions_answers_YN" / "10002.txt").write_text(lines, encoding="utf-8")
    return root


def problem(**changes: Any) -> dict[str, Any]:
    row = {"question": "Which is farthest north?", "choices": ["Ohio", "Utah", "Iowa"], "answer": 1, "hint": ""}
    row |= {"image": "image.png", "task": "closed choice", "grade": "grade2", "subject": "social science"}
    row |= {
        "topic": "geography",
        "category": "Geography",
        "skill": "Read a map",
        "lecture": "Maps have",
        "split": "test",
    }
    return row | {"solution": "Look at the compass rose."} | changes


def scienceqa_set(folder: Path) -> Path:
    """A training problem and three to test on, one of them without a picture."""
    root = folder / "ScienceQA"
    problems = {
        "1": problem(split="train"),
        "2": problem(),
        "5": problem(
            image=None, hint="Mona will print her name.\nWith care.", grade="grade8", choices=["past", "future"]
        ),
        "7": problem(question="Which is the largest?", hint="A map."),
    }
    for split, pid, colour in (("train", "1", "red"), ("test", "2", "blue"), ("test", "7", "green")):
        (root / "images" / split / pid).mkdir(parents=True)
        Image.new("RGB", (20, 30), colour).save(root / "images" / split / pid / "image.png")
    (root / "problems.json").write_text(json.dumps(problems), encoding="utf-8")
    splits = {"train": ["1"], "val": [], "test": ["2", "5", "7"], "trainval": ["1"], "minitest": ["2"]}
    (root / "pid_splits.json").write_text(json.dumps(splits), encoding="utf-8")
    return root


def pope_row(number: int = 1, **changes: Any) -> dict[str, Any]:
    row = {"question_id": number, "image": "COCO_val2014_000000310196.jpg", "label": "yes"}
    return row | {"text": "Is there a snowboard in the image?"} | changes


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def pope_set(folder: Path) -> Path:
    """Four questions on two pictures in COCO's folder."""
    names = ["COCO_val2014_000000310196.jpg", "COCO_val2014_000000210789.jpg"]
    (folder / "val2014").mkdir(parents=True)
    for name, colour in zip(names, ("red", "blue"), strict=True):
        Image.new("RGB", (20, 20), colour).save(folder / "val2014" / name)
    rows = [pope_row(number, image=names[number // 2], label=("yes", "no")[number % 2]) for number in range(4)]
    return write_lines(folder / "coco_pope_adversarial.json", rows)
