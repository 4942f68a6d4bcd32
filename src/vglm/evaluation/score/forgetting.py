"""Watch a training: what it gains on its domain and what it loses of everything else, checkpoint by checkpoint.

    scoring = CheckpointScoring(forgetting_budget=5)             `training:` of a config
    splits = scoring.divide(splits)                              with a validation split, where one is chosen by
    asked = scoring.select(splits)                               what is asked at each checkpoint
    trainer = WorkbenchTrainer(..., scores=scoring.watch(asked, collate, arguments))

The domain's samples are those of the validation split; never the test's, by which nothing may be chosen. Without a
validation split and without a budget they are training samples, and are called so: such a curve shows what was
memorised. The probe is the data's own, or a general one.

An evaluation keeps both curves in `curves.json`, see `read_curves`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from vglm.data.collator import Collator
from vglm.data.loading import Splits
from vglm.data.sample import Sample
from vglm.data.splits import Outline, find_strata, fingerprint, shot_order
from vglm.data.table import SampleTable, Selection
from vglm.errors import ConfigError
from vglm.evaluation.messages import Message, Sentence
from vglm.evaluation.predict.generation import generate_predictions
from vglm.evaluation.predictions import Stamp
from vglm.evaluation.score.metrics import ALL_METRICS
from vglm.runs import SCORES_FILE, ForgettingRecord, Run
from vglm.tuning.checkpoint_scores import CheckpointScores

SAMPLES_TO_WATCH, SAMPLES_TO_CHOOSE_BY = 64, 400
"""At most so many of each kind are asked: enough for a curve; enough to tell checkpoints apart by a few points."""
_SPARE_TOKENS = 4
_SEED = 1


@dataclass(frozen=True)
class Asked:
    """What a model is asked at each checkpoint.

    Attributes:
        domain: Of what it learns.
        domain_split: Where those come from, `validation` or `train`.
        probe: Of everything else; empty where there is no probe.
        probe_source: Where those come from, for people.
        probe_sha256: `fingerprint` of the whole probe, to tell whether a report uses the same.
    """

    domain: Sequence[Sample]
    domain_split: str
    probe: Sequence[Sample]
    probe_source: str
    probe_sha256: str | None

    def __iter__(self) -> Iterator[Sample]:
        return iter((*self.domain, *self.probe))


@dataclass(frozen=True)
class CheckpointScoring:
    """Whether and how a run's checkpoints are scored, and which of them it ends with.

    Attributes:
        score_checkpoints: Whether to score at all.
        score_samples: At most so many of the domain's samples, and of the probe's; the same ones at each checkpoint.
            None takes `SAMPLES_TO_WATCH`, or `SAMPLES_TO_CHOOSE_BY` where a budget decides by them.
        forgetting_budget: How many points (hundredths) of `metric` may be lost on the probe. The checkpoint with the
            best domain score within it is what the run saves. None saves the last state.
        patience: Stop training once so many checkpoints in a row have lost more; None never does.
        metric: A score of single answers, such as `exact_match` or `rouge_l_characters`.
        validation_share: Of the training samples, to be held out where the data has no validation split and a budget
            needs one.
        probe: Gives a probe for data that has none: the probe of the splits it returns, or their test split.
    """

    score_checkpoints: bool = True
    score_samples: int | None = None
    forgetting_budget: float | None = None
    patience: int | None = 2
    metric: str = "exact_match"
    validation_share: float = 0.2
    probe: Callable[[], Splits] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ConfigError: With the reason.
        """
        single = [name for name, each in ALL_METRICS.items() if each.function and each.is_share]
        if self.metric not in single:
            raise ConfigError(f"metric must be one that scores single answers ({', '.join(single)}), got {self.metric}")
        for name, least in (("score_samples", 1), ("patience", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} must be at least {least}, or null, got {value}")
        if self.forgetting_budget is not None and not 0 <= self.forgetting_budget <= 100:
            raise ConfigError(f"forgetting_budget must be 0 to 100 points, or null, got {self.forgetting_budget}")
        if not 0 < self.validation_share < 1:
            raise ConfigError(f"validation_share must be between 0 and 1, got {self.validation_share}")
        if self.forgetting_budget is not None and not self.score_checkpoints:
            raise ConfigError("forgetting_budget chooses by the scores of checkpoints: score_checkpoints must be true")

    def divide(self, splits: Splits) -> Splits:
        """The data with a validation split where a checkpoint is to be chosen by one, see `hold_out_validation`."""
        if self.forgetting_budget is None:
            return splits
        return splits.hold_out_validation(self.validation_share)

    def select(self, splits: Splits) -> Asked:
        """Choose what to ask; the same of the same data, whatever the run's seed.

        Args:
            splits: As `divide` gave them.

        Raises:
            ConfigError: There is a budget and no probe.
        """
        if not self.score_checkpoints:
            return Asked([], "", [], "", None)
        limit = self.score_samples or (SAMPLES_TO_WATCH if self.forgetting_budget is None else SAMPLES_TO_CHOOSE_BY)
        probe, source = splits.probe, "the data's probe"
        if not len(probe) and self.probe is not None:
            general = self.probe()
            probe, source = general.probe or general.test, "the general probe"
        if not len(probe) and self.forgetting_budget is not None:
            raise ConfigError(
                "training.forgetting_budget needs a probe, and the data has none. Name one: dataset.probe=<file>, or"
                " dataset@training.probe=general_probe."
            )
        domain_split = "validation" if len(splits.validation) else "train"
        return Asked(
            domain=pick(getattr(splits, domain_split), limit),
            domain_split=domain_split,
            probe=pick(probe, limit),
            probe_source=source if len(probe) else "none",
            probe_sha256=fingerprint(probe) if len(probe) else None,
        )

    def watch(self, asked: Asked, collate: Collator, arguments: TrainingArguments) -> CheckpointScores | None:
        """What the trainer needs to score its checkpoints; None where nothing is scored.

        Args:
            asked: As chosen by `select`.
            collate: Of the training: its processor, and its features of pictures if there are any.
            arguments: The trainer's: where the run folder is, and how many samples are asked at a time
                (`per_device_eval_batch_size`).
        """
        if not self.score_checkpoints:
            return None
        about = {
            "metric": self.metric,
            "domain_split": asked.domain_split,
            "probe": asked.probe_source,
            "probe_sha256": asked.probe_sha256,
        }

        def score(model: Any) -> dict[str, Any]:
            parts = {"domain": asked.domain, "probe": asked.probe}
            batch_size = arguments.per_device_eval_batch_size
            scores = {name: self._score(model, samples, collate, batch_size) for name, samples in parts.items()}
            return {**scores, **{f"{name}_n": len(samples) for name, samples in parts.items()}}

        path = Path(str(arguments.output_dir)) / SCORES_FILE
        return CheckpointScores(path, score, self.forgetting_budget, self.patience, about)

    def _score(self, model: Any, samples: Sequence[Sample], collate: Collator, batch_size: int) -> float | None:
        """Greedy answers, cut a little behind the longest reference: nothing right is longer."""
        if not samples:
            return None
        processor: Any = collate.processor
        features: Any = collate.features
        longest = max(len(processor.tokenizer(sample.answer)["input_ids"]) for sample in samples)
        records = generate_predictions(
            model,
            processor,
            samples,
            split="scored",
            title="scoring the checkpoint",
            batch_size=batch_size,
            max_new_tokens=longest + _SPARE_TOKENS,
            feature_cache=False if features is None else features,
        )
        return ALL_METRICS[self.metric].score(records)


def pick(samples: Sequence[Sample], limit: int) -> list[Sample]:
    """At most so many samples, in order: kinds and answers take turns, so that each is among them.

    Args:
        samples: Of a split. From samples that are made or mixed on demand every n-th is taken.
        limit: How many.
    """
    if len(samples) <= limit:
        return list(samples)
    if not isinstance(samples, list | SampleTable | Selection):
        return [samples[number * len(samples) // limit] for number in range(limit)]
    outline = Outline.of(samples, "kind")
    kinds = find_strata(outline, "kind")[0] if any(outline.fields["kind"]) else find_strata(outline)[0]
    return [samples[row] for row in sorted(shot_order(outline.ids, strata=kinds, seed=_SEED)[:limit])]


# --- for the report ---------------------------------------------------------------------------------------------------


def read_curves(run_folder: Path) -> dict[str, Any]:
    """The curves of a run, as an evaluation folder keeps them in `curves.json`.

    Args:
        run_folder: A finished run. One without `forgetting.jsonl` has a learning curve only.

    Returns:
        `learning`: a dictionary for each logged step, with `step`, `loss` and `learning_rate`. `forgetting`: one for
        each scored checkpoint, see `CheckpointScore`. `metric`, `domain_split`, `budget_points`, `chosen_step` and
        `stopped_early` say what was scored and chosen.

    Raises:
        AdapterError: `run.json` is damaged.
        CheckpointError: Another file is.
    """
    run = Run(run_folder)
    facts = run.record.forgetting or ForgettingRecord()
    learning = []
    for line in run.log:
        if line.loss is not None:
            rate = {} if line.learning_rate is None else {"learning_rate": line.learning_rate}
            learning.append({"step": line.step, "loss": line.loss, **rate})
    return {
        "learning": learning,
        "forgetting": [asdict(each) for each in run.checkpoint_scores],
        "metric": facts.metric,
        "domain_split": facts.domain_split,
        "budget_points": facts.budget_points,
        "chosen_step": facts.chosen_step,
        "stopped_early": facts.stopped_early,
    }


def describe_choice(
    facts: ForgettingRecord | None, samples: Mapping[str, Sequence[Sample]]
) -> tuple[dict[str, Sentence], tuple[Stamp, ...]]:
    """What a report must say of a checkpoint that was chosen.

    Args:
        facts: What the run's record says of it.
        samples: Split name -> what the report evaluates on.

    Returns:
        Facts, and a stamp where no checkpoint that kept to the budget has learned. Nothing where none was chosen.
    """
    if facts is None or facts.chosen_step is None:
        return {}, ()
    probe = samples.get("probe", ())
    reused = len(probe) > 0 and fingerprint(probe) == facts.probe_sha256
    full = reason = _reason(facts)
    if facts.warning is not None:
        full = Message("checkpoint.warned", {"warning": Message(f"stamp.{facts.warning}"), "reason": reason})
    about = {"metric": facts.metric, "split": facts.domain_split, "probe": Message(f"probe.{facts.probe}")}
    chosen = Message("checkpoint.scored", {"reason": full, **about})
    if reused:
        chosen = Message("checkpoint.reused", {"what": chosen})
    if facts.stopped_early:
        chosen = Message("checkpoint.stopped", {"what": chosen})
    stamps = () if facts.warning is None else (Stamp(text=facts.warning, detail=reason),)
    return {"checkpoint": chosen}, stamps


def _reason(facts: ForgettingRecord) -> Sentence:
    """Why that checkpoint was chosen, without the warning; of older runs the sentence in their record."""
    if facts.choice is None:
        return facts.reason.removeprefix(f"{facts.warning}: ")
    kinds = {None: "kept", "FORGETTING BUDGET EXCEEDED": "over"}
    at = Message("checkpoint.at", facts.choice)
    kind = kinds.get(facts.warning, "nothing")
    return Message(f"checkpoint.{kind}", {"at": at, "budget": facts.choice["budget_points"]})
