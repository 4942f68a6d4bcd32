"""A run reports success only if what it saved is what it trained."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import train
from vglm.config import compose
from vglm.errors import AdapterError
from vglm.model.loading import load_pretrained
from vglm.tuning import methods
from vglm.tuning.contract import relative_difference


@pytest.fixture
def run(random_model_folder: Path, few_shot_folder: Path, tmp_path: Path):
    def run(*overrides: str) -> Path:
        fixed = [
            f"model.path_or_id={random_model_folder}",
            "dataset=fewshot_background",
            f"dataset.path={few_shot_folder}",
            "trainer=debug",
            "trainer.max_steps=2",
            "training.score_checkpoints=false",
            f"output_dir={tmp_path / 'run'}",
        ]
        return train.run(compose(overrides=[*fixed, *overrides]))

    return run


def _facts(folder: Path):
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def test_a_run_says_how_far_the_weights_moved(
    run, random_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run("trainer.learning_rate=0.05", "trainer.max_steps=5", "method.r=4")
    facts = _facts(folder)
    assert facts["scale"] == "4"  # alpha 16
    assert facts["reload_difference"] == 0.0
    moved = facts["relative_update"]
    assert moved["modules"] == 8
    tensors = load_file(folder / "adapter" / "adapter_model.safetensors")
    base = load_pretrained(random_model_folder)[0]
    name = next(iter(moved["largest"]))
    matrix_a, matrix_b = (tensors[f"base_model.model.{name}.lora_{each}.weight"] for each in "AB")
    expected = (4 * matrix_b @ matrix_a).norm() / base.get_submodule(name).weight.norm()
    assert moved["largest"][name] == moved["max"] == pytest.approx(expected.item(), rel=1e-4)
    printed = capsys.readouterr().out
    assert "parameters train" in printed
    assert "scale alpha/r 4" in printed
    assert "|dW|/|W| of 8 modules: " in printed
    assert "warning" not in printed


def test_a_training_without_effect_is_warned_of(run, capsys: pytest.CaptureFixture[str]) -> None:
    published = ["method.r=10", "method.lora_alpha=1", "method.layers_to_transform=[0]", "trainer.learning_rate=1e-4"]
    folder = run(*published, "method.target_modules=[attention.query_key_value, attention.dense]")
    moved = _facts(folder)["relative_update"]
    assert moved["modules"] == 2
    assert moved["overall"] < moved["max"]
    printed = capsys.readouterr().out
    assert "scale alpha/r 0.1" in printed
    assert "the answers will hardly change. Raise the learning rate" in printed


def test_full_tuning_is_reloaded_too(run) -> None:
    facts = _facts(run("method=components", "method.qformer=frozen", "method.language_model=frozen"))
    assert facts["scale"] is None
    assert facts["reload_difference"] == 0.0
    assert "relative_update" not in facts  # what the base was is not kept


def test_qlora_keeps_the_language_models_layers_in_four_bits(run, random_model_folder: Path) -> None:
    folder = run("method=qlora")
    assert _facts(folder)["reload_difference"] == 0.0
    tuned, _ = load_pretrained(random_model_folder, quantization="nf4", adapter=folder / "adapter")
    quantised = {name for name, each in tuned.named_parameters() if each.dtype == torch.uint8}
    assert len(quantised) == 8
    assert all(".language_model.layers." in name for name in quantised)


def test_a_result_that_is_not_what_was_trained_is_removed(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save_wrongly(*arguments) -> Path:
        folder = save(*arguments)
        path = folder / "adapter_model.safetensors"
        save_file({name: each + 0.1 for name, each in load_file(path).items()}, path)
        return folder

    save = methods.save
    monkeypatch.setattr(methods, "save", save_wrongly)
    with pytest.raises(AdapterError, match="gives other answers than the trained model"):
        run()
    assert not (tmp_path / "run" / "adapter").exists()
    monkeypatch.undo()
    assert (train.run(compose(overrides=[f"resume={tmp_path / 'run'}"])) / "adapter").is_dir()


def test_the_difference_ignores_what_softmax_ignores() -> None:
    logits = torch.tensor([[1.0, -1.0, 0.0], [2.0, 0.0, -2.0]])
    assert relative_difference(logits + torch.tensor([[3.0], [-5.0]]), logits) == pytest.approx(0.0, abs=1e-6)
    assert relative_difference(logits * 1.5, logits) == pytest.approx(0.5)
