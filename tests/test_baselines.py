import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from vglm.data.sample import Sample, Turn
from vglm.errors import ConfigError
from vglm.evaluation.predict.answers import Answers, Shots
from vglm.evaluation.predict.examples import draw_examples, nearest_answers, put_in_context, vision_features
from vglm.evaluation.predictions import Arm, Prediction, unanswered
from vglm.evaluation.score.baselines import Baseline, collect_baselines, read_baselines, write_baselines
from vglm.evaluation.score.settings import MetricSettings
from vglm.model.loading import load_pretrained


def sample(name: str, answer: str, question: str = "背景？", image: Path | Image.Image | None = None) -> Sample:
    return Sample(id=name, group=name, image=image, turns=(Turn(question, answer),))


TRAIN = [
    sample("0", "海上"),
    *(sample(str(row), answer) for row, answer in enumerate(("沙漠", "沙滩", "沙滩", "沙地"), 1)),
]
TRAIN += [sample(name, "是", "有人吗？") for name in ("5", "6", "7")]
TEST = [unanswered(sample("a", "沙滩"), "test"), unanswered(sample("b", "海上"), "test")]
TEST += [unanswered(sample("c", "是", "有人吗？"), "test"), unanswered(sample("d", "否", "还有吗？"), "test")]
RETENTION = unanswered(sample("p", "海"), "retention")


def scores(train: list[Sample], answers: Answers, **options: Any) -> dict[str, dict[str, float | None]]:
    return {str(baseline.name): dict(baseline.scores) for baseline in collect_baselines(train, answers, **options)}


def test_each_baseline_is_what_it_says() -> None:
    text_only = [replace(TEST[0], prediction="沙滩"), *TEST[1:]]
    records = {"after": [*TEST, RETENTION], "after-text-only": text_only}
    actual = scores(TRAIN, Answers("after", records, nearest=["沙滩", "海上", "是", "是"]))
    assert list(actual) == [
        "constant answer",
        "majority class",
        "random training answer",
        "nearest neighbour",
        "text only",
    ]
    assert actual["constant answer"]["exact_match"] == 0.25  # 是, three of eight
    assert actual["constant answer"]["rouge_l_characters"] == pytest.approx(0.25)
    assert actual["majority class"]["exact_match"] == 0.5  # 沙滩 here, 是 there and where the question is new
    assert actual["nearest neighbour"]["exact_match"] == 0.75
    assert actual["text only"]["exact_match"] == 0.25


def test_the_constant_answer_is_chosen_for_each_metric_on_the_training_split() -> None:
    train = [
        sample(str(row), answer) for row, answer in enumerate(("沙漠沙漠天空", "沙漠沙漠海", "沙漠沙漠山", "森", "森"))
    ]
    test = [unanswered(sample("a", "森"), "test"), unanswered(sample("b", "沙漠沙漠山"), "test")]
    (constant, *_) = collect_baselines(train, Answers("true", {"true": test}))
    assert constant.scores["exact_match"] == 0.5
    # On the training split 沙漠沙漠海 and 沙漠沙漠山 score (0.727 + 1 + 0.8) / 5, 森 0.4: by ROUGE-L the first of them
    assert constant.scores["rouge_l_characters"] == pytest.approx(0.4)
    assert "exact_match: 森; rouge_l_characters: 沙漠沙漠海" in str(constant.meaning)


def test_random_answers_come_near_to_their_expectation_and_follow_the_seed() -> None:
    train = [sample("0", "甲"), sample("1", "乙"), sample("2", "乙"), sample("3", "乙")]
    test = [unanswered(sample(str(row), "甲"), "test") for row in range(100)]
    drawn = [scores(train, Answers("true", {"true": test}), seed=seed) for seed in (1, 1, 2)]
    values = [by_name["random training answer"]["exact_match"] for by_name in drawn]
    assert values[0] == pytest.approx(0.25, abs=0.04)  # of 2,000 draws: four standard errors
    assert values[0] == values[1] != values[2]


def test_metrics_are_those_of_the_config_and_undefined_scores_are_left_out() -> None:
    metrics = MetricSettings(["vqa_accuracy", "accuracy"], labels=["沙滩", "海上", "是"]).of_texts()
    actual = scores(TRAIN, Answers("after", {"after": TEST}), metrics=metrics)  # 否 is no such label
    assert actual["majority class"] == {"vqa_accuracy": 0.5}
    with pytest.raises(ConfigError, match="did you mean 'accuracy'"):
        MetricSettings(["acuracy"])


def test_several_accepted_answers_teach_the_most_frequent_one() -> None:
    train = [sample("0", '["是", "否", "是"]')]
    test = [unanswered(sample("a", "是"), "test")]
    assert scores(train, Answers("true", {"true": test}))["majority class"]["exact_match"] == 1.0


