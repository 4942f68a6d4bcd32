"""Read out where a model attends: the language model to its tokens, the Q-Former to the picture's patches.

    inputs = processor(images=picture, text="图中有什么？", answer="猫。", return_tensors="pt")
    attention = read_attention(model, processor, inputs)
    attention.weights[0].mean(0) > 0       which token attends to which: the mask
    attention.of_answer().mean(1)          for each token of the answer, the attention to each image slot
    attention.on_patches()                 the same, mapped back to the patches of the picture

Attention shows where information could come from, not what an answer depends on. For that, ask again with another
picture (`image_use` of `vglm.evaluate`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from vglm.errors import DataError
from vglm.model.modeling import IGNORE_INDEX, glm_layout, image_slots
from vglm.model.processing import VisualGlmProcessor


@dataclass(frozen=True, eq=False)
class Attention:
    """The attention of one sample with its answer.

    Attributes:
        tokens: The text of each of the L tokens.
        weights: Of the language model, from rows to columns, shape (layers, heads, L, L), float32; each row sums to 1,
            less what virtual tokens draw.
        patches: Of the Q-Former's queries to the picture, shape (layers, heads, slots, rows, columns), float32; each
            grid sums to 1, less what the class token draws.
        slots: Where the image slots stand among the L tokens, in order.
        answer: Where the tokens of the answer stand, its end token included.
    """

    tokens: tuple[str, ...]
    weights: Tensor
    patches: Tensor
    slots: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def answer_tokens(self) -> tuple[str, ...]:
        """The text of each of the N tokens of the answer."""
        return tuple(self.tokens[index] for index in self.answer)

    def of_answer(self) -> Tensor:
        """How much each slot drew when a token of the answer was chosen, mean over heads.

        A token is chosen at the position before its own.

        Returns:
            Shape (N, layers, slots).
        """
        rows = self.weights.mean(1)[:, [index - 1 for index in self.answer]]
        return rows[:, :, list(self.slots)].transpose(0, 1)

    def on_patches(self) -> Tensor:
        """The same led back to the picture: each slot's share, spread as its query spread over the patches.

        Means over layers and heads on both sides, so a summary, not a derivation.

        Returns:
            Shape (N, rows, columns).
        """
        return torch.einsum("ns,sij->nij", self.of_answer().mean(1), self.patches.mean((0, 1)))


def read_attention(model: Any, processor: VisualGlmProcessor, inputs: Mapping[str, Tensor]) -> Attention:
    """Run one sample through a model and keep what it attended to.

    Args:
        model: A VisualGLM, or a `PeftModel` of one.
        processor: Its processor.
        inputs: What the processor made of one question with its picture and its `answer`, as tensors.

    Raises:
        DataError: There are several samples, or there is no picture or no answer.
    """
    if len(inputs["input_ids"]) != 1 or "pixel_values" not in inputs or "labels" not in inputs:
        actual = f"{len(inputs['input_ids'])} samples with {', '.join(inputs)}"
        raise DataError(
            "read_attention takes one sample with a picture and an answer, got"
            f" {actual}. Pass processor(images=..., text=..., answer=..., return_tensors='pt')."
        )
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    ids, length = inputs["input_ids"], inputs["input_ids"].shape[1]
    batch = {name: inputs[name].to(base.device) for name in ("input_ids", "attention_mask", "pixel_values")}
    core = base.model
    batch["layout_ids"] = batch["input_ids"]  # for virtual tokens, which take the place of the ids
    with torch.inference_mode(), _spelled_out(base):
        weights = model(**batch, output_attentions=True).attentions
        seen = core.vision_model(batch["pixel_values"]).last_hidden_state  # (1, 1 + patches, vision width)
        looked = core.qformer(query_embeds=core.query_tokens, encoder_hidden_states=seen, output_attentions=True)
    crossed = torch.stack([attention[0] for attention in looked.cross_attentions]).float().cpu()
    side = round((crossed.shape[-1] - 1) ** 0.5)  # crossed: (layers, heads, slots, 1 + patches)
    _, blocks = glm_layout(ids, inputs["attention_mask"], base.config.text_config)
    start = base.config.text_config.bos_token_id
    counted = (inputs["labels"][0] != IGNORE_INDEX) & (ids[0] != start)
    return Attention(
        tokens=tuple(processor.tokenizer.convert_ids_to_tokens(ids[0].tolist())),
        weights=torch.stack([weight[0, :, -length:, -length:] for weight in weights]).float().cpu(),
        patches=crossed[..., 1:].unflatten(-1, (side, side)),  # the first is the class token
        slots=tuple(image_slots(ids, blocks, base.config)[0].nonzero()[:, 0].tolist()),
        answer=tuple(counted.nonzero()[:, 0].tolist()),
    )


@contextmanager
def _spelled_out(model: Any) -> Iterator[None]:
    """Attention in the form that gives its weights, for all parts of a model, and no dropout."""
    parts = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    before = [(part.config, part.config._attn_implementation) for part in parts]
    was_training = model.training
    model.eval()
    try:
        model.set_attn_implementation("eager")
        yield
    finally:
        for config, name in before:
            config._attn_implementation = name
        model.train(was_training)
