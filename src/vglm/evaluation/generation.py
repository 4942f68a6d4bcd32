"""Ask a model every question of a list of samples, greedily and in batches, and keep the answers as records.

predictions = generate_predictions(model, processor, splits.test, batch_size=16, max_new_tokens=64)
predictions[0].prediction == "这张图片的背景是沙滩。"

scores = score_choices(model, processor, splits.test, ["是", "否"])      # how likely it is to answer with each
max(scores[0], key=lambda score: score.log_likelihood).choice == "是"
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from tqdm import tqdm

from vglm.data.collator import Collator, Processor
from vglm.data.feature_cache import FeatureCache
from vglm.data.images import image_sha256, open_image
from vglm.data.sample import Sample, Turn
from vglm.data.windowing import META_KEY
from vglm.errors import ConfigError, DataError
from vglm.evaluation.predictions import (
    IMAGES_FOLDER,
    PREDICTIONS_FILE,
    Prediction,
    append_predictions,
    recover_predictions,
    unanswered,
    write_predictions,
)
from vglm.tuning.features import open_features

logger = logging.getLogger(__name__)

MAX_SIDE_PX = 224
"""Longest side of the copies of images that an evaluation folder keeps for its report."""

GREEDY = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_length": 0}
"""Said in every call: what is left unsaid is taken from a file of the checkpoint, which may differ between arms."""


class GenerativeModel(Protocol):
    """What is asked of a model; a VisualGLM and a `PeftModel` of one answer it."""

    @property
    def device(self) -> torch.device:
        """Where its inputs must lie."""

    def eval(self) -> Any:
        """Turn dropout off."""

    def generate(self, **inputs: Any) -> torch.Tensor:
        """Continue `input_ids` (B, L); returns (B, L + new tokens), int64."""

    def __call__(self, **inputs: Any) -> Any:
        """Give `logits` (B, `logits_to_keep`, V)."""


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
    feature_cache: bool | FeatureCache = False,
    records: Path | None = None,
) -> list[Prediction]:
    """Answer the last question of every sample.

    The answers do not depend on the batch size: prompts are padded on the left and every position is its own sample's.
    Samples of similar length share a batch. A sample whose image cannot be opened becomes a record with an error. No
    more images are in memory than a batch has.

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
            `vglm.tuning.features`; or a cache that is open, for a model that has let go of its vision parts.
        records: A file to which each batch's records are added. Samples that have a record there are not asked again,
            so a call that was killed goes on where it was; the model and the settings must be the same.

    Returns:
        One record per sample, in the order of `samples`.

    Raises:
        ConfigError: `batch_size` or `max_new_tokens` is not a positive integer.
        DataError: `records` holds other things than records.
    """
    for name, value in (("batch_size", batch_size), ("max_new_tokens", max_new_tokens)):
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name} must be a positive integer, got {value!r}.")
    model.eval()
    features = open_features(model, processor) if feature_cache is True else feature_cache or None
    collate = Collator(processor, with_answers=False, features=features)
    if images is not None:
        images.mkdir(parents=True, exist_ok=True)
    found = {} if records is None else {each.id: each for each in recover_predictions(records) if each.split == split}
    finished = {
        index: found[sample.id]
        for index, sample in enumerate(samples)
        if sample.id in found and _asks_the_same(found[sample.id], sample)
    }
    lengths = {index: _length(sample) for index, sample in enumerate(samples) if index not in finished}
    order = sorted(lengths, key=lengths.__getitem__, reverse=True)
    progress = tqdm(total=len(samples), initial=len(finished), desc=title or split, unit="answer", delay=2)
    with progress:
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            answered: dict[int, Prediction] = {}
            opened: dict[int, Sample] = {}
            for index in indices:
                sample, answered[index] = _open(samples[index], split, images)
                if sample is not None:
                    opened[index] = sample
            if opened:
                if collate.features is not None and not _fill(features, opened.values()):
                    collate.features = None
                batch = {name: tensor.to(model.device) for name, tensor in collate(list(opened.values())).items()}
                output = model.generate(**batch, **GREEDY, max_new_tokens=max_new_tokens)
                answers = output[:, batch["input_ids"].shape[1] :].tolist()
                for index, answer in zip(opened, answers, strict=True):
                    answered[index] = replace(answered[index], prediction=processor.decode(answer))
            if records is not None:
                append_predictions(answered.values(), records)
            finished |= answered
            progress.update(len(indices))
    return [finished[index] for index in range(len(samples))]


def answer_splits(
    model: GenerativeModel,
    processor: AnsweringProcessor,
    splits: Mapping[str, Sequence[Sample]],
    folder: Path,
    label: str,
    *,
    batch_size: int = 16,
    max_new_tokens: int = 64,
    feature_cache: bool = False,
) -> list[Prediction]:
    """Let a model answer an arm's questions into an evaluation folder, where it goes on if it was stopped there.

    Args:
        model: A VisualGLM, or a `PeftModel` of one.
        processor: The model's processor.
        splits: Split name -> samples.
        folder: The evaluation folder: gets `<label>/predictions.jsonl` and copies of the images.
        label: The arm's name.
        batch_size: See `generate_predictions`.
        max_new_tokens: Likewise.
        feature_cache: Likewise.

    Returns:
        The records in the order of the samples, as the file has them in the end.

    Raises:
        ConfigError: See `generate_predictions`.
        DataError: Likewise.
    """
    path = folder / label / PREDICTIONS_FILE
    answers = []
    for split, samples in splits.items():
        answers += generate_predictions(
            model,
            processor,
            samples,
            split=split,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            images=folder / IMAGES_FOLDER,
            title=f"{label}, {split}",
            records=path,
            feature_cache=feature_cache,
        )
    write_predictions(answers, path)
    return answers


def _asks_the_same(record: Prediction, sample: Sample) -> bool:
    """Whether a record found in a file is about this sample."""
    now = unanswered(sample, record.split)
    return replace(now, prediction=record.prediction, image_sha256=record.image_sha256, error=record.error) == record


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
    record = unanswered(sample, split)
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


def _save_copy(image: Image.Image, path: Path) -> None:
    if not path.exists():
        small = image.copy()
        small.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
        partial = path.with_suffix(".partial")
        small.save(partial, format="WEBP", quality=85)
        partial.replace(path)


# --- how likely given answers are -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChoiceScore:
    """How likely a model is to answer with exactly one text.

    Attributes:
        choice: The text.
        log_likelihood: Natural logarithm of the probability of its tokens and of the end after them.
        tokens: How many tokens these are, the end included.
    """

    choice: str
    log_likelihood: float
    tokens: int

    @property
    def per_token(self) -> float:
        """The mean over the tokens, for choices of different lengths."""
        return self.log_likelihood / self.tokens


@torch.inference_mode()
def score_choices(
    model: GenerativeModel,
    processor: AnsweringProcessor,
    samples: Sequence[Sample],
    choices: Sequence[str] | Sequence[Sequence[str]],
    *,
    batch_size: int = 16,
    title: str = "choices",
) -> list[list[ChoiceScore]]:
    """Score given answers to the last question of every sample, such as "yes" and "no", by their likelihood.

    Args:
        model: A VisualGLM, or a `PeftModel` of one.
        processor: The model's processor.
        samples: The questions; the answers they have play no role.
        choices: The answers to score: the same for all questions, or a list for each.
        batch_size: Choices per call of the model.
        title: What the progress bar shows.

    Returns:
        For each sample its choices' scores, in the order of the choices; none where its image cannot be opened.

    Raises:
        ConfigError: `batch_size` is not a positive integer.
        DataError: The lists of choices are not one for each sample, or one has no choices.
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(f"batch_size must be a positive integer, got {batch_size!r}.")
    lists: list[list[str]] = [list(each) for each in choices]
    if all(isinstance(each, str) for each in choices):
        lists = [[str(each) for each in choices]] * len(samples)
    if len(lists) != len(samples) or not all(map(len, lists)):
        raise DataError(
            f"choices must be texts, or a list of texts for each of {len(samples)} samples; found {len(lists)} lists,"
            f" {sum(not each for each in lists)} of them empty."
        )
    model.eval()
    collate = Collator(processor)
    scores: dict[tuple[int, int], ChoiceScore] = {}
    rows = sum(map(len, lists))
    with tqdm(total=rows, desc=title, unit="choice", delay=2) as progress:
        for batch in _choice_batches(samples, lists, batch_size):
            if batch:
                found = _log_likelihoods(model, collate([sample for _, sample in batch]))
                for (place, sample), (log_likelihood, tokens) in zip(batch, found, strict=True):
                    scores[place] = ChoiceScore(sample.answer, log_likelihood, tokens)
            progress.update(len(batch))
    return [
        [scores[row, column] for column in range(len(each)) if (row, column) in scores]
        for row, each in enumerate(lists)
    ]


