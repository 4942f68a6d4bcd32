import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import question_about
from PIL import Image

import evaluate
from vglm.config import compose
from vglm.data.images import open_image
from vglm.data.sample import Sample
from vglm.errors import ConfigError, DataError
from vglm.evaluation.predict.decoding import Decoding
from vglm.evaluation.predict.generation import answer_splits, generate_predictions
from vglm.evaluation.predict.likelihoods import add_likelihoods, check_choices, forget_likelihoods, score_choices
from vglm.evaluation.predictions import Prediction, read_predictions, unanswered
from vglm.model.loading import load_pretrained
from vglm.worlds.pretraining import SceneDialogues


@pytest.fixture(scope="module")
def loaded(reference: Path) -> tuple[Any, Any]:
    return load_pretrained(reference / "hf_layout", dtype="float32")


@pytest.fixture
def samples(reference: Path) -> list[Sample]:
    """Different lengths, with and without image, history and English, from files and from memory."""
    pictures = sorted((reference / "images").glob("*.png"))
    return [
        question_about("zh", pictures[0], "这张图片的背景里有什么内容？", choices=["沙滩。", "一片森林。", "雪"]),
        question_about("text", None, "你好", choices=["你好。", "再见。"]),
        question_about("en", pictures[1], "Is it red?", language="en", choices=["Yes.", "No."]),
        question_about(
            "history", pictures[2], "它是什么颜色的？", history=(("描述这张图片。", "一片森林，还有一条小河。"),)
        ),
        question_about("memory", Image.new("RGB", (40, 20), "orange"), "图中有几个人？", choices=["一个", "没有人"]),
    ]


def test_choices_score_as_their_tokens_one_by_one(loaded: tuple[Any, Any], samples: list[Sample]) -> None:
    model, processor = loaded
    choices = ["是", "否。", "这张图片的背景是一片森林。", ""]
    scores = score_choices(model, processor, samples, choices, batch_size=3)
    assert [[score.choice for score in row] for row in scores] == [choices] * len(samples)
    for sample, row in zip(samples, scores, strict=True):
        for score in row:
            expected = one_by_one(model, processor, sample, score.choice)
            assert score.tokens == len(expected)
            assert score.log_likelihood == pytest.approx(math.fsum(expected), abs=1e-4)
            assert score.per_token == pytest.approx(math.fsum(expected) / len(expected), abs=1e-4)
        assert math.fsum(math.exp(score.log_likelihood) for score in row) <= 1  # they exclude each other


def one_by_one(model: Any, processor: Any, sample: Sample, choice: str) -> list[float]:
    """The log-probability of each token after everything before it, each from a call of its own without padding."""
    image = None if sample.image is None else open_image(sample.image)
    inputs = processor(
        images=image, text=sample.question, history=sample.history, language=sample.language, return_tensors="pt"
    )
    ids = inputs.pop("input_ids")
    inputs.pop("attention_mask")
    log_probabilities = []
    for token in [*processor.tokenizer.encode_plain(choice), processor.tokenizer.eos_token_id]:
        with torch.inference_mode():
            logits = model(input_ids=ids, **inputs).logits[0, -1].double()
        log_probabilities.append(float(logits.log_softmax(-1)[token]))
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
    return log_probabilities


def test_an_answer_is_its_tokens_and_the_end(loaded: tuple[Any, Any], samples: list[Sample]) -> None:
    """The empty answer is the end alone; a longer one is less likely than its first token."""
    model, processor = loaded
    inputs = processor(images=None, text="你好", return_tensors="pt")
    with torch.inference_mode():
        first = model(**inputs).logits[0, -1].double().softmax(-1)
    empty = score_choices(model, processor, samples[1:2], [""])[0][0]
    assert empty.tokens == 1
    assert math.exp(empty.log_likelihood) == pytest.approx(float(first[processor.tokenizer.eos_token_id]), rel=1e-4)
    one = score_choices(model, processor, samples[1:2], ["好"])[0][0]
    token = processor.tokenizer.encode_plain("好")[0]
    assert math.exp(one.log_likelihood) < float(first[token])


class Counting:
    """Passes everything on to a model and counts the rows it is asked about and the pictures it looks at."""

    def __init__(self, model: Any) -> None:
        self.model, self.rows, self.pictures = model, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, **inputs: Any) -> Any:
        self.rows += len(inputs["input_ids"])
        return self.model(**inputs)

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        self.pictures += len(pixel_values)
        features: torch.Tensor = self.model.get_image_features(pixel_values)
        return features


def test_a_picture_is_encoded_once_for_all_choices(loaded: tuple[Any, Any], samples: list[Sample]) -> None:
    model = Counting(loaded[0])
    scores = score_choices(model, loaded[1], samples, ["是", "否", "不知道"], batch_size=2)
    assert (model.rows, model.pictures) == (15, 4)
    cached = score_choices(*loaded, samples, ["是", "否", "不知道"], feature_cache=True)
    assert flat(cached) == pytest.approx(flat(scores), abs=1e-4)


