"""The few-shot "background" task over synthetic scenes, in the style of VisualGLM-6B's published sample.

    {
        "img": "images/train_000.png",
        "prompt": "这张图片的背景里有什么内容？",
        "label": "这张图片的背景是月球。",
        "kind": "background",
        "place": "moon",
        "subjects": "3 yellow ball"
    }

Pre-training neither shows nor names these places, so the untuned model answers with places that it knows. In training
the same subjects occur in every place: the foreground does not reveal the background. The general retention set comes
with the task: new questions of the pre-training kinds, which show what a model forgets while it learns the task.

Source: the question and form of answer of THUDM/VisualGLM-6B:fewshot-data/dataset.json.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vglm.errors import DataError
from vglm.files import new_folder, write_text
from vglm.text.prompt import LANGUAGES
from vglm.worlds.command import write_set
from vglm.worlds.questions import QUESTION_KINDS, TEXT_ONLY_KINDS, ask
from vglm.worlds.render import render
from vglm.worlds.scenes import NEW_PLACES, sample_scene

QUESTION = "这张图片的背景里有什么内容？"
ANSWERS = {
    "moon": "这张图片的背景是月球。",
    "volcano": "这张图片的背景是火山。",
    "bookshelf": "这张图片的背景是书架。",
    "maples": "这张图片的背景是枫林。",
    "seabed": "这张图片的背景是海底。",
}
"""What the answer is for each place."""


def write_background_set(
    folder: Path,
    seed: int,
    *,
    train_per_place: int = 4,
    validation_per_place: int = 8,
    test_per_place: int = 24,
    probe_per_kind: int = 9,
    size: int = 64,
) -> None:
    """Write `train.json`, `validation.json`, `test.json`, `probe.json` and their `images/` into a new folder.

    Args:
        folder: Where to write; it must not exist or be empty, and holds either the whole set or nothing afterwards.
        seed: Another seed gives other pictures and retention questions, the same seed the same set.
        train_per_place: Training pictures of each place.
        validation_per_place: Pictures of each place to choose settings and checkpoints by.
        test_per_place: Test pictures of each place.
        probe_per_kind: Scenes for each pre-training question kind; each is asked about in Chinese and in English.
        size: Width and height of the pictures in pixels, at least 16.

    Raises:
        DataError: `folder` holds something already, or cannot be written.
    """
    with new_folder(folder) as staging:
        (staging / "images").mkdir()
        splits = {"train": (1, train_per_place), "test": (2, test_per_place), "validation": (4, validation_per_place)}
        for split, (number, per_place) in splits.items():
            _write_rows(staging / f"{split}.json", _background_rows(staging, split, [seed, number], per_place, size))
        _write_rows(staging / "probe.json", _retention_rows(staging, [seed, 3], probe_per_kind, size))


def _background_rows(folder: Path, split: str, seed: list[int], per_place: int, size: int) -> list[dict[str, Any]]:
    """Rows that cycle through the places; their pictures are saved.

    In training the same subjects occur in every place, so that the subjects do not reveal the answer.
    """
    rows = []
    for index in range(per_place * len(NEW_PLACES)):
        turn, place = index // len(NEW_PLACES), NEW_PLACES[index % len(NEW_PLACES)]
        drawn = sample_scene(np.random.default_rng([index, *seed]))
        subjects = sample_scene(np.random.default_rng([turn, *seed])) if split == "train" else drawn
        scene = replace(subjects, place=place, texture_seed=drawn.texture_seed)
        name = f"images/{split}_{index:03d}.png"
        render(scene, size).save(folder / name, optimize=True)
        facts = {"kind": "background", "place": place, "subjects": f"{scene.count} {scene.colour} {scene.kind}"}
        rows.append({"img": name, "prompt": QUESTION, "label": ANSWERS[place], **facts})
    return rows


def _retention_rows(folder: Path, seed: list[int], per_kind: int, size: int) -> list[dict[str, Any]]:
    """Rows that take the question kinds in turn, two languages to a scene."""
    rows = []
    for index in range(per_kind * len(QUESTION_KINDS)):
        kind = QUESTION_KINDS[index % len(QUESTION_KINDS)]
        rng = np.random.default_rng([index, *seed])
        scene = sample_scene(rng)
        row: dict[str, Any] = {}
        if kind not in TEXT_ONLY_KINDS:
            row["img"] = f"images/probe_{index:03d}.png"
            render(scene, size).save(folder / row["img"], optimize=True)
        for language in LANGUAGES:
            *history, last = ask(scene, kind, language, rng)
            question_row = {**row, "prompt": last.question, "label": last.answer, "kind": kind}
            if history:
                question_row["history"] = [[turn.question, turn.answer] for turn in history]
            if language == "en":
                question_row["english"] = True
            rows.append(question_row)
    return rows


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A JSON list, one row a line."""
    lines = ",\n".join(f"    {json.dumps(row, ensure_ascii=False)}" for row in rows)
    write_text(path, f"[\n{lines}\n]\n", error=DataError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a set from the command line; returns the exit code."""
    return write_set(
        write_background_set,
        arguments,
        example="outputs/new_set --seed 7 --test-per-place 10",
        least={"seed": 0, "size": 16},
    )


if __name__ == "__main__":
    sys.exit(main())
