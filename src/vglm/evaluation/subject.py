"""What is evaluated: two arms that answer the same samples, and what a report has to say about them.

a finished run     `before` (the base model) and `after` (with the adapter, or the tuned model)
a model alone      `shuffled` (each question with another sample's image) and `true`

Beside its own samples an arm answers controls: some test questions with other images (`vglm.evaluation.image_use`).
"""

import json
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch

from vglm.config import read_run_values
from vglm.data.loading import Splits
from vglm.data.sample import Sample
from vglm.data.splits import fingerprint
from vglm.errors import AdapterError, ConfigError, DataError
from vglm.evaluation.baselines import Answers, nearest_answers, put_in_context
from vglm.evaluation.decoding import describe_decoding
from vglm.evaluation.forgetting import describe_choice, read_curves
from vglm.evaluation.generation import answer_splits, check_precision
from vglm.evaluation.image_use import Control, shuffle_images
from vglm.evaluation.likelihoods import Choices, check_choices
from vglm.evaluation.predictions import Arm, Evaluation, Prediction, Stamp
from vglm.evaluation.processes import Processes
from vglm.evaluation.provenance import provenance, synthetic_stamps
from vglm.tuning.run_folder import RESULTS, latest_run

SPLITS = ("test", "probe", "validation", "train")
SPLITS_FILE = "splits.json"
_PACKAGES = ("visualglm-workbench", "torch", "transformers", "peft", "rouge-score", "pillow")

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
    def asked(self) -> list[tuple[str, Samples]]:
        """What it answers, each with a label: its own samples, then its controls'."""
        return [(self.label, self.samples), *((each.arm.label, {"test": each.samples}) for each in self.controls)]


@dataclass(frozen=True)
class Subject:
    """What is evaluated, see the module's description.

    Attributes:
        title: The heading of its report.
        summary: What it is, without a full stop.
        purpose: See `Evaluation`.
        baseline: The arm to compare with.
        candidate: The arm that is judged.
        facts: What to show of its configuration.
        trained_images: Content hashes of the images it was tuned on, as far as known.
        changed_files: Data files that are not what they were when it was tuned.
        leakage: What its test and validation share with its training split, a sentence each.
        trained_groups: Groups (studies, patients, stars) it was tuned on, where the data evaluated has the same files.
        is_other_test: Whether the test samples are not those that the run set apart, although the data is the same.
        stamps: What the run itself has to say before all.
        log: How the run went, see `vglm.evaluation.forgetting.read_curves`; None for a model alone.
    """

    title: str
    summary: str
    purpose: Literal["tuning", "image use"]
    baseline: ModelArm
    candidate: ModelArm
    facts: Mapping[str, str]
    trained_images: frozenset[str] = frozenset()
    changed_files: Sequence[str] = field(default=())
    leakage: Sequence[str] = field(default=())
    trained_groups: frozenset[str] = frozenset()
    is_other_test: bool = False
    stamps: Sequence[Stamp] = field(default=())
    log: Mapping[str, Any] | None = None


def find_run(run: str, outputs: Path) -> Path:
    """The folder of a finished run.

    Args:
        run: The folder, or `latest` for the newest one below `outputs`.
        outputs: Where runs are kept.

    Raises:
        ConfigError: There is no such folder, or the run in it did not finish.
    """
    if run == "latest":
        return latest_run(outputs)
    if not isinstance(run, str):  # as the command line said it
        raise ConfigError(f"run: expected the folder of a run, outputs/<recipe>/<time>, or latest, got {run!r}.")
    folder = Path(run)
    if not folder.is_dir():
        raise ConfigError(f"run {run!r}: there is no such folder. Pass outputs/<recipe>/<time>, or run=latest.")
    missing = [name for name in ("config.yaml", "run.json") if not (folder / name).is_file()]
    if not any((folder / name).is_dir() for name in RESULTS):
        missing.append(f"{RESULTS[0]}/ or {RESULTS[1]}/")
    if missing:
        found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise ConfigError(
            f"run {run!r} is no finished run: it lacks {', '.join(missing)} and holds {found}. Pass the folder that"
            f" train.py printed, or continue the run: python train.py resume={run}"
        )
    return folder


def read_run_config(folder: Path) -> dict[str, Any]:
    """The config a run was started with, as plain values.

    Args:
        folder: The run, as found by `find_run`.

    Raises:
        ConfigError: `config.yaml` cannot be read, or names no model, data, method or trainer.
    """
    path = folder / "config.yaml"
    config = read_run_values(path)
    missing = [name for name in ("model", "dataset", "method", "trainer") if not isinstance(config.get(name), dict)]
    if missing:
        raise ConfigError(f"{path} has no {', '.join(missing)}, so it is no config of train.py. Restore the file.")
    return config


