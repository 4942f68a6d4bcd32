"""`vglm plan`: what it counts is what runs take, its table adds up, and what it suggests fits."""

import json
import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Trainer, TrainingArguments

from benchmarks.full_size import CASES, LORA_RANK, LORA_TARGETS, TOKENIZER, make_batches, sizes
from vglm.cli import main
from vglm.config import repo_root
from vglm.errors import ConfigError
from vglm.model.decoding import prefill
from vglm.model.loading import load_pretrained
from vglm.model.tokenization import VisualGlmTokenizer
from vglm.planning.budget import (
    BLAS_WORKSPACE,
    attach_shapes,
    bytes_of_weights,
    optimizer_states,
    rehearse_answering,
    rehearse_training,
    shape_model,
)
from vglm.planning.machine import read_gpu
from vglm.planning.plan import is_checkpointed
from vglm.planning.schedule import H100_RATE, count_steps
from vglm.planning.setting import compose_plan, read_setting
from vglm.planning.suggestions import as_text
from vglm.tuning.features import features_shape
from vglm.worlds.radiograph_studies import RadiographStudies

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's

RECIPES = sorted(
    path.relative_to(repo_root() / "recipes").with_suffix("").as_posix()
    for path in (repo_root() / "recipes").rglob("*.yaml")
)
# Peaks of torch's allocator in GB, measured on one H100 on 2026-11-26: 7.8B, bfloat16, random weights, torch 2.11,
# transformers 5.23, peft 0.21.2 with LoRA in float32, bitsandbytes 0.50.2.
MEASURED = {"half": 14.67, "nf4": 6.42, "nf4-vision": 4.78, "qlora-1": 6.70, "qlora-vision-1": 5.07, "lora-1": 15.3}
# Likewise, 8 rows of 512 tokens with cached pictures and the vision parts still in memory: quantization, checkpointing.
MEASURED_LONG = {(None, False): 42.6, (None, True): 19.1, ("nf4", True): 10.7}


@pytest.fixture(scope="module")
def tokenizer() -> VisualGlmTokenizer:
    return VisualGlmTokenizer.from_pretrained(TOKENIZER)


def _with_lora(model: nn.Module) -> Any:
    config = LoraConfig(task_type="CAUSAL_LM", r=LORA_RANK, lora_alpha=16, target_modules=LORA_TARGETS)
    with torch.device("meta"):
        return get_peft_model(model, config)  # type: ignore[arg-type]


def _peak_of_training(model: Any, batch: Any, is_checkpointed: bool) -> float:
    weights = sum(bytes_of_weights(model).values())
    tuned = _with_lora(model)
    adapter = sum(parameter.nbytes for parameter in tuned.parameters() if parameter.requires_grad)
    step = rehearse_training(tuned, batch, is_checkpointed=is_checkpointed)
    return (
        weights + adapter + optimizer_states(tuned, torch.optim.AdamW, {}).on_device + step.peak + BLAS_WORKSPACE
    ) / 1e9


@pytest.mark.parametrize("name", MEASURED)
def test_predicted_peaks_are_those_measured_on_an_h100(name: str, tokenizer: VisualGlmTokenizer) -> None:
    case, config = CASES[name], sizes("full", tokenizer)
    batch = make_batches(config, tokenizer)[case.batch_size if case.method else 0]
    model = shape_model(config, torch.bfloat16, case.quantization, case.parts)
    if case.method is None:
        step = rehearse_answering(model, batch, 64)
        peak = (sum(bytes_of_weights(model).values()) + step.peak + BLAS_WORKSPACE) / 1e9
    else:
        peak = _peak_of_training(model, batch, case.is_checkpointed)
    assert peak == pytest.approx(MEASURED[name], rel=0.03)


@pytest.mark.parametrize(("quantization", "is_checkpointed"), MEASURED_LONG)
def test_predicted_peaks_of_long_rows_are_those_measured(
    quantization: str | None, is_checkpointed: bool, tokenizer: VisualGlmTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vglm.model.modeling.LARGEST_LOGITS", 2**40)  # measured with the logits in one piece
    config = sizes("full", tokenizer)
    ids = torch.full((8, 512), 100)
    ids[:, : config.num_image_tokens] = config.image_token_id
    ids[:, 254], ids[:, 255] = tokenizer.gmask_token_id, tokenizer.bos_token_id
    labels = ids.clone()
    labels[:, :256] = -100
    features = torch.zeros(8, *features_shape(config), dtype=torch.bfloat16)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, "image_features": features}
    peak = _peak_of_training(shape_model(config, torch.bfloat16, quantization), batch, is_checkpointed)
    assert peak == pytest.approx(MEASURED_LONG[quantization, is_checkpointed], rel=0.03)


