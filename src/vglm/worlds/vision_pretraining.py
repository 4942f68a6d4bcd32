"""Teach a new model to see before it learns to talk, as VisualGLM's own vision transformer and Q-Former were.

The original starts from EVA-CLIP and from BLIP-2's first stage, which learn what is in a picture without a language
model. Here the scene world says what is in a picture: linear heads on the patches and on the queries name kind, colour,
count and place, and are discarded afterwards. Without this stage the tiny model could not distinguish shapes after
48,000 pre-training samples.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import get_cosine_schedule_with_warmup

from vglm.model.loading import default_device
from vglm.model.modeling import VisualGlmForConditionalGeneration, VisualGlmModel
from vglm.model.processing import VisualGlmProcessor
from vglm.worlds.initialization import initialize_model
from vglm.worlds.render import render
from vglm.worlds.scenes import COLOURS, COUNTS, KINDS, PLACES, sample_scene

WARMUP_STEPS = 50


class SceneAttributes(Dataset[tuple[Tensor, Tensor]]):
    """Scenes with what is in them: `pixel_values` (3, H, W) float32, and kind, colour, count, place as indices (4,).

    Args:
        length: Number of scenes.
        seed: Scene i follows from (seed, i).
        processor: Makes the pixels, at its own image size.
    """

    def __init__(self, length: int, seed: int, processor: VisualGlmProcessor) -> None:
        self.length = length
        self.seed = seed
        self.image_processor = processor.image_processor

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        scene = sample_scene(np.random.default_rng([self.seed, index]))
        pixels = self.image_processor(render(scene), return_tensors="pt")["pixel_values"][0]
        values = ((scene.kind, KINDS), (scene.colour, COLOURS), (scene.count, COUNTS), (scene.place, PLACES))
        return pixels, torch.tensor([names.index(value) for value, names in values])


class AttributeHeads(nn.Module):
    """Linear classifiers for the four attributes on a mean of hidden states."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(hidden_size, len(v)) for v in (KINDS, COLOURS, COUNTS, PLACES))

    def forward(self, hidden_states: Tensor, attributes: Tensor) -> tuple[Tensor, Tensor]:
        """Summed cross entropy () and whether all four are right (B,), for states (B, L, D) and indices (B, 4)."""
        mean = hidden_states.mean(dim=1)
        logits = [head(mean) for head in self.heads]
        loss = torch.stack([F.cross_entropy(scores, attributes[:, i]) for i, scores in enumerate(logits)]).sum()
        right = torch.stack([scores.argmax(-1) == attributes[:, i] for i, scores in enumerate(logits)]).all(dim=0)
        return loss, right


def pretrain_vision(
    model: VisualGlmModel,
    processor: VisualGlmProcessor,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> float:
    """Train vision transformer, query tokens and Q-Former, in place, to recognise what is in a scene.

    Args:
        model: The model without its head; the language model and the projection stay as they are.
        processor: Its processor.
        steps: Optimizer steps.
        batch_size: Scenes per step.
        learning_rate: Peak of a cosine schedule with `WARMUP_STEPS`.
        seed: Of the scenes and the heads.

    Returns:
        Share of the last 20 batches' scenes (seen for the first time) whose four attributes are all predicted
        correctly from the queries.
    """
    torch.manual_seed(seed)
    heads = nn.ModuleList(
        AttributeHeads(part.config.hidden_size) for part in (model.vision_model, model.qformer)
    ).train()
    trained = [*model.vision_model.parameters(), model.query_tokens, *model.qformer.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = get_cosine_schedule_with_warmup(optimizer, WARMUP_STEPS, steps)
    scenes = SceneAttributes(steps * batch_size, seed, processor)
    right: list[float] = []
    model.train()
    progress = tqdm(DataLoader(scenes, batch_size, num_workers=1), desc="learning to see", unit="step")
    for pixels, attributes in progress:
        patches = model.vision_model(pixels).last_hidden_state
        queries = model.query_tokens.expand(len(pixels), -1, -1)
        queries = model.qformer(query_embeds=queries, encoder_hidden_states=patches).last_hidden_state
        (patch_loss, _), (query_loss, correct) = heads[0](patches, attributes), heads[1](queries, attributes)
        (patch_loss + query_loss).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        right = [*right[-19:], correct.float().mean().item()]
        progress.set_postfix(right=f"{sum(right) / len(right):.3f}", loss=f"{query_loss.item():.3f}")
    return sum(right) / len(right)


def initialize_seeing_model(
    tokenizer: str | Path, *, vision_pretraining: dict[str, Any], seed: int = 0, **sizes: Any
) -> tuple[VisualGlmForConditionalGeneration, VisualGlmProcessor]:
    """Build a model as `initialize_model` does, and teach it to see.

    Args:
        tokenizer: See `initialize_model`.
        vision_pretraining: Arguments of `pretrain_vision` besides the seed.
        seed: Seed of the weights and of the scenes.
        sizes: See `initialize_model`.

    Returns:
        The float32 model, whose language model is still random, and its processor.
    """
    model, processor = initialize_model(tokenizer, seed=seed, **sizes)
    pretrain_vision(model.model, processor, seed=seed, **vision_pretraining)
    core: nn.Module = model
    core.to(default_device())
    return model, processor
