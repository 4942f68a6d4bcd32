"""Score an evaluation folder, with `metrics.json` as the result; later again by other metrics.

    python evaluate.py run=latest metrics=report_xray metrics.external.bert_score.model=<folder>     as part of it
    vglm score <evaluation folder> metrics.external.green.scores='<folder>/{arm}.jsonl' …            afterwards

What needs weights, an endpoint or another program is computed once and stored; what was stored with the same signature
is not computed again. See `vglm.evaluation.score.metrics.external`.
"""

import json
import re
import shutil
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from vglm.errors import ConfigError, DataError
from vglm.evaluation.messages import Message
from vglm.evaluation.predictions import (
    CHANGED_STAMP,
    CURVES_FILE,
    Evaluation,
    Stamp,
    read_arms,
    read_evaluation,
    write_evaluation,
)
from vglm.evaluation.score.baselines import read_baselines
from vglm.evaluation.score.comparison import RETENTION, Comparison, compare_folder
from vglm.evaluation.score.image_use import read_visual_gains
from vglm.evaluation.score.metrics import EXACT_MATCH, Metric, score_conventions
from vglm.evaluation.score.metrics.external import Store, read_store, write_store
from vglm.evaluation.score.schema import write_metrics
from vglm.evaluation.score.settings import (
    MetricSettings,
    metrics_of,
    read_config,
    read_settings,
    spell_out,
    unnamed_settings,
)
from vglm.evaluation.seals import DESCRIPTION_FILE
from vglm.files import changed_folder, inside, locked, read_text, remove_folder, write_json_lines
from vglm.runs import EVALUATION_FILE, HISTORY_FILE, EvaluationEvent, Run

STAMP = "ANSWERS LEFT UNSCORED"
LATE_STAMP = "PRIMARY METRIC CHOSEN AFTERWARDS"

Report = Callable[[Path, Comparison], object]
"""Makes the report of a folder that is being made, see `vglm.evaluation.report.write_report`."""


def score_folder(folder: Path, settings: MetricSettings | None = None) -> Comparison:
    """As `read_comparison`, and write `metrics.json` into the folder, which is not published yet."""
    comparison = read_comparison(folder, settings)
    write_metrics(comparison.as_dict(), folder)
    return comparison


def refresh(folder: Path, report: Report) -> Comparison:
    """Score the stored answers again by the same metrics, and rewrite the report; both appear together.

    Args:
        folder: The evaluation folder.
        report: Makes the report.

    Raises:
        ConfigError: As `read_comparison`.
        DataError: Likewise; or another process is writing the folder.
    """
    read_evaluation(folder)  # raises the error about a folder that is not an evaluation
    with changed_folder(folder, marker=EVALUATION_FILE) as changed:
        comparison = score_folder(changed)
        report(changed, comparison)
    return comparison


def read_comparison(folder: Path, settings: MetricSettings | None = None) -> Comparison:
    """Score the answers in an evaluation folder.

    Args:
        folder: The evaluation folder, with what `metrics.external` asks for in it already, see `score_arms`.
        settings: What to score by; those of its config if not given.

    Returns:
        Everything that a report shows: both arms compared, image use, baselines and conventions.

    Raises:
        ConfigError: The metrics are wrong, or a convention's packages are not installed.
        DataError: A file is missing or damaged.
    """
    evaluation = read_evaluation(folder)
    settings = settings or read_settings(evaluation)
    try:
        comparison = compare_folder(folder, evaluation, settings)
        return replace(
            comparison,
            gains=tuple(read_visual_gains(folder, evaluation, comparison)),
            baselines=tuple(read_baselines(folder)),
            conventions=_conventions(comparison, settings.convention),
            budget_points=_budget(folder),
        )
    except DataError as error:
        altered = next((stamp for stamp in evaluation.stamps if stamp.text == CHANGED_STAMP), None)
        if altered is None:
            raise
        raise DataError(f"{error} {altered.text}: {altered.detail}") from error


def _budget(folder: Path) -> float | None:
    """How many points of retention the run was allowed to lose, of `curves.json`; None where not set."""
    path = inside(folder, CURVES_FILE)
    if not path.is_file():
        return None
    try:
        content = json.loads(read_text(path, error=DataError))
    except (ValueError, RecursionError):
        return None  # the section of the curves says so
    budget = content.get("budget_points") if isinstance(content, dict) else None
    return float(budget) if isinstance(budget, int | float) and budget >= 0 else None


