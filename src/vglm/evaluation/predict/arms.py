"""The two arms of an evaluation, which answer the same samples, and what a report states about them.

a finished run     `before` (the base model) and `after` (with the adapter, or the tuned model)
a model alone      `shuffled` (each question with another sample's image) and `true`

Beside its own samples an arm answers controls: some test questions with other images (see
`vglm.evaluation.predict.controls`).
"""

import json
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vglm.data.sample import Sample
from vglm.data.splits import Leakage, LookAlike, Splits, fingerprint
from vglm.errors import AdapterError, ConfigError, DataError
from vglm.evaluation.messages import Message, Sentence, Value
from vglm.evaluation.predict.answers import Answers
from vglm.evaluation.predict.controls import Control, shuffle_images
from vglm.evaluation.predict.provenance import code_state, curves_of, describe_choice, provenance, synthetic_stamps
from vglm.evaluation.predict.shared_answers import SharedAnswers
from vglm.evaluation.predictions import LOSSES_FILE, Arm, Choices, Evaluation, Prediction, Stamp
from vglm.evaluation.seals import digest_of
from vglm.processes import Processes
from vglm.runs import CONFIG_FILE, RECORD_FILE, SPLITS_FILE, Run

if TYPE_CHECKING:
    from vglm.evaluation.predict.decoding import Decoding

SPLITS = ("test", "retention", "validation", "train")
CUT_SHARE = 0.01
"""If more of an arm's answers are cut, the report is stamped."""
_FOREST_SEED = 1
_PACKAGES = ("visualglm-workbench", "torch", "transformers", "peft", "scipy", "pillow")

Samples = Mapping[str, Sequence[Sample]]
Loaded = tuple[Any, Any]
"""A model in evaluation mode and its processor."""


@dataclass(frozen=True)
class ModelArm:
    """One side of the comparison, ready to answer.

    Attributes:
        arm: Its label and meaning.
        samples: Split name -> the samples as this arm sees them.
        open: Gives the model and its processor for the time of a `with` block.
        controls: Test questions to answer with other images.
    """

    arm: Arm
    samples: Samples
    open: Callable[[], AbstractContextManager[Loaded]]
    controls: Sequence[Control] = ()

    @property
    def label(self) -> str:
        """The arm's label."""
        return self.arm.label

    @property
    def requested(self) -> list[tuple[str, Samples]]:
        """What it answers, each with a label: its own samples, then its controls'."""
        return [
            (self.label, self.samples),
            *((control.arm.label, {"test": control.samples}) for control in self.controls),
        ]


@dataclass(frozen=True)
class Arms:
    """The two arms that are compared, see the module's description, and what a report has to say of them.

    Attributes:
        title: The heading of its report.
        summary: What it is, without a full stop.
        purpose: See `Evaluation`.
        baseline: The arm to compare with.
        candidate: The arm that is judged.
        facts: What to show of its configuration.
        trained_images: Content hashes of the images it was tuned on; unknown ones left out.
        changed_files: Data files that are not what they were when it was tuned.
        leakage: What its test and validation share with its training split, a sentence each.
        trained_groups: Groups (studies, patients, stars) it was tuned on, where the data evaluated has the same files.
        is_other_test: Whether the test samples are not those that the run set apart, although the data is the same.
        stamps: What the run itself has to say before all.
        log: How the run went, see `curves_of`; None for a model alone.
        result: The folder with what was tuned; None for a model alone.
        untuned: What the baseline's answers depend on besides questions and settings, where it is a run's own base.
    """

    title: str
    summary: Sentence
    purpose: Literal["tuning", "image use"]
    baseline: ModelArm
    candidate: ModelArm
    facts: Mapping[str, Sentence]
    trained_images: frozenset[str] = frozenset()
    changed_files: Sequence[str] = field(default=())
    leakage: Sequence[Sentence] = field(default=())
    trained_groups: frozenset[str] = frozenset()
    is_other_test: bool = False
    stamps: Sequence[Stamp] = field(default=())
    log: Mapping[str, Any] | None = None
    result: Path | None = None
    untuned: Mapping[str, Any] | None = None


