import logging
import math
import tomllib
import weakref
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from builders import sample
from PIL import Image

import vglm.harness_bridge
from vglm.data.sample import Sample
from vglm.errors import ConfigError, DataError
from vglm.evaluation.predict.decoding import Decoding
from vglm.evaluation.predict.generation import generate_predictions
from vglm.evaluation.predict.likelihoods import score_choices
from vglm.harness_bridge.answering import BATCHES_IN_MEMORY, Question, answer_questions, score_continuations
from vglm.model.loading import load_pretrained

TINY = Path("data/visualglm_tiny")
IMAGES = Path("data/background_synthetic/images")
QUESTIONS = [
    ("这张图片的背景里有什么内容？", "test_000.png"),
    ("What is in the picture?", "test_001.png"),
    ("How many things are there?\nAnswer with one word.", "test_002.png"),
    ("Please repeat: black 140 15", None),
    ("图中有什么颜色？", "test_003.png"),
]


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return load_pretrained(TINY, dtype="float32")


def question(text: str, *visuals: Any, name: str = "task/test/0") -> Question:
    return Question(name, text, lambda: list(visuals))


def shared(name: str) -> Image.Image:
    with Image.open(IMAGES / name) as picture:
        return picture.convert("RGB")


@pytest.fixture
def questions() -> list[Question]:
    return [
        question(text, *([] if name is None else [shared(name)]), name=f"task/test/{row}")
        for row, (text, name) in enumerate(QUESTIONS)
    ]


@pytest.fixture
def samples() -> list[Sample]:
    """What the same questions are when a reader of this package reads them."""
    return [
        sample(
            str(row),
            (text, ""),
            image=None if name is None else IMAGES / name,
            language="en" if text.isascii() else "zh",
        )
        for row, (text, name) in enumerate(QUESTIONS)
    ]


# --- answers ----------------------------------------------------------------------------------------------------------


def test_answers_are_those_of_an_evaluation(
    loaded: tuple[Any, Any], questions: list[Question], samples: list[Sample]
) -> None:
    expected = [
        prediction.prediction for prediction in generate_predictions(*loaded, samples, Decoding(max_new_tokens=12))
    ]
    assert len(set(expected)) == len(QUESTIONS)
    for batch_size in (1, 3):
        answers = answer_questions(*loaded, questions, [{}] * len(QUESTIONS), batch_size=batch_size, max_new_tokens=12)
        assert answers == expected


def test_a_placeholder_for_the_picture_is_no_part_of_the_question(loaded: tuple[Any, Any]) -> None:
    picture = shared("test_001.png")
    pair = [question("What is in the picture?", picture), question("<image>\nWhat is in the picture?", picture)]
    plain, marked = answer_questions(*loaded, pair, [{}] * 2, max_new_tokens=12)
    assert plain == marked


def test_settings_belong_to_their_question(loaded: tuple[Any, Any], samples: list[Sample]) -> None:
    five = [question(QUESTIONS[0][0], shared("test_000.png"), name=f"task/test/{row}") for row in range(5)]
    whole, short = (
        generate_predictions(*loaded, samples[:1], Decoding(max_new_tokens=limit))[0].prediction for limit in (24, 2)
    )
    stop, later = whole[3], whole[5:7]
    assert stop not in whole[:3]
    settings: list[dict[str, Any]] = [
        {"max_new_tokens": 24, "until": None, "do_sample": False, "temperature": 0.7, "image_aspect_ratio": "original"},
        {"max_new_tokens": 2, "until": ["\n\n"]},
        {"max_new_tokens": 24, "until": [later, "", stop], "do_sample": True, "temperature": 0.0},
        {"max_new_tokens": 24, "until": stop, "temperature": 0},
        {"until": ["not in it"], "num_beams": 1, "top_p": None},
    ]
    answers = answer_questions(*loaded, five, settings, batch_size=2, max_new_tokens=24)
    assert answers == [whole, short, whole[:3], whole[:3], whole]
    assert 0 < len(short) < len(whole)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"do_sample": True}, "do_sample=True, temperature=None"),
        ({"temperature": 0.2}, "do_sample=None, temperature=0.2"),
        ({"num_beams": 3}, "num_beams=3"),
        ({"repetition_penalty": 1.2}, "repetition_penalty=1.2"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
    ],
)
def test_what_a_greedy_answer_cannot_follow_is_refused(
    loaded: tuple[Any, Any], settings: dict[str, Any], named: str
) -> None:
    three = [question("Is it red?", name=f"colours/test/{row}") for row in range(3)]
    with pytest.raises(ConfigError, match=f"{named}.*, first in colours/test/1.*--gen_kwargs"):
        answer_questions(*loaded, three, [{}, settings, settings])


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_several_pictures_are_refused_or_counted(loaded: tuple[Any, Any], caplog: pytest.LogCaptureFixture) -> None:
    first, second = shared("test_000.png"), shared("test_004.png")
    several = [question("图里有什么？", first, second, name="spot/test/7"), question("图里有什么？", second)]
    with pytest.raises(DataError, match=r"one picture a question, but spot/test/7 has 2 pictures\. .*several_images"):
        answer_questions(*loaded, several, [{}] * 2)
    with caplog.at_level(logging.WARNING):
        answers = answer_questions(*loaded, several, [{}] * 2, several_images="first")
        score_continuations(*loaded, several, ["一", "二"], several_images="first")
    single = [question("图里有什么？", first), question("图里有什么？", second)]
    assert answers == answer_questions(*loaded, single, [{}] * 2)
    assert answers[0] != answers[1]
    warning = "1 of 2 questions have several pictures and were asked with the first one only"
    assert caplog.messages == [warning, warning]