def test_room_for_answers_is_what_a_real_batch_takes() -> None:
    model, processor = load_pretrained(repo_root() / "data" / "visualglm_tiny")
    pictures = [RadiographStudies(1, seed=1)[0].image] * 3
    inputs = processor(images=pictures, text=["图中有什么？", "你好", "What is it?"], return_tensors="pt")
    with torch.inference_mode():
        grown = prefill(model, model, {**inputs})
        for _ in range(79):  # the last of 80 tokens is not read any more
            grown.step(model, [100, 100, 100])
    step = rehearse_answering(shape_model(model.config, torch.float32), {**inputs}, 80, fused_attention=False)
    taken = sum(tensor.nbytes for tensor in (*grown.keys, *grown.values))
    assert step.parts["keys and values"] == taken
    assert step.peak > 1.5 * taken  # with those that were too small


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("lora", []),
        ("qlora", ["trainer.activation_checkpointing=true", "trainer.bf16=true"]),
        ("full", ["trainer.gradient_accumulation_steps=2"]),
        ("prompt_tuning", []),
        ("ia3", ["packing=256"]),
    ],
)
def test_a_few_of_many_equal_layers_say_what_all_of_them_say(method: str, more: list[str]) -> None:
    cfg = compose_plan(["recipes=background/lora", "model=visualglm_6b", f"method={method}", *more], for_gpu=True)
    setting = read_setting(cfg, for_gpu=True)
    setting.config.text_config.num_hidden_layers = 8
    setting.config.vision_config.num_hidden_layers = setting.config.qformer_config.num_hidden_layers = 2
    model = shape_model(setting.config, setting.dtype, setting.quantization)
    tuned = attach_shapes(model, setting.method)
    counted: list[int] = []
    model.model.language_model.register_forward_hook(lambda module, *_: counted.append(len(module.layers)))
    options = {
        "autocast": setting.autocast,
        "is_checkpointed": is_checkpointed(setting.arguments),
        "keeps_gradients": setting.arguments.gradient_accumulation_steps > 1,
    }
    batch, questions = (setting.batch(2, with_answers=learns, is_cached=True) for learns in (True, False))
    of_few = rehearse_training(tuned, batch, **options)
    assert rehearse_training(tuned, batch, takes_all_layers=True, **options) == of_few
    of_few = rehearse_answering(tuned, questions, 20)
    assert rehearse_answering(tuned, questions, 20, takes_all_layers=True) == of_few
    assert counted == [3, 4, 8, 3, 4, 8]


def test_unequal_layers_are_all_rehearsed() -> None:
    setting = read_setting(compose_plan(["recipes=background/lora"], for_gpu=True), for_gpu=True)
    setting.config.text_config.num_hidden_layers = 8
    model = shape_model(setting.config, setting.dtype)
    tuned = attach_shapes(model, setting.method)
    model.model.language_model.layers[5].requires_grad_(False)
    counted: list[int] = []
    model.model.language_model.register_forward_hook(lambda module, *_: counted.append(len(module.layers)))
    rehearse_training(tuned, setting.batch(2, is_cached=True))
    assert counted == [8]


# --- the command ------------------------------------------------------------------------------------------------------


