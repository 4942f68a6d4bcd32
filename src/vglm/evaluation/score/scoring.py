"""Compute, once, the scores that a config asks for under `metrics.external`, and keep them in the evaluation folder.

    python evaluate.py run=latest metrics=report_xray metrics.external.bert_score.model=<folder>     as part of it
    vglm score <evaluation folder> metrics.external.green.scores='<folder>/{arm}.jsonl' …            afterwards

What was stored with the same signature is not computed again. See `vglm.evaluation.score.metrics.external`.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vglm.errors import ConfigError, DataError
from vglm.evaluation.messages import Message
from vglm.evaluation.predictions import (
    IMAGES_FOLDER,
    Evaluation,
    Prediction,
    Stamp,
    read_arms,
    read_evaluation,
    write_evaluation,
)
from vglm.evaluation.score.comparison import (
    PROBE,
    Comparison,
    check_kinds,
    compare_folder,
    read_config,
    read_metrics,
    write_metrics,
)
from vglm.evaluation.score.metrics import EXACT_MATCH, select_metrics
from vglm.evaluation.score.metrics.base import Rows
from vglm.evaluation.score.metrics.external import (
    CHEXBERT_TITLES,
    DESCRIPTION_FILE,
    BertScoreSettings,
    ChexbertSettings,
    ImportSettings,
    JudgeSettings,
    Settings,
    Store,
    StoredMetric,
    declare,
    import_scores,
    key_of,
    parse_settings,
    read_store,
    unnamed_settings,
    write_store,
)
from vglm.evaluation.score.metrics.judge import VERDICTS_FILE, Judge
from vglm.files import changed_folder, inside, locked
from vglm.runs import EVALUATION_FILE

STAMP = "ANSWERS LEFT UNSCORED"
LATE_STAMP = "PRIMARY METRIC CHOSEN AFTERWARDS"

Compute = Callable[[Sequence[Prediction]], Rows]
"""Records -> their additive numbers in the same order, shape (n, k)."""


def check_metrics(metrics: Mapping[str, Any], *, stored: Collection[str] = ()) -> None:
    """Find every mistake in a metrics config before anything is computed.

    Args:
        metrics: `names`, `labels` and `external`, as a file of conf/metrics/ has them.
        stored: Names of `external` whose scores are there already, so that their files need not be.

    Raises:
        ConfigError: Names, labels or settings are wrong, or files that they name are not there.
    """
    select_metrics(metrics["names"], metrics.get("labels"), declare(metrics.get("external"), stored=stored))


def rescore(
    folder: Path, settings: Sequence[str], report: Callable[[Path, Comparison], None] | None = None
) -> Comparison:
    """Score an evaluation again, with its stored answers and its own metrics but for some settings.

    What opens a connection, a file or an environment variable counts only where `settings` name it, for the description
    may come from elsewhere. Scores are kept as they are computed, so that the same command goes on after a failure; the
    new description and the report appear together.

    Args:
        folder: The evaluation folder. Its new description keeps the names of the metrics it was made with under
            `metrics.asked_first`.
        settings: As on the command line, such as `metrics.names=[bleu_zh,green]` or `metrics.external.green.scores=…`.
        report: Makes the report of a folder that is being made, see `vglm.evaluation.report.write_report`.

    Returns:
        The comparison by the new metrics.

    Raises:
        ConfigError: A setting is not one of the metrics', or has to be named anew, or as `score_arms`.
        CheckpointError: As `score_arms`.
        DataError: As `score_arms`, or the folder holds no evaluation, or another process is scoring it.
    """
    evaluation = read_evaluation(folder)
    earlier, config = read_metrics(evaluation), _with_settings(read_config(evaluation), settings)
    check_kinds(config.get("metrics") or {}, "metrics", error=ConfigError)
    metrics = {"labels": None} | (config.get("metrics") or {})
    metrics |= {"names": metrics.get("names") or [], "external": metrics.get("external") or {}}
    stored = _unchanged(folder, earlier, metrics)
    _check_named(metrics, stored, settings)
    check_metrics(metrics, stored=stored)
    busy = f"{folder} is being scored by another process right now. Wait until it is done."
    with locked(folder, busy, error=DataError):
        score_arms(folder, metrics, stored=stored, is_final=False)
        with changed_folder(folder, marker=EVALUATION_FILE) as changed:
            score_arms(changed, metrics, stored={*metrics["external"]})
            asked_first = list(earlier.get("asked_first", earlier.get("names")) or ())
            config["metrics"] = metrics | {"asked_first": asked_first}  # the page says which came after the answers
            primary, first = (next(iter(names), EXACT_MATCH.name) for names in (metrics["names"], asked_first))
            evaluation = _with_late_stamp(read_evaluation(changed), primary, first)
            told = yaml.safe_dump(config, allow_unicode=True, sort_keys=False)
            write_evaluation(replace(evaluation, config=told), changed)
            comparison = compare_folder(changed, read_evaluation(changed))
            write_metrics(comparison, changed)
            if report is not None:
                report(changed, comparison)
    return comparison


def _check_named(metrics: Mapping[str, Any], stored: Collection[str], settings: Sequence[str]) -> None:
    """Refuse to compute scores by settings that nobody but the evaluation's description names."""
    for name, values in metrics["external"].items():
        where = f"metrics.external.{name}."
        given = [each.partition("=")[0].removeprefix(where) for each in settings if each.startswith(where)]
        if name in stored or not isinstance(values, dict) or not (unnamed := unnamed_settings(name, values, given)):
            continue
        repeat = " ".join(f"{where}{key}=<...>" for key in unnamed)
        raise ConfigError(
            f"metrics.external.{name} has to be computed, and an evaluation's description does not decide what is"
            f" opened or where answers are sent. Repeat on this command line: {repeat} (what they were stands in the"
            f" report), or leave it out: metrics.external.{name}=null"
        )


