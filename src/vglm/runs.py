"""Run folders, `outputs/<recipe>/<time>/`: found, opened, and every file in them checked where it is read.

    run = Run.open("latest")                 the newest finished one below outputs/; or a folder
    run.config["method"]["r"]                the config it was started with, plain values
    run.record.data.train                    what run.json says, as a dataclass
    run.result                               adapter/, or model/ after full tuning
    Run.find([Path("outputs/sweeps")])       all finished ones in some folders

A run folder may come from a colleague or a download: everything in it is checked before use, and no name or link in it
may lead out of it. `vglm.tuning.run_folder` writes what is read here.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from vglm.config import read_run_values
from vglm.config.aliases import FIELDS
from vglm.errors import AdapterError, CheckpointError, ConfigError, WorkbenchError, brief, message_of, typed
from vglm.files import inside, parse_record, read_record, read_text, recover

CONFIG_FILE = "config.yaml"
RECORD_FILE = "run.json"
SPLITS_FILE = "splits.json"
LOG_FILE = "log.jsonl"
SCORES_FILE = "forgetting.jsonl"
EVALUATION_FOLDER = "evaluation"
EVALUATION_FILE = "evaluation.json"
LATEST = "latest"
"""Names the newest finished run, wherever a run can be given."""
HISTORY_FILE = "evaluations.jsonl"

RESULTS = ("adapter", "model")
"""What a finished run has one of."""
UNVERIFIED = ".unverified"
"""Ends the name of a result that failed its check after training."""
RECORD_VERSION = 1
"""Of run.json; files without one are of version 1."""

CLOCKS_DIFFER = timedelta(days=1)
"""Tolerance for the clock of the machine that trained."""


# --- what the files of a run hold -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolPlan:
    """Which run of a protocol this is.

    Attributes:
        name: `few_shot`, `k_fold` or `leave_one_out`.
        shots: Training samples, of `few_shot`.
        fold: The fold that is tested, from 0.
        folds: How many there are.
    """

    name: str
    shots: int | None = None
    fold: int | None = None
    folds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """What was taken from the training samples to choose a checkpoint by, whole groups at a time.

    Attributes:
        samples: How many were held out.
        of: How many training samples there were before.
        seed: Of the draw.
    """

    samples: int
    of: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPlan:
    """How the data was divided; only the fields that are used.

    Attributes:
        protocol: None for a run of its own.
        divided: By what, in words; None of a mixture and of generated data.
        group: How it was determined which samples belong together, in words; None likewise.
        seed: Of the division, or of the mixing; None where nothing was drawn.
        validation: What was held out of the training samples, a sentence in older runs; None where the data has a
            validation split.
        task: Of a mixture, the name of the data set that is tested on.
        datasets: Of a mixture, name -> how that data set was divided.
    """

    protocol: ProtocolPlan | None = None
    divided: str | None = None
    group: str | None = None
    seed: int | None = None
    validation: HeldOut | str | None = None
    task: str | None = None
    datasets: Mapping[str, "DataPlan"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRecord:
    """What was trained on, see `vglm.tuning.run_folder.describe_data`.

    Attributes:
        train: Number of training samples.
        validation: Number of validation samples; None in older runs.
        sha256: Hash of the data's files.
        files: Name -> SHA-256 of each file.
        train_images: Content hashes of the training pictures; None where they were not hashed.
        leakage: What each split shares with training, see `vglm.data.splits.Leakage`; a sentence in older runs.
        plan: How it was divided.
    """

    train: int
    sha256: str
    validation: int | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    train_images: tuple[str, ...] | None = None
    leakage: tuple[str | Mapping[str, str | int], ...] = ()
    plan: DataPlan = DataPlan()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """What training took.

    Attributes:
        train_runtime: Seconds.
        scoring_seconds: Of these, for scoring checkpoints.
        peak_memory_bytes: See `vglm.tuning.memory`; None where it was not measured.
    """

    train_runtime: float
    scoring_seconds: float = 0.0
    peak_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgettingRecord:
    """What checkpoints were scored by, and which was chosen; see `vglm.evaluation.checkpoint_selection`.

    Attributes:
        metric: Name of the score of the domain.
        retention_metric: Name of that of the retention set; None in older runs, where it is the same.
        domain_split: Where the domain was scored.
        retention: Where the retention set comes from, in words.
        retention_sha256: Its `fingerprint`.
        budget_points: How many points might be lost; None without a budget.
        chosen_step: The checkpoint that became the result; None where it is the last state.
        stopped_early: Whether training was stopped because too much was forgotten.
        warning: What a reader must know before all.
        reason: Why that one was chosen, in words.
        choice: The same in numbers, see `vglm.evaluation.checkpoint_selection.Choice`; None in older runs.
    """

    metric: str = "exact_match"
    retention_metric: str | None = None
    domain_split: str | None = None
    retention: str | None = None
    retention_sha256: str | None = None
    budget_points: float | None = None
    chosen_step: int | None = None
    stopped_early: bool = False
    warning: str | None = None
    reason: str = ""
    choice: Mapping[str, int | float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The content of `run.json`; only the fields that are used.

    Attributes:
        recipe: The recipe's name.
        seed: The run's seed.
        started: When, as ISO 8601.
        base_weights_xxh3: `hash_weights` of the base model.
        base_weights_sha256: In older runs, its hash by the older algorithm.
        data: What was trained on.
        training: What training took; None while it has not ended.
        forgetting: What checkpoints were scored by; None where none were.
        versions: Package -> version; None where a package was not installed.
        version: Of the file.
    """

    recipe: str
    seed: int
    started: str
    data: DataRecord
    base_weights_xxh3: str | None = None
    base_weights_sha256: str | None = None
    training: TrainingRecord | None = None
    forgetting: ForgettingRecord | None = None
    versions: Mapping[str, str | None] = field(default_factory=dict)
    version: int = 1

    @property
    def base_weights(self) -> tuple[Literal["xxh3", "sha256"], str]:
        """How the identity of the base model was computed, and what it is.

        Raises:
            AdapterError: There is none.
        """
        if self.base_weights_xxh3 is not None:
            return "xxh3", self.base_weights_xxh3
        if self.base_weights_sha256 is not None:
            return "sha256", self.base_weights_sha256
        raise AdapterError("run.json does not name the base's weights. Train again, or restore the file.")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRecord:
    """One split in `splits.json`.

    Attributes:
        sha256: Hash over its questions and answers.
        group_names: Its groups.
    """

    sha256: str
    group_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitsRecord:
    """What `splits.json` says of how the data was divided.

    Attributes:
        files: Name -> SHA-256 of each of the data's files.
        splits: Name -> what was in it.
    """

    files: Mapping[str, str]
    splits: Mapping[str, SplitRecord]


