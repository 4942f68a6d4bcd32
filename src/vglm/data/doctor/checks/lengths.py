"""How many tokens the samples have, and what a limit would cut."""

from collections.abc import Callable, Iterator

import numpy as np

from vglm.data.doctor.checks.common import NOTE, about, rows_of
from vglm.data.doctor.finding import SAY, Finding, Table
from vglm.data.doctor.survey import Survey
from vglm.text.messages import Text

_LENGTHS = (128, 320, 512, 1024, 2048)


def lengths(survey: Survey) -> Iterator[Finding]:
    """How many tokens the samples have."""
    rows = survey.rows
    total = rows["prompt_tokens"] + rows["history_tokens"] + rows["answer_tokens"]
    columns = {"prompt": rows["prompt_tokens"] + rows["history_tokens"], "answer": rows["answer_tokens"], "both": total}
    at = (50, 95, 99, 100)
    limits = [limit for limit in _LENGTHS if limit < total.max() * 2] or [_LENGTHS[0]]
    over = [SAY("lengths.over", n=int((total > limit).sum()), limit=limit) for limit in limits]
    yield Finding(
        NOTE,
        SAY("lengths.title", median=np.median(total), most=int(total.max())),
        SAY("lengths.detail", rows=rows_of(len(rows)), over=over),
        table=Table(
            (SAY("lengths.tokens"), SAY("lengths.median"), Text.of("95%"), Text.of("99%"), SAY("lengths.longest")),
            [
                (
                    SAY(f"lengths.{name}"),
                    *(f"{np.percentile(values, percentile, method='higher'):.0f}" for percentile in at),
                )
                for name, values in columns.items()
            ],
        ),
    )


def truncation(max_length: int) -> Callable[[Survey], Iterator[Finding]]:
    """The samples that a maximum length would truncate.

    Args:
        max_length: Tokens that a sample may have.

    Returns:
        The check.
    """

    def run(survey: Survey) -> Iterator[Finding]:
        rows = survey.rows
        bare = rows["prompt_tokens"] + rows["answer_tokens"]
        cut = np.flatnonzero((bare + rows["history_tokens"] > max_length) & (bare <= max_length))
        yield from about(survey, cut, "truncation.turns", limit=max_length)
        yield from about(survey, np.flatnonzero(bare > max_length), "truncation.too_long", limit=max_length)

    return run
