"""The methods section: what the records of evaluations and their runs say, fact by fact.

A fact is a function of one source. It returns sentences; none where the record should say it and does not; `None` where
it does not apply. A sentence that holds for all sources appears once; any other names the sources that it holds for.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vglm.evaluation.messages import Message, Sentence, translate
from vglm.evaluation.paper.tables import method_notes, stamp_notes
from vglm.evaluation.predict.provenance import code_state
from vglm.evaluation.report import formatting as fmt
from vglm.evaluation.report.formatting import section_texts
from vglm.evaluation.report.section import Scored
from vglm.runs import DataPlan, HeldOut, Run
from vglm.text.messages import Text, join

say = section_texts(__file__)

_RECORDED = {
    "as the data says": "by_data",
    "not at all: train and test are the same": "undivided",
    "by group": "by_group",
    "as the file says": "by_file",
    "each picture": "by_picture",
    "inferred from the pictures' names: the part before _": "by_names",
}
"""Values of a run's `DataPlan` -> keys of the messages."""
Fact = Callable[["Source"], "list[Text] | None"]


@dataclass(frozen=True)
class Source:
    """An evaluation with the run that it is of.

    Attributes:
        method: What the run is called beside others.
        scored: The evaluation.
        run: None for an evaluation that lies in no run folder.
    """

    method: str
    scored: Scored
    run: Run | None

    @property
    def facts(self) -> Mapping[str, Sentence]:
        """What the evaluation notes of its configuration."""
        return self.scored.evaluation.facts

    @property
    def is_tuning(self) -> bool:
        """Whether something was trained."""
        return self.scored.evaluation.purpose == "tuning"

    def setting(self, *names: str) -> object:
        """A value of the run's config; None where it is not there."""
        value: Any = {} if self.run is None else self.run.config
        for name in names:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value


@dataclass(frozen=True)
class Account:
    """What the records say, ready for the methods section and the checklist.

    Attributes:
        sentences: Fact -> its sentences; no key where it does not apply.
    """

    sentences: Mapping[str, Sequence[Text]]

    @classmethod
    def of(cls, sources: Sequence[Source]) -> "Account":
        """What several evaluations say together.

        Args:
            sources: At least one.
        """
        return cls(
            {key: sentences for key, fact in FACTS.items() if (sentences := _together(key, fact, sources)) is not None}
        )

    def missing(self, keys: Sequence[str]) -> list[Text]:
        """What the records should say of some facts, and do not."""
        return [say(f"missing.{key}") for key in keys if key in self.sentences and not self.sentences[key]]

    def sections(self) -> Sequence[tuple[Text, Text, Sequence[Text]]]:
        """(title, sentences, list below them) of each part of the methods section."""
        parts = []
        for part, keys in PARTS.items():
            sentences = [sentence for key in keys if key not in LISTS for sentence in self.sentences.get(key, ())]
            if missing := self.missing(keys):
                sentences.append(say("missing_are", what=join(missing, ";")))
            items = [item for key in keys if key in LISTS for item in self.sentences.get(key, ())]
            if sentences or items:
                parts.append((say(f"part.{part}"), in_a_row(sentences), items))
        return parts


def in_a_row(sentences: Sequence[Text]) -> Text:
    """Sentences behind each other."""
    return Text(" ".join(sentence.en for sentence in sentences), "".join(sentence.zh for sentence in sentences))


def _together(key: str, fact: Fact, sources: Sequence[Source]) -> Sequence[Text] | None:
    if len(sources) > 1 and key in OF_ONE:
        return None
    if key == "seed" and len(sources) > 1:
        return _seeds(sources)
    statements = [fact(source) for source in sources]
    if all(statement is None for statement in statements):
        return None
    holders: dict[Text, list[Source]] = {}
    for source, sentences in zip(sources, statements, strict=True):
        for sentence in sentences or ():
            holders.setdefault(sentence, []).append(source)
    return [
        sentence if len(whose) == len(sources) else say("holds_for", whose=_names(whose, sources), what=sentence)
        for sentence, whose in holders.items()
    ]


