"""How often each answer occurs."""

from collections.abc import Iterator

import pandas as pd

from vglm.data.doctor.checks.common import (
    NOTE,
    WARNING,
    about,
    count_classes,
    example,
    in_split,
    rows_of,
    short,
)
from vglm.data.doctor.finding import SAY, Finding, Table
from vglm.data.doctor.survey import Survey
from vglm.text.messages import Text

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
        overview.append((kind or SAY("classes.none"), f"{len(rows):,}", f"{len(counts):,}", largest))
        details += _classes_of(survey, rows, counts, kind)
    if len(overview) > 1:
        yield Finding(
            NOTE,
            SAY.counted("classes.kinds", len(overview)),
            table=Table(tuple(SAY(f"classes.{column}") for column in ("kind", "rows", "answers", "most")), overview),
        )
    yield from (finding for finding in details if finding.severity is WARNING or len(overview) == 1)


def _classes_of(survey: Survey, rows: pd.DataFrame, counts: pd.DataFrame, kind: str) -> Iterator[Finding]:
    """The classes of some rows."""
    of_kind = SAY("classes.of_kind", kind=kind) if kind else Text.of("")
    if len(rows) < _FEWEST_ROWS:
        return
    largest, smallest = int(counts["rows"].max()), int(counts["rows"].min())
    share = largest / len(rows)
    most = (example(survey, counts["first"].iloc[0]),)
    if len(counts) == 1:
        yield Finding(
            WARNING,
            SAY("classes.same", rows=rows_of(len(rows)), of_kind=of_kind),
            SAY("classes.same_detail"),
            most,
        )
        return
    if len(counts) > min(_CLASSES_AT_MOST, len(rows) / 2):
        yield Finding(
            NOTE,
            SAY("classes.free", n=len(counts), rows=rows_of(len(rows)), of_kind=of_kind),
            None if largest == 1 else SAY("classes.free_detail", n=largest),
        )
        if share >= _CONSTANT_SHARE:
            yield Finding(
                WARNING,
                SAY("classes.constant", share=share, of_kind=of_kind),
                SAY("classes.constant_detail"),
                most,
            )
        return
    is_unbalanced = largest >= _IMBALANCE * smallest and largest > _IMBALANCE
    sizes = SAY("classes.each" if smallest == largest else "classes.range", n=largest, least=smallest, most=largest)
    shown = [(survey.sample(row.first).answer, row.rows) for row in counts[:10].itertuples()]
    detail = SAY("classes.detail", share=share)
    yield Finding(
        WARNING if is_unbalanced else NOTE,
        SAY("classes.title", n=len(counts), sizes=sizes, of_kind=of_kind),
        SAY("classes.unbalanced", detail=detail) if is_unbalanced else detail,
        table=Table(
            tuple(SAY(f"classes.{column}") for column in ("answer", "rows", "share")),
            [(short(answer, 60), f"{count:,}", f"{count / len(rows):.1%}") for answer, count in shown],
        ),
    )
    seen = rows.loc[in_split(survey, "train")[rows.index], "answer"]
    for split in ("validation", "test"):
        tested = rows.loc[in_split(survey, split)[rows.index], "answer"]
        unseen = tested[~tested.isin(seen)]
        if len(seen) and len(unseen):
            yield from about(
                survey, unseen.index, "classes.untrained", count=unseen.nunique(), split=split, of_kind=of_kind
            )