def test_without_what_it_needs_a_baseline_is_left_out(tmp_path: Path) -> None:
    assert collect_baselines(TRAIN, Answers("after", {"after": [RETENTION]})) == []
    assert collect_baselines([], Answers("after", {"after": TEST})) == []
    write_baselines([Baseline(name="text only", meaning="没有图片", scores={"exact_match": 0.5})], tmp_path)
    assert json.loads((tmp_path / "baselines.json").read_text(encoding="utf-8")) == [
        {"name": "text only", "meaning": "没有图片", "scores": {"exact_match": 0.5}, "n": None, "intervals": {}}
    ]


def test_a_rule_has_its_n_and_the_interval_of_the_primary_metric(tmp_path: Path) -> None:
    train = [sample(str(row), "甲" if row < 3 else "乙") for row in range(5)]
    test = [unanswered(sample(f"test{row}", "甲" if row < 4 else "乙"), "test") for row in range(10)]
    baselines = {baseline.name: baseline for baseline in collect_baselines(train, Answers("after", {"after": test}))}
    for name in ("majority class", "constant answer"):  # Wilson's interval of 4 of 10
        assert baselines[name].n == 10
        assert baselines[name].intervals == {"exact_match": pytest.approx((0.168180, 0.687326), abs=1e-6)}
    assert (baselines["random training answer"].n, baselines["random training answer"].intervals) == (10, {})
    write_baselines(baselines.values(), tmp_path)
    assert {baseline.name: baseline for baseline in read_baselines(tmp_path)} == baselines


@pytest.fixture(scope="module")
def loaded(reference: Path) -> tuple[Any, Any]:
    return load_pretrained(reference / "hf_layout", dtype="float32")


@pytest.fixture
def pictures(reference: Path) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted((reference / "images").glob("*.png"))[:3]]