def read_run(run: str | None, outputs: Path) -> tuple[Path | None, dict[str, Any]]:
    """The folder and the plain config of a finished run; None and nothing where no run is named.

    Raises:
        ConfigError: As `find_run` and `read_run_config`.
    """
    if run is None:
        return None, {}
    folder = find_run(run, outputs)
    return folder, read_run_config(folder)


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
        raise DataError(
            f"the data has no samples in {', '.join(names) or 'no splits'}. Name a dataset or splits that do."
        )
    samples = {name: rows for name, rows in samples.items() if len(rows)}
    check_choices(choices, samples)
    return samples


def open_subject(
    config: Mapping[str, Any],
    run: Path | None,
    trained: Mapping[str, Any],
    samples: Samples,
    files: Mapping[str, str],
    controls: Sequence[Control],
    load: Callable[..., Loaded],
) -> Subject:
    """Put together what is evaluated: a finished run, or where there is none a model alone.

    Args:
        config: The evaluation's plain config.
        run: The run's folder, as found by `find_run`.
        trained: The run's plain config; empty without a run.
        samples: What to evaluate on.
        files: SHA-256 of the data's files, as they are now.
        controls: Test questions with other images.
        load: Loads the model that `config` names; takes `adapter`, a folder, where there is one to put on it.

    Raises:
        AdapterError: The run's description or its adapter cannot be read, or does not fit the base model.
        DataError: The images of a split cannot be shuffled.
    """
    if run is None:
        return _single_model(config, samples, controls, load)
    is_trained_data = config["dataset"] == trained["dataset"]  # divided as it was for the run
    return _tuned_run(run, trained, samples, files, is_trained_data, controls, load, config["model"].get("dtype"))


def _tuned_run(
    folder: Path,
    trained: Mapping[str, Any],
    samples: Samples,
    files: Mapping[str, str],
    is_trained_data: bool,
    controls: Sequence[Control],
    load: Callable[..., Loaded],
    dtype: str | None,
) -> Subject:
    """Arms `before` and `after`; an adapter shares one loaded model between both, else `dtype` is that of the base."""
    try:
        facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        data, trainer, method = facts["data"], trained["trainer"], trained["method"]
        title, seed, weights = (str(facts[name]) for name in ("recipe", "seed", "base_weights_sha256"))
    except (ValueError, KeyError, TypeError) as error:
        path = folder / "run.json"
        raise AdapterError(f"{path} is damaged ({error!r}). Train again, or restore the file.") from error
    record = _read_record(folder / SPLITS_FILE, set(files.values()))
    apart = record.get("test", {}).get("sha256")
    model_name, data_name = _name(trained["model"], "path_or_id"), _name(trained["dataset"], "path")
    method_name = str(method["_target_"]).rpartition(".")[2]
    settings = [f"{name} {value}" for name, value in method.items() if isinstance(value, int | float)]
    kept, stamps = describe_choice(facts, samples)
    before = Arm(label="before", meaning=f"{model_name} as it was")
    earlier = [control.of("before") for control in controls if not control.is_for_candidate]
    later = [control.of("after") for control in controls]
    if (folder / "adapter").is_dir():
        model, processor = load(adapter=str(folder / "adapter"))
        to_accelerator(model)
        after = Arm(label="after", meaning="the same model with the run's adapter")

        @contextmanager
        def without_adapter() -> Iterator[Loaded]:
            with model.disable_adapter():
                yield model, processor

        arms = (
            ModelArm(before, samples, without_adapter, earlier),
            ModelArm(after, samples, lambda: nullcontext((model, processor)), later),
        )
    else:
        from vglm.model.loading import load_pretrained  # takes seconds to import

        after = Arm(label="after", meaning="the model that the run tuned as a whole")
        arms = (
            ModelArm(before, samples, lambda: _opened(load), earlier),
            ModelArm(after, samples, lambda: _opened(partial(load_pretrained, dtype=dtype), folder / "model"), later),
        )
    return Subject(
        title=title,
        summary=f"{model_name} tuned with {method_name} on {data['train']:,} samples of {data_name}",
        purpose="tuning",
        baseline=arms[0],
        candidate=arms[1],
        facts={
            "run": folder.as_posix(),
            "base model": model_name,
            "base weights": f"sha256 {weights[:16]}",
            "method": ", ".join([method_name, *settings]),
            "training data": f"{data_name}, {data['train']:,} samples, sha256 {str(data['sha256'])[:16]}",
            "training": f"{trainer['max_steps']} steps of {trainer['per_device_train_batch_size']} samples,"
            f" learning rate {trainer['learning_rate']}, seed {seed}",
            **kept,
            **_tested_on(samples, apart),
        },
        trained_images=frozenset(data["train_images"] or ()),
        changed_files=[
            name for name, digest in files.items() if is_trained_data and data["files"].get(name, digest) != digest
        ],
        leakage=data.get("leakage", ()),
        trained_groups=frozenset(record.get("train", {}).get("group_names", ())),
        is_other_test="test" in samples and apart is not None and fingerprint(samples["test"]) != apart,
        stamps=stamps,
        log=read_curves(folder),
    )


