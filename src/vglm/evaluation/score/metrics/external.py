"""Scores that need more than the two texts: somebody's weights, an endpoint, or a program of its own.

They cannot be computed again wherever a report is rendered, so each is computed once, when a model is evaluated or by
`vglm score`, and its numbers stay in the evaluation folder. From there it is a metric like any other, with intervals,
paired tests, slices. What to compute stands in the config, off unless it is given:

```
metrics.external.bert_score.model=<folder of a BERT or RoBERTa>                    bert_score
metrics.external.chexbert.weights=<chexbert.pth> .tokenizer=<bert-base-uncased>    chexbert_micro_f1, chexbert_macro_f1
                                                                                   and both as …_5, of five findings
metrics.external.judge.base_url=http://localhost:8000/v1 .model=<name there>       judge
metrics.external.<name>.scores=<file with {arm}> .signature=<how it was made>      <name>, such as green or radgraph
```

All of them follow the metrics of `metrics.names`; one that is named there stands where it is named, the first of all
being the primary metric. The last kind reads numbers that another program computed, one answer a line:

    {"id": "2882_1", "split": "test", "score": 0.75}

The folder gets, for each arm, `<arm>/scores.jsonl` with the additive numbers of `vglm.evaluation.score.metrics.base`,
and `external.json` with what they are:

    {"split": "test", "id": "2882_1", "draw": 0, "key": "9f86d081884c7d65", "bert_score": [0.83, 1.0]}
    {"metrics": [{"name": "bert_score", "title": "BERTScore", "signature": "F1|…", "rows": "bert_score", …}]}

`key` is a hash of the answer that was scored: an answer that changed since has no score, rather than a wrong one.
"""

import difflib
import hashlib
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, get_type_hints

import numpy as np

from vglm.errors import ConfigError, DataError, brief
from vglm.evaluation.predictions import MAX_ERRORS_SHOWN, Prediction
from vglm.evaluation.score.metrics.base import Metric, Rows
from vglm.evaluation.score.metrics.findings import FINDINGS, FIVE, macro_f1, micro_f1
from vglm.evaluation.score.metrics.judge import PROMPT, find_prompt_problem
from vglm.evaluation.score.statistics import Statistic, mean_of_sums
from vglm.files import inside, read_record, read_text, write_json, write_text

SCORES_FILE = "scores.jsonl"
DESCRIPTION_FILE = "external.json"
ARM = "{arm}"
"""Stands for the arm's name in the path of a file of scores."""

STATISTICS: dict[str, Statistic] = {
    "mean": mean_of_sums,
    "micro_f1": micro_f1,
    "macro_f1": macro_f1,
    "micro_f1_5": partial(micro_f1, names=FIVE),
    "macro_f1_5": partial(macro_f1, names=FIVE),
}
"""From sums of stored numbers to a score, by the name in `external.json`."""

CHEXBERT_TITLES = {
    "chexbert_micro_f1": "CheXbert, micro-F1 of 14",
    "chexbert_macro_f1": "CheXbert, macro-F1 of 14",
    "chexbert_micro_f1_5": "CheXbert, micro-F1 of 5",
    "chexbert_macro_f1_5": "CheXbert, macro-F1 of 5",
}

_ELSEWHERE = (
    "Compute it in an environment of its own and give its numbers:"
    " metrics.external.{name}.scores=<file> metrics.external.{name}.signature=<how> (recipes/xray/README.md)."
)
WHY_NOT = {
    "radgraph": "the package radgraph (0.1.18 looked at) calls `encode_plus`, which the tokenizers of transformers 5 do"
    " not have, and fetches its weights and its encoder's tokenizer by itself. " + _ELSEWHERE.format(name="radgraph"),
    "green": "the package green-score (0.0.12 looked at) asks for exactly Python 3.12.1, torch 2.2.2 and transformers"
    " 4.40.0, and needs a language model of 7B. " + _ELSEWHERE.format(name="green"),
}
"""Metrics that people look for and that cannot be computed in this environment: why, and what to do."""

EXTERNAL_NAMES = {"bert_score": "bert_score", "judge": "judge", **dict.fromkeys(CHEXBERT_TITLES, "chexbert")}
"""Name of a metric -> the settings that it needs."""