def select_samples(splits: Splits, names: str | Sequence[str], choices: Choices = None) -> dict[str, Sequence[Sample]]:
    """The splits to evaluate on.

    Args:
        splits: The data.
        names: One or some of `SPLITS`; those without samples are left out.
        choices: What is to be scored by likelihood; checked against the samples.

    Raises:
        ConfigError: A name is unknown, or the choices are none.
        DataError: None of the splits has samples, or they lack choices of their own.
    """
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, Sequence):
        raise ConfigError(f"splits must be some of {', '.join(SPLITS)}, got {names!r}.")
    if unknown := [name for name in names if name not in SPLITS]:
        raise ConfigError(f"splits: there is no {unknown[0]!r}; choose from {', '.join(SPLITS)}.")
    samples = {name: getattr(splits, name) for name in names}
    if not any(map(len, samples.values())):
        there = [name for name in SPLITS if len(getattr(splits, name))]
        advice = f"It has {', '.join(there)}: pass splits=[{','.join(there)}]" if there else "It has none at all"
        raise DataError(f"the data has no samples in {', '.join(names) or 'no splits'}. {advice}, or another dataset.")
    samples = {name: rows for name, rows in samples.items() if len(rows)}
    if choices is not None:
        from vglm.evaluation.predict.likelihoods import check_choices  # takes seconds to import

        check_choices(choices, samples)
    return samples


def open_arms(
    config: Mapping[str, Any],
    run: Run | None,
    samples: Samples,
    whole: Samples,
    files: Mapping[str, str],
    controls: Sequence[Control],
    load: Callable[..., Loaded],
) -> Arms:
    """Make the arms of a finished run, or, without a run, of a model alone.

    Args:
        config: The evaluation's plain config.
        run: The run.
        samples: What to evaluate on.
        whole: The same splits without a limit.
        files: SHA-256 of the data's files, as they are now.
        controls: Test questions with other images.
        load: Loads the model that `config` names; takes `adapter`, a folder, where there is one to put on it.

    Raises:
        AdapterError: The run's description or its adapter cannot be read, or does not fit the base model.
        DataError: The images of a split cannot be shuffled.
    """
    if run is None:
        return _single_model(config, samples, controls, load)
    is_trained_data = config["dataset"] == run.config["dataset"]  # divided as it was for the run
    arms = _tuned_run(run, samples, whole, files, is_trained_data, controls, load, config["model"].get("dtype"))
    if config["model"] != run.config["model"]:
        return arms
    base = [config["model"], run.record.base_weights, _files_state(config["model"].get("path_or_id"))]
    return replace(arms, untuned={"base": json.loads(json.dumps(base, default=str))})


