"""Two arms on the same samples: the difference, its interval, tests and power."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vglm.evaluation.messages import Message, as_plain
from vglm.evaluation.score.statistics.basics import (
    Interval,
    Statistic,
    by_group,
    difference_of,
    finite,
    is_right_or_wrong,
    pseudo_values,
    single_scores,
    student_quantile,
)
from vglm.evaluation.score.statistics.bounded import bounded_mean
from vglm.evaluation.score.statistics.flips import Flips, find_flips, mcnemar_test, paired_proportion_interval
from vglm.evaluation.score.statistics.intervals import bootstrap_interval
from vglm.evaluation.score.statistics.power import detectable_flip_rate

Result = TypeVar("Result")

LEAST_GROUPS, LEAST_GROUPS_UNBOUNDED = 10, 60
"""With fewer independent groups no verdict is given; the second where nothing limits what one sample's score may be: of
60 samples at least one is of any kind that makes up 5 % of the population, with a chance of 95 %."""
_WORTH_THREADS = 100_000
"""Random numbers from which several threads are faster than one: at 80,000 they took 13 ms and one 10, at 240,000
they took 22 ms and one 29 (two cores, 2026-11-28)."""
_AT_ONCE = 400_000
"""Number of exchanges in memory at a time: rows are taken in twos, so that no half of 64 bits is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedComparison:
    """One score in two arms of the same samples.

    Attributes:
        n: Number of samples.
        groups: Number of independent groups among them.
        before: The score of the baseline.
        after: The score of the candidate.
        difference: `after` minus `before`.
        interval: Of the difference.
        confidence: Of the interval.
        p_value: Two-sided, of no difference, as `test` says: a mid-p value, which counts what is as extreme as the
            observation by half.
        p_value_exact: Likewise, counted in full: never too often, but for right/wrong on few samples far too rarely.
        effect_size: The difference in standard deviations of a group's difference (Cohen's d_z with Hedges'
            correction); 0.2 is called small, 0.8 large. NaN where the differences do not vary.
        detectable: The smallest true difference that such a test would find in 80 % of the cases; NaN where not even
            the largest one would be found so often.
        interval_method: How the interval was made.
        test: How the p-values were made.
        flips: Where scores are right or wrong, who changed; else None.
        least_groups: With fewer independent groups no verdict may rest on this.
    """

    n: int
    groups: int
    before: float
    after: float
    difference: float
    interval: Interval
    confidence: float
    p_value: float
    p_value_exact: float
    effect_size: float
    detectable: float
    interval_method: Message
    test: Message
    flips: Flips | None
    least_groups: int = LEAST_GROUPS

    @property
    def power_line(self) -> Message:
        """What this test set can and cannot show, in a sentence."""
        key = "power.items" if self.groups == self.n else "power.groups"
        items = Message(key, {"n": self.n, "groups": self.groups})
        level = 100 * (1 - self.confidence)
        if math.isnan(self.detectable):
            return Message("power.unknown", {"items": items, "level": level})
        return Message("power.known", {"items": items, "points": 100 * self.detectable, "level": level})

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; what is not finite becomes None."""
        names = [name for name in self.__slots__ if name not in ("interval", "flips")]
        values: dict[str, Any] = {name: getattr(self, name) for name in names}
        values = {
            name: as_plain(value) if isinstance(value, Message) else finite(value) for name, value in values.items()
        }
        ends = [finite(end) for end in self.interval]
        flips = None if self.flips is None else {name: list(getattr(self.flips, name)) for name in Flips.__slots__}
        return {**values, "interval": ends, "flips": flips, "power_line": as_plain(self.power_line)}


def compare_paired(
    before: ArrayLike,
    after: ArrayLike,
    *,
    groups: Sequence[Hashable] | None = None,
    statistic: Statistic | None = None,
    bound: float | None = None,
    confidence: float = 0.95,
    resamples: int = 4000,
    seed: int = 1,
) -> PairedComparison:
    """Compare one score in two arms that answered the same samples.

    Scores of 0 and 1 on independent samples get Tango's interval and McNemar's test, whatever rows they are made of;
    the p-values are mid-p values, beside which the exact ones stand.

    Everything else gets the bootstrap of the differences and the randomisation test, by group. Both are blind to kinds
    of samples that were not drawn: of many small losses and a few large gains that make a mean of 0 they claim a loss
    in up to 54 % of the cases at n = 12. So the interval is no narrower, and the p-value no smaller, than Gaffke's
    one-sided bounds say, each at 5 %, which hold for every shape of the differences; see `bounded_interval`. A score
    that is not a mean, such as macro-F1, enters them by the jackknife's pseudo-values.

    How often interval and test are right: `python benchmarks/statistical_tests.py`.

    Args:
        before: The baseline's rows, shape (n,) or (n, k).
        after: The candidate's, likewise.
        groups: The group of each sample; None where each is its own.
        statistic: From sums to the score; None for the mean of scores.
        bound: The furthest that one sample's score can move: 1.0 for shares; infinite where there is no limit, so that
            the range of the scores seen must do and `LEAST_GROUPS_UNBOUNDED` groups are needed. None takes 1.0 where no
            score is beyond -1 to 1, else infinite.
        confidence: Of the interval.
        resamples: Of the bootstrap, the randomisation and the random weights.
        seed: Of all three.

    Returns:
        The comparison.

    Raises:
        ValueError: The arms have different shapes, or `groups` does not fit.
    """
    old, new = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if old.shape != new.shape:
        raise ValueError(f"the arms must have the same rows, found shapes {old.shape} and {new.shape}.")
    first, both = by_group(old, groups, statistic)
    second, _ = by_group(new, groups, statistic)
    arms = _Arms(first, second, both, len(old))
    singles = [
        scores for scores in (single_scores(old, statistic), single_scores(new, statistic)) if scores is not None
    ]
    flips = find_flips(*singles) if len(singles) == 2 and all(map(is_right_or_wrong, singles)) else None
    if bound is None:
        scores = np.asarray(arms.scores) if statistic is not None else np.concatenate([old, new])
        bound = 1.0 if np.all(np.abs(scores) <= 1) else math.inf
    if flips is not None and arms.count == len(old):
        results = _of_flips(flips, arms, confidence)
    else:
        results = _of_shares(arms, bound, confidence, resamples, seed)
    return PairedComparison(
        n=len(old),
        groups=arms.count,
        before=arms.scores[0],
        after=arms.scores[1],
        difference=arms.difference,
        confidence=confidence,
        effect_size=effect_size(arms.values),
        flips=flips,
        **results,
    )


class _Arms:
    """Sums of each group in both arms, each (G, k), and what follows from them."""

    def __init__(
        self, first: NDArray[np.float64], second: NDArray[np.float64], statistic: Statistic, samples: int
    ) -> None:
        self.first, self.second, self.statistic = first, second, statistic
        self.count, self.samples = len(first), samples
        self.scores = float(statistic(first.sum(axis=0))), float(statistic(second.sum(axis=0)))
        self.difference = self.scores[1] - self.scores[0]
        self.pairs, self.of_pairs = np.concatenate([first, second], axis=1), difference_of(statistic, first.shape[1])
        self.values = pseudo_values(self.pairs, self.of_pairs)

    def limit(self, bound: float) -> float:
        """How far one sample's score can move, judged by the scores seen where nothing limits it."""
        shares = [pseudo_values(arm, self.statistic) for arm in (self.first, self.second)]
        return bound if math.isfinite(bound) else float(np.max(shares) - np.min(shares))