def _conventions(comparison: Comparison, convention: str | None) -> dict[str, Any]:
    """The main split's candidate by other projects' conventions, where requested."""
    if convention is None:
        return {}
    records = [pair.candidate for pair in comparison.splits[comparison.main].pairs]
    return dict(score_conventions(records, None if convention == "all" else [convention]))


def rescore(
    folder: Path,
    settings: Sequence[str] | Mapping[str, Any],
    report: Report | None = None,
    own: Mapping[str, Metric] | None = None,
) -> Comparison:
    """Score an evaluation again, from its stored answers and with its own metrics, some settings of which may change.

    Settings that open a connection, a file or an environment variable are used only where `settings` name them, since
    the description may be untrusted. Scores are stored as they are computed, so that the same command continues after a
    failure; the new description and the report appear together.

    Args:
        folder: The evaluation folder. Its new description keeps the names of the metrics it was made with under
            `metrics.asked_first`.
        settings: As on the command line, such as `metrics.names=[bleu_zh,green]` or `metrics.external.green.scores=…`;
            or the `metrics` themselves, such as {"names": ["bleu_zh"]}.
        report: Makes the report.
        own: Metrics made in Python, by name.

    Returns:
        The comparison by these metrics.

    Raises:
        ConfigError: A setting is not one of the metrics', or has to be named again, or as `score_arms`.
        CheckpointError: As `score_arms`.
        DataError: As `score_arms`, or the folder holds no evaluation, or another process is scoring it.
    """
    earlier = spell_out(metrics_of(read_config(read_evaluation(folder))))
    changes = settings if isinstance(settings, Mapping) else _parse_settings(settings)
    metrics = spell_out(_merged(earlier, changes))
    metrics["names"] = metrics.get("names") or []
    chosen = MetricSettings.of(metrics, own)
    stored = _unchanged(folder, earlier, metrics, chosen)
    _check_named(metrics, stored, _flatten(changes.get("external") or {}, "metrics.external."))
    return _score_anew(folder, metrics, chosen, stored, report)


def score_stored(
    folder: Path, metrics: Mapping[str, Any], chosen: MetricSettings, report: Report, prepare: Callable[[Path], None]
) -> Comparison:
    """Score the stored answers for a new evaluation that needs no others.

    Args:
        folder: The evaluation folder.
        metrics: The new evaluation's `metrics`, plain values.
        chosen: The same, built.
        report: Makes the report.
        prepare: Makes what else depends on the metrics, in the folder that is being made.

    Raises:
        ConfigError: As `rescore`.
        CheckpointError: Likewise.
        DataError: Likewise.
    """
    earlier = spell_out(metrics_of(read_config(read_evaluation(folder))))
    metrics = spell_out(metrics)
    metrics["names"] = metrics.get("names") or []
    return _score_anew(folder, metrics, chosen, _unchanged(folder, earlier, metrics, chosen), report, prepare)


def _score_anew(
    folder: Path,
    metrics: dict[str, Any],
    chosen: MetricSettings,
    stored: Collection[str],
    report: Report | None,
    prepare: Callable[[Path], None] | None = None,
) -> Comparison:
    """Score stored answers by metrics; their report, and that they were, are kept."""
    chosen.check_files(stored=stored)
    busy = f"{folder} is being scored by another process right now. Wait until it is done."
    with locked(folder, busy, error=DataError):
        score_arms(folder, chosen, stored=stored, is_final=False)
        with changed_folder(folder, marker=EVALUATION_FILE) as changed:
            score_arms(changed, chosen, stored={*chosen.components})
            if prepare is not None:
                prepare(changed)
            evaluation = read_evaluation(changed)
            config = read_config(evaluation)
            earlier = metrics_of(config)
            asked_first = list(earlier.get("asked_first") or earlier.get("names") or ())
            config["metrics"] = metrics | {"asked_first": asked_first}  # the page says which came after the answers
            text = yaml.safe_dump(config, allow_unicode=True, sort_keys=False)
            if not evaluation.history:  # of an older version, which did not note the first one
                first = _event(evaluation, folder, asked_first, evaluation.created)
                evaluation = replace(evaluation, history=(first,))
            evaluation = noted(replace(evaluation, config=text), folder, metrics["names"], run_of(folder))
            write_evaluation(evaluation, changed)
            comparison = score_folder(changed, chosen)
            if report is not None:
                keep_report(folder, changed, metrics["names"])
                report(changed, comparison)
    note_in_run(evaluation, run_of(folder))
    return comparison


def primary_of(names: Sequence[str]) -> str:
    """The metric that a verdict uses."""
    return next(iter(names), EXACT_MATCH.name)