def _seeds(sources: Sequence[Source]) -> list[Text]:
    seeds: dict[str, list[Text]] = {}
    for source in sources:
        seeds.setdefault(source.method, []).extend(() if source.run is None else [Text.of(source.run.record.seed)])
    of_methods = join((say("method_seeds", method=method, seeds=join(seed)) for method, seed in seeds.items()), ";")
    return [say("seeds", what=of_methods)]


def _names(whose: Sequence[Source], sources: Sequence[Source]) -> Text:
    """Methods by their names; one of which it holds for some seeds alone with these."""
    names = []
    for method in dict.fromkeys(source.method for source in whose):
        some = [source for source in whose if source.method == method]
        if len(some) == sum(source.method == method for source in sources):
            names.append(Text.of(method))
        else:
            seeds = join(Text.of(source.run.record.seed) for source in some if source.run is not None)
            names.append(say("method_seeds", method=method, seeds=seeds))
    return join(names)


# --- facts ------------------------------------------------------------------------------------------------------------


def _noted(key: str, fact: str, *, of_tuning: bool = False) -> Fact:
    """A fact that the evaluation itself notes, in a sentence."""

    def sentences(source: Source) -> list[Text] | None:
        if of_tuning and not source.is_tuning:
            return None
        return [say(key, what=translate(source.facts[fact]))] if fact in source.facts else []

    return sentences


def _base(source: Source) -> list[Text] | None:
    name = source.facts.get("base model", source.facts.get("model"))
    return [] if name is None else [say("base", model=translate(name))]


def _base_weights(source: Source) -> list[Text] | None:
    digest = source.facts.get("base weights", source.facts.get("weights"))
    return [] if digest is None else [say("base_weights", hash=translate(digest))]


def _checkpoint(source: Source) -> list[Text] | None:
    return [say("checkpoint", what=translate(source.facts["checkpoint"]))] if "checkpoint" in source.facts else None


def _data(source: Source) -> list[Text] | None:
    name = source.facts.get("training data", source.facts.get("data"))
    return [] if name is None else [say("data" if source.is_tuning else "data_asked", what=translate(name))]


def _validation(source: Source) -> list[Text] | None:
    if not source.is_tuning:
        return None
    count = None if source.run is None else source.run.record.data.validation
    return [] if count is None else [say("validation", n=count)]


def _eval_samples(source: Source) -> list[Text] | None:
    evaluation, splits = source.scored.evaluation, source.scored.comparison.splits
    sentences = []
    for name, part in splits.items():
        digest = evaluation.data.get(name)
        key = "asked" if digest is None else "asked_hashed"
        groups = len({pair.candidate.group for pair in part.pairs})
        sentences.append(say(key, split=fmt.split_title(name), n=part.n, groups=groups, hash=(digest or "")[:16]))
    return sentences


def _divided(source: Source) -> list[Text] | None:
    if not source.is_tuning:
        return None
    plan = DataPlan() if source.run is None else source.run.record.data.plan
    seed = plan.seed
    if plan.task is not None:  # of a mixture, the part that is tested on
        plan = plan.datasets.get(plan.task, DataPlan())
        seed = plan.seed
    if plan.divided is None:
        return []
    how = _recorded(plan.divided)
    if plan.protocol is not None and plan.protocol.fold is not None:
        how = say("recorded.fold", fold=plan.protocol.fold, folds=plan.protocol.folds)
    sentences = [say("divided", how=how) if seed is None else say("divided_seed", how=how, seed=seed)]
    sentences += [] if plan.group is None else [say("group", how=_recorded(plan.group))]
    return sentences + ([] if plan.validation is None else [_held_out(plan.validation)])


