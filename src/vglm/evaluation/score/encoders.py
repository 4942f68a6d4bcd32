"""Scores of texts by BERT models that the user provides: BERTScore, and F1 of findings by CheXbert.

    BertScore(Path("bert-base-chinese"), 8).f1([("心影增大", "心影不大")])                       [0.91]
    Chexbert(Path("chexbert.pth"), Path("bert-base-uncased")).label(["Small effusion. No pneumothorax."])
        [{"Pleural Effusion": "positive", "Pneumothorax": "negative"}]

Neither needs another package. Weights are read from the folders given and never fetched.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import numpy as np
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertConfig, BertModel, BertTokenizer

from vglm.errors import CheckpointError, ConfigError, brief
from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.metrics.base import Rows
from vglm.evaluation.score.metrics.findings import FINDINGS, count_labels
from vglm.model.checkpoint import WeightFiles, read_tensors
from vglm.model.limits import check_count, check_files
from vglm.text.finding_words import NO_FINDING, SUPPORT_DEVICES
from vglm.text.labeller import Certainty

ARCHITECTURES = ("bert", "roberta", "xlm-roberta")
"""Those whose layers' states are what the package bert-score compares."""

LAYERS = {
    "bert-base-uncased": 9,
    "bert-large-uncased": 18,
    "bert-base-chinese": 8,
    "bert-base-multilingual-cased": 9,
    "roberta-base": 10,
    "roberta-large": 17,
    "xlm-roberta-base": 9,
    "xlm-roberta-large": 17,
}
"""Model -> layer, as in `model2layers` of Tiiiger/bert_score:bert_score/utils.py."""

_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_LIBRARY_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    ImportError,
    StrictDataclassError,
)


# --- BERTScore -------------------------------------------------------------------------------------------------------


class BertScore:
    """How alike two texts are, by the contextual states of their tokens.

    With x the states of the answer's tokens and y those of the reference's, all of length 1:

        P = mean over x of max over y of x . y,    R = mean over y of max over x of x . y,    F1 = 2 P R / (P + R)

    The two special tokens can be matched, but do not count in the means. No idf weights, no rescaling by a baseline. An
    empty text scores 0.

    Source: Zhang et al. 2020, "BERTScore: evaluating text generation with BERT";
    Tiiiger/bert_score:bert_score/utils.py.
    """

    def __init__(self, folder: Path, num_layers: int | None = None, *, batch_size: int = 32) -> None:
        """Load the model.

        Args:
            folder: A BERT or RoBERTa and its tokenizer.
            num_layers: The layer to compare, from 1; None for that of `LAYERS`, by the folder's name.
            batch_size: Pairs of texts at once.

        Raises:
            CheckpointError: The folder cannot be read.
            ConfigError: It is another architecture, or there is no such layer.
        """
        try:
            check_files(folder)
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
        except _LIBRARY_ERRORS as error:
            raise CheckpointError(f"{folder} is no model that transformers can read ({brief(error)}).") from error
        if config.model_type not in ARCHITECTURES:
            raise ConfigError(
                f"metrics.external.bert_score.model: {folder} is a {config.model_type!r}; BERTScore was checked with"
                f" {', '.join(ARCHITECTURES)} only. Take one of these."
            )
        self.num_layers = LAYERS.get(folder.name) if num_layers is None else num_layers
        if self.num_layers is None or not 1 <= self.num_layers <= config.num_hidden_layers:
            raise ConfigError(
                f"metrics.external.bert_score.num_layers must be from 1 to {config.num_hidden_layers} for {folder}, got"
                f" {num_layers}. Without it, the folder must be named as one of {', '.join(LAYERS)}."
            )
        options = {} if config.model_type == "bert" else {"add_prefix_space": True}
        name = next((file for file in _WEIGHT_FILES if any(folder.glob(f"{file}*"))), _WEIGHT_FILES[0])
        check_count(config.num_hidden_layers, len(WeightFiles.sharded(folder, name).tensors), folder)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, **options)
            model: Any = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        except (*_LIBRARY_ERRORS, UnpicklingError) as error:
            raise CheckpointError(f"{folder}: model or tokenizer cannot be read ({brief(error)}).") from error
        self.model = model.eval().to(_device())
        offset = 0 if config.model_type == "bert" else config.pad_token_id + 1  # where RoBERTa's positions begin
        self.max_length = min(int(self.tokenizer.model_max_length), config.max_position_embeddings - offset)
        self.batch_size = batch_size
        weights = _sha256([path for path in sorted(folder.iterdir()) if path.suffix in (".safetensors", ".bin")])
        self.signature = (
            f"F1|{folder.name}, weights {weights}|layer {self.num_layers}|no idf|not rescaled|its own word pieces and"
            f" case|cut at {self.max_length} tokens|as bert-score 0.3.13, transformers {transformers.__version__}"
        )

    def rows(self, records: Sequence[Prediction]) -> Rows:
        """(F1, 1) of each record, shape (n, 2); an error scores 0."""
        pairs = [("" if record.error is not None else record.prediction, record.reference) for record in records]
        return np.stack([np.array(self.f1(pairs)), np.ones(len(pairs))], axis=1)

    @torch.inference_mode()
    def f1(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Score (answer, reference) pairs, from -1.0 to 1.0; equal pairs once."""
        different = sorted({pair for pair in pairs if all(map(str.strip, pair))}, key=lambda pair: sum(map(len, pair)))
        scores: dict[tuple[str, str], float] = {}
        with tqdm(total=len(different), desc="BERTScore", unit="pair", delay=2) as progress:
            for start in range(0, len(different), self.batch_size):
                batch = different[start : start + self.batch_size]
                sides = [self._encode([pair[side] for pair in batch]) for side in (0, 1)]
                for pair, answer, reference in zip(batch, *sides, strict=True):
                    scores[pair] = _greedy_f1(answer, reference)
                progress.update(len(batch))
        return [scores.get(pair, 0.0) for pair in pairs]

    def _encode(self, texts: Sequence[str]) -> list[Tensor]:
        """The states of each text's tokens, special ones at both ends, shape (L, D), float32, of length 1."""
        inputs = self.tokenizer(
            [text.strip() for text in texts],
            padding=True,
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
        ).to(self.model.device)
        states = self.model(**inputs, output_hidden_states=True).hidden_states[self.num_layers].float()
        states = torch.nn.functional.normalize(states, dim=-1)
        return [state[mask.bool()] for state, mask in zip(states, inputs["attention_mask"], strict=True)]


def _greedy_f1(answer: Tensor, reference: Tensor) -> float:
    """F1 of greedily matched states, shapes (L, D) and (M, D), the first and the last of each being special."""
    if min(len(answer), len(reference)) <= 2:  # nothing but the special tokens
        return 0.0
    similarity = answer @ reference.T
    precision = similarity[1:-1].max(dim=1).values.mean().item()
    recall = similarity[:, 1:-1].max(dim=0).values.mean().item()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


# --- CheXbert --------------------------------------------------------------------------------------------------------

HEADS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    SUPPORT_DEVICES,
    NO_FINDING,
)
"""The findings of `linear_heads.0` to `.13`."""
_CLASSES: tuple[Certainty | None, ...] = (None, "positive", "negative", "uncertain")
_HEAD_SIZE = 64
"""Of BERT's attention; the file holds no configuration, and the number of heads leaves no trace in the weights."""
_IGNORED = ("bert.pooler.", "bert.embeddings.position_ids")