def keep_report(old: Path, new: Path, names: Sequence[str]) -> None:
    """Keep the reports of an evaluation folder in the one that is to replace it, unless the primary metric is the same.

    Args:
        old: The evaluation folder; it need not exist.
        new: What replaces it, `old` copied or an empty folder.
        names: The new metrics, the primary one first.
    """
    if not (old / EVALUATION_FILE).is_file():
        return
    for path in old.glob("report-*"):
        if not (new / path.name).exists():
            shutil.copytree(path, new / path.name)
    try:
        earlier = primary_of(metrics_of(read_config(read_evaluation(old))).get("names") or ())
    except DataError:  # the folder that is to be replaced may be damaged
        earlier = "damaged"
    if earlier != primary_of(names) and (old / "report").is_dir():
        archive = inside(new, f"report-{re.sub(r'[^A-Za-z0-9._-]', '-', earlier)[:60]}")
        if archive.exists():
            remove_folder(archive)
        shutil.copytree(old / "report", archive)


def run_of(folder: Path) -> Run | None:
    """The run that an evaluation folder lies in."""
    parent = folder.resolve().parent
    return Run(parent) if Run.is_at(parent) else None


def noted(evaluation: Evaluation, folder: Path, names: Sequence[str], run: Run | None) -> Evaluation:
    """The description with the evaluations of its test samples, as its run or itself knows them, and this one.

    It gets a stamp if the verdict rests on another metric than in the first of them.

    Args:
        evaluation: The description; its own history counts too.
        folder: The evaluation folder.
        names: Of the metrics, the primary one first.
        run: The run that is evaluated.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    event = _event(evaluation, folder, names, now, answered=not evaluation.history)
    of_run = [] if run is None or not event.test else run.evaluation_history
    with suppress(DataError):  # there is none yet, or a damaged one is to be replaced
        of_run = [*read_evaluation(folder).history, *of_run]
    earlier = dict.fromkeys(
        earlier_event for earlier_event in (*evaluation.history, *of_run) if earlier_event.test == event.test
    )
    history = (*sorted(earlier, key=lambda past: past.time), event)
    return _with_late_stamp(replace(evaluation, history=history), event.primary, history[0].primary)


def _event(
    evaluation: Evaluation, folder: Path, names: Sequence[str], time: str, *, answered: bool = True
) -> EvaluationEvent:
    data = evaluation.data
    return EvaluationEvent(
        time=time,
        folder=folder.name,
        test=next((digest for name, digest in data.items() if name != RETENTION), data.get(RETENTION, "")),
        primary=primary_of(names),
        metrics=tuple(names) or (EXACT_MATCH.name,),
        answered=answered,
    )


def note_in_run(evaluation: Evaluation, run: Run | None) -> None:
    """Add the newest event to the run's `evaluations.jsonl`; a run that cannot be written stays as it is."""
    if run is None:
        return
    events = [*run.evaluation_history, evaluation.history[-1]]
    try:
        write_json_lines(run.folder / HISTORY_FILE, map(asdict, events), error=DataError)
    except DataError as error:
        print(f"warning: the evaluation is not in the run's history: {error}", file=sys.stderr)


def _check_named(metrics: Mapping[str, Any], stored: Collection[str], overrides: Collection[str]) -> None:
    """Refuse to compute scores by settings that only the evaluation's description names."""
    for name, values in (metrics["external"] or {}).items():
        where = f"metrics.external.{name}."
        named = [override.removeprefix(where) for override in overrides if override.startswith(where)]
        if name in stored or values is None or not (unnamed := unnamed_settings(values, named)):
            continue
        repeat = " ".join(f"{where}{key}=<...>" for key in unnamed)
        raise ConfigError(
            f"metrics.external.{name} has to be computed, and an evaluation's description does not decide what is"
            f" opened or where answers are sent. Repeat on this command line: {repeat} (what they were stands in the"
            f" report), or leave it out: metrics.external.{name}=null"
        )


def _parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """`metrics.a.b=value` as nested values, without `metrics`."""
    values: dict[str, Any] = {}
    for setting in settings:
        path, equals, value = setting.partition("=")
        first, *keys, last = path.split(".") if "." in path else ("", "")
        if not equals or first != "metrics":
            raise ConfigError(f"{setting!r} is no setting of the metrics; expected metrics.<key>=<value>.")
        node = values
        for key in keys:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{setting!r}: {key} has another value before it on this command line.")
        node[last] = _value(value)
    return values