def _of_flips(flips: Flips, arms: _Arms, confidence: float) -> dict[str, Any]:
    """Interval, tests and power of right/wrong on independent samples."""
    gained, lost = len(flips.wrong_to_right), len(flips.right_to_wrong)
    both_ways = (2 * min(gained, lost) + 2) / (arms.count + 2)  # flips that cancel each other
    return {
        "interval": paired_proportion_interval(gained, lost, arms.count, confidence),
        "interval_method": Message("interval.tango"),
        "p_value": mcnemar_test(gained, lost, is_mid=True),
        "p_value_exact": mcnemar_test(gained, lost),
        "test": Message("test.mcnemar"),
        "detectable": detectable_flip_rate(arms.count, both_ways, confidence),
    }


def _of_shares(arms: _Arms, bound: float, confidence: float, resamples: int, seed: int) -> dict[str, Any]:
    """The same of everything else."""
    limit = arms.limit(bound)
    # Each has random numbers of its own, and numpy lets others compute meanwhile.
    with nullcontext() if arms.count * resamples < _WORTH_THREADS else ThreadPoolExecutor(3) as pool:

        def start(function: Callable[..., Result], *values: Any, **options: Any) -> Callable[[], Result]:
            if pool is None:
                return partial(function, *values, **options)
            return pool.submit(copy_context().run, function, *values, **options).result

        guarded = start(bounded_mean, arms.values, -limit, limit, 2 * confidence - 1, resamples, seed)
        exchanged = start(_exchange, arms.first, arms.second, arms.statistic, resamples, seed)
        drawn = bootstrap_interval(
            arms.pairs, statistic=arms.of_pairs, confidence=confidence, resamples=resamples, seed=seed
        )
    guard, p_values = guarded(), exchanged()
    interval = Interval(float(np.fmin(guard.interval.low, drawn.low)), float(np.fmax(guard.interval.high, drawn.high)))
    if arms.count < 2:
        interval = Interval(math.nan, math.nan)
    exact, mid = (value if math.isnan(value) else float(np.fmax(value, guard.tail)) for value in p_values)
    by = "" if arms.count == arms.samples else "_groups"
    return {
        "interval": interval,
        "interval_method": Message(f"interval.widest{by}", {"draws": resamples}),
        "p_value": mid,
        "p_value_exact": exact,
        "test": Message(f"test.exchange_or_bound{by}", {"draws": resamples}),
        "detectable": _detectable(arms, interval, bound),
        "least_groups": LEAST_GROUPS if math.isfinite(bound) else LEAST_GROUPS_UNBOUNDED,
    }