def _choice_batches(
    samples: Sequence[Sample], lists: Sequence[Sequence[str]], batch_size: int
) -> Iterator[list[tuple[tuple[int, int], Sample]]]:
    """(sample, choice) -> the sample with that answer; an image is decoded once, and is gone with its batches."""
    batch: list[tuple[tuple[int, int], Sample]] = []
    for row in sorted(range(len(samples)), key=lambda index: _length(samples[index]), reverse=True):
        sample, record = _open(samples[row], "", None)
        if sample is None or record.error is not None:
            continue
        for column, choice in enumerate(lists[row]):
            batch.append(((row, column), replace(sample, turns=(*sample.turns[:-1], Turn(sample.question, choice)))))
            if len(batch) == batch_size:
                yield batch
                batch = []
    if batch:
        yield batch


def _log_likelihoods(model: GenerativeModel, batch: dict[str, torch.Tensor]) -> list[tuple[float, int]]:
    """Log-likelihood and number of the tokens behind `<sop>`, for each row; these stand at the end of the rows."""
    labels = batch.pop("labels")
    counts = (labels >= 0).sum(-1) - 1  # the first label is <sop>, which belongs to the prompt
    width = int(counts.max())
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    logits = model(**batch, logits_to_keep=width + 1).logits[:, :-1].float()
    targets = batch["input_ids"][:, -width:].to(logits.device)
    likelihoods = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0].double().cpu()
    is_counted = torch.arange(width) >= width - counts[:, None]
    sums = torch.where(is_counted, likelihoods, 0.0).sum(-1)
    return list(zip(sums.tolist(), counts.tolist(), strict=True))


