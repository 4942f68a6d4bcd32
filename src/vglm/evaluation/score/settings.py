"""The `metrics` of a config: which scores are computed, the primary one first.

```
metrics:
  names: [report_terms, exact_match]         of `vglm.evaluation.score.metrics`, and of the two below
  labels: null                               the closed set of classes, for accuracy and its like
  convention: null                           the same text as other projects count
  external:                                  scores that need weights, an endpoint or another program
    judge: {base_url: "http://localhost:8000/v1", model: my-judge}
  custom:                                    a metric of your own: what is called gives a `Metric`
    report_terms: {_target_: my_package.term_recall, terms: [effusion, pneumothorax]}
```

What stands under `external` without a `_target_` is short for a component of `vglm.evaluation.score.metrics`.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from vglm.errors import ConfigError, DataError
from vglm.files import parse_yaml
from vglm.runs import EVALUATION_FILE

if TYPE_CHECKING:
    from vglm.evaluation.predictions import Evaluation, Prediction
    from vglm.evaluation.score.metrics.base import Metric, Rows
    from vglm.evaluation.score.metrics.external import ExternalMetric

SETTINGS = "vglm.evaluation.score.settings.MetricSettings"
_METRICS = "vglm.evaluation.score.metrics"
_EXTERNAL = {
    "bert_score": f"{_METRICS}.bert_score.BertScoreMetric",
    "chexbert": f"{_METRICS}.chexbert.ChexbertMetric",
    "judge": f"{_METRICS}.judge.JudgeMetric",
    "radeval": f"{_METRICS}.radeval.RadevalMetric",
}
_IMPORTED = f"{_METRICS}.imported.ImportedMetric"
"""What keys of `external` without a `_target_` stand for; any key with `scores` is imported."""


@dataclass(frozen=True)
class MetricSettings:
    """What to score by.

    Attributes:
        names: Of the metrics for all splits but the retention set, the primary one first; exact match and
            ROUGE-L are always there.
        labels: The closed set of classes, as a mapping with other words for each; None for the different references.
        convention: One of `CONVENTIONS`, or `all`.
        external: Key -> component; None for one that is left out.
        custom: Name -> a metric of the user's; None for one that was given as an object and cannot be built again.
        asked_first: The names before the stored answers were scored again.

    Raises:
        ConfigError: A name is unknown, or something has another kind.
    """

    names: Sequence[str] = ()
    labels: Sequence[Any] | Mapping[str, Any] | None = None
    convention: str | None = None
    external: "Mapping[str, ExternalMetric | None] | None" = None
    custom: "Mapping[str, Metric | None] | None" = None
    asked_first: Sequence[str] | None = None

    def __post_init__(self) -> None:
        from vglm.evaluation.score.metrics.base import Metric
        from vglm.evaluation.score.metrics.external import ExternalMetric

        for kind, expected in (("external", ExternalMetric), ("custom", Metric)):
            for name, value in (getattr(self, kind) or {}).items():
                if not isinstance(value, expected | None):
                    raise ConfigError(f"metrics.{kind}.{name}: expected a {expected.__name__}, got {value!r}")
        self.select()

    @classmethod
    def of(
        cls,
        values: "MetricSettings | Mapping[str, Any] | Sequence[str | Metric] | None",
        own: "Mapping[str, Metric] | None" = None,
    ) -> "MetricSettings":
        """Read settings from plain values.

        Args:
            values: A list of names, and of metrics made in Python; or the `metrics` of a config, see `spell_out`. What
                they name is built only if it is an external metric or comes from a package that the user has allowed.
            own: Metrics made in Python, by name, that `custom` of a config cannot describe.

        Raises:
            ConfigError: Names all problems at once.
        """
        if isinstance(values, MetricSettings):
            return values
        if values is None:
            return cls()
        if not isinstance(values, Mapping):
            own = {value.name: value for value in values if not isinstance(value, str)}
            return cls([value if isinstance(value, str) else value.name for value in values], custom=own or None)
        from vglm.config import build, locate

        spelled = _checked(values)
        external = {
            name: setting
            and locate(setting["_target_"])(**{key: value for key, value in setting.items() if key != "_target_"})
            for name, setting in (spelled["external"] or {}).items()
        }
        custom = {
            name: value and build(value, _convert_="all") for name, value in (spelled.get("custom") or {}).items()
        }
        plain = {key: value for key, value in spelled.items() if key != "_target_"}
        return cls(**plain | {"external": external or None, "custom": {**custom, **(own or {})} or None})

    @property
    def components(self) -> "dict[str, ExternalMetric]":
        """Those of `external`."""
        return {name: value for name, value in (self.external or {}).items() if value is not None}

    @property
    def own(self) -> "dict[str, Metric]":
        """Those of `custom`, under the names that the config gives them."""
        return {
            name: _lost(name) if value is None else replace(value, name=name)
            for name, value in (self.custom or {}).items()
        }

    def select(self, external: "Mapping[str, Metric] | None" = None) -> "tuple[Metric, ...]":
        """The metrics, in order.

        Args:
            external: Those of the components with their numbers; without any numbers if not given.

        Raises:
            ConfigError: A name is unknown.
        """
        from vglm.evaluation.score.metrics import select_metrics
        from vglm.evaluation.score.metrics.external import declare

        stored = declare(self.external) if external is None else external
        return select_metrics(self.names, self.labels, {**self.own, **stored})

    def of_texts(self) -> "tuple[Metric, ...]":
        """The metrics without those of `external`, which are not computed for baselines."""
        computed = {name for key, component in self.components.items() for name in component.names(key)}
        return tuple(metric for metric in self.select() if metric.name not in computed)

    def check_files(self, *, stored: Collection[str] = ()) -> None:
        """Find what is wrong with the components' values and files, before anything is computed.

        Args:
            stored: Keys of `external` whose scores are there already, so that their files need not be.

        Raises:
            ConfigError: Names all problems at once.
        """
        problems = [
            f"metrics.external.{name}: {problem}"
            for name, component in self.components.items()
            if name not in stored
            for problem in component.problems()
        ]
        if problems:
            raise ConfigError(_list_problems(problems))

    def as_dict(self) -> dict[str, Any]:
        """Plain values that `of` reads again; metrics made in Python are there by name only."""
        return {
            "_target_": SETTINGS,
            "names": list(self.names),
            "labels": dict(self.labels) if isinstance(self.labels, Mapping) else self.labels and list(self.labels),
            "convention": self.convention,
            "external": None,
            "custom": dict.fromkeys(self.custom) if self.custom else None,
        }


def _lost(name: str) -> "Metric":
    """A metric that was made in Python by the process that evaluated."""
    from vglm.evaluation.score.metrics.base import Metric

    def rows(records: "Sequence[Prediction]") -> "Rows":
        raise DataError(f"{name} was made in Python; name it in a config to have it again: metrics.custom.{name}")

    return Metric(name, name, "not known", table=rows)


def spell_out(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The `metrics` of a config with a `_target_` in each component, as `check_config` and `build` take it.

    Args:
        metrics: As in a file of conf/metrics/, in the config of an older evaluation or on a command line.

    Raises:
        ConfigError: Something under `external` is not a component, and stands for none; all of these are named.
    """
    external, problems = dict[str, Any](), []
    external_given, names = metrics.get("external"), metrics.get("names")
    if isinstance(names, str):
        raise ConfigError(f"metrics.names must be a list, such as [{names}], got {names!r}.")
    if not isinstance(external_given, Mapping | None):
        raise ConfigError(f"metrics.external: expected components by name, got {external_given!r}")
    for name, values in (external_given or {}).items():
        if (reason := _no_component(str(name), values)) is not None:
            problems.append(f"metrics.external.{name}: {reason}")
        else:
            external[str(name)] = _spelled(str(name), values)
    if problems:
        raise ConfigError(_list_problems(problems))
    return {**metrics, "_target_": SETTINGS, "external": external or None}