class Chexbert:
    """CheXpert's 14 labels of English reports, by the published weights.

    Source: Smit et al. 2020, "CheXbert: combining automatic labelers and expert annotations for accurate radiology
    report labeling using BERT"; stanfordmlgroup/CheXbert:src/models/bert_labeler.py, src/label.py,
    src/bert_tokenizer.py.
    """

    def __init__(self, weights: Path, tokenizer: Path, *, batch_size: int = 16) -> None:
        """Load the labeller.

        Args:
            weights: `chexbert.pth`: {"model_state_dict": {"module.bert.…", "module.linear_heads.<0 to 13>.…"}}.
            tokenizer: Folder with the `vocab.txt` of bert-base-uncased.
            batch_size: Reports at once.

        Raises:
            CheckpointError: The file cannot be read safely, or does not hold these tensors, or the vocabulary is of
                another size.
        """
        tensors = _read_chexbert(weights)
        self.bert, self.heads = _build_chexbert(tensors, weights)
        self.tokenizer: Any = BertTokenizer(vocab=str(tokenizer / "vocab.txt"), do_lower_case=True)
        if len(self.tokenizer) != self.bert.config.vocab_size:
            raise CheckpointError(
                f"{tokenizer}/vocab.txt has {len(self.tokenizer):,} entries, but {weights} was trained with"
                f" {self.bert.config.vocab_size:,}. Pass the vocabulary of bert-base-uncased."
            )
        self.max_length = self.bert.config.max_position_embeddings
        self.batch_size = batch_size
        self.signature = (
            f"CheXbert, weights {_sha256([weights])}|lower-cased word pieces|cut at {self.max_length} tokens"
            f"|for English|transformers {transformers.__version__}"
        )

    @torch.inference_mode()
    def label(self, reports: Sequence[str]) -> list[dict[str, Certainty]]:
        """Label the findings of reports.

        Args:
            reports: English texts; equal ones are labelled once.

        Returns:
            For each report: finding -> "positive", "negative" or "uncertain", without findings that are not mentioned.
        """
        texts = [" ".join(report.split()) for report in reports]
        different = sorted(set(texts), key=len)
        labels: dict[str, dict[str, Certainty]] = {}
        with tqdm(total=len(different), desc="CheXbert", unit="report", delay=2) as progress:
            for start in range(0, len(different), self.batch_size):
                batch = different[start : start + self.batch_size]
                inputs = self.tokenizer(
                    batch, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
                ).to(self.bert.device)
                first = self.bert(**inputs).last_hidden_state[:, 0]
                classes = torch.stack([head(first).argmax(dim=-1) for head in self.heads], dim=1).tolist()
                for text, row in zip(batch, classes, strict=True):
                    certainties = {name: _CLASSES[number] for name, number in zip(HEADS, row, strict=True)}
                    labels[text] = {name: value for name, value in certainties.items() if value is not None}
                progress.update(len(batch))
        return [dict(labels[text]) for text in texts]

    def rows(self, records: Sequence[Prediction], *, uncertain: str = "positive") -> Rows:
        """`count_labels` of records, shape (n, 42); an error has no findings.

        Args:
            records: English reports with references.
            uncertain: What uncertain findings count as, `positive` or `negative`.
        """
        true = self.label([record.reference for record in records])
        answers = self.label(["" if record.error is not None else record.prediction for record in records])
        named: list[Mapping[str, Certainty]] = [
            {} if record.error is not None else answer for record, answer in zip(records, answers, strict=True)
        ]
        assert len(HEADS) == len(FINDINGS)
        return count_labels(list(zip(true, named, strict=True)), cast(Certainty, uncertain))