def _read_record(path: Path, digests: set[str]) -> Mapping[str, Any]:
    """What the run's `splits.json` says of its splits, if it was made of some of these files; else nothing."""
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return dict(record["splits"]) if digests & set(record["files"].values()) else {}
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{path} is damaged ({error!r}). Train again, or restore the file.") from error


def _tested_on(samples: Samples, apart: str | None) -> dict[str, str]:
    """The test split by its hash, which names every question and answer in it."""
    if "test" not in samples:
        return {}
    digest = fingerprint(samples["test"])
    origin = ", the split that the run set apart" if digest == apart else ""
    return {"test data": f"{len(samples['test']):,} samples, sha256 {digest[:16]}{origin}"}


def _single_model(
    config: Mapping[str, Any], samples: Samples, controls: Sequence[Control], load: Callable[..., Loaded]
) -> Subject:
    """Arms `shuffled` (no control of it is needed) and `true`, and one loaded model for both."""
    seed = config["seed"]
    shuffled = {name: shuffle_images(rows, seed) for name, rows in samples.items()}
    model_name, data_name = _name(config["model"], "path_or_id"), _name(config["dataset"], "path")
    model, processor = load()
    to_accelerator(model)
    return Subject(
        title=f"{model_name} on {data_name}",
        summary="Every question is asked with its own image and with another sample's",
        purpose="image use",
        baseline=ModelArm(
            Arm(label="shuffled", meaning="each question with the image of another sample"),
            shuffled,
            lambda: nullcontext((model, processor)),
        ),
        candidate=ModelArm(
            Arm(label="true", meaning="each question with its own image"),
            samples,
            lambda: nullcontext((model, processor)),
            [control for control in controls if control.arm.label != "shuffled"],
        ),
        facts={"model": model_name, "data": data_name, "seed of the shuffling": str(seed)},
    )


def answer(
    subject: Subject,
    folder: Path,
    decoding: Mapping[str, Any],
    train: Sequence[Sample] = (),
    feature_cache: bool = False,
    processes: Processes | None = None,
    examples: Sequence[Sample] = (),
) -> Answers:
    """Let both arms answer all they are asked, one model in memory at a time, with the same settings.

    Where answers are sampled, controls get as many draws as the arms, of the same random numbers.

    Args:
        subject: What is evaluated.
        folder: The evaluation folder to write into; what lies there from a run that was stopped is not asked again.
        decoding: `batch_size`, `max_new_tokens`, `sampling` and `choices`, see `vglm.evaluation.decoding`.
        train: The training samples among which the untuned model looks for the nearest images; none if empty.
        feature_cache: See `generate_predictions`.
        processes: Who shares the work; this one alone if not given.
        examples: Training samples that the untuned model is shown before each test question, see `put_in_context`.

    Returns:
        The records of all arms, and what was found beside them; without records in other processes than the main one.

    Raises:
        ConfigError: The arms differ in precision, or a setting is wrong.
        WorkbenchError: Another process ended.
    """
    processes = processes or Processes.alone()
    records: dict[str, list[Prediction]] = {}
    nearest: list[str] = []
    precision: dict[str, Any] = {}
    shots = None
    test = subject.candidate.samples.get("test", ())
    for arm in (subject.baseline, subject.candidate):
        with arm.open() as (model, processor):
            precision = check_precision(model, arm.label, precision)
            asked = arm.asked
            if arm is subject.baseline:
                name = arm.label if subject.purpose == "tuning" else ""
                shots = put_in_context(examples, test, model, processor, decoding["max_new_tokens"], name)
                asked += [] if shots is None or not shots.samples else [(shots.arm.label, {"test": shots.samples})]
            for label, splits in asked:
                where = (folder, label)
                records[label] = answer_splits(
                    model, processor, splits, *where, feature_cache=feature_cache, processes=processes, **decoding
                )
            if arm is subject.baseline and len(train) and processes.is_main:
                nearest = nearest_answers(model, processor, train, test, batch_size=decoding["batch_size"])
    return Answers(subject.candidate.label, records, nearest, precision, shots)


