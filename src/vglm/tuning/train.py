"""Fine-tune a VisualGLM: load, attach, train, save, prove.

    import vglm
    run = vglm.train(vglm.load_dataset("data/background_synthetic"), method={"r": 16}, trainer={"max_steps": 50})
    run.result                                  outputs/custom/<time>/adapter

`train.py` of the repository is this function on a config. Its parameters are the keys of `conf/train.yaml`, which says
what the defaults are; the run folder keeps them in `config.yaml`, so that the command line goes on with a run that was
trained from Python: `python evaluate.py run=...`, `python train.py resume=...`, `vglm merge`.
"""

import logging
import shlex
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from datetime import datetime
from os import PathLike, fspath
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol

from transformers import TrainingArguments, set_seed

from vglm.config import build, check_config
from vglm.config.components import Component, component, describe, is_file_of, is_recorded, plain_values
from vglm.config.run_config import anchor_paths, as_text, refuse_changes
from vglm.console import keep_in
from vglm.data.collator import Collator
from vglm.data.loading import load_dataset
from vglm.data.sample import Sample
from vglm.data.sequences import TrainingSequences
from vglm.data.splits import Splits
from vglm.errors import ConfigError, brief, typed
from vglm.files import write_json
from vglm.model.identity import hash_weights
from vglm.model.loading import describe_device, load_pretrained
from vglm.model.modeling import VisualGlmForConditionalGeneration
from vglm.model.processing import VisualGlmProcessor
from vglm.processes import Processes
from vglm.runs import CONFIG_FILE, RECORD_FILE, SPLITS_FILE, Run
from vglm.tuning.batch_size import fit_batch_size
from vglm.tuning.contract import save_and_check
from vglm.tuning.features import cache_features
from vglm.tuning.methods import Method, attach, check_method, lora_scale, trainable_share, warn_of_half_weights
from vglm.tuning.run_folder import describe_run, newest_checkpoint, open_run
from vglm.tuning.tracker import Tracker
from vglm.tuning.trainer import CheckpointScorer, WorkbenchTrainer

Loaded = tuple[VisualGlmForConditionalGeneration, VisualGlmProcessor]
"""A model and its processor, as `load_pretrained` returns them."""

logger = logging.getLogger(__name__)

_OPENED_BY: Mapping[str, tuple[Any, str]] = {
    "dataset": (load_dataset, "path"),
    "model": (load_pretrained, "path_or_id"),
}
_GROUPS = ("dataset", "model", "method", "trainer", "tracker", "checkpoint_selection", "metrics")


class CheckpointSelection(Protocol):
    """Whether a run's checkpoints are scored, and which one it ends with."""

    def divide(self, splits: Splits) -> Splits:
        """The data, with a validation split where checkpoints are chosen by one."""

    def select(self, splits: Splits) -> Iterable[Sample]:
        """The samples to score at each checkpoint."""

    def watch(
        self, samples: Any, collate: Collator, arguments: TrainingArguments, metrics: Any
    ) -> CheckpointScorer | None:
        """What the trainer calls at each checkpoint; None where nothing is scored."""