def _plan(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> dict[str, Any]:
    assert main(["plan", *arguments, "--json"]) in (0, 1)
    plan: dict[str, Any] = json.loads(capsys.readouterr().out)
    return plan


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_planned_and_adds_up(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = _plan(capsys, [f"recipes={recipe}", "--gpu", "80GB"])
    assert plan["fits"] is True
    assert plan["recipe"] == recipe
    assert plan["trainable"] > 0
    assert plan["schedule"]["steps"] > 0
    assert plan["schedule"]["seconds"] > 0
    assert plan["total"] == max(plan["totals"].values())
    for stage, parts in plan["stages"].items():
        assert plan["totals"][stage] == sum(parts.values())
        assert all(size >= 0 for name, size in parts.items() if name != "never at one time")
    assert not list(tmp_path.iterdir())


def test_the_table_has_80_columns_and_the_figures_of_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["recipes=background/qlora", "model=visualglm_6b", "--gpu", "8GB"]
    plan = _plan(capsys, arguments)
    assert main(["plan", *arguments]) == 1
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    total = next(line for line in shown.splitlines() if line.strip().startswith("total"))
    assert total.split()[1:] == [f"{sum(plan['parameters'].values()):,}"] + [
        f"{total_bytes / 1e9:.3f}" for total_bytes in plan["totals"].values()
    ]
    message = re.search(r"does not fit: needs ([\d.]+) GB of 8\.0+$", shown, re.MULTILINE)
    assert message is not None
    assert float(message[1]) == pytest.approx(plan["total"] / 1e9, abs=0.06)
    assert "the released model; it is not on this machine" in shown
    assert as_text(plan["suggestions"][0]["overrides"]) in " ".join(shown.split())


@pytest.mark.parametrize("settings", [[], ["method=p_tuning_v2"], ["feature_cache=false", "model.dtype=float32"]])
def test_suggestions_fit_with_the_figure_they_name(settings: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["recipes=background/lora", *settings]
    whole = _plan(capsys, [*settings, "--gpu", "80GB"])["totals"]["training"]
    gpu = f"{(whole - 2e6) / 1e9:.6f}GB"
    plan = _plan(capsys, [*settings, "--gpu", gpu])
    assert plan["fits"] is False
    assert plan["suggestions"]
    for suggestion in plan["suggestions"]:
        again = _plan(capsys, [*settings, *suggestion["overrides"], "--gpu", gpu])
        assert again["fits"] is suggestion["fits"] is True
        assert again["total"] == suggestion["total"] <= plan["memory"]


def test_what_cannot_fit_is_told_with_the_least_that_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "recipes=background/lora", "--gpu", "0.4GB"]) == 1
    shown = capsys.readouterr().out
    assert "nothing fits; the least" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("method", ["lora", "qlora", "full", "p_tuning_v2", "ia3"])
@pytest.mark.parametrize("more", [[], ["trainer.gradient_accumulation_steps=2", "feature_cache=false"]])
def test_prediction_is_what_a_step_takes_here(
    method: str, more: list[str], random_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"method={method}", f"model.path_or_id={random_model_folder}", *more]
    plan = _plan(capsys, ["recipes=background/lora", *settings, "--measure"])
    measured = plan["measured"]
    for part in ("weights", "adapter", "gradients", "optimizer"):
        assert measured["predicted"][part] == measured["measured"][part], part
    assert measured["predicted"]["peak"] == pytest.approx(measured["measured"]["peak"], rel=0.1)
    schedule = plan["schedule"]
    assert 0 < schedule["share"] <= 1
    steps = schedule["steps"] * schedule["share"] * measured["measured_seconds"]
    assert measured["training_seconds"] == pytest.approx(steps + schedule["encoding_seconds"])
    assert measured["predicted_seconds"] * schedule["share"] == pytest.approx(schedule["step_seconds"])


def test_time_on_a_cpu_follows_from_steps_with_few_layers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["recipes=background/lora"]
    assert "of 1 and 2 of 4 layers" in _plan(capsys, settings)["schedule"]["source"]
    missing = [*settings, "method.target_modules='.*layers.3.attention.dense'"]  # which is not among few layers
    assert "at best" in _plan(capsys, missing)["schedule"]["source"]
    monkeypatch.setattr("vglm.planning.measurement._LONGEST", 0.0)
    assert "at best" in _plan(capsys, settings)["schedule"]["source"]


def test_checkpointing_and_packing_are_counted(random_model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["recipes=background/lora", f"model.path_or_id={random_model_folder}"]
    plain = _plan(capsys, settings)["stages"]["training"]
    checkpointed = _plan(capsys, [*settings, "trainer.activation_checkpointing=true"])["stages"]["training"]
    assert checkpointed["activations"] < plain["activations"]
    measured = _plan(capsys, [*settings, "packing=256", "--measure"])["measured"]
    assert measured["predicted"]["peak"] == pytest.approx(measured["measured"]["peak"], rel=0.1)


def test_fsdp_divides_floats_and_4_bit_weights_that_pass_for_them(capsys: pytest.CaptureFixture[str]) -> None:
    both = ["recipes=background/lora", "trainer.fsdp=true", "--gpu", "80GB"]
    unscored = "checkpoint_selection.score_checkpoints=false"
    assert main(["plan", *both, unscored, "--gpus", "2", "model.quantization=int8"]) == 2
    assert "model.quantization=nf4" in capsys.readouterr().err
    assert main(["plan", *both, "--gpus", "2"]) == 2
    assert unscored in capsys.readouterr().err
    assert main(["plan", *both, unscored]) == 2
    assert "--gpus 8" in capsys.readouterr().err
    for more in ([], ["model.quantization=nf4"]):
        whole = _plan(capsys, ["recipes=background/lora", "--gpu", "80GB", *more])["stages"]["training"]
        divided = _plan(capsys, [*both, unscored, "--gpus", "2", *more])["stages"]["training"]
        assert divided["language_model"] == math.ceil(whole["language_model"] / 2)


def test_several_processes_share_the_steps(capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["recipes=xray/lora", "trainer.max_steps=-1", "--samples", "3200", "--tokens", "100", "--gpu", "80GB"]
    one, eight = (_plan(capsys, [*settings, "--gpus", gpus])["schedule"] for gpus in ("1", "8"))
    assert (one["steps"], eight["steps"]) == (3 * 3200 // 32, 3 * 13)  # the last step of an epoch is a smaller one
    assert one["tokens"] == 8 * 4 * 100
    assert eight["tokens"] == 8 * one["tokens"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["method.rr=3"], "did you mean `r`"),
        (["recipes=background/lorra"], "no such choice"),
        (["--gpu", "eight"], "such as 8GB"),
        (["--gpus", "0"], "--gpus must be a positive integer"),
        (["--tokens", "-1"], "--tokens must be a positive integer"),
        (["--tokens", "20"], "a row needs"),
        (["model.path_or_id=nowhere"], "there is no such folder"),
        (["dataset.path=nowhere"], "nowhere"),
        (["method=pissa", "model.dtype=float16", "--gpu", "80GB"], "model.dtype=float32"),
        (["trainer.fp16=true", "trainer.bf16=true", "--gpu", "80GB"], "choose one"),
        (["trainer.deepspeed=ds.json", "--gpu", "80GB"], "DeepSpeed"),
        (["--measure", "--gpu", "80GB"], "leave out --gpu"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert message in shown.err
    assert not shown.out


def test_the_page_about_scale_says_what_its_command_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = (repo_root() / "docs" / "scale.md").read_text(encoding="utf-8")
    command = next(line for line in page.splitlines() if line.startswith("vglm plan "))
    plan = _plan(capsys, shlex.split(command)[2:])
    assert f"{plan['schedule']['steps']:,} of 8 x 8" in page
    assert f"{plan['disk']['feature cache'] / 1e9:.1f} GB" in page
    assert f"{plan['disk']['checkpoints'] / 1e6:.1f} MB" in page


# --- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adamw_torch", "adamw_bnb_8bit", "adafactor", "sgd", "lion_8bit", "adagrad"])
def test_states_of_an_optimizer_are_those_it_makes(name: str, tmp_path: Path) -> None:
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to="none", optim=name, use_cpu=True)
    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments, None)
    model = nn.Sequential(nn.Linear(300, 500), nn.LayerNorm(500), nn.Linear(500, 7))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer = kind(model.parameters(), **options)
    optimizer.step()
    made = sum(
        tensor.nbytes
        for state in optimizer.state.values()
        for key, tensor in state.items()
        if isinstance(tensor, torch.Tensor) and not key.startswith("qmap")
    )
    assert optimizer_states(model.to("meta"), kind, options).on_device == made


class _OneBuffer(torch.optim.Optimizer):
    """Keeps the state of all parameters in one tensor."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {})

    def step(self, closure: Any = None) -> None:
        trained = self.param_groups[0]["params"]
        self.state[trained[0]]["sums"] = torch.empty(sum(value.numel() for value in trained), device="meta")


def test_states_of_several_parameters_are_counted_whole() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)).to("meta")
    assert optimizer_states(model, _OneBuffer, {}).on_device == 4 * 4 * 12


def test_a_rehearsal_that_fails_leaves_no_gradients() -> None:
    setting = read_setting(compose_plan(["recipes=background/lora"], for_gpu=True), for_gpu=True)
    tuned = attach_shapes(shape_model(setting.config, setting.dtype), setting.method)
    with pytest.raises(ValueError, match="Pass input_ids"):
        rehearse_training(tuned, {}, keeps_gradients=True)
    assert all(parameter.grad is None for parameter in tuned.parameters())


def test_paged_states_are_counted_apart(tmp_path: Path) -> None:
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to="none", optim="paged_adamw_8bit", use_cpu=True)
    model = nn.Linear(1000, 1000, device="meta")
    states = optimizer_states(model, *Trainer.get_optimizer_cls_and_kwargs(arguments, None))
    assert states.paged == 2 * 1000 * 1000
    assert 0 < states.on_device < 0.05 * states.paged


def test_sizes_of_gpus() -> None:
    assert read_gpu("8GB").memory == 8_000_000_000
    assert read_gpu("16 GiB").memory == 16 * 2**30
    assert read_gpu("0.5").memory == 500_000_000
    for text in ("", "GB", "8TB", "-8GB", "0GB"):
        with pytest.raises(ConfigError, match="such as 8GB"):
            read_gpu(text)


def test_steps_follow_from_rows_or_are_given() -> None:
    assert count_steps(377_110, 64, -1, 1) == (5893, 1)
    assert count_steps(100, 10, 50, 3) == (50, 5.0)


def test_a_step_on_an_h100_takes_the_time_measured(tokenizer: VisualGlmTokenizer) -> None:
    config = sizes("full", tokenizer)
    ids = torch.full((8, 512), 100)
    labels = ids.clone()
    labels[:, :256] = -100
    tuned = _with_lora(shape_model(config, torch.bfloat16))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    assert rehearse_training(tuned, batch).flops / H100_RATE == pytest.approx(0.349, rel=0.02)