# --- what the config asks for ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BertScoreSettings:
    """`metrics.external.bert_score`.

    Attributes:
        model: Folder with the weights and the tokenizer of a BERT or RoBERTa.
        num_layers: The layer whose states are compared; None for the one that the package bert-score takes for a model
            of the folder's name.
        batch_size: Pairs of texts at once.
    """

    NAMED_ANEW: ClassVar[tuple[str, ...]] = ("model",)

    model: str
    num_layers: int | None = None
    batch_size: int = 32

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of its metrics."""
        return ("bert_score",)

    def problems(self) -> Iterable[str]:
        """What is wrong with the values."""
        if not (Path(self.model) / "config.json").is_file():
            yield f"model {self.model!r} is no folder with a model's config.json and weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChexbertSettings:
    """`metrics.external.chexbert`.

    Attributes:
        weights: The published `chexbert.pth`.
        tokenizer: Folder with the `vocab.txt` of bert-base-uncased.
        uncertain: What uncertain findings count as: `positive`, as in F1-CheXbert, or `negative`.
        batch_size: Reports at once.
    """

    NAMED_ANEW: ClassVar[tuple[str, ...]] = ("weights", "tokenizer")

    weights: str
    tokenizer: str
    uncertain: str = "positive"
    batch_size: int = 16

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of its metrics."""
        return tuple(CHEXBERT_TITLES)

    def problems(self) -> Iterable[str]:
        """What is wrong with the values."""
        if not Path(self.weights).is_file():
            yield f"weights {self.weights!r} is no file; expected chexbert.pth"
        if not (Path(self.tokenizer) / "vocab.txt").is_file():
            yield f"tokenizer {self.tokenizer!r} has no vocab.txt; expected a folder with that of bert-base-uncased"
        if self.uncertain not in ("positive", "negative"):
            yield f"uncertain must be positive or negative, got {self.uncertain!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSettings:
    """`metrics.external.judge`. It sends questions, references and answers to `base_url`.

    Attributes:
        base_url: Of an OpenAI-compatible endpoint, such as http://localhost:8000/v1.
        model: The judge's name there.
        prompt: See `vglm.evaluation.score.metrics.judge.PROMPT`.
        images: Whether the small copies of the images are sent too.
        api_key_env: The environment variable with the key, which is stored nowhere.
        timeout_seconds: Of one request.
    """

    NAMED_ANEW: ClassVar[tuple[str, ...]] = ("base_url", "model", "images", "api_key_env")

    base_url: str
    model: str
    prompt: str = PROMPT
    images: bool = False
    api_key_env: str | None = None
    timeout_seconds: float = 60.0

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of its metrics."""
        return ("judge",)

    def problems(self) -> Iterable[str]:
        """What is wrong with the values."""
        if not self.base_url.startswith(("http://", "https://")):
            yield f"base_url must start with http:// or https://, got {self.base_url!r}"
        if (problem := find_prompt_problem(self.prompt)) is not None:
            yield problem


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSettings:
    """`metrics.external.<name>`: numbers that another program computed.

    Attributes:
        name: The metric's.
        scores: A JSON-lines file of id, score and, where they differ, split (default test), draw (0) and arm; `{arm}`
            in its path stands for the arm's name, such as before and after.
        signature: How it was computed: program, version, weights, settings.
        title: Its name in a report.
        is_share: Whether it is from 0 to 1.
        is_better_higher: False for errors.
    """

    NAMED_ANEW: ClassVar[tuple[str, ...]] = ("scores",)

    name: str
    scores: str
    signature: str
    title: str | None = None
    is_share: bool = True
    is_better_higher: bool = True

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of its metrics."""
        return (self.name,)

    def problems(self) -> Iterable[str]:
        """What is wrong with the values."""
        if not self.signature.strip():
            yield "signature must say how the scores were computed"
        path = Path(self.scores)
        if ARM not in self.scores and not path.is_file():
            yield f"scores {self.scores!r} is no file"
        if ARM in path.name and not list(path.parent.glob(path.name.replace(ARM, "*"))):
            yield f"scores {self.scores!r}: there is no file of such a name"


# NAMED_ANEW: what opens a connection, a file or an environment variable, and so counts only where a command names it

Settings = BertScoreSettings | ChexbertSettings | JudgeSettings | ImportSettings
_KINDS: dict[str, type[Settings]] = {
    "bert_score": BertScoreSettings,
    "chexbert": ChexbertSettings,
    "judge": JudgeSettings,
}