def train(
    dataset: Splits | Component | str | PathLike[str] | None = None,
    *,
    model: Loaded | Component | str | PathLike[str] | None = None,
    method: Method | Component | str | None = None,
    trainer: TrainingArguments | Component | str | None = None,
    tracker: Tracker | Component | str | None = None,
    checkpoint_selection: CheckpointSelection | Component | None = None,
    metrics: Component | Sequence[str] | str | None = None,
    learning_rates: Mapping[str, float | str] = MappingProxyType({}),
    recipe: str = "custom",
    seed: int = 1,
    output_dir: str | PathLike[str] | None = None,
    resume: str | PathLike[str] | None = None,
    answers: Literal["every", "last"] = "every",
    max_length: int = 2048,
    packing: int | None = None,
    feature_cache: bool = True,
    limit: int | None = None,
    skipped_steps: int = 0,
    allow_leakage: bool = False,
) -> Run:
    """Fine-tune a model on a data set.

    A component (the first seven) can be given as an object; as keys and values to put over the default, such as
    `{"r": 16}`; with a `_target_`, as a whole; or by the name of a file in its folder of `conf/`, such as "p_tuning".

    Args:
        dataset: What to learn from: what `vglm.load_dataset` returned, its arguments, or a path. The shipped background
            set if not given.
        model: What to tune: a checkpoint's folder or its id on the hub, the arguments of `vglm.load_pretrained`, or
            what it returned, which is changed: frozen, and the adapter attached. The shipped tiny model if not given.
        method: What trains: a config of peft or a `ComponentTuning`. LoRA if not given.
        trainer: Steps, batch size, learning rate, device. Of an object, `output_dir`, `seed`, `run_name` and
            `report_to` are set to what this function says of them.
        tracker: Where the curves go besides `log.jsonl`. Nowhere if not given.
        checkpoint_selection: How checkpoints are scored and chosen, see `conf/train.yaml`.
        metrics: What `vglm.evaluate` scores the run by, the primary one first: names, or a component as in
            `conf/metrics/`. Checkpoints are scored by the primary one too; the training itself does not depend on it.
        learning_rates: Parts with a rate of their own, such as `{"projection": 1e-4, "lora_B": "16x"}`.
        recipe: The run's name.
        seed: Of the order of samples, dropout and what starts at random.
        output_dir: The run folder, which must not exist yet. `outputs/<recipe>/<time>` if not given.
        resume: The folder of an interrupted run, which is continued: all else must be as it was then.
        answers: Whether each answer of a dialogue is learned, with the turns before it, or only the last.
        max_length: Most tokens of a sequence; longer dialogues lose their oldest turns.
        packing: Tokens of a row that short samples share; None gives each a row of its own.
        feature_cache: Whether to encode each picture once, where the vision parts are frozen.
        limit: Maximum number of training samples, see `vglm.data.splits.pick`; None for all. Reports are stamped.
        skipped_steps: How many steps may be left out because a loss or a gradient is not finite; one more ends the run.
        allow_leakage: Whether to train though test samples share groups with training; reports are stamped then.

    Returns:
        The run. Of several processes each gets it, and the main one has written it.

    Raises:
        ConfigError: An argument cannot be, with all problems in one message; or the folder is taken.
        DataError: The data has bad rows, nothing to learn, or test samples that would be learned.
        CheckpointError: The model cannot be read, or a checkpoint to resume from.
        AdapterError: What was saved did not prove to be what was trained.
        WorkbenchError: A loss was not finite, or nothing can be written.
    """
    values = dict(locals())
    if isinstance(metrics, Sequence) and not isinstance(metrics, str):
        values["metrics"] = {"names": list(metrics)}
    parts, config = _components(values)
    arguments, selection = parts["trainer"], parts["checkpoint_selection"]
    base = config["model"]
    check_method(parts["method"], arguments, learning_rates, base.get("quantization"), base.get("dtype"))
    processes = Processes()  # of the group that TrainingArguments has made
    folder = processes.broadcast(Path(resume or output_dir or _new_folder(recipe)))
    arguments.output_dir = config["output_dir"] = config["trainer"]["output_dir"] = str(folder)
    if parts["tracker"].project is not None:
        arguments.project = parts["tracker"].project  # which Trackio reads there
    if resume is not None:
        refuse_changes(config, folder)

    splits = selection.divide(parts["dataset"]).limited(limit)
    splits.refuse_leakage(allow=allow_leakage)
    splits.warn_of_tiny_test()
    questions = selection.select(splits)  # of every checkpoint
    files = {CONFIG_FILE: as_text(config), SPLITS_FILE: splits.record}
    with (
        open_run(folder, files, resume=resume is not None, processes=processes),
        parts["tracker"].writing_to(folder),
    ):
        keep_in(folder)
        set_seed(seed)
        loaded, processor = _load(parts["model"])
        facts = describe_run(seed=seed, recipe=recipe, base_weights=hash_weights(loaded), splits=splits)
        sequences = TrainingSequences(splits.train, processor, max_length=max_length, answers=answers)
        tuned = attach(loaded, parts["method"])
        warn_of_half_weights(tuned)
        print(f"{folder}: {describe_device(tuned)}, {sequences.statistics}, {trainable_share(tuned)}")
        features = (
            cache_features(tuned, processor, splits.train, arguments.device, questions) if feature_cache else None
        )
        collate = Collator(processor, features=features, max_length=max_length, packing=packing)
        scores = selection.watch(questions, collate, arguments, parts["metrics"])
        if arguments.auto_find_batch_size:
            fit_batch_size(tuned, arguments, sequences, collate, processes)
        loop = WorkbenchTrainer(tuned, arguments, sequences, collate, learning_rates, scores, skipped_steps)
        outcome = loop.train(resume_from_checkpoint=newest_checkpoint(folder))
        trained = loop.trained_model()
        if not processes.is_main:  # it has done its part
            return Run(folder)
        shown = None if scores is None else _examples(scores, trained)
        facts |= loop.facts(outcome) | {"scale": lora_scale(trained), "sequences": vars(sequences.statistics)}
        write_json(folder / RECORD_FILE, facts)
        report = save_and_check(trained, processor, folder, collate(sequences[:1]))
        write_json(folder / RECORD_FILE, facts | report.as_dict())
        result = report.publish()
    if shown is not None:
        print(shown)
    print(f"{report}\nsaved: {result}\nnext: {typed('evaluate')} {shlex.quote(f'run={folder}')}")
    return Run(folder)


