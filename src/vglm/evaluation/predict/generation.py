"""Generate a model's answers to a list of samples, in batches, as records.

predictions = generate_predictions(model, processor, splits.test, Decoding(max_new_tokens=32))          greedily
predictions[0].prediction == "这张图片的背景是沙滩。"

predictions = generate_predictions(model, processor, splits.test, Decoding.of(temperature=0.7, repeats=5))
[record.draw for record in predictions[:5]] == [0, 1, 2, 3, 4]                                       five for each
"""

import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import get_ident
from typing import Any, Protocol

import torch
from PIL import Image
from tqdm import tqdm

from vglm.data.collator import Collator, Processor
from vglm.data.feature_cache import FeatureCache
from vglm.data.images import decoding_threads, image_sha256
from vglm.data.sample import Sample
from vglm.errors import ConfigError, DataError
from vglm.evaluation.predict.decoding import Decoding
from vglm.evaluation.predict.likelihoods import (
    ScoringModel,
    add_likelihoods,
    forget_likelihoods,
    prompt_length,
)
from vglm.evaluation.predictions import (
    CUT,
    ENDED,
    IMAGES_FOLDER,
    PREDICTIONS_FILE,
    Prediction,
    append_predictions,
    append_seconds,
    merge_parts,
    part_file,
    recover_parts,
    recover_predictions,
    unanswered,
)
from vglm.model.decoding import decode, rows_that_fit
from vglm.processes import Processes
from vglm.tuning.features import fill_features, open_features

MAX_SIDE_PX = 1024
"""Longest side of the copies of images that an evaluation folder keeps for its report, enough to read a radiograph."""

GREEDY = Decoding()
SETTINGS = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_length": 0}
"""Set in every call: unset options are taken from a file of the checkpoint, which may differ between arms."""


class GenerativeModel(ScoringModel, Protocol):
    """The model interface used here; VisualGLM and a `PeftModel` of it implement it."""

    def generate(self, **inputs: Any) -> torch.Tensor:
        """Continue `input_ids` (B, L); returns (B, L + new tokens), int64."""


class AnsweringProcessor(Processor, Protocol):
    """The processor interface used here; `VisualGlmProcessor` implements it.

    Attributes:
        tokenizer: Knows `eos_token_id`, which ends an answer.
    """

    tokenizer: Any

    def decode(self, token_ids: Any) -> str:
        """Turn one answer's ids into its text."""