def _read_chexbert(file: Path) -> dict[str, Tensor]:
    """The tensors of the file by their names without `module.`; only tensors and plain values are unpickled."""
    tensors = read_tensors(file, inside="model_state_dict")
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def _build_chexbert(tensors: Mapping[str, Tensor], file: Path) -> tuple[BertModel, torch.nn.ModuleList]:
    """The encoder, sized as its weights are, and its 14 heads, in evaluation mode."""
    names = {
        "vocabulary": "bert.embeddings.word_embeddings.weight",
        "positions": "bert.embeddings.position_embeddings.weight",
        "types": "bert.embeddings.token_type_embeddings.weight",
        "intermediate": "bert.encoder.layer.0.intermediate.dense.weight",
    }
    if missing := [name for name in names.values() if name not in tensors or tensors[name].ndim != 2]:
        raise CheckpointError(f"{file} is no CheXbert: it has no matrix {', '.join(missing)}.")
    sizes = {what: tensors[name].shape for what, name in names.items()}
    hidden = sizes["vocabulary"][1]
    if hidden % _HEAD_SIZE:
        raise CheckpointError(f"{file} is no CheXbert: states of {hidden} numbers are no multiple of {_HEAD_SIZE}.")
    layers = {name.split(".")[3] for name in tensors if name.startswith("bert.encoder.layer.")}
    config = BertConfig(
        vocab_size=sizes["vocabulary"][0],
        hidden_size=hidden,
        num_hidden_layers=len(layers),
        num_attention_heads=hidden // _HEAD_SIZE,
        intermediate_size=sizes["intermediate"][0],
        max_position_embeddings=sizes["positions"][0],
        type_vocab_size=sizes["types"][0],
    )
    bert: Any = BertModel(config, add_pooling_layer=False)
    outputs = [4] * (len(HEADS) - 1) + [2]
    heads = torch.nn.ModuleList(torch.nn.Linear(hidden, count) for count in outputs)
    whole: Any = torch.nn.ModuleDict({"bert": bert, "linear_heads": heads})
    expected = {name: tuple(value.shape) for name, value in whole.state_dict().items()}
    actual = {name: tensor for name, tensor in tensors.items() if not name.startswith(_IGNORED)}
    problems = [f"lacks {name}" for name in expected if name not in actual]
    problems += [f"has an unknown {name}" for name in actual if name not in expected]
    problems += [
        f"{name} is {tuple(actual[name].shape)} instead of {shape}"
        for name, shape in expected.items()
        if name in actual and tuple(actual[name].shape) != shape
    ]
    if problems:
        raise CheckpointError(f"{file} is no CheXbert: {len(problems)} problems ({'; '.join(problems[:3])}).")
    whole.load_state_dict(actual)
    whole.float().eval().to(_device())
    return bert, heads


# --- both ------------------------------------------------------------------------------------------------------------


def _device() -> torch.device:
    return (torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None) or torch.device(
        "cpu"
    )


def _sha256(files: Sequence[Path]) -> str:
    """The beginning of a hash of files' content, to identify weights."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:12]