def _value(text: str) -> Any:
    """A number, list, true, false, null or text; a path may begin with a brace."""
    with suppress(yaml.YAMLError):
        return text if isinstance(value := yaml.safe_load(text), dict) else value
    return text


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values with changes put in."""
    merged = dict(values)
    for key, change in changes.items():
        below = merged.get(key)
        is_nested = isinstance(change, Mapping)
        merged[key] = _merged(below if isinstance(below, Mapping) else {}, change) if is_nested else change
    return merged


def _flatten(values: Mapping[str, Any], prefix: str) -> list[str]:
    """The full names of nested values."""
    names = []
    for key, value in values.items():
        names += _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [f"{prefix}{key}"]
    return names


def _with_late_stamp(evaluation: Evaluation, primary: str, first: str) -> Evaluation:
    """The description with a stamp if the verdict rests on another metric than it was to."""
    stamps = [stamp for stamp in evaluation.stamps if stamp.text != LATE_STAMP]
    if primary != first:
        detail = Message("chosen_afterwards", {"primary": primary, "first": first})
        stamps.append(Stamp(text=LATE_STAMP, detail=detail))
    return replace(evaluation, stamps=tuple(stamps))


def _unchanged(
    folder: Path, earlier: Mapping[str, Any], metrics: Mapping[str, Any], chosen: MetricSettings
) -> set[str]:
    """Names of `external` that were scored before, with these settings, where needed the controls' answers too."""
    described = read_store(folder).metrics.keys()
    before, after = earlier.get("external") or {}, metrics.get("external") or {}
    of_key = {key: {*component.names(key)} for key, component in chosen.components.items()}
    names = {key for key, own in of_key.items() if own & described and before.get(key) == after.get(key)}
    primary = {*metrics["names"][:1]}
    if {*(earlier.get("names") or [])[:1]} != primary:  # the controls have none of the new one
        names -= {key for key in names if of_key[key] & primary and chosen.components[key].takes_any_answer}
    return names


def score_arms(folder: Path, settings: MetricSettings, *, stored: Collection[str] = (), is_final: bool = True) -> None:
    """Compute the external metrics of both arms, and of the controls if one of them is the primary metric.

    Args:
        folder: The evaluation folder with `evaluation.json` and every arm's predictions; each arm gets a
            `scores.jsonl`, the folder `external.json`, and the description a stamp if answers were left unscored.
        settings: What to score by.
        stored: Keys of `external` whose scores are there already; these are kept as they are.
        is_final: Whether scores that are no longer requested are removed, and the description gets its stamp.

    Raises:
        ConfigError: The settings are wrong.
        CheckpointError: A model's weights cannot be used.
        DataError: Scores of another program do not fit the answers, or a judge did not answer.
    """
    if not settings.components and not (folder / DESCRIPTION_FILE).is_file():
        return
    evaluation = read_evaluation(folder)
    main = (evaluation.baseline.label, evaluation.candidate.label)
    arms = {
        label: [record for record in records if record.split != RETENTION]
        for label, records in read_arms(folder).items()
    }
    primary = next(iter(settings.names), None)
    store = read_store(folder)
    for name, component in settings.components.items():
        if name in stored:
            continue
        needs_controls = component.takes_any_answer and primary in component.names(name)
        component.score(name, arms if needs_controls else {arm: arms[arm] for arm in main}, folder, store)
        write_store(store, arms, folder)  # after each, for the next may be stopped
    if not is_final:
        return
    requested = {name for key, component in settings.components.items() for name in component.names(key)}
    for name in store.metrics.keys() - requested:
        del store.metrics[name]
    for name in store.rows.keys() - {metric.rows for metric in store.metrics.values()}:
        del store.rows[name]
    write_store(store, arms, folder)
    write_evaluation(_stamped(evaluation, store), folder)


def _stamped(evaluation: Evaluation, store: Store) -> Evaluation:
    """The description with a stamp where a metric has no score for some answers."""
    gaps = [
        Message("unscored_metric", {"metric": metric.title, "arms": _unscored(metric.unscored)})
        for metric in store.metrics.values()
        if metric.unscored
    ]
    stamps = [stamp for stamp in evaluation.stamps if stamp.text != STAMP]
    if gaps:
        stamps.append(Stamp(text=STAMP, detail=Message("unscored", {"gaps": tuple(gaps)})))
    return replace(evaluation, stamps=tuple(stamps))


def _unscored(counts: Mapping[str, int]) -> tuple[Message, ...]:
    return tuple(Message("unscored_arm", {"n": count, "arm": arm}) for arm, count in counts.items())
