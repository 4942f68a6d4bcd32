"""Compare our numbers with those of the packages that the field uses: the largest deviation of each in one table.

    pip install statsmodels scikit-learn rouge-score pycocoevalcap krippendorff
    python benchmarks/oracles.py

A package that is not installed is skipped, and the table says so. Every row compares `--cases` random cases, the same
for the same `--seed`. pycocoevalcap is used without Java: CIDEr-D alone.

On 2026-11-27:

    number                                          package               numbers  largest deviation
    Student's quantiles                             scipy 1.17.1              200            0.0e+00
    Wilson's interval                               scipy 1.17.1              400            2.2e-16
    Gaffke's interval of 0/1 and Clopper-Pearson's  scipy 1.17.1               40            3.2e-03
    sign test                                       statsmodels 0.15.0        200            0.0e+00
    McNemar's exact test                            statsmodels 0.15.0        200            1.7e-15
    Holm's p-values                                 statsmodels 0.15.0       1286            0.0e+00
    accuracy                                        scikit-learn 1.9.1        200            0.0e+00
    balanced accuracy                               scikit-learn 1.9.1        200            1.1e-16
    macro-F1                                        scikit-learn 1.9.1        200            1.1e-16
    BLEU, 13a (0 to 100)                            sacrebleu 2.6.0           200            5.0e-14
    BLEU, zh (0 to 100)                             sacrebleu 2.6.0           200            5.7e-14
    BLEU, characters (0 to 100)                     sacrebleu 2.6.0           200            6.4e-14
    chrF2 (0 to 100)                                sacrebleu 2.6.0           200            0.0e+00
    ROUGE-L, English words                          rouge-score 0.1.2        1600            0.0e+00
    CIDEr-D (0 to 100)                              pycocoevalcap 1.2        1600            2.8e-14
    Krippendorff's alpha, nominal                   krippendorff 0.9.0        200            2.2e-16
    Krippendorff's alpha, ordinal                   krippendorff 0.9.0        200            2.2e-16

Gaffke's interval is made of random weights, so its ends move in the third digit.
"""

import argparse
import importlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata

import numpy as np

from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.metrics import ALL_METRICS, select_metrics
from vglm.evaluation.score.metrics.text import cider_d, rouge_l_words
from vglm.evaluation.score.ratings import Verdict, sign_test, summarise_ratings
from vglm.evaluation.score.statistics import (
    bounded_interval,
    holm,
    mcnemar_test,
    student_quantile,
    wilson_interval,
)

Pairs = Iterator[tuple[float, float]]
"""(ours, theirs)."""
WORDS = ["the", "a", "cat", "dog", "on", "sofa", "red", "two", "sleeps", "near", "window", "and", "猫", "狗", "沙发"]
LABELS = ("cat", "dog", "bird")
VERDICTS: tuple[Verdict, ...] = ("worse", "equal", "better")


@dataclass(frozen=True)
class Oracle:
    """One number of ours that a package computes, too.

    Attributes:
        name: The number.
        package: The distribution.
        module: What of it must be importable.
        compare: (source of chance, cases) -> pairs of ours and theirs.
    """

    name: str
    package: str
    module: str
    compare: Callable[[random.Random, int], Pairs]


def student(chance: random.Random, cases: int) -> Pairs:
    """Quantiles."""
    from scipy.stats import t

    for _ in range(cases):
        level, degrees = chance.uniform(0.5, 0.999), chance.uniform(1, 300)
        yield student_quantile(level, degrees), float(t.ppf(level, degrees))


def wilson(chance: random.Random, cases: int) -> Pairs:
    """Both ends."""
    from scipy.stats import binomtest

    for _ in range(cases):
        n = chance.randint(1, 500)
        successes = chance.randint(0, n)
        yield from zip(
            wilson_interval(successes, n), binomtest(successes, n).proportion_ci(method="wilson"), strict=True
        )