# --- the same settings in both arms -----------------------------------------------------------------------------------


def precision_of(model: Any) -> dict[str, Any]:
    """How a model computes, which must be the same in two arms that are to be compared.

    Args:
        model: A VisualGLM, or a `PeftModel` of one.

    Returns:
        `dtype` and, where the weights are quantised, `quantization`.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    facts: dict[str, Any] = {"dtype": str(base.dtype).removeprefix("torch.")}
    if (quantization := getattr(base.config, "quantization_config", None)) is not None:
        values = quantization if isinstance(quantization, dict) else quantization.to_dict()
        facts["quantization"] = {name: str(value) for name, value in sorted(values.items())}
    return facts


def check_precision(model: Any, label: str, others: dict[str, Any]) -> dict[str, Any]:
    """Refuse to compare arms that differ in more than what they are compared for.

    Args:
        model: The arm's model.
        label: The arm's name.
        others: What this returned for the arms before; empty for the first.

    Returns:
        `precision_of` this model.

    Raises:
        ConfigError: It is not what the other arms have.
    """
    found = precision_of(model)
    if others and found != others:
        raise ConfigError(
            f"the arms compute differently: {label} in {found}, the arm before it in {others}, so a difference could"
            " come from rounding. Pass the same model.dtype and model.quantization for both."
        )
    return found
