import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest, ttest_ind

from benchmarks.statistical_tests import (
    CASES,
    SKEWED,
    groups_of,
    right_or_wrong,
    simulate,
    simulate_seeds,
    simulate_skewed,
)
from vglm.evaluation.score.statistics import (
    LEAST_GROUPS,
    LEAST_GROUPS_UNBOUNDED,
    Interval,
    bootstrap_interval,
    bounded_interval,
    compare_paired,
    compare_seeds,
    detectable_difference,
    detectable_flip_rate,
    effect_size,
    gross_forgetting,
    holm,
    mcnemar_test,
    mean_of_sums,
    non_inferiority,
    over_seeds,
    paired,
    paired_proportion_interval,
    randomisation_test,
    resample,
    resampling,
    single_scores,
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
    coverage_rate = sum(chance for chance, (low, high) in zip(chances, intervals, strict=True) if low <= truth <= high)
    assert 0.93 <= coverage_rate <= 0.977


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
    covered = coverage(lambda generator: bootstrap_interval(draw(generator, n), resamples=500), truth)
    assert 0.925 <= covered <= 0.975  # 600 repeats: a standard error of 0.9 points


def test_bootstrap_by_group_covers_where_single_samples_do_not() -> None:
    def draw(generator: np.random.Generator) -> tuple[NDArray[np.float64], list[int]]:
        sizes = generator.integers(1, 6, 40)
        groups = np.repeat(np.arange(40), sizes)
        return generator.normal(0, 1, 40)[groups] + generator.normal(0, 0.5, len(groups)), groups.tolist()

    def grouped(generator: np.random.Generator) -> Interval:
        scores, groups = draw(generator)
        return bootstrap_interval(scores, groups=groups, resamples=400)

    assert 0.925 <= coverage(grouped, 0.0, 500) <= 0.975
    assert coverage(lambda generator: bootstrap_interval(draw(generator)[0], resamples=400), 0.0, 200) < 0.8


def test_bca_leans_towards_the_long_tail() -> None:
    scores = np.random.default_rng(3).exponential(1, 60)
    plain, bca = bootstrap_interval(scores), bootstrap_interval(scores, method="bca")
    assert bca.low > plain.low
    assert bca.high > plain.high
    narrow = bootstrap_interval(scores, is_expanded=False)
    assert plain.low < narrow.low < narrow.high < plain.high


def test_bootstrap_of_few_distinct_rows_equals_that_of_single_rows() -> None:
    scores = np.repeat([0.0, 1.0], [30, 70])
    nudged = scores + np.linspace(0, 1e-9, 100)  # a hundred distinct rows, the other way of drawing
    assert bootstrap_interval(scores, resamples=20000) == pytest.approx(
        bootstrap_interval(nudged, resamples=20000), abs=0.011
    )


def test_bootstrap_of_a_ratio_of_sums() -> None:
    generator = np.random.default_rng(5)
    sizes = generator.integers(1, 9, 300)
    hits = generator.binomial(sizes, 0.6)
    low, high = bootstrap_interval(np.stack([hits, sizes], axis=1), statistic=lambda sums: sums[..., 0] / sums[..., 1])
    assert low < hits.sum() / sizes.sum() < high
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.24 / sizes.sum()), rel=0.15)


def test_bootstrap_of_nothing() -> None:
    assert all(math.isnan(end) for end in bootstrap_interval([1.0, 0.0], groups=["a", "a"]))
    with pytest.raises(ValueError, match="n > 0"):
        bootstrap_interval([])
    with pytest.raises(ValueError, match="2 rows but 1 groups"):
        bootstrap_interval([1, 0], groups=["a"])


# --- two arms --------------------------------------------------------------------------------------------------------


def outcomes(n: int, gain: float, loss: float) -> list[tuple[int, int, float]]:
    """All (wrong to right, right to wrong) counts with their chances."""
    rest = 1 - gain - loss
    return [
        (i, j, math.comb(n, i) * math.comb(n - i, j) * gain**i * loss**j * rest ** (n - i - j))
        for i in range(n + 1)
        for j in range(n + 1 - i)
    ]


