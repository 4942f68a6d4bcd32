"""Makes `golden/evaluation/`: small predictions of two arms and two controls, and what they score.

    python tests/golden/make_evaluation.py

The scores were the same, value by value, with the code before `metrics.json` had a version.
"""

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vglm.evaluation.predictions import Arm, Evaluation, Prediction, write_evaluation, write_predictions
from vglm.evaluation.score.scoring import score_folder

FOLDER = Path(__file__).parent / "evaluation"
CLASSES = ("红色", "蓝色", "海滩", "森林")
NAMES = ("accuracy", "macro_f1", "bleu_zh", "cider_d", "findings_micro_f1", "likelihood_accuracy")


def record(row: int, split: str, prediction: str) -> Prediction:
    """A question of one of two kinds, in one of two languages, with a group of two."""
    return Prediction(
        id=f"s{row}",
        group=f"g{row // 2}",
        split=split,
        kind=("colour", "place")[row % 2],
        language="zh" if row % 3 else "en",
        question="What is it?" if row % 3 == 0 else "图中有什么？",
        history=(),
        reference=CLASSES[row % 4],
        prediction=prediction,
        image=None,
        image_sha256=None,
        meta={"site": "ABC"[row % 3]},
        finish="length" if row == 7 else "eos",
    )


def arm(seed: int, right: float, general: float) -> list[Prediction]:
    """24 test answers, so many of them right, and 16 of the probe."""
    dice = random.Random(seed)
    records = []
    for row in range(24):
        reference = CLASSES[row % 4]
        guess = dice.choice((*CLASSES, "这是红色的。", "没有", "海滩。"))
        answer = record(row, "test", reference if dice.random() < right else guess)
        likelihoods = {label: round(-3 * dice.random(), 3) for label in CLASSES}
        records.append(replace(answer, likelihoods=likelihoods))
    records += [record(row, "probe", CLASSES[row % 4] if dice.random() < general else "？") for row in range(16)]
    return records


def controls(seed: int) -> Sequence[Prediction]:
    """Answers to the first 16 test questions with another image."""
    return [prediction for prediction in arm(seed, 0.4, 0.0) if prediction.split == "test"][:16]


def main() -> None:
    """Write the folder."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    failed = replace(arm(2, 0.75, 0.6)[11], prediction="", error="unreadable", finish=None, likelihoods={})
    after = [
        failed if (prediction.split, prediction.id) == ("test", "s11") else prediction
        for prediction in arm(2, 0.75, 0.6)
    ]
    arms = {"before": arm(1, 0.3, 0.8), "after": after, "after-shuffled": controls(3), "after-blank": controls(4)}
    for label, records in arms.items():
        write_predictions(records, FOLDER / label / "predictions.jsonl")
    metrics = {"names": NAMES, "labels": None, "convention": "sacrebleu"}
    evaluation = Evaluation(
        title="t", summary="s", purpose="tuning", baseline=Arm(label="before", meaning="b"),
        candidate=Arm(label="after", meaning="a"), facts={}, decoding={}, command="", versions={}, created="",
        config=json.dumps({"metrics": metrics}),
    )  # fmt: skip
    write_evaluation(evaluation, FOLDER)
    score_folder(FOLDER)


if __name__ == "__main__":
    main()
