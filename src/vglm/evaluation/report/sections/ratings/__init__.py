"""Blinded human ratings of the answers; see `vglm.evaluation.score.rating_files`."""

from collections.abc import Mapping, Sequence
from typing import Any

from vglm.evaluation.predictions import Evaluation
from vglm.evaluation.report.formatting import arm, p_value, section_texts, span
from vglm.evaluation.report.section import Cell, Line, Scored, Table
from vglm.evaluation.report.sections import findings
from vglm.evaluation.score.rating_files import RatingResult, summarise_folder
from vglm.evaluation.score.ratings import RatingSummary
from vglm.text.messages import Text

say = section_texts(__file__)


def show(scored: Scored) -> Mapping[str, Any] | None:
    """Sentences and a table; None where there are no ratings."""
    result = summarise_folder(scored.folder, scored.evaluation)
    if result is None:
        return None
    return {
        "about": say("about", raters=_people(result.summary), contests=result.contests, identical=result.identical),
        "sentences": sentences(result, scored.evaluation),
        "by_rater": tabulate(result),
    }


def lines(scored: Scored) -> Sequence[Line]:
    """The outcome."""
    result = summarise_folder(scored.folder, scored.evaluation)
    return [] if result is None else [Line(_outcome(result.summary, scored.evaluation))]


def record(scored: Scored) -> Mapping[str, Any]:
    """The counts, the test and the agreement."""
    result = summarise_folder(scored.folder, scored.evaluation)
    if result is None:
        return {}
    return {
        "ratings": {
            **result.summary.as_dict(),
            "contests": result.contests,
            "identical": result.identical,
            "groups": result.groups,
            "by_rater": {name: rater.as_dict() for name, rater in result.raters.items()},
            "by_finding": {name: finding.as_dict() for name, finding in result.findings.items()},
        }
    }


def sentences(result: RatingResult, evaluation: Evaluation) -> list[Text]:
    """The outcome, how far the raters agree, and what a reader must know."""
    texts = [_outcome(result.summary, evaluation), _agreement(result.summary)]
    if result.groups < result.summary.samples:
        texts.append(say("grouped_samples", samples=result.summary.samples, groups=result.groups))
    return texts


def tabulate(result: RatingResult) -> Table:
    """One row for all raters together, for each of them, and for each finding that was judged."""
    header = [say("rated"), say("samples"), say("better"), say("equal"), say("worse"), say("p")]
    rows = [_row(say("together"), result.summary)]
    rows += [_row(Text.of(name), rater) for name, rater in result.raters.items()]
    rows += [_row(findings.say.name("class", name), finding) for name, finding in result.findings.items()]
    return Table(header, rows, say("title"), first="split")


def _row(name: Text, summary: RatingSummary) -> list[Cell]:
    counts = (summary.samples, summary.wins, summary.ties, summary.losses)
    return [name, *(f"{count:,}" for count in counts), p_value(summary.p_value)]


def _outcome(summary: RatingSummary, evaluation: Evaluation) -> Text:
    return say(
        "outcome",
        raters=_people(summary),
        samples=summary.samples,
        candidate=arm(evaluation.candidate.label),
        baseline=arm(evaluation.baseline.label),
        wins=summary.wins,
        ties=summary.ties,
        losses=summary.losses,
        p=p_value(summary.p_value).removeprefix("< "),
        sign="<" if p_value(summary.p_value).startswith("<") else "=",
        interval=span(summary.interval),
    )


def _people(summary: RatingSummary) -> Text:
    return say("person" if summary.raters == 1 else "people", n=summary.raters)


def _agreement(summary: RatingSummary) -> Text:
    if summary.alpha_ordinal is None or summary.alpha_nominal is None:
        return say("no_agreement", n=summary.shared_samples)
    return say("agreement", ordinal=summary.alpha_ordinal, nominal=summary.alpha_nominal, n=summary.shared_samples)
