import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vglm.cli import main
from vglm.errors import LONGEST_MESSAGE, ConfigError, DataError
from vglm.evaluation.predict.answers import Answers
from vglm.evaluation.predictions import (
    PREDICTIONS_FILE,
    Arm,
    Evaluation,
    Prediction,
    read_evaluation,
    write_evaluation,
    write_predictions,
)
from vglm.evaluation.report import render
from vglm.evaluation.score.baselines import collect_baselines
from vglm.evaluation.score.comparison import Comparison, compare, compare_folder
from vglm.evaluation.score.image_use import read_visual_gains
from vglm.evaluation.score.metrics import ALL_METRICS, select_metrics
from vglm.evaluation.score.metrics.external import (
    SCORES_FILE,
    Store,
    StoredMetric,
    declare,
    key_of,
    read_store,
    stored_metrics,
    write_store,
)
from vglm.evaluation.score.metrics.imported import ImportedMetric, import_scores
from vglm.evaluation.score.scoring import STAMP, rescore, score_arms
from vglm.evaluation.score.settings import MetricSettings
from vglm.evaluation.seals import scores_digest, write_seals

N = 12
JUDGE = {"base_url": "http://127.0.0.1:9/v1", "model": "x"}


def record(index: int, prediction: str, **others: Any) -> Prediction:
    values = {
        "id": f"study {index}", "group": str(index), "split": "test", "kind": None, "language": "en", "question": "?",
        "history": (), "reference": f"finding {index}", "prediction": prediction, "image": None, "image_sha256": None,
    }  # fmt: skip
    return Prediction(**(values | others))


BEFORE = [record(index, "nothing") for index in range(N)]
AFTER = [record(index, "nothing" if index < 2 else f"finding {index % 5}") for index in range(N)]
ARMS = {"before": BEFORE, "after": AFTER}
SCORES = {"before": [0.25] * N, "after": [0.25, 0.25, *(0.5 + 0.04 * index for index in range(2, N))]}
"""Equal answers have equal scores."""


def lines(arm: str) -> list[dict[str, Any]]:
    return [{"id": f"study {index}", "score": score} for index, score in enumerate(SCORES[arm])]


