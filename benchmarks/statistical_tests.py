"""How often does the 95 % interval hold the truth, and how often does the test reject a true null hypothesis?

    python benchmarks/statistical_tests.py                       some ten minutes on one core
    python benchmarks/statistical_tests.py --repeats 200         a quick look

Right/wrong on independent samples is computed without chance. For everything else a population of 3,000 groups of
samples (studies, patients) is made with both arms' answers, so the true difference is known; groups are drawn from it
again and again, and each draw is compared by `vglm.evaluation.score.statistics.compare_paired`, as a report does. For
the null hypothesis the arms of each drawn group are exchanged at random, which makes the true difference 0.

Wanted are intervals that hold the truth in 95 % of the cases or more and tests that reject a true null hypothesis in
5 % or fewer, whatever the shape of the differences. `held` is with a true difference, `held 0` without one; `p`, or
`mid-p`, is the p-value of a report, `exact` the one beside it; `verdict`: the interval agrees with the test, without
which no report claims a difference; `score`: the asymptotic McNemar test, which no report uses. Computed, right/wrong
on n independent samples (some of the rows):

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

The tables below were made on 2026-11-27 with --repeats 400 --resamples 500 (standard error 1.1).

Differences with a mean of exactly 0 that are skewed, as no exchange of arms makes them: few samples gain much and many
lose a little. `Student` and `exchange` are Student's test and the randomisation test alone, `verdict` what a report
claims:

                                    n  Student  exchange  verdict  held 0
    5 % large gains                12     50.5      50.5      0.0   100.0
    5 % large gains                20     32.8      32.8      0.0   100.0
    5 % large gains                50      6.5      11.0      0.0   100.0
    5 % large gains               200      7.0       6.8      0.5    99.2
    10 % large gains               12     25.8      25.8      0.0   100.0
    10 % large gains               20     11.2      11.2      0.0   100.0
    10 % large gains               50      8.5       8.8      0.0   100.0
    10 % large gains              200      4.0       3.8      2.8    97.0
    15 % large gains               12     13.0      13.2      0.0   100.0
    15 % large gains               20      5.5      11.2      0.0   100.0
    15 % large gains               50      5.8       5.8      0.8    99.0
    15 % large gains              200      5.5       5.2      3.5    96.2
    5 % gains of almost 1          12     50.5      50.5      0.0   100.0
    5 % gains of almost 1          20     32.8      32.8      0.0   100.0
    5 % gains of almost 1          50      6.5      11.0      0.0   100.0
    5 % gains of almost 1         200      7.0       6.8      3.2    96.5
    5 % large losses               12     50.5      50.5      0.0   100.0
    5 % large losses               20     32.8      32.8      0.0   100.0
    5 % large losses               50      6.5      11.0      0.0   100.0
    5 % large losses              200      7.0       6.8      0.5    99.5
    beta(0.3, 3) less its mean     12     13.2      13.5      0.0   100.0
    beta(0.3, 3) less its mean     20      7.8       7.2      0.0   100.0
    beta(0.3, 3) less its mean     50      5.2       5.8      0.2    99.8
    beta(0.3, 3) less its mean    200      4.8       4.8      1.5    98.5
    5 % large gains, in threes     12     50.5      50.5      0.0   100.0
    5 % large gains, in threes     20     32.8      32.8      0.0   100.0
    5 % large gains, in threes     50      6.5      11.0      0.0   100.0
    5 % large gains, in threes    200      7.0       6.8      0.5    99.2

Two equal methods whose scores vary by 8 points (standard deviation) between seeds. `samples alone`: each sample with
its mean over the seeds, as if there were no others; `differ`: what `vglm report` says. With one seed it never does:

       seeds            samples alone  differ
      (2, 2) paired              35.5     1.2
      (3, 3) paired              31.5     1.2
      (5, 5) paired              36.2     3.5
      (1, 1) unpaired            33.0     0.0
      (2, 2) unpaired            35.5     2.0
      (3, 3) unpaired            31.5     0.5
      (5, 5) unpaired            36.2     2.8
      (1, 5) unpaired            34.2     0.0
      (2, 5) unpaired            32.5     4.0

A loss of just the margin, 5 points, held against it: how often "lost at most 5 points" is `shown` and `refuted`
(computed; `gain`: share of samples that become right):

        n   gain  shown  refuted
       12      0    0.0      0.0
       12      5    0.1      0.3
       12     10    0.6      1.0
       20      0    0.0      0.0
       20      5    1.3      0.5
       20     10    2.6      1.5
       50      0    0.0      1.2
       50      5    1.7      2.8
       50     10    2.2      2.3
      200      0    0.9      2.4
      200      5    2.4      2.5
      200     10    2.4      2.4

Two arms with a true difference (`held`, `power`) and without (`held 0` and the rates behind it), a group having 1 to 6
samples that are answered alike:

                                    n groups   held  held 0      p  exact  verdict  power
    score 0-1                      12     12   99.8    99.5    0.5    0.5      0.5    0.8
    score 0-1                      20     20   99.2    99.2    0.5    0.5      0.5   10.5
    score 0-1                      50     50   95.5    97.5    2.8    2.8      2.5   52.5
    score 0-1                     200    200   95.5    95.8    5.0    5.0      4.2   99.5
    score 0-1, few large gains     12     12  100.0   100.0    0.0    0.0      0.0    0.0
    score 0-1, few large gains     20     20  100.0   100.0    0.0    0.0      0.0    0.0
    score 0-1, few large gains     50     50   99.8    99.5    0.2    0.2      0.2   37.0
    score 0-1, few large gains    200    200   98.5    97.2    3.0    3.0      2.8  100.0
    score 0-1, by group            12      6  100.0   100.0    0.0    0.0      0.0    0.0
    score 0-1, by group            20     10  100.0    99.2    0.8    0.8      0.8    1.5
    score 0-1, by group            49     24   97.5    97.8    2.0    2.0      2.0   16.0
    score 0-1, by group           199     98   95.8    95.2    4.5    4.5      4.2   64.8
    right/wrong, by group          13      6   99.8    99.8    0.0    0.0      0.0    0.0
    right/wrong, by group          21     10   99.0    99.2    0.8    0.2      0.5    3.5
    right/wrong, by group          50     24   97.5    97.2    3.0    2.5      2.8   12.5
    right/wrong, by group         203     98   96.2    96.8    4.2    2.8      3.0   54.0
    macro-F1                       12     12   98.2    98.5    1.8    0.8      1.2    1.8
    macro-F1                       20     20   97.0    97.8    1.5    1.5      1.5    3.8
    macro-F1                       50     50   96.5    95.2    3.8    3.8      3.5   12.0
    macro-F1                      200    200   96.5    96.5    3.8    3.8      3.5   32.5
    macro-F1, by group             12      6   99.5   100.0    0.0    0.0      0.0    0.0
    macro-F1, by group             21     10   98.8    99.8    0.0    0.0      0.0    1.2
    macro-F1, by group             49     24   94.5    96.0    3.8    3.5      3.0    6.8
    macro-F1, by group            199     98   95.0    95.0    5.2    5.2      4.5   27.0
    corpus BLEU                    12     12  100.0   100.0    0.0    0.0      0.0    0.5
    corpus BLEU                    20     20   99.0    99.5    0.5    0.5      0.5    4.8
    corpus BLEU                    50     50   97.2    96.0    3.5    3.5      3.5   22.5
    corpus BLEU                   200    200   96.5    95.2    4.2    4.2      4.2   82.8
    corpus BLEU, by group          12      6  100.0   100.0    0.0    0.0      0.0    0.0
    corpus BLEU, by group          20     10  100.0   100.0    0.0    0.0      0.0    0.2
    corpus BLEU, by group          48     24   99.2    99.8    0.2    0.2      0.2    5.2
    corpus BLEU, by group         193     98   96.0    96.5    3.0    3.0      3.0   48.2

What protects from skewed differences is paid for with power where samples are few.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.comparison import judge
from vglm.evaluation.score.metrics import EXACT_MATCH, select_metrics
from vglm.evaluation.score.metrics.text import bleu_rows, bleu_statistic
from vglm.evaluation.score.statistics import (
    Statistic,
    compare_paired,
    compare_seeds,
    mcnemar_test,
    mean_of_sums,
    paired_proportion_interval,
    randomisation_test,
    student_quantile,
)

LEVEL = 0.05
POPULATION = 3000
SIZES, SHARES = (1, 2, 3, 6), (0.5, 0.25, 0.15, 0.1)
"""Samples in a group, and how many groups have that size: 2.05 on average."""
LABELS = ("normal", "effusion", "nodule")
FREQUENCIES = (0.6, 0.28, 0.12)
WORDS = np.array([f"word{number}" for number in range(18)], dtype=object)

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
        coverage: Share of Tango's intervals that hold the true difference of 0.
        gain_coverage: Likewise where three of four flips are gains.
    """

    n: int
    flips: float
    mid: float
    exact: float
    score: float
    verdict: float
    coverage: float
    gain_coverage: float