def _with_settings(config: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """A config with some settings of its metrics."""
    for setting in settings:
        path, equals, value = setting.partition("=")
        *keys, last = path.split(".")
        if not equals or keys[:1] != ["metrics"]:
            raise ConfigError(f"{setting!r} is no setting of the metrics; expected metrics.<key>=<value>.")
        node = config
        for key in keys:
            if not isinstance(node.get(key), dict):
                node[key] = {}
            node = node[key]
        node[last] = _value(value)
    return config


def _value(text: str) -> Any:
    """A number, list, true, false, null or text; a path may begin with a brace."""
    with suppress(yaml.YAMLError):
        return text if isinstance(found := yaml.safe_load(text), dict) else found
    return text


def _with_late_stamp(evaluation: Evaluation, primary: str, asked_first: str) -> Evaluation:
    """The description with a stamp if the verdict rests on another metric than it was to."""
    stamps = [stamp for stamp in evaluation.stamps if stamp.text != LATE_STAMP]
    if primary != asked_first:
        detail = Message("chosen_afterwards", {"primary": primary, "first": asked_first})
        stamps.append(Stamp(text=LATE_STAMP, detail=detail))
    return replace(evaluation, stamps=tuple(stamps))


def _unchanged(folder: Path, earlier: Mapping[str, Any], metrics: Mapping[str, Any]) -> set[str]:
    """Names of `external` that were scored before, with these settings, where needed the controls' answers too."""
    described = read_store(folder).metrics.values()
    before, after = earlier.get("external") or {}, metrics.get("external") or {}
    names = {each.rows for each in described if after.get(each.rows) and before.get(each.rows) == after[each.rows]}
    primary = metrics["names"][:1]
    if (earlier.get("names") or [])[:1] != primary:
        of_arms = {each.rows for each in described if each.name in primary}  # the controls have none of it
        names -= {name for name in of_arms & names if "scores" not in after[name]}
    return names


def score_arms(
    folder: Path, metrics: Mapping[str, Any], *, stored: Collection[str] = (), is_final: bool = True
) -> None:
    """Compute the external metrics of both arms, and of the controls if one of them is the primary metric.

    Args:
        folder: The evaluation folder with `evaluation.json` and every arm's predictions; each arm gets a
            `scores.jsonl`, the folder `external.json`, and the description a stamp if answers were left unscored.
        metrics: As in `check_metrics`.
        stored: As in `check_metrics`; these are kept as they are.
        is_final: Whether scores that nobody asks for any more go, and the description gets its stamp.

    Raises:
        ConfigError: The settings are wrong.
        CheckpointError: A model's weights cannot be used.
        DataError: Scores of another program do not fit the answers, or a judge did not answer.
    """
    external = parse_settings(metrics.get("external"), stored=stored)
    if not external and not (folder / DESCRIPTION_FILE).is_file():
        return
    evaluation = read_evaluation(folder)
    main = (evaluation.baseline.label, evaluation.candidate.label)
    arms = {
        label: [record for record in records if record.split != PROBE] for label, records in read_arms(folder).items()
    }
    primary = next(iter(metrics["names"]), None)
    store = read_store(folder)
    for name, settings in external.items():
        if name in stored:
            continue
        if isinstance(settings, ImportSettings):
            _import(settings, {arm: arms[arm] for arm in main}, store)
        else:
            wanted = arms if primary in settings.metrics else {arm: arms[arm] for arm in main}
            described, compute = _open(settings, folder)
            earlier = [store.metrics.get(each.name) for each in described]
            is_same = described == [each and replace(each, unscored=None) for each in earlier]
            known = store.rows.get(name, {}) if is_same else {}
            store.rows[name] = _complete(known, wanted, compute)
            store.metrics.update({each.name: _with_gaps(each, store.rows[name], wanted) for each in described})
        write_store(store, arms, folder)  # after each, for the next may be stopped
    if not is_final:
        return
    asked = {name for settings in external.values() for name in settings.metrics}
    for name in store.metrics.keys() - asked:
        del store.metrics[name]
    for name in store.rows.keys() - {each.rows for each in store.metrics.values()}:
        del store.rows[name]
    write_store(store, arms, folder)
    write_evaluation(_stamped(evaluation, store), folder)


def _import(settings: ImportSettings, arms: Mapping[str, Sequence[Prediction]], store: Store) -> None:
    name = settings.name
    store.rows[name] = import_scores(settings, arms)
    store.metrics[name] = StoredMetric(
        name=name,
        title=settings.title or name,
        signature=f"computed elsewhere|{settings.signature}",
        rows=name,
        is_share=settings.is_share,
        is_better_higher=settings.is_better_higher,
    )


def _open(settings: Settings, folder: Path) -> tuple[list[StoredMetric], Compute]:
    """What the metrics are, and how to compute their numbers; weights are loaded here."""
    if isinstance(settings, JudgeSettings):
        return _open_judge(settings, folder)
    from vglm.evaluation.score.encoders import BertScore, Chexbert  # imports torch and transformers

    if isinstance(settings, BertScoreSettings):
        scorer = BertScore(Path(settings.model), settings.num_layers, batch_size=settings.batch_size)
        return [
            StoredMetric(name="bert_score", title="BERTScore", signature=scorer.signature, rows="bert_score")
        ], scorer.rows
    assert isinstance(settings, ChexbertSettings)
    labeller = Chexbert(Path(settings.weights), Path(settings.tokenizer), batch_size=settings.batch_size)
    how = f"{labeller.signature}|uncertain counts as {settings.uncertain}"
    classes = {False: "14 classes", True: "5 classes"}
    described = [
        StoredMetric(
            name=name,
            title=title,
            signature=f"{how}|{classes[name.endswith('_5')]}" + ("|absent ones 0" if "macro" in name else ""),
            rows="chexbert",
            statistic=name.removeprefix("chexbert_"),
        )
        for name, title in CHEXBERT_TITLES.items()
    ]
    return described, lambda records: labeller.rows(records, uncertain=settings.uncertain)


def _open_judge(settings: JudgeSettings, folder: Path) -> tuple[list[StoredMetric], Compute]:
    key = None if settings.api_key_env is None else os.environ.get(settings.api_key_env)
    if settings.api_key_env is not None and not key:
        raise ConfigError(f"metrics.external.judge.api_key_env: the variable {settings.api_key_env} is not set.")
    judge = Judge(
        base_url=settings.base_url,
        model=settings.model,
        prompt=settings.prompt,
        images=folder / IMAGES_FOLDER if settings.images else None,
        api_key=key,
        timeout_seconds=settings.timeout_seconds,
    )

    def rows(records: Sequence[Prediction]) -> Rows:
        scores = judge.scores(records, inside(folder, VERDICTS_FILE))
        return np.array([[0.0, 0.0] if score is None else [score, 1.0] for score in scores])

    metric = StoredMetric(name="judge", title=f"Judged by {judge.model}", signature=judge.signature, rows="judge")
    return [metric], rows


def _complete(
    known: Mapping[str, list[float]], arms: Mapping[str, Sequence[Prediction]], compute: Compute
) -> dict[str, list[float]]:
    """The numbers of every answer; only those that are not known are computed, equal answers once."""
    records = {key_of(record): record for arm in arms.values() for record in arm}
    missing = {key: record for key, record in records.items() if key not in known}
    fresh = dict(zip(missing, compute(list(missing.values())).tolist(), strict=True)) if missing else {}
    return {key: known[key] for key in records if key in known} | fresh


def _with_gaps(
    metric: StoredMetric, rows: Mapping[str, Sequence[float]], arms: Mapping[str, Sequence[Prediction]]
) -> StoredMetric:
    """Say how many answers of each arm are left out of the mean."""
    if metric.statistic != "mean":
        return metric
    gaps = {arm: sum(rows[key_of(record)][1] == 0 for record in records) for arm, records in arms.items()}
    return replace(metric, unscored={arm: count for arm, count in gaps.items() if count} or None)


def _stamped(evaluation: Evaluation, store: Store) -> Evaluation:
    """The description with a stamp where a metric has no score for some answers."""
    gaps = [
        Message("unscored_metric", {"metric": each.title, "arms": _unscored(each.unscored)})
        for each in store.metrics.values()
        if each.unscored
    ]
    stamps = [stamp for stamp in evaluation.stamps if stamp.text != STAMP]
    if gaps:
        stamps.append(Stamp(text=STAMP, detail=Message("unscored", {"gaps": tuple(gaps)})))
    return replace(evaluation, stamps=tuple(stamps))


def _unscored(counts: Mapping[str, int]) -> tuple[Message, ...]:
    return tuple(Message("unscored_arm", {"n": count, "arm": arm}) for arm, count in counts.items())
