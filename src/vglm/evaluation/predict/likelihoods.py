"""How likely a model is to give each of some known answers, such as yes and no, or the options of a question.

scores = score_choices(model, processor, splits.test, ["是", "否"])
max(scores[0], key=lambda score: score.log_likelihood).choice == "是"

records = add_likelihoods(model, processor, {"test": splits.test}, records, "sample")    each question's own choices
records[0].likelihoods == {"是的。": -0.11, "不是。": -2.3}

A sample's own choices are `meta["choices"]`: a list of texts, exactly as the model would answer them.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm

from vglm.data.collator import Collator, Processor, open_image_of
from vglm.data.feature_cache import FeatureCache
from vglm.data.sample import Sample, Turn
from vglm.errors import ConfigError, DataError, brief
from vglm.evaluation.predictions import Choices, Prediction
from vglm.files import append_json_lines, whole_lines
from vglm.tuning.features import fill_features, open_features

UNSCORED = ("retention",)
"""Splits whose questions are not scored by likelihood."""


class ScoringModel(Protocol):
    """The model interface used here; VisualGLM and a `PeftModel` of it implement it."""

    @property
    def device(self) -> torch.device:
        """Where its inputs must lie."""

    def eval(self) -> Any:
        """Turn dropout off."""

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """Turn pictures (N, 3, H, W) into what the processor takes as `image_features`."""

    def __call__(self, **inputs: Any) -> Any:
        """Give `logits` (B, `logits_to_keep`, V)."""


def check_choices(choices: Choices, splits: Mapping[str, Sequence[Sample]]) -> None:
    """Refuse choices that cannot be scored, before any weights load.

    Args:
        choices: As configured.
        splits: Split name -> samples; each is looked at where it is to have choices of its own.

    Raises:
        ConfigError: They are neither two different texts or more, nor `sample`, nor None.
        DataError: They are to be the samples' own, and no sample has any, or some are not two different texts or more.
    """
    if choices is None:
        return
    if choices != "sample":
        if not _are_choices(choices):
            raise ConfigError(
                "choices must be null, sample (each question's own) or a list of two different texts or more, got"
                f' {choices!r}. On a command line write choices=\'["是","否"]\'; in YAML put yes and no into quotes.'
            )
        return
    problems, count = [], 0
    for split, samples in splits.items():
        for sample in samples if split not in UNSCORED else ():
            own = sample.meta.get("choices")
            count += own is not None
            if own is not None and not _are_choices(own):
                problems.append(f"{split} {sample.id!r}: {own!r}")
    if problems:
        raise DataError(
            f"the choices of {len(problems)} samples are not lists of two different texts or more (first:"
            f" {'; '.join(problems[:3])}). Correct them, or evaluate with choices=null."
        )
    if not count:
        raise DataError(
            f"choices=sample, but no sample of {', '.join(splits)} has choices. Name them in the data (a list of texts"
            " under 'choices'), or for all questions with choices=[...]."
        )


def _are_choices(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(isinstance(item, str) and item.strip() for item in value)
        and len(set(value)) == len(value) >= 2
    )


def _choices_of(sample: Sample, choices: Choices) -> list[str]:
    if choices == "sample":
        return list(sample.meta.get("choices") or ())
    return list(choices or ())


# --- records ----------------------------------------------------------------------------------------------------------


def add_likelihoods(
    model: ScoringModel,
    processor: Processor,
    splits: Mapping[str, Sequence[Sample]],
    records: Sequence[Prediction],
    choices: Choices,
    *,
    path: Path | None = None,
    batch_size: int = 16,
    title: str = "choices",
    feature_cache: bool = False,
) -> list[Prediction]:
    """Give records the likelihoods of their questions' choices.

    Args:
        model: A VisualGLM, or a `PeftModel` of one.
        processor: The model's processor.
        splits: Split name -> the questions. Those without a record are left out, so each process may score its part.
        records: Of any of these splits. Several draws of an answer to a question share its likelihoods; what cannot be
            answered gets none.
        choices: See `Choices`; with None, and for samples without choices of their own, the records stay as they are.
        path: Of the records, as `predictions.jsonl`. What is scored is kept beside it, in `likelihoods.jsonl`, until
            `forget_likelihoods`, so that an interrupted call continues when repeated; the model and the settings must
            be the same. With `predictions.1.jsonl`, it is kept in `likelihoods.1.jsonl`, and what other processes keep
            there is known too.
        batch_size: Choices per call of the model.
        title: What the progress bar shows.
        feature_cache: See `generate_predictions`.

    Returns:
        The records in their order.

    Raises:
        DataError: A kept file is damaged.
    """
    if choices is None:
        return list(records)
    scorable = {
        (record.split, record.id) for record in records if record.error is None and record.split not in UNSCORED
    }
    lists = {
        (split, sample.id): _choices_of(sample, choices)
        for split, samples in splits.items()
        for sample in samples
        if (split, sample.id) in scorable
    }
    file = None if path is None else _kept_file(path)
    stored: dict[_Key, Mapping[str, float]] = {} if path is None else _recover(path)
    stored |= {(record.split, record.id): record.likelihoods for record in records if record.likelihoods}
    scored = {
        key: {choice: value[choice] for choice in lists[key]}
        for key, value in stored.items()
        if set(value) == set(lists.get(key, ()))
    }
    missing = [  # indices, not samples: those that are made on demand hold their pictures
        (split, index, sample.id)
        for split, samples in splits.items()
        for index, sample in enumerate(samples)
        if lists.get((split, sample.id)) and (split, sample.id) not in scored
    ]

    def sample_at(index: int) -> Sample:
        return splits[missing[index][0]][missing[index][1]]

    rows = [lists[split, name] for split, _, name in missing]
    for index, scores in _score(model, processor, sample_at, rows, batch_size, title, feature_cache):
        split, _, name = missing[index]
        scored[split, name] = {score.choice: score.log_likelihood for score in scores}
        if file is not None:
            line = {"split": split, "id": name, "likelihoods": scored[split, name]}
            append_json_lines(file, [line])
    return [replace(record, likelihoods=scored.get((record.split, record.id), {})) for record in records]


def forget_likelihoods(path: Path) -> None:
    """Remove what is kept beside a file of records, once they hold it."""
    for file in _kept_files(path):
        file.unlink()


_Key = tuple[str, str]
"""(split, id) of a question."""


def _kept_file(path: Path) -> Path:
    return path.with_name(path.name.replace("predictions", "likelihoods", 1))


def _kept_files(path: Path) -> list[Path]:
    return sorted(path.parent.glob("likelihoods*.jsonl"))


def _recover(path: Path) -> dict[_Key, Mapping[str, float]]:
    """The scores of interrupted calls; an incomplete line is ignored, and removed from this process's file."""
    likelihoods: dict[_Key, Mapping[str, float]] = {}
    for file in _kept_files(path):
        try:
            for row in map(json.loads, whole_lines(file, repair=file == _kept_file(path))):
                likelihoods[str(row["split"]), str(row["id"])] = dict(row["likelihoods"])
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{file} is damaged ({brief(error)}). Remove it, and the command scores these anew."
            ) from error
    return likelihoods


