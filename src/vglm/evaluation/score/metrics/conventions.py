"""Scores by the conventions of other projects, under which the same text may have a BLEU of 9 or of 43.

`metrics.convention=llama_factory` (or `ms_swift`, `r2gen`, `pycocoevalcap`, `sacrebleu`, `all`) adds these figures, 0
to 100 (CIDEr-D 0 to 1000), to a report. They are for comparison with numbers published under that convention, and only
with those.
"""

import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from vglm.errors import ConfigError
from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.metrics.text import BLEU_13A, BLEU_CHAR, BLEU_ZH, CHRF, ORDERS, cider_d, count_shared


@dataclass(frozen=True, slots=True)
class Convention:
    """How a project scores text.

    Attributes:
        name: The word for `metrics.convention`.
        project: Whose convention it is.
        how: Tokens, smoothing, averaging, truncation.
        source: Repository and file.
        function: (predictions, references) -> metric name -> score.
    """

    name: str
    project: str
    how: str
    source: str
    function: Callable[[Sequence[str], Sequence[str]], dict[str, float]]

    def score(self, records: Sequence[Prediction]) -> dict[str, float]:
        """Score records; one with an error counts as an empty answer.

        Raises:
            ConfigError: The convention's own packages are not installed.
        """
        answers = ["" if record.error is not None else record.prediction for record in records]
        return self.function(answers, [record.reference for record in records])


# --- LLaMA-Factory and ms-swift: jieba, nltk, and a package called rouge ---------------------------------------------


