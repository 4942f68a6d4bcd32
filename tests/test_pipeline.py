"""From Python: evaluate, score and compare without a config; metrics of one's own; scores that stay what they were."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from golden import make_evaluation

import train
from vglm.cli import main
from vglm.config import compose
from vglm.config.targets import allow_targets
from vglm.data.loading import load_dataset
from vglm.errors import ConfigError, DataError
from vglm.evaluation.pipeline import EvaluationResult, compare, evaluate, score
from vglm.evaluation.predictions import read_evaluation
from vglm.evaluation.report import render
from vglm.evaluation.score.metrics import Metric
from vglm.evaluation.score.schema import MetricsFile
from vglm.evaluation.score.scoring import rescore, score_folder
from vglm.evaluation.score.settings import MetricSettings, spell_out
from vglm.model.loading import load_pretrained

GOLDEN = make_evaluation.FOLDER
SHORT = Metric("short", "Short answers", "at most two characters", lambda answer, _: float(len(answer) <= 2))


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A copy of the stored evaluation."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "evaluation"))


def same(actual: object, expected: object) -> bool:
    """Whether two JSON values are equal, numbers to a millionth and sentences with numbers in them aside."""
    if isinstance(expected, dict):
        assert isinstance(actual, dict)
        assert actual.keys() == expected.keys()
        return all(key == "power_line" or same(actual[key], value) for key, value in expected.items())
    if isinstance(expected, list):
        assert isinstance(actual, list)
        return len(actual) == len(expected) and all(map(same, actual, expected))
    return actual == (pytest.approx(expected, rel=1e-6, abs=1e-9) if isinstance(expected, float) else expected)


def test_the_same_predictions_have_the_same_scores(stored: Path) -> None:
    expected = json.loads((stored / "metrics.json").read_text(encoding="utf-8"))
    score_folder(stored)
    actual = json.loads((stored / "metrics.json").read_text(encoding="utf-8"))
    for part in expected:
        assert same(actual[part], expected[part]), part
    assert set(actual) == set(MetricsFile.__annotations__)


def test_nothing_is_scored_twice(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vglm.evaluation.score import comparison

    whole: list[tuple[str, str]] = []
    compare_arms = comparison.compare_arms

    def count(metric: Metric, baseline: list[Any], candidate: list[Any]) -> Any:
        if len(candidate) == (23 if candidate[0].split == "test" else 16):
            whole.append((candidate[0].split, metric.name))
        return compare_arms(metric, baseline, candidate)

    monkeypatch.setattr(comparison, "compare_arms", count)
    assert main(["report", str(stored)]) == 0  # a page, two texts, a record and the terminal
    assert len(whole) == len(set(whole)) == len(make_evaluation.NAMES) + 6  # of every report, and lengths


@pytest.mark.parametrize("name", ["n", "errors", "cut"])
def test_a_metric_may_be_called_like_a_count(stored: Path, name: str) -> None:
    for arm in ("before", "after"):
        rows = [json.loads(line) for line in (stored / arm / "predictions.jsonl").read_text("utf-8").splitlines()]
        scores = [{"id": row["id"], "score": len(row["prediction"]) / 100} for row in rows if row["split"] == "test"]
        (stored.parent / f"{arm}.jsonl").write_text("".join(map("{}\n".format, map(json.dumps, scores))))
    before = score_folder(stored).as_dict()["splits"]["test"]
    metrics = {name: {"scores": f"{stored.parent}/{{arm}}.jsonl", "signature": "length / 100"}}
    after = rescore(stored, {"external": metrics}).as_dict()["splits"]["test"]
    assert [after[key] for key in ("n", "errors", "cut")] == [before[key] for key in ("n", "errors", "cut")]
    assert 0 < after["scores"][name]["values"]["after"] < 0.1


# --- metrics of one's own ---------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package outside the workbench with one metric in it."""
    folder = tmp_path / "terms_metric"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from vglm.evaluation.score.metrics import Metric\n\n\n"
        "def term_recall(terms: list[str]) -> Metric:\n"
        "    def share(answer: str, reference: str) -> float:\n"
        "        expected = [term for term in terms if term in reference]\n"
        "        return sum(term in answer for term in expected) / len(expected) if expected else 1.0\n"
        "    return Metric('any', 'Terms', f'terms {terms}', share, title_zh='术语')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "terms_metric"
    sys.modules.pop("terms_metric", None)


def test_a_metric_from_outside_is_one_file_and_a_line_of_the_config(stored: Path, package: str) -> None:
    custom = {"terms": {"_target_": f"{package}.term_recall", "terms": ["红", "海"]}}
    values = {"names": ["terms", "accuracy"], "custom": custom}
    with pytest.raises(ConfigError, match=r"terms_metric\.term_recall may not be built.*--allow-target terms_metric"):
        MetricSettings.of(values)
    allow_targets(package)
    with pytest.raises(ConfigError, match=r"metrics\.custom\.terms\.term: .* takes no `term`; did you mean `terms`"):
        MetricSettings.of({"custom": {"terms": {**custom["terms"], "term": 1}}})
    comparison = rescore(stored, values)
    content = comparison.as_dict()
    assert content["primary"] == "terms"
    assert content["metrics"]["terms"]["title"] == {"en": "Terms", "zh": "术语"}
    assert content["splits"]["test"]["scores"]["terms"]["interval"][0] is not None
    assert "terms" in (render(stored).parent / "report.json").read_text(encoding="utf-8")  # built again


