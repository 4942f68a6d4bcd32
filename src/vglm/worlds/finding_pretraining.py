"""Teach a model's Q-Former what a chest X-ray shows before the language model learns to report on it.

VisualGLM's own vision transformer and Q-Former learned to see before they met the language model, and so did the tiny
model's, on drawn scenes (`vglm.worlds.vision_pretraining`). This goes on from there with phantom radiographs: the
vision transformer stays as it is, and the Q-Former learns to predict each sentence of a report from its queries,
through linear heads that are discarded afterwards. The language model is not changed; it learns later to verbalise the
queries.
"""

import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm
from transformers import get_cosine_schedule_with_warmup

from vglm.caching import remembered_arrays
from vglm.model.identity import hash_weights
from vglm.model.loading import default_device, load_pretrained
from vglm.model.modeling import VisualGlmForConditionalGeneration, VisualGlmModel
from vglm.model.processing import VisualGlmProcessor
from vglm.worlds.radiograph_studies import RadiographStudies

WARMUP_STEPS = 20
CACHE_KIND = "findings"
_LEARNING = ("query_tokens", "qformer.")
SENTENCES = ("heart", "opacity", "effusion", "pneumothorax", "device")
"""What the sentences of a report are about, in their order; the conclusion follows from them."""


def load_with_findings(
    path_or_id: str | Path, *, finding_pretraining: dict[str, Any], dtype: str = "float32", seed: int = 1
) -> tuple[VisualGlmForConditionalGeneration, VisualGlmProcessor]:
    """Load a model as `load_pretrained` does, and teach its Q-Former the findings.

    Args:
        path_or_id: See `load_pretrained`.
        finding_pretraining: Arguments of `pretrain_findings` besides the seed.
        dtype: See `load_pretrained`.
        seed: Seed of the studies, the heads and the batches. The result is the same for equal arguments, and what was
            learned is kept in the cache, so that an evaluation need not learn it again.

    Returns:
        The model and its processor.
    """
    model, processor = load_pretrained(path_or_id, dtype=dtype, device_map="cpu")  # so that it is the same everywhere

    def learn() -> dict[str, NDArray[Any]]:
        learner = load_pretrained(path_or_id, dtype="float32", device_map="cpu")[0].model
        with torch.random.fork_rng(devices=[]):  # so that what follows is the same where nothing has to be learned
            pretrain_findings(learner, processor, seed=seed, **finding_pretraining)
        return {name: tensor.numpy() for name, tensor in learner.state_dict().items() if name.startswith(_LEARNING)}

    facts = {"settings": finding_pretraining, "seed": seed, "weights": hash_weights(model), "torch": torch.__version__}
    files = sorted([*Path(path_or_id).glob("*"), *Path(__file__).parent.glob("*.py")])
    learned = remembered_arrays(CACHE_KIND, files, facts, learn)
    model.model.load_state_dict({name: torch.from_numpy(array) for name, array in learned.items()}, strict=False)
    core: nn.Module = model
    core.to(default_device())
    return model, processor


def pretrain_findings(
    model: VisualGlmModel,
    processor: VisualGlmProcessor,
    *,
    studies: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> dict[str, float]:
    """Train query tokens and Q-Former, in place, to recognise what is in a radiograph.

    Args:
        model: The model without its head; only its Q-Former and query tokens change.
        processor: Its processor.
        studies: Number of studies, of two pictures each, at least 10. The last tenth is not trained on.
        steps: Optimizer steps.
        batch_size: Pictures per step.
        learning_rate: Peak of a cosine schedule with `WARMUP_STEPS`.
        seed: Of the studies (those of `RadiographStudies` with this seed), the heads and the batches.

    Returns:
        Finding -> share of the held-out pictures whose sentence about it is predicted correctly.
    """
    torch.manual_seed(seed)
    states, texts = _look(model, processor, RadiographStudies(studies, seed, languages=["zh"]), batch_size)
    vocabularies = [sorted({text[i] for text in texts}) for i in range(len(SENTENCES))]
    targets = torch.tensor([[vocabularies[i].index(sentence) for i, sentence in enumerate(text)] for text in texts])
    heads = nn.ModuleList(nn.Linear(model.qformer.config.hidden_size, len(vocabulary)) for vocabulary in vocabularies)
    trained = [model.query_tokens, *model.qformer.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = get_cosine_schedule_with_warmup(optimizer, WARMUP_STEPS, steps)
    count = len(states) - len(states) // 10

    def predict(rows: Tensor) -> list[Tensor]:
        queries = model.query_tokens.expand(len(rows), -1, -1)
        seen = model.qformer(query_embeds=queries, encoder_hidden_states=states[rows]).last_hidden_state
        return [head(seen.mean(dim=1)) for head in heads]

    model.train()
    progress = tqdm(range(steps), desc="learning findings", unit="step", delay=2)
    for _ in progress:
        rows = torch.randint(count, (batch_size,))
        losses = [F.cross_entropy(scores, targets[rows, i]) for i, scores in enumerate(predict(rows))]
        loss = torch.stack(losses).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        progress.set_postfix(loss=f"{loss.item():.3f}")
    model.eval()
    with torch.no_grad():
        held_out = torch.arange(count, len(states))
        right = [(scores.argmax(-1) == targets[held_out, i]).float() for i, scores in enumerate(predict(held_out))]
    return {name: correct.mean().item() for name, correct in zip(SENTENCES, right, strict=True)}


@torch.no_grad()
def _look(
    model: VisualGlmModel, processor: VisualGlmProcessor, studies: RadiographStudies, batch_size: int
) -> tuple[Tensor, list[list[str]]]:
    """The vision transformer's hidden states (pictures, patches + 1, width), once, and each picture's sentences."""
    states, texts = [], []
    for start in tqdm(range(0, len(studies), batch_size), desc="looking", unit="batch", delay=2):
        samples = studies[start : start + batch_size]
        pixels = processor.image_processor([sample.image for sample in samples], return_tensors="pt")["pixel_values"]
        states.append(model.vision_model(pixels).last_hidden_state)
        texts += [re.split("[，。]", sample.answer)[: len(SENTENCES)] for sample in samples]
    return torch.cat(states), texts