def _detectable(arms: _Arms, interval: Interval, largest: float) -> float:
    """The difference that exceeds the interval's half-width in 80 % of the cases; NaN where it cannot be so large."""
    half = arms.difference - interval.low if arms.difference >= 0 else interval.high - arms.difference
    if arms.count < 2 or math.isnan(half):
        return math.nan
    error = float(np.std(arms.values, ddof=1)) / math.sqrt(arms.count)
    difference = half + student_quantile(0.8, arms.count - 1) * error
    return difference if difference <= largest else math.nan


def randomisation_test(
    before: ArrayLike,
    after: ArrayLike,
    *,
    groups: Sequence[Hashable] | None = None,
    statistic: Statistic | None = None,
    resamples: int = 4000,
    seed: int = 1,
    is_mid: bool = False,
) -> float:
    """The paired randomisation (permutation) test, two-sided: the arms' labels are exchanged, group by group.

    For means it is the sign-flip test. It is exact where the null hypothesis is that both arms' answers to a group
    could be exchanged, for every n and any score; with scores of 0 and 1 and few samples it rejects less often than it
    may, as the exact McNemar test does. The mid-p variant counts exchanges with the very difference observed by half.

    Args:
        before: The baseline's rows, shape (n,) or (n, k).
        after: The candidate's, likewise.
        groups: The group of each sample; None where each is its own.
        statistic: From sums to the score; None for the mean of scores.
        resamples: Number of random exchanges; where there are no more different ones, all are taken.
        seed: Of the exchanges.
        is_mid: Whether to give the mid-p value.

    Returns:
        The p-value, never 0; 1.0 where nothing differs; NaN where the score of an arm is undefined. An exchange that
        leaves it undefined counts as extreme.

    Source: Fisher 1935, "The design of experiments"; Phipson & Smyth 2010, "Permutation p-values should never be zero".
    """
    first, statistic = by_group(before, groups, statistic if np.ndim(before) == 2 else None)
    second, _ = by_group(after, groups, statistic if np.ndim(after) == 2 else None)
    return _exchange(first, second, statistic, resamples, seed)[is_mid]