@dataclass(frozen=True, slots=True)
class CheckpointScore:
    """What one state of the model is worth, a line of `forgetting.jsonl`.

    Attributes:
        step: Optimizer steps made; 0 is the model before training.
        domain: Score on the domain's samples, 0.0 to 1.0.
        retention: Score on the retention set; None where there is no retention set.
        domain_n: Number of the domain's samples that were scored.
        retention_n: Number of the retention set's.
        domain_exact_match: Exact match on the domain's samples, which is the score itself where no other is used; None
            in older runs.
    """

    step: int
    domain: float
    retention: float | None
    domain_n: int
    retention_n: int
    domain_exact_match: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A line of `log.jsonl`; only the fields that are used.

    Attributes:
        step: Optimizer steps made.
        loss: Mean since the line before; None in the line about the whole training.
        learning_rate: Of the first group of parameters.
    """

    step: int
    loss: float | None = None
    learning_rate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationEvent:
    """A scoring of a test set, a line of `evaluations.jsonl`.

    Attributes:
        time: When, as ISO 8601.
        folder: Name of the evaluation folder.
        test: Hash of the test samples.
        primary: The metric that the verdict rests on.
        metrics: All metrics requested.
        answered: Whether the models answered; else stored answers were scored.
    """

    time: str
    folder: str
    test: str
    primary: str
    metrics: tuple[str, ...]
    answered: bool


# --- the run ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A run folder; its files are read on first access.

    Attributes:
        folder: `outputs/<recipe>/<time>`, or below a sweep's folder.
        unverified: Whether a result that failed its check after training is taken, where there is no other.
    """

    folder: Path
    unverified: bool = False

    def __fspath__(self) -> str:
        """The folder, so that a run can be passed where a path is expected."""
        return str(self.folder)

    @staticmethod
    def is_at(path: str | os.PathLike[str]) -> bool:
        """Whether a folder is that of a run which has trained, finished or not."""
        return all((Path(path) / name).is_file() for name in (CONFIG_FILE, RECORD_FILE))

    @classmethod
    def open(cls, run: str | os.PathLike[str], outputs: Path = Path("outputs"), *, unverified: bool = False) -> "Run":
        """A finished run.

        Args:
            run: The folder, or `latest` for the newest one below `outputs`.
            outputs: Where runs are kept.
            unverified: See `Run`.

        Raises:
            ConfigError: There is no such folder, or the run in it did not finish.
            WorkbenchError: There is no newest one.
        """
        if str(run) == LATEST:
            return cls.latest(outputs, unverified=unverified)
        if not isinstance(run, str | os.PathLike):  # as a command line may say it
            raise ConfigError(f"run: expected the folder of a run, outputs/<recipe>/<time>, or latest, got {run!r}.")
        opened = cls(Path(run), unverified)
        if not _is_folder(opened.folder):
            shown = brief(ValueError(str(run)))
            raise ConfigError(f"run {shown!r}: there is no such folder. Pass outputs/<recipe>/<time>, or run=latest.")
        missing = [name for name in (CONFIG_FILE, RECORD_FILE) if not (opened.folder / name).is_file()]
        if opened.result is None:
            missing.append(f"{RESULTS[0]}/ or {RESULTS[1]}/")
            if (unverified_result := opened.unverified_result) is not None and len(missing) == 1:
                raise ConfigError(
                    f"{opened.folder} holds {unverified_result.name}/ alone: what was saved was not compared with"
                    f" what was trained, or is not the same. Go on with the run: {typed('train')} resume={run}; or"
                    " evaluate it as it is: unverified=true"
                )
        if missing:
            there = sorted(path.name for path in opened.folder.iterdir())
            more = f" and {len(there) - 10} more" if len(there) > 10 else ""
            advice = "Pass the folder that train.py printed"
            if CONFIG_FILE not in missing:
                advice += f", or continue the run: {typed('train')} resume={run}"
            elif "config.json" in there:
                advice += f"; it looks like a model, which evaluate.py takes as model.path_or_id={run}"
            raise ConfigError(
                f"run '{run}' is no finished run: it lacks {', '.join(missing)} and holds"
                f" {brief(ValueError(', '.join(there[:10]) or 'nothing'), 400)}{more}. {advice}"
            )
        return opened

    @classmethod
    def latest(cls, outputs: Path, *, unverified: bool = False) -> "Run":
        """The finished run below a folder that was started last.

        One whose run.json is damaged, or names a time that cannot be, is passed over with a warning on stderr.

        Args:
            outputs: Searched at any depth.
            unverified: See `Run`.

        Raises:
            WorkbenchError: No finished run is there.
        """
        dated = []
        for run in _finished(outputs, unverified):
            try:
                dated.append((run.started, run))
            except WorkbenchError as error:
                _warn(f"latest passes over {run.folder}: {error}")
        for _, run in sorted(dated, key=lambda row: (row[0], row[1].folder), reverse=True):
            try:
                _ = run.config
            except ConfigError as error:
                _warn(f"latest passes over {run.folder}: {error}")
            else:
                return run
        raise WorkbenchError(f"{outputs} holds no finished run. Train one first: {typed('train')}")

    @classmethod
    def find(cls, paths: Sequence[Path]) -> list["Run"]:
        """The finished runs in some folders.

        Args:
            paths: Runs, or folders with runs at any depth below.

        Returns:
            Each run once, in the order of the paths and then of their names.

        Raises:
            ConfigError: A folder does not exist or holds no finished run, or a run's config is damaged.
            AdapterError: A run's description, or that of its splits, is damaged.
            CheckpointError: A run's log or scores are damaged.
        """
        runs: dict[Path, Run] = {}
        for path in paths:
            if not _is_folder(path):
                raise ConfigError(f"{path}: there is no such folder. Pass run folders, or one that holds them.")
            finished = list(_finished(path))
            if not finished:
                raise ConfigError(f"{path} holds no finished run. Train one first: {typed('train')}")
            for run in finished:
                # all are checked before anybody works with one
                _ = run.config, run.record, run.splits, run.log, run.checkpoint_scores
                runs[run.folder.resolve()] = run
        return list(runs.values())

    @cached_property
    def config(self) -> dict[str, Any]:
        """The config the run was started with, as plain values.

        Raises:
            ConfigError: `config.yaml` cannot be read, or names no model, data, method or trainer.
        """
        path = inside(self.folder, CONFIG_FILE, error=ConfigError)
        if not path.is_file():
            raise ConfigError(f"{path} is no file. Train again, or restore it.")
        config = read_run_values(path)
        parts = [config.get(name) for name in ("model", "dataset", "method", "trainer")]
        if not all(isinstance(part, dict) and isinstance(part.get("_target_"), str) for part in parts):
            raise ConfigError(
                f"{path} is no config of train.py: expected model, dataset, method and trainer, each with a _target_."
                " Restore the file."
            )
        return config

    @cached_property
    def record(self) -> RunRecord:
        """What `run.json` says.

        Raises:
            AdapterError: The file is missing or damaged, or of a newer version.
        """
        path = inside(self.folder, RECORD_FILE, error=AdapterError)
        record = read_record(
            path, RunRecord, error=AdapterError, advice="Train again, or restore the file.", former=FIELDS
        )
        if record.version > RECORD_VERSION:
            raise AdapterError(
                f"{path} is of version {record.version}, this workbench reads up to {RECORD_VERSION}. Update it."
            )
        return record

    @property
    def started(self) -> datetime:
        """When the run was started.

        Raises:
            AdapterError: As `record`; or the time is none, in the future, or later than the file that names it.
        """
        text, path = self.record.started, self.folder / RECORD_FILE
        try:
            started = datetime.fromisoformat(text)
            started = started.replace(tzinfo=UTC) if started.tzinfo is None else started.astimezone(UTC)
            written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        except (ValueError, OverflowError) as error:
            raise AdapterError(f"{path}: `started` is no time ({brief(error)}). Restore the file.") from error
        if started > min(written, datetime.now(UTC)) + CLOCKS_DIFFER:
            raise AdapterError(
                f"{path}: `started` is {text}, and the file was written {written.isoformat(timespec='seconds')}."
                " Restore the file, or name the run by its folder."
            )
        return started

    @property
    def result(self) -> Path | None:
        """The adapter's folder, or the model's after full tuning; None while there is none."""
        folders = [inside(self.folder, name, error=AdapterError) for name in RESULTS if (self.folder / name).is_dir()]
        return folders[0] if folders else self.unverified_result if self.unverified else None

    @property
    def unverified_result(self) -> Path | None:
        """The folder of a result that failed its check after training; None where there is none."""
        names = [f"{name}{UNVERIFIED}" for name in RESULTS if (self.folder / f"{name}{UNVERIFIED}").is_dir()]
        return inside(self.folder, names[0], error=AdapterError) if names else None

    @property
    def adapter(self) -> Path | None:
        """The adapter's folder; None after full tuning."""
        return self.result if self.result is not None and self.result.name.startswith("adapter") else None

    @property
    def is_verified(self) -> bool:
        """Whether the result passed its check after training."""
        return self.result is not None and not self.result.name.endswith(UNVERIFIED)

    @property
    def size(self) -> int:
        """Bytes of the result's weights."""
        return 0 if self.result is None else sum(path.stat().st_size for path in self.result.rglob("*.safetensors"))

    @property
    def splits(self) -> SplitsRecord | None:
        """How the data was divided; None for runs that did not note it.

        Raises:
            AdapterError: `splits.json` is damaged.
        """
        path = inside(self.folder, SPLITS_FILE, error=AdapterError)
        if not path.exists():
            return None
        return read_record(
            path, SplitsRecord, error=AdapterError, advice="Train again, or restore the file.", former=FIELDS
        )

    @property
    def log(self) -> list[LogLine]:
        """The lines of `log.jsonl`; none where there is no such file.

        Raises:
            CheckpointError: A line is something else.
        """
        path = inside(self.folder, LOG_FILE, error=CheckpointError)
        if not path.exists():
            return []
        lines = read_text(path, error=CheckpointError).splitlines()
        return [
            parse_record(line, LogLine, f"{path}, line {number}", error=CheckpointError)
            for number, line in enumerate(lines, start=1)
        ]

    @property
    def checkpoint_scores(self) -> list[CheckpointScore]:
        """The scores of its checkpoints, see `read_scores`."""
        return read_scores(inside(self.folder, SCORES_FILE, error=CheckpointError))

    @property
    def evaluation_history(self) -> list[EvaluationEvent]:
        """Its evaluations in order; none of before they were noted.

        Raises:
            DataError: A line of `evaluations.jsonl` is something else.
        """
        path = inside(self.folder, HISTORY_FILE)
        if not path.exists():
            return []
        return [
            parse_record(line, EvaluationEvent, f"{path}, line {number}", advice="Remove the line.")
            for number, line in enumerate(read_text(path).splitlines(), start=1)
        ]

    @property
    def evaluation(self) -> Path:
        """The folder of its evaluation, which need not exist."""
        return self.folder / EVALUATION_FOLDER

    @property
    def is_evaluated(self) -> bool:
        """Whether the evaluation is there."""
        recover(self.evaluation)
        return (self.evaluation / EVALUATION_FILE).is_file()

    @property
    def evaluations(self) -> list[Path]:
        """The evaluation folders in it: its own, and those of benchmarks."""
        return [path.parent for path in sorted(self.folder.glob(f"{EVALUATION_FOLDER}*/{EVALUATION_FILE}"))]