def test_features_are_the_mean_of_the_qformers_slots(
    loaded: tuple[Any, Any], pictures: list[Image.Image], tmp_path: Path
) -> None:
    model, processor = loaded
    samples = [sample(str(row), "甲", image=picture) for row, picture in enumerate(pictures)]
    samples[1:1] = [sample("text", "甲"), sample("absent", "甲", image=tmp_path / "no.png")]
    features = vision_features(model, processor, samples, batch_size=2)
    assert sorted(features) == [0, 3, 4]
    pixels = processor.image_processor([pictures[1]], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        patches = model.model.vision_model(pixels).last_hidden_state
        slots = model.model.qformer(query_embeds=model.model.query_tokens, encoder_hidden_states=patches)
    expected = slots.last_hidden_state[0].mean(0)
    torch.testing.assert_close(features[3], expected / expected.norm(), rtol=1e-4, atol=1e-5)


def test_the_nearest_image_of_the_same_question_answers(
    loaded: tuple[Any, Any], pictures: list[Image.Image], tmp_path: Path
) -> None:
    train = [sample(str(row), f"第{row}张", image=picture) for row, picture in enumerate(pictures)]
    train.append(sample("other", "别的", "别的问题？", image=pictures[0]))
    bright = pictures[1].point(lambda value: min(255, value + 2))
    test = [
        sample("a", "", image=bright),
        sample("b", "", "别的问题？", image=pictures[2]),
        sample("c", "", "新问题？", image=pictures[2]),
        sample("d", "", "别的问题？", image=tmp_path / "no.png"),
    ]
    assert nearest_answers(*loaded, train, test) == ["第1张", "别的", "第2张", "别的"]
    assert nearest_answers(*loaded, [sample("text", "甲")], test) == []


class MadeOnDemand(Sequence[Sample]):
    """Samples whose pictures are made anew at each access, and gone afterwards, as those of the worlds."""

    def __init__(self, pictures: list[Image.Image], indices: Sequence[int]) -> None:
        self.pictures, self.indices = pictures, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        number = self.indices[index]
        return sample(str(index), f"第{number}张", image=self.pictures[number].copy())


def test_pictures_that_are_made_on_demand_are_not_confused(
    loaded: tuple[Any, Any], pictures: list[Image.Image]
) -> None:
    test = MadeOnDemand(pictures, [2, 0, 1, 1, 2, 0])
    assert nearest_answers(*loaded, MadeOnDemand(pictures, [0, 1, 2]), test) == [
        f"第{number}张" for number in test.indices
    ]


def test_the_same_predictions_give_the_same_baselines() -> None:
    records: dict[str, list[Prediction]] = {"true": TEST, "text-only": TEST}
    first, second = (collect_baselines(TRAIN, Answers("true", records)) for _ in range(2))
    assert first == second


# --- examples in the context ------------------------------------------------------------------------------------------


def test_examples_are_drawn_by_seed_and_a_wrong_number_is_refused() -> None:
    drawn = [[example.id for example in draw_examples(TRAIN, 3, seed)] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 3
    assert sorted(example.id for example in draw_examples(TRAIN, 99, 1)) == sorted(example.id for example in TRAIN)
    assert draw_examples(TRAIN, 0, 1) == draw_examples([], 4, 1) == []
    for wrong in (-1, 2.5, True):
        with pytest.raises(ConfigError, match="shots_in_context must be a positive integer, or 0 for none, got"):
            draw_examples(TRAIN, wrong, 1)  # type: ignore[arg-type]


def test_examples_stand_before_every_question_in_text(loaded: tuple[Any, Any], pictures: list[Image.Image]) -> None:
    dialogue = Sample("x", "x", pictures[0], (Turn("几个人？", "两个"), Turn("他们呢？", '["坐着", "站着", "坐着"]')))
    test = [sample("a", "沙滩", image=pictures[1]), replace(dialogue, id="b", image=None)]
    shots = put_in_context([TRAIN[0], dialogue], test, *loaded, max_new_tokens=8, label="before")
    assert shots is not None
    assert (shots.arm.label, shots.count) == ("before-in-context", 2)
    before = (Turn("几个人？", "两个"), Turn("他们呢？", "坐着"), Turn("背景？", "海上"))
    assert [shot.turns for shot in shots.samples] == [(*before, *question.turns) for question in test]
    assert [shot.image for shot in shots.samples] == [pictures[1], None]
    assert "the examples' images are not shown" in str(shots.arm.meaning)
    assert put_in_context([], test, *loaded, max_new_tokens=8) is None
    assert put_in_context(TRAIN, [], *loaded, max_new_tokens=8) is None


def test_as_many_examples_are_shown_as_fit_and_none_is_cut(
    loaded: tuple[Any, Any], pictures: list[Image.Image]
) -> None:
    model, processor = loaded
    test = [sample("a", "沙滩", image=pictures[0]), sample("b", "沙滩", "他们在哪里？" * 9, image=pictures[0])]
    examples = [sample(str(row), f"第{row}张" * 40) for row in range(30)]

    def longest(shots: Shots) -> int:
        """Tokens of the longest prompt, its answer's room included."""
        rows = [
            processor(images=shot.image, text=shot.question, history=shot.history, return_tensors="pt").input_ids
            for shot in shots.samples
        ]
        return max(int(row.shape[1]) for row in rows) + 20

    limit = model.config.text_config.max_position_embeddings
    shots = put_in_context(examples, test, model, processor, 20)
    assert shots is not None
    assert 0 < shots.count < 30
    turns = shots.samples[0].turns
    assert [turn.answer for turn in turns[:-1]] == [example.answer for example in reversed(examples[: shots.count])]
    assert longest(shots) <= limit
    one_more = [
        replace(shot, turns=(Turn("背景？", examples[shots.count].answer), *shot.turns)) for shot in shots.samples
    ]
    assert longest(Shots(shots.arm, 0, one_more)) > limit
    assert f"of 30 no more fit into its {limit:,} tokens" in str(shots.arm.meaning)


def test_where_no_example_fits_there_is_no_baseline_and_that_is_said(
    loaded: tuple[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    long = [sample("long", "长" * 3000), sample("short", "短")]
    shots = put_in_context(long, [sample("a", "沙滩")], *loaded, max_new_tokens=8)
    assert shots is not None
    assert (shots.count, list(shots.samples)) == (0, [])
    assert "not one of 2 training examples fits" in caplog.text
    named = collect_baselines([], Answers("true", {"true": TEST}, shots=shots))
    assert [(str(baseline.name), dict(baseline.scores)) for baseline in named] == [("k-shot in context", {})]
    assert str(named[0].meaning).startswith("not asked: beside 8 tokens for the answer")


def test_answers_after_examples_are_a_baseline_of_their_own() -> None:
    shots = Shots(Arm(label="before-in-context", meaning="after two"), 2, ())
    records = {"after": TEST, "before-in-context": [replace(record, prediction=record.reference) for record in TEST]}
    baselines = collect_baselines([], Answers("after", records, shots=shots))
    assert [(str(baseline.name), baseline.meaning, baseline.scores["exact_match"]) for baseline in baselines] == [
        ("2-shot in context", "after two", 1.0)
    ]


class OnDemand(list[Sample]):
    """A training set that is made as it is read, and counts how often that happens."""

    def __init__(self) -> None:
        super().__init__()
        self.made = 0

    def __len__(self) -> int:
        return 400_000

    def __getitem__(self, index: Any) -> Any:
        self.made += 1
        return sample(str(index), "沙滩" if index % 3 else "海上")


def test_a_training_set_that_is_made_on_demand_is_not_made_whole() -> None:
    train = OnDemand()
    (majority,) = [
        baseline
        for baseline in collect_baselines(train, Answers("after", {"after": TEST}))
        if baseline.name == "majority class"
    ]
    assert majority.scores["exact_match"] == 0.25
    assert "in the 5,000/400,000 training samples" in str(majority.meaning)
    assert train.made < 6000
