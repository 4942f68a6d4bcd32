"""A tracker gets all curves, and neither ends nor holds up a training."""

import json
import os
import socket
import sqlite3
from importlib.util import find_spec
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from train import run
from vglm.config import compose
from vglm.tuning.tracker import Tracker


@pytest.fixture
def configure(random_model_folder: Path, few_shot_folder: Path, tmp_path: Path):
    def configured(*overrides: str):
        fixed = [f"model.path_or_id={random_model_folder}", "dataset=fewshot_background"]
        fixed += [f"dataset.path={few_shot_folder}", "trainer=debug", f"output_dir={tmp_path / 'run'}"]
        fixed += ["trainer.max_steps=2", "checkpoint_selection.score_samples=2"]
        return compose(overrides=[*fixed, *overrides])

    return configured


def _scores(folder: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "forgetting.jsonl").read_text().splitlines()]
    return [(line["step"], line["retention"]) for line in lines]


def test_scores_of_checkpoints_reach_the_tracker(configure) -> None:
    folder = run(configure("tracker=tensorboard"))
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    points = [(scalar.step, scalar.value) for scalar in events.Scalars("eval/retention")]
    assert [step for step, _ in points] == [step for step, _ in _scores(folder)] == [0, 1, 2]
    assert [value for _, value in points] == pytest.approx([value for _, value in _scores(folder)])
    assert {"eval/domain", "train/loss"} <= set(events.Tags()["scalars"])


@pytest.mark.skipif(find_spec("trackio") is None, reason='needs pip install ".[trackio]"')
def test_trackio_keeps_the_curves_of_every_run_in_its_folder(configure, tmp_path: Path) -> None:
    for name in ("first", "second"):  # of one process, which imports it once
        folder = run(configure("tracker=trackio", f"output_dir={tmp_path / name}"))
        (database,) = (folder / "trackio").glob("*.db")
        with sqlite3.connect(database) as connection:
            rows = [json.loads(row[0]) for row in connection.execute("select metrics from metrics")]
        assert database.stem.startswith("visualglm-workbench")
        retention = [row["eval/retention"] for row in rows if "eval/retention" in row]
        assert retention == [value for _, value in _scores(folder)]
        assert len([row for row in rows if "train/loss" in row]) == 2


def test_a_run_whose_server_does_not_answer_is_recorded_offline(
    configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
        folder = run(configure("tracker=wandb", "tracker.mode=online"))
    assert (folder / "adapter").is_dir()
    (warning,) = [record.getMessage() for record in caplog.records if "Weights & Biases" in record.getMessage()]
    assert "(no answer within 1 s)" in warning
    (record,) = folder.glob("wandb/offline-run-*/*.wandb")
    assert b"eval/retention" in record.read_bytes()


def test_what_keeps_from_a_server_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")  # where nobody listens any more
    with Tracker("wandb", mode="online").writing_to(tmp_path):
        assert os.environ["WANDB_MODE"] == "offline"
    assert "refused" in caplog.text


def test_weights_and_biases_waits_as_long_as_the_user_says_or_else_for_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_INIT_TIMEOUT", raising=False)
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "60")
    with Tracker("tensorboard").writing_to(tmp_path):
        assert (os.environ["WANDB_INIT_TIMEOUT"], os.environ["WANDB_FINISH_TIMEOUT"]) == ("5", "60")
    assert "WANDB_INIT_TIMEOUT" not in os.environ
