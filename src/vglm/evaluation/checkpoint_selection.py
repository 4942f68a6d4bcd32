"""Score checkpoints on the domain and on the retention set during training, and choose the one to keep.

    selection = CheckpointSelection(forgetting_budget=5)         of a training config
    splits = selection.divide(splits)                            with a validation split, where one is chosen by
    samples = selection.select(splits)                           the samples scored at each checkpoint
    trainer = WorkbenchTrainer(..., scores=selection.watch(samples, collate, arguments))

The domain's samples are those of the validation split, never of the test split, which must not be used for any choice.
Without a validation split and without a budget they are training samples and labelled as such: their curve shows what
was memorised. The retention set is the data's own, or a general one.

`forgetting.jsonl` of a run folder has a line for the model before training (step 0) and for each scored checkpoint:

    {"step": 50, "domain": 0.925, "retention": 0.8148, "domain_n": 40, "retention_n": 162, "domain_exact_match": 0.9}

`domain` is the score on what is being learned, by the primary metric of the run's `metrics`; exact match is given too,
since an answer in other words is not wrong. `retention` is the exact match on general questions, as reports have it.
All are from 0 to 1. Scoring does not influence training: the adapter is the same bit for bit.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.cells import cell_len, set_cell_size
from torch import nn
from tqdm import tqdm
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from vglm.data.collator import Collator
from vglm.data.sample import Sample
from vglm.data.splits import Splits, fingerprint, pick
from vglm.errors import CheckpointError, ConfigError, DataError
from vglm.evaluation.predict.decoding import Decoding
from vglm.evaluation.predict.generation import generate_predictions
from vglm.evaluation.predictions import Prediction, reference_answers, unanswered
from vglm.evaluation.score.metrics import ALL_METRICS, EXACT_MATCH, Metric
from vglm.evaluation.score.settings import MetricSettings
from vglm.files import write_json_lines
from vglm.processes import Processes
from vglm.runs import SCORES_FILE, CheckpointScore, read_scores
from vglm.tuning.methods import untuned
from vglm.tuning.stopping import stopping_at_once
from vglm.tuning.trainer import CheckpointScorer

Score = Callable[[Any], Mapping[str, Any]]
"""A model -> `CheckpointScore` without its step."""
Answer = Callable[[Any, Sequence[Sample]], list[str]]
"""A model and samples -> its answers."""


# --- choosing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Choice:
    """The checkpoint to keep.

    Attributes:
        step: Its step.
        domain: Its score on the domain, 0.0 to 1.0.
        domain_before: That before training.
        lost_points: Hundredths lost on the retention set since before training; negative where it gained.
        budget_points: How many might be lost.
        candidates: Number of checkpoints it was chosen from.
    """

    step: int
    domain: float
    domain_before: float
    lost_points: float
    budget_points: float
    candidates: int

    @property
    def warning(self) -> str | None:
        """What a reader must know before all: that no checkpoint kept to the budget, or none that did has learned."""
        if self.lost_points > self.budget_points:
            return "FORGETTING BUDGET EXCEEDED"
        return None if self.domain > self.domain_before else "NOTHING LEARNED WITHIN THE FORGETTING BUDGET"

    def __str__(self) -> str:
        facts = (
            f"step {self.step} of {self.candidates} checkpoints ({100 * self.domain:.1f} on the domain,"
            f" {100 * self.domain_before:.1f} before; {self.lost_points:.1f} points lost on the retention set)"
        )
        if self.warning is None:
            return f"kept {facts}: the best on the domain within a forgetting budget of {self.budget_points:g} points"
        if self.lost_points > self.budget_points:
            actual = f"no checkpoint lost {self.budget_points:g} points at most; kept the one that lost least"
        else:
            actual = f"no checkpoint that lost {self.budget_points:g} points at most is better than before; kept one"
        return (
            f"{self.warning}: {actual}, {facts}. Save more often (trainer.save_steps), lower trainer.learning_rate, mix"
            " other questions in (dataset=with_replay), or allow more"
        )


def choose(scores: Sequence[CheckpointScore], budget_points: float) -> Choice | None:
    """The checkpoint with the best domain score among those that lost no more than a budget on the retention set.

    Of equal ones that which lost less is taken, then the earlier. Where all lost more, the one that lost least is.

    Args:
        scores: With the retention set's; step 0, what the loss is counted from, among them.
        budget_points: How many hundredths of the retention set's score may be lost.

    Returns:
        The choice; None while there is no checkpoint. Step 0 is none: keeping it would be not to train.
    """
    lost = lost_points(scores)
    candidates = [score for score in scores if score.step > 0]
    if not candidates:
        return None

    def key(score: CheckpointScore) -> tuple[bool, float, float, int]:
        if lost[score.step] <= budget_points:
            return True, score.domain, -lost[score.step], -score.step
        return False, -lost[score.step], score.domain, -score.step

    best = max(candidates, key=key)
    before = next(score.domain for score in scores if score.step == 0)
    return Choice(best.step, best.domain, before, lost[best.step], budget_points, len(candidates))


def is_lost(scores: Sequence[CheckpointScore], budget_points: float, patience: int | None) -> bool:
    """Whether the last `patience` checkpoints all lost more than the budget, so that further training is useless.

    Args:
        scores: As for `choose`, in order.
        budget_points: Likewise.
        patience: None never stops.
    """
    lost = lost_points(scores)
    last = [lost[score.step] > budget_points for score in scores if score.step > 0]
    return patience is not None and len(last) >= patience and all(last[-patience:])


def lost_points(scores: Sequence[CheckpointScore]) -> dict[int, float]:
    """Step -> hundredths of the retention set's score lost since step 0, to a millionth; empty without one."""
    before = next((score.retention for score in scores if score.step == 0), None)
    return {
        score.step: round(100 * (before - score.retention), 6)
        for score in scores
        if before is not None and score.retention is not None
    }