def test_tango_is_symmetric() -> None:
    low, high = paired_proportion_interval(3, 7, 30)
    assert paired_proportion_interval(7, 3, 30) == pytest.approx((-high, -low))


@pytest.mark.parametrize(("gain", "loss"), [(0.1, 0.1), (0.2, 0.05), (0.4, 0.1), (0.7, 0.05), (0.3, 0.3)])
def test_tango_covers_the_truth(gain: float, loss: float) -> None:
    covered = 0.0
    for gained, lost, chance in outcomes(20, gain, loss):
        low, high = paired_proportion_interval(gained, lost, 20)
        covered += chance * (low - 1e-9 <= gain - loss <= high + 1e-9)
    assert 0.93 <= covered <= 0.972


@pytest.mark.parametrize(
    ("n", "rate"), [(20, 0.3), (20, 0.4), (20, 0.6), (30, 0.2), (50, 0.15), (50, 0.6), (200, 0.05)]
)
def test_right_or_wrong_a_true_null_is_rejected_in_3_to_7_percent_from_6_flips_on(n: int, rate: float) -> None:
    rates = right_or_wrong(n, rate)
    assert rates.flips >= 5.99
    assert 0.03 <= rates.mid <= 0.07
    assert rates.verdict == rates.mid  # Tango's interval never takes back what the test finds
    assert rates.exact < rates.mid
    assert 0.93 <= rates.coverage <= 0.97
    assert 0.93 <= rates.gain_coverage <= 0.97


@pytest.mark.parametrize(("n", "rate"), [(20, 0.05), (20, 0.2), (50, 0.1), (200, 0.02)])
def test_with_fewer_than_6_flips_expected_nothing_is_claimed_too_often(n: int, rate: float) -> None:
    rates = right_or_wrong(n, rate)
    assert rates.exact < rates.mid < 0.03
    assert rates.coverage > 0.95


@pytest.mark.parametrize(("name", "n"), [*((name, 20) for name in CASES), ("right/wrong, by group", 50)])
def test_of_simulated_arms_95_percent_are_held_and_5_percent_rejected_at_most(name: str, n: int) -> None:
    make, is_grouped = CASES[name]
    rates = simulate(make(), groups_of(n, is_grouped), repeats=400, resamples=400, seed=3)
    error = 0.0109  # of 400 repeats at 95 %
    assert rates.coverage >= 0.95 - 2 * error
    assert rates.null_coverage >= 0.95 - 2 * error
    assert rates.exact <= rates.mid <= 0.05 + 2 * error
    assert rates.verdict <= rates.mid


@pytest.mark.parametrize(
    ("gained", "lost", "exact", "mid"),
    [
        (1, 7, 2 * 9 / 256, 2 * 9 / 256 - 8 / 256),
        (0, 6, 2 / 64, 1 / 64),
        (5, 5, 1.0, 1 - 252 / 1024 / 2),
        (0, 0, 1.0, 1.0),
    ],
)
def test_mcnemar_by_hand(gained: int, lost: int, exact: float, mid: float) -> None:
    assert mcnemar_test(gained, lost) == pytest.approx(exact)
    assert mcnemar_test(lost, gained, is_mid=True) == pytest.approx(mid)


def test_mcnemar_of_many_flips() -> None:
    assert mcnemar_test(2500, 2700) == pytest.approx(math.erfc((200 - 1) / math.sqrt(5200) / math.sqrt(2)), rel=0.01)


@pytest.mark.parametrize("n", [10, 20, 60])
def test_randomisation_rejects_a_true_null_in_5_percent(n: int) -> None:
    generator = np.random.default_rng(11)
    rejected = 0
    for _ in range(600):
        common = generator.random(n)
        before, after = (common * generator.beta(0.5, 1, n) for _ in range(2))
        rejected += randomisation_test(before, after, resamples=300) <= 0.05
    assert 0.03 <= rejected / 600 <= 0.07


def test_randomisation_by_group_rejects_a_true_null_in_5_percent_and_singly_far_more() -> None:
    generator = np.random.default_rng(12)
    by_group = singly = 0
    for _ in range(500):
        groups = np.repeat(np.arange(15), generator.integers(1, 6, 15))
        before = generator.normal(size=len(groups))
        after = before + generator.normal(0, 1, 15)[groups] + generator.normal(0, 0.3, len(groups))
        by_group += randomisation_test(before, after, groups=groups.tolist(), resamples=300) <= 0.05
        singly += randomisation_test(before, after, resamples=300) <= 0.05
    assert 0.03 <= by_group / 500 <= 0.07
    assert singly / 500 > 0.15


