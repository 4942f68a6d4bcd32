import json
from pathlib import Path
from typing import Any

import pytest
from test_report import AFTER, BEFORE, EVALUATION

from vglm.evaluation.predictions import write_evaluation, write_predictions
from vglm.evaluation.report import render
from vglm.evaluation.tracking import COLUMNS, find_run_id, table_rows, track_evaluation
from vglm.runs import Run

TRACKER = {"_target_": "vglm.tuning.tracker.Tracker", "report_to": "wandb", "project": "test", "mode": "offline"}


def tracked(folder: Path, tracker: object) -> Run:
    """The run in a folder, with a config that says where it was tracked."""
    parts = {name: {"_target_": "x"} for name in ("model", "dataset", "method", "trainer")}
    (folder / "config.yaml").write_text(json.dumps({**parts, "tracker": tracker}), encoding="utf-8")
    return Run(folder)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that was tracked twice, with an evaluation."""
    for name in ("run-20260101_000000-first1", "offline-run-20260102_000000-second2", "debug"):
        (tmp_path / "run" / "wandb" / name).mkdir(parents=True)
    folder = tmp_path / "run" / "evaluation"
    write_evaluation(EVALUATION, folder)
    write_predictions(BEFORE, folder / "before" / "predictions.jsonl")
    write_predictions(AFTER, folder / "after" / "predictions.jsonl")
    render(folder)
    return tmp_path / "run"


def test_the_newest_id_of_a_run_is_found(run: Path, tmp_path: Path) -> None:
    assert find_run_id(run) == "second2"
    assert find_run_id(tmp_path) is None


def test_an_offline_evaluation_goes_to_the_run_that_was_trained(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    message = track_evaluation(run / "evaluation", tracked(run, TRACKER))
    assert message is not None
    assert message.startswith("Weights & Biases, run second2:")
    (folder,) = [path for path in (run / "wandb").glob("offline-run-*-second2") if (path / "files").is_dir()]
    assert list(folder.glob("run-second2.wandb"))
    (table,) = folder.glob("files/media/table/evaluation/metrics_*.table.json")
    report = json.loads((run / "evaluation/report/report.json").read_text(encoding="utf-8"))
    content = json.loads(table.read_text(encoding="utf-8"))
    assert content["columns"] == list(COLUMNS)
    assert content["data"] == table_rows(report)
    assert content["data"][0][:4] == ["test", "exact_match", 0.5, 1.0]
    (page,) = folder.glob("files/media/html/evaluation/report_*.html")
    assert page.read_text("utf-8") == (run / "evaluation/report/index.html").read_text("utf-8")
    assert list(folder.glob("files/media/html/evaluation/scores_*.html"))


def test_a_failed_upload_is_a_warning(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    def refuse(**_: Any) -> None:
        raise OSError("no way out")

    monkeypatch.setattr(wandb, "init", refuse)
    assert track_evaluation(run / "evaluation", tracked(run, TRACKER)) is None
    assert "warning: the evaluation was not uploaded (no way out); its report is complete." in capsys.readouterr().err


def test_tensorboard_gets_scores_and_the_verdict(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    message = track_evaluation(run / "evaluation", tracked(run, {**TRACKER, "report_to": "tensorboard"}))
    assert message is not None
    events = EventAccumulator(str(run / "tensorboard" / "evaluation"))
    events.Reload()
    assert events.Scalars("evaluation/test/exact_match")[0].value == 1.0
    assert "evaluation/verdict/text_summary" in events.Tags()["tensors"]


@pytest.mark.parametrize("trained", [{}, {"tracker": {"report_to": "none"}}, {"tracker": None}])
def test_what_was_not_tracked_stays_here(run: Path, trained: dict[str, Any]) -> None:
    assert track_evaluation(run / "evaluation", tracked(run, trained.get("tracker"))) is None
    assert track_evaluation(run / "evaluation", None) is None


def test_nothing_is_uploaded_that_the_command_line_does_not_name(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    monkeypatch.setattr(wandb, "init", lambda **_: pytest.fail("it was uploaded"))
    assert track_evaluation(run / "evaluation", tracked(run, {**TRACKER, "mode": "online"})) is None
    assert "note: the run was tracked with wandb; tracker=wandb puts the report there" in capsys.readouterr().err


@pytest.mark.parametrize("trap", ["settings", "link"])
def test_a_stranger_s_run_does_not_choose_where_an_evaluation_goes(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trap: str
) -> None:
    import wandb

    monkeypatch.setattr(wandb, "init", lambda **_: pytest.fail("it was uploaded"))
    if trap == "settings":
        (run / "wandb" / "settings").write_text("[default]\nbase_url = http://stranger.invalid\n")
    else:
        (run / "wandb").rename(run.parent / "elsewhere")
        (run / "wandb").symlink_to(run.parent / "elsewhere")
    assert track_evaluation(run / "evaluation", tracked(run, TRACKER)) is None
    assert "warning: the evaluation was not uploaded" in capsys.readouterr().err
