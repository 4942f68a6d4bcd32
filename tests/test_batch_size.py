"""The micro-batch follows the memory; what a step learns from does not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from train import run
from vglm.config import compose
from vglm.errors import ConfigError
from vglm.model.modeling import VisualGlmTextModel


@pytest.fixture
def configure(random_model_folder: Path, few_shot_folder: Path, tmp_path: Path):
    def configured(name: str, *overrides: str):
        fixed = [f"model.path_or_id={random_model_folder}", "dataset=fewshot_background"]
        fixed += [
            f"dataset.path={few_shot_folder}",
            "trainer=debug",
            "trainer.max_steps=2",
            f"output_dir={tmp_path / name}",
        ]
        fixed += ["trainer.per_device_train_batch_size=6", "checkpoint_selection.score_checkpoints=false"]
        return compose(overrides=[*fixed, *overrides])

    return configured


@pytest.fixture
def room_for(monkeypatch: pytest.MonkeyPatch):
    """A device that holds so many rows of a batch, and says what PyTorch's allocators say beyond that."""
    seen: list[int] = []

    def limit(rows: int) -> list[int]:
        forward = VisualGlmTextModel.forward

        def limited(self: nn.Module, inputs_embeds: torch.Tensor, *arguments: Any, **options: Any) -> Any:
            seen.append(len(inputs_embeds))
            if len(inputs_embeds) > rows:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return forward(self, inputs_embeds, *arguments, **options)

        monkeypatch.setattr(VisualGlmTextModel, "forward", limited)
        return seen

    return limit


def _losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize("key", ["auto_find_batch_size", "auto_batch"])
def test_the_largest_micro_batch_is_taken_and_the_step_kept(
    configure, room_for, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    whole = run(configure("whole"))
    seen = room_for(4)
    searched = run(configure("found", f"trainer.{key}=true"))
    assert seen[:3] == [6, 3, 3]  # tried, tried, and then learned from
    assert "micro-batches of 3, 2 of them a step on each device" in capsys.readouterr().out
    torch.testing.assert_close(torch.tensor(_losses(searched)), torch.tensor(_losses(whole)), rtol=1e-5, atol=1e-5)


def test_memory_that_holds_nothing_is_a_clear_message(configure, room_for, tmp_path: Path) -> None:
    room_for(0)
    with pytest.raises(ConfigError, match=r"not even one sample fits into the memory. Use trainer.activation_check"):
        run(configure("none", "trainer.auto_find_batch_size=true"))
    assert not (tmp_path / "none").exists()


def test_other_errors_are_not_taken_for_full_memory(configure, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(VisualGlmTextModel, "forward", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run(configure("broken", "trainer.auto_find_batch_size=true"))
