"""Ask a model every question of a list of samples, greedily and in batches, and keep the answers as records.

    predictions = generate_predictions(model, processor, splits.test, batch_size=16, max_new_tokens=64)
    predictions[0].prediction == "这张图片的背景是沙滩。"

`shuffle_images` takes the right picture away from every question, to see what the answers are worth without it.
"""

import logging
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from tqdm import tqdm

from vglm.data.collator import Collator, Processor
from vglm.data.feature_cache import FeatureCache
from vglm.data.images import image_sha256, open_image
from vglm.data.sample import Sample
from vglm.data.windowing import META_KEY
from vglm.errors import ConfigError, DataError
from vglm.evaluation.predictions import Prediction
from vglm.tuning.features import open_features

logger = logging.getLogger(__name__)

MAX_SIDE_PX = 224
"""Longest side of the copies of images that an evaluation folder keeps for its report."""


class GenerativeModel(Protocol):
    """What is asked of a model; a VisualGLM and a `PeftModel` of one answer it."""

    @property
    def device(self) -> torch.device:
        """Where its inputs must lie."""

    def eval(self) -> Any:
        """Turn dropout off."""

    def generate(self, **inputs: Any) -> torch.Tensor:
        """Continue `input_ids` (B, L); returns (B, L + new tokens), int64."""


class AnsweringProcessor(Processor, Protocol):
    """What is asked of a processor; `VisualGlmProcessor` answers it."""

    def decode(self, token_ids: Any) -> str:
        """Turn one answer's ids into its text."""


@torch.inference_mode()
def generate_predictions(
    model: GenerativeModel,
    processor: AnsweringProcessor,
    samples: Sequence[Sample],
    *,
    split: str = "test",
    batch_size: int = 16,
    max_new_tokens: int = 64,
    images: Path | None = None,
    title: str | None = None,
    feature_cache: bool = False,
) -> list[Prediction]:
    """Answer the last question of every sample.

    The answers do not depend on the batch size: prompts are padded on the left and every position is its own sample's.
    Samples of similar length share a batch. A sample whose image cannot be opened becomes a record with an error.

    Args:
        model: A VisualGLM, or a `PeftModel` of one.
        processor: The model's processor.
        samples: Their references are kept in the records and never shown to the model.
        split: What the records call this list of samples.
        batch_size: Samples per call of `generate`.
        max_new_tokens: Longest answer, in tokens.
        images: Folder for a small copy of each image, `<sha256>.webp`; none are kept if not given.
        title: What the progress bar shows; the split if not given.
        feature_cache: Whether to keep, and reuse, what the model's vision parts make of each picture, see
            `vglm.tuning.features`.

    Returns:
        One record per sample, in the order of `samples`.

    Raises:
        ConfigError: `batch_size` or `max_new_tokens` is not a positive integer.
    """
    for name, value in (("batch_size", batch_size), ("max_new_tokens", max_new_tokens)):
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name} must be a positive integer, got {value!r}.")
    model.eval()
    features = open_features(model, processor) if feature_cache else None
    collate = Collator(processor, with_answers=False, features=features)
    if images is not None:
        images.mkdir(parents=True, exist_ok=True)
    predictions: dict[int, Prediction] = {}
    order = sorted(range(len(samples)), key=lambda index: _length(samples[index]), reverse=True)
    with tqdm(total=len(samples), desc=title or split, unit="answer") as progress:
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            opened: dict[int, Sample] = {}
            for index in indices:
                sample, predictions[index] = _open(samples[index], split, images)
                if sample is not None:
                    opened[index] = sample
            if opened:
                if collate.features is not None and not _fill(features, opened.values()):
                    collate.features = None
                batch = {name: tensor.to(model.device) for name, tensor in collate(list(opened.values())).items()}
                output = model.generate(**batch, do_sample=False, num_beams=1, max_new_tokens=max_new_tokens)
                answers = output[:, batch["input_ids"].shape[1] :].tolist()
                for index, answer in zip(opened, answers, strict=True):
                    predictions[index] = replace(predictions[index], prediction=processor.decode(answer))
            progress.update(len(indices))
    return [predictions[index] for index in range(len(samples))]


def _fill(features: FeatureCache | None, samples: Iterable[Sample]) -> bool:
    """Encode what the cache does not know yet; False where it cannot be written."""
    try:
        if features is not None:
            features.fill(samples)
    except OSError as error:
        logger.warning("features of pictures are not cached any further: %s", error)
        return False
    return features is not None


def _length(sample: Sample) -> int:
    """A measure of the prompt's length: characters, and an image's slots as so many."""
    return (
        sum(len(turn.question) + len(turn.answer) for turn in sample.turns[:-1])
        + len(sample.question)
        + (0 if sample.image is None else 64)
    )


def _open(sample: Sample, split: str, images: Path | None) -> tuple[Sample | None, Prediction]:
    """Decode the image once for the model, its hash and its copy; no sample but an error where that fails."""
    record = Prediction(
        id=sample.id,
        group=sample.group,
        split=split,
        kind=sample.meta.get("kind"),
        english=sample.english,
        question=sample.question,
        history=tuple(sample.history),
        reference=sample.answer,
        prediction="",
        image=_shown(sample.image) if isinstance(sample.image, Path) else None,
        image_sha256=None,
    )
    if sample.image is None:
        return sample, record
    try:
        image = open_image(sample.image, sample.meta.get(META_KEY))
    except DataError as error:
        return None, replace(record, error=str(error))
    sha256 = image_sha256(image)
    if images is not None:
        _save_copy(image, images / f"{sha256}.webp")
    return replace(sample, image=image), replace(record, image_sha256=sha256)


def _shown(path: Path) -> str:
    """The path as a reader of the records can follow it: from the working directory where it lies below that."""
    resolved = path.resolve()
    return (resolved.relative_to(Path.cwd()) if resolved.is_relative_to(Path.cwd()) else resolved).as_posix()


def _save_copy(image: Image.Image, path: Path) -> None:
    if not path.exists():
        small = image.copy()
        small.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
        small.save(path, quality=85)


def shuffle_images(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """Give every question about an image the image of another sample, one with other content.

    The images are dealt out anew among the same questions, so each is used as often as before. Samples without an image
    stay as they are, and so do those whose image cannot be opened. With equal images lying side by side, a shift by the
    size of the largest such group meets no equal one.

    Args:
        samples: At least two different images among them, none of them in more than half of the samples.
        seed: Same samples and seed, same result.

    Returns:
        The samples in their order, with other images.

    Raises:
        DataError: One image belongs to so many samples that not all of them can get another.
    """
    owners: dict[str, list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        if sample.image is not None:
            try:
                owners[image_sha256(sample.image)].append(index)
            except DataError:
                continue
    count = sum(map(len, owners.values()))
    largest = max(map(len, owners.values()), default=0)
    if 2 * largest > count:
        raise DataError(
            f"the images cannot be shuffled: {largest} of {count} questions are about the same image, so not every one"
            " can get another. Evaluate on more images."
        )
    groups = list(owners.values())
    random.Random(seed).shuffle(groups)
    dealt = [index for group in groups for index in group]
    shuffled = list(samples)
    for place, index in enumerate(dealt):
        shuffled[index] = replace(samples[index], image=samples[dealt[(place + largest) % count]].image)
    return shuffled