def _exchange(
    first: NDArray[np.float64], second: NDArray[np.float64], statistic: Statistic, resamples: int, seed: int
) -> tuple[float, float]:
    """The randomisation test's p-value and mid-p value, from sums of each group in both arms, each (G, k)."""
    total = first.sum(axis=0) + second.sum(axis=0)
    observed = abs(float(statistic(second.sum(axis=0)) - statistic(first.sum(axis=0))))
    if math.isnan(observed):
        return math.nan, math.nan
    moving = np.any(first != second, axis=1)
    fixed, first, second = first[~moving].sum(axis=0), first[moving], second[moving]
    count = len(first)

    changes, unchanged = second - first, fixed + first.sum(axis=0)

    def difference(is_exchanged: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(R, G) exchanges -> (R,) absolute differences."""
        sums = unchanged + is_exchanged.astype(np.float64) @ changes
        return np.abs(np.asarray(statistic(total - sums) - statistic(sums)))

    slack = 1e-9 * max(1.0, observed)  # equal up to rounding counts as equal
    is_complete = 2**count <= resamples
    generator = np.random.default_rng(seed)
    draws, step = (2**count, 2**count) if is_complete else (resamples, 2 * max(1, _AT_ONCE // (2 * count)))
    extreme = equal = 0
    for start in range(0, draws, step):
        if is_complete:
            exchanges = ((np.arange(draws)[:, None] >> np.arange(count)) & 1) == 1
        else:
            exchanges = _coins(generator, min(step, draws - start), count)
        exchanged = difference(exchanges)
        extreme += int(np.sum(~(exchanged < observed - slack)))
        equal += int(np.sum(np.abs(exchanged - observed) <= slack))
    if not is_complete:  # what was observed is one of the exchanges
        extreme, equal, draws = extreme + 1, equal + 1, draws + 1
    if equal == draws:  # no exchange makes a difference
        return 1.0, 1.0
    return extreme / draws, (extreme - equal / 2) / draws


def _coins(generator: np.random.Generator, rows: int, count: int) -> NDArray[np.bool_]:
    """What `integers(2, dtype=np.int32)` draws, in 0.6 of the time: the highest bit of each half of 64 random bits.

    Of an odd number of draws the last half is lost.
    """
    halves = generator.integers(2**64, size=(rows * count + 1) // 2, dtype=np.uint64).astype("<u8", copy=False)
    return halves.view("<i4")[: rows * count].reshape(rows, count) < 0


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Correct the p-values of several metrics, so that the chance of any false finding stays below the level.

    Args:
        p_values: Metric name -> p-value; NaN is not a test and stays NaN.

    Returns:
        Metric name -> adjusted p-value, to be held against the same level, in the order given.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    tested = [name for name in p_values if not math.isnan(p_values[name])]
    adjusted = dict.fromkeys(p_values, math.nan)
    largest = 0.0
    for index, name in enumerate(sorted(tested, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(tested) - index) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def effect_size(differences: ArrayLike) -> float:
    """Cohen's d_z of paired differences, with Hedges' correction for few samples.

    Args:
        differences: Shape (n,): after minus before, of independent samples or groups.

    Returns:
        mean / standard deviation, times 1 - 3 / (4 (n - 1) - 1); NaN where there is no spread.

    Source: Hedges 1981, "Distribution theory for Glass's estimator of effect size"; Lakens 2013, "Calculating and
    reporting effect sizes", equation 7.
    """
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 3 or np.ptp(values) <= 1e-12 * np.max(np.abs(values)):
        return math.nan
    return float(np.mean(values) / np.std(values, ddof=1)) * (1 - 3 / (4 * (len(values) - 1) - 1))
