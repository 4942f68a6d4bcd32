"""Training samples beside the questions: as examples in the context, and as the nearest pictures.

The examples are earlier turns of the dialogue, in text: the prompt holds one image, that of the question, so the
examples' own pictures cannot be shown. They are drawn by seed once, the same for all questions.
"""

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from vglm.data.sample import Sample, Turn
from vglm.errors import ConfigError, DataError
from vglm.evaluation.messages import Message
from vglm.evaluation.predict.answers import Shots
from vglm.evaluation.predict.training_answers import draw, label_of, majority_answer
from vglm.evaluation.predictions import Arm, unanswered
from vglm.text.normalisation import normalise

logger = logging.getLogger(__name__)

IN_CONTEXT = "in-context"
MAX_FEATURES = 5000
"""Training images that are compared with a test image; of more, this many are drawn at random."""


def draw_examples(train: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """Draw the training examples that are put before every question.

    Args:
        train: The training split.
        count: How many to draw, or all where there are fewer; 0 for none.
        seed: Of the draw.

    Raises:
        ConfigError: `count` is not a positive integer or 0.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise ConfigError(f"shots_in_context must be a positive integer, or 0 for none, got {count!r}.")
    return [train[index] for index in random.Random(seed).sample(range(len(train)), min(len(train), count))]


def put_in_context(
    examples: Sequence[Sample], test: Sequence[Sample], model: Any, processor: Any, max_new_tokens: int, label: str = ""
) -> Shots | None:
    """Put examples before each question, as many as fit before every question; no example is cut.

    Args:
        examples: Training samples, the ones to keep first; their questions and answers become earlier turns.
        test: The questions.
        model: Whose sequence length counts: a VisualGLM, or a `PeftModel` of one.
        processor: The model's processor.
        max_new_tokens: Room for the answer.
        label: The arm that is asked, `before`; empty for a model alone.

    Returns:
        The questions with the examples; None where there are no examples or no questions.
    """
    if not examples or not len(test):
        return None
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    limit = int(base.config.text_config.max_position_embeddings)
    count = _count_fitting(examples, test, processor, limit - max_new_tokens)
    name = f"{label}-{IN_CONTEXT}" if label else IN_CONTEXT
    if count == 0:
        meaning = Message("shots.none", {"tokens": max_new_tokens, "n": len(examples), "limit": limit})
        logger.warning("k-shot in context is %s", meaning)
        return Shots(Arm(label=name, meaning=meaning), 0, ())
    shown = Message("shots.examples", {"n": count}) if count > 1 else Message("shots.one_example")
    key = "shots.some" if count < len(examples) else "shots.all"
    meaning = Message(key, {"shown": shown, "n": len(examples), "limit": limit})
    turns = _example_turns(examples[:count])
    samples = [replace(sample, turns=(*turns, *sample.turns)) for sample in test]
    return Shots(Arm(label=name, meaning=meaning), count, samples)


def _example_turns(examples: Sequence[Sample]) -> list[Turn]:
    """The examples as turns, the first one nearest to the question."""
    return [
        turn
        for example in reversed(examples)
        for turn in (*example.turns[:-1], Turn(example.question, label_of(example)))
    ]


def _count_fitting(examples: Sequence[Sample], test: Sequence[Sample], processor: Any, max_length: int) -> int:
    """How many of the examples, from the first on, fit into `max_length` tokens before every question."""
    turns = [(turn.question, turn.answer) for turn in _example_turns(examples)]
    prompts = {(sample.question, tuple(sample.history), sample.image is not None, sample.language) for sample in test}
    left_out = 0
    for question, history, has_image, language in prompts:
        about = {"has_image": has_image, "language": language, "answer": "", "max_length": max_length}
        try:
            cut = processor.measure_cut(question, history=[*turns, *history], **about)
        except ValueError:  # not even without examples
            return 0
        left_out = max(left_out, cut.turns)
    fitting = len(turns) - left_out
    sizes = [len(example.turns) for example in examples]
    return sum(sum(sizes[: index + 1]) <= fitting for index in range(len(sizes)))


# --- the nearest image ------------------------------------------------------------------------------------------------


def nearest_answers(
    model: Any,
    processor: Any,
    train: Sequence[Sample],
    test: Sequence[Sample],
    *,
    batch_size: int = 16,
    seed: int = 1,
) -> list[str]:
    """Answer every question with the answer of the training sample whose image looks most alike.

    Args:
        model: The untuned model: a VisualGLM, or a `PeftModel` of one with its adapter off.
        processor: The model's processor.
        train: Where the answers come from; samples without a readable image are left out.
        test: The questions.
        batch_size: Images per call of the vision encoder.
        seed: Of the draw among more than `MAX_FEATURES` training samples.

    Returns:
        One answer for each test sample; the most frequent training answer where it has no readable image. Nothing where
        no training sample has one.
    """
    train = draw(train, MAX_FEATURES, random.Random(seed))
    features = vision_features(model, processor, train, batch_size=batch_size, title="training images")
    if not features or not len(test):
        return []
    indices = sorted(features)
    table = torch.stack([features[index] for index in indices])
    by_question: dict[str, list[int]] = {}
    for row, number in enumerate(indices):
        by_question.setdefault(normalise(train[number].question), []).append(row)
    test_features = vision_features(model, processor, test, batch_size=batch_size, title="test images")
    majority = majority_answer(train)
    answers = []
    for index, sample in enumerate(test):
        if index not in test_features:
            answers.append(majority(unanswered(sample, "test")))
            continue
        rows = by_question.get(normalise(sample.question)) or list(range(len(indices)))
        nearest = rows[int((table[rows] @ test_features[index]).argmax())]
        answers.append(label_of(train[indices[nearest]]))
    return answers


@torch.inference_mode()
def vision_features(
    model: Any, processor: Any, samples: Sequence[Sample], *, batch_size: int = 16, title: str = "images"
) -> Mapping[int, Tensor]:
    """Describe images by the Q-Former's output, averaged over the slots.

    Args:
        model: A VisualGLM, or a `PeftModel` of one.
        processor: The model's processor.
        samples: Those without a readable image are left out; equal files are encoded once.
        batch_size: Images per call.
        title: What the progress bar shows.

    Returns:
        Index in `samples` -> vector of length 1, shape (Q-Former's hidden size,), float32, on the CPU.
    """
    model.eval()
    base = (model.get_base_model() if hasattr(model, "get_base_model") else model).model
    first: dict[object, int] = {}  # image -> the first sample that has it
    for index, sample in enumerate(samples):
        if sample.image is not None:
            first.setdefault(_identity(sample), index)
    features: dict[object, Tensor] = {}
    unique = list(first.items())
    with tqdm(total=len(unique), desc=title, unit="image", delay=2) as progress:
        for start in range(0, len(unique), batch_size):
            opened = []
            for name, index in unique[start : start + batch_size]:
                try:
                    opened.append((name, _open(samples[index])))
                except DataError:
                    continue
            if opened:
                pixels = processor.image_processor([image for _, image in opened], return_tensors="pt")["pixel_values"]
                encoded = base.vision_model(pixels.to(model.device, base.query_tokens.dtype)).last_hidden_state
                queries = base.query_tokens.expand(len(pixels), -1, -1)
                output = base.qformer(query_embeds=queries, encoder_hidden_states=encoded).last_hidden_state
                vectors = torch.nn.functional.normalize(output.float().mean(dim=1), dim=-1).cpu()
                features |= {name: vector for (name, _), vector in zip(opened, vectors, strict=True)}
            progress.update(min(batch_size, len(unique) - start))
    names = {index: _identity(sample) for index, sample in enumerate(samples) if sample.image is not None}
    return {index: features[name] for index, name in names.items() if name in features}


def _open(sample: Sample) -> Image.Image:
    image = sample.open_image()
    assert image is not None
    return image


def _identity(sample: Sample) -> object:
    """Tells files apart without opening them, and images in memory, which may be made again each time, by content."""
    image = sample.image
    return (image.size, sha256(image.tobytes()).digest()) if isinstance(image, Image.Image) else image