def test_randomisation_of_a_ratio_of_sums_rejects_a_true_null_in_5_percent() -> None:
    generator = np.random.default_rng(13)
    rejected = 0
    for _ in range(500):
        sizes = generator.integers(1, 9, 20)
        before, after = (np.stack([generator.binomial(sizes, 0.6), sizes], axis=1) for _ in range(2))
        p_value = randomisation_test(before, after, statistic=lambda sums: sums[..., 0] / sums[..., 1], resamples=300)
        rejected += p_value <= 0.05
    assert 0.03 <= rejected / 500 <= 0.07


def test_randomisation_takes_all_exchanges_where_they_are_few() -> None:
    before, after = [0.1, 0.2, 0.3, 0.5, 0.5], [0.4, 0.3, 0.9, 0.2, 0.5]
    steps = np.subtract(after, before)
    signs = np.array(np.meshgrid(*[[-1, 1]] * 5)).reshape(5, -1).T
    expected = float(np.mean(np.abs(signs @ steps) >= abs(steps.sum()) - 1e-12))
    assert randomisation_test(before, after) == pytest.approx(expected)
    assert randomisation_test(before, after, is_mid=True) == pytest.approx(
        expected - float(np.mean(np.abs(np.abs(signs @ steps) - abs(steps.sum())) < 1e-12)) / 2
    )
    assert randomisation_test(before, before) == randomisation_test(before, before, is_mid=True) == 1.0


@pytest.mark.parametrize("count", [12, 35])
def test_exchanges_are_those_of_the_seed_in_any_number_of_blocks(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """An odd number of draws of an odd number of groups, a few of them at a time."""
    scores = np.random.default_rng(2).normal(0.3, 1, (2, count))
    observed = abs(float(np.sum(scores[1] - scores[0])))
    signs = 1 - 2 * np.random.default_rng(5).integers(2, size=(333, count), dtype=np.int32)
    extreme = int(np.sum(np.abs(signs @ (scores[1] - scores[0])) >= observed - 1e-9))
    monkeypatch.setattr(paired, "_AT_ONCE", 6 * count)
    assert randomisation_test(*scores, resamples=333, seed=5) == (extreme + 1) / 334


@pytest.mark.parametrize("values", [3, 40])  # drawn row by row where few differ, else group by group
def test_resamples_are_those_of_the_seed_in_any_number_of_blocks(monkeypatch: pytest.MonkeyPatch, values: int) -> None:
    rows = np.stack([np.arange(40.0) % values, np.ones(40)], axis=1)
    whole = resample(rows, mean_of_sums, 101, 4)
    monkeypatch.setattr(resampling, "BLOCK", 130)
    monkeypatch.setattr(resampling, "MAX_KEPT", 0)  # and not those kept
    assert resample(rows, mean_of_sums, 101, 4) == pytest.approx(whole, rel=1e-12)


def test_randomisation_of_right_and_wrong_is_mcnemar() -> None:
    before, after = [0] * 8 + [1] * 4, [1] * 7 + [0] + [0] + [1] * 3
    for is_mid in (False, True):
        assert randomisation_test(before, after, is_mid=is_mid) == pytest.approx(mcnemar_test(7, 1, is_mid=is_mid))
    drawn = randomisation_test(np.repeat(before, 2), np.repeat(after, 2), is_mid=True)  # 18 flips: 4,000 of 262,144
    assert drawn == pytest.approx(mcnemar_test(14, 2, is_mid=True), abs=0.003)


def test_holm_by_hand() -> None:
    adjusted = holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"a": 0.06, "b": 0.03, "c": 0.06, "d": 0.02})
    assert list(adjusted) == ["a", "b", "c", "d"]
    assert holm({"a": 0.7, "b": 0.9}) == {"a": 1.0, "b": 1.0}