def _tuned_run(
    run: Run,
    samples: Samples,
    whole: Samples,
    files: Mapping[str, str],
    is_trained_data: bool,
    controls: Sequence[Control],
    load: Callable[..., Loaded],
    dtype: str | None,
) -> Arms:
    """Arms `before` and `after`; an adapter shares one loaded model between both, else `dtype` is that of the base."""
    trained, record, result, log = run.config, run.record, run.result, curves_of(run)
    assert result is not None
    splits = run.splits
    is_known = splits is not None and bool({*files.values()} & {*splits.files.values()})  # it is of this data
    divided = splits.splits if splits is not None and is_known else {}
    apart = divided["test"].sha256 if "test" in divided else None
    trainer, method = trained["trainer"], trained["method"]
    algorithm, weights = record.base_weights
    model_name, data_name = _name(trained["model"], "path_or_id"), _name(trained["dataset"], "path")
    method_name = str(method["_target_"]).rpartition(".")[2]
    settings = [f"{name} {value}" for name, value in method.items() if isinstance(value, int | float)]
    data: dict[str, Value] = {"data": data_name, "n": record.data.train}
    training: dict[str, Value] = {
        "steps": _steps(trainer, log),
        "batch": _samples_of_step(trainer),
        "rate": trainer.get("learning_rate"),
        "seed": record.seed,
    }
    chosen, stamps = describe_choice(record.forgetting, whole)
    if not run.is_verified:
        stamps = (Stamp(text="UNVERIFIED", detail=Message("unverified")), *stamps)
    before = Arm(label="before", meaning=Message("meaning.untuned", {"model": model_name}))
    earlier = [control.of("before") for control in controls if not control.is_for_candidate]
    later = [control.of("after") for control in controls]
    if run.adapter is not None:
        model, processor = load(adapter=str(run.adapter))
        after = Arm(label="after", meaning=Message("meaning.adapter"))

        @contextmanager
        def without_adapter() -> Iterator[Loaded]:
            with model.disable_adapter():
                yield model, processor

        pair = (
            ModelArm(before, samples, without_adapter, earlier),
            ModelArm(after, samples, lambda: nullcontext((model, processor)), later),
        )
    else:
        from vglm.model.loading import load_pretrained  # takes seconds to import

        after = Arm(label="after", meaning=Message("meaning.tuned"))
        pair = (
            ModelArm(before, samples, lambda: _opened(partial(_load_base, load, run)), earlier),
            ModelArm(after, samples, lambda: _opened(partial(load_pretrained, dtype=dtype), result), later),
        )
    return Arms(
        title=record.recipe,
        summary=Message("summary.tuned", {"model": model_name, "method": method_name, **data}),
        purpose="tuning",
        baseline=pair[0],
        candidate=pair[1],
        facts={
            "run": run.folder.as_posix(),
            "base model": model_name,
            "base weights": f"{algorithm} {weights[:16]}",
            "method": ", ".join([method_name, *settings]),
            "training data": Message("training_data", {**data, "sha256": record.data.sha256[:16]}),
            "training": Message("training", training),
            **chosen,
            **_tested_on(samples, apart),
        },
        trained_images=frozenset(record.data.train_images or ()),
        changed_files=[
            name for name, digest in files.items() if is_trained_data and record.data.files.get(name, digest) != digest
        ],
        leakage=[leak if isinstance(leak, str) else _leak(leak) for leak in record.data.leakage],
        trained_groups=frozenset(divided["train"].group_names if "train" in divided else ()),
        is_other_test="test" in samples and apart is not None and fingerprint(samples["test"]) != apart,
        stamps=stamps,
        log=log,
        result=result,
    )


def _steps(trainer: Mapping[str, Any], log: Mapping[str, Any]) -> int | None:
    """Optimizer steps: as set, or, where epochs were set, the last step in the log."""
    if (steps := trainer.get("max_steps")) is not None and steps > 0:
        return int(steps)
    return max((int(row["step"]) for name in ("learning", "forgetting") for row in log[name]), default=steps)


def _samples_of_step(trainer: Mapping[str, Any]) -> int | None:
    """Samples that a process learns from in a step, over all accumulated batches."""
    batch = trainer.get("per_device_train_batch_size")
    return None if batch is None else int(batch * (trainer.get("gradient_accumulation_steps") or 1))


def limited(arms: Arms, whole: Samples, samples: Samples, run: Run | None) -> Arms:
    """The same arms, with a stamp where fewer samples than there are were learned from, or are asked.

    Args:
        arms: What is evaluated.
        whole: Split -> its samples.
        samples: Split -> the samples to evaluate.
        run: The run; None for a model alone.
    """
    parts = [
        Message("limited_split", {"n": len(samples[name]), "total": len(rows), "split": name})
        for name, rows in whole.items()
        if len(samples[name]) < len(rows)
    ]
    learned = None if run is None else run.config.get("limit")
    if run is not None and learned is not None and run.record.data.train >= learned:  # else there were no more
        parts.insert(0, Message("limited_training", {"n": learned}))
    if not parts:
        return arms
    is_known = "test" not in whole or len(samples["test"]) == len(whole["test"])  # else its hash is of another set
    stamp = Stamp(text="LIMITED", detail=Message("limited", {"parts": tuple(parts)}))
    return replace(arms, stamps=(*arms.stamps, stamp), is_other_test=arms.is_other_test and is_known)


