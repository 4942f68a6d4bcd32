"""An evaluation from the arms to the report, in Python; `evaluate.py` calls it with what its config builds.

result = evaluate(run="outputs/background/lora/2026-11-22_20-00-00", metrics=["exact_match", "chrf"])
result.comparison.verdict.finding              "better", "worse", "open", "too few", "no skill"
result.scores["test"]["exact_match"]           {"values": {"before": 0.0, "after": 0.925}, "interval": …, …}
score(result.folder, ["bleu_zh"])              the stored answers by other metrics
compare([first.folder, second.folder])         several of them side by side
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from os import PathLike, fspath
from pathlib import Path
from random import Random
from typing import Any, Literal

import yaml

from vglm.config import anchor_paths, build
from vglm.config.components import Component, is_recorded
from vglm.config.components import describe as describe_component
from vglm.config.run_config import metrics_of_run
from vglm.console import keep_in
from vglm.data.loading import load_dataset
from vglm.data.sample import Sample
from vglm.data.splits import Splits, pick
from vglm.errors import ConfigError, DataError
from vglm.evaluation.predict.answers import read_answers, write_answers
from vglm.evaluation.predict.arms import (
    Loaded,
    answer,
    answers_key,
    describe,
    limited,
    names_of,
    open_arms,
    select_samples,
    work_key,
)
from vglm.evaluation.predict.controls import make_controls
from vglm.evaluation.predict.leaks import leaked_pairs, unsearched_stamps, write_leaks
from vglm.evaluation.predict.paraphrases import make_paraphrases, read_paraphrases
from vglm.evaluation.predict.task import Task
from vglm.evaluation.predict.training_answers import draw
from vglm.evaluation.predictions import Choices, read_evaluation, write_curves, write_evaluation
from vglm.evaluation.report import write_report
from vglm.evaluation.score.baselines import BASELINES_FILE, collect_baselines, write_baselines
from vglm.evaluation.score.comparison import Comparison
from vglm.evaluation.score.metrics import EXACT_MATCH, Metric
from vglm.evaluation.score.rating_files import keep_ratings
from vglm.evaluation.score.schema import MetricScore
from vglm.evaluation.score.scoring import (
    keep_report,
    note_in_run,
    noted,
    read_comparison,
    refresh,
    rescore,
    score_arms,
    score_folder,
    score_stored,
)
from vglm.evaluation.score.settings import MetricSettings
from vglm.evaluation.score.side_by_side import SideBySide, compare_evaluations
from vglm.evaluation.seals import renew_seal, write_seals
from vglm.processes import Processes
from vglm.runs import EVALUATION_FILE, Run

_OPENED_BY = {
    "dataset": ("vglm.data.loading.load_dataset", "path"),
    "model": ("vglm.model.loading.load_pretrained", "path_or_id"),
}

Split = Literal["test", "retention", "validation", "train"]
Model = str | PathLike[str] | Loaded | Callable[..., Loaded]
"""A model's folder or id, a loaded model with its processor, or what loads both and takes `adapter`, a folder."""


@dataclass(frozen=True)
class EvaluationResult:
    """A finished evaluation.

    Attributes:
        folder: Where it lies: every arm's predictions.jsonl, metrics.json, report/.
        is_main: Whether this process scored it; of several processes one does.
    """

    folder: Path
    is_main: bool = True

    @cached_property
    def comparison(self) -> Comparison:
        """Both arms compared, with all that the report shows."""
        return read_comparison(self.folder)

    @property
    def scores(self) -> dict[str, dict[str, MetricScore]]:
        """Split -> metric -> score, plain values as in `metrics.json`."""
        return {split: part["scores"] for split, part in self.comparison.as_dict()["splits"].items()}

    def frame(self) -> Any:
        """Every answer as a row of a pandas DataFrame: both arms and the controls, a row for each sample and draw.

        Columns: `arm`, `split`, `id`, `group`, `kind`, `question`, `reference`, `prediction`, `right` (exact match),
        `image`, `draw`, `error`.
        """
        import pandas as pd

        columns = ("split", "id", "group", "kind", "question", "reference", "prediction", "image", "draw", "error")
        rows = [
            {
                "arm": arm,
                **{name: getattr(record, name) for name in columns},
                "right": EXACT_MATCH.score([record]) == 1.0,
            }
            for arm, records in read_answers(self.folder).records.items()
            for record in records
        ]
        return pd.DataFrame(rows, columns=["arm", *columns, "right"])

    def scores_frame(self) -> Any:
        """Every score as a row of a pandas DataFrame: split, metric, before, after, difference and its interval."""
        import pandas as pd

        rows = []
        for split, scores in self.scores.items():
            for metric, score in scores.items():
                low, high = score.get("interval") or (None, None)
                rows.append(
                    {"split": split, "metric": metric, **score["values"], "difference": score.get("difference")}
                    | {"low": low, "high": high, "n": score.get("n")}
                )
        return pd.DataFrame(rows)

    @property
    def report(self) -> Path:
        """The page."""
        return self.folder / "report" / "index.html"