def test_a_config_cannot_build_other_things_as_metrics(stored: Path) -> None:
    loader = {"_target_": "vglm.model.loading.load_pretrained", "path_or_id": "/etc"}
    with pytest.raises(ConfigError, match="is no external metric"):
        MetricSettings.of({"external": {"x": loader}})
    with pytest.raises(ConfigError, match="is no metric of yours"):
        MetricSettings.of({"custom": {"x": loader}})
    nested = {"_target_": "vglm.evaluation.score.metrics.bert_score.BertScoreMetric", "model": loader}
    with pytest.raises(ConfigError, match="expected a plain value, got a component"):
        MetricSettings.of({"external": {"x": nested}})
    with pytest.raises(ConfigError, match="asks to be replaced"):
        MetricSettings.of({"convention": "${oc.env:HOME}"})


def test_the_short_form_is_spelled_out() -> None:
    short = {"names": [], "external": {"judge": {"model": "x"}, "green": {"scores": "f", "is_better_higher": False}}}
    metrics = spell_out(short)["external"]
    assert metrics["judge"] == {"_target_": "vglm.evaluation.score.metrics.judge.JudgeMetric", "model": "x"}
    assert metrics["green"] == {
        "_target_": "vglm.evaluation.score.metrics.imported.ImportedMetric", "scores": "f", "higher_is_better": False,
    }  # fmt: skip
    assert spell_out(spell_out(short)) == spell_out(short)


def test_a_metric_made_in_python_scores_and_is_missed_afterwards(stored: Path) -> None:
    comparison = score(stored, [SHORT, "accuracy"])
    assert comparison.verdict.metric.name == "short"
    assert read_evaluation(stored).stamps[-1].text == "PRIMARY METRIC CHOSEN AFTERWARDS"
    again = score(stored)
    assert "short was made in Python" in again.splits["test"].not_computed["short"]
    assert again.verdict.metric.name == "accuracy"


# --- without a config -------------------------------------------------------------------------------------------------


def test_a_model_is_evaluated_in_python(
    random_model_folder: Path, few_shot_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = load_dataset(few_shot_folder)
    few: dict[str, Any] = {"max_new_tokens": 2, "image_use": False, "baselines": False, "dataset": data}
    first = evaluate(model=random_model_folder, metrics=["rouge_l_characters", SHORT], output_dir="a", **few)
    assert first.comparison.verdict.metric.name == "rouge_l_characters"
    assert first.scores["test"]["short"]["n"] == len(data.test)
    assert first.report.is_file()
    described = read_evaluation(first.folder)
    assert "max_new_tokens=2" in described.command
    assert described.purpose == "image use"
    loaded = load_pretrained(str(random_model_folder))
    second = evaluate(model=loaded, output_dir="b", **few)
    for arm in ("shuffled", "true"):
        texts = [(result.folder / arm / "predictions.jsonl").read_text("utf-8") for result in (first, second)]
        assert texts[0] == texts[1]
    with pytest.raises(ConfigError, match="there is no dataset"):
        evaluate(model=random_model_folder)
    with pytest.raises(ConfigError, match="did you mean 'exact_match'"):
        evaluate(model=random_model_folder, metrics=["exact_mach"], **few)


def test_runs_are_evaluated_and_compared_in_python(
    random_model_folder: Path, few_shot_folder: Path, tmp_path: Path
) -> None:
    runs = []
    for seed in (1, 2):
        fixed = [f"model.path_or_id={random_model_folder}", "dataset=fewshot_background", "trainer=debug"]
        fixed += [f"dataset.path={few_shot_folder}", f"output_dir={tmp_path / str(seed)}", f"seed={seed}"]
        fixed += ["training.score_checkpoints=false", "trainer.disable_tqdm=true"]
        runs.append(train.run(compose(overrides=fixed)))
    few: dict[str, Any] = {"max_new_tokens": 2, "image_use": False, "baselines": False}
    results = [evaluate(run=run, metrics=["chrf"], **few) for run in runs]
    assert results[0] == EvaluationResult(runs[0] / "evaluation")
    assert results[0].comparison.metrics[0].name == "chrf"
    side_by_side = compare(results)
    (row,) = side_by_side.rows
    assert (row.seeds, row.metric.name, side_by_side.tests) == ((1, 2), "chrf", ())
    assert row.after == pytest.approx(sum(result.comparison.verdict.result.after for result in results) / 2)
    assert "chrF2 on" in str(side_by_side)
    score(results[1].folder, ["exact_match"])
    with pytest.raises(DataError, match=r"is judged by chrf, .* by exact_match.*vglm score"):
        compare(runs)
