"""How often does the 95 % interval hold the truth, and how often does the test reject a true null hypothesis?

    python benchmarks/statistical_tests.py                       3 minutes on one core
    python benchmarks/statistical_tests.py --repeats 200         a quick look

Right/wrong on independent samples is computed without chance. For everything else a population of 3,000 groups of
samples (studies, patients) is made with both arms' answers, so the true difference is known; groups are drawn from it
again and again, and each draw is compared by `vglm.evaluation.score.statistics.compare_paired`, as a report does. For
the null hypothesis the arms of each drawn group are exchanged at random, which makes the true difference 0.

Wanted are intervals that hold the truth in 93 to 97 % and tests that reject a true null hypothesis in 3 to 7 % of the
cases. `held` is with a true difference, `held 0` without one; `p`, or `mid-p`, is the p-value of a report, `exact` the
one beside it; `verdict`: the interval agrees with the test, without which no report claims a difference; `score`: the
asymptotic McNemar test, which no report uses. Computed, right/wrong on n independent samples (some of the rows):

        n  flips   mid-p   exact   score  verdict  held 0  held gain
       20    2.0     0.2     0.0     1.4      0.2    98.6       99.5
       20    4.0     1.7     0.5     4.4      1.7    95.6       97.3
       20    6.0     3.2     1.3     4.8      3.2    95.2       96.3
       20    8.0     3.9     1.9     4.4      3.9    95.6       94.7
       20   12.0     4.3     2.4     4.3      4.3    95.7       94.6
       50    5.0     2.5     0.9     4.7      2.5    95.3       96.2
       50   10.0     4.1     2.2     4.3      4.1    95.7       94.9
       50   30.0     4.5     3.0     5.2      4.5    94.8       95.2
      200   10.0     4.1     2.2     4.3      4.1    95.7       95.1
      200   40.0     4.8     3.5     4.9      4.8    95.1       94.9
      200  120.0     4.9     4.0     4.9      4.9    95.1       95.0

From 6 expected flips on the mid-p value does what is wanted. With fewer it rejects less often, for so few flips say
little: 4 of them all go one way in 1 of 8 cases, which the score test counts as a finding and the mid-p test does not.

Simulated on 2026-11-22 with --repeats 2000 (standard error 0.5), a group having 1 to 6 samples that are answered alike:

                                    n groups   held  held 0      p  exact  verdict
    score 0-1                      20     20   95.2    94.8    5.4    5.4      5.1
    score 0-1                      50     50   95.1    95.3    4.9    4.9      4.5
    score 0-1                     200    200   95.2    95.2    5.1    5.1      4.5
    score 0-1, few large gains     20     20   92.7    97.1    4.6    4.6      2.1
    score 0-1, few large gains     50     50   93.3    95.8    4.5    4.5      3.6
    score 0-1, few large gains    200    200   95.0    95.8    4.6    4.6      4.2
    score 0-1, by group            20     10   95.0    95.8    4.4    4.2      3.6
    score 0-1, by group            49     24   94.0    94.5    5.3    5.3      4.9
    score 0-1, by group           199     98   94.6    95.5    4.2    4.2      4.0
    right/wrong, by group          21     10   94.5    95.6    3.6    1.5      3.3
    right/wrong, by group          50     24   95.5    95.3    4.8    3.4      4.2
    right/wrong, by group         203     98   95.1    95.9    4.5    3.8      4.0
    macro-F1                       20     20   95.8    97.1    3.8    2.2      2.2
    macro-F1                       50     50   95.5    95.5    5.0    4.7      4.2
    macro-F1                      200    200   95.0    95.7    4.1    4.1      3.9
    macro-F1, by group             21     10   93.7    97.2    2.1    0.5      1.4
    macro-F1, by group             49     24   95.8    95.6    5.1    4.3      3.3
    macro-F1, by group            201     98   95.2    95.5    5.2    5.2      4.2
    corpus BLEU                    20     20   93.5    94.5    5.9    5.9      5.2
    corpus BLEU                    50     50   95.2    94.4    5.7    5.7      5.5
    corpus BLEU                   200    200   95.5    95.7    4.5    4.5      4.2
    corpus BLEU, by group          20     10   95.7    95.5    4.5    4.3      4.0
    corpus BLEU, by group          48     24   94.9    95.2    4.8    4.8      4.1
    corpus BLEU, by group         194     98   94.8    95.5    4.3    4.3      3.9

Outside of what is wanted: scores of which a few rise by much, at n = 20 (held 92.7 %), and macro-F1 over ten groups of
which one or two have the rarest class: few exchanges make a difference there, so the test rejects too rarely (2.1 %).
Where groups are few or scores very skewed, the interval is a little wider than the test asks, so verdicts are cautious.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.metrics import select_metrics
from vglm.evaluation.score.metrics.text import bleu_rows, bleu_statistic
from vglm.evaluation.score.statistics import (
    Statistic,
    compare_paired,
    mcnemar_test,
    mean_of_sums,
    paired_proportion_interval,
)

LEVEL = 0.05
POPULATION = 3000
SIZES, SHARES = (1, 2, 3, 6), (0.5, 0.25, 0.15, 0.1)
"""Samples in a group, and how many groups have that size: 2.05 on average."""
LABELS = ("normal", "effusion", "nodule")
FREQUENCIES = (0.6, 0.28, 0.12)
WORDS = [f"word{number}" for number in range(18)]

Rows = NDArray[np.float64]


# --- right/wrong on independent samples, without chance ---------------------------------------------------------------


@dataclass(frozen=True)
class Exact:
    """Rates for right/wrong answers of `n` independent samples.

    Attributes:
        n: Samples.
        flips: Flips expected, of either kind.
        mid: Share of true null hypotheses that the mid-p McNemar test rejects.
        exact: Likewise of the exact one.
        score: Likewise of the asymptotic one without continuity correction, which no report uses.
        verdict: Likewise of test and interval together, as a report's verdict asks.
        held: Share of Tango's intervals that hold the true difference of 0.
        held_gain: Likewise where three of four flips are gains.
    """

    n: int
    flips: float
    mid: float
    exact: float
    score: float
    verdict: float
    held: float
    held_gain: float


def right_or_wrong(n: int, rate: float) -> Exact:
    """Enumerate all outcomes.

    Args:
        n: Independent samples.
        rate: Share of samples that change between wrong and right.
    """
    mid = exact = score = verdict = held = held_gain = 0.0
    truth = rate * (0.75 - 0.25)
    for flips in range(n + 1):
        outer = math.comb(n, flips) * rate**flips * (1 - rate) ** (n - flips)
        if outer < 1e-10:
            continue
        for gained in range(flips + 1):
            lost = flips - gained
            chance, gain = (outer * math.comb(flips, gained) * up**gained * (1 - up) ** lost for up in (0.5, 0.75))
            p_mid, p_exact, (low, high) = _outcome(gained, lost, n)
            mid += chance * (p_mid <= LEVEL)
            exact += chance * (p_exact <= LEVEL)
            score += chance * (abs(gained - lost) > 1.959964 * math.sqrt(flips))
            verdict += chance * (p_mid <= LEVEL and not low <= 0 <= high)
            held += chance * (low <= 1e-9 and high >= -1e-9)
            held_gain += gain * (low - 1e-9 <= truth <= high + 1e-9)
    return Exact(n, n * rate, mid, exact, score, verdict, held, held_gain)


@cache
def _outcome(gained: int, lost: int, n: int) -> tuple[float, float, tuple[float, float]]:
    interval = paired_proportion_interval(gained, lost, n)
    return mcnemar_test(gained, lost, is_mid=True), mcnemar_test(gained, lost), interval


# --- everything else, by simulation -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Population:
    """Groups of samples with both arms' rows of additive numbers.

    Attributes:
        before: One array for each group, shape (size, k).
        after: Likewise.
        statistic: From sums of rows to the score.
    """

    before: Sequence[Rows]
    after: Sequence[Rows]
    statistic: Statistic

    @property
    def truth(self) -> float:
        """The difference of the scores of everything."""
        sums = [sum(rows.sum(axis=0) for rows in arm) for arm in (self.before, self.after)]
        return float(self.statistic(np.asarray(sums[1])) - self.statistic(np.asarray(sums[0])))


@dataclass(frozen=True)
class Rates:
    """What was found in the repeats.

    Attributes:
        samples: Mean number of samples.
        groups: Number of groups.
        held: Share of intervals that hold the true difference, where there is one.
        held_null: Likewise where it is 0.
        mid: Share of true null hypotheses that are rejected by the p-value of a report.
        exact: Likewise by the exact p-value.
        verdict: Likewise by test and interval together.
    """

    samples: float
    groups: int
    held: float
    held_null: float
    mid: float
    exact: float
    verdict: float


def simulate(population: Population, groups: int, repeats: int, resamples: int, seed: int = 1) -> Rates:
    """Draw groups, compare the arms, and count what was right.

    Args:
        population: What to draw from.
        groups: How many groups a draw has.
        repeats: Draws, each once with its difference and once without.
        resamples: Of each bootstrap and each randomisation.
        seed: Of the draws.
    """
    generator = np.random.default_rng(seed)
    truth, count = population.truth, len(population.before)
    held = held_null = mid = exact = verdict = samples = 0
    for repeat in range(repeats):
        drawn = generator.integers(count, size=groups)
        names = [place for place, each in enumerate(drawn) for _ in population.before[each]]
        pairs = [(population.before[each], population.after[each]) for each in drawn]
        exchanged = [
            pair[::-1] if swap else pair for pair, swap in zip(pairs, generator.random(groups) < 0.5, strict=True)
        ]
        samples += len(names)
        for is_null, chosen in ((False, pairs), (True, exchanged)):
            before, after = (np.concatenate(arm) for arm in zip(*chosen, strict=True))
            if before.shape[1] == 2 and population.statistic is mean_of_sums:
                before, after, statistic = before[:, 0], after[:, 0], None
            else:
                statistic = population.statistic
            with np.errstate(invalid="ignore", divide="ignore"):
                result = compare_paired(
                    before, after, groups=names, statistic=statistic, resamples=resamples, seed=repeat
                )
            low, high = result.interval
            if not is_null:
                held += low <= truth <= high
                continue
            held_null += low <= 0 <= high
            mid += result.p_value <= LEVEL
            exact += result.p_value_exact <= LEVEL
            verdict += result.p_value <= LEVEL and not low <= 0 <= high
    return Rates(samples / repeats, groups, *(each / repeats for each in (held, held_null, mid, exact, verdict)))


def scores(seed: int, *, is_binary: bool, is_grouped: bool) -> Population:
    """One score a sample, right/wrong or from 0 to 1; in groups what one sample does, the others nearly do as well."""
    generator = np.random.default_rng(seed)
    before, after = [], []
    for size in _sizes(generator, is_grouped):
        easy, *own = generator.normal(0, (1.0, 1.5, 1.5))  # of the group, and of what each arm makes of it
        arms = []
        for shift, group in zip((0.0, 0.8), own, strict=True):
            level = 1 / (1 + np.exp(-(0.3 + shift + easy + group + generator.normal(0, 0.5, size))))
            arms.append((generator.random(size) < level).astype(float) if is_binary else level)
        before.append(np.stack([arms[0], np.ones(size)], axis=1))
        after.append(np.stack([arms[1], np.ones(size)], axis=1))
    return Population(before, after, mean_of_sums)


def skewed(seed: int) -> Population:
    """Scores from 0 to 1 most of which stay where they are, while a few rise by much."""
    generator = np.random.default_rng(seed)
    old = generator.beta(2, 3, POPULATION)
    new = np.clip(old + generator.normal(0, 0.02, POPULATION) + (generator.random(POPULATION) < 0.15) * 0.5, 0, 1)
    arms = [[np.array([[each, 1.0]]) for each in arm] for arm in (old, new)]
    return Population(arms[0], arms[1], mean_of_sums)


def macro_f1(seed: int, *, is_grouped: bool) -> Population:
    """A classifier of three classes; the samples of a group share their class and mostly the answer."""
    generator = np.random.default_rng(seed)
    (metric,) = select_metrics(["macro_f1"], LABELS)[:1]
    arms: tuple[list[Rows], list[Rows]] = ([], [])
    for size in _sizes(generator, is_grouped):
        truth = generator.choice(len(LABELS), p=FREQUENCIES)
        easy = generator.normal(0, 1)
        for arm, shift in zip(arms, (0.0, 0.7), strict=True):
            level = 1 / (1 + math.exp(-(0.4 + shift + easy + generator.normal(0, 1.2))))
            other = generator.choice(len(LABELS), p=FREQUENCIES)
            named = [truth if generator.random() < level else other for _ in range(size)]
            arm.append(metric.rows([_record(LABELS[each], LABELS[truth]) for each in named]))
    return Population(*arms, metric.statistic)


def bleu(seed: int, *, is_grouped: bool) -> Population:
    """Texts of different lengths with some words replaced, by corpus BLEU."""
    generator = np.random.default_rng(seed)
    arms: tuple[list[Rows], list[Rows]] = ([], [])
    for size in _sizes(generator, is_grouped):
        wanted = [list(generator.choice(WORDS, generator.integers(6, 24))) for _ in range(size)]
        hard = generator.beta(2, 4)
        for arm, shift in zip(arms, (0.0, -0.06), strict=True):
            wrong = np.clip(hard + shift + generator.normal(0, 0.12), 0.02, 0.95)
            given = [
                [generator.choice(WORDS) if generator.random() < wrong else word for word in text] for text in wanted
            ]
            records = [_record(" ".join(one), " ".join(two)) for one, two in zip(given, wanted, strict=True)]
            arm.append(bleu_rows(records, str.split))
    return Population(*arms, bleu_statistic)


def _sizes(generator: np.random.Generator, is_grouped: bool) -> list[int]:
    if not is_grouped:
        return [1] * POPULATION
    return [int(each) for each in generator.choice(SIZES, POPULATION, p=SHARES)]


def _record(prediction: str, reference: str) -> Prediction:
    return Prediction(
        id="",
        group="",
        split="test",
        kind=None,
        english=True,
        question="",
        history=(),
        reference=reference,
        prediction=prediction,
        image=None,
        image_sha256=None,
    )


CASES: dict[str, tuple[Callable[[], Population], bool]] = {
    "score 0-1": (lambda: scores(1, is_binary=False, is_grouped=False), False),
    "score 0-1, few large gains": (lambda: skewed(2), False),
    "score 0-1, by group": (lambda: scores(3, is_binary=False, is_grouped=True), True),
    "right/wrong, by group": (lambda: scores(4, is_binary=True, is_grouped=True), True),
    "macro-F1": (lambda: macro_f1(5, is_grouped=False), False),
    "macro-F1, by group": (lambda: macro_f1(6, is_grouped=True), True),
    "corpus BLEU": (lambda: bleu(7, is_grouped=False), False),
    "corpus BLEU, by group": (lambda: bleu(8, is_grouped=True), True),
}
"""Kind of score -> (its population, whether its samples come in groups)."""


def groups_of(n: int, is_grouped: bool) -> int:
    """How many groups make about `n` samples."""
    return round(n / np.dot(SIZES, SHARES)) if is_grouped else n


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables, in percent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000, help="draws for each row of the second table")
    parser.add_argument("--resamples", type=int, default=1000, help="of each bootstrap and randomisation")
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 50, 200], help="numbers of samples")
    parsed = parser.parse_args(arguments)

    print("Right/wrong, independent samples, computed (percent)")
    print(
        f"{'n':>5} {'flips':>6} {'mid-p':>7} {'exact':>7} {'score':>7} {'verdict':>8} {'held 0':>7} {'held gain':>10}"
    )
    for n in parsed.sizes:
        for rate in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6):
            each = right_or_wrong(n, rate)
            print(
                f"{n:5} {each.flips:6.1f} {100 * each.mid:7.1f} {100 * each.exact:7.1f} {100 * each.score:7.1f}"
                f" {100 * each.verdict:8.1f} {100 * each.held:7.1f} {100 * each.held_gain:10.1f}",
                flush=True,
            )
    error = 100 * math.sqrt(LEVEL * (1 - LEVEL) / parsed.repeats)
    print(f"\nSimulated, {parsed.repeats} draws a row (percent, standard error {error:.1f})")
    print(f"{'':27} {'n':>5} {'groups':>6} {'held':>6} {'held 0':>7} {'p':>6} {'exact':>6} {'verdict':>8}")
    for name, (make, is_grouped) in CASES.items():
        population = make()
        for n in parsed.sizes:
            found = simulate(population, groups_of(n, is_grouped), parsed.repeats, parsed.resamples)
            print(
                f"{name:27} {found.samples:5.0f} {found.groups:6} {100 * found.held:6.1f} {100 * found.held_null:7.1f}"
                f" {100 * found.mid:6.1f} {100 * found.exact:6.1f} {100 * found.verdict:8.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