def test_undefined_scores_are_no_finding() -> None:
    def ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):
            return np.asarray(sums[..., 0] / sums[..., 1])

    before, after = [[0.2, 1.0], [0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.7, 1.0], [0.9, 1.0]]
    result = compare_paired(before, after, statistic=ratio)
    assert result.difference == pytest.approx(0.6)
    # of 8 exchanges two are the observed one and its mirror, and two leave an arm without a number
    assert (result.p_value_exact, result.p_value) == (4 / 8, 3 / 8)
    nothing = compare_paired([[0.0, 0.0]] * 3, after, statistic=ratio)
    assert math.isnan(nothing.p_value)
    assert json.loads(json.dumps(nothing.as_dict()))["difference"] is None
    assert math.isnan(holm({"a": math.nan, "b": 0.02})["a"])
    assert holm({"a": math.nan, "b": 0.02})["b"] == 0.02


def test_effect_size_by_hand() -> None:
    # mean 2, standard deviation sqrt(2.5), 5 samples: J = 1 - 3 / 15
    assert effect_size([0, 1, 2, 3, 4]) == pytest.approx(2 / math.sqrt(2.5) * 0.8)
    assert math.isnan(effect_size([1, 1, 1, 1]))


def test_compare_paired_of_right_and_wrong() -> None:
    before, after = [0] * 10 + [1] * 10, [1] * 8 + [0] * 2 + [1] * 9 + [0]
    result = compare_paired(before, after)
    assert (result.before, result.after, result.difference) == pytest.approx((0.5, 0.85, 0.35))
    assert result.flips is not None
    assert (result.flips.wrong_to_right, result.flips.right_to_wrong) == (tuple(range(8)), (19,))
    assert (result.p_value, result.p_value_exact) == (mcnemar_test(8, 1, is_mid=True), mcnemar_test(8, 1))
    assert str(result.test) == "mid-p McNemar test, two-sided"
    assert result.interval == paired_proportion_interval(8, 1, 20)
    assert result.effect_size == pytest.approx(effect_size(np.subtract(after, before)))
    assert str(result.power_line).startswith("With 20 test items a true difference under 4")
    assert json.loads(json.dumps(result.as_dict()))["flips"] == {
        "wrong_to_right": list(range(8)),
        "right_to_wrong": [19],
    }


def test_where_nothing_differs_nothing_is_found() -> None:
    assert compare_paired([0, 1, 1], [0, 1, 1]).p_value == 1.0
    counts = np.array([[0.0, 4.0], [0.0, 5.0], [0.0, 9.0]])  # other lengths, but no match in either arm
    result = compare_paired(counts, counts[::-1], statistic=lambda sums: np.asarray(sums[..., 0] / sums[..., 1]))
    assert (result.difference, result.p_value, result.p_value_exact) == (0.0, 1.0, 1.0)


def test_compare_paired_by_group_and_without_any_change() -> None:
    generator = np.random.default_rng(2)
    before, after = generator.random(30), generator.random(30)
    groups = [f"study {index // 3}" for index in range(30)]
    result = compare_paired(before, after, groups=groups)
    assert (result.n, result.groups, result.flips) == (30, 10, None)
    assert result.interval.low < result.difference < result.interval.high
    assert result.p_value_exact >= randomisation_test(before, after, groups=groups)
    assert result.p_value >= randomisation_test(before, after, groups=groups, is_mid=True)
    assert str(result.test).startswith("mid-p paired randomisation test, two-sided, or")
    assert str(result.test).endswith("4000 draws, by group")
    assert "30 test items in 10 independent groups" in str(result.power_line)
    same = compare_paired(before, before)
    assert (same.difference, same.p_value) == (0.0, 1.0)
    assert -0.15 < same.interval.low < 0 < same.interval.high < 0.15  # nothing seen in 30, so up to a tenth is possible
    assert same.detectable == pytest.approx(same.interval.high, rel=0.1)
    with pytest.raises(ValueError, match="same rows"):
        compare_paired(before, after[:5])


# --- power -----------------------------------------------------------------------------------------------------------