def _llama_factory(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    jieba, rouge = _import("jieba"), _import("rouge_chinese").Rouge()
    scores: dict[str, list[float]] = {name: [] for name in ("rouge-1", "rouge-2", "rouge-l", "bleu-4")}
    for prediction, reference in zip(predictions, references, strict=True):
        hypothesis, truth = (" ".join(jieba.cut(text)) for text in (prediction, reference))
        empty = not hypothesis.split() or not truth.split()
        rouge_scores = {} if empty else rouge.get_scores(hypothesis, truth)[0]
        for name in ("rouge-1", "rouge-2", "rouge-l"):
            scores[name].append(0.0 if empty else round(100 * rouge_scores[name]["f"], 4))
        scores["bleu-4"].append(round(100 * _sentence_bleu(prediction, reference), 4))
    return {name: fmean(values) for name, values in scores.items()}


def _ms_swift(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    jieba, rouge = _import("jieba"), _import("rouge").Rouge()
    scores: dict[str, list[float]] = {name: [] for name in ("rouge-1", "rouge-2", "rouge-l", "bleu-4")}
    for prediction, reference in zip(predictions, references, strict=True):
        hypothesis, truth = list(jieba.cut(prediction)), list(jieba.cut(reference))
        if not hypothesis or not truth:
            continue  # left out of the mean, so silence costs nothing
        # rouge cuts sentences at stops and refuses a text that is nothing else
        is_empty = not all(text.replace(".", "").strip() for text in (prediction, reference))
        rouge_scores = {} if is_empty else rouge.get_scores(" ".join(hypothesis), " ".join(truth))[0]
        for name in ("rouge-1", "rouge-2", "rouge-l"):
            scores[name].append(0.0 if is_empty else rouge_scores[name]["f"])
        scores["bleu-4"].append(_sentence_bleu(prediction, reference))
    return {name: round(100 * fmean(values), 6) if values else 0.0 for name, values in scores.items()}


def _sentence_bleu(prediction: str, reference: str) -> float:
    """BLEU-4 of nltk on characters, blanks among them, with its smoothing method 3, sentence by sentence."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    return float(sentence_bleu([list(reference)], list(prediction), smoothing_function=SmoothingFunction().method3))


# --- pycocoevalcap and R2Gen, which uses it --------------------------------------------------------------------------


def _pycocoevalcap(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """As the package counts, without it.

    Its BLEU, ROUGE-L and CIDEr-D load without Java in 0.1 s, but version 1.2 (2020, the last one) is a download of 104
    MB, nearly all of it Java's, brings pycocotools, and its BLEU is "not for commercial use" (measured 2026-11-27).
    """
    hypotheses, truths = [text.split() for text in predictions], [text.split() for text in references]
    scores = {f"Bleu_{n}": 100 * value for n, value in enumerate(coco_bleu(hypotheses, truths), start=1)}
    scores["ROUGE_L"] = 100 * fmean(coco_rouge_l(*pair) for pair in zip(predictions, references, strict=True))
    return scores | {"CIDEr": 100 * fmean(cider_d(hypotheses, truths))}


def coco_bleu(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> list[float]:
    """Corpus BLEU-1 to BLEU-4 of tokenised answers, without smoothing, 0.0 to 1.0.

    Source: tylin/coco-caption:pycocoevalcap/bleu/bleu_scorer.py; its tiny constants keep divisions by 0 away.
    """
    small, tiny = 1e-9, 1e-15
    length, reference_length = sum(map(len, predictions)), sum(map(len, references))
    totals, _, matches = count_shared(predictions, references, ORDERS).sum(axis=0).T.tolist()
    ratio = (length + tiny) / (reference_length + small)
    brevity = math.exp(max(1 - 1 / ratio, -700.0)) if ratio < 1 else 1.0
    product, scores = 1.0, []
    for order in range(ORDERS):
        product *= (matches[order] + tiny) / (totals[order] + small)
        scores.append(brevity * product ** (1 / (order + 1)))
    return scores


def coco_rouge_l(prediction: str, reference: str) -> float:
    """ROUGE-L of two texts split at single blanks, with beta = 1.2, 0.0 to 1.0.

    Source: tylin/coco-caption:pycocoevalcap/rouge/rouge.py.
    """
    hypothesis, truth = prediction.split(" "), reference.split(" ")
    row = [0] * (len(truth) + 1)
    for token in hypothesis:
        previous = row
        row = [0]
        for index, other in enumerate(truth):
            row.append(previous[index] + 1 if token == other else max(previous[index + 1], row[index]))
    precision, recall = row[-1] / len(hypothesis), row[-1] / len(truth)
    return (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision) if row[-1] else 0.0


R2GEN_LENGTH = 60
"""Words that R2Gen keeps of an IU X-ray report, of the reference too (100 for MIMIC-CXR)."""


def clean_report(report: str) -> str:
    """A report as R2Gen learns and scores it: lower case, no punctuation but a lone stop after each sentence.

    Source: `clean_report_iu_xray` of zhjohnchan/R2Gen:modules/tokenizers.py; the rare words that it replaces by <unk>,
    by the frequencies in its training set, stay here.
    """
    for _ in range(3):
        report = report.replace("..", ".")
    report = report.replace("1. ", "")
    for mark in (". 2. ", ". 3. ", ". 4. ", ". 5. ", " 2. ", " 3. ", " 4. ", " 5. "):
        report = report.replace(mark, ". ")
    sentences = report.strip().lower().split(". ")
    signs = re.compile(r"""[.,?;*!%^&_+():-\[\]{}"/\\']""")
    return " . ".join(signs.sub("", sentence).strip() for sentence in sentences) + " ."


def _r2gen(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    hypotheses, truths = (
        [clean_report(text).split()[:R2GEN_LENGTH] for text in texts] for texts in (predictions, references)
    )
    scores = {f"BLEU_{n}": 100 * value for n, value in enumerate(coco_bleu(hypotheses, truths), start=1)}
    pairs = zip(hypotheses, truths, strict=True)
    return scores | {"ROUGE_L": 100 * fmean(coco_rouge_l(" ".join(one), " ".join(other)) for one, other in pairs)}


# --- sacrebleu -------------------------------------------------------------------------------------------------------


def _sacrebleu(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    pairs = zip(predictions, references, strict=True)
    records = [Prediction.of_texts(*pair, str(number)) for number, pair in enumerate(pairs)]
    metrics = {"BLEU 13a": BLEU_13A, "BLEU zh": BLEU_ZH, "BLEU char": BLEU_CHAR, "chrF2": CHRF}
    return {name: 100 * metric.score(records) for name, metric in metrics.items()}


CONVENTIONS = {
    convention.name: convention
    for convention in (
        Convention(
            "llama_factory",
            "LLaMA-Factory",
            "mean over answers|BLEU-4: nltk, characters with blanks, smoothing method 3|ROUGE: rouge_chinese F on jieba"
            " words, sets of n-grams|empty answers 0",
            "hiyouga/LLaMA-Factory:src/llamafactory/train/sft/metric.py",
            _llama_factory,
        ),
        Convention(
            "ms_swift",
            "ms-swift",
            "mean over answers|BLEU-4: nltk, characters with blanks, smoothing method 3|ROUGE: rouge F on jieba words,"
            " sets of n-grams|empty answers left out, ROUGE of stops alone 0 where ms-swift ends with an error",
            "modelscope/ms-swift:swift/plugin/metric.py",
            _ms_swift,
        ),
        Convention(
            "r2gen",
            "R2Gen",
            f"BLEU-1 to 4: corpus, no smoothing|ROUGE-L: beta 1.2|lower case, punctuation dropped, stops as words"
            f"|answers and references cut at {R2GEN_LENGTH} words|without <unk> and without Java's METEOR",
            "zhjohnchan/R2Gen:modules/metrics.py, modules/tokenizers.py",
            _r2gen,
        ),
        Convention(
            "pycocoevalcap",
            "pycocoevalcap",
            "BLEU-1 to 4: corpus, no smoothing|ROUGE-L: beta 1.2|CIDEr-D|split at blanks, case kept: without Java's"
            " PTB tokenizer; Chinese without blanks is one token",
            "salaniz/pycocoevalcap:bleu, rouge, cider",
            _pycocoevalcap,
        ),
        Convention(
            "sacrebleu",
            "sacrebleu",
            f"corpus|{BLEU_13A.signature} (and zh, char)|chrF2: {CHRF.signature}",
            "mjpost/sacrebleu",
            _sacrebleu,
        ),
    )
}
"""By name."""


def score_conventions(records: Sequence[Prediction], names: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Score the same records under several conventions.

    Args:
        records: At least one.
        names: Of `CONVENTIONS`; None for all.

    Returns:
        Convention -> metric -> score, 0 to 100 (CIDEr-D 0 to 1000).

    Raises:
        ConfigError: A name is unknown, or a convention's packages are not installed.
    """
    names = list(CONVENTIONS) if names is None else names
    if unknown := [name for name in names if name not in CONVENTIONS]:
        raise ConfigError(f"metrics.convention must be one of {', '.join(CONVENTIONS)} or all, got {unknown[0]!r}.")
    return {name: CONVENTIONS[name].score(records) for name in names}


def _import(package: str) -> Any:
    """Import a convention's own package, with its warnings kept quiet."""
    with _quiet():
        try:
            module = __import__(package)
        except ImportError as error:
            pip_name = package.replace("_", "-")
            raise ConfigError(
                f"this convention needs the package {pip_name}, which is not installed:"
                f" pip install 'visualglm-workbench[conventions]', or pip install {pip_name}."
            ) from error
        if package == "jieba":
            import logging

            module.setLogLevel(logging.WARNING)
            module.initialize()
        return module


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
