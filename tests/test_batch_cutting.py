"""The loss of a step does not depend on how its batch is cut: accumulation, packing, padding, processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from train import run
from vglm.config import compose, repo_root

STEPS = 3
WAYS = {
    "accumulated": "trainer.per_device_train_batch_size=2 trainer.gradient_accumulation_steps=3",
    "one by one": "trainer.per_device_train_batch_size=1 trainer.gradient_accumulation_steps=6",
    "packed": "packing=256",
    "packed and accumulated": "packing=96 trainer.per_device_train_batch_size=3 trainer.gradient_accumulation_steps=2",
    "from pixels": "trainer.per_device_train_batch_size=2 trainer.gradient_accumulation_steps=3 feature_cache=false",
    "checkpointed": "trainer.activation_checkpointing=true",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples whose questions and answers differ in length, so that means of means would differ from means."""
    folder = tmp_path_factory.mktemp("lengths")
    rows = []
    for number in range(12):
        Image.new("RGB", (30, 20), (20 * number, 255 - 20 * number, 99)).save(folder / f"{number}.png")
        answer = f"颜色{number}。" * (1 + number % 5)
        rows.append({"img": f"{number}.png", "prompt": "背景是什么颜色？" * (1 + number % 3), "label": answer})
    (folder / "dataset.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return folder


def _arguments(model: Path, data: Path, folder: Path) -> list[str]:
    return [
        *(f"model.path_or_id={model}", "dataset=fewshot_background", f"dataset.path={data}", f"output_dir={folder}"),
        *("trainer=debug", f"trainer.max_steps={STEPS}", "checkpoint_selection.score_checkpoints=false"),
        *("trainer.per_device_train_batch_size=6", "trainer.learning_rate=0.01"),
    ]


def _outcome(folder: Path) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    losses = torch.tensor([line["loss"] for line in lines if "loss" in line])
    return losses, load_file(folder / "adapter" / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def whole(random_model_folder: Path, data: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    return _outcome(run(compose(overrides=_arguments(random_model_folder, data, folder))))


def _check(cut: Path, whole: tuple[torch.Tensor, dict[str, torch.Tensor]]) -> None:
    losses, tensors = _outcome(cut)
    torch.testing.assert_close(losses, whole[0], rtol=1e-5, atol=1e-5)
    for name, tensor in whole[1].items():
        torch.testing.assert_close(tensors[name], tensor, rtol=0, atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_the_loss_is_that_of_the_whole_batch(
    random_model_folder: Path, data: Path, tmp_path: Path, whole, way: str
) -> None:
    arguments = _arguments(random_model_folder, data, tmp_path / "run")
    _check(run(compose(overrides=[*arguments, *WAYS[way].split()])), whole)


@pytest.mark.parametrize(
    "launcher",
    [
        ["-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"],
        ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--main_process_port=0"],
    ],
    ids=["torchrun", "accelerate"],
)
def test_two_processes_have_one_folder_and_the_same_loss(
    random_model_folder: Path, data: Path, tmp_path: Path, whole, launcher: list[str]
) -> None:
    command = [sys.executable, *launcher, str(repo_root() / "train.py")]
    command += [
        *_arguments(random_model_folder, data, tmp_path / "out" / "run"),
        "trainer.per_device_train_batch_size=3",
    ]
    environment = {**os.environ, "PYTHONPATH": str(repo_root() / "src")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run"]
    _check(tmp_path / "out" / "run", whole)