def test_a_detectable_difference_is_found_in_80_percent() -> None:
    generator = np.random.default_rng(4)
    shift = detectable_difference(0.4, 20)
    detected = sum(
        randomisation_test(np.zeros(20), generator.normal(shift, 0.4, 20), resamples=300) <= 0.05 for _ in range(500)
    )
    assert 0.75 <= detected / 500 <= 0.85
    assert math.isnan(detectable_difference(0.0, 20))


@pytest.mark.parametrize(("n", "rate"), [(20, 0.3), (60, 0.3)])
def test_a_detectable_flip_rate_is_found_in_80_percent(n: int, rate: float) -> None:
    difference = detectable_flip_rate(n, rate)
    total = rate + difference
    power = sum(
        chance
        for gained, lost, chance in outcomes(n, (total + difference) / 2, (total - difference) / 2)
        if mcnemar_test(gained, lost, is_mid=True) <= 0.05
    )
    assert power == pytest.approx(0.8, abs=0.002)


def test_detectable_flip_rates_grow_as_samples_become_few() -> None:
    rates = [detectable_flip_rate(n, 0.3) for n in (10, 20, 100, 400, 401, 5000)]
    assert rates == sorted(rates, reverse=True)
    assert rates[3] - rates[4] < 0.005  # the exact figure and the approximate one
    assert math.isnan(detectable_flip_rate(4, 0.3))  # four flips are never significant


def test_no_difference_of_more_than_100_points_is_ever_named() -> None:
    for before, after in (([0.0, 1.0, 0.2], [1.0, 0.0, 0.9]), ([0.0] * 3, [1.0] * 3)):
        result = compare_paired(before, after)
        assert math.isnan(result.detectable)
        assert str(result.power_line).startswith(
            "With 3 test items any true difference is found in fewer than 80 % of cases"
        )
    generator = np.random.default_rng(8)
    for n in (10, 20, 60):
        assert compare_paired(generator.random(n), generator.random(n)).detectable <= 1.0


# --- skewed differences ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [12, 20, 50])
@pytest.mark.parametrize("name", SKEWED)
def test_a_mean_difference_of_0_is_no_finding_however_skewed(name: str, n: int) -> None:
    rates = simulate_skewed(name, n, repeats=150, resamples=300, seed=3)
    assert rates.verdict <= 0.05
    assert rates.coverage >= 0.95


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (1, 7), (5, 12), (12, 12), (40, 60)])
def test_a_bounded_interval_of_0_and_1_is_that_of_clopper_and_pearson(successes: int, n: int) -> None:
    values = np.repeat([1.0, 0.0], [successes, n - successes])
    expected = binomtest(successes, n).proportion_ci(0.95, method="exact")
    interval = bounded_interval(values, 0, 1, resamples=100_000)
    assert interval == pytest.approx((expected.low, expected.high), abs=0.004)


@given(
    st.lists(st.floats(-1, 1), min_size=2, max_size=30),
    st.floats(0, 0.5),
)
def test_a_bounded_interval_holds_its_mean_moves_with_its_range_and_mirrors(values: list[float], more: float) -> None:
    low, high = bounded_interval(values, -1, 1, resamples=400)
    assert -1 <= low <= float(np.mean(values)) + 1e-9 <= high + 2e-9 <= 1 + 3e-9
    wide = bounded_interval(values, -1 - more, 1 + more, resamples=400)
    assert wide.low <= low + 1e-9 <= high + 2e-9 <= wide.high + 3e-9


def test_values_beyond_the_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"from 0 to 1, got -0\.5"):
        bounded_interval([0.2, -0.5], 0, 1)
    with pytest.raises(ValueError, match="n > 0"):
        bounded_interval([], 0, 1)


def test_scores_without_bounds_need_more_groups_for_a_verdict() -> None:
    before, after = np.linspace(0, 30, 40), np.linspace(0, 30, 40) + 3
    assert compare_paired(before, after).least_groups == LEAST_GROUPS_UNBOUNDED
    assert compare_paired(before / 100, after / 100).least_groups == LEAST_GROUPS
    assert compare_paired(before / 100, after / 100, bound=math.inf).least_groups == LEAST_GROUPS_UNBOUNDED


