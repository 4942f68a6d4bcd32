import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from vglm.evaluation.statistics import (
    Interval,
    bootstrap_interval,
    student_cdf,
    student_quantile,
    wilson_interval,
)

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]
"""(generator, n) -> n scores."""


def coverage(interval_of: Callable[[np.random.Generator], Interval], truth: float, repeats: int = 600) -> float:
    """The share of intervals that hold the truth."""
    generator = np.random.default_rng(7)
    intervals = [interval_of(generator) for _ in range(repeats)]
    return sum(low - 1e-12 <= truth <= high + 1e-12 for low, high in intervals) / repeats


# --- proportions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "n", "expected"),
    [
        (81, 263, (0.2553, 0.3662)),  # Newcombe 1998, "Two-sided confidence intervals for the single proportion"
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_as_published(successes: int, n: int, expected: tuple[float, float]) -> None:
    assert wilson_interval(successes, n) == pytest.approx(expected, abs=5e-5)


def test_wilson_is_symmetric_and_knows_nothing_from_nothing() -> None:
    low, high = wilson_interval(3, 11, 0.9)
    assert wilson_interval(8, 11, 0.9) == pytest.approx((1 - high, 1 - low))
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(4, 4)[1] == 1.0
    with pytest.raises(ValueError, match="from 0 to n = 3, got 4"):
        wilson_interval(4, 3)


@pytest.mark.parametrize("n", [20, 100])
@pytest.mark.parametrize("truth", [0.5, 0.7, 0.9])
def test_wilson_covers_the_truth(n: int, truth: float) -> None:
    chances = [math.comb(n, k) * truth**k * (1 - truth) ** (n - k) for k in range(n + 1)]
    intervals = [wilson_interval(k, n) for k in range(n + 1)]
    held = sum(chance for chance, (low, high) in zip(chances, intervals, strict=True) if low <= truth <= high)
    assert 0.93 <= held <= 0.977


# --- the bootstrap ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        pytest.param(lambda generator, n: generator.normal(0.3, 1, n), 0.3, id="normal"),
        pytest.param(lambda generator, n: generator.beta(0.5, 1.5, n), 0.25, id="skewed, bounded"),
        pytest.param(lambda generator, n: (generator.random(n) < 0.7) * 1.0, 0.7, id="right or wrong"),
        pytest.param(lambda generator, n: generator.choice([-1.0, 0, 1], n, p=[0.1, 0.7, 0.2]), 0.1, id="flips"),
    ],
)
@pytest.mark.parametrize("n", [20, 60])
def test_bootstrap_covers_the_truth(draw: Draw, truth: float, n: int) -> None:
    held = coverage(lambda generator: bootstrap_interval(draw(generator, n), resamples=500), truth)
    assert 0.925 <= held <= 0.975  # 600 repeats: a standard error of 0.9 points


@pytest.mark.parametrize(
    ("level", "degrees", "expected"),
    [(0.975, 1, 12.7062), (0.975, 2, 4.30265), (0.975, 19, 2.09302), (0.995, 5, 4.03214), (0.95, 1000, 1.64638)],
)
def test_student_as_tabled(level: float, degrees: float, expected: float) -> None:
    assert student_quantile(level, degrees) == pytest.approx(expected, rel=2e-6)
    assert student_cdf(expected, degrees) == pytest.approx(level, abs=1e-5)
