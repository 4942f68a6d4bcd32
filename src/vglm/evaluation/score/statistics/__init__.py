"""The uncertainty of a score, and whether two scores differ: intervals, tests, power and seeds.

A score is a function of sums over samples: a mean is (sum of scores) / (number of samples), BLEU a function of summed
n-gram counts, macro-F1 one of summed hits. So every interval and every test below takes `rows`, one row of additive
numbers per sample, and `statistic`, from sums to the score; plain scores, shape (n,), stand for their mean.

```
wilson_interval(17, 20)                                        (0.640, 0.948)
bootstrap_interval([1, 1, 0, …], groups=["s1", "s1", "s2", …])   whole studies are drawn
compare_paired(before, after, groups=studies)                  everything about one metric in two arms
holm({"exact_match": 0.01, "rouge_l": 0.03})                   {"exact_match": 0.02, "rouge_l": 0.03}
over_seeds([[1, 0, 1, …], [1, 1, 1, …], …])                    one row of scores per seed
compare_seeds(lora, qlora, is_paired=True)                     two methods, over new seeds and new samples
non_inferiority(compare_paired(before, after), margin=0.05)    lost at most 5 points: shown, not shown or refuted
gross_forgetting(before, after)                                forgot 20 of the 90 it knew, learned 20 of 90
```

Student's t and the binomial are SciPy's; this package adds what no library has: Tango's interval, McNemar's mid-p test,
the bootstrap and the randomisation test by group on additive rows, and Gaffke's interval.
"""

from vglm.evaluation.score.statistics.basics import Interval, Statistic, mean_of_sums, single_scores, student_quantile
from vglm.evaluation.score.statistics.bounded import bounded_interval
from vglm.evaluation.score.statistics.flips import Flips, find_flips, mcnemar_test, paired_proportion_interval
from vglm.evaluation.score.statistics.intervals import bootstrap_interval, wilson_interval
from vglm.evaluation.score.statistics.paired import (
    LEAST_GROUPS,
    LEAST_GROUPS_UNBOUNDED,
    PairedComparison,
    compare_paired,
    effect_size,
    holm,
    randomisation_test,
)
from vglm.evaluation.score.statistics.power import detectable_difference, detectable_flip_rate
from vglm.evaluation.score.statistics.resampling import resample
from vglm.evaluation.score.statistics.retention import (
    GrossForgetting,
    NonInferiority,
    gross_forgetting,
    non_inferiority,
)
from vglm.evaluation.score.statistics.seeds import SeedDifference, SeedSummary, compare_seeds, over_seeds

__all__ = [
    "LEAST_GROUPS",
    "LEAST_GROUPS_UNBOUNDED",
    "Flips",
    "GrossForgetting",
    "Interval",
    "NonInferiority",
    "PairedComparison",
    "SeedDifference",
    "SeedSummary",
    "Statistic",
    "bootstrap_interval",
    "bounded_interval",
    "compare_paired",
    "compare_seeds",
    "detectable_difference",
    "detectable_flip_rate",
    "effect_size",
    "find_flips",
    "gross_forgetting",
    "holm",
    "mcnemar_test",
    "mean_of_sums",
    "non_inferiority",
    "over_seeds",
    "paired_proportion_interval",
    "randomisation_test",
    "resample",
    "single_scores",
    "student_quantile",
    "wilson_interval",
]