def flat(scores: Sequence[Sequence[Any]]) -> list[float]:
    return [score.log_likelihood for row in scores for score in row]


def test_choices_may_differ_between_questions(loaded: tuple[Any, Any], samples: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    rows = [samples[1], question_about("broken", tmp_path / "broken.png", "？"), samples[0]]
    scores = score_choices(*loaded, rows, [["甲", "乙"], ["甲"], ["丙"]])
    assert [[score.choice for score in row] for row in scores] == [["甲", "乙"], [], ["丙"]]
    alone = score_choices(*loaded, rows[2:], ["丙"])
    assert alone[0][0].log_likelihood == pytest.approx(scores[2][0].log_likelihood, abs=1e-4)
    with pytest.raises(DataError, match=r"for each of 3 samples; found 2 lists, 1 of them empty"):
        score_choices(*loaded, rows, [["甲"], []])


def records_of(samples: Sequence[Sample]) -> list[Prediction]:
    return [replace(unanswered(sample, "test"), prediction="好") for sample in samples]


def test_records_get_what_their_questions_offer(loaded: tuple[Any, Any], samples: list[Sample]) -> None:
    records = records_of(samples)
    scored = add_likelihoods(*loaded, {"test": samples, "retention": samples}, records, "sample")
    assert [list(record.likelihoods) for record in scored] == [
        list(sample.meta.get("choices", ())) for sample in samples
    ]
    assert scored[0].meta["choices"] == '["沙滩。", "一片森林。", "雪"]'
    assert [replace(record, likelihoods={}) for record in scored] == records
    for choice, value in scored[0].likelihoods.items():
        assert value == pytest.approx(math.fsum(one_by_one(*loaded, samples[0], choice)), abs=1e-4)
    everyone = add_likelihoods(*loaded, {"test": samples, "retention": samples}, records, ["是", "否"])
    assert all(list(record.likelihoods) == ["是", "否"] for record in everyone)
    assert add_likelihoods(*loaded, {"test": samples, "retention": samples}, records, None) == records
    retention = [replace(record, split="retention") for record in records]
    assert add_likelihoods(*loaded, {"test": samples, "retention": samples}, retention, ["是", "否"]) == retention


def test_a_part_of_the_records_errors_and_several_draws(loaded: tuple[Any, Any], samples: list[Sample]) -> None:
    model = Counting(loaded[0])
    one, two = records_of(samples[1:3])
    mine = [one, replace(one, draw=1, prediction="再见"), replace(two, error="unreadable", prediction="")]
    scored = add_likelihoods(model, loaded[1], {"test": samples, "retention": samples}, mine, "sample")
    assert model.rows == 2  # once for both draws, and nothing for other processes' samples
    assert scored[0].likelihoods == scored[1].likelihoods != {}
    assert scored[2] == mine[2]


def test_scored_records_are_not_scored_again(loaded: tuple[Any, Any], samples: list[Sample], tmp_path: Path) -> None:
    splits = {"test": samples, "retention": samples[:1]}
    whole = answer_splits(*loaded, splits, tmp_path, "before", Decoding(max_new_tokens=2, choices="sample"))
    path = tmp_path / "before" / "predictions.jsonl"
    assert read_predictions(path) == whole
    text = path.read_bytes()
    plain = [json.loads(line) | {"likelihoods": {}} for line in text.splitlines()]
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in plain), encoding="utf-8")
    score_lines = [
        json.dumps({"split": "test", "id": record.id, "likelihoods": dict(record.likelihoods)}, ensure_ascii=False)
        + "\n"
        for record in whole[:3]
    ]
    own, other = path.with_name("likelihoods.jsonl"), path.with_name("likelihoods.1.jsonl")
    own.write_text(score_lines[0] + score_lines[2][:-9], encoding="utf-8")  # the last line was cut off by a kill
    other.write_text(score_lines[1], encoding="utf-8")  # of another process
    model = Counting(loaded[0])
    again = answer_splits(model, loaded[1], splits, tmp_path, "before", Decoding(max_new_tokens=2, choices="sample"))
    assert model.rows == 4  # those of the third and of the last question; nothing is generated
    assert [record.likelihoods.keys() for record in again] == [record.likelihoods.keys() for record in whole]
    assert [record.likelihoods for record in again[:2]] == [record.likelihoods for record in whole[:2]]
    assert sorted(file.name for file in path.parent.iterdir()) == ["predictions.jsonl", "seconds.0.jsonl"]
    model = Counting(loaded[0])
    assert (
        answer_splits(model, loaded[1], splits, tmp_path, "before", Decoding(max_new_tokens=2, choices="sample"))
        == again
    )
    assert model.rows == 0
    own.write_text("[]\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"likelihoods\.jsonl is damaged"):
        answer_splits(*loaded, splits, tmp_path, "before", Decoding(max_new_tokens=2, choices="sample"))


def test_processes_keep_what_they_score_apart(loaded: tuple[Any, Any], samples: list[Sample], tmp_path: Path) -> None:
    records = records_of(samples)
    whole = add_likelihoods(*loaded, {"test": samples}, records, "sample")
    for rank, part in enumerate((records[:2], records[2:])):
        path = tmp_path / f"predictions.{rank}.jsonl"
        add_likelihoods(*loaded, {"test": samples}, part, "sample", path=path)
        assert path.with_name(f"likelihoods.{rank}.jsonl").is_file()
    model = Counting(loaded[0])
    path = tmp_path / "predictions.jsonl"
    scored = add_likelihoods(model, loaded[1], {"test": samples}, records, "sample", path=path)
    assert model.rows == 0  # the main process reads what all have scored
    for one, two in zip(scored, whole, strict=True):
        assert one.likelihoods == pytest.approx(two.likelihoods, abs=1e-4)
    forget_likelihoods(path)
    assert list(tmp_path.iterdir()) == []


def test_bad_choices_are_refused(samples: list[Sample]) -> None:
    for bad in ("是", ["是"], ["是", "是"], [True, False], [], ["是", ""], 3):
        with pytest.raises(ConfigError, match="choices must be null, sample"):
            check_choices(bad, {"test": samples})  # type: ignore[arg-type]
    for good in (None, "sample", ["是", "否"]):
        check_choices(good, {"test": samples, "retention": []})
    with pytest.raises(DataError, match="no sample of test has choices"):
        check_choices("sample", {"test": samples[3:4]})
    with pytest.raises(DataError, match=r"the choices of 1 samples are not lists .*test 'x': 'A, B'"):
        check_choices("sample", {"test": [*samples, question_about("x", None, "?", choices="A, B")]})


def test_an_evaluation_of_yes_no_questions(random_model_folder: Path, tmp_path: Path) -> None:
    """From questions with choices in the data to likelihoods, calibration and a report, for arms and controls."""
    scenes = SceneDialogues(6, seed=3, mixture={"yes_no": 1.0}, size=28)[:]
    rows = []
    for index, scene in enumerate(scenes):
        assert isinstance(scene.image, Image.Image)
        scene.image.save(tmp_path / f"{index}.png")
        rows.append({"img": f"{index}.png", "prompt": scene.question, "label": scene.answer, **dict(scene.meta)})
    for name, part in (("train", rows[:2]), ("test", rows[2:])):
        (tmp_path / f"{name}.json").write_text(json.dumps(part, ensure_ascii=False), encoding="utf-8")
    overrides = ["model=visualglm_tiny", f"model.path_or_id={random_model_folder}", "splits=[test]"]
    overrides += ["dataset=background_synthetic", f"dataset.path={tmp_path}", "dataset.retention=null"]
    overrides += [f"output_dir={tmp_path / 'evaluation'}", "max_new_tokens=2", "image_use_samples=3"]
    overrides += ["metrics=multiple_choice", "choices=sample"]
    folder = evaluate.run(compose("evaluate", overrides))
    model, processor = load_pretrained(random_model_folder)
    for path in sorted(folder.glob("*/predictions.jsonl")):
        for prediction in read_predictions(path):
            assert set(prediction.likelihoods) == set(json.loads(str(prediction.meta["choices"])))
    for index, prediction in enumerate(read_predictions(folder / "true" / "predictions.jsonl")):
        shown = question_about(
            prediction.id, tmp_path / f"{index + 2}.png", prediction.question, language=prediction.language
        )
        for choice, value in prediction.likelihoods.items():
            assert value == pytest.approx(math.fsum(one_by_one(model, processor, shown, choice)), abs=1e-4)
    content = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["splits"]["test"]
    assert {"likelihood_accuracy", "brier_score", "expected_calibration_error"} <= content["scores"].keys()
    assert content["not_computed"] == {}
    assert {arm: table["n"] for arm, table in content["calibration"].items()} == {"shuffled": 4, "true": 4}
    assert "choices" not in content["slices"]
    baselines = json.loads((folder / "baselines.json").read_text(encoding="utf-8"))
    named = {str(baseline["name"]): set(baseline["scores"]) for baseline in baselines}
    assert "likelihood_accuracy" in named["text only"]
    assert "likelihood_accuracy" not in named["majority class"]  # a rule has no likelihoods
    with pytest.raises(ConfigError, match="choices must be null, sample"):
        evaluate.run(compose("evaluate", [*overrides, "choices=[yes]"]))


def test_without_choices_nothing_is_scored(loaded: tuple[Any, Any], samples: list[Sample], tmp_path: Path) -> None:
    model = Counting(loaded[0])
    records = answer_splits(model, loaded[1], {"test": samples}, tmp_path, "a", Decoding(max_new_tokens=2))
    assert model.rows == 0
    assert [record.likelihoods for record in records] == [{}] * 5
    assert records == generate_predictions(*loaded, samples, Decoding(max_new_tokens=2))