def _leak(values: Mapping[str, str | int]) -> Message:
    """What two splits share, see `vglm.data.splits.Leakage`, without what they do not."""
    shared = Leakage(**values).shared  # type: ignore[arg-type]
    return Message("leak.splits" if shared == "both" else f"leak.splits_{shared}", values)


def _load_base(load: Callable[..., Loaded], run: Run) -> Loaded:
    """Load the model that a run was tuned from, all of it; another one is no `before` of that run."""
    from vglm.model.identity import hash_weights  # takes seconds to import

    model, processor = load()
    algorithm, expected = run.record.base_weights
    if (digest := hash_weights(model, algorithm)) != expected:
        raise AdapterError(
            f"{run.folder} was tuned from another base model: expected weights {algorithm} {expected[:12]}, found"
            f" {digest[:12]} in {Path(getattr(model, 'name_or_path', '') or 'the model').name!r}. Evaluate it on the"
            " base that it was tuned from: leave model= out, or restore that model."
        )
    return model, processor


def _tested_on(samples: Samples, apart: str | None) -> dict[str, Sentence]:
    """The test split by its hash, which names every question and answer in it."""
    if "test" not in samples:
        return {}
    digest = fingerprint(samples["test"])
    key = "test_data_apart" if digest == apart else "test_data"
    return {"test data": Message(key, {"n": len(samples["test"]), "sha256": digest[:16]})}


def _single_model(
    config: Mapping[str, Any], samples: Samples, controls: Sequence[Control], load: Callable[..., Loaded]
) -> Arms:
    """Arms `shuffled` (no control of it is needed) and `true`, and one loaded model for both."""
    from vglm.model.identity import hash_weights  # takes seconds to import

    seed = config["seed"]
    shuffled = {name: shuffle_images(rows, seed) for name, rows in samples.items()}
    model_name, data_name = names_of(config)
    model, processor = load()
    return Arms(
        title=f"{model_name} on {data_name}",
        summary=Message("summary.image_use"),
        purpose="image use",
        baseline=ModelArm(
            Arm(label="shuffled", meaning=Message("meaning.shuffled")),
            shuffled,
            lambda: nullcontext((model, processor)),
        ),
        candidate=ModelArm(
            Arm(label="true", meaning=Message("meaning.true")),
            samples,
            lambda: nullcontext((model, processor)),
            [control for control in controls if control.arm.label != "shuffled"],
        ),
        facts={
            "model": model_name,
            "weights": f"xxh3 {hash_weights(model)[:16]}",
            "data": data_name,
            **_tested_on(samples, None),
            "seed of the shuffling": str(seed),
        },
    )