def parse_settings(external: Mapping[str, Any] | None, *, stored: Collection[str] = ()) -> dict[str, Settings]:
    """Read the `external` of a metrics config.

    Args:
        external: Name -> settings; None for none.
        stored: Names whose files need not be there any more, for their scores are stored.

    Returns:
        Name -> settings, in the config's order.

    Raises:
        ConfigError: Names all problems at once.
    """
    found: dict[str, Settings] = {}
    problems: list[str] = []
    for name, given in (external or {}).items():
        where = f"metrics.external.{name}"
        if given is None:
            continue
        if not isinstance(given, Mapping):
            problems.append(f"{where}: expected settings such as {where}.scores=<file>, got {given!r}")
            continue
        kind = _kind(name, given)
        if kind is ImportSettings and "scores" not in given:
            reason = WHY_NOT.get(name) or f"no metric of ours; known: {', '.join(_KINDS)}. " + _ELSEWHERE.format(
                name=name
            )
            problems.append(f"{where}: {reason}")
            continue
        values = dict(given) | ({"name": str(name)} if kind is ImportSettings else {})
        if wrong := [f"{where}.{each}" for each in _misfits(kind, values)]:
            problems += wrong
            continue
        settings = kind(**values)
        problems += [f"{where}: {each}" for each in settings.problems()] if name not in stored else []
        found[str(name)] = settings
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise ConfigError(f"{len(problems)} problem{'s' * (len(problems) > 1)} in metrics.external:{lines}")
    return found


def _kind(name: str, given: Mapping[str, Any]) -> type[Settings]:
    return _KINDS.get(name, ImportSettings) if "scores" not in given else ImportSettings


def unnamed_settings(name: str, stored: Mapping[str, Any], given: Collection[str]) -> list[str]:
    """The settings in an evaluation's description that must not be followed, since the command does not name them.

    A description may come from a stranger: it must not choose where answers and keys are sent, or what is read.

    Args:
        name: Of `metrics.external`.
        stored: Its settings there.
        given: The settings that the command names.
    """
    kind = _kind(name, stored)
    defaults = {each.name: each.default for each in fields(kind)}
    return [key for key in kind.NAMED_ANEW if key not in given and key in stored and stored[key] != defaults[key]]


def _misfits(kind: type[Settings], values: Mapping[str, Any]) -> Iterable[str]:
    """Keys that settings do not take, lack, or whose values are of another type."""
    hints, names = get_type_hints(kind), {each.name for each in fields(kind)}
    for key, value in values.items():
        if key not in names:
            near = difflib.get_close_matches(str(key), names - {"name"}, n=1)
            yield f"{key}: no such key{f'; did you mean `{near[0]}`?' if near else ''}"
            continue
        hint = hints[key]
        is_number = hint in (int, float) or hint == int | None
        allowed = int | float if hint is float else hint
        if not isinstance(value, allowed) or (is_number and isinstance(value, bool)):
            yield f"{key}: expected {getattr(hint, '__name__', hint)}, got {value!r}"
        elif is_number and value is not None and not value > 0:
            yield f"{key} must be positive, got {value!r}"
    for each in fields(kind):
        if each.default is MISSING and each.name not in values:
            yield f"{each.name}: a value is required"


# --- metrics of stored numbers ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMetric:
    """What the numbers of a file are, as `external.json` holds it.

    Attributes:
        name: As in `Metric`, like the other fields that it has too.
        title: See there.
        signature: See there.
        rows: The key of its numbers in `scores.jsonl`, which several metrics may share.
        statistic: Of `STATISTICS`.
        is_share: See there.
        is_better_higher: See there.
        unscored: Arm -> answers that got no score and are left out of the mean.
    """

    name: str
    title: str
    signature: str
    rows: str
    statistic: str = "mean"
    is_share: bool = True
    is_better_higher: bool = True
    unscored: Mapping[str, int] | None = None

    def bound(self, known: Mapping[str, Sequence[float]]) -> Metric:
        """The metric that looks answers up.

        Args:
            known: `key_of` an answer -> its numbers.
        """
        return Metric(
            self.name,
            self.title,
            self.signature,
            table=lambda records: look_up(self.rows, known, records),
            statistic=STATISTICS[self.statistic],
            is_share=self.is_share,
            is_better_higher=self.is_better_higher,
        )


def key_of(record: Prediction) -> str:
    """A hash of all that a score of an answer may depend on."""
    content = [record.split, record.id, record.draw, record.question, record.history, record.reference]
    answer = [record.prediction, record.error is not None, record.image_sha256]
    return hashlib.sha256(json.dumps([*content, *answer], ensure_ascii=False).encode()).hexdigest()[:16]


