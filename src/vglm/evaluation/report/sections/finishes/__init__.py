"""How the answers of each arm end: by the model, at the limit, in an error, empty, or naming no class."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from vglm.evaluation.predictions import CUT, ENDED, Prediction, read_seconds
from vglm.evaluation.report.formatting import NONE, arm, section_texts, split_title
from vglm.evaluation.report.section import Cell, Line, Scored, Table
from vglm.text.messages import Text

say = section_texts(__file__)
ENDS = (ENDED, CUT, "empty", "error", "unknown")
_COSTS = {"tokens": 1, "seconds": 3}
"""What is shown of an answer's cost, and with how many digits."""
Counts = Mapping[str, Mapping[str, Mapping[str, int]]]
"""Split -> arm -> how its answers end -> how many do; also `unparsed` where answers were to name a class."""


def show(scored: Scored) -> Mapping[str, Any] | None:
    """A row for each split and arm; None where no endings were recorded and no answer is missing."""
    counts = scored.once(_counts)
    is_known = any(ends[end] for arms in counts.values() for ends in arms.values() for end in ENDS[:-1])
    return {"ends": _table(counts), "costs": _costs_table(scored)} if is_known else None


def lines(scored: Scored) -> list[Line]:
    """Which arms have empty answers."""
    return [
        Line(
            say("empty_answers", split=split_title(split), arm=arm(label), n=ends["empty"], total=_total(ends)), "worse"
        )
        for split, arms in scored.once(_counts).items()
        for label, ends in arms.items()
        if ends["empty"]
    ]


def record(scored: Scored) -> Mapping[str, Any]:
    """The counts."""
    return {"finishes": scored.once(_counts), "costs": _costs(scored)}


def _costs(scored: Scored) -> dict[str, dict[str, float | None]]:
    """Arm -> mean number of tokens of its answers, and mean seconds; None where not recorded."""
    comparison = scored.comparison
    pairs = [pair for part in comparison.splits.values() for pair in part.all_pairs]
    arms = {
        comparison.baseline: [pair.baseline.tokens for pair in pairs],
        comparison.candidate: [pair.candidate.tokens for pair in pairs],
    }
    counted = {label: [token for token in tokens if token is not None] for label, tokens in arms.items()}
    return {
        label: {"tokens": fmean(tokens) if tokens else None, "seconds": read_seconds(scored.folder, label)}
        for label, tokens in counted.items()
    }


def _costs_table(scored: Scored) -> Table | None:
    """What an answer of each arm costs; None where not recorded."""
    rows: list[list[Cell]] = [
        [arm(label), *(NONE if cost[name] is None else f"{cost[name]:.{digits}f}" for name, digits in _COSTS.items())]
        for label, cost in _costs(scored).items()
        if any(value is not None for value in cost.values())
    ]
    return Table([say("arm"), *(say(f"cost.{name}") for name in _COSTS)], rows) if rows else None


def _counts(scored: Scored) -> Counts:
    comparison = scored.comparison
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for split, part in comparison.splits.items():
        counts[split] = {
            comparison.baseline: _ends([pair.baseline for pair in part.all_pairs]),
            comparison.candidate: _ends([pair.candidate for pair in part.all_pairs]),
        }
    for label, classes in comparison.confusion.items():
        counts[comparison.main][label]["unparsed"] = classes["unparsed"]
    return counts


def _ends(records: Sequence[Prediction]) -> dict[str, int]:
    ends = Counter(map(_end, records))
    return {end: ends[end] for end in ENDS}


def _end(record: Prediction) -> str:
    if record.error is not None:
        return "error"
    if not record.prediction.strip():
        return "empty"
    return record.finish if record.finish in (ENDED, CUT) else "unknown"


def _total(ends: Mapping[str, int]) -> int:
    return sum(ends[end] for end in ENDS)


def _table(counts: Counts) -> Table:
    rows = [(split, label, ends) for split, arms in counts.items() for label, ends in arms.items()]
    columns = [*ENDS, "unparsed"] if any("unparsed" in ends for *_, ends in rows) else list(ENDS)
    return Table(
        [say("arm"), Text.of("n"), *(say(f"end.{name}") for name in columns)],
        [
            [
                say("beside", what=split_title(split), of=arm(label)),
                f"{_total(ends):,}",
                *(f"{ends[name]:,}" if name in ends else NONE for name in columns),
            ]
            for split, label, ends in rows
        ],
    )
