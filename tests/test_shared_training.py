"""Processes and nodes share a training set: each sample once an epoch, on from where it stopped, bad ones named."""

import json
import os
import shutil
from pathlib import Path
from textwrap import dedent

import pytest
from PIL import Image
from programs import Completed, run_processes

from vglm.config import repo_root
from vglm.data.loading import load_dataset

SAMPLES = 11
TRAIN = """
    # train.py, which notes who learned from what, and has one sample that is no number
    import json, os, runpy, sys
    from pathlib import Path

    from vglm.data.collator import Collator
    from vglm.tuning.trainer import WorkbenchTrainer

    collate, step = Collator.__call__, WorkbenchTrainer.training_step

    def collated(self, samples):
        batch = collate(self, samples)
        for index, sample in enumerate(samples):
            if sample.id == os.environ.get("POISONED"):
                batch["image_features"][index] = float("nan")
        return batch

    def stepped(self, model, inputs, *arguments):
        note = {"step": self.state.global_step + 1, "ids": list(inputs["sample_ids"])}
        with Path(f"{os.environ['NOTES']}.{os.environ['RANK']}").open("a") as file:
            file.write(json.dumps(note) + chr(10))
        return step(self, model, inputs, *arguments)

    Collator.__call__, WorkbenchTrainer.training_step = collated, stepped
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    rows = []
    for number in range(SAMPLES):
        Image.new("RGB", (30, 20), (20 * number, 255 - 20 * number, 99)).save(folder / f"{number}.png")
        row = {"img": f"{number}.png", "prompt": "背景是什么颜色？", "label": f"颜色{number}。" * (1 + number % 4)}
        rows.append(row)
    (folder / "dataset.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return folder


@pytest.fixture
def train(random_model_folder: Path, data: Path, tmp_path: Path):
    script = f"import sys; sys.argv[0] = {str(repo_root() / 'train.py')!r}\n{dedent(TRAIN)}"
    (tmp_path / "script.py").write_text(script, encoding="utf-8")

    def run(notes: str, *overrides: str, **environment: str) -> Completed:
        own = {"NOTES": str(tmp_path / notes), **environment}
        return run_processes(str(tmp_path / "script.py"), *overrides, env={**os.environ, **own})

    return run


@pytest.fixture
def settings(random_model_folder: Path, data: Path) -> list[str]:
    return [
        *(
            f"model.path_or_id={random_model_folder}",
            "dataset=fewshot_background",
            f"dataset.path={data}",
            "trainer=debug",
        ),
        *("trainer.max_steps=6", "trainer.per_device_train_batch_size=1", "trainer.gradient_accumulation_steps=2"),
        *("checkpoint_selection.score_checkpoints=false", "trainer.disable_tqdm=true", "trainer.save_total_limit=null"),
    ]


def _notes(folder: Path, name: str) -> list[list[tuple[int, list[str]]]]:
    """Of each process: the steps, and the samples of each of their batches."""
    files = [folder / f"{name}.{rank}" for rank in range(2)]
    lines = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    return [[(line["step"], line["ids"]) for line in own] for own in lines]


def _losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_each_sample_is_learned_once_an_epoch_and_a_resumed_run_learns_from_the_rest(
    train, settings: list[str], tmp_path: Path
) -> None:
    done = train("whole", *settings, f"output_dir={tmp_path / 'whole'}")
    assert done.returncode == 0, done.stderr
    whole = _notes(tmp_path, "whole")
    for epoch in ((1, 2, 3), (4, 5, 6)):
        shares = [[name for step, ids in own if step in epoch for name in ids] for own in whole]
        assert len(shares[0]) + len(shares[1]) == len({*shares[0], *shares[1]}) == SAMPLES

    stopped = Path(shutil.copytree(tmp_path / "whole", tmp_path / "stopped"))
    for name in ("adapter", "checkpoint-3", "checkpoint-4", "checkpoint-5", "checkpoint-6"):
        shutil.rmtree(stopped / name)  # in the middle of the first epoch
    done = train("rest", f"resume={stopped}")
    assert done.returncode == 0, done.stderr
    assert _notes(tmp_path, "rest") == [[(step, ids) for step, ids in own if step > 2] for own in whole]
    assert _losses(stopped) == _losses(tmp_path / "whole")


def test_a_sample_that_is_no_number_is_named_whichever_process_has_it(
    train, settings: list[str], data: Path, tmp_path: Path
) -> None:
    bad = load_dataset(data).train[4].id
    done = train("once", *settings, f"output_dir={tmp_path / 'run'}", "skipped_steps=1", POISONED=bad)
    assert done.returncode != 0
    steps = sorted(step for own in _notes(tmp_path, "once") for step, ids in own if bad in ids)
    assert len(steps) == 2
    assert f"the loss is not finite in step {steps[0]}, at the samples {bad}. Left out, 1 of at most 1" in done.stderr
    assert f"error: the loss is not finite in step {steps[1]}, at the samples {bad}. " in done.stderr
    checkpoints = {int(path.name.partition("-")[2]) for path in (tmp_path / "run").glob("checkpoint-*")}
    assert checkpoints == set(range(1, steps[1]))


def test_two_nodes_are_one_training(settings: list[str], tmp_path: Path) -> None:
    done = run_processes(str(repo_root() / "train.py"), *settings, f"output_dir={tmp_path / 'run'}", nodes=2)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["verified"] is True
    assert len(_losses(tmp_path / "run")) == 6