def run_folder(path: Path) -> Path:
    """A folder as it was named; for `latest`, that of the newest finished run below `outputs`."""
    return Run.open(LATEST).folder if str(path) == LATEST and not path.exists() else path


def evaluation_folder(path: Path) -> Path:
    """An evaluation's folder: as it was named, or that in a run folder, or in the newest run (`latest`)."""
    folder = run_folder(path)
    own = Run(folder).evaluation
    return own if not (folder / EVALUATION_FILE).is_file() and (own / EVALUATION_FILE).is_file() else folder


def read_scores(path: Path) -> list[CheckpointScore]:
    """Read `forgetting.jsonl`; half a line, as a kill leaves it, ends it.

    Args:
        path: The file.

    Returns:
        The scores in order; none where there is no file.

    Raises:
        CheckpointError: A line is something else.
    """
    if not path.exists():
        return []
    scores = []
    text = read_text(path, error=CheckpointError)
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        fault = "is no score of a checkpoint"
        scores.append(
            parse_record(
                line, CheckpointScore, f"{path}, line {number}", error=CheckpointError, fault=fault, former=FIELDS
            )
        )
    return scores


def _finished(folder: Path, unverified: bool = False) -> Iterator[Run]:
    """The finished runs in a folder, by name."""
    for path in sorted(folder.rglob(RECORD_FILE)):
        run = Run(path.parent, unverified)
        try:
            is_finished = run.result is not None
        except AdapterError as error:
            _warn(str(error))
        else:
            if is_finished:
                yield run


def installed_version(package: str) -> str | None:
    """Version of a package for a record; None where it is not installed, as the workbench run from a checkout."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _warn(text: str) -> None:
    print(f"warning: {message_of(WorkbenchError(text))}", file=sys.stderr)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # no possible name
        return False