def _recorded(value: str) -> Text:
    """A value of the plan in both languages; what names a field, a pattern or ids stands as it is recorded."""
    key = _RECORDED.get(value)
    return Text.of(value) if key is None else say(f"recorded.{key}")


def _held_out(plan: HeldOut | str) -> Text:
    if isinstance(plan, str):  # of an older run
        return say("held_out_recorded", how=plan)
    return say("held_out", n=plan.samples, of=plan.of, seed=plan.seed)


def _leakage(source: Source) -> list[Text] | None:
    if not source.is_tuning:
        return None
    if source.run is None:
        return []
    leaks = len(source.run.record.data.leakage)
    return [say("leakage", n=leaks) if leaks else say("no_leakage")]


def _training(source: Source) -> list[Text] | None:
    if not source.is_tuning:
        return None
    noted = source.facts.get("training")
    if not isinstance(noted, Message) or not {"steps", "batch", "rate"} <= noted.values.keys():
        return [] if noted is None else [say("training_noted", what=translate(noted))]
    return [say("training", **{name: noted.values[name] for name in ("steps", "batch", "rate")})]


def _seed(source: Source) -> list[Text] | None:
    if not source.is_tuning:
        return None
    noted = source.facts.get("training")
    seed = noted.values.get("seed") if isinstance(noted, Message) else None
    seed = seed if source.run is None else source.run.record.seed
    return [] if seed is None else [say("seed", seed=seed)]


def _setting(key: str, *names: str) -> Fact:
    """A value of the run's config, in a sentence."""

    def sentences(source: Source) -> list[Text] | None:
        if not source.is_tuning:
            return None
        value = source.setting(*names)
        return [] if value is None else [say(key, what=value)]

    return sentences


def _cost(source: Source) -> list[Text] | None:
    if not source.is_tuning:
        return None
    training = None if source.run is None else source.run.record.training
    if training is None:
        return []
    sentences = [say("seconds", s=training.train_runtime - training.scoring_seconds)]
    return sentences + (
        [] if training.peak_memory_bytes is None else [say("memory", mb=training.peak_memory_bytes / 1e6)]
    )


def _decoding(source: Source) -> list[Text] | None:
    settings = dict(source.scored.evaluation.decoding)
    if not settings:
        return []
    greedy = settings.pop("greedy", None)
    sentences = [] if greedy is None else [say("greedy" if greedy else "sampled")]
    if isinstance(config := settings.get("quantization"), Mapping) and (text := _quantization(config)) is not None:
        del settings["quantization"]
        sentences.append(text)
    if not settings:
        return sentences
    return [*sentences, say("decoding", what=join(Text.of(f"{name} {value}") for name, value in settings.items()))]


def _quantization(config: Mapping[str, str]) -> Text | None:
    """What bitsandbytes did to the linear layers, see `precision_of`; None for another library."""
    skipped = ", ".join(re.findall(r"'([^']+)'", config.get("llm_int8_skip_modules", "")))
    beside = say("not_quantised", names=skipped) if skipped else Text.of("")
    if config.get("load_in_8bit") == "True":
        return say("int8", threshold=config.get("llm_int8_threshold", fmt.NONE), beside=beside)
    if config.get("load_in_4bit") != "True":
        return None
    kind, dtype = (config.get(f"bnb_4bit_{name}", fmt.NONE) for name in ("quant_type", "compute_dtype"))
    twice = config.get("bnb_4bit_use_double_quant") == "True"
    return say("four_bits_twice" if twice else "four_bits", kind=kind, dtype=dtype, beside=beside)


def _cut(source: Source) -> list[Text] | None:
    comparison = source.scored.comparison
    cut = [sum(part.cut[side] for part in comparison.splits.values()) for side in (0, 1)]
    arms = {"before": fmt.arm(comparison.baseline), "after": fmt.arm(comparison.candidate)}
    return [say("cut", **arms, n=cut[0], m=cut[1])] if any(cut) else None