def answer(
    arms: Arms,
    folder: Path,
    decoding: "Decoding",
    train: Sequence[Sample] = (),
    feature_cache: bool = False,
    processes: Processes | None = None,
    examples: Sequence[Sample] = (),
    trained: Sequence[Sample] = (),
) -> Answers:
    """Let both arms answer all their samples, one model in memory at a time, with the same settings.

    Where answers are sampled, controls get as many draws as the arms, of the same random numbers.

    Args:
        arms: What is evaluated.
        folder: The evaluation folder to write into; answers of a stopped evaluation there are kept.
        decoding: How to answer.
        train: The training samples among which the untuned model looks for the nearest images; none if empty.
        feature_cache: See `generate_predictions`.
        processes: Who shares the work; this one alone if not given.
        examples: Training samples that the untuned model is shown before each test question, see `put_in_context`.
        trained: Training samples whose loss under the tuned model is measured, see `measure_losses`.

    Returns:
        The records of all arms, and what was found beside them; without records in other processes than the main one.

    Raises:
        ConfigError: The arms differ in precision, or a setting is wrong.
        WorkbenchError: Another process ended.
    """
    from vglm.evaluation.predict.examples import nearest_answers, put_in_context  # take seconds to import
    from vglm.evaluation.predict.generation import answer_splits, check_precision, rows_at_once
    from vglm.evaluation.predict.star_forest import forest_answers
    from vglm.evaluation.predict.training_loss import measure_losses
    from vglm.model.loading import describe_device

    processes = processes or Processes.alone()
    records: dict[str, list[Prediction]] = {}
    nearest: list[str] = []
    precision: dict[str, Any] = {}
    shots = None
    test = arms.candidate.samples.get("test", ())
    for arm in (arms.baseline, arms.candidate):
        with arm.open() as (model, processor):
            precision = check_precision(model, arm.label, precision)
            print(f"{arm.label}: {describe_device(model)}")
            requested = arm.requested
            if arm is arms.baseline:
                name = arm.label if arms.purpose == "tuning" else ""
                shots = put_in_context(examples, test, model, processor, decoding.max_new_tokens, name)
                requested += [] if shots is None or not shots.samples else [(shots.arm.label, {"test": shots.samples})]
            samples = {f"{label}/{name}": split for label, splits in requested for name, split in splits.items()}
            rows = rows_at_once(model, decoding, samples)
            decoding = replace(decoding, batch_size=rows)  # the same in both arms
            shared = SharedAnswers(_shared_facts(arms, model, decoding) if arm is arms.baseline else None)
            for label, splits in requested:
                if processes.is_main:
                    shared.fetch(folder, label, splits)
                processes.barrier()  # before others write there
                records[label] = answer_splits(
                    *(model, processor, splits, folder, label, decoding),
                    feature_cache=feature_cache,
                    processes=processes,
                )
                if processes.is_main:
                    shared.keep(folder, label, splits)
            if arm is arms.baseline and len(train) and processes.is_main:
                nearest = nearest_answers(model, processor, train, test, batch_size=rows)
            if arm is arms.candidate and len(trained) and processes.is_main and not (folder / LOSSES_FILE).exists():
                measure_losses(model, processor, trained, folder, batch_size=rows)
    forest = forest_answers(train, test, _FOREST_SEED) if processes.is_main else []
    return Answers(arms.candidate.label, records, nearest, forest, precision, shots)


def _shared_facts(arms: Arms, model: Any, decoding: "Decoding") -> Mapping[str, Any] | None:
    """All that the untuned model's answers depend on besides the questions; None where they are not shared."""
    from vglm.model.loading import describe_device  # takes seconds to import

    if arms.untuned is None:
        return None
    about = {"decoding": decoding.as_dict(), "place": describe_device(model), "versions": _versions()}
    return {**arms.untuned, **about, "code": code_state().values["sha256"]}


def describe(
    arms: Arms,
    answers: Answers,
    samples: Samples,
    decoding: "Decoding",
    config: str,
    command: str | None = None,
    synthetic: str | None = None,
    copies: Sequence[LookAlike] = (),
) -> Evaluation:
    """Say what was evaluated and how, for the report.

    Args:
        arms: What was evaluated.
        answers: What the arms answered.
        samples: Split -> samples, as they were read.
        decoding: The settings of generation, as for `answer`.
        config: The resolved configuration, as YAML.
        command: What repeats the evaluation; the process's own command line if not given.
        synthetic: What generated the data, see `Splits`.
        copies: The test samples that look like pictures that were trained on.
    """
    predictions = answers.candidate
    counts = Counter(record.split for record in predictions if record.draw == 0)
    scored = tuple(Message(f"samples.{name}", {"n": count}) for name, count in counts.items())
    draws = 1 + max((record.draw for record in predictions), default=0)
    return Evaluation(
        title=arms.title,
        summary=Message(
            "summary.scored_draws" if draws > 1 else "summary.scored",
            {"what": arms.summary, "counts": scored, "draws": draws},
        ),
        purpose=arms.purpose,
        baseline=arms.baseline.arm,
        candidate=arms.candidate.arm,
        facts={**arms.facts, **provenance(config, arms.result)},
        decoding={**decoding.as_dict(), **answers.precision},
        command=command or shlex.join(["python", *(_resolved(argument, arms) for argument in sys.argv)]),
        versions=_versions(),
        config=config,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        stamps=(
            *_stamps(arms, predictions, copies),
            *_missing_stamps(arms, answers),
            *_cut_stamps(arms, answers, decoding),
            *synthetic_stamps(synthetic),
        ),
        controls=(
            *(control.arm for arm in (arms.baseline, arms.candidate) for control in arm.controls),
            *([answers.shots.arm] if answers.shots is not None and answers.shots.samples else ()),
        ),
        data={name: fingerprint(rows) for name, rows in samples.items()},
    )