def right_or_wrong(n: int, rate: float) -> Exact:
    """Enumerate all outcomes.

    Args:
        n: Independent samples.
        rate: Share of samples that change between wrong and right.
    """
    mid = exact = score = verdict = covered = gain_coverage = 0.0
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
            covered += chance * (low <= 1e-9 and high >= -1e-9)
            gain_coverage += gain * (low - 1e-9 <= truth <= high + 1e-9)
    return Exact(n, n * rate, mid, exact, score, verdict, covered, gain_coverage)


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
        coverage: Share of intervals that hold the true difference, where there is one.
        null_coverage: Likewise where it is 0.
        mid: Share of true null hypotheses that are rejected by the p-value of a report.
        exact: Likewise by the exact p-value.
        verdict: Likewise by test and interval together.
        power: Share of true differences that test and interval together find.
    """

    samples: float
    groups: int
    coverage: float
    null_coverage: float
    mid: float
    exact: float
    verdict: float
    power: float


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
    covered = null_coverage = mid = exact = verdict = power = samples = 0
    for repeat in range(repeats):
        drawn = generator.integers(count, size=groups)
        names = [index for index, group in enumerate(drawn) for _ in population.before[group]]
        pairs = [(population.before[group], population.after[group]) for group in drawn]
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
                    before, after, groups=names, statistic=statistic, bound=1.0, resamples=resamples, seed=repeat
                )
            low, high = result.interval
            is_found = result.p_value <= LEVEL and not low <= 0 <= high
            if not is_null:
                covered += low <= truth <= high
                power += is_found
                continue
            null_coverage += low <= 0 <= high
            mid += result.p_value <= LEVEL
            exact += result.p_value_exact <= LEVEL
            verdict += is_found
    rates = (covered, null_coverage, mid, exact, verdict, power)
    return Rates(samples / repeats, groups, *(count / repeats for count in rates))


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
    arms = [[np.array([[score, 1.0]]) for score in arm] for arm in (old, new)]
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
            arm.append(metric.rows([Prediction.of_texts(LABELS[label], LABELS[truth]) for label in named]))
    return Population(*arms, metric.statistic)


def bleu(seed: int, *, is_grouped: bool) -> Population:
    """Texts of different lengths with some words replaced, by corpus BLEU."""
    generator = np.random.default_rng(seed)
    arms: tuple[list[Rows], list[Rows]] = ([], [])
    for size in _sizes(generator, is_grouped):
        references = [WORDS[generator.integers(len(WORDS), size=generator.integers(6, 24))] for _ in range(size)]
        hard = generator.beta(2, 4)
        for arm, shift in zip(arms, (0.0, -0.06), strict=True):
            wrong = np.clip(hard + shift + generator.normal(0, 0.12), 0.02, 0.95)
            answers = [
                [WORDS[generator.integers(len(WORDS))] if generator.random() < wrong else word for word in text]
                for text in references
            ]
            pairs = zip(map(" ".join, answers), map(" ".join, references), strict=True)
            records = [Prediction.of_texts(*pair) for pair in pairs]
            arm.append(bleu_rows(records, str.split))
    return Population(*arms, bleu_statistic)


def _sizes(generator: np.random.Generator, is_grouped: bool) -> list[int]:
    if not is_grouped:
        return [1] * POPULATION
    return [int(size) for size in generator.choice(SIZES, POPULATION, p=SHARES)]


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


# --- differences with a mean of 0 that are skewed ---------------------------------------------------------------------


def _rare(rate: float, size: float) -> Callable[[np.random.Generator, int], Rows]:
    """A few large gains of `size` (losses where it is negative), and many small changes the other way."""

    def draw(generator: np.random.Generator, n: int) -> Rows:
        small = rate * size / (1 - rate)
        return np.where(generator.random(n) < rate, size, -small * generator.uniform(0.5, 1.5, n))

    return draw


SKEWED: dict[str, Callable[[np.random.Generator, int], Rows]] = {
    "5 % large gains": _rare(0.05, 0.5),
    "10 % large gains": _rare(0.1, 0.5),
    "15 % large gains": _rare(0.15, 0.5),
    "5 % gains of almost 1": _rare(0.05, 0.9),
    "5 % large losses": _rare(0.05, -0.5),
    "beta(0.3, 3) less its mean": lambda generator, n: generator.beta(0.3, 3, n) - 0.3 / 3.3,
}
"""Differences with a mean of exactly 0. Exchanging arms, as `simulate` does, makes symmetric differences of any kind,
for which a randomisation test is exact by construction; of these it is not."""


@dataclass(frozen=True)
class SkewedRates:
    """Rates where the mean difference is 0.

    Attributes:
        student: Share of Student's intervals that exclude 0.
        exchange: Share of the randomisation test's p-values below the level.
        verdict: Share of reports that claim a difference.
        coverage: Share of a report's intervals that hold 0.
    """

    student: float
    exchange: float
    verdict: float
    coverage: float


def simulate_skewed(name: str, n: int, repeats: int, resamples: int, seed: int = 1, group: int = 1) -> SkewedRates:
    """Draw differences, and judge them as a report does.

    Args:
        name: Of `SKEWED`.
        n: Groups.
        repeats: Draws.
        resamples: Of each bootstrap, randomisation and weighting.
        seed: Of the draws.
        group: Samples in a group, which change alike.
    """
    generator = np.random.default_rng(seed)
    student = exchange = verdict = covered = 0
    quantile = student_quantile((2 - LEVEL) / 2, n - 1)
    for repeat in range(repeats):
        differences = SKEWED[name](generator, n)
        room = 0.5 - differences / 2  # both arms stay within 0 to 1
        before, after = (np.repeat(differences_of, group) for differences_of in (room, room + differences))
        names = np.repeat(np.arange(n), group).tolist()
        result = compare_paired(before, after, groups=names, resamples=resamples, seed=repeat)
        student += abs(differences.mean()) > quantile * differences.std(ddof=1) / math.sqrt(n)
        exchange += randomisation_test(before, after, groups=names, resamples=resamples, seed=repeat) <= LEVEL
        verdict += judge(result, EXACT_MATCH).finding in ("better", "worse")
        covered += result.interval.low <= 0 <= result.interval.high
    return SkewedRates(*(count / repeats for count in (student, exchange, verdict, covered)))


# --- two equal methods with a few seeds -------------------------------------------------------------------------------


@dataclass(frozen=True)
class SeedRates:
    """Rates where two methods are equal.

    Attributes:
        by_samples: Share of comparisons in which the samples alone tell them apart, each with its mean over the seeds.
        differ: Share in which `vglm report` calls them different.
    """

    by_samples: float
    differ: float


def simulate_seeds(
    seeds: tuple[int, int], *, is_paired: bool, repeats: int, seed_sd: float = 0.08, n: int = 120, seed: int = 1
) -> SeedRates:
    """Train two equal methods with so many seeds, on right/wrong answers to the same samples.

    Args:
        seeds: Of the first and the second method.
        is_paired: Whether the report compares them seed by seed.
        repeats: Pairs of methods.
        seed_sd: Standard deviation of the score between seeds.
        n: Samples.
        seed: Of the draws.
    """
    generator = np.random.default_rng(seed)
    by_samples = differ = 0
    for _ in range(repeats):
        hard = generator.normal(0, 0.2, n)
        arms = []
        for count in seeds:
            level = 0.6 + generator.normal(0, seed_sd, count)[:, None] + hard
            arms.append((generator.random((count, n)) < level) * 1.0)
        result = compare_paired(*(arm.mean(axis=0) for arm in arms), resamples=300)
        by_samples += result.p_value <= LEVEL
        if min(seeds) > 1 and result.p_value <= LEVEL:
            differ += compare_seeds(*arms, is_paired=is_paired).excludes_zero
    return SeedRates(by_samples / repeats, differ / repeats)


# --- a loss that is just the margin -----------------------------------------------------------------------------------


def margin_rates(n: int, margin: float, gaining: float) -> tuple[float, float]:
    """How often "lost at most the margin" is shown, and refuted, where the loss is the margin; computed.

    Args:
        n: Independent samples, right or wrong.
        margin: The loss.
        gaining: Share of samples that become right; those that become wrong are so many, and the margin, more.
    """
    shown = refuted = 0.0
    for lost in range(n + 1):
        outer = float(binom.pmf(lost, n, gaining + margin))
        if outer < 1e-9:
            continue
        gains = binom.pmf(np.arange(n - lost + 1), n - lost, gaining / (1 - gaining - margin))
        for gained, chance in enumerate(gains):
            if outer * chance > 1e-9:
                low, high = _outcome(gained, lost, n)[2]
                shown += outer * chance * (-low <= margin)
                refuted += outer * chance * (-high > margin)
    return shown, refuted


def groups_of(n: int, is_grouped: bool) -> int:
    """How many groups make about `n` samples."""
    return round(n / np.dot(SIZES, SHARES)) if is_grouped else n


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables, in percent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000, help="draws for each row of the second table")
    parser.add_argument("--resamples", type=int, default=1000, help="of each bootstrap and randomisation")
    parser.add_argument("--sizes", type=int, nargs="+", default=[12, 20, 50, 200], help="numbers of samples")
    parsed = parser.parse_args(arguments)

    print("Right/wrong, independent samples, computed (percent)")
    print(
        f"{'n':>5} {'flips':>6} {'mid-p':>7} {'exact':>7} {'score':>7} {'verdict':>8} {'held 0':>7} {'held gain':>10}"
    )
    for n in parsed.sizes:
        for rate in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6):
            rates = right_or_wrong(n, rate)
            print(
                f"{n:5} {rates.flips:6.1f} {100 * rates.mid:7.1f} {100 * rates.exact:7.1f} {100 * rates.score:7.1f}"
                f" {100 * rates.verdict:8.1f} {100 * rates.coverage:7.1f} {100 * rates.gain_coverage:10.1f}",
                flush=True,
            )
    _print_margins(parsed.sizes)
    _print_skewed(parsed)
    _print_seeds(parsed)
    _print_cases(parsed)


def _print_margins(sizes: Sequence[int]) -> None:
    print("\nA loss of just the margin, 5 points, right/wrong, computed (percent)")
    print(f"{'n':>5} {'gain':>6} {'shown':>6} {'refuted':>8}")
    for n in sizes:
        for gaining in (0.0, 0.05, 0.1):
            shown, refuted = margin_rates(n, 0.05, gaining)
            print(f"{n:5} {100 * gaining:6.0f} {100 * shown:6.1f} {100 * refuted:8.1f}", flush=True)


def _print_skewed(parsed: argparse.Namespace) -> None:
    print(f"\nSkewed differences with a mean of 0, {parsed.repeats} draws a row (percent)")
    print(f"{'':27} {'n':>5} {'Student':>8} {'exchange':>9} {'verdict':>8} {'held 0':>7}")
    for name, group in [*((name, 1) for name in SKEWED), ("5 % large gains", 3)]:
        for n in parsed.sizes:
            rates = simulate_skewed(name, n, parsed.repeats, parsed.resamples, group=group)
            values = (100 * rate for rate in (rates.student, rates.exchange, rates.verdict, rates.coverage))
            title = name if group == 1 else f"{name}, in threes"
            print(f"{title:27} {n:5} " + "{:8.1f} {:9.1f} {:8.1f} {:7.1f}".format(*values), flush=True)


def _print_seeds(parsed: argparse.Namespace) -> None:
    print(f"\nTwo equal methods, 8 points between seeds, 120 samples, {parsed.repeats} draws a row (percent)")
    print(f"{'seeds':>8} {'':9} {'samples alone':>14} {'differ':>7}")
    for seeds, is_paired in (
        *(((count, count), True) for count in (2, 3, 5)),
        *(((count, count), False) for count in (1, 2, 3, 5)),
        ((1, 5), False),
        ((2, 5), False),
    ):
        rates = simulate_seeds(seeds, is_paired=is_paired, repeats=parsed.repeats)
        how = "paired" if is_paired else "unpaired"
        print(f"{seeds!s:>8} {how:9} {100 * rates.by_samples:14.1f} {100 * rates.differ:7.1f}", flush=True)


def _print_cases(parsed: argparse.Namespace) -> None:
    error = 100 * math.sqrt(LEVEL * (1 - LEVEL) / parsed.repeats)
    print(f"\nSimulated, {parsed.repeats} draws a row (percent, standard error {error:.1f})")
    print(f"{'':27} {'n':>5} {'groups':>6} {'held':>6} {'held 0':>7} {'p':>6} {'exact':>6} {'verdict':>8} {'power':>6}")
    for name, (make, is_grouped) in CASES.items():
        population = make()
        for n in parsed.sizes:
            rates = simulate(population, groups_of(n, is_grouped), parsed.repeats, parsed.resamples)
            print(
                f"{name:27} {rates.samples:5.0f} {rates.groups:6} {100 * rates.coverage:6.1f}"
                f" {100 * rates.null_coverage:7.1f} {100 * rates.mid:6.1f} {100 * rates.exact:6.1f}"
                f" {100 * rates.verdict:8.1f} {100 * rates.power:6.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
