"""What reports say of each finding, both arms side by side, in CheXpert's order."""

from collections.abc import Mapping
from typing import Any

from vglm.evaluation.report.formatting import arm, section_texts, split_title
from vglm.evaluation.report.section import Line, Scored
from vglm.text.messages import Text, join

say = section_texts(__file__)
Counts = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Arm -> finding -> its counts and scores, as in `metrics.json`."""


def show(scored: Scored) -> Mapping[str, Any] | None:
    """Split -> its counts; None where no such metric was requested."""
    tables = _tables(scored)
    if not tables:
        return None
    return {
        "tables": {split: _present(arms, scored.comparison.candidate) for split, arms in tables.items()},
        "sizes": {split: scored.comparison.splits[split].n for split in tables},
        "absent": {split: _absent(arms) for split, arms in tables.items()},
        "own_lines": lines(scored),
        "finding_title": _title,
    }


def lines(scored: Scored) -> list[Line]:
    """Which findings of its references the candidate's reports never name, by split."""
    return [
        Line(say("never_named", arm=arm(scored.comparison.candidate), split=split_title(split), names=missed), "worse")
        for split, arms in _tables(scored).items()
        if (missed := _missed(arms[scored.comparison.candidate])) is not None
    ]


def record(scored: Scored) -> Mapping[str, Any]:
    """The sentences; the counts are in the splits."""
    return {"never_named": [line.text._asdict() for line in lines(scored)]}


def _tables(scored: Scored) -> dict[str, Counts]:
    splits = scored.comparison.as_dict()["splits"]
    return {split: part["findings"] for split, part in splits.items() if part["findings"]}


def _title(name: str) -> Text:
    return say.name("class", name)


def _is_present(name: str, arms: Counts) -> bool:
    return any(counts[name]["n"] + counts[name]["named"] for counts in arms.values())


def _present(arms: Counts, candidate: str) -> list[tuple[str, int, list[Mapping[str, Any]]]]:
    """(finding, n, both arms' facts) of what is in references or answers."""
    return [
        (name, facts["n"], [counts[name] for counts in arms.values()])
        for name, facts in arms[candidate].items()
        if _is_present(name, arms)
    ]


def _absent(arms: Counts) -> Text | None:
    """The findings that neither references nor answers of a split have; None where there are none."""
    names = [_title(name) for name in next(iter(arms.values())) if not _is_present(name, arms)]
    return join(names) if names else None


def _missed(facts: Mapping[str, Mapping[str, Any]]) -> Text | None:
    missed = {name: fact["n"] for name, fact in facts.items() if fact["n"] and not fact["named"]}
    names = [say("with_n", title=_title(name), n=n) for name, n in missed.items()]
    return join(names) if names else None