def write_scores(path: Path, scores: Sequence[CheckpointScore]) -> None:
    """Write `forgetting.jsonl`, whole or not at all."""
    write_json_lines(path, map(asdict, scores))


# --- scores of checkpoints --------------------------------------------------------------------------------------------


class CheckpointScores(CheckpointScorer):
    """Scores checkpoints as they are saved, and remembers which of them is to be kept.

    A run that is resumed drops the lines behind its checkpoint, as the log does, and scores the checkpoint itself if a
    kill came between the two. On several processes all of them score and the main one's figures count. transformers'
    EarlyStoppingCallback compares one number with its best so far, after an evaluation that comes before the save; here
    two numbers count, one of them against the model before training, and patience counts what is beyond the budget.

    Args:
        path: The file of scores.
        score: Scores the model.
        budget_points: Hundredths that may be lost on the retention set: choose by them. None keeps the last state.
        patience: Stop after this many checkpoints in a row that lost more; None never does.
        about: What was scored, for run.json.
        examples: Test samples to show the answers to before and after training; nothing is chosen by them.
        answer: Answers them.
    """

    def __init__(
        self,
        path: Path,
        score: Score,
        budget_points: float | None = None,
        patience: int | None = None,
        about: Mapping[str, Any] | None = None,
        examples: Sequence[Sample] = (),
        answer: Answer | None = None,
    ) -> None:
        self.path = path
        self.score = score
        self.budget_points = budget_points
        self.patience = patience
        self.about = dict(about or {})
        self._examples, self._answer = examples, answer
        self._answers_before: list[str] | None = None
        self.scores: list[CheckpointScore] = []
        self.seconds = 0.0
        """How long scoring took in this process."""
        self.is_stopped = False
        """Whether training was stopped because too much was forgotten."""

    @property
    def choice(self) -> Choice | None:
        """The checkpoint to keep; None without a budget."""
        return None if self.budget_points is None else choose(self.scores, self.budget_points)

    def as_dict(self) -> dict[str, Any]:
        """For run.json: what was scored, and what was chosen and why."""
        facts = {**self.about, "budget_points": self.budget_points, "chosen_step": None, "stopped_early": False}
        if (choice := self.choice) is not None:
            facts |= {
                "chosen_step": choice.step,
                "lost_points": choice.lost_points,
                "warning": choice.warning,
                "reason": str(choice),
                "choice": asdict(choice),
                "stopped_early": self.is_stopped,
            }
        return facts

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Score the model before training, or continue the scores of a resumed run.

        Raises:
            CheckpointError: The scores of a resumed run are lost.
        """
        stored = read_scores(self.path) if state.global_step > 0 else []
        self.scores = [score for score in stored if score.step <= state.global_step]
        if state.global_step > 0 and (not self.scores or self.scores[0].step > 0):
            raise CheckpointError(
                f"{self.path} has no score of the model before training, so forgetting is unknown. Restore"
                " the file, or start a new run."
            )
        if not self.scores or (self.scores[-1].step < state.global_step and _is_due(args, state)):
            self._score(model, state)
        elif state.is_world_process_zero:
            write_scores(self.path, self.scores)
        self._decide(args, state, control)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Score the checkpoint that was just saved, except where training was asked to terminate between two."""
        if not self.is_stopped and _is_due(args, state):
            self._score(model, state)
            self._decide(args, state, control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Score the last state where no checkpoint is saved of it."""
        if not self.is_stopped and self.scores[-1].step < state.global_step >= state.max_steps:
            self._score(model, state)

    def _score(self, model: Any, state: TrainerState) -> None:
        started = time.perf_counter()
        with ExitStack() as stack:
            stack.enter_context(stopping_at_once())  # nothing is lost: a resumed run does it again
            stack.enter_context(preserving_state(model))
            if state.global_step == 0:
                stack.enter_context(untuned(model))
                if self._answer is not None:
                    self._answers_before = self._answer(model, self._examples)
            values = Processes().broadcast(dict(self.score(model)))
        self.scores.append(CheckpointScore(step=state.global_step, **values))
        if state.is_world_process_zero:
            write_scores(self.path, self.scores)
            tqdm.write(f"step {state.global_step}: {self._in_words(self.scores[-1])}")
        self.seconds += time.perf_counter() - started

    def _in_words(self, score: CheckpointScore) -> str:
        """A line for the terminal."""
        metric, split = str(self.about.get("metric", "score")).replace("_", " "), self.about.get("domain_split")
        words = f"{metric} {100 * score.domain:.1f} on {score.domain_n} {split} samples"
        if score.retention is None:
            return words
        return f"{words}, {100 * score.retention:.1f} on {score.retention_n} general questions"

    def examples(self, model: nn.Module) -> str | None:
        """The examples with the answers before training, where this process gave them, and now."""
        if self._answer is None or not self._examples:
            return None
        with preserving_state(model):
            after = self._answer(model, self._examples)
        before: Sequence[str | None] = self._answers_before or [None] * len(after)
        lines = ["test samples, before and after (the report has all: evaluate.py):"]
        for sample, old, new in zip(self._examples, before, after, strict=True):
            lines.append(_fit(f"  {sample.id}: {sample.question}"))
            lines += [] if old is None else [_fit(f"    before     {old}")]
            lines += [_fit(f"    after      {new}"), _fit(f"    reference  {sample.answer}")]
        return "\n".join(lines)

    def _decide(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        """Keep the chosen checkpoint from being rotated away, and stop where training on is of no use."""
        if self.budget_points is None:
            return
        if (choice := self.choice) is not None:
            state.best_global_step = choice.step
            state.best_model_checkpoint = str(Path(str(args.output_dir)) / f"checkpoint-{choice.step}")
        if state.global_step < state.max_steps and is_lost(self.scores, self.budget_points, self.patience):
            self.is_stopped = control.should_training_stop = True


def _fit(line: str) -> str:
    """A line in the columns of a terminal, of which a Chinese character takes two."""
    line = " ".join(line.splitlines())
    return line if cell_len(line) <= _COLUMNS else set_cell_size(line, _COLUMNS - 1).rstrip() + "…"


def _is_due(args: TrainingArguments, state: TrainerState) -> bool:
    """Whether a checkpoint of this step is one that every run has, not only one that was asked to terminate."""
    if state.global_step >= state.max_steps:
        return True
    if args.save_strategy == SaveStrategy.EPOCH:
        return float(state.epoch or 0).is_integer()
    return args.save_strategy == SaveStrategy.STEPS and state.global_step % max(1, int(state.save_steps)) == 0


@contextmanager
def preserving_state(model: nn.Module) -> Iterator[None]:
    """Use a model in the middle of its training: random states, modes and what trains are afterwards as before."""
    modes = {module: module.training for module in model.modules()}
    trains = {parameter: parameter.requires_grad for parameter in model.parameters()}
    states = random.getstate(), np.random.get_state()
    gpus = {parameter.device.index for parameter in trains if parameter.device.type == "cuda"}
    try:
        with torch.random.fork_rng(gpus):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        for module, is_training in modes.items():
            module.training = is_training
        for parameter, is_trained in trains.items():
            parameter.requires_grad_(is_trained)


# --- which samples, and how -------------------------------------------------------------------------------------------

SAMPLES_TO_WATCH, SAMPLES_TO_CHOOSE_BY = 64, 400
"""Maximum number of questions of each kind: enough for a curve; enough to separate checkpoints by a few points."""
EXAMPLES = 3
"""Number of test samples shown at the end of training."""
EXAMPLE_TOKENS = 64
"""Longest answer that is shown."""
_COLUMNS = 80
_SPARE_TOKENS = 4


@dataclass(frozen=True)
class EvalSamples:
    """The samples that are scored at each checkpoint.

    Attributes:
        domain: Of what it learns.
        domain_split: Where those come from, `validation` or `train`.
        retention: Of everything else; empty where there is no retention set.
        retention_source: Where those come from, as a text for users.
        retention_sha256: `fingerprint` of the whole retention set, to tell whether a report uses the same.
        examples: Test samples whose answers are shown, and not scored.
    """

    domain: Sequence[Sample]
    domain_split: str
    retention: Sequence[Sample]
    retention_source: str
    retention_sha256: str | None
    examples: Sequence[Sample] = ()

    def __iter__(self) -> Iterator[Sample]:
        return iter((*self.domain, *self.retention, *self.examples))


@dataclass(frozen=True)
class CheckpointSelection:
    """Whether and how a run's checkpoints are scored, and which of them it ends with.

    Attributes:
        score_checkpoints: Whether to score at all.
        score_samples: Maximum number of samples of the domain and of the retention set, the same at each checkpoint.
            None takes `SAMPLES_TO_WATCH`, or `SAMPLES_TO_CHOOSE_BY` where a budget decides by them.
        forgetting_budget: How many points (hundredths) may be lost on the retention set. The checkpoint
            with the best domain score within it is what the run saves. None saves the last state.
        patience: Stop training after this many checkpoints in a row that lost more; None never does.
        metric: A score of single answers for both, such as `exact_match` or `rouge_l_characters`. None takes the
            primary metric of the run's `metrics` for the domain, see `primary_share`, and exact match for the
            retention set.
        validation_share: Of the training samples, to be held out where the data has no validation split and a budget
            needs one.
        retention: Gives a retention set for data that has none: that of the splits it returns, or their test split.
    """

    score_checkpoints: bool = True
    score_samples: int | None = None
    forgetting_budget: float | None = None
    patience: int | None = 2
    metric: str | None = None
    validation_share: float = 0.2
    retention: Callable[[], Splits] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ConfigError: With the reason.
        """
        single = [name for name, metric in ALL_METRICS.items() if metric.function and metric.is_share]
        if self.metric is not None and self.metric not in single:
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

    def select(self, splits: Splits) -> EvalSamples:
        """Choose the samples to score; the same for the same data, whatever the run's seed.

        Args:
            splits: As `divide` gave them.

        Raises:
            ConfigError: There is a budget and no retention set.
        """
        if not self.score_checkpoints:
            return EvalSamples([], "", [], "", None)
        limit = self.score_samples or (SAMPLES_TO_WATCH if self.forgetting_budget is None else SAMPLES_TO_CHOOSE_BY)
        retention, source = splits.retention, "the data's retention set"
        if not len(retention) and self.retention is not None:
            general = self.retention()
            retention, source = general.retention or general.test, "the general retention set"
        if not len(retention) and self.forgetting_budget is not None:
            raise ConfigError(
                "checkpoint_selection.forgetting_budget needs a retention set, and the data has none. Name one:"
                " dataset.retention=<file>, or dataset@checkpoint_selection.retention=general_ability."
            )
        domain_split = "validation" if len(splits.validation) else "train"
        return EvalSamples(
            domain=list(pick(getattr(splits, domain_split), limit)),
            domain_split=domain_split,
            retention=list(pick(retention, limit)),
            retention_source=source if len(retention) else "none",
            retention_sha256=fingerprint(retention) if len(retention) else None,
            examples=list(pick(splits.test, EXAMPLES)),
        )

    def watch(
        self, samples: EvalSamples, collate: Collator, arguments: TrainingArguments, metrics: Any = None
    ) -> CheckpointScores | None:
        """What the trainer needs to score its checkpoints; None where nothing is scored.

        Args:
            samples: As chosen by `select`.
            collate: Of the training: its processor, and its features of pictures if there are any.
            arguments: The trainer's: where the run folder is, and the batch size of scoring
                (`per_device_eval_batch_size`).
            metrics: What the run is to be scored by, as `MetricSettings.of` takes it.
        """
        if not self.score_checkpoints:
            return None
        retention = EXACT_MATCH if self.metric is None else ALL_METRICS[self.metric]
        domain = primary_share(MetricSettings.of(metrics), samples.domain) if self.metric is None else retention
        about = {
            "metric": domain.name,
            "retention_metric": retention.name,
            "domain_split": samples.domain_split,
            "retention": samples.retention_source,
            "retention_sha256": samples.retention_sha256,
        }

        def score(model: Any) -> dict[str, Any]:
            parts = {"domain": (samples.domain, domain), "retention": (samples.retention, retention)}
            batch_size, values = arguments.per_device_eval_batch_size, dict[str, Any]()
            for name, (rows, metric) in parts.items():
                values[name], exact = self._score(model, rows, collate, batch_size, metric)
                values[f"{name}_n"] = len(rows)
                if name == "domain":
                    values["domain_exact_match"] = exact
            return values

        def answer(model: Any, samples: Sequence[Sample]) -> list[str]:
            return [record.prediction for record in _ask(model, samples, collate, len(samples), EXAMPLE_TOKENS)]

        path = Path(str(arguments.output_dir)) / SCORES_FILE
        return CheckpointScores(path, score, self.forgetting_budget, self.patience, about, samples.examples, answer)

    def _score(
        self, model: Any, samples: Sequence[Sample], collate: Collator, batch_size: int, metric: Metric
    ) -> tuple[float | None, float | None]:
        """The metric, and exact match, of greedy answers that are truncated slightly beyond the longest reference."""
        if not samples:
            return None, None
        processor: Any = collate.processor
        longest = max(len(processor.tokenizer(sample.answer)["input_ids"]) for sample in samples)
        spare = _SPARE_TOKENS if metric is EXACT_MATCH else max(longest, _SPARE_TOKENS)  # for other words
        records = _ask(model, samples, collate, batch_size, longest + spare)
        return metric.score(records), EXACT_MATCH.score(records)


def primary_share(settings: MetricSettings, samples: Sequence[Sample]) -> Metric:
    """The first metric of settings that checkpoints can be scored by.

    It is a share that grows with what is right, needs only the answers, and fits the data: the references themselves
    score by it.

    Args:
        settings: Of the run.
        samples: Of the domain.

    Returns:
        The metric; exact match where there is none.
    """
    perfect = [
        replace(unanswered(sample, "scored"), prediction=reference_answers(sample.answer)[0]) for sample in samples
    ]
    for metric in settings.of_texts() if perfect else ():
        if metric.is_share and metric.higher_is_better:
            with suppress(DataError):
                if metric.score(perfect) > 0:
                    return metric
    return EXACT_MATCH


def _ask(
    model: Any, samples: Sequence[Sample], collate: Collator, batch_size: int, max_new_tokens: int
) -> list[Prediction]:
    """Greedy answers of a model in the middle of its training."""
    processor: Any = collate.processor
    features: Any = collate.features
    return generate_predictions(
        model,
        processor,
        samples,
        Decoding(batch_size=max(1, batch_size), max_new_tokens=max_new_tokens),
        split="scored",
        title="scoring the checkpoint",
        feature_cache=False if features is None else features,
    )
