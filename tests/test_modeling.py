"""The port against the original's numbers, and against itself where the original has none."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, StaticCache

from vglm.model.configuration import VisualGlmConfig
from vglm.model.loading import load_pretrained
from vglm.model.modeling import VisualGlmForConditionalGeneration, glm_layout, image_slots

CASES = ("zh_single", "zh_history", "en_single", "en_history", "zh_mixed", "zh_text", "zh_text_history", "en_text")


class Reference:
    """The reference arrays, as tensors, with the inputs of each prompt case."""

    def __init__(self, folder: Path) -> None:
        self.arrays = np.load(folder / "expected.npz")
        self.facts = json.loads((folder / "expected.json").read_text("utf-8"))

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])

    def pixels(self, *images: int) -> Tensor:
        return torch.stack([self[f"images/{image}/pixel_values"] for image in images])

    def inputs(self, case: str, prompt_only: bool = False) -> dict[str, Tensor]:
        facts = self.facts["cases"][case]
        ids = self[f"{case}/input_ids_hf"][None]
        inputs = {"input_ids": ids[:, : facts["prompt_tokens"]] if prompt_only else ids}
        return inputs if facts["image"] is None else {**inputs, "pixel_values": self.pixels(facts["image"])}


@pytest.fixture(scope="module")
def expected(reference: Path) -> Reference:
    return Reference(reference)


@pytest.fixture(scope="module")
def model(reference: Path) -> VisualGlmForConditionalGeneration:
    return load_pretrained(reference / "hf_layout", dtype="float32")[0]


@pytest.fixture(scope="module", params=["hf_layout", "sat_layout"])
def either_layout(request: pytest.FixtureRequest, reference: Path) -> VisualGlmForConditionalGeneration:
    return load_pretrained(reference / request.param, dtype="float32", tokenizer=reference / "hf_layout")[0]


@pytest.fixture
def fresh(model: VisualGlmForConditionalGeneration) -> VisualGlmForConditionalGeneration:
    """A copy that a test may change."""
    copy = VisualGlmForConditionalGeneration(VisualGlmConfig.from_dict(model.config.to_dict()))
    copy.load_state_dict(model.state_dict())
    return copy.eval()


def close(actual: Tensor, target: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(actual, target, atol=tolerance, rtol=0)


def pad_left(rows: list[Tensor], pad: int) -> tuple[Tensor, Tensor]:
    length = max(len(row) for row in rows)
    ids = torch.stack([torch.cat((torch.full((length - len(row),), pad), row)) for row in rows])
    mask = torch.stack([torch.cat((torch.zeros(length - len(row)), torch.ones(len(row)))) for row in rows])
    return ids, mask.long()


# --- Against the original


@torch.no_grad()
def test_vision_matches_the_original(either_layout: VisualGlmForConditionalGeneration, expected: Reference) -> None:
    base, pixels = either_layout.model, expected.pixels(0, 1, 2, 3)
    seen: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _m, _i, output: seen.append(output))
        for module in (base.vision_model.embeddings, *base.vision_model.encoder.layers)
    ]
    patches = base.vision_model(pixels).last_hidden_state
    for hook in hooks:
        hook.remove()
    close(seen[0], expected["vision/vit_embeddings"])
    close(torch.stack(seen[1:], 1), expected["vision/vit_layers"])
    close(patches, expected["vision/vit_output"], 1e-5)
    queries = base.query_tokens.expand(4, -1, -1)
    close(
        base.qformer(query_embeds=queries, encoder_hidden_states=patches).last_hidden_state,
        expected["vision/qformer_output"],
        1e-5,
    )
    close(base.get_image_embeds(base.get_image_features(pixels)), expected["vision/image_embeds"], 1e-5)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_language_model_matches_the_original(
    either_layout: VisualGlmForConditionalGeneration, expected: Reference, case: str
) -> None:
    layers: list[Tensor] = []
    decoder = either_layout.model.language_model
    hooks = [layer.register_forward_hook(lambda _m, _i, output: layers.append(output)) for layer in decoder.layers]
    output = either_layout(**expected.inputs(case), output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    at = expected[f"{case}/logits_positions"]
    close(output.logits[0, at], expected[f"{case}/logits"])
    states = torch.stack([output.hidden_states[0], *layers, output.hidden_states[-1]])[:, 0]
    if f"{case}/hidden_states" in expected.arrays:
        close(states, expected[f"{case}/hidden_states"])
    else:
        close(states[:, at], expected[f"{case}/hidden_states_at_positions"])


@pytest.mark.parametrize("case", CASES)
def test_greedy_tokens_match_the_original(
    either_layout: VisualGlmForConditionalGeneration, expected: Reference, case: str
) -> None:
    inputs = expected.inputs(case, prompt_only=True)
    ids = either_layout.generate(**inputs, max_new_tokens=32, do_sample=False)
    assert ids[0, inputs["input_ids"].shape[1] :].tolist() == expected.facts["cases"][case]["greedy_hf"]


@torch.no_grad()
def test_training_loss_matches_the_original(
    either_layout: VisualGlmForConditionalGeneration, expected: Reference
) -> None:
    ids, labels = expected["train/input_ids"].clone(), expected["train/labels"]
    before = expected.facts["train"]["pre_image"]
    ids[:, before : before + 32] = either_layout.config.image_token_id
    batch = {"input_ids": ids, "labels": labels, "pixel_values": expected["train/images"]}
    output = either_layout(**batch)
    loss = expected.facts["train"]["loss_base"]
    assert output.loss.item() == pytest.approx(loss, abs=1e-5)
    assert either_layout(**batch, skip_logits=True).loss.item() == pytest.approx(loss, abs=1e-5)
    close(output.logits[:, expected["train/logits_positions"]], expected["train/logits"])


def test_positions_match_the_original(model: VisualGlmForConditionalGeneration, expected: Reference) -> None:
    for case in CASES:
        positions, blocks = glm_layout(expected[f"{case}/input_ids_hf"][None], None, model.config.text_config)
        assert torch.equal(positions[0], expected[f"{case}/position_ids"])
        visible = expected[f"{case}/attention_mask"].bool()
        length = len(visible)
        causal = torch.ones(length, length).tril().bool()
        assert torch.equal(causal | ((blocks[0][:, None] == 0) & (blocks[0][None] == 0)), visible)


@pytest.mark.parametrize("case", ["gmask", "mask", "mask_before_gmask", "context_only", "different_contexts"])
def test_positions_of_handmade_ids_match_the_original(
    model: VisualGlmForConditionalGeneration, reference: Path, case: str
) -> None:
    golden = np.load(reference / "components_golden.npz")
    ids = torch.from_numpy(golden[f"{case}/input_ids"])
    positions, _ = glm_layout(ids, None, model.config.text_config)
    assert torch.equal(positions, torch.from_numpy(golden[f"{case}/hf_position_ids"]))


def test_positions_of_a_padded_batch_match_the_original(
    model: VisualGlmForConditionalGeneration, expected: Reference
) -> None:
    ids, mask = expected["batch_left_padded_text/input_ids"], expected["batch_left_padded_text/attention_mask"]
    positions, _ = glm_layout(ids, mask, model.config.text_config)
    assert torch.equal(positions, expected["batch_left_padded_text/position_ids"])
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask).logits
    for row in range(3):
        alone = model(input_ids=ids[row : row + 1, mask[row] == 1]).logits
        close(logits[row, mask[row] == 1], alone[0], 1e-4)


@torch.no_grad()
def test_two_images_under_one_prompt_match_the_original(
    model: VisualGlmForConditionalGeneration, expected: Reference
) -> None:
    ids = expected["batch_two_images/input_ids"].clone()
    ids[:, 5:37] = model.config.image_token_id
    pixels = expected.pixels(*expected["batch_two_images/image_index"].tolist())
    logits = model(input_ids=ids, pixel_values=pixels).logits
    close(logits[:, expected["batch_two_images/logits_positions"]], expected["batch_two_images/logits"])


# --- Beyond the original


def mixed_batch(expected: Reference, pad: int) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """Prompts of all lengths, with and without image, once as a left-padded batch and once each alone."""
    singles = [expected.inputs(case, prompt_only=True) for case in CASES]
    ids, mask = pad_left([single["input_ids"][0] for single in singles], pad)
    pixels = torch.cat([single["pixel_values"] for single in singles if "pixel_values" in single])
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}, singles


@torch.no_grad()
def test_mixed_left_padded_batch_equals_single_rows(
    model: VisualGlmForConditionalGeneration, expected: Reference
) -> None:
    batch, singles = mixed_batch(expected, pad=3)
    logits = model(**batch).logits
    for row, single in enumerate(singles):
        alone = model(**single).logits[0]
        close(logits[row, -len(alone) :], alone)


@torch.no_grad()
def test_right_padding_equals_left_padding(model: VisualGlmForConditionalGeneration, expected: Reference) -> None:
    short, long = (expected[f"{case}/input_ids_hf"] for case in ("zh_text", "en_text"))
    ids = torch.stack((torch.cat((short, torch.full((len(long) - len(short),), 3))), long))
    mask = torch.stack((torch.arange(len(long)) < len(short), torch.ones(len(long), dtype=torch.bool))).long()
    close(model(input_ids=ids, attention_mask=mask).logits[0, : len(short)], model(input_ids=short[None]).logits[0])


@pytest.mark.parametrize("options", [{}, {"use_cache": False}, {"num_beams": 3}, {"cache_implementation": "static"}])
def test_batched_generation_equals_single_rows(
    model: VisualGlmForConditionalGeneration, expected: Reference, options: dict[str, object]
) -> None:
    batch, singles = mixed_batch(expected, pad=3)
    settings = {"max_new_tokens": 6, "do_sample": False, "disable_compile": True, **options}
    together = model.generate(**batch, **settings)[:, batch["input_ids"].shape[1] :]
    for row, single in enumerate(singles):
        alone = model.generate(**single, **{**settings, "use_cache": True})
        assert together[row].tolist() == alone[0, single["input_ids"].shape[1] :].tolist()


@torch.no_grad()
def test_cached_equals_uncached(model: VisualGlmForConditionalGeneration, expected: Reference) -> None:
    inputs = expected.inputs("en_history")
    ids, prompt = inputs["input_ids"], expected.facts["cases"]["en_history"]["prompt_tokens"]
    whole = model(**inputs).logits[0, prompt - 1 :]
    output = model.generate(
        input_ids=ids[:, :prompt],
        pixel_values=inputs["pixel_values"],
        max_new_tokens=32,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    close(torch.cat(output.logits), whole[:-1])


@torch.no_grad()
@pytest.mark.parametrize(
    "implementation",
    ["eager", pytest.param("flex_attention", marks=pytest.mark.gpu)],  # flex compiles for minutes on a CPU
)
def test_attention_implementations_agree(
    fresh: VisualGlmForConditionalGeneration, expected: Reference, implementation: str
) -> None:
    batch, _ = mixed_batch(expected, pad=3)
    logits = fresh(**batch).logits
    fresh.set_attn_implementation(implementation)
    real = batch["attention_mask"] == 1
    close(fresh(**batch).logits[real], logits[real])


@torch.no_grad()
def test_eager_attention_returns_weights(fresh: VisualGlmForConditionalGeneration, expected: Reference) -> None:
    fresh.set_attn_implementation("eager")
    inputs = expected.inputs("zh_text")
    attentions = fresh(**inputs, output_attentions=True).attentions
    assert len(attentions) == fresh.config.text_config.num_hidden_layers
    close(attentions[0].sum(-1), torch.ones_like(attentions[0].sum(-1)))


def test_saved_model_is_bit_equal(
    model: VisualGlmForConditionalGeneration, expected: Reference, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    assert list(tmp_path.glob("*.safetensors"))
    again = AutoModelForImageTextToText.from_pretrained(tmp_path, device_map="auto")
    assert isinstance(again, VisualGlmForConditionalGeneration)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    inputs = expected.inputs("zh_single")
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, model(**inputs).logits)


def training_batch(expected: Reference, model: VisualGlmForConditionalGeneration) -> dict[str, Tensor]:
    ids = expected["train/input_ids"][:3, :96].clone()
    ids[:, 5:37] = model.config.image_token_id
    return {"input_ids": ids, "labels": expected["train/labels"][:3, :96], "pixel_values": expected["train/images"][:3]}


def test_gradient_checkpointing_changes_nothing(fresh: VisualGlmForConditionalGeneration, expected: Reference) -> None:
    batch = training_batch(expected, fresh)
    fresh.train()
    fresh(**batch).loss.backward()
    plain = {name: parameter.grad.clone() for name, parameter in fresh.named_parameters() if parameter.grad is not None}
    assert "model.vision_model.embeddings.patch_embedding.weight" in plain
    fresh.zero_grad()
    fresh.activation_checkpointing_enable()
    fresh(**batch).loss.backward()
    for name, parameter in fresh.named_parameters():
        assert (parameter.grad is None) == (name not in plain), name
        if parameter.grad is not None:
            assert torch.equal(parameter.grad, plain[name]), name


def test_training_returns_a_loss_without_logits(fresh: VisualGlmForConditionalGeneration, expected: Reference) -> None:
    batch = training_batch(expected, fresh)
    whole = fresh(**batch)
    counted = batch["labels"][:, 1:] != -100
    by_hand = torch.nn.functional.cross_entropy(whole.logits[:, :-1][counted], batch["labels"][:, 1:][counted])
    close(whole.loss, by_hand, 1e-6)
    fresh.train()
    trained = fresh(**batch, num_items_in_batch=2 * int(counted.sum()))
    assert trained.logits is None
    close(2 * trained.loss, by_hand, 1e-5)


def test_decoder_compiles_without_graph_breaks(fresh: VisualGlmForConditionalGeneration, expected: Reference) -> None:
    ids = expected.inputs("zh_text")["input_ids"]
    positions, blocks = glm_layout(ids, None, fresh.config.text_config)
    embeddings = fresh.get_input_embeddings()(ids).detach()
    decoder = fresh.model.language_model
    arguments = {"inputs_embeds": embeddings, "glm_position_ids": positions, "block_ids": blocks}
    compiled = torch.compile(decoder.forward, fullgraph=True, backend="eager")
    with torch.no_grad():
        close(compiled(**arguments).last_hidden_state, decoder(**arguments).last_hidden_state, 1e-5)


@torch.no_grad()
def test_static_cache_equals_dynamic(model: VisualGlmForConditionalGeneration, expected: Reference) -> None:
    inputs = expected.inputs("zh_single", prompt_only=True)
    cache = StaticCache(config=model.config.text_config, max_cache_len=96)
    logits = model(**inputs, past_key_values=cache, use_cache=True).logits
    close(logits, model(**inputs).logits)


def test_positions_ignore_padding_and_each_other(model: VisualGlmForConditionalGeneration) -> None:
    config = model.config.text_config
    generator = torch.Generator().manual_seed(0)
    gmask, sop = config.gmask_token_id, config.bos_token_id
    rows = []
    for _ in range(20):
        context, answer = (torch.randint(10, 900, (int(n),), generator=generator) for n in torch.randint(1, 9, (2,)))
        rows.append(torch.cat((context, torch.tensor([gmask, sop]), answer)))
    ids, mask = pad_left(rows, pad=3)
    positions, blocks = glm_layout(ids, mask, config)
    for row, alone in enumerate(rows):
        start = alone.tolist().index(sop)
        first = [min(i, start - 1) for i in range(len(alone))]
        second = [max(0, i - start + 1) for i in range(len(alone))]
        assert positions[row, :, -len(alone) :].tolist() == [first, second]
        assert blocks[row, -len(alone) :].tolist() == [0] * start + [-1] * (len(alone) - start)


def test_slots_are_one_run_before_the_answer(model: VisualGlmForConditionalGeneration) -> None:
    config = model.config
    count, unk = config.num_image_tokens, config.image_token_id
    gmask, sop = config.text_config.gmask_token_id, config.text_config.bos_token_id
    rows = [
        [unk, 9, *[unk] * count, 9, unk, gmask, sop, *[unk] * count],  # strays on both sides, and in the answer
        [9, 9, *[unk] * (count - 1), 9, 9, 9, gmask, sop, *[unk] * count],  # one too few
    ]
    ids = torch.tensor(rows)
    _, blocks = glm_layout(ids, None, config.text_config)
    slots = image_slots(ids, blocks, config)
    assert slots[0].nonzero().flatten().tolist() == list(range(2, 2 + count))
    assert not slots[1].any()


def test_images_and_slots_must_agree(model: VisualGlmForConditionalGeneration, expected: Reference) -> None:
    inputs = expected.inputs("zh_text")
    with pytest.raises(
        ValueError, match="0 of 1 rows have 32 image slots before <sop>, but pixel_values holds 1 images"
    ):
        model(**inputs, pixel_values=expected.pixels(0))
    with pytest.raises(ValueError, match="Pass input_ids"):
        model(inputs_embeds=torch.zeros(1, 4, 64))


def test_text_only_model_call_needs_no_image_weights(
    fresh: VisualGlmForConditionalGeneration, expected: Reference
) -> None:
    inputs = expected.inputs("zh_text")
    logits = fresh(**inputs).logits
    fresh.model.vision_model = fresh.model.qformer = None
    assert torch.equal(fresh(**inputs).logits, logits)