def describe(subject: Subject, answers: Answers, decoding: Mapping[str, Any], config: str) -> Evaluation:
    """Say what was evaluated and how, for the report.

    Args:
        subject: What was evaluated.
        answers: What the arms answered.
        decoding: The settings of generation, as for `answer`.
        config: The resolved configuration, as YAML.
    """
    predictions = answers.candidate
    counts = Counter(record.split for record in predictions if record.draw == 0)
    scored = " and ".join(f"{count:,} {name} samples" for name, count in counts.items())
    draws = 1 + max((record.draw for record in predictions), default=0)
    return Evaluation(
        title=subject.title,
        summary=f"{subject.summary}. Scored on {scored}{f', each answered {draws} times' if draws > 1 else ''}.",
        purpose=subject.purpose,
        baseline=subject.baseline.arm,
        candidate=subject.candidate.arm,
        facts={**subject.facts, **provenance(config, subject.facts.get("run"))},
        decoding={**describe_decoding(decoding), **answers.precision},
        command=shlex.join(["python", *(_resolved(each, subject) for each in sys.argv)]),
        versions=_versions(),
        config=config,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        stamps=(*_stamps(subject, predictions), *synthetic_stamps(config)),
        controls=(
            *(each.arm for arm in (subject.baseline, subject.candidate) for each in arm.controls),
            *([answers.shots.arm] if answers.shots is not None and answers.shots.samples else ()),
        ),
    )


def _versions() -> dict[str, str]:
    """Versions of what answers and scores depend on; a checkout that is not installed has none."""
    versions = {}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _resolved(argument: str, subject: Subject) -> str:
    """An argument that means the same tomorrow."""
    return f"run={subject.facts['run']}" if argument == "run=latest" else argument


def _stamps(subject: Subject, predictions: Sequence[Prediction]) -> tuple[Stamp, ...]:
    """What a reader must know before believing the scores, from hashes of images and files."""
    hashes = {record.image_sha256 for record in predictions if record.split == "test"} - {None}
    stamps = list(subject.stamps)
    tested = [record for record in predictions if record.split == "test" and record.draw == 0]
    leaks = list(subject.leakage)
    if known := sum(record.group in subject.trained_groups for record in tested):
        leaks.append(f"{known} of {len(tested)} test samples are of groups that were trained on")
    if leaks:
        stamps.append(Stamp(text="LEAKED", detail=f"{'; '.join(leaks)}. The scores show memory as well as skill."))
    if subject.is_other_test:
        detail = "The data is the run's, but these are not the test samples that it set apart (splits.json)."
        stamps.append(Stamp(text="OTHER TEST SAMPLES", detail=detail))
    if seen := len(hashes & subject.trained_images):
        detail = f"{seen} of {len(hashes)} test images were trained on, so the scores show memory as well as skill."
        stamps.append(Stamp(text="EVALUATED ON TRAINING IMAGES", detail=detail))
    if changed := subject.changed_files:
        detail = f"{len(changed)} files of the data set are not what the run was trained with, {changed[0]} for one."
        stamps.append(Stamp(text="DATA CHANGED SINCE TRAINING", detail=detail))
    return tuple(stamps)


def work_key(config: Mapping[str, Any], data_hash: str, folder: Path | None) -> list[Any]:
    """All that the answers depend on, for `resumable_folder`.

    Args:
        config: The evaluation's plain config; how the answers are scored and where they go plays no role.
        data_hash: Of the data's files.
        folder: The run; what came of it, and the base model if that is a folder, count with their files' size and time
            of change.
    """
    path_or_id = config["model"].get("path_or_id")
    places = [] if path_or_id is None else [Path(path_or_id)]
    places += [] if folder is None else [folder / name for name in RESULTS]
    found = [(path, path.stat()) for place in places for path in sorted(place.rglob("*")) if path.is_file()]
    state = {str(path.resolve()): [stat.st_size, stat.st_mtime_ns] for path, stat in found}
    settings = {
        name: value for name, value in config.items() if name not in ("metrics", "output_dir", "run", "feature_cache")
    }
    return [settings, data_hash, state, _versions()]


def _name(component: Mapping[str, Any], path_key: str) -> str:
    """A component's name for people: the last part of its path, or of what builds it."""
    if path_key in component:
        return Path(str(component[path_key])).name.removesuffix(".json")
    return str(component["_target_"]).rpartition(".")[2].replace("_", " ")


@contextmanager
def _opened(load: Callable[..., Loaded], *arguments: Any) -> Iterator[Loaded]:
    """Load a model for the time of a `with` block only, so that two of them are never in memory together."""
    model, processor = load(*arguments)
    to_accelerator(model)
    yield model, processor


def to_accelerator(model: Any) -> None:
    """Move a model that lies whole on the CPU to the accelerator, if the machine has one."""
    if torch.accelerator.is_available() and {each.device.type for each in model.parameters()} == {"cpu"}:
        model.to(torch.accelerator.current_accelerator())