def _versions() -> dict[str, str]:
    """Versions of what answers and scores depend on; a checkout that is not installed has none."""
    versions = {}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _resolved(argument: str, arms: Arms) -> str:
    """An argument that means the same tomorrow."""
    return f"run={arms.facts['run']}" if argument == "run=latest" else argument


def _is_own_group(record: Prediction) -> bool:
    """Whether a sample's group is only a name for itself or its picture, where the data has no groups."""
    return record.group == record.id or (record.image is not None and f"/{record.image}".endswith(f"/{record.group}"))


def _copies(copies: Sequence[LookAlike], total: int) -> Message:
    """How many test pictures look like training pictures, and by which kind of copy."""
    counts = Counter(copy.how for copy in copies)
    how = tuple(Message(f"leak.how.{name}", {"n": count}) for name, count in counts.items())
    example: dict[str, Value] = {"example": copies[0].tested.id, "learned": copies[0].learned.id}
    return Message("leak.copies", {"n": len(copies), "total": total, "how": how, **example})


def _stamps(arms: Arms, predictions: Sequence[Prediction], copies: Sequence[LookAlike]) -> tuple[Stamp, ...]:
    """What a reader must know before believing the scores, from hashes of images and files."""
    stamps = list(arms.stamps)
    tested = [record for record in predictions if record.split == "test" and record.draw == 0]
    leaks = list(arms.leakage)
    of_trained_groups = [record for record in tested if record.group in arms.trained_groups]
    alone = [record for record in of_trained_groups if _is_own_group(record)]
    unseen = [record for record in alone if record.image_sha256 not in arms.trained_images]
    for key, some in (("groups", len(of_trained_groups) - len(alone)), ("names", len(unseen))):
        if some:
            leaks.append(Message(f"leak.{key}", {"n": some, "total": len(tested)}))
    if copies:
        leaks.append(_copies(copies, len(tested)))
    if leaks:
        stamps.append(Stamp(text="LEAKED", detail=Message("leaked", {"leaks": tuple(leaks)})))
    if arms.is_other_test:
        stamps.append(Stamp(text="OTHER TEST SAMPLES", detail=Message("other_test")))
    if seen := tuple(_seen_images(arms.trained_images, predictions)):
        stamps.append(Stamp(text="EVALUATED ON TRAINING IMAGES", detail=Message("trained_images", {"splits": seen})))
    if changed := arms.changed_files:
        detail = Message("data_changed", {"n": len(changed), "first": changed[0]})
        stamps.append(Stamp(text="DATA CHANGED SINCE TRAINING", detail=detail))
    return tuple(stamps)


def _seen_images(trained: frozenset[str], predictions: Sequence[Prediction]) -> Iterator[Message]:
    """How many images of each split were trained on, by their content, whatever the split is called."""
    shown: dict[str, set[str]] = {}
    for record in predictions:
        if record.image_sha256 is not None:
            shown.setdefault(record.split, set()).add(record.image_sha256)
    for split, hashes in shown.items():
        if seen := len(hashes & trained):
            yield Message("trained_images_of", {"n": seen, "total": len(hashes), "split": split})


def _cut_stamps(arms: Arms, answers: Answers, decoding: "Decoding") -> Iterator[Stamp]:
    """A warning where the limit cut more than `CUT_SHARE` of an arm's answers in a split."""
    if cut := _counted("cut_answers", arms, answers, lambda record: record.is_cut, CUT_SHARE):
        detail = Message("cut", {"answers": tuple(cut), "limit": decoding.max_new_tokens})
        yield Stamp(text="ANSWERS CUT", detail=detail)


