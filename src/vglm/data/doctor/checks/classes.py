"""How often each answer occurs."""

from collections.abc import Iterator

import pandas as pd

from vglm.data.doctor.checks.common import (
    NOTE,
    WARNING,
    count_classes,
    count_of,
    example,
    examples,
    in_split,
    rows_of,
    short,
)
from vglm.data.doctor.finding import Finding, Table
from vglm.data.doctor.survey import Survey

_CLASSES_AT_MOST = 50
_FEWEST_ROWS = 10  # with fewer, classes cannot be judged
_IMBALANCE = 10
_CONSTANT_SHARE = 0.3


def classes(survey: Survey) -> Iterator[Finding]:
    """How often each answer occurs, for each sort of question."""
    overview = []
    details: list[Finding] = []
    for code, kind in enumerate(survey.kinds):
        rows = survey.table[survey.table["kind"] == code]
        counts = count_classes(rows["answer"])
        most = survey.sample(counts["first"].iloc[0]).answer
        largest = f"{counts['rows'].iloc[0]:,} x {short(most, 24)}"
        overview.append((kind or "none", f"{len(rows):,}", f"{len(counts):,}", largest))
        details += _classes_of(survey, rows, counts, f" of kind {kind}" if kind else "")
    if len(overview) > 1:
        yield Finding(
            NOTE,
            f"{count_of(len(overview), 'kind')} of questions",
            table=Table(("kind", "rows", "answers", "most frequent"), overview),
        )
    yield from (finding for finding in details if finding.severity is WARNING or len(overview) == 1)


def _classes_of(survey: Survey, rows: pd.DataFrame, counts: pd.DataFrame, of_kind: str) -> Iterator[Finding]:
    """The classes of some rows."""
    if len(rows) < _FEWEST_ROWS:
        return
    largest, smallest = int(counts["rows"].max()), int(counts["rows"].min())
    share = largest / len(rows)
    most = (example(survey, counts["first"].iloc[0]),)
    if len(counts) == 1:
        yield Finding(
            WARNING,
            f"All {rows_of(len(rows))}{of_kind} have the same answer",
            "There is nothing to tell apart. Add rows with other answers.",
            most,
        )
        return
    if len(counts) > min(_CLASSES_AT_MOST, len(rows) / 2):
        yield Finding(
            NOTE,
            f"{len(counts):,} different answers in {rows_of(len(rows))}{of_kind}: free text",
            "" if largest == 1 else f"The most frequent one is given {largest:,} times.",
        )
        if share >= _CONSTANT_SHARE:
            yield Finding(
                WARNING,
                f"One answer fits {share:.0%} of the rows{of_kind}",
                "A model that always says it looks good. Report scores on the other rows beside the average.",
                most,
            )
        return
    is_unbalanced = largest >= _IMBALANCE * smallest and largest > _IMBALANCE
    each_has = f"{largest:,} rows each" if smallest == largest else f"{smallest:,} to {largest:,} rows each"
    shown = [(survey.sample(row.first).answer, row.rows) for row in counts[:10].itertuples()]
    advice = " Collect more of the rare ones; report a score that counts classes alike." if is_unbalanced else ""
    yield Finding(
        WARNING if is_unbalanced else NOTE,
        f"{len(counts)} classes{of_kind}: {each_has}",
        f"Always saying the most frequent answer would be right in {share:.1%}.{advice}",
        table=Table(
            ("answer", "rows", "share"),
            [(short(answer, 60), f"{count:,}", f"{count / len(rows):.1%}") for answer, count in shown],
        ),
    )
    seen = rows.loc[in_split(survey, "train")[rows.index], "answer"]
    for split in ("validation", "test"):
        tested = rows.loc[in_split(survey, split)[rows.index], "answer"]
        unseen = tested[~tested.isin(seen)]
        if len(seen) and len(unseen):
            count = unseen.nunique()
            yield Finding(
                WARNING,
                f"{count_of(count, 'class', 'classes')}{of_kind} of {split}"
                f" {'is' if count == 1 else 'are'} never trained",
                "Such answers can only be wrong. Divide the data by class, or leave these rows out.",
                examples(survey, unseen.index),
            )
