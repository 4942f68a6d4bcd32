"""Every method of `conf/method/` trains, generates and is saved alike: with a cache, in batches, with pictures."""

import re
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from PIL import Image

from vglm.config import build, compose, repo_root
from vglm.errors import ConfigError
from vglm.model.loading import load_pretrained
from vglm.tuning.contract import answer_logits, check_saved
from vglm.tuning.methods import attach, check_method, save

METHODS = sorted(path.stem for path in (repo_root() / "conf/method").glob("*.yaml"))
PICTURE = Image.linear_gradient("L").convert("RGB")
QUESTIONS = ["图中有什么？", "你好", "图片的背景里有什么内容，是什么颜色？"]
PICTURES = [PICTURE, None, PICTURE.rotate(90)]
NEW_TOKENS = 5


@pytest.fixture(params=METHODS)
def tuned_and_processor(request, random_model_folder: Path):
    """A model with a method's parameters moved away from where they start, so that they matter."""
    torch.manual_seed(0)
    cfg = compose(overrides=[f"method={request.param}", f"model.path_or_id={random_model_folder}"])
    model, processor = build(cfg.model)
    tuned = attach(model, build(cfg.method))
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn_like(parameter)
    return tuned.eval(), processor


def _generate(tuned, inputs, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """New tokens (B, T) and the logits that each was chosen from (B, T, V)."""
    prompt = inputs["input_ids"].shape[1]
    result = tuned.generate(
        **inputs,
        max_new_tokens=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
        **options,
    )
    return result.sequences[:, prompt:], torch.stack(result.logits, dim=1)


def _differs(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()


def test_generation_with_cache_in_batches_and_alone_is_teacher_forcing(tuned_and_processor) -> None:
    tuned, processor = tuned_and_processor
    inputs = processor(images=PICTURES, text=QUESTIONS, return_tensors="pt", padding=True)
    tokens, logits = _generate(tuned, inputs)
    again, uncached = _generate(tuned, inputs, use_cache=False)
    assert torch.equal(tokens, again)
    assert _differs(logits, uncached) < 1e-5

    whole = dict(inputs)
    whole["input_ids"] = torch.cat((inputs["input_ids"], tokens), dim=1)
    whole["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (0, NEW_TOKENS), value=1)
    with torch.no_grad():
        forced = tuned(**whole, layout_ids=whole["input_ids"]).logits[:, -NEW_TOKENS - 1 : -1]
    assert _differs(logits, forced) < 1e-5

    for row, (picture, question) in enumerate(zip(PICTURES, QUESTIONS, strict=True)):
        alone = processor(images=[picture], text=[question], return_tensors="pt", padding=True)
        assert _differs(_generate(tuned, alone)[1], logits[row : row + 1]) < 1e-5


def test_the_saved_adapter_makes_a_difference_that_can_be_switched_off(tuned_and_processor, tmp_path: Path) -> None:
    tuned, processor = tuned_and_processor
    if not isinstance(tuned, PeftModel):
        pytest.skip("a tuned model has no switch")
    base = tuned.get_base_model()
    quantization = "nf4" if getattr(base, "is_quantized", False) else None
    tuned, processor = load_pretrained(
        base.name_or_path, adapter=save(tuned, processor, tmp_path), quantization=quantization
    )
    inputs = processor(images=PICTURES, text=QUESTIONS, return_tensors="pt", padding=True)
    _, with_adapter = _generate(tuned, inputs)
    with tuned.disable_adapter():
        _, without = _generate(tuned, inputs)
    assert _differs(with_adapter, without) > 1e-4
    _, plain = _generate(load_pretrained(base.name_or_path, quantization=quantization)[0], inputs)
    assert _differs(without, plain) < 1e-6


def test_saved_and_reloaded_it_gives_the_same_logits(tuned_and_processor, tmp_path: Path) -> None:
    tuned, processor = tuned_and_processor
    batch = processor(
        images=PICTURES, text=QUESTIONS, answer=["红色。", "你好。", "蓝色。"], return_tensors="pt", padding=True
    )
    batch["layout_ids"] = batch["input_ids"]
    expected = answer_logits(tuned, batch)
    result = save(tuned, processor, tmp_path)
    if isinstance(tuned, PeftModel):
        base = Path(tuned.get_base_model().name_or_path)
        quantization = "nf4" if getattr(tuned.get_base_model(), "is_quantized", False) else None
        reloaded, _ = load_pretrained(base, adapter=result, quantization=quantization)
    else:
        reloaded, _ = load_pretrained(result)
    torch.testing.assert_close(answer_logits(reloaded, batch), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("is_right", [True, False])
def test_what_is_saved_passes_its_check_unless_it_is_wrong(tuned_and_processor, is_right: bool, tmp_path: Path) -> None:
    tuned, processor = tuned_and_processor
    answers = ["红色。", "你好。", "蓝色。"]
    batch = processor(images=PICTURES, text=QUESTIONS, answer=answers, return_tensors="pt", padding=True)
    batch["layout_ids"] = batch["input_ids"]
    result = save(tuned, processor, tmp_path)
    if not is_right:
        with torch.no_grad():
            next(parameter for parameter in tuned.parameters() if parameter.requires_grad).view(-1)[0] += 1.0
    assert bool(check_saved(tuned, result, batch).problems) != is_right


def test_checkpointing_changes_no_gradient_or_is_refused(tuned_and_processor, tmp_path: Path) -> None:
    tuned, processor = tuned_and_processor
    batch = processor(
        images=PICTURES, text=QUESTIONS, answer=["红色。", "你好。", "蓝色。"], return_tensors="pt", padding=True
    )
    batch["layout_ids"] = batch["input_ids"]
    if isinstance(tuned, PeftModel) and tuned.active_peft_config.peft_type.value == "PREFIX_TUNING":
        arguments = build(
            compose(overrides=["trainer.activation_checkpointing=true", f"output_dir={tmp_path}"]).trainer
        )
        with pytest.raises(ConfigError, match=r"P-tuning v2 does not go with trainer\.activation_checkpointing"):
            check_method(tuned.active_peft_config, arguments, {}, None)
        return
    tuned.train()

    def gradients() -> list[torch.Tensor]:
        tuned.zero_grad()
        tuned(**batch).loss.backward()
        return [parameter.grad.clone() for parameter in tuned.parameters() if parameter.grad is not None]

    plain = gradients()
    tuned.activation_checkpointing_enable()
    for one, other in zip(gradients(), plain, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["method=p_tuning_v2", "trainer.activation_checkpointing=true"], "come in a cache"),
        (["method=full", "model.quantization=nf4"], "a quantised model cannot be tuned itself"),
        (["method=pissa", "model.quantization=nf4"], "out of the base's weights"),
        (["method=adalora", "method.total_step=140"], "so they must be equal"),
        (["trainer.fp16=true"], "trainer.fp16=true needs an accelerator"),
        (["trainer.use_cpu=true", "trainer.bf16=true", "model.dtype=float16"], "do not mix on the CPU"),
        (["trainer.fsdp=true"], "trainer.fsdp divides a model among several processes, and this is one"),
        (["method=full", "model.dtype=float16", "trainer.fp16=true"], "needs an accelerator"),
        (["method=lora", "learning_rates={visoin: 1e-3}"], "no such part `visoin`"),
        (["method=lora", "learning_rates={vision: fast}"], "learning_rates.vision must be a positive number"),
    ],
)
def test_what_does_not_go_together_is_refused_before_the_model_loads(
    overrides: list[str], reason: str, tmp_path: Path
) -> None:
    from train import run

    cfg = compose(overrides=[*overrides, "model.path_or_id=no-such-folder", f"output_dir={tmp_path / 'run'}"])
    with pytest.raises(ConfigError, match=re.escape(reason)):
        run(cfg)
    assert not (tmp_path / "run").exists()
