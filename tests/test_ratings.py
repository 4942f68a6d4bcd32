"""Ratings of blinded pairs: counts by sample, an exact test, and agreement as published."""

import itertools
import json
import math
import random

import pytest

from vglm.errors import DataError
from vglm.evaluation.score.ratings import Verdict, sign_test, summarise_ratings

WORDS: tuple[Verdict, ...] = ("worse", "equal", "better")


def test_a_sample_counts_once_however_many_raters_it_has() -> None:
    ratings: list[tuple[str, str, Verdict]] = [
        *((rater, "s1", "better") for rater in "abc"),
        *(("a", "s2", "better"), ("b", "s2", "worse")),
        *(("a", "s3", "worse"), ("b", "s3", "equal")),
        ("c", "s4", "equal"),
    ]
    summary = summarise_ratings(ratings)
    assert (summary.ratings, summary.raters, summary.samples) == (8, 3, 4)
    assert (summary.wins, summary.ties, summary.losses) == (1, 2, 1)
    assert (summary.p_value, summary.win_share, summary.shared_samples) == (1.0, 0.5, 3)
    assert json.loads(json.dumps(summary.as_dict()))["interval"] == list(summary.interval)


@pytest.mark.parametrize("decided", range(1, 15))
def test_the_sign_test_by_counting_all_outcomes_and_its_interval_agree(decided: int) -> None:
    outcomes = [sum(coins) for coins in itertools.product((0, 1), repeat=decided)]
    for wins in range(decided + 1):
        p_value, interval = sign_test(wins, decided - wins)
        extreme = [outcome for outcome in outcomes if abs(2 * outcome - decided) >= abs(2 * wins - decided)]
        assert p_value == pytest.approx(len(extreme) / len(outcomes))
        assert (p_value <= 0.05) == (not interval.low <= 0.5 <= interval.high)


def test_nothing_rated_is_nothing_known() -> None:
    summary = summarise_ratings([])
    assert (summary.samples, summary.p_value, summary.win_share, summary.interval) == (0, 1.0, None, (0.0, 1.0))
    assert (summary.alpha_nominal, summary.alpha_ordinal) == (None, None)
    only_ties = summarise_ratings([("a", "s", "equal"), ("b", "s", "equal")])
    assert (only_ties.ties, only_ties.p_value, only_ties.alpha_nominal) == (1, 1.0, None)


def plain_alpha(votes: dict[str, list[int]], is_ordinal: bool) -> float:
    """By the definition: observed over expected disagreement of pairs of values."""
    votes = {sample: values for sample, values in votes.items() if len(values) > 1}
    values = [value for cast in votes.values() for value in cast]

    def distance(one: int, two: int) -> float:
        if not is_ordinal:
            return float(one != two)
        low, high = sorted((one, two))
        inside = sum(low <= value <= high for value in values)
        return (inside - (values.count(one) + values.count(two)) / 2) ** 2

    observed = sum(
        distance(one, two) / (len(cast) - 1) for cast in votes.values() for one, two in itertools.permutations(cast, 2)
    ) / len(values)
    expected = sum(distance(one, two) for one, two in itertools.permutations(values, 2))
    return 1 - observed / (expected / len(values) / (len(values) - 1))


@pytest.mark.parametrize("seed", range(8))
def test_alpha_by_its_definition_and_in_any_order(seed: int) -> None:
    chance = random.Random(seed)
    votes = {f"s{index}": chance.choices(range(3), k=chance.randint(1, 4)) for index in range(12)}
    ratings = [(f"r{rater}", name, WORDS[value]) for name, cast in votes.items() for rater, value in enumerate(cast)]
    chance.shuffle(ratings)
    summary = summarise_ratings(ratings)
    assert summary.alpha_nominal == pytest.approx(plain_alpha(votes, False))
    assert summary.alpha_ordinal == pytest.approx(plain_alpha(votes, True))


def test_full_agreement_is_one_and_systematic_disagreement_below_zero() -> None:
    agreed = [(rater, f"s{index}", WORDS[index % 3]) for rater in "ab" for index in range(6)]
    assert summarise_ratings(agreed).alpha_ordinal == pytest.approx(1.0)
    opposed = [(rater, f"s{index}", WORDS[2 * flip]) for flip, rater in enumerate("ab") for index in range(6)]
    alpha = summarise_ratings(opposed).alpha_nominal
    assert alpha is not None
    assert alpha < 0
    assert not math.isnan(alpha)


def test_wrong_ratings_are_refused() -> None:
    with pytest.raises(DataError, match=r"'a' on 's': a verdict must be one of better, equal, worse, got 'good'"):
        summarise_ratings([("a", "s", "good")])  # type: ignore[list-item]
    with pytest.raises(DataError, match="'a' has rated 's' twice"):
        summarise_ratings([("a", "s", "equal"), ("a", "s", "better")])