def class_rows(true: NDArray[np.int64], named: NDArray[np.int64]) -> NDArray[np.float64]:
    """Accuracy counted class by class: (is true, is named, both) for three classes, shape (n, 9)."""
    parts = [true[:, None] == np.arange(3), named[:, None] == np.arange(3)]
    return np.concatenate([*parts, parts[0] & parts[1]], axis=1).astype(np.float64)


def test_one_outcome_has_one_interval_whatever_its_rows_are_made_of() -> None:
    generator = np.random.default_rng(9)
    true, old, new = generator.integers(3, size=(3, 40))
    accuracy = lambda sums: sums[..., 6:].sum(axis=-1) / sums[..., :3].sum(axis=-1)  # noqa: E731
    by_class = compare_paired(class_rows(true, old), class_rows(true, new), statistic=accuracy)
    plain = compare_paired((true == old) * 1.0, (true == new) * 1.0)
    assert by_class == plain
    assert by_class.flips is not None
    nothing = compare_paired(class_rows(true, true), class_rows(true, true), statistic=accuracy)
    assert nothing.interval == paired_proportion_interval(0, 0, 40)


def test_a_score_that_is_no_mean_is_not_taken_for_one() -> None:
    generator = np.random.default_rng(10)
    true, named = generator.integers(3, size=(2, 30))
    recall = lambda sums: (sums[..., 6:] / np.maximum(sums[..., :3], 1)).mean(axis=-1)  # noqa: E731
    assert single_scores(class_rows(true, named), recall) is None
    scores = generator.random(30)
    assert single_scores(scores, None) == pytest.approx(scores)


# --- forgetting ------------------------------------------------------------------------------------------------------


def test_a_loss_is_held_against_its_margin() -> None:
    unchanged = compare_paired([1] * 200, [1] * 199 + [0])
    lost = compare_paired([1] * 200, [1] * 120 + [0] * 80)
    unsure = compare_paired([1] * 40, [1] * 39 + [0])
    few = compare_paired([1] * 9, [1] * 9)
    findings = [non_inferiority(comparison, 0.05).finding for comparison in (unchanged, lost, unsure, few)]
    assert findings == ["shown", "refuted", "not shown", "not shown"]
    result = non_inferiority(lost, 0.05)
    assert (result.loss, result.margin, result.n) == (0.4, 0.05, 200)
    assert result.interval == pytest.approx((-lost.interval.high, -lost.interval.low))
    with pytest.raises(ValueError, match="0 or more"):
        non_inferiority(lost, -0.01)


@pytest.mark.parametrize(("n", "losing", "gaining"), [(60, 0.05, 0.0), (60, 0.15, 0.1), (120, 0.08, 0.03)])
def test_both_claims_about_a_margin_are_wrong_in_few_cases(n: int, losing: float, gaining: float) -> None:
    shown = refuted = 0.0
    for gained, lost, chance in outcomes(n, gaining, losing):
        low, high = paired_proportion_interval(gained, lost, n) if chance > 1e-9 else (-1.0, 1.0)
        shown += chance * (-low <= 0.05)
        refuted += chance * (-high > 0.05)
    assert shown <= 0.05
    assert refuted <= 0.04


