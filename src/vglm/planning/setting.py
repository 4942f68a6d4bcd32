"""The inputs of a plan: a recipe's config, the sizes of its model and the texts of its data, without weights.

cfg = compose_plan(["recipes=xray/qlora", "dataset.path=data/openi"], for_gpu=True)
setting = read_setting(cfg, for_gpu=True)
setting.batch(8)                 the largest batch of training, as the collator makes it
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor
from transformers import TrainingArguments

from vglm.config import build, check_config, compose, repo_root
from vglm.config.resolvers import register_resolvers
from vglm.data.collator import Collator
from vglm.data.sample import Sample
from vglm.errors import ConfigError
from vglm.model.checkpoint import read_json
from vglm.model.configuration import VisualGlmConfig
from vglm.model.conversion import read_config
from vglm.model.image_processing import VisualGlmImageProcessor
from vglm.model.loading import detect_layout
from vglm.model.modeling import IGNORE_INDEX
from vglm.model.processing import VisualGlmProcessor
from vglm.model.tokenization import VisualGlmTokenizer
from vglm.text.pieces import VOCAB_FILE
from vglm.tuning.features import features_shape
from vglm.tuning.methods import Method, check_method

_RELEASED = "THUDM/visualglm-6b"
_MACHINE_FIELDS = ("fp16", "bf16", "fsdp", "fsdp_config", "deepspeed")
"""Fields of the trainer that ask for what this machine may not have; a plan may be for another."""
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_MEASURED_SAMPLES = 512
"""Samples whose tokens are counted; of a larger set they are taken at equal distances, and the longest besides."""
_SCANNED_SAMPLES = 100_000
"""Samples of a set up to which the longest are looked for by their characters."""
_LONGEST = 64
SPARE_TOKENS = 4
"""As `vglm.evaluation.checkpoint_selection` lets an answer be longer than the longest reference."""


@dataclass(frozen=True)
class Assumed:
    """Rows of data that is not at hand.

    Attributes:
        samples: How many there are.
        tokens: Of a row, prompt with image slots and answer.
        answer_tokens: Those of them that are learned.
    """

    samples: int = 10_000
    tokens: int = 512
    answer_tokens: int = 256


@dataclass(frozen=True)
class Setting:
    """What a recipe asks for.

    Attributes:
        recipe: Its name.
        config: The architecture.
        sizes_from: Where its sizes were read.
        dtype: Of what is not quantised.
        quantization: As in `load_pretrained`.
        quantization_parts: Likewise.
        method: What trains.
        arguments: The trainer's, without those of `_MACHINE_FIELDS`.
        autocast: The type that the trainer's fp16 or bf16 ask for.
        fsdp: What the trainer's field of that name says.
        processor: Counts tokens.
        samples: What is learned from; `Assumed` where it is not at hand.
        lengths_from: Where the lengths come from.
        largest_file: Bytes of the largest file of weights on disk; 0 where there is none.
        feature_cache: As in `vglm.train`.
        is_from_checkpoint: Whether the base lies on disk as it is trained from, so that its vision parts may leave.
        packing: As in `vglm.train`.
        max_length: Likewise.
        answers: Likewise.
        scored: Samples that are scored at each checkpoint; 0 where none are scored.
    """

    recipe: str
    config: VisualGlmConfig
    sizes_from: str
    dtype: torch.dtype
    quantization: str | None
    quantization_parts: list[str] | None
    method: Method
    arguments: TrainingArguments
    autocast: torch.dtype | None
    fsdp: Any
    processor: VisualGlmProcessor
    samples: Sequence[Sample] | Assumed
    lengths_from: str
    largest_file: int
    feature_cache: bool
    is_from_checkpoint: bool
    packing: int | None
    max_length: int
    answers: str
    scored: int

    @cached_property
    def rows(self) -> list["Row"]:
        """The measured rows, the longest first."""
        if isinstance(self.samples, Assumed):
            return [Row(None, self.samples.tokens, self.samples.answer_tokens)]
        rows = [Row(learned, *self._measure(learned)) for sample in self._chosen for learned in self._learned(sample)]
        return sorted(rows, key=lambda row: -row.tokens)

    @cached_property
    def _chosen(self) -> list[Sample]:
        """The samples that are measured."""
        assert not isinstance(self.samples, Assumed)
        if not len(self.samples):
            raise ConfigError("dataset: there is no sample to train on.")
        return _choose(self.samples)

    @cached_property
    def sequences(self) -> int:
        """Answers to learn; of a large set estimated from the measured samples."""
        if isinstance(self.samples, Assumed):
            return self.samples.samples
        return round(len(self.samples) * len(self.rows) / len(self._chosen))

    @cached_property
    def pictures(self) -> int:
        """Different pictures at most."""
        if isinstance(self.samples, Assumed):
            return self.samples.samples
        pictures = [sample.image for sample in self._chosen if sample.image is not None]
        different = {str(picture) if isinstance(picture, str | Path) else id(picture) for picture in pictures}
        return round(len(self.samples) * len(different) / len(self._chosen))

    def tokens_of_a_step(self, batch_size: int) -> float:
        """Tokens of an average batch, padding included: rows are as long as the longest of it."""
        lengths = sorted(row.tokens for row in self.rows)
        if self.packing is not None:
            mean = sum(lengths) / len(lengths)
            return max(mean * batch_size, lengths[-1])
        count = len(lengths)
        longest: float = (
            sum(length * ((index + 1) ** batch_size - index**batch_size) for index, length in enumerate(lengths))
            / count**batch_size
        )
        return longest * batch_size

    def batch(self, batch_size: int, *, with_answers: bool = True, is_cached: bool) -> dict[str, Tensor]:
        """The batch of the longest rows.

        Args:
            batch_size: Rows.
            with_answers: Whether it is one to learn from, or one of questions.
            is_cached: Whether pictures come as features.
        """
        rows = [self.rows[index % len(self.rows)] for index in range(batch_size)]
        if isinstance(self.samples, Assumed):
            made = _assumed_batch(self.config, self.samples, batch_size, with_answers)
        else:
            collate = Collator(
                self.processor,
                with_answers=with_answers,
                features=_NoFeatures(self.config, self.dtype),
                max_length=self.max_length if with_answers else None,
                packing=self.packing if with_answers else None,
            )
            made = collate([row.sample for row in rows if row.sample is not None])
        features = made.pop("image_features", None)
        if features is not None and is_cached:
            made["image_features"] = features
        elif features is not None:
            side = self.config.vision_config.image_size
            made["pixel_values"] = torch.zeros(len(features), 3, side, side)
        return made

    @property
    def longest_answer(self) -> int:
        """Tokens of the longest answer."""
        return max(row.answer_tokens for row in self.rows)

    def _learned(self, sample: Sample) -> list[Sample]:
        ends = [len(sample.turns)] if self.answers == "last" else range(1, len(sample.turns) + 1)
        return [replace(sample, turns=sample.turns[:end]) for end in ends]

    def _measure(self, sample: Sample) -> tuple[int, int]:
        collate = Collator(self.processor, features=_NoFeatures(self.config, self.dtype), max_length=self.max_length)
        try:
            batch = collate([sample])
        except ValueError as error:
            raise ConfigError(f"{sample.id}: {str(error).removeprefix('processor: ')}") from error
        return batch["input_ids"].numel(), int((batch["labels"] != IGNORE_INDEX).sum())


@dataclass(frozen=True)
class Row:
    """One sequence to learn: its sample (None where it is assumed), its tokens, and those of them that are learned."""

    sample: Sample | None
    tokens: int
    answer_tokens: int


@dataclass
class _NoFeatures:
    """Replaces the features of pictures, of which only the shape matters."""

    config: VisualGlmConfig
    dtype: torch.dtype
    _one: Tensor | None = field(default=None, init=False)

    def __getitem__(self, sample: Sample) -> Tensor:
        if self._one is None:
            self._one = torch.zeros(features_shape(self.config), dtype=self.dtype)
        return self._one


def _choose(samples: Sequence[Sample]) -> list[Sample]:
    """Some samples of each part of a set, and the longest where that is cheap to find."""
    count = len(samples)
    if count <= _MEASURED_SAMPLES:
        return [samples[index] for index in range(count)]
    chosen = {index * count // _MEASURED_SAMPLES for index in range(_MEASURED_SAMPLES)}
    if count <= _SCANNED_SAMPLES and isinstance(samples, list):
        sizes = [sum(len(turn.question) + len(turn.answer) for turn in sample.turns) for sample in samples]
        chosen |= set(sorted(range(count), key=lambda index: -sizes[index])[:_LONGEST])
    return [samples[index] for index in sorted(chosen)]


def _assumed_batch(config: VisualGlmConfig, assumed: Assumed, batch_size: int, with_answers: bool) -> dict[str, Tensor]:
    """Rows of the assumed length: image slots, a prompt, `[gMASK] <sop>`, an answer."""
    text = config.text_config
    prompt = assumed.tokens - assumed.answer_tokens
    ids = torch.full((batch_size, assumed.tokens if with_answers else prompt), _some_token(config))
    ids[:, : config.num_image_tokens] = config.image_token_id
    ids[:, prompt - 2], ids[:, prompt - 1] = text.gmask_token_id, text.bos_token_id
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if with_answers:
        labels = ids.clone()
        labels[:, : prompt - 1] = IGNORE_INDEX
        batch |= {"labels": labels, "layout_ids": ids}
    dtype = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float16
    features = torch.zeros(batch_size, *features_shape(config), dtype=dtype)
    return {**batch, "image_features": features}


def _some_token(config: VisualGlmConfig) -> int:
    text = config.text_config
    special = {text.bos_token_id, text.gmask_token_id, text.mask_token_id, text.pad_token_id, config.image_token_id}
    return next(index for index in range(text.vocab_size) if index not in special)


# --- reading ---------------------------------------------------------------------------------------------------------


def compose_plan(overrides: Sequence[str], *, for_gpu: bool) -> DictConfig:
    """The config that `python train.py <overrides>` would run on a machine with a GPU, or on one without.

    Args:
        overrides: As on the command line.
        for_gpu: Whether there is a GPU where it is to run; here there may be none.
    """
    cfg = compose("train", overrides)
    OmegaConf.register_new_resolver("cuda_available", lambda: for_gpu, replace=True)
    try:
        for name in _MACHINE_FIELDS:  # the values, while the answer is that of the other machine
            if name in cfg.trainer:
                cfg.trainer[name] = OmegaConf.select(cfg, f"trainer.{name}")
        cfg.trainer.dataloader_pin_memory = False
    finally:
        register_resolvers()
    return cfg


def read_setting(
    cfg: DictConfig, *, for_gpu: bool, assumed: Assumed | None = None, like: Setting | None = None
) -> Setting:
    """Read what a config asks for.

    Args:
        cfg: From `compose_plan`.
        for_gpu: See there.
        assumed: Rows to plan with in place of the data; where there is none and they are not given, `Assumed()`.
        like: A setting with the same data, which is not read again.

    Raises:
        ConfigError: The config has mistakes, or asks for what cannot be.
        DataError: The data cannot be read.
    """
    cfg = cfg.copy()
    machine_fields = _take_machine_fields(cfg, for_gpu)
    is_at_hand = assumed is None and not OmegaConf.missing_keys(cfg.dataset)
    if not is_at_hand:
        cfg.dataset = OmegaConf.create({"_target_": "vglm.data.loading.load_dataset", "path": "assumed"})
        assumed = assumed or Assumed()
    check_config(cfg)
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    config, source, processor, largest_file = _read_model(values["model"])
    dtype = _dtype_of(values["model"], config, for_gpu)
    method, arguments = build(values["method"]), build(values["trainer"])
    autocast = torch.float16 if machine_fields.get("fp16") else torch.bfloat16 if machine_fields.get("bf16") else None
    quantization = values["model"].get("quantization")
    check_method(method, arguments, values["learning_rates"], quantization, str(dtype).removeprefix("torch."))
    samples: Sequence[Sample] | Assumed
    if like is not None:
        samples, lengths_from = like.samples, like.lengths_from
    elif is_at_hand:
        samples, lengths_from = build(values["dataset"]).train, str(values["dataset"].get("path") or "drawn on demand")
    else:
        assert assumed is not None
        samples, lengths_from = assumed, "assumed: no data at hand"
        if assumed.tokens - assumed.answer_tokens < config.num_image_tokens + 2 or assumed.answer_tokens < 1:
            raise ConfigError(
                f"--tokens {assumed.tokens} --answer-tokens {assumed.answer_tokens}: a row needs"
                f" {config.num_image_tokens + 2} tokens for the picture and at least one for the answer."
            )
    selection = values["checkpoint_selection"]
    scored = 0
    if selection["score_checkpoints"] and arguments.save_strategy != "no":
        scored = selection["score_samples"] or (64 if selection["forgetting_budget"] is None else 400)
    setting = Setting(
        recipe=values["recipe"],
        config=config,
        sizes_from=source,
        dtype=dtype,
        quantization=quantization,
        quantization_parts=values["model"].get("quantization_parts"),
        method=method,
        arguments=arguments,
        autocast=autocast,
        fsdp=machine_fields.get("fsdp"),
        processor=processor,
        samples=samples,
        lengths_from=lengths_from,
        largest_file=largest_file,
        feature_cache=values["feature_cache"],
        is_from_checkpoint=values["model"]["_target_"].endswith("load_pretrained"),
        packing=values["packing"],
        max_length=values["max_length"],
        answers=values["answers"],
        scored=scored,
    )
    if like is not None:
        vars(setting).update(rows=like.rows, sequences=like.sequences, pictures=like.pictures)  # as measured
    return setting


def _take_machine_fields(cfg: DictConfig, for_gpu: bool) -> dict[str, Any]:
    """Take out settings that only the training machine can check; half precision stays where this is one."""
    fields = {name: cfg.trainer[name] for name in _MACHINE_FIELDS if name in cfg.trainer}
    with open_dict(cfg):
        for name in fields:
            if for_gpu or name not in ("fp16", "bf16"):
                del cfg.trainer[name]
    for name in ("fp16", "bf16"):
        if not isinstance(fields.get(name) or False, bool):
            raise ConfigError(f"trainer.{name}: expected true or false, got {fields[name]!r}.")
    if fields.get("fp16") and fields.get("bf16"):
        raise ConfigError("trainer.fp16 and trainer.bf16 are both true; choose one.")
    if fields.get("deepspeed"):
        raise ConfigError("trainer.deepspeed: a plan does not know how DeepSpeed divides a model. Plan without it.")
    return fields


def _read_model(model: Mapping[str, Any]) -> tuple[VisualGlmConfig, str, VisualGlmProcessor, int]:
    """The architecture, where its sizes come from, what counts tokens, and the bytes of the largest file of weights."""
    if "path_or_id" not in model:  # made from nothing
        parts: dict[str, Any] = {name: dict(model[name]) for name in ("text_config", "vision_config", "qformer_config")}
        tokenizer = VisualGlmTokenizer.from_pretrained(model["tokenizer"])
        parts["text_config"].setdefault("vocab_size", len(tokenizer))
        config = VisualGlmConfig(**parts, num_image_tokens=model["num_image_tokens"])
        return _with_ids(config, tokenizer), "the recipe", _processor(config, tokenizer), 0
    folder = _folder(str(model["path_or_id"]))
    if folder is None:
        tokenizer = VisualGlmTokenizer.from_pretrained(repo_root() / "data" / "visualglm_tiny")
        config = _with_ids(VisualGlmConfig(), tokenizer)
        return config, "the released model; it is not on this machine", _processor(config, tokenizer), 0
    layout = detect_layout(folder)
    tokens = Path(model.get("tokenizer") or folder)
    is_whole = (tokens / VOCAB_FILE).is_file()
    tokenizer = VisualGlmTokenizer.from_pretrained(tokens if is_whole else repo_root() / "data" / "visualglm_tiny")
    if layout is None:
        config = VisualGlmConfig.from_pretrained(folder)
    else:
        raw = read_json(folder / layout.config_file)
        config = read_config(raw, layout, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    files = [path.stat().st_size for path in folder.rglob("*") if path.suffix in (".safetensors", ".bin", ".pt")]
    return _with_ids(config, tokenizer), str(folder), _processor(config, tokenizer), max(files, default=0)


def _folder(path_or_id: str) -> Path | None:
    """The folder of a model; None for the released one if it was not downloaded."""
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(path_or_id, local_files_only=True))
    except (OSError, ValueError):
        pass
    if path_or_id.lower() == _RELEASED.lower():
        return None
    raise ConfigError(
        f"model.path_or_id={path_or_id[:200]}: there is no such folder. For the sizes of the released model without its"
        f" weights: model=visualglm_6b model.path_or_id={_RELEASED}"
    )


def _with_ids(config: VisualGlmConfig, tokenizer: VisualGlmTokenizer) -> VisualGlmConfig:
    """Have a config know the special ids of the tokenizer that counts."""
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "mask_token_id", "gmask_token_id"):
        setattr(config.text_config, name, getattr(tokenizer, name))
    config.image_token_id = tokenizer.unk_token_id
    return config


def _processor(config: VisualGlmConfig, tokenizer: VisualGlmTokenizer) -> VisualGlmProcessor:
    side = config.vision_config.image_size
    images = VisualGlmImageProcessor(size={"height": side, "width": side})
    return VisualGlmProcessor(images, tokenizer, num_image_tokens=config.num_image_tokens)


def _dtype_of(model: Mapping[str, Any], config: VisualGlmConfig, for_gpu: bool) -> torch.dtype:
    """As `load_pretrained` resolves it on such a machine."""
    name = model.get("dtype")
    own = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float16
    if name is None:
        return own if for_gpu else torch.float32
    if name == "auto":
        return own
    if name not in _DTYPES:
        raise ConfigError(f"model.dtype must be one of {', '.join(_DTYPES)}, auto or null, got {name!r}.")
    return _DTYPES[name]