def _missing_stamps(arms: Arms, answers: Answers) -> Iterator[Stamp]:
    """A warning where an arm could not answer, and so samples count in neither arm."""
    if missing := _counted("missing_answers", arms, answers, lambda record: record.error is not None, 0):
        yield Stamp(text="ANSWERS MISSING", detail=Message("missing", {"answers": tuple(missing)}))


def _counted(
    key: str, arms: Arms, answers: Answers, counts: Callable[[Prediction], bool], share: float
) -> list[Message]:
    """How many answers of each arm and split count, where they are more than a share."""
    messages = []
    for arm in (arms.baseline.label, arms.candidate.label):
        records = answers.records.get(arm, ())
        counted = Counter(record.split for record in records if counts(record))
        totals = Counter(record.split for record in records)
        messages += [
            Message(key, {"n": count, "total": totals[split], "split": split, "arm": arm})
            for split, count in counted.items()
            if count > share * totals[split]
        ]
    return messages


def answers_key(key: Sequence[Any], model: Any, samples: Samples) -> str | None:
    """A hash of all that answers depend on, by which another evaluation knows that it needs no others.

    Args:
        key: See `work_key`.
        model: As `vglm.evaluate` got it. A loaded model may have been changed since, so it has no hash.
        samples: Split -> samples; a picture counts with its file's size and time of change.
    """
    if not isinstance(model, str | PathLike | Mapping | None):
        return None
    pictures = [row.image for rows in samples.values() for row in rows if isinstance(row.image, Path)]
    states = {path.as_posix(): path.stat() for path in pictures if path.is_file()}
    return digest_of(
        {
            "work": json.loads(json.dumps(key, default=str)),
            "code": code_state().values["sha256"],
            "data": {name: fingerprint(rows) for name, rows in samples.items()},
            "pictures": [[name, state.st_size, state.st_mtime_ns] for name, state in sorted(states.items())],
        }
    )


def work_key(config: Mapping[str, Any], data_hash: str, run: Run | None) -> list[Any]:
    """All that the answers depend on, for `resumable_folder`.

    Args:
        config: The evaluation's plain config; how the answers are scored and where they go plays no role.
        data_hash: Of the data's files.
        run: The run; what came of it, its records, and the base model if that is a folder, count with their files' size
            and time of change.
    """
    path_or_id = config["model"].get("path_or_id")
    paths = [] if run is None else [run.folder / name for name in (CONFIG_FILE, RECORD_FILE, SPLITS_FILE)]
    state = _files_state(path_or_id, *([] if run is None or run.result is None else [run.result]), *paths)
    without = ("metrics", "output_dir", "run", "feature_cache", "tracker", "command", "batch_size")
    settings = {name: value for name, value in config.items() if name not in without}
    return [settings, data_hash, state, _versions()]


def _files_state(*sources: str | PathLike[str] | None) -> dict[str, list[int]]:
    """Size and time of change of files, and of all files below folders."""
    paths = [
        path for source in sources if source is not None for path in (Path(source), *sorted(Path(source).rglob("*")))
    ]
    states = [(path, path.stat()) for path in paths if path.is_file()]
    return {str(path.resolve()): [stat.st_size, stat.st_mtime_ns] for path, stat in states}


def names_of(config: Mapping[str, Any]) -> tuple[str, str]:
    """What the model and the data of an evaluation's config are called."""
    return _name(config["model"], "path_or_id"), _name(config["dataset"], "path")


def _name(component: Mapping[str, Any], path_key: str) -> str:
    """A component's display name: the last part of its path, or of what builds it; those of a mixture's parts."""
    if isinstance(component.get("datasets"), Mapping):
        return " + ".join(_name(part, path_key) for part in component["datasets"].values())
    if path_key in component:
        return Path(str(component[path_key])).name.removesuffix(".json")
    return str(component["_target_"]).rpartition(".")[2].replace("_", " ")


@contextmanager
def _opened(load: Callable[..., Loaded], *arguments: Any) -> Iterator[Loaded]:
    """Load a model for the time of a `with` block only, so that two of them are never in memory together."""
    model, processor = load(*arguments)
    yield model, processor