def _no_component(name: str, values: object) -> str | None:
    """Why values are not a component of `external`; None where they are one."""
    from vglm.evaluation.score.metrics.external import WHY_NOT, why_unknown

    if values is None:
        return None
    if not isinstance(values, Mapping):
        return f"expected settings such as metrics.external.{name}.scores=<file>, got {values!r}"
    if "_target_" in values or "scores" in values or name in _EXTERNAL:
        return None
    return WHY_NOT.get(name) or why_unknown(name, list(_EXTERNAL))


def _spelled(name: str, values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if values is None or "_target_" in values:
        return None if values is None else dict(values)
    values = {"higher_is_better" if key == "is_better_higher" else key: value for key, value in values.items()}
    return {"_target_": _IMPORTED if "scores" in values else _EXTERNAL[name], **values}


def _list_problems(problems: Sequence[str]) -> str:
    lines = "".join(f"\n  {problem}" for problem in problems)
    return f"{len(problems)} problem{'s' * (len(problems) > 1)} in metrics.external:{lines}"


def _checked(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics spelled out, in which nothing is built but what may be; a ConfigError names all other mistakes."""
    from vglm.config import check_component

    spelled = spell_out(metrics)
    check_component(spelled, "metrics")
    for name, value in (spelled["external"] or {}).items():
        if value is not None:
            _check_external(value, f"metrics.external.{name}")
    for name, value in (spelled.get("custom") or {}).items():
        if value is not None:
            _check_custom(value, f"metrics.custom.{name}")
    return spelled


def _check_external(values: Mapping[str, Any], where: str) -> None:
    """Refuse to build anything else than an external metric of plain values, whoever wrote the config."""
    from vglm.config import locate
    from vglm.evaluation.score.metrics.external import ExternalMetric

    component = locate(str(values["_target_"]))
    if not (isinstance(component, type) and issubclass(component, ExternalMetric)):
        raise ConfigError(f"{where}._target_: {values['_target_']} is no external metric.")
    if nested := [key for key, value in values.items() if isinstance(value, Mapping)]:
        raise ConfigError(f"{where}.{nested[0]}: expected a plain value, got a component.")


def _check_custom(values: Mapping[str, Any], where: str) -> None:
    """Refuse components of the workbench, which are allowed in configs and are not metrics."""
    from vglm.config import is_ours

    if ours := [target for target in _targets(values) if is_ours(target)]:
        raise ConfigError(f"{where}._target_: {ours[0]} is no metric of yours.")


def _targets(values: object) -> Iterator[str]:
    if isinstance(values, Mapping):
        yield from [str(values["_target_"])] if "_target_" in values else []
        values = list(values.values())
    if isinstance(values, list | tuple):
        for value in values:
            yield from _targets(value)


def unnamed_settings(values: Mapping[str, Any], named: Collection[str]) -> list[str]:
    """The settings in an evaluation's description that must not be followed, since the command does not name them.

    A description may come from a stranger: it must not choose where answers and keys are sent, or what is read.

    Args:
        values: A component of `external` there, spelled out.
        named: The settings that the command names.
    """
    from vglm.config import locate

    kind = locate(str(values["_target_"]))
    defaults = {field.name: field.default for field in fields(kind)}
    return [key for key in kind.NAMED_ANEW if key not in named and key in values and values[key] != defaults.get(key)]


def read_config(evaluation: "Evaluation") -> dict[str, Any]:
    """The config that an evaluation ran with.

    Raises:
        DataError: It is not YAML.
    """
    config = parse_yaml(evaluation.config, f"the config in {EVALUATION_FILE}", advice="Run evaluate.py again.")
    return config if isinstance(config, dict) else {}


def read_settings(evaluation: "Evaluation") -> MetricSettings:
    """The `metrics` of that config.

    Raises:
        ConfigError: A metric is unknown.
        DataError: The config is not YAML, its `metrics` are damaged, or one is of a package that is not allowed.
    """
    metrics = metrics_of(read_config(evaluation))
    try:
        _checked(metrics)
    except ConfigError as error:
        raise DataError(f"metrics of the config in {EVALUATION_FILE} are wrong: {error}") from error
    return MetricSettings.of(metrics)


def metrics_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The `metrics` of an evaluation's config, plain values.

    Raises:
        DataError: They are none.
    """
    metrics = config.get("metrics") or {}
    if not isinstance(metrics, Mapping):
        shown = repr(metrics)[:80]
        raise DataError(f"metrics of the config in {EVALUATION_FILE} are wrong, got {shown}. See conf/metrics/.")
    return metrics