def test_forgetting_and_learning_are_counted_apart() -> None:
    before, after = [1] * 90 + [0] * 90, [0] * 20 + [1] * 70 + [1] * 20 + [0] * 70
    gross = gross_forgetting(before, after)
    assert compare_paired(before, after).difference == 0
    assert (gross.known, gross.forgotten, gross.unknown, gross.learned) == (90, 20, 90, 20)
    assert gross.forgotten_interval == gross.learned_interval == wilson_interval(20, 90)
    grouped = gross_forgetting(before, after, groups=[index // 3 for index in range(180)])
    assert grouped.forgotten_share == 20 / 90
    assert grouped.forgotten_interval.low < gross.forgotten_interval.low
    assert grouped.forgotten_interval.high > gross.forgotten_interval.high


def test_nothing_known_is_nothing_forgotten() -> None:
    gross = gross_forgetting([0, 0, 0, 0], [1, 0, 0, 0], groups=["a", "a", "b", "b"])
    assert (gross.known, gross.forgotten, gross.forgotten_interval) == (0, 0, (0.0, 1.0))
    assert math.isnan(gross.forgotten_share)
    assert 0 <= gross.learned_interval.low < 0.25 < gross.learned_interval.high <= 1
    with pytest.raises(ValueError, match="all 0 or 1"):
        gross_forgetting([0, 0.5], [1, 1])


# --- several seeds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seeds", "n", "seed_sd"), [(3, 20, 0.0), (3, 100, 0.1), (5, 20, 0.3), (10, 100, 0.02)])
def test_over_seeds_covers_the_truth(seeds: int, n: int, seed_sd: float) -> None:
    generator = np.random.default_rng(21)
    covered = covered_by_seeds = 0
    for _ in range(600):
        samples = generator.normal(0, 0.3, n)
        rows = generator.normal(0, seed_sd, seeds)[:, None] + samples + generator.normal(0, 0.3, (seeds, n))
        summary = over_seeds(rows)
        covered += summary.interval.low <= 0 <= summary.interval.high
        covered_by_seeds += summary.seed_interval.low <= samples.mean() <= summary.seed_interval.high
    assert 0.93 <= covered / 600 <= 0.98
    assert 0.93 <= covered_by_seeds / 600 <= 0.97


def test_over_seeds_tells_the_variances_apart() -> None:
    generator = np.random.default_rng(22)
    rows = (
        generator.normal(0, 0.2, 40)[:, None]
        + generator.normal(0, 0.5, 400)
        + generator.normal(0, 0.3, (40, 400))
        + 0.6
    )
    summary = over_seeds(rows)
    assert summary.mean == pytest.approx(rows.mean())
    assert (summary.seed_sd, summary.sample_sd, summary.residual_sd) == pytest.approx((0.2, 0.5, 0.3), rel=0.25)
    grouped = over_seeds(rows, groups=[index // 4 for index in range(400)])
    assert grouped.scores == pytest.approx(summary.scores)
    assert grouped.sample_sd == pytest.approx(summary.sample_sd / 2, rel=0.25)  # four samples to a group
    with pytest.raises(ValueError, match="two seeds"):
        over_seeds([[1.0, 0.0]])


@pytest.mark.parametrize(("seeds", "is_paired"), [((2, 2), True), ((2, 2), False), ((2, 5), False), ((3, 3), True)])
def test_equal_methods_are_not_told_apart_by_their_seeds(seeds: tuple[int, int], is_paired: bool) -> None:
    assert simulate_seeds(seeds, is_paired=is_paired, repeats=400, seed=4).differ <= 0.05 + 0.02


def test_two_methods_over_seeds_by_hand() -> None:
    generator = np.random.default_rng(23)
    first, second = generator.random((3, 50)), generator.random((4, 50))
    result = compare_seeds(first, second, is_paired=False)
    scores = [matrix.mean(axis=1) for matrix in (first, second)]
    welch = ttest_ind(*scores[::-1], equal_var=False).confidence_interval(0.95)
    by_sample = second.mean(axis=0) - first.mean(axis=0)
    samples = student_quantile(0.975, 49) * by_sample.std(ddof=1) / math.sqrt(50)
    assert result.mean == pytest.approx(scores[1].mean() - scores[0].mean())
    half = math.hypot((welch.high - welch.low) / 2, samples)
    assert result.interval == pytest.approx((result.mean - half, result.mean + half))
    paired = compare_seeds(first, second[:3], is_paired=True)
    seeds = student_quantile(0.975, 2) * np.std(scores[1][:3] - scores[0], ddof=1) / math.sqrt(3)
    samples = student_quantile(0.975, 49) * (second[:3].mean(axis=0) - first.mean(axis=0)).std(ddof=1) / math.sqrt(50)
    assert paired.interval.high - paired.mean == pytest.approx(math.hypot(seeds, samples))
    with pytest.raises(ValueError, match="two seeds"):
        compare_seeds(first[:1], second, is_paired=False)


@pytest.mark.parametrize(
    ("level", "degrees", "expected"),
    [(0.975, 1, 12.7062), (0.975, 2, 4.30265), (0.975, 19, 2.09302), (0.995, 5, 4.03214), (0.95, 1000, 1.64638)],
)
def test_student_as_tabled(level: float, degrees: float, expected: float) -> None:
    assert student_quantile(level, degrees) == pytest.approx(expected, rel=2e-6)
