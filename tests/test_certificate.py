"""A merged model answers as base and adapter do, or it is not published."""

import hashlib
import json
import shutil
import signal
from pathlib import Path
from textwrap import dedent

import pytest
import torch
import yaml
from peft import PrefixTuningConfig
from programs import run_program
from safetensors.torch import load_file, save_file

import train
from vglm.cli import main
from vglm.config import compose
from vglm.data.collator import Collator
from vglm.data.loading import load_dataset
from vglm.errors import AdapterError, ConfigError, typed
from vglm.evaluation import certificate as module
from vglm.evaluation.certificate import merge_runs
from vglm.model.loading import load_pretrained
from vglm.tuning.contract import answer_logits, relative_difference
from vglm.tuning.merge import Combination
from vglm.tuning.methods import attach, save


@pytest.fixture(scope="module")
def make_run(random_model_folder: Path, few_shot_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """A finished run on the random model and the six pictures."""

    def make(*overrides: str) -> Path:
        fixed = [
            f"model.path_or_id={random_model_folder}",
            "dataset=fewshot_background",
            f"dataset.path={few_shot_folder}",
            "trainer=debug",
            "trainer.max_steps=10",
            "trainer.learning_rate=0.02",
            "trainer.disable_tqdm=true",
            "checkpoint_selection.score_checkpoints=false",
            f"output_dir={tmp_path_factory.mktemp('outputs') / 'run'}",
        ]
        return train.run(compose(overrides=[*fixed, *overrides]))

    return make


@pytest.fixture(scope="module")
def lora_run(make_run) -> Path:
    return make_run()


@pytest.fixture(scope="module")
def qlora_run(make_run) -> Path:
    return make_run("method=qlora")


def _batch(folder: Path, processor) -> dict[str, torch.Tensor]:
    return Collator(processor)(load_dataset(folder).test)


def _hashes(*folders: Path) -> dict[Path, str]:
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(
    ("dtype", "largest"), [("float32", 1e-5), ("float16", 5e-3), ("bfloat16", 5e-2)], ids=lambda value: str(value)
)
@pytest.mark.parametrize("run", ["lora_run", "qlora_run"])
def test_a_merged_model_has_the_adapters_logits(
    run: str,
    dtype: str,
    largest: float,
    request: pytest.FixtureRequest,
    random_model_folder: Path,
    few_shot_folder: Path,
    tmp_path: Path,
) -> None:
    folder = request.getfixturevalue(run)
    inputs = _hashes(folder, random_model_folder)
    quantization = {"quantization": "nf4"} if run == "qlora_run" else {}
    certificate = merge_runs([folder], tmp_path / "merged", dtype=dtype)
    assert certificate.passed
    assert _hashes(folder, random_model_folder) == inputs
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged"]

    tuned, processor = load_pretrained(random_model_folder, adapter=folder / "adapter", **quantization)
    merged, _ = load_pretrained(tmp_path / "merged", dtype="auto")
    assert type(merged).__name__ == "VisualGlmForConditionalGeneration"
    assert {str(parameter.dtype) for parameter in merged.parameters()} == {f"torch.{dtype}"}
    assert "quantization_config" not in json.loads((tmp_path / "merged" / "config.json").read_text(encoding="utf-8"))
    batch = _batch(few_shot_folder, processor)
    reference = answer_logits(tuned, batch)
    assert relative_difference(answer_logits(merged.float(), batch), reference) < largest
    with tuned.disable_adapter():
        assert relative_difference(answer_logits(tuned, batch), reference) > 0.05

    written = json.loads((tmp_path / "merged" / "merge_certificate.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(certificate.as_dict()))
    assert written["passed"] is True
    assert written["logits"]["relative_difference"] < largest < written["logits"]["adapter_effect"]
    assert written["logits"]["noise"] < largest
    assert written["exact_match"]["n"] == 6
    assert len(written["updates"]["modules"]) == 8
    assert written["base"]["quantization"] == quantization.get("quantization")


def test_merging_into_weights_before_quantisation_would_not_be_the_tuned_model(
    qlora_run: Path, random_model_folder: Path, few_shot_folder: Path
) -> None:
    tuned, processor = load_pretrained(random_model_folder, adapter=qlora_run / "adapter", quantization="nf4")
    other, _ = load_pretrained(random_model_folder, adapter=qlora_run / "adapter")
    batch = _batch(few_shot_folder, processor)
    difference = relative_difference(answer_logits(other, batch), answer_logits(tuned, batch))
    assert difference > 1e-4  # a merge may differ by so much; rounding to nf4 moves these logits by 5e-3 and more


def test_the_command_prints_the_certificate(lora_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", str(lora_run), "--output", str(tmp_path / "merged"), "--dtype", "float16"]) == 0
    printed = capsys.readouterr().out
    assert "certificate passed (merged, float16): logits differ by at most" in printed
    assert "rounding" in printed
    assert f"wrote {tmp_path / 'merged'}" in printed


def test_a_wrong_merge_ends_with_1_and_is_kept_as_unverified(
    lora_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def forget_a_module(*arguments):
        merged, updates = merge(*arguments)
        merged.model.language_model.layers[1].mlp.dense_h_to_4h.weight.data.mul_(1.5)
        return merged, updates

    merge = module.merge_adapter
    monkeypatch.setattr(module, "merge_adapter", forget_a_module)
    unverified = tmp_path / "merged.unverified"
    for _ in range(2):  # in the place of the first one
        capsys.readouterr()
        assert main(["merge", str(lora_run), "--output", str(tmp_path / "merged"), "--force"]) == 1
    printed = capsys.readouterr()
    assert "certificate FAILED" in printed.out
    assert f"nothing was published; what was merged is kept in {unverified}" in printed.out
    assert f"{typed('evaluate')} model.path_or_id={unverified} dataset=<data>" in printed.out
    assert "at most 1e-04 is allowed" in printed.err
    assert list(tmp_path.iterdir()) == [unverified]
    assert json.loads((unverified / "merge_certificate.json").read_text(encoding="utf-8"))["passed"] is False
    load_pretrained(unverified)


def _scaled(run: Path, folder: Path, factor: float, module: str = "") -> Path:
    """The run with an adapter whose update, or that of some modules, is so many times as large."""
    copy = shutil.copytree(run, folder)
    path = copy / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({name: tensor * (factor if f"{module}.lora_B" in name else 1) for name, tensor in tensors.items()}, path)
    return copy


def test_an_update_below_the_rounding_is_refused_unless_forced(lora_run: Path, tmp_path: Path) -> None:
    faint = _scaled(lora_run, tmp_path / "faint", 1e-4)
    refused = merge_runs([faint], tmp_path / "merged", dtype="bfloat16")
    assert not refused.passed
    assert any("the update vanishes in bfloat16: |dW|/|W| is" in problem for problem in refused.problems)
    assert not (tmp_path / "merged").exists()
    assert merge_runs([faint], tmp_path / "fine", dtype="float32").passed
    forced = merge_runs([faint], tmp_path / "merged", dtype="bfloat16", force=True)
    assert forced.passed
    assert any("the update vanishes" in warning for warning in forced.warnings)


def test_a_module_whose_update_is_close_to_the_rounding_is_named(lora_run: Path, tmp_path: Path) -> None:
    weak = _scaled(lora_run, tmp_path / "weak", 1e-3, module="0.attention.dense")
    certificate = merge_runs([weak], tmp_path / "merged", dtype="bfloat16")
    assert certificate.passed
    (warning,) = certificate.warnings
    assert "rounding to bfloat16 is a good part of the update in 1 of 8 modules" in warning
    assert "most in model.language_model.layers.0.attention.dense: |dW|/|W|" in warning


def test_several_runs_merge_into_the_weighted_sum(
    lora_run: Path, make_run, random_model_folder: Path, tmp_path: Path
) -> None:
    other = make_run("seed=2", "method.r=4")
    certificate = merge_runs([lora_run, other], tmp_path / "both", combination=Combination([0.25, 0.75], "cat"))
    assert certificate.passed
    assert certificate.adapters["combination"] == {"weights": [0.25, 0.75], "method": "cat", "density": 0.5, "seed": 1}
    assert merge_runs([lora_run], tmp_path / "one").passed
    assert merge_runs([other], tmp_path / "other").passed
    base, one, two, both = (
        load_pretrained(path)[0].state_dict()
        for path in (random_model_folder, tmp_path / "one", tmp_path / "other", tmp_path / "both")
    )
    for name, weight in base.items():
        expected = weight + 0.25 * (one[name] - weight) + 0.75 * (two[name] - weight)
        torch.testing.assert_close(both[name], expected, rtol=0, atol=1e-6)
    with pytest.raises(ConfigError, match=r"cannot be combined by linear"):
        merge_runs([lora_run, other], tmp_path / "no", combination=Combination([0.5, 0.5], "linear"))
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("method", ["linear", "ties", "dare_linear", "dare_ties", "svd"])
def test_peft_s_combinations_work(method: str, lora_run: Path, tmp_path: Path) -> None:
    arguments = ["merge", str(lora_run), str(lora_run), "--weights", "0.5", "0.5", "--combine", method]
    assert main([*arguments, "--output", str(tmp_path / "merged")]) == 0


def test_virtual_tokens_are_exported_beside_their_base(
    lora_run: Path, random_model_folder: Path, few_shot_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(lora_run, tmp_path / "run")
    shutil.rmtree(run / "adapter")
    model, processor = load_pretrained(random_model_folder)
    tuned = attach(model, PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    save(tuned, processor, run)
    assert main(["merge", str(run), "--output", str(tmp_path / "exported"), "--dtype", "float16"]) == 2
    assert "virtual tokens, which are exported beside their base as it is" in capsys.readouterr().err
    assert main(["merge", str(run), "--output", str(tmp_path / "exported")]) == 0
    assert "not merged: virtual tokens are no change of the weights" in capsys.readouterr().out
    exported, _ = load_pretrained(tmp_path / "exported" / "model", adapter=tmp_path / "exported" / "adapter")
    batch = _batch(few_shot_folder, processor)
    assert torch.equal(answer_logits(exported, batch), answer_logits(tuned, batch))


def test_another_base_is_refused_unless_forced(lora_run: Path, tmp_path: Path, random_model_folder: Path) -> None:
    base = shutil.copytree(random_model_folder, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["model.language_projection.bias"] += 0.1
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    run = shutil.copytree(lora_run, tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    config["model"]["path_or_id"] = str(base)
    (run / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    with pytest.raises(AdapterError, match="the base is not the one trained on"):
        merge_runs([run], tmp_path / "merged")
    assert any(
        "not the one trained on" in warning for warning in merge_runs([run], tmp_path / "m", force=True).warnings
    )


def test_wrong_arguments_are_refused_before_anything_loads(lora_run: Path, make_run, tmp_path: Path) -> None:
    full = make_run("method=components", "method.qformer=frozen", "method.language_model=frozen")
    with pytest.raises(ConfigError, match="has no adapter to merge"):
        merge_runs([full], tmp_path / "merged")
    with pytest.raises(ConfigError, match="Several runs need --weights"):
        merge_runs([lora_run, lora_run], tmp_path / "merged")
    with pytest.raises(ConfigError, match="one run needs none"):
        merge_runs([lora_run], tmp_path / "merged", combination=Combination([1.0]))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="exists already"):
        merge_runs([lora_run], tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_merge_leaves_nothing_that_looks_like_a_model(
    by: signal.Signals, lora_run: Path, tmp_path: Path
) -> None:
    output = tmp_path / "merged"
    inputs = _hashes(lora_run)
    killed = f"""
        import os, time, vglm.cli, vglm.evaluation.certificate as certificate

        def die(*arguments, **options):  # when all is written and nothing published
            os.kill(os.getpid(), {int(by)})
            time.sleep(3600)

        certificate._judge = die
        raise SystemExit(vglm.cli.main({["merge", str(lora_run), "--output", str(output)]!r}))
    """
    done = run_program("-c", dedent(killed))
    assert done.returncode == (130 if by == signal.SIGTERM else -signal.SIGKILL), done.stderr
    assert not output.exists()
    left = list(tmp_path.glob(".merged.claimed/result/model.safetensors"))
    assert len(left) == len(list(tmp_path.iterdir())) == (by == signal.SIGKILL)  # which gives no time to clean up
    assert _hashes(lora_run) == inputs
    assert merge_runs([lora_run], output).passed
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]
