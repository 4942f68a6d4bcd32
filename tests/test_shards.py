"""A model that FSDP2 divides among two processes learns what one process does, and its result is a plain one."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from programs import run_processes
from safetensors.torch import load_file

from train import run
from vglm.config import build, compose, repo_root
from vglm.data.collator import Collator
from vglm.data.loading import load_dataset
from vglm.errors import ConfigError
from vglm.model.loading import load_pretrained
from vglm.tuning.contract import answer_logits, relative_difference
from vglm.tuning.methods import check_shards

TRAIN = str(repo_root() / "train.py")
METHODS = {"lora": [], "qlora": ["model.quantization=nf4"], "full": ["method=full"]}


def _arguments(model: Path, data: Path, folder: Path) -> list[str]:
    return [
        *(f"model.path_or_id={model}", "dataset=fewshot_background", f"dataset.path={data}", f"output_dir={folder}"),
        *("trainer=debug", "trainer.max_steps=3", "checkpoint_selection.score_checkpoints=false"),
        *("trainer.learning_rate=0.01", "trainer.disable_tqdm=true"),
    ]


def _losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_learn_what_one_does_and_save_what_one_device_reads(
    method: str, random_model_folder: Path, few_shot_folder: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    overrides = [*_arguments(random_model_folder, few_shot_folder, one), *METHODS[method]]
    run(compose(overrides=[*overrides, "trainer.per_device_train_batch_size=6"]))
    divided = ["trainer.per_device_train_batch_size=3", "trainer.fsdp=true", "trainer.fsdp_config={version: 2}"]
    done = run_processes(TRAIN, *overrides, f"output_dir={two}", *divided)
    assert done.returncode == 0, done.stderr
    assert _losses(two) == pytest.approx(_losses(one), rel=1e-5)
    kind = "model" if method == "full" else "adapter"
    first, second = (load_file(next((folder / kind).glob("*.safetensors"))) for folder in (one, two))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=0, atol=1e-4)
    assert json.loads((two / "run.json").read_text())["verified"] is True
    stored = load_file(two / "checkpoint-3" / "trainable.safetensors")
    assert {name: tensor.shape for name, tensor in stored.items()} == {
        name: tensor.shape for name, tensor in load_file(one / "checkpoint-3" / "trainable.safetensors").items()
    }

    base, processor = load_pretrained(random_model_folder)
    batch = Collator(processor)(load_dataset(few_shot_folder).train)
    logits = [answer_logits(load_pretrained(folder)[0], batch) for folder in (one, two)]
    assert relative_difference(logits[1], logits[0]) < 1e-3
    assert relative_difference(logits[1], answer_logits(base, batch)) > 1e-2


def test_a_divided_run_goes_on_from_its_checkpoint(
    random_model_folder: Path, few_shot_folder: Path, tmp_path: Path
) -> None:
    overrides = _arguments(random_model_folder, few_shot_folder, tmp_path / "whole")
    overrides += ["trainer.fsdp=true", "trainer.per_device_train_batch_size=2"]
    assert run_processes(TRAIN, *overrides).returncode == 0
    stopped = Path(shutil.copytree(tmp_path / "whole", tmp_path / "stopped"))
    for name in ("adapter", "checkpoint-3"):
        shutil.rmtree(stopped / name)
    (stopped / "log.jsonl").write_text((stopped / "log.jsonl").read_text().partition('{"step": 3')[0])
    done = run_processes(TRAIN, f"resume={stopped}")
    assert done.returncode == 0, done.stderr
    assert _losses(stopped) == _losses(tmp_path / "whole")
    first, second = (
        load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("whole", "stopped")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.quantization=int8"], "model.quantization=nf4"),
        (["method=adalora", "method.tinit=1", "method.tfinal=1"], "does not go with AdaLoRA"),
    ],
)
def test_what_cannot_be_divided_is_refused_before_anything_loads(overrides: list[str], message: str) -> None:
    cfg = compose(overrides=["trainer=debug", "trainer.max_steps=4", *overrides])
    with pytest.raises(ConfigError, match=message):
        check_shards(build(cfg.method), cfg.model.get("quantization"))


def test_checkpoints_of_a_divided_model_are_not_scored(
    random_model_folder: Path, few_shot_folder: Path, tmp_path: Path
) -> None:
    overrides = _arguments(random_model_folder, few_shot_folder, tmp_path / "run")
    done = run_processes(TRAIN, *overrides, "trainer.fsdp=true", "checkpoint_selection.score_checkpoints=true")
    assert done.returncode != 0
    assert done.stderr.count("Set checkpoint_selection.score_checkpoints=false") == 1
    assert not (tmp_path / "run").exists()