def write_lines(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def green(tmp_path: Path) -> dict[str, object]:
    """The settings of a metric whose scores lie in two files."""
    for arm in ARMS:
        write_lines(tmp_path / f"green_{arm}.jsonl", lines(arm))
    return {"scores": f"{tmp_path}/green_{{arm}}.jsonl", "signature": "GREEN-RadLlama2-7b, green-score 0.0.12"}


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    folder = tmp_path / "evaluation"
    for arm, records in ARMS.items():
        write_predictions(records, folder / arm / PREDICTIONS_FILE)
    about = Evaluation(
        title="run", summary="A run.", purpose="tuning", baseline=Arm(label="before", meaning="b"),
        candidate=Arm(label="after", meaning="a"), facts={}, decoding={}, command="", versions={}, created="",
        config="seed: 1\nmetrics:\n  names: [exact_match]\n", sealed=write_seals(folder),
    )  # fmt: skip
    write_evaluation(about, folder)
    return folder


# --- settings --------------------------------------------------------------------------------------------------------


def components(external: object) -> dict[str, Any]:
    """What stands under `external` of a config, built."""
    return MetricSettings.of({"external": external}).components


def test_nothing_is_asked_for_by_default() -> None:
    assert components(None) == components({}) == components({"judge": None}) == {}
    assert declare(None) == {}


def test_all_mistakes_of_the_settings_at_once(tmp_path: Path) -> None:
    wrong: dict[str, Any] = {
        "bert_score": {"model": str(tmp_path), "num_layers": 0},
        "chexbert": {"weights": "none.pth", "tokenizer": str(tmp_path), "uncertain": "maybe"},
        "judge": {"base_url": "localhost", "modle": "x", "timeout_seconds": True},
        "green": {"scores": "none.jsonl"},
        "plain": 3,
    }
    with pytest.raises(ConfigError) as raised:
        components(wrong)
    assert str(raised.value) == (
        "1 problem in metrics.external:\n"
        "  metrics.external.plain: expected settings such as metrics.external.plain.scores=<file>, got 3"
    )
    del wrong["plain"]
    with pytest.raises(ConfigError) as raised:
        components(wrong)
    judge = "vglm.evaluation.score.metrics.judge.JudgeMetric"
    imported = "vglm.evaluation.score.metrics.imported.ImportedMetric"
    assert (
        str(raised.value)
        == f"""5 problems in metrics:
  metrics.external.chexbert.uncertain: expected one of 'positive', 'negative', got 'maybe'
  metrics.external.judge.modle: {judge} takes no `modle`; did you mean `model`?
  metrics.external.judge.timeout_seconds: expected float, got True
  metrics.external.judge.model: {judge} requires it; give it as metrics.external.judge.model=<value>
  metrics.external.green.signature: {imported} requires it; give it as metrics.external.green.signature=<value>"""
    )
    wrong["chexbert"]["uncertain"] = "negative"
    wrong |= {"judge": {"base_url": "localhost", "model": "x"}, "green": {"scores": "none.jsonl", "signature": " "}}
    with pytest.raises(ConfigError) as raised:
        MetricSettings.of({"external": wrong}).check_files()
    assert (
        str(raised.value)
        == f"""7 problems in metrics.external:
  metrics.external.bert_score: num_layers must be positive, got 0
  metrics.external.bert_score: model '{tmp_path}' is no folder with a model's config.json and weights
  metrics.external.chexbert: weights 'none.pth' is no file; expected chexbert.pth
  metrics.external.chexbert: tokenizer '{tmp_path}' has no vocab.txt; expected a folder with that of bert-base-uncased
  metrics.external.judge: base_url must start with http:// or https://, got 'localhost'
  metrics.external.green: signature must say how the scores were computed
  metrics.external.green: scores 'none.jsonl' is no file"""
    )


@pytest.mark.parametrize(("name", "reason"), [("radgraph", "scorer of RadEval"), ("green", "7B")])
def test_names_of_other_packages_say_what_to_do(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"{reason}.*metrics.external.{name}.scores=<file>"):
        components({name: {"model": "x"}})
    with pytest.raises(ConfigError, match=rf"{reason}.*metrics.external.{name}.scores=<file>"):
        select_metrics([name])


def test_names() -> None:
    external = declare(components({"judge": JUDGE}))
    assert [metric.name for metric in select_metrics(["exact_match"], external=external)] == ["exact_match", "judge"]
    assert next(metric.name for metric in select_metrics(["judge", "exact_match"], external=external)) == "judge"
    with pytest.raises(ConfigError, match=r"there is no 'chexbert_micro_f1' without metrics.external.chexbert"):
        select_metrics(["chexbert_micro_f1"])
    with pytest.raises(ConfigError, match=r"metrics.external: chrf is a metric of the workbench"):
        select_metrics([], external={"chrf": ALL_METRICS["chrf"]})
    with pytest.raises(ConfigError, match="base_url must start with http"):
        MetricSettings.of({"external": {"judge": JUDGE | {"base_url": "ftp://x"}}}).check_files()


# --- numbers of other programs ---------------------------------------------------------------------------------------


def imported(settings: dict[str, object], arms: dict[str, list[Prediction]] = ARMS) -> dict[str, list[float]]:
    return import_scores(ImportedMetric(**settings), arms)  # type: ignore[arg-type]


def test_scores_of_two_files_or_of_one(green: dict[str, object], tmp_path: Path) -> None:
    store = imported(green)
    for arm, records in ARMS.items():
        assert [store[key_of(prediction)] for prediction in records] == [[score, 1.0] for score in SCORES[arm]]
    both = [row for arm in ARMS for row in (line | {"arm": arm} for line in lines(arm))]
    assert imported(green | {"scores": write_lines(tmp_path / "both.jsonl", both)}) == store


def test_an_answer_that_failed_needs_no_score(green: dict[str, object], tmp_path: Path) -> None:
    failed = [replace(AFTER[0], prediction="", error="unreadable"), *AFTER[1:]]
    write_lines(tmp_path / "green_after.jsonl", lines("after")[1:])
    assert imported(green, {"before": BEFORE, "after": failed})[key_of(failed[0])] == [0.0, 1.0]


def test_all_mistakes_of_a_file_at_once(green: dict[str, object], tmp_path: Path) -> None:
    rows = lines("after")
    rows[3]["score"] = "high"
    rows[4]["score"] = 1.5
    rows[5] = rows[6]
    rows[11]["id"] = "study 99"
    write_lines(tmp_path / "green_after.jsonl", rows)
    with pytest.raises(DataError) as raised:
        imported(green)
    text = str(raised.value)
    assert "8 problems with the scores of after" in text  # and of each row also that its answer has none
    assert "line 4: score must be a number, found 'high'" in text
    assert "line 5: score must be from 0 to 1, found 1.5; of another scale, set is_share=false" in text
    assert "line 7: test 'study 6' appears twice" in text
    assert "test 'study 99' is no answer of after" in text


def test_one_answer_cannot_have_two_scores(green: dict[str, object], tmp_path: Path) -> None:
    rows = lines("after")
    rows[0]["score"] = 0.75
    write_lines(tmp_path / "green_after.jsonl", rows)
    with pytest.raises(
        DataError, match=r"test 'study 0' has another score in another arm, though the answer is the same"
    ):
        imported(green)


def test_other_scales(green: dict[str, object], tmp_path: Path) -> None:
    for arm in ARMS:
        write_lines(tmp_path / f"green_{arm}.jsonl", [row | {"score": 40 * row["score"]} for row in lines(arm)])
    assert imported(green | {"is_share": False})[key_of(BEFORE[0])] == [10.0, 1.0]


# --- in an evaluation folder -----------------------------------------------------------------------------------------


def test_stored_scores_take_part_like_any_other(evaluation: Path, green: dict[str, object]) -> None:
    score_arms(evaluation, MetricSettings.of({"names": ["exact_match"], "external": {"green": green}}))
    about = read_evaluation(evaluation)
    about = replace(about, config=json.dumps({"metrics": {"names": ["green"], "external": {"green": green}}}))
    comparison = compare_folder(evaluation, about).as_dict()
    row = comparison["splits"]["test"]["scores"]["green"]
    assert comparison["primary"] == "green"
    assert row["values"]["before"] == 0.25
    assert row["values"]["after"] == pytest.approx(np.mean(SCORES["after"]))
    assert row["interval"][0] > 0
    assert row["p_value"] < 0.05
    assert row["p_value_holm"] is not None
    assert comparison["metrics"]["green"]["signature"] == "computed elsewhere|GREEN-RadLlama2-7b, green-score 0.0.12"


def test_a_changed_answer_has_no_score(evaluation: Path, green: dict[str, object]) -> None:
    score_arms(evaluation, MetricSettings.of({"names": [], "external": {"green": green}}))
    changed = [replace(AFTER[0], prediction="something else"), *AFTER[1:]]
    not_computed = compare(
        BEFORE, changed, metrics=["green"], external=stored_metrics(evaluation, components({"green": green}))
    )
    assert (
        "1 of 12 answers have no green in scores.jsonl (first: test 'study 0')"
        in (not_computed.splits["test"].not_computed["green"])
    )


def test_a_report_says_what_was_not_computed(evaluation: Path) -> None:
    about = read_evaluation(evaluation)
    metrics = {"names": ["exact_match"], "external": {"judge": JUDGE}}
    write_evaluation(replace(about, config=json.dumps({"metrics": metrics})), evaluation)
    render(evaluation)
    written = json.loads((evaluation / "metrics.json").read_text(encoding="utf-8"))["splits"]["test"]
    assert "answers have no judge in scores.jsonl" in written["not_computed"]["judge"]
    assert "exact_match" in written["scores"]


def test_scoring_again_without_torch(evaluation: Path, green: dict[str, object]) -> None:
    settings = [f"metrics.external.green.{name}={value}" for name, value in green.items()]
    code = (
        "import sys, atexit\n"
        "for name in ('torch', 'transformers', 'peft'): sys.modules[name] = None\n"
        "from vglm.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "score", str(evaluation), "metrics.names=[exact_match,chrf]", *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written = json.loads((evaluation / "metrics.json").read_text(encoding="utf-8"))
    assert list(written["metrics"])[:2] == ["exact_match", "chrf"]
    assert written["splits"]["test"]["scores"]["green"]["values"]["before"] == 0.25
    assert "seed: 1" in read_evaluation(evaluation).config
    assert "GREEN-RadLlama2-7b" in (evaluation / "report" / "report.json").read_text(encoding="utf-8")
    for file in evaluation.parent.glob("green_*.jsonl"):
        file.unlink()
    rescore(evaluation, ["metrics.names=[green]"])  # what is stored needs no file
    assert compare_folder(evaluation, read_evaluation(evaluation)).as_dict()["primary"] == "green"
    again = [setting for setting in settings if ".scores=" in setting]
    with pytest.raises(ConfigError, match="there is no file of such a name"):
        rescore(evaluation, ["metrics.external.green.signature=another", *again])
    rescore(evaluation, ["metrics.names=[exact_match]", "metrics.external.green=null"])
    assert not (evaluation / "after" / SCORES_FILE).read_text(encoding="utf-8")


@pytest.mark.parametrize("setting", ["names=[chrf]", "metrics.names", "metrics=x"])
def test_a_setting_that_is_none_of_the_metrics(evaluation: Path, setting: str) -> None:
    before = (evaluation / "evaluation.json").read_bytes()
    with pytest.raises(ConfigError, match="is no setting of the metrics"):
        rescore(evaluation, [setting])
    assert (evaluation / "evaluation.json").read_bytes() == before


def test_the_store_reads_what_it_wrote(tmp_path: Path) -> None:
    metric = StoredMetric(name="m", title="M", signature="s", rows="r", statistic="micro_f1", unscored={"after": 1})
    rows = {"r": {key_of(prediction): [0.1, 1 / 3, 1e-17] for prediction in AFTER[:5]}}
    assert read_store(tmp_path) == Store({}, {})
    write_store(Store({"m": metric}, rows), ARMS, tmp_path)
    assert read_store(tmp_path) == Store({"m": metric}, rows)
    (tmp_path / "after" / SCORES_FILE).write_text('{"r": [1]}\nno JSON\n')
    with pytest.raises(DataError, match=r"after/scores.jsonl: 2 lines are no scores \(line 1: KeyError\('key'\)"):
        read_store(tmp_path)
    (tmp_path / "external.json").write_text('{"metrics": [{"name": "m"}]}')
    with pytest.raises(DataError, match=r"external.json is damaged.*vglm score"):
        read_store(tmp_path)


def test_scores_of_an_earlier_version_are_read(evaluation: Path) -> None:
    described = {"name": "m", "title": "M", "signature": "s", "rows": "m", "statistic": "mean", "is_share": False}
    older = {"metrics": [{**described, "is_better_higher": False, "unscored": None}]}
    (evaluation / "external.json").write_text(json.dumps(older), encoding="utf-8")
    (evaluation / "seals.json").unlink()  # that version had none
    metric = read_store(evaluation).metrics["m"].bound({})
    assert (metric.higher_is_better, metric.is_share, metric.unit) == (False, False, "")


def test_the_key_is_of_all_that_a_score_depends_on() -> None:
    changes = [
        {"id": "x"}, {"split": "x"}, {"draw": 1}, {"question": "x"}, {"history": (("a", "b"),)}, {"reference": "x"},
        {"prediction": "x"}, {"error": "x"}, {"image_sha256": "x"},
    ]  # fmt: skip
    keys = [key_of(BEFORE[0]), *(key_of(replace(BEFORE[0], **change)) for change in changes)]
    assert len(set(keys)) == len(keys)
    assert key_of(replace(BEFORE[0], group="other", meta={"a": 1}, error=None)) == keys[0]


def test_no_baseline_is_asked_of_a_judge() -> None:
    answers = Answers("after", {"after": AFTER})
    settings = MetricSettings.of({"names": ["judge", "exact_match"], "external": {"judge": JUDGE}})
    assert [metric.name for metric in settings.of_texts()] == ["exact_match"]
    assert collect_baselines((), answers, settings.of_texts()) == []


# --- a judge ---------------------------------------------------------------------------------------------------------


def test_answers_that_a_judge_leaves_unscored_are_counted(evaluation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids: list[str] = []

    def scores(self: object, records: list[Prediction], verdicts: Path) -> list[float | None]:
        ids.extend(prediction.id for prediction in records)
        return [
            None if prediction.id == "study 3" and prediction.prediction != "nothing" else 0.5 for prediction in records
        ]

    monkeypatch.setattr("vglm.evaluation.score.metrics.judge.Judge.scores", scores)
    metrics = {"names": ["exact_match"], "external": {"judge": JUDGE}}
    score_arms(evaluation, MetricSettings.of(metrics))
    assert len(ids) == 2 * N - 2  # equal answers once
    stamp = read_evaluation(evaluation).stamps[-1]
    assert (stamp.text, str(stamp.detail)) == (STAMP, "Left out of the mean: Judged by x: 1 of after.")
    metric = stored_metrics(evaluation, components(metrics["external"]))["judge"]
    assert metric.rows(AFTER).sum(axis=0).tolist() == [0.5 * (N - 1), N - 1]
    score_arms(evaluation, MetricSettings.of(metrics))  # known by now
    assert len(ids) == 2 * N - 2
    assert read_evaluation(evaluation).stamps == (stamp,)
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ConfigError, match="the variable NO_SUCH_KEY is not set"):
        score_arms(evaluation, MetricSettings.of({"external": {"judge": JUDGE | {"api_key_env": "NO_SUCH_KEY"}}}))


@pytest.mark.parametrize(("names", "is_asked"), [(["exact_match"], False), (["judge", "exact_match"], True)])
def test_controls_are_scored_by_the_primary_metric_only(
    evaluation: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], is_asked: bool
) -> None:
    shuffled = [replace(original, prediction=f"with another image {original.id}") for original in AFTER]
    write_predictions(shuffled, evaluation / "after-shuffled" / PREDICTIONS_FILE)
    answers: list[str] = []

    def scores(self: object, records: list[Prediction], verdicts: Path) -> list[float | None]:
        answers.extend(prediction.prediction for prediction in records)
        return [
            0.1 if prediction.prediction.startswith("with") else 0.2 + 0.01 * len(prediction.prediction)
            for prediction in records
        ]

    monkeypatch.setattr("vglm.evaluation.score.metrics.judge.Judge.scores", scores)
    metrics = {"names": names, "external": {"judge": JUDGE}}
    score_arms(evaluation, MetricSettings.of(metrics))
    assert any(answer.startswith("with") for answer in answers) == is_asked
    about = replace(read_evaluation(evaluation), config=json.dumps({"metrics": metrics}))
    gains = read_visual_gains(evaluation, about, compare_folder(evaluation, about))
    assert [gain.control for gain in gains] == ["shuffled"]
    assert (gains[0].result.before == pytest.approx(0.1)) == is_asked


# --- a description from a stranger ------------------------------------------------------------------------------------


def _describe(folder: Path, external: dict[str, Any]) -> None:
    config = json.dumps({"metrics": {"names": ["exact_match"], "external": external}})
    write_evaluation(replace(read_evaluation(folder), config=config), folder)


@pytest.mark.parametrize("overrides", [[], ["model=y"], ["base_url={url}"], ["base_url={url}", "model=y"]], ids=len)
def test_no_key_goes_where_only_a_description_says(
    evaluation: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    requests: list[object] = []
    monkeypatch.setattr("urllib.request.urlopen", lambda *request, **_: requests.append(request))
    monkeypatch.setenv("MY_SECRET", "secret")
    stranger = {"base_url": "http://stranger.invalid/v1", "model": "x", "api_key_env": "MY_SECRET"}
    _describe(evaluation, {"judge": stranger})
    before = {path: path.read_bytes() for path in evaluation.rglob("*") if path.is_file()}
    settings = [f"metrics.external.judge.{setting.format(url='http://127.0.0.1:9/v1')}" for setting in overrides]
    assert main(["score", str(evaluation), "metrics.names=[chrf]", *settings]) == 2
    message = capsys.readouterr().err
    missing = {"base_url", "model", "api_key_env"} - {setting.partition("=")[0] for setting in overrides}
    assert {key for key in stranger if f"metrics.external.judge.{key}=<...>" in message} == missing
    assert "metrics.external.judge=null" in message
    assert "secret" not in message.replace("MY_SECRET", "")
    assert requests == []
    assert {path: path.read_bytes() for path in evaluation.rglob("*") if path.is_file()} == before
    assert main(["score", str(evaluation), "metrics.names=[chrf]", "metrics.external.judge=null"]) == 0
    assert requests == []


def test_no_file_is_read_where_only_a_description_says(evaluation: Path, green: dict[str, object]) -> None:
    _describe(evaluation, {"green": green})
    with pytest.raises(ConfigError, match=r"Repeat on this command line: metrics\.external\.green\.scores=<\.\.\.>"):
        rescore(evaluation, [])
    rescore(evaluation, [f"metrics.external.green.scores={green['scores']}"])
    assert (
        compare_folder(evaluation, read_evaluation(evaluation)).as_dict()["splits"]["test"]["scores"]["green"]["n"] == N
    )
    for name, settings in {
        "bert_score": {"model": "/etc"},
        "chexbert": {"weights": "/etc/passwd", "tokenizer": "/etc"},
    }.items():
        _describe(evaluation, {name: settings})
        with pytest.raises(ConfigError, match=rf"Repeat .* metrics\.external\.{name}\.{next(iter(settings))}=<"):
            rescore(evaluation, [])


def test_scores_that_are_there_are_kept_without_naming_their_settings(
    evaluation: Path, green: dict[str, object]
) -> None:
    rescore(evaluation, [f"metrics.external.green.{name}={value}" for name, value in green.items()])
    before = (evaluation / "after" / SCORES_FILE).read_bytes()
    rescore(evaluation, ["metrics.names=[chrf]"])
    assert (evaluation / "after" / SCORES_FILE).read_bytes() == before


def test_replies_of_a_judge_are_never_written_through_a_link(evaluation: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("not the end of a line")
    (evaluation / "verdicts.jsonl").symlink_to(tmp_path / "mine")
    with pytest.raises(DataError, match=r"'verdicts\.jsonl' leads out of this folder"):
        score_arms(evaluation, MetricSettings.of({"names": [], "external": {"judge": JUDGE}}))
    assert (tmp_path / "mine").read_text() == "not the end of a line"


def test_a_failure_while_scoring_leaves_the_earlier_description_and_report(
    evaluation: Path, green: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    render(evaluation)
    names = ("evaluation.json", "metrics.json", "report/index.html", "report/report.json")
    before = [(evaluation / name).read_bytes() for name in names]

    def fail(folder: Path, comparison: Comparison) -> None:
        assert (folder / "evaluation.json").read_bytes() != before[0]  # in the copy
        (folder / "metrics.json").unlink()
        raise KeyboardInterrupt

    settings = [f"metrics.external.green.{name}={value}" for name, value in green.items()]
    with pytest.raises(KeyboardInterrupt):
        rescore(evaluation, settings, fail)
    assert [(evaluation / name).read_bytes() for name in names] == before
    assert (evaluation / "after" / SCORES_FILE).is_file()  # what was computed is kept
    assert [path.name for path in evaluation.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("content", [b"\xff", b'{"metrics": 5}', b'{"metrics": [{"name": 5}]}', b"[" * 9999, b"[]"])
def test_damaged_descriptions_of_scores_are_one_message(evaluation: Path, content: bytes) -> None:
    _describe(evaluation, {"green": {"scores": "x", "signature": "y"}})
    (evaluation / "external.json").write_bytes(content)
    with pytest.raises(DataError, match=r"external\.json") as caught:
        render(evaluation)
    assert len(str(caught.value)) < LONGEST_MESSAGE


def _seal(evaluation: Path) -> None:
    """As if the stored scores had been written so; those that were altered later are not read."""
    path = evaluation / "external.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["sha256"] = scores_digest(content["metrics"], evaluation)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("line", ['{"key": 5, "green": 5}', '{"key": "x", "green": [1, "a"]}', "[" * 9999, '"green"'])
def test_damaged_scores_are_one_message(evaluation: Path, green: dict[str, object], line: str) -> None:
    rescore(evaluation, [f"metrics.external.green.{name}={value}" for name, value in green.items()])
    (evaluation / "after" / SCORES_FILE).write_text(line)
    _seal(evaluation)
    with pytest.raises(DataError, match=r"after/scores\.jsonl: 1 lines are no scores") as caught:
        render(evaluation)
    assert len(str(caught.value)) < LONGEST_MESSAGE
    (evaluation / "after" / SCORES_FILE).write_text('{"key": "x", "green": [1, 2, 3]}')
    _seal(evaluation)
    with pytest.raises(DataError, match="are no scores of green"):
        render(evaluation)


# --- RadEval ----------------------------------------------------------------------------------------------------------


def test_radeval_without_its_package_or_with_an_unknown_scorer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    settings = MetricSettings.of({"external": {"radeval": {"scorers": ["rouge", "radfact"]}}})
    with pytest.raises(ConfigError, match=r"(?s)there is no 'radfact'; choose from radgraph.*RadEval is not installed"):
        settings.check_files()


def test_a_scorer_of_radeval_that_fails_says_why_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(scorer: str) -> None:
        raise OSError(f"cannot reach the hub for {scorer}")

    monkeypatch.setattr("vglm.evaluation.score.metrics.radeval._open", offline)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.2.1")
    arms = {"before": BEFORE, "after": AFTER}
    for scorer, advice in (("radgraph", "downloads its weights"), ("rouge", "Score both arms where it runs")):
        component = MetricSettings.of({"external": {"radeval": {"scorers": [scorer]}}}).components["radeval"]
        with pytest.raises(DataError, match=rf"(?s)cannot reach the hub for {scorer}.*{advice}.*\.scores=<file>"):
            component.score("radeval", arms, tmp_path, Store({}, {}))


def test_radeval_scores_each_answer_once(tmp_path: Path) -> None:
    pytest.importorskip("radeval", reason="the package RadEval is not installed")
    settings = MetricSettings.of({"names": ["radeval_rougeL"], "external": {"radeval": {"scorers": ["rouge", "bleu"]}}})
    settings.check_files()
    arms = {"before": [*BEFORE, record(N, "", error="no picture")], "after": [*AFTER, record(N, f"Finding {N}.")]}
    component, store = settings.components["radeval"], Store({}, {})
    component.score("radeval", arms, tmp_path, store)
    names = ["radeval_rouge1", "radeval_rouge2", "radeval_rougeL", "radeval_bleu"]
    assert list(store.metrics) == list(component.names("radeval")) == names
    before, after = (
        [store.rows["radeval_rougeL"][key_of(prediction)] for prediction in arms[arm]] for arm in ("before", "after")
    )
    assert before == [[0.0, 1.0]] * (N + 1)
    assert after[-1] == [1.0, 1.0]
    assert after[2] == [1.0, 1.0]
    assert after[7] == [0.5, 1.0]  # "finding 2" for "finding 7"
    assert store.metrics["radeval_bleu"].signature.startswith("RadEval 2.")
    rows = {name: dict(row) for name, row in store.rows.items()}
    component.score("radeval", arms, tmp_path, store)
    assert store.rows == rows
