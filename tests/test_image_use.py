from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vglm.config import repo_root
from vglm.data.loading import load_dataset
from vglm.data.sample import Sample, Turn
from vglm.errors import ConfigError, DataError
from vglm.evaluation.predict.controls import (
    BLANK_COLOUR,
    Control,
    blank_images,
    image_controls,
    make_controls,
    neighbour_images,
    shuffle_images,
)
from vglm.evaluation.predict.generation import generate_predictions
from vglm.evaluation.predictions import Arm, Evaluation, Prediction, unanswered, write_predictions
from vglm.evaluation.score.comparison import compare
from vglm.evaluation.score.image_use import read_visual_gains
from vglm.evaluation.score.statistics import PairedComparison
from vglm.model.loading import load_pretrained


def sample(
    name: str, image: Path | Image.Image | None, question: str = "？", answer: str = "答案", **meta: str
) -> Sample:
    return Sample(id=name, group=name, image=image, turns=(Turn(question, answer),), meta=meta)


def red(value: int) -> Image.Image:
    return Image.new("RGB", (1, 1), (value, 0, 0))


def reds(samples: Sequence[Sample]) -> list[int]:
    return [shown.image.getpixel((0, 0))[0] for shown in samples]  # type: ignore[union-attr, index, misc]


def colours(names: list[int]) -> list[Sample]:
    return [sample(str(row), red(name), f"{row}?") for row, name in enumerate(names)]


@given(names=st.lists(st.integers(0, 5), min_size=2, max_size=12), seed=st.integers(0, 5))
def test_shuffled_images_are_always_other_images(names: list[int], seed: int) -> None:
    before = colours(names)
    if 2 * max(map(names.count, names)) > len(names):
        with pytest.raises(DataError, match="cannot be shuffled"):
            shuffle_images(before, seed)
        return
    after = shuffle_images(before, seed)
    pixels = [[row.image.getpixel((0, 0)) for row in rows] for rows in (before, after)]  # type: ignore[union-attr]
    assert all(old != new for old, new in zip(*pixels, strict=True))
    assert sorted(pixels[0]) == sorted(pixels[1])
    assert [row.turns for row in before] == [row.turns for row in after]
    assert [id(row.image) for row in after] == [id(row.image) for row in shuffle_images(before, seed)]


def test_shuffling_follows_the_seed_and_leaves_text_alone(tmp_path: Path) -> None:
    rows = [*colours(list(range(20))), sample("text", None, "你好"), sample("absent", tmp_path / "no.png", "？")]
    orders = {tuple(id(row.image) for row in shuffle_images(rows, seed)) for seed in range(5)}
    assert len(orders) > 1
    assert shuffle_images(rows, 0)[20:] == rows[20:]


def test_a_blank_image_is_zero_to_the_model(reference: Path) -> None:
    blank = blank_images([sample("a", red(9)), sample("text", None)])
    assert blank[0].image.getcolors() == [(224 * 224, BLANK_COLOUR)]  # type: ignore[union-attr]
    assert blank[1].image is None
    _, processor = load_pretrained(reference / "hf_layout")
    pixels = processor.image_processor([blank[0].image], return_tensors="pt")["pixel_values"]
    assert float(pixels.abs().max()) < 0.01


def test_a_neighbour_has_the_same_answer_and_another_image_of_another_group(tmp_path: Path) -> None:
    rows = [
        sample("a", red(1), answer="海"),
        sample("b", red(2), answer=" 海 "),
        sample("c", red(1), answer="海"),  # the image of a
        sample("d", red(4), answer="山"),
        sample("e", red(5), answer="海", kind="other"),
        sample("f", tmp_path / "no.png", answer="海"),
        sample("text", None, answer="海"),
    ]
    neighbours = neighbour_images(rows, rows, seed=1)
    assert [row.id for row in neighbours] == ["a", "b", "c"]
    assert reds(neighbours) == [2, 1, 2]
    twins = [replace(row, group="one patient") for row in rows[:2]]
    assert neighbour_images(twins, twins, seed=1) == []