def look_up(name: str, known: Mapping[str, Sequence[float]], records: Sequence[Prediction]) -> Rows:
    """The stored numbers of records, shape (n, k).

    Raises:
        DataError: A record has none.
    """
    rows = [known.get(key_of(record)) for record in records]
    missing = [record for record, row in zip(records, rows, strict=True) if row is None]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(records)} answers have no {name} in {SCORES_FILE} (first: {missing[0].split}"
            f" {missing[0].id!r}). Run: vglm score <evaluation folder>"
        )
    return np.array(rows, dtype=np.float64)


def declare(external: Mapping[str, Any] | None, *, stored: Collection[str] = ()) -> dict[str, Metric]:
    """The metrics that a config asks for, by name, before anything was scored; their rows raise a DataError.

    Raises:
        ConfigError: As `parse_settings`.
    """
    return _unscored(parse_settings(external, stored=stored).values())


def _unscored(settings: Iterable[Settings]) -> dict[str, Metric]:
    names = [name for each in settings for name in each.metrics]
    return {
        name: StoredMetric(name=name, title=CHEXBERT_TITLES.get(name, name), signature="not computed", rows=name).bound(
            {}
        )
        for name in names
    }


# --- files -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Store:
    """All stored scores of an evaluation.

    Attributes:
        metrics: What they are, by name.
        rows: Name of numbers -> `key_of` an answer -> its numbers.
    """

    metrics: dict[str, StoredMetric]
    rows: dict[str, dict[str, list[float]]]


def read_store(folder: Path) -> Store:
    """Read the scores in an evaluation folder; nothing where none were stored.

    Raises:
        DataError: A file is damaged; the first bad lines are named.
    """
    path = inside(folder, DESCRIPTION_FILE)
    if not path.exists():
        return Store({}, {})
    advice = f"Remove it and run: vglm score {folder}"
    described = read_record(path, _Description, advice=advice).metrics
    if unknown := [each.statistic for each in described if each.statistic not in STATISTICS]:
        raise DataError(f"{path} is damaged: there is no statistic {brief(ValueError(unknown[0]))!r}. {advice}")
    names = {each.rows for each in described}
    rows: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for file in sorted(folder.glob(f"*/{SCORES_FILE}")):
        problems = []
        text = read_text(inside(folder, file.parent.name, SCORES_FILE), advice=f"Run: vglm score {folder}")
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
                for name in names & values.keys():
                    rows[name][str(values["key"])] = [float(each) for each in values[name]]
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
                problems.append(f"line {number}: {brief(ValueError(repr(error)), 80)}")
        if problems:
            shown = "; ".join(problems[:MAX_ERRORS_SHOWN])
            raise DataError(f"{file}: {len(problems)} lines are no scores ({shown}). Run: vglm score {folder}")
    return Store({each.name: each for each in described}, rows)


@dataclass(frozen=True, slots=True)
class _Description:
    """What `external.json` holds."""

    metrics: tuple[StoredMetric, ...]


def write_store(store: Store, arms: Mapping[str, Sequence[Prediction]], folder: Path) -> None:
    """Write the scores of arms, and then what they are.

    Args:
        store: What is known.
        arms: The arm's name -> its records; a score of any other answer is dropped.
        folder: The evaluation folder.
    """
    for arm, records in arms.items():
        lines = []
        for record in records:
            key = key_of(record)
            numbers = {name: known[key] for name, known in store.rows.items() if key in known}
            if numbers:
                place = {"split": record.split, "id": record.id, "draw": record.draw, "key": key}
                lines.append(json.dumps(place | numbers, ensure_ascii=False) + "\n")
        write_text(inside(folder, arm, SCORES_FILE), "".join(lines), error=DataError)
    described = {"metrics": [asdict(each) for each in store.metrics.values()]}
    write_json(folder / DESCRIPTION_FILE, described, error=DataError)


