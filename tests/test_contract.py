"""A run reports success only if what it saved is what it trained."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import train
from vglm.config import compose
from vglm.errors import AdapterError
from vglm.model import loading
from vglm.model.loading import load_pretrained
from vglm.tuning import contract
from vglm.tuning.contract import relative_difference, tolerance


@pytest.fixture
def run(random_model_folder: Path, few_shot_folder: Path, tmp_path: Path):
    def run(*overrides: str) -> Path:
        fixed = [
            f"model.path_or_id={random_model_folder}",
            "dataset=fewshot_background",
            f"dataset.path={few_shot_folder}",
            "trainer=debug",
            "trainer.max_steps=2",
            "checkpoint_selection.score_checkpoints=false",
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
    matrix_a, matrix_b = (tensors[f"base_model.model.{name}.lora_{matrix}.weight"] for matrix in "AB")
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
    quantised = {name for name, parameter in tuned.named_parameters() if parameter.dtype == torch.uint8}
    assert len(quantised) == 8
    assert all(".language_model.layers." in name for name in quantised)


def _add(path: Path) -> None:
    save_file({name: tensor + 0.1 for name, tensor in load_file(path).items()}, path)


def _round(path: Path) -> None:
    save_file({name: tensor.bfloat16() for name, tensor in load_file(path).items()}, path)


def _round_in_place(path: Path) -> None:
    save_file({name: tensor.bfloat16().float() for name, tensor in load_file(path).items()}, path)


def _forget(path: Path) -> None:
    tensors = load_file(path)
    tensors.pop(next(name for name in tensors if "lora_A" in name))
    save_file(tensors, path)


def _scale(path: Path) -> None:
    config = path.with_name("adapter_config.json")
    settings = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(settings | {"lora_alpha": 2 * settings["lora_alpha"]}), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (_add, "has other numbers"),
        (_round, r"is bfloat16 \(.*, what was trained float32"),
        (_round_in_place, "has other numbers"),
        (_forget, "is missing"),
        (_scale, "its logits differ by"),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_result_that_is_not_what_was_trained_is_kept_as_unverified(
    run, dtype: str, spoil, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_wrongly(*arguments) -> Path:
        folder = save(*arguments)
        spoil(folder / "adapter_model.safetensors")
        return folder

    save = contract.save
    monkeypatch.setattr(contract, "save", save_wrongly)
    with pytest.raises(AdapterError, match=problem) as caught:
        run(f"model.dtype={dtype}", "trainer.learning_rate=0.01")
    folder = tmp_path / "run"
    assert f"evaluate.py run={folder} unverified=true" in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert not (folder / "adapter").exists()
    assert (folder / "adapter.unverified" / "adapter_model.safetensors").is_file()
    facts = _facts(folder)
    assert facts["verified"] is False
    assert facts["problems"]
    assert facts["training"]["train_loss"] > 0
    monkeypatch.undo()
    assert (train.run(compose(overrides=[f"resume={folder}"])) / "adapter").is_dir()
    assert _facts(folder)["verified"] is True
    assert not (folder / "adapter.unverified").exists()


@pytest.mark.parametrize("kill", ["save", "check_saved"])
def test_a_run_that_was_stopped_at_its_end_is_finished_by_resuming(
    run, kill: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments) -> None:
        raise KeyboardInterrupt

    whole = run(f"output_dir={tmp_path / 'whole'}")
    monkeypatch.setattr(contract, kill, stop)
    with pytest.raises(KeyboardInterrupt):
        run()
    folder = tmp_path / "run"
    assert not (folder / "adapter").exists()
    with pytest.raises(KeyboardInterrupt):
        train.run(compose(overrides=[f"resume={folder}"]))
    monkeypatch.undo()
    train.run(compose(overrides=[f"resume={folder}"]))
    one, other = (load_file(run_folder / "adapter" / "adapter_model.safetensors") for run_folder in (whole, folder))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}
    logs = [(run_folder / "log.jsonl").read_text().splitlines() for run_folder in (whole, folder)]
    assert logs[0][:-1] == logs[1][:-1]
    losses = [_facts(run_folder)["training"]["train_loss"] for run_folder in (whole, folder)]
    assert losses[0] == losses[1]
    assert _facts(folder)["training"]["train_runtime"] > 0


@pytest.mark.parametrize("quantization", [None, "nf4", "int8"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_in_every_number_format_a_right_result_passes(run, dtype: str, quantization: str | None) -> None:
    base = [f"model.quantization={quantization}"] if quantization else []
    folder = run(f"model.dtype={dtype}", "trainer.learning_rate=0.02", *base)
    facts = _facts(folder)
    assert (facts["verified"], facts["problems"]) == (True, [])
    assert facts["reload_difference"] < facts["adapter_effect"] / 4
    assert facts["relative_update"]["modules"] == 8


@pytest.mark.parametrize("method", ["lora", "pissa", "components", "p_tuning_v2", "full"])
def test_the_base_is_not_loaded_a_second_time(run, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    load = loading.fill_model
    monkeypatch.setattr(loading, "fill_model", lambda *arguments: loaded.append(1) or load(*arguments))
    facts = _facts(run(f"method={method}"))
    assert facts["verified"]
    assert facts["reload_difference"] < 1e-5
    assert len(loaded) == 1


def test_results_can_be_read_by_others(run) -> None:
    before = os.umask(0o022)
    try:
        folder = run()
    finally:
        os.umask(before)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o644"}


def test_the_tolerance_follows_the_format_the_noise_and_the_effect() -> None:
    assert tolerance(torch.float32) < 1e-5 < 1e-3 < tolerance(torch.float16) < tolerance(torch.bfloat16)
    assert tolerance(torch.bfloat16, noise=0.5) == 1.0
    assert tolerance(torch.bfloat16, effect=0.1) == 0.025
    assert tolerance(torch.bfloat16, noise=0.01, effect=0.001) == 0.01  # which drowns
    assert tolerance(torch.float32, effect=0.0) <= tolerance(torch.float32)


def test_the_difference_ignores_what_softmax_ignores() -> None:
    logits = torch.tensor([[1.0, -1.0, 0.0], [2.0, 0.0, -2.0]])
    assert relative_difference(logits + torch.tensor([[3.0], [-5.0]]), logits) == pytest.approx(0.0, abs=1e-6)
    assert relative_difference(logits * 1.5, logits) == pytest.approx(0.5)