def test_controls_are_drawn_by_seed_and_only_from_questions_about_images() -> None:
    rows = [sample(str(index), red(index), answer=str(index % 2)) for index in range(30)] + [sample("text", None)]
    controls = image_controls(rows, max_samples=8, seed=1)
    assert [control.arm.label for control in controls] == ["blank", "shuffled", "neighbour"]
    names = [[shown.id for shown in control.samples] for control in controls]
    assert len(names[0]) == 8
    assert "text" not in names[0]
    assert names[0] == names[1] == names[2]
    assert names[0] == sorted(names[0], key=int)
    assert image_controls(rows, max_samples=8, seed=1)[2] == controls[2]
    assert [shown.id for shown in image_controls(rows, max_samples=8, seed=2)[0].samples] != names[0]
    assert controls[0].of("before").arm.label == "before-blank"


def test_controls_that_the_data_does_not_allow_are_left_out() -> None:
    same = [sample(str(index), red(1), answer=str(index)) for index in range(3)]
    assert [control.arm.label for control in image_controls(same, max_samples=9, seed=1)] == ["blank"]
    assert image_controls([sample("text", None)], max_samples=9, seed=1) == ()
    assert make_controls({"retention": same}, 9, True, 1) == ()
    (text_only,) = make_controls({"test": same}, 0, True, 1)
    assert (text_only.arm.label, text_only.is_for_candidate) == ("text-only", True)
    assert [shown.image for shown in text_only.samples] == [None] * 3
    with pytest.raises(ConfigError, match="image_use_samples must be a positive integer, got -1"):
        make_controls({"test": same}, -1, True, 1)


@pytest.fixture(scope="module")
def scenes() -> list[Sample]:
    """Twenty questions about images that the tiny model answers well."""
    retention = load_dataset(repo_root() / "data" / "background_synthetic", retention="probe.json").retention
    return [scene for scene in retention if scene.image is not None and scene.meta["kind"] in ("place", "colour")][:20]


def answers(loaded: tuple[Any, Any], scenes: list[Sample]) -> tuple[list[Prediction], dict[str, list[Prediction]]]:
    controls: tuple[Control, ...] = image_controls(scenes, max_samples=12, seed=1)
    controlled = {control.arm.label: generate_predictions(*loaded, control.samples) for control in controls}
    return generate_predictions(*loaded, scenes), controlled


def visual_gains(
    true: list[Prediction], controls: dict[str, list[Prediction]], metric: str, folder: Path
) -> dict[str, PairedComparison]:
    """What a report reads from the folder: control -> score with the true image against that with the control's."""
    arms = Arm(label="before", meaning=""), Arm(label="after", meaning="")
    for label, records in controls.items():
        write_predictions(records, folder / f"after-{label}" / "predictions.jsonl")
    evaluation = Evaluation(
        title="", summary="", purpose="tuning", baseline=arms[0], candidate=arms[1], facts={}, decoding={}, command="",
        versions={}, config="", created="",
    )  # fmt: skip
    gains = read_visual_gains(folder, evaluation, compare(true, true, metrics=[metric]))
    return {gain.control: gain.result for gain in gains}


def test_a_model_that_looks_gains_by_the_image_and_one_that_does_not_gains_nothing(
    scenes: list[Sample], tmp_path: Path
) -> None:
    model, processor = load_pretrained(repo_root() / "data" / "visualglm_tiny", dtype="float32")
    true, controls = answers((model, processor), scenes)
    gains = visual_gains(true, controls, "exact_match", tmp_path)
    for label in ("shuffled", "blank"):
        gain = gains[label]
        assert gain.difference > 0.4
        assert gain.interval[0] > 0
        assert gain.n == 12
    with torch.no_grad():
        model.model.language_projection.weight.zero_()  # every image is now the same to the language model
    true, controls = answers((model, processor), scenes)
    assert any(record.prediction for record in true)
    for metric in ("exact_match", "rouge_l_characters"):
        gains = visual_gains(true, controls, metric, tmp_path)
        for label in ("shuffled", "blank"):
            assert gains[label].difference == 0.0
            assert gains[label].interval[0] <= 0.0 <= gains[label].interval[1]
            assert gains[label].p_value == 1.0


def test_draws_are_paired_and_a_question_counts_once(tmp_path: Path) -> None:
    records = [replace(unanswered(sample(name, None), "test"), draw=draw) for name in "ab" for draw in range(2)]
    true = [replace(record, prediction=record.reference) for record in records]
    control = [
        replace(record, prediction=record.reference if record.key == ("test", "a", 1) else "?") for record in records
    ]
    gain = visual_gains(true, {"shuffled": control[::-1]}, "exact_match", tmp_path)["shuffled"]
    assert (gain.n, gain.groups, gain.before, gain.after, gain.difference) == (2, 2, 0.25, 1.0, 0.75)