def clopper_pearson(chance: random.Random, cases: int) -> Pairs:
    """Gaffke's interval of 0/1 by 20,000 random weights, both ends."""
    from scipy.stats import binomtest

    for _ in range(max(1, cases // 10)):
        n = chance.randint(2, 60)
        successes = chance.randint(0, n)
        ours = bounded_interval(np.repeat([1.0, 0.0], [successes, n - successes]), 0, 1, resamples=20_000)
        yield from zip(ours, binomtest(successes, n).proportion_ci(method="exact"), strict=True)


def sign(chance: random.Random, cases: int) -> Pairs:
    """p-values of wins and losses, the package's over two columns of 0/1."""
    from statsmodels.stats.descriptivestats import sign_test as theirs

    for _ in range(cases):
        wins, losses = chance.randint(0, 40), chance.randint(1, 40)
        yield sign_test(wins, losses)[0], float(theirs(np.repeat([1, -1], [wins, losses]), 0)[1])


def mcnemar(chance: random.Random, cases: int) -> Pairs:
    """Exact p-values."""
    from statsmodels.stats.contingency_tables import mcnemar as theirs

    for _ in range(cases):
        gained, lost = chance.randint(0, 60), chance.randint(0, 60)
        yield mcnemar_test(gained, lost), float(theirs([[9, gained], [lost, 9]], exact=True).pvalue)


def corrected(chance: random.Random, cases: int) -> Pairs:
    """p-values by Holm."""
    from statsmodels.stats.multitest import multipletests

    for _ in range(cases):
        values = [chance.random() ** 3 for _ in range(chance.randint(1, 12))]
        yield from zip(
            holm({str(index): value for index, value in enumerate(values)}).values(),
            map(float, multipletests(values, method="holm")[1]),
            strict=True,
        )


def classification(name: str) -> Callable[[random.Random, int], Pairs]:
    """Accuracy, balanced accuracy or macro-F1, over the classes of the references."""

    def compare(chance: random.Random, cases: int) -> Pairs:
        from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

        (metric,) = select_metrics([name], LABELS)[:1]
        for _ in range(cases):
            true = [chance.choice(LABELS) for _ in range(chance.randint(len(LABELS), 40))]
            named = [chance.choice(true) for _ in true]
            labels = sorted(set(true))
            theirs = {
                "accuracy": lambda true, named: accuracy_score(true, named),
                "balanced_accuracy": lambda true, named: balanced_accuracy_score(true, named),
                "macro_f1": lambda true, named, labels=labels: f1_score(true, named, labels=labels, average="macro"),
            }[name]
            yield metric.score(records(named, true)), float(theirs(true, named))

    return compare


def corpus(name: str) -> Callable[[random.Random, int], Pairs]:
    """BLEU of a tokenizer, or chrF, in hundredths as sacrebleu gives them."""

    def compare(chance: random.Random, cases: int) -> Pairs:
        from sacrebleu.metrics import BLEU, CHRF

        theirs = CHRF() if name == "chrf" else BLEU(tokenize=name.removeprefix("bleu_"))
        for _ in range(cases):
            answers, references = texts(chance)
            ours = 100 * ALL_METRICS[name].score(records(answers, references))
            yield ours, float(theirs.corpus_score(answers, [references]).score)

    return compare


def rouge_l(chance: random.Random, cases: int) -> Pairs:
    """F1 of each pair of English texts."""
    from rouge_score.rouge_scorer import RougeScorer

    theirs = RougeScorer(["rougeL"])
    for _ in range(cases):
        for one, two in zip(*texts(chance, WORDS[:12]), strict=True):
            yield rouge_l_words(one, two), float(theirs.score(two, one)["rougeL"].fmeasure)


def cider(chance: random.Random, cases: int) -> Pairs:
    """CIDEr-D of each answer, document frequencies from the references."""
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    for _ in range(cases):
        answers, references = texts(chance)
        scorer = CiderScorer()
        for one, two in zip(answers, references, strict=True):
            scorer += (one, [two])
        ours = cider_d([text.split() for text in answers], [text.split() for text in references])
        yield from zip((10 * score for score in ours), map(float, 10 * scorer.compute_score()[1]), strict=True)


def alpha(level: str) -> Callable[[random.Random, int], Pairs]:
    """Krippendorff's alpha of verdicts with gaps."""

    def compare(chance: random.Random, cases: int) -> Pairs:
        from krippendorff import alpha as theirs

        for _ in range(cases):
            table = [[chance.choice([0, 1, 2, None]) for _ in range(12)] for _ in range(3)]
            summary = summarise_ratings(
                (f"r{rater}", f"s{sample}", VERDICTS[value])
                for rater, row in enumerate(table)
                for sample, value in enumerate(row)
                if value is not None
            )
            ours = summary.alpha_ordinal if level == "ordinal" else summary.alpha_nominal
            if ours is not None:
                data = np.array(table, dtype=np.float64)
                yield ours, float(theirs(data, value_domain=[0, 1, 2], level_of_measurement=level))

    return compare


def texts(chance: random.Random, words: Sequence[str] = WORDS) -> tuple[list[str], list[str]]:
    """Eight answers and their references: the same words, some of them replaced or left out."""
    references = [[chance.choice(words) for _ in range(chance.randint(4, 14))] for _ in range(8)]
    answers = [
        [chance.choice(words) if chance.random() < 0.3 else word for word in text if chance.random() < 0.9]
        for text in references
    ]
    return [" ".join(text) for text in answers], [" ".join(text) for text in references]


def records(answers: Sequence[str], references: Sequence[str]) -> list[Prediction]:
    """Predictions with references."""
    return [
        Prediction.of_texts(*pair, str(number)) for number, pair in enumerate(zip(answers, references, strict=True))
    ]


ORACLES = (
    Oracle("Student's quantiles", "scipy", "scipy.stats", student),
    Oracle("Wilson's interval", "scipy", "scipy.stats", wilson),
    Oracle("Gaffke's interval of 0/1 and Clopper-Pearson's", "scipy", "scipy.stats", clopper_pearson),
    Oracle("sign test", "statsmodels", "statsmodels.stats.descriptivestats", sign),
    Oracle("McNemar's exact test", "statsmodels", "statsmodels.stats.contingency_tables", mcnemar),
    Oracle("Holm's p-values", "statsmodels", "statsmodels.stats.multitest", corrected),
    Oracle("accuracy", "scikit-learn", "sklearn.metrics", classification("accuracy")),
    Oracle("balanced accuracy", "scikit-learn", "sklearn.metrics", classification("balanced_accuracy")),
    Oracle("macro-F1", "scikit-learn", "sklearn.metrics", classification("macro_f1")),
    Oracle("BLEU, 13a (0 to 100)", "sacrebleu", "sacrebleu", corpus("bleu_13a")),
    Oracle("BLEU, zh (0 to 100)", "sacrebleu", "sacrebleu", corpus("bleu_zh")),
    Oracle("BLEU, characters (0 to 100)", "sacrebleu", "sacrebleu", corpus("bleu_char")),
    Oracle("chrF2 (0 to 100)", "sacrebleu", "sacrebleu", corpus("chrf")),
    Oracle("ROUGE-L, English words", "rouge-score", "rouge_score", rouge_l),
    Oracle("CIDEr-D (0 to 100)", "pycocoevalcap", "pycocoevalcap.cider.cider_scorer", cider),
    Oracle("Krippendorff's alpha, nominal", "krippendorff", "krippendorff", alpha("nominal")),
    Oracle("Krippendorff's alpha, ordinal", "krippendorff", "krippendorff", alpha("ordinal")),
)


def measure(oracle: Oracle, cases: int, seed: int) -> tuple[int, float] | None:
    """How many numbers were compared and the largest deviation; None where the package is missing."""
    try:
        importlib.import_module(oracle.module)
    except ImportError:
        return None
    deviations = [abs(ours - theirs) for ours, theirs in oracle.compare(random.Random(seed), cases)]
    return len(deviations), max(deviations)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=200, help="random cases of each row")
    parser.add_argument("--seed", type=int, default=1)
    parsed = parser.parse_args(arguments)
    print(f"{'number':47} {'package':20} {'numbers':>8} {'largest deviation':>18}")
    for oracle in ORACLES:
        result = measure(oracle, parsed.cases, parsed.seed)
        if result is None:
            print(f"{oracle.name:47} {oracle.package:20} {'not installed, skipped':>27}")
            continue
        package = f"{oracle.package} {metadata.version(oracle.package)}"
        print(f"{oracle.name:47} {package:20} {result[0]:8} {result[1]:18.1e}", flush=True)


if __name__ == "__main__":
    main()
