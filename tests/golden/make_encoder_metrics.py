"""Golden values of BERTScore and CheXbert by their own packages: python tests/golden/make_encoder_metrics.py

Needs bert-score 0.3.13 (with matplotlib), f1chexbert 0.0.2 (with scikit-learn 1.6, appdirs, pandas) and transformers 4,
as f1chexbert does not work with 5, nor bert-score on empty texts. The published weights are not needed: both run on the
miniature that `write_miniature` makes, in the layout of the published files, with weights drawn by NumPy's legacy
generator, whose numbers are the same everywhere.
"""

import json
import os
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

WORDS = (  # noqa: SIM905 - as a list it would fill a page
    "[PAD] [UNK] [CLS] [SEP] [MASK] a the heart is are large small normal size lungs clear no not seen possible left"
    " right effusion pneumothorax pneumonia opacity with and of in dog cat man ##s ##ly rides horse . , 心 影"
    " 增 大 小 肺 未 见 积 液 双 清 晰 。 ，"
).split()
HIDDEN, LAYERS, INTERMEDIATE, POSITIONS = 64, 3, 96, 24
SCORED_LAYER = 2
PAIRS = [
    ["The heart is large.", "Heart size is normal."],
    ["No effusion.", "No effusion or pneumothorax seen."],
    ["a dog", "a man rides a horse"],
    ["心影增大，未见积液。", "心影不大，双肺清晰。"],
    ["The lungs are clear. No effusion. " * 4, "Small left effusion, possible pneumonia."],  # longer than the model
    ["", "The lungs are clear."],
    ["Small left effusion.", "Small left effusion."],
    ["  Possible   right pneumonia \n with opacity ", "the heart is normal and the lungs are clear"],
]


def draw(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    """Weights by name: norms near 1, all else normal with a spread that lets texts differ."""
    generator = np.random.RandomState(seed)
    tensors = {}
    for name, shape in sorted(shapes.items()):
        values = generator.standard_normal(shape).astype(np.float32)
        tensors[name] = torch.from_numpy(1 + 0.1 * values if name.endswith("LayerNorm.weight") else 0.15 * values)
    return tensors


def write_miniature(folder: Path) -> None:
    """A BERT with its vocabulary, in the layout of bert-base-uncased, and `chexbert.pth` in that of CheXbert's file."""
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    tokenizer = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": POSITIONS}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=1,
        intermediate_size=INTERMEDIATE,
        max_position_embeddings=POSITIONS,
    )
    model = BertModel(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    weights = draw(shapes, seed=1)
    model.load_state_dict(weights, strict=False)
    model.save_pretrained(folder)
    heads = {f"linear_heads.{index}.weight": (4 if index < 13 else 2, HIDDEN) for index in range(14)}
    heads |= {name.replace("weight", "bias"): shape[:1] for name, shape in heads.items()}
    stored = {f"bert.{name}": tensor for name, tensor in weights.items()} | draw(heads, seed=2)
    stored["bert.embeddings.position_ids"] = torch.arange(POSITIONS)[None]  # as transformers 2 kept it
    state = {f"module.{name}": tensor for name, tensor in stored.items()}
    torch.save({"epoch": 7, "model_state_dict": state, "optimizer_state_dict": {}}, folder / "chexbert.pth")


def write_roberta(folder: Path) -> None:
    """A RoBERTa whose tokens are single bytes, the words' first ones marked by the blank before them."""
    from transformers import RobertaConfig, RobertaModel

    folder.mkdir(parents=True, exist_ok=True)
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    signs = [*map(chr, printable), *(chr(256 + index) for index in range(len(others)))]  # GPT-2's signs for bytes
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *signs, "Ġt", "Ġh", "Ġn"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\nĠ t\nĠ h\nĠ n\n", encoding="utf-8")
    limit = 5 * POSITIONS
    tokenizer = {"tokenizer_class": "RobertaTokenizer", "model_max_length": limit}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    config = RobertaConfig(
        vocab_size=len(tokens),
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=INTERMEDIATE,
        max_position_embeddings=limit + 2,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    model = RobertaModel(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    model.load_state_dict(draw(shapes, seed=3), strict=False)
    model.save_pretrained(folder)


def by_bert_score(folder: Path) -> dict[str, Any]:
    from bert_score import BERTScorer

    scorer = BERTScorer(model_type=str(folder), num_layers=SCORED_LAYER, device="cpu")
    f1_scores = []
    for answer, reference in PAIRS:  # one by one: beside a longer text, padding would count as a match of 0
        f1_scores.append(scorer.score([answer], [reference])[2].item())
    return {"version": metadata.version("bert-score"), "f1": f1_scores}


def by_f1chexbert(folder: Path) -> dict[str, Any]:
    """The package asks for `bert-base-uncased`, which a folder of this name in the working directory is too."""
    os.chdir(folder.parent)
    import f1chexbert.f1chexbert as original

    original.CACHE_DIR = str(folder)
    limited = original.tokenize
    # The package cuts at 512 tokens, the positions of the published weights; the miniature has fewer.
    original.tokenize = lambda reports, tokenizer: [
        ids if len(ids) <= POSITIONS else [*ids[: POSITIONS - 1], tokenizer.sep_token_id]
        for ids in limited(reports, tokenizer)
    ]
    scorer = original.F1CheXbert(device="cpu")
    labels = {text: scorer.get_label(text.strip(), mode="classification") for pair in PAIRS for text in pair}
    _, _, fourteen, five = scorer([pair[0] for pair in PAIRS], [pair[1] for pair in PAIRS])
    return {
        "version": metadata.version("f1chexbert"),
        "findings": scorer.target_names,
        "labels": {text: ["" if cell == "" else int(cell) for cell in row] for text, row in labels.items()},
        "micro_f1": fourteen["micro avg"]["f1-score"],
        "macro_f1": fourteen["macro avg"]["f1-score"],
        "micro_f1_5": five["micro avg"]["f1-score"],
        "macro_f1_5": five["macro avg"]["f1-score"],
    }


def main() -> None:
    target = Path(__file__).resolve().parent / "metrics" / "encoders.json"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "bert-base-uncased"
        write_miniature(folder)
        write_roberta(folder.parent / "roberta")
        golden = {
            "transformers": metadata.version("transformers"),
            "pairs": PAIRS,
            "bert_score": {"bert": by_bert_score(folder), "roberta": by_bert_score(folder.parent / "roberta")},
            "f1chexbert": by_f1chexbert(folder),
        }
    target.write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
