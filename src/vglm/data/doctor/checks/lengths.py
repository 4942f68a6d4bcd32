"""How many tokens the samples have, and what a limit would cut."""

from collections.abc import Callable, Iterator

import numpy as np

from vglm.data.doctor.checks.common import NOTE, about, count_of, rows_of
from vglm.data.doctor.finding import Finding, Table
from vglm.data.doctor.survey import Survey

_LENGTHS = (128, 320, 512, 1024, 2048)


def lengths(survey: Survey) -> Iterator[Finding]:
    """How many tokens the samples have."""
    rows = survey.rows
    total = rows["prompt_tokens"] + rows["history_tokens"] + rows["answer_tokens"]
    columns = {"prompt": rows["prompt_tokens"] + rows["history_tokens"], "answer": rows["answer_tokens"], "both": total}
    at = (50, 95, 99, 100)
    limits = [limit for limit in _LENGTHS if limit < total.max() * 2] or [_LENGTHS[0]]
    over = ", ".join(f"{int((total > limit).sum()):,} over {limit:,}" for limit in limits)
    yield Finding(
        NOTE,
        f"Samples have {np.median(total):.0f} tokens in the middle and {total.max():,} at most",
        f"Of {rows_of(len(rows))}: {over}.",
        table=Table(
            ("tokens", "median", "95%", "99%", "longest"),
            [
                (name, *(f"{np.percentile(values, percentile, method='higher'):.0f}" for percentile in at))
                for name, values in columns.items()
            ],
        ),
    )


def truncation(max_length: int) -> Callable[[Survey], Iterator[Finding]]:
    """What would be cut at a length.

    Args:
        max_length: Tokens that a sample may have.

    Returns:
        The check.
    """

    def run(survey: Survey) -> Iterator[Finding]:
        rows = survey.rows
        bare = rows["prompt_tokens"] + rows["answer_tokens"]
        cut = np.flatnonzero((bare + rows["history_tokens"] > max_length) & (bare <= max_length))
        yield from about(
            survey,
            cut,
            f"{count_of(len(cut), 'dialogue')} would lose turns at {max_length:,} tokens",
            "The oldest turns are cut. Split the dialogues, or allow more tokens.",
        )
        too_long = np.flatnonzero(bare > max_length)
        yield from about(
            survey,
            too_long,
            f"{rows_of(len(too_long))} {'has' if len(too_long) == 1 else 'have'} more than {max_length:,} tokens"
            " even without history",
            "Neither picture, question nor answer is ever cut in silence. Shorten the texts, or allow more tokens.",
        )

    return run