# --- scores -----------------------------------------------------------------------------------------------------------


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


def score_choices(
    model: ScoringModel,
    processor: Processor,
    samples: Sequence[Sample],
    choices: Sequence[str] | Sequence[Sequence[str]],
    *,
    batch_size: int = 16,
    title: str = "choices",
    feature_cache: bool = False,
) -> list[list[ChoiceScore]]:
    """Score given answers to the last question of every sample, such as "yes" and "no", by their likelihood.

    Each picture is encoded once, whatever the number of choices.

    Args:
        model: A VisualGLM, or a `PeftModel` of one.
        processor: The model's processor.
        samples: The questions; the answers they have play no role.
        choices: The answers to score: the same for all questions, or a list for each.
        batch_size: Choices per call of the model.
        title: What the progress bar shows.
        feature_cache: See `generate_predictions`.

    Returns:
        For each sample its choices' scores, in the order of the choices; none where its image cannot be opened.

    Raises:
        ConfigError: `batch_size` is not a positive integer.
        DataError: The lists of choices are not one for each sample, or one has no choices.
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(f"batch_size must be a positive integer, got {batch_size!r}.")
    lists: list[list[str]] = [list(choice) for choice in choices]
    if all(isinstance(choice, str) for choice in choices):
        lists = [[str(choice) for choice in choices]] * len(samples)
    if len(lists) != len(samples) or not all(map(len, lists)):
        raise DataError(
            f"choices must be texts, or a list of texts for each of {len(samples)} samples; found {len(lists)} lists,"
            f" {sum(not row for row in lists)} of them empty."
        )
    scores = dict(_score(model, processor, samples.__getitem__, lists, batch_size, title, feature_cache))
    return [scores.get(index, []) for index in range(len(samples))]


def _score(
    model: ScoringModel,
    processor: Processor,
    sample_at: Callable[[int], Sample],
    lists: Sequence[Sequence[str]],
    batch_size: int,
    title: str,
    feature_cache: bool,
) -> Iterator[tuple[int, list[ChoiceScore]]]:
    """(index of a sample, its choices' scores) as soon as these are complete; not where its image cannot be opened."""
    model.eval()
    encoded = _Encoded(model, processor, open_features(model, processor) if feature_cache and lists else None)
    collate = Collator(processor, features=encoded)
    waiting: dict[int, list[ChoiceScore]] = {}
    with tqdm(total=sum(map(len, lists)), desc=title, unit="choice", delay=2) as progress:
        for batch in _batches(sample_at, lists, batch_size, encoded):
            with torch.inference_mode():
                encoded.fill([sample for _, sample in batch])
                likelihoods = _log_likelihoods(model, collate([sample for _, sample in batch]))
            for (index, sample), (log_likelihood, tokens) in zip(batch, likelihoods, strict=True):
                scores = waiting.setdefault(index, [])
                scores.append(ChoiceScore(sample.answer, log_likelihood, tokens))
                if len(scores) == len(lists[index]):
                    yield index, waiting.pop(index)
            progress.update(len(batch))


def _batches(
    sample_at: Callable[[int], Sample], lists: Sequence[Sequence[str]], batch_size: int, encoded: "_Encoded"
) -> Iterator[list[tuple[int, Sample]]]:
    """(index, the sample with one choice as its answer), similar lengths together.

    An image is decoded once, and is gone with its batches; one whose features are cached is not decoded at all.
    """
    batch: list[tuple[int, Sample]] = []
    lengths = [prompt_length(sample_at(index)) + max(map(len, choices)) for index, choices in enumerate(lists)]
    for index in sorted(range(len(lists)), key=lengths.__getitem__, reverse=True):
        sample = sample_at(index)
        try:
            if encoded.cache is None or sample.image is None:  # there is none either once it could not be written
                sample = replace(sample, image=open_image_of(sample), window=None)
            elif sample not in encoded.cache:
                encoded.cache.open(sample)
        except DataError:
            continue
        for choice in lists[index]:
            batch.append((index, replace(sample, turns=(*sample.turns[:-1], Turn(sample.question, choice)))))
            if len(batch) == batch_size:
                yield batch
                batch = []
    if batch:
        yield batch


def prompt_length(sample: Sample) -> int:
    """A measure of the prompt's length: characters, and an image's slots as one each."""
    turns = sum(len(turn.question) + len(turn.answer) for turn in sample.turns[:-1])
    return turns + len(sample.question) + (0 if sample.image is None else 64)


class _Encoded:
    """The features of the pictures of one batch, for the collator: each picture is encoded once for all its rows."""

    def __init__(self, model: ScoringModel, processor: Any, cache: FeatureCache | None) -> None:
        self.model, self.processor, self.cache = model, processor, cache
        self.pictures: dict[Any, tuple[Any, Tensor]] = {}  # holds the pictures, or their ids could come again

    def __getitem__(self, sample: Sample) -> Tensor:
        return self.pictures[_shown(sample)][1]

    def fill(self, samples: Sequence[Sample]) -> None:
        """Encode the pictures of a batch, and forget those of the batches before it."""
        by_image = {_shown(sample): sample for sample in samples if sample.image is not None}
        self.pictures = {key: picture for key, picture in self.pictures.items() if key in by_image}
        new = [sample for key, sample in by_image.items() if key not in self.pictures]
        if new:
            for sample, features in zip(new, self._encode(new), strict=True):
                self.pictures[_shown(sample)] = sample.image, features

    def _encode(self, samples: Sequence[Sample]) -> Sequence[Tensor]:
        if self.cache is not None and fill_features(self.cache, samples):
            return [self.cache[sample] for sample in samples]
        self.cache = None
        pictures = [open_image_of(sample) for sample in samples]
        pixels = self.processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
        return list(self.model.get_image_features(pixels.to(self.model.device)))


def _shown(sample: Sample) -> Any:
    """By what a picture is known while it is held."""
    return id(sample.image), sample.window


def _log_likelihoods(model: ScoringModel, batch: dict[str, Tensor]) -> list[tuple[float, int]]:
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
