"""Draw the figures of docs/concepts/architecture.md from the model's own code: shapes, positions and mask.

python docs/figures.py        writes docs/figures/*.svg again; the tests say when that is due
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import nn
from transformers.masking_utils import create_causal_mask

from vglm.model.configuration import VisualGlmConfig, VisualGlmTextConfig
from vglm.model.modeling import VisualGlmForConditionalGeneration, glm_layout

FOLDER = Path(__file__).with_name("figures")
TOKENS = [
    "<img>",
    "slot",
    "slot",
    "slot",
    "</img>",
    "问：",
    "这是",
    "哪里？",
    "答：",
    "[gMASK]",
    "<sop>",
    "海",
    "滩",
    "<eop>",
]
"""A prompt with its answer; three slots stand for the 32 of an image."""
LENGTH = 44
"""Tokens of the sequence that the shapes are shown for."""
CELL, LEFT, TOP = 23, 78, 62
INK, SOFT, CONTEXT, ANSWER = "#1f2933", "#7b8794", "#3f51b5", "#e07a00"


def shapes(config: VisualGlmConfig) -> dict[str, tuple[int, ...]]:
    """What each part gives for one image and a sequence of `LENGTH` tokens, found by running the model without memory.

    Args:
        config: Of the model.

    Returns:
        Part -> shape, the batch of one in front.
    """
    found: dict[str, tuple[int, ...]] = {}

    def note(name: str, module: nn.Module) -> None:
        def hook(_: nn.Module, __: object, output: object) -> None:
            found[name] = tuple(getattr(output, "last_hidden_state", output).shape)

        module.register_forward_hook(hook)

    size = config.vision_config.image_size
    with torch.device("meta"), torch.no_grad():
        model = VisualGlmForConditionalGeneration(config).eval()
        language_model = model.model.language_model
        first = language_model.layers[0]
        parts = {"vision": model.model.vision_model, "qformer": model.model.qformer, "head": model.lm_head}
        parts |= {"projection": model.model.language_projection, "language model": language_model}
        parts |= {"query_key_value": first.attention.query_key_value, "mlp": first.mlp.dense_h_to_4h}
        for name, module in parts.items():
            note(name, module)
        pixels = torch.empty(1, 3, size, size)
        model.get_image_embeds(model.get_image_features(pixels))
        ids = torch.zeros(1, LENGTH, dtype=torch.long)
        positions = torch.zeros(1, 2, LENGTH, dtype=torch.long)
        embeddings = model.get_input_embeddings()(ids)
        model.lm_head(language_model(embeddings, positions, ids).last_hidden_state)
    return {"pixels": tuple(pixels.shape), "embeddings": tuple(embeddings.shape), **found}


def layout() -> tuple[list[list[int]], list[list[bool]]]:
    """Both positions of each of `TOKENS`, and which tokens each one sees, as the model itself computes them."""
    config = VisualGlmTextConfig(hidden_size=8, num_attention_heads=2)
    config._attn_implementation = "eager"
    special = {"[gMASK]": config.gmask_token_id, "<sop>": config.bos_token_id, "<eop>": config.eos_token_id}
    ids = torch.tensor([[special.get(token, 20_000) for token in TOKENS]])
    positions, blocks = glm_layout(ids, None, config)
    mask = create_causal_mask(
        config=config,
        inputs_embeds=torch.zeros(1, len(TOKENS), 8),
        attention_mask=None,
        past_key_values=None,
        block_sequence_ids=blocks,
    )
    return positions[0].tolist(), (mask[0, 0] == 0).tolist()


def draw_architecture(found: Mapping[str, tuple[int, ...]], config: VisualGlmConfig) -> str:
    """The way from pixels to logits, top to bottom."""
    vision, qformer, text = config.vision_config, config.qformer_config, config.text_config
    boxes = [
        ("picture", "pixel_values", found["pixels"]),
        (
            f"vision transformer, {vision.num_hidden_layers} layers",
            "a vector for each patch, and one more",
            found["vision"],
        ),
        (
            f"Q-Former, {qformer.num_hidden_layers} layers",
            f"{config.num_image_tokens} learned queries look at them",
            found["qformer"],
        ),
        ("projection", "one linear layer", found["projection"]),
        ("prompt", "the vectors fill the image's slots among the embeddings", found["embeddings"]),
        (
            f"language model, {text.num_hidden_layers} layers",
            "two rotary positions; prompt both ways, answer forwards",
            found["language model"],
        ),
        ("head", "tied to the word embeddings", found["head"]),
    ]
    height, step = 46, 76
    parts = []
    for row, (title, note, shape) in enumerate(boxes):
        top = 8 + row * step
        parts.append(f'<rect x="8" y="{top}" width="424" height="{height}" rx="6" fill="#eef1fb" stroke="{CONTEXT}"/>')
        parts.append(_text(20, top + 19, title, weight="bold"))
        parts.append(_text(20, top + 37, note, size=12, colour=SOFT))
        parts.append(
            _text(420, top + 19, " × ".join(f"{n:,}" for n in shape), anchor="end", weight="bold", colour=CONTEXT)
        )
        if row < len(boxes) - 1:
            low = top + height
            parts.append(f'<path d="M220 {low + 4} V{low + 22} m-5 -7 l5 7 l5 -7" fill="none" stroke="{INK}"/>')
    return _svg(440, 8 + (len(boxes) - 1) * step + height + 8, "Shapes from picture to logits", parts)


def draw_layout(positions: list[list[int]], sees: list[list[bool]]) -> str:
    """The two positions of each token above the matrix of what it sees."""
    count = len(TOKENS)
    parts = [
        _text(LEFT - 6, 16, "position 1", size=12, anchor="end"),
        _text(LEFT - 6, 34, "position 2", size=12, anchor="end"),
    ]
    for column, (token, *both) in enumerate(zip(TOKENS, *positions, strict=True)):
        x = LEFT + column * CELL
        colour = ANSWER if both[1] else CONTEXT
        parts += [
            _text(x + CELL / 2, 16 + 18 * row, str(value), size=12, anchor="middle", colour=colour)
            for row, value in enumerate(both)
        ]
        parts.append(_text(LEFT - 6, TOP + column * CELL + 16, token, size=12, anchor="end", colour=colour))
        for row in range(count):
            fill = (ANSWER if positions[1][row] else CONTEXT) if sees[row][column] else "#ffffff"
            y = TOP + row * CELL
            parts.append(
                f'<rect x="{x}" y="{y}" width="{CELL - 2}" height="{CELL - 2}" fill="{fill}" stroke="#cbd2d9"/>'
            )
    bottom = TOP + count * CELL
    parts.append(_text(LEFT, 54, "row: a token that looks; column: what it sees", size=12, colour=SOFT))
    parts.append(_text(LEFT, bottom + 18, "prompt: all of it, both ways", size=12, colour=CONTEXT))
    parts.append(_text(LEFT, bottom + 36, "answer: the prompt, and what came before", size=12, colour=ANSWER))
    return _svg(LEFT + count * CELL + 8, bottom + 46, "Positions and mask of a prompt with its answer", parts)


def _text(
    x: float, y: float, text: str, *, size: int = 14, anchor: str = "start", weight: str = "normal", colour: str = INK
) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    look = f'font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" fill="{colour}"'
    return f'<text x="{x:g}" y="{y:g}" {look}>{escaped}</text>'


def _svg(width: float, height: float, title: str, parts: list[str]) -> str:
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">'
    return "\n".join([head, f"<title>{title}</title>", *parts, "</svg>", ""])


def figures() -> Iterator[tuple[str, str]]:
    """Name and content of each figure."""
    config = VisualGlmConfig()
    yield "architecture.svg", draw_architecture(shapes(config), config)
    yield "layout.svg", draw_layout(*layout())


def main() -> None:
    """Write the figures."""
    for name, content in figures():
        (FOLDER / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
