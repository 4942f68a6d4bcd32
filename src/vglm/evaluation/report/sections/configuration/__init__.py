"""Provenance, decoding, versions, and the command that repeats the evaluation."""

from collections.abc import Mapping
from typing import Any

from vglm.evaluation.messages import Message, translate
from vglm.evaluation.predict.provenance import code_state
from vglm.evaluation.predictions import Evaluation
from vglm.evaluation.report.formatting import named, section_texts
from vglm.evaluation.report.section import Scored
from vglm.runs import EvaluationEvent
from vglm.text.messages import Text

say = section_texts(__file__)


def show(scored: Scored) -> Mapping[str, Any]:
    """(name, content) of each fact, in order."""
    evaluation = scored.evaluation
    facts = [(named("fact", name), translate(fact)) for name, fact in evaluation.facts.items()]
    facts.append((say("answers"), translate(Message(f"seals.{_seal_state(evaluation)}"))))
    if evaluation.history:
        events = tuple(map(_event, evaluation.history))
        facts.append((say("evaluations"), translate(Message("history.all", {"n": len(events), "events": events}))))
    facts.append((say("decoding"), _listed(evaluation.decoding)))
    for name, scores in scored.comparison.conventions.items():
        facts.append((say("convention", name=name), _listed({key: f"{score:.2f}" for key, score in scores.items()})))
    facts.append((say("versions"), _listed(evaluation.versions)))
    if "code" in evaluation.facts and str(evaluation.facts["code"]) != str(code_state()):
        facts.append((say("scored_by"), translate(code_state())))
    return {"facts": [*facts, (say("evaluated"), Text.of(evaluation.created))]}


def _seal_state(evaluation: Evaluation) -> str:
    if evaluation.is_changed:
        return "broken"
    return "none" if evaluation.sealed is None else "kept"


def _event(event: EvaluationEvent) -> Message:
    key = "history.answered" if event.answered else "history.stored"
    return Message(key, {"time": event.time, "primary": event.primary, "metrics": event.metrics})


def _listed(values: Mapping[str, Any]) -> Text:
    return Text.of(", ".join(f"{name} {value}" for name, value in values.items()))