@pytest.mark.parametrize("visual", ["clip.mp4", {"array": [0.0], "sampling_rate": 16000}])
def test_other_things_than_pictures_are_refused(loaded: tuple[Any, Any], visual: Any) -> None:
    with pytest.raises(DataError, match=r"clips/test/2 has (the file 'clip\.mp4'|a dict)"):
        answer_questions(*loaded, [question("What?", visual, name="clips/test/2")], [{}], several_images="first")


def test_a_picture_that_cannot_be_opened(
    loaded: tuple[Any, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    pair = [question("图里有什么？", str(tmp_path / "bad.png"), name="a/test/0"), question("图里有什么？", name="b")]
    answers = answer_questions(*loaded, pair, [{}] * 2)
    assert answers[0] == ""
    assert answers[1]
    assert [message[:28] for message in caplog.messages] == ["1 of 2 answers are empty: im"]
    with pytest.raises(DataError, match="pictures of a/test/0 cannot be opened"):
        score_continuations(*loaded, pair, ["是", "是"])


def test_few_pictures_are_open_at_once(loaded: tuple[Any, Any]) -> None:
    open_now: weakref.WeakValueDictionary[int, Image.Image] = weakref.WeakValueDictionary()
    most = 0

    def opening(row: int) -> Callable[[], list[Image.Image]]:
        def open_visuals() -> list[Image.Image]:
            nonlocal most
            picture = Image.new("RGB", (8, 8), (row, 0, 0))
            open_now[row] = picture
            most = max(most, len(open_now))
            return [picture]

        return open_visuals

    thirty = [Question(f"task/test/{row}", f"问题{row}？", opening(row)) for row in range(30)]
    answer_questions(*loaded, thirty, [{}] * 30, batch_size=2, max_new_tokens=1)
    assert 1 < most <= 2 * (2 * BATCHES_IN_MEMORY)  # a chunk, and what the one before it has left behind


@pytest.mark.parametrize(
    ("wrong", "match"), [({"batch_size": 0}, "batch_size must be"), ({"several_images": "all"}, "refuse or first")]
)
def test_wrong_arguments_are_named(loaded: tuple[Any, Any], wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        answer_questions(*loaded, [question("?")], [{}], **wrong)
    with pytest.raises(ConfigError, match=match):
        score_continuations(*loaded, [question("?")], ["!"], **wrong)


# --- likelihoods ------------------------------------------------------------------------------------------------------


def test_likelihoods_are_those_of_the_choices(
    loaded: tuple[Any, Any], questions: list[Question], samples: list[Sample]
) -> None:
    choices = ["沙滩上", "A red ball.", "no"]
    expected = [score for scores in score_choices(*loaded, samples, choices) for score in scores]
    repeated = [one for one in questions for _ in choices]
    likelihoods = score_continuations(
        *loaded, repeated, [f" {choice}" for choice in choices] * len(questions), batch_size=2
    )
    for score, likelihood in zip(expected, likelihoods, strict=True):
        assert math.isclose(likelihood.log_likelihood, score.log_likelihood, rel_tol=1e-5)
    reversed_order = score_continuations(*loaded, repeated[::-1], choices[::-1] * len(questions), batch_size=2)
    for likelihood, other in zip(likelihoods, reversed_order[::-1], strict=True):
        assert math.isclose(likelihood.log_likelihood, other.log_likelihood, rel_tol=1e-5)


def test_only_the_whole_greedy_answer_is_greedy(loaded: tuple[Any, Any], questions: list[Question]) -> None:
    answer = answer_questions(*loaded, questions[:1], [{}])[0]
    continuations = [answer, answer[:-2], f"{answer}再见。", "是", answer]
    results = score_continuations(*loaded, questions[:1] * 5, continuations)
    assert [result.is_greedy for result in results] == [True, False, False, False, True]
    assert results[-1] == results[0]
    assert max(result.log_likelihood for result in results) == results[0].log_likelihood


# --- lmms-eval --------------------------------------------------------------------------------------------------------


def test_the_entry_point_is_the_manifest() -> None:
    groups = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    value = groups["lmms_eval.models"]["vglm"]
    assert EntryPoint("vglm", value, "lmms_eval.models").load() is vglm.harness_bridge.manifest


@pytest.fixture
def registered() -> Any:
    """The class as lmms-eval's own registry gives it."""
    pytest.importorskip("lmms_eval", reason="lmms-eval is not installed beside the workbench")
    from lmms_eval.models.registry_v2 import ModelRegistryV2

    registry = ModelRegistryV2()
    registry.register_manifest(vglm.harness_bridge.manifest())
    return registry.get_model_class("vglm")


TASK = """
task: {name}
dataset_path: parquet
dataset_kwargs: {{data_files: {{test: {folder}/rows.parquet}}}}
test_split: test
output_type: {output_type}
doc_to_visual: !function utils.visuals
doc_to_text: question
{more}
metric_list: [{{metric: {metric}, aggregation: mean, higher_is_better: true}}]
metadata: [{{version: 0.0}}]
"""

TASK_UTILS = """
def visuals(doc):
    return [] if doc["image"] is None else [doc["image"].convert("RGB")]
"""


def write_tasks(folder: Path) -> None:
    """Two tasks over one file, one that generates and one of multiple choice, as a user writes them for lmms-eval."""
    answer = "doc_to_target: question\ngeneration_kwargs: {max_new_tokens: 12}"
    choose = "doc_to_target: gold\ndoc_to_choice: choices"
    for name, output_type, metric, more in (
        ("vglm_answer", "generate_until", "exact_match", answer),
        ("vglm_choose", "multiple_choice", "acc", choose),
    ):
        text = TASK.format(name=name, folder=folder, output_type=output_type, metric=metric, more=more)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    (folder / "utils.py").write_text(TASK_UTILS, encoding="utf-8")


@pytest.mark.filterwarnings("ignore")
def test_lmms_eval_gets_the_same_answers_and_likelihoods(
    registered: Any, loaded: tuple[Any, Any], samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import Dataset, Features, Image, Sequence, Value
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    choices = ["海面上。", "沙滩上。", "In the snow."]
    likeliest = [
        max(scores, key=lambda score: score.log_likelihood).choice
        for scores in score_choices(*loaded, samples, choices)
    ]
    gold = [choices.index(choice) for choice in likeliest]
    gold[-1] = (gold[-1] + 1) % 3  # one is to be counted as wrong
    rows = [
        {"image": sample.image and str(sample.image), "question": sample.question, "choices": choices, "gold": label}
        for sample, label in zip(samples, gold, strict=True)
    ]
    columns = {
        "image": Image(),
        "question": Value("string"),
        "choices": Sequence(Value("string")),
        "gold": Value("int64"),
    }
    Dataset.from_list(rows, features=Features(columns)).to_parquet(tmp_path / "rows.parquet")
    write_tasks(tmp_path)
    results = simple_evaluate(
        model=registered(str(TINY), batch_size="2", device="cpu", dtype="float32"),
        tasks=["vglm_answer", "vglm_choose"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False, model_name="vglm"),
        bootstrap_iters=0,
    )
    answers = sorted(results["samples"]["vglm_answer"], key=lambda row: row["doc_id"])
    expected = [
        prediction.prediction for prediction in generate_predictions(*loaded, samples, Decoding(max_new_tokens=12))
    ]
    assert [row["filtered_resps"][0] for row in answers] == expected
    assert results["results"]["vglm_choose"]["acc,none"] == pytest.approx(4 / 5)


@pytest.mark.filterwarnings("ignore")
def test_lmms_eval_is_told_what_cannot_be_asked(registered: Any) -> None:
    from lmms_eval.api.instance import Instance

    with pytest.raises(ConfigError, match="batch_size must be a positive integer, got 'auto'"):
        registered(str(TINY), batch_size="auto")
    model = registered(str(TINY))
    metadata = {"task": "talk", "doc_id": 0, "repeats": 1}
    with pytest.raises(ConfigError, match="talk goes over several rounds"):
        model.generate_until_multi_round([Instance("generate_until_multi_round", (), 0, metadata)])
    with pytest.raises(ConfigError, match="acc_mutual_info"):
        model.loglikelihood([Instance("loglikelihood", ("", "yes"), 0, metadata)])
    model.clean()
    assert not hasattr(model, "model")