def _components(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The components, built except for the model, and the config that says how all was given.

    Raises:
        ConfigError: With every mistake in what was given.
    """
    chosen = {
        group: _opened(group, values[group]) if group in _OPENED_BY else component(group, values[group])
        for group in _GROUPS
    }
    tracked = describe(chosen["tracker"])
    surroundings = {"seed": values["seed"], "run_name": values["recipe"], "report_to": tracked["report_to"]}
    if isinstance(chosen["trainer"], Mapping):
        own = values["trainer"] if isinstance(values["trainer"], Mapping) else {}
        chosen["trainer"] = {**chosen["trainer"], **surroundings, **own}
    else:
        chosen["trainer"] = _for_samples(chosen["trainer"], surroundings)
    plain = plain_values({name: value for name, value in values.items() if name not in _GROUPS})
    config = anchor_paths({**plain, **{group: describe(value) for group, value in chosen.items()}})
    check_config({name: value for name, value in config.items() if is_recorded(value)})
    parts = {
        group: build(config[group]) if isinstance(value, Mapping) and group != "model" else value
        for group, value in chosen.items()
    }
    return parts, config


def _opened(group: str, value: Any) -> Any:
    """The component that reads a model or a data set, or what was read already."""
    load, where = _OPENED_BY[group]
    if value is None or (isinstance(value, str) and is_file_of(group, value)):
        return component(group, value)
    if isinstance(value, str | PathLike):
        value = {where: fspath(value)}
    return {"_target_": f"{load.__module__}.{load.__name__}", **value} if isinstance(value, Mapping) else value


def _for_samples(trainer: TrainingArguments, surroundings: Mapping[str, Any]) -> TrainingArguments:
    """A caller's own trainer, with what the training of samples by a collator needs."""
    arguments = copy(trainer)
    needed = {"remove_unused_columns": False, "label_names": ["labels"], "ddp_find_unused_parameters": False}
    reported = [] if surroundings["report_to"] == "none" else [surroundings["report_to"]]
    for name, value in {**needed, **surroundings, "report_to": reported}.items():
        setattr(arguments, name, value)
    return arguments


def _load(model: Any) -> Loaded:
    """The base model and its processor."""
    loaded: Loaded = build(model) if isinstance(model, Mapping) else model
    if not isinstance(loaded[0], VisualGlmForConditionalGeneration):
        raise ConfigError(
            "model: an adapter cannot be put on a model that has one. Merge that one first: vglm.merge(run, folder)."
        )
    return loaded


def _examples(scores: CheckpointScorer, model: Any) -> str | None:
    """What is shown at the end; without it where it cannot be had, for nothing of the training is saved by then."""
    try:
        return scores.examples(model)
    except Exception as error:  # a picture that is gone, too little memory
        logger.warning("no test samples are shown: %s", brief(error))
        return None


def _new_folder(recipe: str) -> Path:
    return Path("outputs", recipe, datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")[:-3])
