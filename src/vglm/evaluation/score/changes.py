"""Classify how each answer changed between the arms: in content, or in wording only.

Content is what the decisive metric calls right, such as the place that is named; form is exact match, the reference's
own wording. An answer that was right in other words and now has the reference's gains nothing in content.

```
reference 沙滩。    before 沙滩上有四只猫。    after 沙滩。      right before, in other words
                   before 雪地。            after 沙滩。      now right
                   before 沙滩              after 沙滩。      only punctuation, case, width or spaces
```
"""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, get_args

from vglm.evaluation.score.metrics import EXACT_MATCH
from vglm.evaluation.score.metrics.text import simplify

if TYPE_CHECKING:
    from vglm.evaluation.score.comparison import Pair

Change = Literal[
    "now right",
    "right before, other wording",
    "right in both",
    "right now, other wording",
    "wrong in both",
    "right before, wrong now",
    "punctuation only",
]
"""Of these every pair of answers is one.

`now right` and `right before, wrong now` changed in content. The two of `other wording` are right in both arms by
content, and came to the reference's wording or left it. `punctuation only` would be one of these four, but the two
answers differ in punctuation, case, width or spaces alone. The two of `both` changed in neither way.
"""
CHANGES: tuple[Change, ...] = get_args(Change)


def change_of(pair: "Pair") -> Change:
    """The kind of change of one answer."""
    was_right, is_right = pair.right
    had_form, has_form = (score == 1.0 for score in pair.scores[EXACT_MATCH.name])
    if (was_right, had_form) != (is_right, has_form) and _say_the_same(pair):
        return "punctuation only"
    if was_right != is_right:
        return "now right" if is_right else "right before, wrong now"
    if not is_right:
        return "wrong in both"
    if had_form == has_form:
        return "right in both"
    return "right before, other wording" if has_form else "right now, other wording"


def _say_the_same(pair: "Pair") -> bool:
    """Whether both arms gave the same answer but for punctuation, case, width and spaces."""
    return not pair.has_error and simplify(pair.baseline.prediction) == simplify(pair.candidate.prediction)


def count_changes(pairs: Iterable["Pair"]) -> dict[Change, int]:
    """How many answers are of each sort; of several draws each answer counts."""
    counts = Counter(map(change_of, pairs))
    return {change: counts[change] for change in CHANGES}