def evaluate(
    run: Run | str | PathLike[str] | None = None,
    *,
    model: Model | Component | None = None,
    dataset: Splits | Component | str | PathLike[str] | None = None,
    metrics: MetricSettings | Component | Sequence[str | Metric] | None = None,
    task: Task | Component | None = None,
    unverified: bool = False,
    output_dir: str | PathLike[str] | None = None,
    splits: Split | Sequence[Split] = ("test", "retention"),
    limit: int | None = None,
    batch_size: int | None = None,
    max_new_tokens: int = 64,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    repeats: int = 1,
    choices: Choices = None,
    feature_cache: bool = True,
    seed: int = 1,
    image_use: bool = True,
    image_use_samples: int = 100,
    prompts: str | PathLike[str] | None = None,
    baselines: bool = True,
    shots_in_context: int = 4,
    training_loss_samples: int = 200,
    config: Mapping[str, Any] | None = None,
) -> EvaluationResult:
    """Compare two arms on the same questions: before and after a run, or a model with true and with shuffled images.

    The same call after an interruption continues. A call that differs only in its metrics scores the stored answers.

    Args:
        run: A run, its folder, or `latest`; None for a model alone.
        model: The run's base model, or the model that is evaluated; the run's own if not given.
        dataset: The data, see `vglm.load_dataset`, or its path; the run's own data if not given.
        metrics: What to score by, the primary one first; the run's own if not given. Exact match and ROUGE-L are always
            there.
        task: The task, whose prompt words the questions; unchanged if not given.
        unverified: Whether to take a result that failed its check after training.
        output_dir: The evaluation folder; `<run>/evaluation`, or one below outputs/evaluation, if not given.
        splits: Those that the data has of these.
        limit: Maximum number of samples of each split, see `vglm.data.splits.pick`; None: all. The report is stamped.
        batch_size: Answers per call of the model; None: as many as fit into memory, up to 64.
        max_new_tokens: Longest answer, in tokens.
        temperature: None for greedy answers; above 0 they are drawn at random.
        top_p: With a temperature: only from the likeliest tokens that together have this probability.
        top_k: Likewise: sample only from this many of the likeliest tokens.
        repeats: Likewise: answers to each question.
        choices: Answers to score by likelihood too: a list for all questions, or `sample` for each one's own.
        feature_cache: Whether to keep, and reuse, what a frozen Q-Former makes of each picture.
        seed: Of sampled answers, of the shuffling and of other draws.
        image_use: Whether to ask test questions again with other images.
        image_use_samples: Maximum number of these.
        prompts: A file of paraphrases, one a line, in which both arms are asked some test questions again, see
            `vglm.evaluation.predict.paraphrases`; none if not given.
        baselines: Whether to score simple rules, and the question without its image.
        shots_in_context: Training examples that the untuned model sees before each question; 0 for none.
        training_loss_samples: Of a run on its own data: at most this many training samples, drawn by seed, whose loss
            under the tuned model is measured, so that the report can show the hardest; 0 for none.
        config: The resolved config to keep in the folder, plain values; what these arguments say if not given.

    Returns:
        The evaluation. In other processes than the main one its folder may not be there yet.

    Raises:
        ConfigError: An argument cannot work, or there is no model or no data.
        DataError: The data has none of the splits, or the folder is used by another process.
        AdapterError: The run's description or its adapter cannot be read, or does not fit the base model.
        WorkbenchError: Another process ended.
    """
    arguments = {name: value for name, value in locals().items() if name != "config"}
    arguments["task"] = task = build(task) if isinstance(task, Mapping) else task or Task()
    tuned = run if isinstance(run, Run | None) else Run.open(run, unverified=unverified)
    settings = MetricSettings.of(metrics_of_run(tuned.config) if metrics is None and tuned is not None else metrics)
    settings.check_files()
    paraphrases = read_paraphrases(prompts)
    config = _describe_arguments(arguments, tuned, settings) if config is None else config
    processes = Processes()

    # score the stored answers, if the same were asked before
    data = _read(_own(tuned, "dataset") if dataset is None else dataset)
    own_data = tuned is not None and config["dataset"] == tuned.config["dataset"]
    data = _as_trained(data, tuned) if tuned is not None and own_data else data
    whole = select_samples(data, splits, choices)
    samples = task.check({name: pick(rows, limit) for name, rows in whole.items()})
    output = Path(output_dir or task.output_dir(None if tuned is None else tuned.folder, *names_of(config)))
    key = work_key(config, data.data_hash, tuned)
    answered_with = answers_key(key, model, samples)
    if processes.on_main(lambda: _has_answers(output, answered_with)):
        if processes.is_main:
            print(f"{output}: model, data and decoding are those of the stored answers, which are scored again.")
            _score_stored(output, config["metrics"], settings, task.reword(data.train) if baselines else None)
            keep_in(output)
        return EvaluationResult(output, is_main=processes.is_main)

    # open the arms
    from vglm.evaluation.predict.decoding import Decoding  # take seconds to import
    from vglm.evaluation.predict.examples import draw_examples

    decoding = Decoding.of(
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        repeats=repeats,
        seed=seed,
        choices=choices,
    )
    load = _loader(_own(tuned, "model") if model is None else model)
    controls = make_controls(samples, image_use_samples if image_use else 0, baselines, seed)
    controls += make_paraphrases(samples, paraphrases, seed)
    train = task.reword(data.train) if baselines else ()
    examples = draw_examples(train, shots_in_context, seed)
    trained = draw(data.train, training_loss_samples, Random(seed)) if own_data else []
    arms = task.ask(
        limited(open_arms(config, tuned, samples, whole, data.files, controls, load), whole, samples, tuned)
    )
    if own_data:
        arms = replace(arms, stamps=(*arms.stamps, *unsearched_stamps(data, samples)))

    # let each arm answer, score, report; the folder appears when all of it is there
    with processes.folder(output, marker=EVALUATION_FILE, key=key) as folder:
        if processes.is_main:
            keep_in(folder)
        answers = answer(arms, folder, decoding, train, feature_cache, processes, examples, trained)
        if not processes.is_main:  # it has done its part
            return EvaluationResult(output, is_main=False)
        text = yaml.safe_dump(dict(config), allow_unicode=True, sort_keys=False)
        pairs = leaked_pairs(data, samples, arms.trained_images)
        alike = [pair for pair in pairs if pair.how != "same pixels"]
        described = describe(arms, answers, samples, decoding, text, config.get("command"), data.synthetic, alike)
        write_answers(answers, folder)
        write_curves(arms.log, folder)
        write_leaks(pairs, folder)
        write_baselines(collect_baselines(train, answers, settings.of_texts()) if baselines else [], folder)
        described = replace(described, sealed=write_seals(folder), answered_with=answered_with)
        described = noted(described, output, settings.names, tuned)
        write_evaluation(described, folder)
        score_arms(folder, settings)
        keep_ratings(output, folder)  # ratings of answers that are unchanged stay valid
        comparison = score_folder(folder, settings)
        keep_report(output, folder, settings.names)
        write_report(folder, comparison)
    keep_in(output)
    note_in_run(described, tuned)
    result = EvaluationResult(output)
    result.__dict__["comparison"] = comparison  # nothing is computed twice
    return result


