"""A tracker gets all curves, and neither ends nor holds up a training."""

import json
import socket
import sqlite3
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from train import run
from vglm.config import compose


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
    found = [(each.step, each.value) for each in events.Scalars("eval/retention")]
    assert found == pytest.approx(_scores(folder))
    assert [step for step, _ in found] == [0, 1, 2]
    assert {"eval/domain", "train/loss"} <= set(events.Tags()["scalars"])


@pytest.mark.skipif(
    find_spec("trackio") is None, reason='needs pip install ".[trackio]"'
)  # it reads where when imported
def test_trackio_keeps_the_curves_in_the_run_folder(configure) -> None:
    folder = run(configure("tracker=trackio"))
    (database,) = (folder / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        rows = [json.loads(row[0]) for row in connection.execute("select metrics from metrics")]
    assert database.stem.startswith("visualglm-workbench")
    assert [row["eval/retention"] for row in rows if "eval/retention" in row] == [each for _, each in _scores(folder)]
    assert len([row for row in rows if "train/loss" in row]) == 2


def test_a_server_that_never_answers_holds_nothing_up_for_long(
    configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        started = time.monotonic()
        folder = run(configure("tracker=wandb", "tracker.mode=online"))
    assert time.monotonic() - started < 85  # Weights & Biases alone would wait for 90
    assert (folder / "adapter").is_dir()
    (warning,) = [each.getMessage() for each in caplog.records if "Weights & Biases cannot" in each.getMessage()]
    assert "Timed out initializing run" in warning
