"""Statistics of human ratings of two arms: wins, ties and losses, an exact test, and agreement of the raters.

    summarise_ratings([("anna", "test#0", "better"), ("ben", "test#0", "equal"), ("anna", "test#1", "worse"), …])

The unit is the sample: several raters of one sample are no independent evidence, so a sample is won where more of its
raters say "better" than "worse", lost where more say "worse", and tied otherwise. Ties say nothing about the direction
and are set aside, as in the sign test.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from vglm.errors import DataError
from vglm.evaluation.score.statistics import Interval

Verdict = Literal["better", "equal", "worse"]
"""About the candidate."""
_RANKS: dict[str, int] = {"worse": 0, "equal": 1, "better": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingSummary:
    """What all raters together say about the candidate.

    Attributes:
        ratings: Number of ratings.
        raters: Number of raters.
        samples: Number of samples with a rating.
        wins: Samples with more ratings "better" than "worse".
        ties: Samples with as many of the one as of the other.
        losses: Samples with more ratings "worse".
        p_value: Of the exact two-sided sign test of wins against losses; 1.0 without either.
        win_share: wins / (wins + losses); None without either.
        interval: 95 % Clopper-Pearson interval of `win_share`, which excludes 0.5 just where `p_value` is below 0.05.
        shared_samples: Samples with two raters or more, on which the agreement rests.
        alpha_nominal: Krippendorff's alpha where "better" against "worse" is no more apart than "better" against
            "equal"; 1.0 is full agreement, 0.0 that of chance. None without shared samples, or where all ratings of
            them are the same.
        alpha_ordinal: Likewise, with "equal" between the others.
    """

    ratings: int
    raters: int
    samples: int
    wins: int
    ties: int
    losses: int
    p_value: float
    win_share: float | None
    interval: Interval
    shared_samples: int
    alpha_nominal: float | None
    alpha_ordinal: float | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "interval": list(self.interval)}


def summarise_ratings(ratings: Iterable[tuple[str, str, Verdict]]) -> RatingSummary:
    """Count and test ratings of blinded pairs of answers.

    Args:
        ratings: (rater, sample id, verdict about the candidate). Ids are of independent samples.

    Returns:
        The summary; of no ratings one with zeros, p-value 1.0 and the interval 0.0 to 1.0.

    Raises:
        DataError: A verdict is not one of the three words, or a rater has rated a sample twice.

    Source: Krippendorff 2004, "Content analysis", chapter 11.
    """
    votes = _votes(ratings)
    leads = [sum(_RANKS[verdict] - 1 for verdict in verdicts.values()) for verdicts in votes.values()]
    wins, losses = sum(lead > 0 for lead in leads), sum(lead < 0 for lead in leads)
    p_value, interval = sign_test(wins, losses)
    shared = {sample: verdicts for sample, verdicts in votes.items() if len(verdicts) > 1}
    return RatingSummary(
        ratings=sum(map(len, votes.values())),
        raters=len({rater for verdicts in votes.values() for rater in verdicts}),
        samples=len(votes),
        wins=wins,
        ties=len(votes) - wins - losses,
        losses=losses,
        p_value=p_value,
        win_share=wins / (wins + losses) if wins + losses else None,
        interval=interval,
        shared_samples=len(shared),
        alpha_nominal=_alpha(shared, lambda counts: lambda one, two: float(one != two)),
        alpha_ordinal=_alpha(shared, _ordinal_distance),
    )


def sign_test(wins: int, losses: int, confidence: float = 0.95) -> tuple[float, Interval]:
    """The exact two-sided sign test of wins against losses, ties set aside.

    Args:
        wins: Independent samples that speak for the candidate.
        losses: Those that speak against it.
        confidence: Of the interval.

    Returns:
        The p-value of "as likely to win as to lose", and the Clopper-Pearson interval of the share of wins.
    """
    if not wins + losses:
        return 1.0, Interval(0.0, 1.0)
    from scipy.stats import binomtest  # takes a second to import

    test = binomtest(wins, wins + losses)
    interval = test.proportion_ci(confidence, method="exact")
    return float(test.pvalue), Interval(float(interval.low), float(interval.high))


def _votes(ratings: Iterable[tuple[str, str, Verdict]]) -> dict[str, dict[str, Verdict]]:
    """Sample -> rater -> verdict."""
    votes: dict[str, dict[str, Verdict]] = defaultdict(dict)
    for rater, sample, verdict in ratings:
        if verdict not in _RANKS:
            words = ", ".join(get_args(Verdict))
            raise DataError(f"{rater!r} on {sample!r}: a verdict must be one of {words}, got {verdict!r}.")
        if rater in votes[sample]:
            raise DataError(f"{rater!r} has rated {sample!r} twice. Keep one of the ratings.")
        votes[sample][rater] = verdict
    return votes


Distance = Callable[[str, str], float]


def _ordinal_distance(counts: Mapping[str, int]) -> Distance:
    """Krippendorff's: the squared number of ratings between two ranks, with half of those at either."""

    def distance(one: str, two: str) -> float:
        low, high = sorted((_RANKS[one], _RANKS[two]))
        between = sum(count for word, count in counts.items() if low <= _RANKS[word] <= high)
        return (between - (counts[one] + counts[two]) / 2) ** 2

    return distance


def _alpha(
    shared: Mapping[str, Mapping[str, Verdict]], distance_of: Callable[[Mapping[str, int]], Distance]
) -> float | None:
    """Krippendorff's alpha of samples with two ratings or more; None where these are all the same."""
    counts = Counter(str(verdict) for verdicts in shared.values() for verdict in verdicts.values())
    if len(counts) < 2:
        return None
    from nltk.metrics.agreement import AnnotationTask  # takes half a second to import

    triples = [(rater, sample, verdict) for sample, votes in shared.items() for rater, verdict in votes.items()]
    return float(AnnotationTask(data=triples, distance=distance_of(counts)).alpha())