def _has_answers(folder: Path, answered_with: str | None) -> bool:
    """Whether an evaluation folder holds the answers that would be given again."""
    if answered_with is None or not (folder / EVALUATION_FILE).is_file():
        return False
    try:
        evaluation = read_evaluation(folder)
    except DataError:  # it is to be replaced
        return False
    return evaluation.answered_with == answered_with and not evaluation.is_changed


def _score_stored(
    folder: Path, metrics: Mapping[str, Any], settings: MetricSettings, train: Sequence[Sample] | None
) -> None:
    """Score the stored answers by the metrics of a new evaluation, baselines included."""

    def prepare(changed: Path) -> None:
        evaluation = read_evaluation(changed)
        baselines = [] if train is None else collect_baselines(train, read_answers(changed), settings.of_texts())
        write_baselines(baselines, changed)
        write_evaluation(replace(evaluation, sealed=renew_seal(changed, BASELINES_FILE)), changed)

    score_stored(folder, metrics, settings, write_report, prepare)


def score(folder: str | Path, metrics: Mapping[str, Any] | Sequence[str | Metric] | None = None) -> Comparison:
    """Score the stored answers of an evaluation again, and rewrite its report.

    Args:
        folder: The evaluation folder.
        metrics: Names, the primary one first; or changes of its `metrics`, such as {"names": [...], "labels": [...]}.
            The evaluation's own if not given.

    Returns:
        Both arms compared, with all that the report shows.

    Raises:
        ConfigError: The metrics are wrong.
        DataError: The folder holds no evaluation, or a file in it is damaged.
    """
    if metrics is None:
        return refresh(Path(folder), write_report)
    if isinstance(metrics, Mapping):
        return rescore(Path(folder), metrics, write_report)
    names = [metric if isinstance(metric, str) else metric.name for metric in metrics]
    own = {metric.name: metric for metric in metrics if not isinstance(metric, str)}
    changes = {"names": names, **({"custom": dict.fromkeys(own)} if own else {})}
    return rescore(Path(folder), changes, write_report, own)