def generate_predictions(
    model: GenerativeModel,
    processor: AnsweringProcessor,
    samples: Sequence[Sample],
    decoding: Decoding = GREEDY,
    *,
    split: str = "test",
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
        decoding: How to answer; its choices play no role.
        split: What the records call this list of samples.
        images: Folder for a copy of each image, `<sha256>.webp`; none are kept if not given.
        title: What the progress bar shows; the split if not given.
        feature_cache: Whether to keep, and reuse, what the model's vision parts make of each picture, see
            `vglm.tuning.features`; or a cache that is open, for a model that has let go of its vision parts.
        records: A file to which each batch's records are added. Samples that have a record there are skipped,
            so an interrupted call continues when repeated; the model and the settings must be the same.

    Returns:
        One record per sample and draw, in the order of `samples` and for each of them of the draws.

    Raises:
        DataError: `records` holds other things than records.
    """
    finished_records = (
        {} if records is None else {prediction.key: prediction for prediction in recover_predictions(records)}
    )
    rows = list(_rows({split: samples}, decoding, finished_records))
    finished = {row: record for row, record in rows if record is not None}
    batches = _answer(
        model,
        processor,
        {split: samples},
        [row for row, record in rows if record is None],
        decoding,
        images=images,
        title=title or split,
        feature_cache=feature_cache,
        finished=len(finished),
    )
    for batch in batches:
        if records is not None:
            append_predictions(batch.values(), records)
        finished |= batch
    return [finished[row] for row, _ in rows]


def answer_splits(
    model: GenerativeModel,
    processor: AnsweringProcessor,
    splits: Mapping[str, Sequence[Sample]],
    folder: Path,
    label: str,
    decoding: Decoding = GREEDY,
    *,
    feature_cache: bool = False,
    processes: Processes | None = None,
) -> list[Prediction]:
    """Generate an arm's answers into an evaluation folder, continuing where it was interrupted.

    The main process determines which answers are missing. Of that, ordered by length, every process
    takes an equal part, and keeps its records in a file of its own until all are done.

    Args:
        model: A VisualGLM, or a `PeftModel` of one.
        processor: The model's processor.
        splits: Split name -> samples.
        folder: The evaluation folder: gets `<label>/predictions.jsonl` and copies of the images.
        label: The arm's name.
        decoding: How to answer, and which choices to score by likelihood, see `add_likelihoods`.
        feature_cache: See `generate_predictions`.
        processes: Who shares the work; this one alone if not given.

    Returns:
        In the main process the records, in the order of the samples and draws, as the file has them in the end; in
        others none.

    Raises:
        DataError: See `generate_predictions`.
        WorkbenchError: Another process ended.
    """
    processes = processes or Processes.alone()
    path = folder / label / PREDICTIONS_FILE
    rows: list[_Row] = []
    count = 0
    if processes.is_main:
        for unfinished in (folder / IMAGES_FOLDER).glob(".*"):
            unfinished.unlink()
        answers_due = list(_rows(splits, decoding, recover_parts(path)))
        rows, count = [row for row, record in answers_due if record is None], len(answers_due)
    rows, count = processes.broadcast((rows, count))
    samples = processes.shard(list(dict.fromkeys((split, index) for split, index, _ in _by_length(splits, rows))))
    own = set(samples)  # all draws of a sample, so that its image is opened once
    mine = [row for row in rows if row[:2] in own]
    answers = _answer(
        model,
        processor,
        splits,
        mine,
        decoding,
        images=folder / IMAGES_FOLDER,
        title=label if processes.world_size == 1 else f"{label}, 1 of {processes.world_size} processes",
        feature_cache=feature_cache,
        finished=(count - len(rows)) // processes.world_size,
    )
    started = time.perf_counter()
    for batch in answers:
        append_predictions(batch.values(), part_file(path, processes.rank))
        append_seconds(len(batch), time.perf_counter() - started, path, processes.rank)
        started = time.perf_counter()
    processes.barrier()
    if not (processes.is_main or decoding.choices):
        return []
    records = [record for _, record in _rows(splits, decoding, recover_parts(path)) if record is not None]
    score = partial(
        add_likelihoods,
        model,
        processor,
        splits,
        choices=decoding.choices,
        batch_size=rows_at_once(model, decoding, splits),
        title=f"{label}, choices",
        feature_cache=feature_cache,
    )
    if decoding.choices is not None and processes.world_size > 1:
        to_score = set(processes.shard(list(dict.fromkeys((record.split, record.id) for record in records))))
        score(
            [record for record in records if (record.split, record.id) in to_score],
            path=part_file(path, processes.rank),
        )
        processes.barrier()
    if not processes.is_main:
        return []
    records = score(records, path=path)  # with several processes, all is kept by now
    merge_parts(records, path)
    forget_likelihoods(path)
    return records


def rows_at_once(model: Any, decoding: Decoding, splits: Mapping[str, Sequence[Sample]]) -> int:
    """Answers per call of the model: as requested, or as many as fit into the memory that is free.

    Args:
        model: A VisualGLM, or a `PeftModel` of one.
        decoding: How to answer.
        splits: Split name -> samples.
    """
    if decoding.batch_size is not None:
        return decoding.batch_size
    longest = max((prompt_length(sample) for samples in splits.values() for sample in samples), default=0)
    return rows_that_fit(model, longest + decoding.max_new_tokens)


_Row = tuple[str, int, int]
"""An answer to generate: (split, index of the sample in it, draw)."""


def _rows(
    splits: Mapping[str, Sequence[Sample]],
    decoding: Decoding,
    stored: Mapping[tuple[str, str, int], Prediction],
) -> Iterator[tuple[_Row, Prediction | None]]:
    """All requested answers, in the order of samples and draws, each with its record if it is stored."""
    for split, samples in splits.items():
        for index, sample in enumerate(samples):
            for draw in range(decoding.draws):
                record = stored.get((split, sample.id, draw))
                is_known = record is not None and _asks_the_same(record, sample)
                yield (split, index, draw), record if is_known else None


def _by_length(splits: Mapping[str, Sequence[Sample]], rows: Sequence[_Row]) -> list[_Row]:
    """The longest prompts first; the draws of a sample stay together."""
    lengths = {(split, index): prompt_length(splits[split][index]) for split, index, _ in rows}
    return sorted(rows, key=lambda row: lengths[row[:2]], reverse=True)


@torch.inference_mode()
def _answer(
    model: GenerativeModel,
    processor: AnsweringProcessor,
    splits: Mapping[str, Sequence[Sample]],
    rows: Sequence[_Row],
    decoding: Decoding,
    *,
    images: Path | None,
    title: str,
    feature_cache: bool | FeatureCache,
    finished: int,
) -> Iterator[dict[_Row, Prediction]]:
    """Answer rows, batch by batch; a batch's records are complete when they are given out, and nothing is kept."""
    model.eval()
    features = feature_cache if isinstance(feature_cache, FeatureCache) else None
    if feature_cache is True and rows:
        features = open_features(model, processor)
    collate = Collator(processor, with_answers=False, features=features)
    if images is not None:
        images.mkdir(parents=True, exist_ok=True)
    order, size = _by_length(splits, rows), rows_at_once(model, decoding, splits)
    with tqdm(total=finished + len(order), initial=finished, desc=title, unit="answer", delay=2) as progress:
        for start in range(0, len(order), size):
            batch_rows = order[start : start + size]
            opened = _open_all(splits, batch_rows, images, features)
            answered = {row: replace(opened[row[:2]][1], draw=row[2]) for row in batch_rows}
            opened_rows = [(row, sample) for row in batch_rows if (sample := opened[row[:2]][0]) is not None]
            if opened_rows:
                if features is not None and not fill_features(features, [sample for _, sample in opened_rows]):
                    features = collate.features = None
                batch = {
                    name: value.to(model.device)
                    for name, value in collate([sample for _, sample in opened_rows]).items()
                }
                settings: dict[str, Any] = {
                    **SETTINGS,
                    "custom_generate": decode,
                    "max_new_tokens": decoding.max_new_tokens,
                }
                if decoding.sampling is not None:
                    keys = [answered[row].key for row, _ in opened_rows]
                    settings["logits_processor"] = decoding.sampling.processors(keys)
                output = model.generate(**batch, **settings)
                answers = output[:, batch["input_ids"].shape[1] :].tolist()
                for (row, _), answer in zip(opened_rows, answers, strict=True):
                    end = processor.tokenizer.eos_token_id
                    finish, tokens = (ENDED, answer.index(end)) if end in answer else (CUT, len(answer))
                    text = processor.decode(answer)
                    answered[row] = replace(answered[row], prediction=text, finish=finish, tokens=tokens)
            yield answered
            progress.update(len(batch_rows))


def _asks_the_same(record: Prediction, sample: Sample) -> bool:
    """Whether a record found in a file is about this sample."""
    outcome = ("prediction", "image_sha256", "error", "draw", "likelihoods", "finish", "tokens")
    now = unanswered(sample, record.split)
    return replace(now, **{name: getattr(record, name) for name in outcome}) == record


def _open_all(
    splits: Mapping[str, Sequence[Sample]], rows: Sequence[_Row], images: Path | None, features: FeatureCache | None
) -> dict[tuple[str, int], tuple[Sample | None, Prediction]]:
    """Open the pictures of a batch, each once, on all cores."""
    different = {row[:2]: splits[row[0]][row[1]] for row in rows}
    with decoding_threads() as pool:
        opened = pool.map(lambda key: _open(different[key], key[0], images, features), different)
    return dict(zip(different, opened, strict=True))


def _open(
    sample: Sample, split: str, images: Path | None, features: FeatureCache | None
) -> tuple[Sample | None, Prediction]:
    """Decode the image once for the model, its hash and its copy; no sample but an error where that fails.

    Where its features are cached, its hash is known and its copy is there, it is not decoded.
    """
    record = unanswered(sample, split)
    if sample.image is None:
        return sample, record
    try:
        if features is None:
            image = sample.open_image()
            assert image is not None
            sha256 = image_sha256(image) if images is None else keep_image(image, images)
            return replace(sample, image=image, window=None), replace(record, image_sha256=sha256)
        return sample, replace(record, image_sha256=_hash_of_cached(sample, images, features))
    except DataError as error:
        return None, replace(record, error=str(error).removeprefix(f"{sample.id}: "))


def _hash_of_cached(sample: Sample, images: Path | None, features: FeatureCache) -> str:
    """The hash of a picture's content, of which a copy is kept; its features are there now, or prepared."""
    pixels = features.pixels_of(sample)
    if pixels is not None and (images is None or (images / f"{pixels}.webp").exists()):
        return pixels
    opened = features.open(sample)
    sha256 = opened.pixels or image_sha256(opened.picture)
    features.note_pixels(opened, sha256)
    if images is not None:
        save_copy(opened.picture, images / f"{sha256}.webp")
    return sha256


def keep_image(image: Image.Image, folder: Path) -> str:
    """Keep a copy of an image for the report, no side longer than `MAX_SIDE_PX`.

    Args:
        image: As the model sees it.
        folder: Gets `<sha256>.webp`.

    Returns:
        The hash of the image's content.
    """
    sha256 = image_sha256(image)
    save_copy(image, folder / f"{sha256}.webp")
    return sha256


def save_copy(image: Image.Image, path: Path) -> None:
    """Keep a copy of a picture under this name, unless it is there."""
    if not path.exists():
        small = image.copy()
        small.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
        process = f"{platform.node()}-{os.getpid()}-{get_ident()}"  # others may be saving the same one
        partial = path.with_name(f".{path.stem}.{process}")
        small.save(partial, format="WEBP", quality=85)
        partial.replace(path)


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
    precision_now = precision_of(model)
    if others and precision_now != others:
        raise ConfigError(
            f"the arms compute differently: {label} in {precision_now}, the arm before it in {others}, so a difference"
            " could come from rounding. Pass the same model.dtype and model.quantization for both."
        )
    return precision_now