def _primary(source: Source) -> list[Text] | None:
    comparison = source.scored.comparison
    return [say("primary", metric=fmt.title(comparison.splits[comparison.main].primary_metric))]


def _signatures(source: Source) -> list[Text] | None:
    metrics: dict[str, list[Text]] = {}
    for metric in source.scored.comparison.metrics:
        metrics.setdefault(metric.signature, []).append(fmt.title(metric))
    return [say("signature", metric=join(names), signature=signature) for signature, names in metrics.items()]


def _statistics(source: Source) -> list[Text] | None:
    paired = say("paired" if source.is_tuning else "paired_image_use")
    return [paired, *method_notes(source.scored), say("holm")]


def _baselines(source: Source) -> list[Text] | None:
    names = [fmt.named("baseline", baseline.name) for baseline in source.scored.comparison.baselines]
    return [say("baselines", what=join(names))] if names else None


def _controls(source: Source) -> list[Text] | None:
    meanings = [translate(control.meaning) for control in source.scored.evaluation.controls]
    return [say("controls", what=join(meanings, ";"))] if meanings else None


def _versions(source: Source) -> list[Text] | None:
    sentences = []
    for key, versions in (
        ("trained_with", {} if source.run is None else source.run.record.versions),
        ("evaluated_with", source.scored.evaluation.versions),
    ):
        if names := [Text.of(f"{name} {version}") for name, version in versions.items() if version]:
            sentences.append(say(key, what=join(names)))
    return sentences


def _code(source: Source) -> list[Text] | None:
    noted, now = source.facts.get("code"), code_state()
    if noted is None:
        return []
    again = [] if str(noted) == str(now) else [say("scored_by", what=translate(now))]
    return [say("code", what=translate(noted)), *again]


def _sealed(source: Source) -> list[Text] | None:
    evaluation = source.scored.evaluation
    if evaluation.is_changed:
        return [say("answers_changed")]
    return [] if evaluation.sealed is None else [say("sealed", hash=evaluation.sealed[:16])]


def _stamps(source: Source) -> list[Text] | None:
    return stamp_notes(source.scored) or None


FACTS: dict[str, Fact] = {
    "base": _base,
    "base_weights": _base_weights,
    "method": _noted("method", "method", of_tuning=True),
    "checkpoint": _checkpoint,
    "data": _data,
    "validation": _validation,
    "asked": _eval_samples,
    "divided": _divided,
    "leakage": _leakage,
    "training": _training,
    "schedule": _setting("schedule", "trainer", "lr_scheduler_type"),
    "optimizer": _setting("optimizer", "trainer", "optim"),
    "precision": _setting("precision", "model", "dtype"),
    "seed": _seed,
    "cost": _cost,
    "decoding": _decoding,
    "cut": _cut,
    "primary": _primary,
    "signatures": _signatures,
    "statistics": _statistics,
    "controls": _controls,
    "baselines": _baselines,
    "versions": _versions,
    "code": _code,
    "config": _noted("config", "config"),
    "tuned_weights": _noted("tuned_weights", "tuned weights", of_tuning=True),
    "sealed": _sealed,
    "stamps": _stamps,
}
"""All facts, by name."""
LISTS = ("signatures", "stamps")
"""Facts that stand in a list."""
OF_ONE = ("cost", "cut", "statistics", "config", "tuned_weights", "sealed")
"""Facts of a single run; of several a table says it, or each one's own files."""
PARTS = {
    "model": ("base", "base_weights", "method", "checkpoint"),
    "data": ("data", "validation", "asked", "divided", "leakage"),
    "training": ("training", "schedule", "optimizer", "precision", "seed", "cost"),
    "decoding": ("decoding", "cut"),
    "metrics": ("primary", "signatures"),
    "statistics": ("statistics", "controls", "baselines"),
    "software": ("versions", "code", "config", "tuned_weights", "sealed"),
    "warnings": ("stamps",),
}
"""Part of the section -> its facts, in order."""
