"""BERTScore and CheXbert on miniatures in the published layouts, beside what their authors' packages computed."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
from golden.make_encoder_metrics import HIDDEN, PAIRS, POSITIONS, SCORED_LAYER, WORDS, write_miniature, write_roberta

from vglm.errors import CheckpointError, ConfigError
from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.encoders import HEADS, BertScore, Chexbert
from vglm.evaluation.score.metrics.external import STATISTICS
from vglm.evaluation.score.metrics.findings import FINDINGS

GOLDEN = json.loads((Path(__file__).parent / "golden" / "metrics" / "encoders.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "mini"
    write_miniature(folder)
    return folder


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "roberta"
    write_roberta(folder)
    return folder


@pytest.fixture(scope="module")
def labeller(bert: Path) -> Chexbert:
    return Chexbert(bert / "chexbert.pth", bert, batch_size=4)


def arm(error: str | None = None) -> list[Prediction]:
    return builders.arm(*((reference, None if error else prediction) for prediction, reference in PAIRS))


# --- BERTScore -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert", "roberta"])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_bert_score_equals_the_package(name: str, batch_size: int, request: pytest.FixtureRequest) -> None:
    scorer = BertScore(request.getfixturevalue(name), SCORED_LAYER, batch_size=batch_size)
    f1_scores = scorer.f1([(answer, reference) for answer, reference in PAIRS])
    assert f1_scores == pytest.approx(GOLDEN["bert_score"][name]["f1"], abs=1e-5)
    assert f"layer {SCORED_LAYER}|no idf|not rescaled" in scorer.signature


def test_bert_score_of_records(bert: Path) -> None:
    scorer = BertScore(bert, SCORED_LAYER)
    rows = scorer.rows(arm())
    assert rows[:, 0] == pytest.approx(GOLDEN["bert_score"]["bert"]["f1"], abs=1e-5)
    assert rows[:, 1].tolist() == [1.0] * len(PAIRS)
    assert scorer.rows(arm(error="unreadable"))[:, 0].tolist() == [0.0] * len(PAIRS)


def test_bert_score_says_what_it_needs(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"num_layers must be from 1 to 3 for .*mini, got 4"):
        BertScore(bert, 4)
    with pytest.raises(ConfigError, match=r"got None. Without it, the folder must be named as one of bert-base"):
        BertScore(bert)
    with pytest.raises(CheckpointError, match="no model that transformers can read"):
        BertScore(tmp_path, 1)
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ConfigError, match=r"is a 'gpt2'; BERTScore was checked with bert, roberta"):
        BertScore(other, 1)


# --- CheXbert --------------------------------------------------------------------------------------------------------


def test_labels_equal_those_of_the_package(labeller: Chexbert) -> None:
    golden = GOLDEN["f1chexbert"]
    assert golden["findings"] == list(HEADS)
    reports = list(golden["labels"])
    numbers = {"positive": 1, "negative": 0, "uncertain": -1}
    rows = [[numbers.get(label.get(name, ""), "") for name in HEADS] for label in labeller.label(reports)]
    assert rows == list(golden["labels"].values())
    assert {cell for row in rows for cell in row} == {1, 0, -1, ""}  # the miniature knows all four answers


@pytest.mark.parametrize("name", ["micro_f1", "macro_f1", "micro_f1_5", "macro_f1_5"])
def test_f1_equals_that_of_the_package(labeller: Chexbert, name: str) -> None:
    sums = labeller.rows(arm()).sum(axis=0)
    assert float(STATISTICS[name](sums)) == pytest.approx(GOLDEN["f1chexbert"][name])


def test_uncertain_findings_as_negative(labeller: Chexbert) -> None:
    labels = labeller.label([reference for _, reference in PAIRS])
    rows = labeller.rows(arm(), uncertain="negative")
    positive = [[label.get(name) == "positive" for name in FINDINGS] for label in labels]
    assert rows[:, : len(FINDINGS)].astype(bool).tolist() == positive
    assert rows.sum() < labeller.rows(arm()).sum()


def test_an_error_has_no_findings(labeller: Chexbert) -> None:
    rows = labeller.rows(arm(error="unreadable"))
    assert rows[:, : len(FINDINGS)].sum() > 0
    assert rows[:, len(FINDINGS) :].sum() == 0


def changed(bert: Path, target: Path, **tensors: Any) -> Path:
    """The file with tensors replaced, or without those that are None."""
    content = torch.load(bert / "chexbert.pth", weights_only=True)
    state = content["model_state_dict"]
    for name, tensor in tensors.items():
        state.pop(name) if tensor is None else state.update({name: tensor})
    torch.save(content, target)
    return target


def test_other_files_are_refused(bert: Path, tmp_path: Path) -> None:
    def refuse(file: Path, message: str, vocabulary: Path = bert) -> None:
        with pytest.raises(CheckpointError, match=message):
            Chexbert(file, vocabulary)

    head = "module.linear_heads.13.weight"
    file = tmp_path / "chexbert.pth"
    refuse(changed(bert, file, **{head: None}), r"no CheXbert: 1 problems \(lacks linear_heads.13.weight\)")
    refuse(changed(bert, file, **{head: torch.zeros(4, HIDDEN)}), r"is \(4, 64\) instead of \(2, 64\)")
    refuse(changed(bert, file, **{"module.crf": torch.zeros(1)}), "has an unknown crf")
    words = "module.bert.embeddings.word_embeddings.weight"
    refuse(changed(bert, file, **{words: None}), "has no matrix bert.embeddings.word_embeddings.weight")
    refuse(changed(bert, file, **{words: torch.zeros(len(WORDS) + 1, HIDDEN)}), "Pass the vocabulary of bert-base")
    torch.save({"epoch": 1}, file)
    refuse(file, "has no entry `model_state_dict` of tensors, found epoch")
    file.write_bytes((bert / "chexbert.pth").read_bytes()[:5000])
    refuse(file, "may be truncated")


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_a_hostile_file_is_not_run(bert: Path, tmp_path: Path) -> None:
    mark = tmp_path / "was run"
    torch.save({"model_state_dict": Hostile(mark)}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"model_state_dict": Hostile(mark)}, protocol=2))
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(CheckpointError, match=r"asks for '(posix|nt).mkdir', .* It was not run"):
            Chexbert(tmp_path / name, bert)
    assert not mark.exists()


def test_long_reports_are_cut(labeller: Chexbert) -> None:
    long = "the heart is large . " * POSITIONS
    assert labeller.label([long]) == labeller.label([long[: len(long) // 2]])
    assert f"cut at {POSITIONS} tokens" in labeller.signature