def stored_metrics(folder: Path, external: Mapping[str, Any] | None) -> dict[str, Metric]:
    """The metrics that a config asks for, with the numbers in an evaluation folder.

    Args:
        folder: The evaluation folder.
        external: The config's; what it asks for and the folder has not is there too, and raises a DataError when it is
            used, so that a report can say so.

    Raises:
        ConfigError: The config's settings are wrong.
        DataError: A file is damaged.
    """
    asked = _unscored(parse_settings(external, stored=tuple(external or ())).values())
    if not asked:
        return {}
    store = read_store(folder)
    known = {name: each for name, each in store.metrics.items() if name in asked}
    for each in known.values():
        width = 2 if each.statistic == "mean" else 3 * len(FINDINGS)
        if any(len(row) != width for row in store.rows[each.rows].values()):
            raise DataError(f"{folder}: its {SCORES_FILE} are no scores of {each.name}. Run: vglm score {folder}")
    found = {name: each.bound(store.rows[each.rows]) for name, each in known.items()}
    return asked | found


# --- scores of other programs ----------------------------------------------------------------------------------------


def import_scores(settings: ImportSettings, arms: Mapping[str, Sequence[Prediction]]) -> dict[str, list[float]]:
    """Read the scores that another program gave to answers.

    Args:
        settings: Where they are, and what.
        arms: The arm's name -> the records that need one; those with an error score 0 unless they have one.

    Returns:
        `key_of` a record -> (score, 1).

    Raises:
        DataError: The file cannot be read, or rows are wrong, missing, double or of unknown answers; or two arms have
            different scores for the same answer. All problems of a file are counted and the first ones named.
    """
    files = {arm: Path(settings.scores.replace(ARM, arm)) for arm in arms}
    is_shared = len(set(files.values())) == 1 and len(arms) > 1
    found: dict[str, list[float]] = {}
    for arm, records in arms.items():
        wanted = {(record.split, record.id, record.draw): record for record in records}
        scores, problems = _read_scores(files[arm], arm if is_shared else None, settings.is_share, arms)
        problems += [f"{_named(place)} is no answer of {arm}" for place in scores.keys() - wanted.keys()]
        splits = {split for split, _, _ in scores}
        for place, record in wanted.items():
            if record.split not in splits and splits:
                continue  # a whole split without scores is another matter than a gap
            if place not in scores and record.error is None:
                problems.append(f"{_named(place)} has no score")
                continue
            row, key = [scores.get(place, 0.0), 1.0], key_of(record)
            if not math.isclose(found.setdefault(key, row)[0], row[0], abs_tol=1e-6):
                problems.append(f"{_named(place)} has another score in another arm, though the answer is the same")
        if problems:
            shown = "; ".join(problems[:MAX_ERRORS_SHOWN])
            raise DataError(
                f"{files[arm]}: {len(problems)} problems with the scores of {arm} ({shown}). Expected one line"
                f' {{"id": …, "split": …, "score": …}} for each answer in {arm}/predictions.jsonl.'
            )
    return found


def _named(place: tuple[str, str, int]) -> str:
    split, name, draw = place
    return f"{split} {name!r}" + (f" draw {draw}" if draw else "")


def _read_scores(
    path: Path, arm: str | None, is_share: bool, arms: Collection[str]
) -> tuple[dict[tuple[str, str, int], float], list[str]]:
    """(split, id, draw) -> score, of one arm where lines name theirs; and what is wrong with the lines."""
    lines = read_text(path, advice="Pass a file of scores.").split("\n")
    scores: dict[tuple[str, str, int], float] = {}
    problems = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            place, owner, score = _parse_score(json.loads(line), is_share)
        except (ValueError, OverflowError, RecursionError) as error:
            problems.append(f"line {number}: {brief(error)}")
            continue
        if arm is not None and owner not in arms:
            problems.append(f"line {number}: `arm` must be one of {', '.join(arms)}, found {owner!r}")
        elif arm is None or owner == arm:
            if place in scores:
                problems.append(f"line {number}: {_named(place)} appears twice")
            scores[place] = score
    return scores, problems


def _parse_score(values: Any, is_share: bool) -> tuple[tuple[str, str, int], object, float]:
    if not isinstance(values, dict) or "id" not in values or "score" not in values:
        raise ValueError("expected an object with id and score")
    score, split, draw = values["score"], values.get("split", "test"), values.get("draw", 0)
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise ValueError(f"score must be a number, found {score!r}")
    if is_share and not 0 <= score <= 1:
        raise ValueError(f"score must be from 0 to 1, found {score}; of another scale, set is_share=false")
    if not isinstance(split, str) or isinstance(draw, bool) or not isinstance(draw, int):
        raise ValueError("split must be text and draw a whole number")
    return (split, str(values["id"]), draw), values.get("arm"), float(score)
