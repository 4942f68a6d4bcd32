"""Golden values of the text metrics, by the packages that others use: python tests/golden/make_text_metrics.py

Needs pycocoevalcap (100 MB, no dependency of the workbench; its METEOR 1.5 runs in Java), nltk, jieba, rouge-chinese
and rouge. The loops over answers are those of hiyouga/LLaMA-Factory:src/llamafactory/train/sft/metric.py
and modelscope/ms-swift:swift/plugin/metric.py.
"""

import json
from importlib import metadata
from pathlib import Path
from statistics import fmean

import jieba
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge as CocoRouge
from rouge import Rouge
from rouge_chinese import Rouge as ChineseRouge

ENGLISH = [
    ["a man rides a brown horse on the beach", "a man is riding a horse along the beach"],
    ["two dogs play in the snow", "two dogs are playing in the snow together"],
    ["a red bus", "a red double decker bus is parked beside the street"],
    ["a cat", "a dog sleeps on the sofa"],
    ["the heart is normal in size and the lungs are clear", "the heart is normal in size . the lungs are clear ."],
    ["a plate of food with rice and vegetables on a wooden table", "a plate of rice and vegetables"],
]
CHINESE = [
    ["这张图片的背景是草地。", "这张图片的背景是沙滩。"],
    ["心影不大，双肺清晰。", "心影增大，双肺未见实变。"],
    ["一只猫坐在沙发上", "一只狗睡在沙发上。"],
    ["蓝色的海", "这张图片的背景是蓝色的大海和天空。"],
]


def coco(pairs: list[list[str]]) -> dict[str, float]:
    answers = {index: [pair[0]] for index, pair in enumerate(pairs)}
    references = {index: [pair[1]] for index, pair in enumerate(pairs)}
    bleu, _ = Bleu(4).compute_score(references, answers, verbose=0)
    scores = {f"Bleu_{n}": 100 * value for n, value in enumerate(bleu, start=1)}
    scores["ROUGE_L"] = 100 * CocoRouge().compute_score(references, answers)[0]
    return scores | {"CIDEr": 100 * Cider().compute_score(references, answers)[0]}


def java_meteor(pairs: list[list[str]]) -> dict[str, object]:
    answers = {index: [pair[0]] for index, pair in enumerate(pairs)}
    references = {index: [pair[1]] for index, pair in enumerate(pairs)}
    corpus, sentences = Meteor().compute_score(references, answers)
    return {"corpus": corpus, "sentences": sentences}


def sentence(prediction: str, reference: str) -> float:
    return sentence_bleu([list(reference)], list(prediction), smoothing_function=SmoothingFunction().method3)


def llama_factory(pairs: list[list[str]]) -> dict[str, float]:
    scores: dict[str, list[float]] = {"rouge-1": [], "rouge-2": [], "rouge-l": [], "bleu-4": []}
    for prediction, reference in pairs:
        rouge = ChineseRouge().get_scores(" ".join(jieba.cut(prediction)), " ".join(jieba.cut(reference)))[0]
        for name in ("rouge-1", "rouge-2", "rouge-l"):
            scores[name].append(round(rouge[name]["f"] * 100, 4))
        scores["bleu-4"].append(round(sentence(prediction, reference) * 100, 4))
    return {name: fmean(values) for name, values in scores.items()}


def ms_swift(pairs: list[list[str]]) -> dict[str, float]:
    scores: dict[str, list[float]] = {"rouge-1": [], "rouge-2": [], "rouge-l": [], "bleu-4": []}
    for prediction, reference in pairs:
        rouge = Rouge().get_scores(" ".join(jieba.cut(prediction)), " ".join(jieba.cut(reference)))[0]
        for name in ("rouge-1", "rouge-2", "rouge-l"):
            scores[name].append(rouge[name]["f"])
        scores["bleu-4"].append(sentence(prediction, reference))
    return {name: round(100 * fmean(values), 6) for name, values in scores.items()}


def main() -> None:
    sets = {"english": ENGLISH, "chinese": CHINESE}
    spaced = [[" ".join(text) for text in pair] for pair in CHINESE]
    packages = ("pycocoevalcap", "nltk", "jieba", "rouge", "rouge-chinese")
    golden = {
        "packages": {name: metadata.version(name) for name in packages},
        "pairs": sets | {"chinese, spaced": spaced},
        "pycocoevalcap": {name: coco(pairs) for name, pairs in {**sets, "chinese, spaced": spaced}.items()},
        "meteor_1.5": {name: java_meteor(pairs) for name, pairs in sets.items()},
        "llama_factory": {name: llama_factory(pairs) for name, pairs in sets.items()},
        "ms_swift": {name: ms_swift(pairs) for name, pairs in sets.items()},
    }
    text = json.dumps(golden, ensure_ascii=False, indent=1) + "\n"
    (Path(__file__).parent / "metrics" / "text.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