def compare(evaluations: Sequence[EvaluationResult | Run | str | Path]) -> SideBySide:
    """Put evaluations of the same samples side by side, by their primary metric.

    Args:
        evaluations: Evaluations, runs that were evaluated, or folders of either; or one folder with many runs.

    Raises:
        ConfigError: A folder holds neither an evaluation nor a run.
        DataError: They are not of the same samples, or not by the same primary metric.
    """
    return compare_evaluations(
        [evaluation.folder if isinstance(evaluation, EvaluationResult) else evaluation for evaluation in evaluations]
    )


def _own(run: Run | None, name: str) -> Mapping[str, Any]:
    """A component of the run's config."""
    if run is None:
        raise ConfigError(f"there is no {name}: pass run=<run folder>, or both a model and a dataset.")
    component: Mapping[str, Any] = run.config[name]
    return component


def _read(dataset: Splits | Mapping[str, Any] | str | PathLike[str]) -> Splits:
    """The data, read if it was not."""
    if isinstance(dataset, Splits):
        return dataset
    splits: Splits = build(dataset) if isinstance(dataset, Mapping) else load_dataset(fspath(dataset))
    return splits


def _as_trained(data: Splits, run: Run) -> Splits:
    """A run's own data, its training split without what the run held out for validation or left out by its limit."""
    selection = run.config.get("checkpoint_selection") or {}
    if selection.get("forgetting_budget") is not None:
        data = build({**selection, "retention": None}).divide(data)  # dividing needs no retention set
    return data.limited(run.config.get("limit"))


def _loader(model: Model | Mapping[str, Any]) -> Callable[..., Loaded]:
    """A function that loads a model and its processor, optionally with `adapter`, a folder."""
    from vglm.model.loading import load_pretrained  # takes seconds to import

    if isinstance(model, Mapping):
        return partial(build, model)
    if isinstance(model, str | PathLike):
        return partial(load_pretrained, fspath(model))
    if isinstance(model, tuple):
        return partial(_loaded, model)
    return model


def _loaded(model: Loaded, *, adapter: str | None = None) -> Loaded:
    if adapter is not None:
        raise ConfigError("a run's adapter is put on a model that is loaded anew: pass the model's folder or id.")
    return model


def _describe_arguments(arguments: Mapping[str, Any], run: Run | None, settings: MetricSettings) -> dict[str, Any]:
    """A config for the folder, of arguments that no config was read for."""
    arguments = {**arguments, "prompts": None if arguments["prompts"] is None else fspath(arguments["prompts"])}
    plain: dict[str, Any] = {
        name: value for name, value in arguments.items() if isinstance(value, str | int | float | None)
    }
    plain["splits"] = [arguments["splits"]] if isinstance(arguments["splits"], str) else list(arguments["splits"])
    if arguments["choices"] is not None and not isinstance(arguments["choices"], str):
        plain["choices"] = list(arguments["choices"])
    components = anchor_paths({name: _describe(arguments[name], run, name) for name in ("model", "dataset")})
    task: Task = arguments["task"]
    about = {"_target_": "vglm.evaluation.predict.task.Task", "name": task.name, "version": task.version}
    values = {
        name: value for name, value in arguments.items() if value is not None and not isinstance(value, Splits | Task)
    }
    shown = ", ".join(f"{name}={value!r}"[:200] for name, value in values.items() if name in plain)
    return {
        **plain,
        **components,
        "metrics": settings.as_dict(),
        "task": {**about, "prompt": task.prompt},
        "run": None if run is None else run.folder.as_posix(),
        "output_dir": None,
        "command": f"vglm.evaluate({shown})",
    }


def _describe(value: Any, run: Run | None, name: str) -> Mapping[str, Any]:
    """What a model or data set is called, as a config would name it."""
    if value is None:
        return _own(run, name)
    if isinstance(value, str | PathLike):
        target, where = _OPENED_BY[name]
        return {"_target_": target, where: fspath(value)}
    if is_recorded(component := describe_component(value)):
        return component
    if isinstance(value, Splits):
        files = sorted(value.files)
        return {"_target_": "vglm.data.loading.Splits", "path": files[0] if len(files) == 1 else f"{len(files)} files"}
    if isinstance(value, tuple):
        value = getattr(getattr(value[0], "config", None), "name_or_path", None) or type(value[0]).__name__
    shown = value if isinstance(value, str) else getattr(value, "__name__", type(value).__name__)
    return {"_target_": "vglm.model.loading.load_pretrained", "path_or_id": str(shown)}
