import re
from pathlib import Path

import pytest
from PIL import Image
from test_report import EVALUATION, record
from vglm.evaluation.report.strings import STRINGS
from vglm.evaluation.report.translation import TEMPLATES, translate

from vglm.data.sample import Sample, Turn
from vglm.evaluation.predict.baselines import Answers, collect_baselines
from vglm.evaluation.predict.image_use import make_controls
from vglm.evaluation.predict.provenance import provenance, synthetic_stamps
from vglm.evaluation.score.forgetting import describe_choice
from vglm.evaluation.score.statistics import compare_paired
from vglm.runs import CheckpointScore, ForgettingRecord
from vglm.tuning.forgetting import choose

SENTENCE = re.compile(r"[a-z]+ [a-z]+ [a-z]+")
"""Three English words in a row."""


def test_places_are_the_same_in_both_languages() -> None:
    for english, chinese in [*TEMPLATES.items(), *STRINGS.values()]:
        assert set(re.findall(r"\{(\w+)\}", chinese)) <= set(re.findall(r"\{(\w+)\}", english)), english


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        (
            "tiny tuned with LoraConfig on 1,020 samples of radiograph splits. Scored on 120 test samples and 7 probe"
            " samples.",
            "tiny，用 LoraConfig 在 radiograph splits 的 1,020 条样本上调优。"
            "评分数据：120 条测试样本、7 条通用探针样本。",
        ),
        (
            "2 of 3 test samples are of groups that were trained on; 1 of 3 test samples are of groups that were"
            " trained on. The scores show memory as well as skill.",
            "3 条测试样本中有 2 条所属的组参与过训练；3 条测试样本中有 1 条所属的组参与过训练。"
            "得分既反映能力，也反映记忆。",
        ),
        ("before, each image replaced by one plain colour", "调优前，每张图像换成单一颜色"),
        ("no sentence of ours; not at all.", None),
    ],
)
def test_sentences_are_told_from_their_names_and_numbers(english: str, chinese: str | None) -> None:
    assert translate(english).en == english
    if chinese is None:
        assert "no sentence of ours" in translate(english).zh
    else:
        assert translate(english).zh == chinese


def test_all_that_the_workbench_says_of_arms_and_baselines_has_chinese() -> None:
    """Also what is said next month: the sentences come from where they are made."""
    images = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green", "blue", "gold")]
    samples = [
        Sample(id=str(row), group=str(row), image=image, turns=(Turn("哪里？", "沙滩。"),))
        for row, image in enumerate(images)
    ]
    said = [each.arm.meaning for each in make_controls({"test": samples}, 4, True, 1)]
    test = [record(str(row), "沙滩。") for row in range(4)]
    answers = Answers("after", {"after": test, "after-text-only": test}, ["沙滩。"] * 4)
    baselines = collect_baselines(samples, answers, {"names": ["exact_match"], "labels": None})
    assert len(baselines) == 5
    said += [text for each in baselines for text in (each.name, each.meaning)]
    results = [compare_paired([0, 1, 1], [1, 1, 0]), compare_paired([0, 0.5, 1], [1, 1, 0], groups=["a", "a", "b"])]
    said += [text for each in results for text in (each.test, each.interval_method)]
    said += [*provenance("seed: 1\n", None), *provenance("seed: 1\n", None).values()]
    stamps = synthetic_stamps("dataset: {_target_: vglm.worlds.star_dialogues.star_splits}")
    said += [text for each in stamps for text in (each.text, each.detail)]
    for text in said:
        assert not SENTENCE.search(translate(text).zh), text


@pytest.mark.parametrize(("domain", "probe"), [((0, 0.9), (0.8, 0.5)), ((0, 0), (0.8, 0.8)), ((0, 1), (0.8, 0.8))])
def test_what_is_said_of_a_chosen_checkpoint_has_chinese(domain: tuple[float, ...], probe: tuple[float, ...]) -> None:
    scores = [CheckpointScore(10 * row, *pair, 40, 162) for row, pair in enumerate(zip(domain, probe, strict=True))]
    choice = choose(scores, 5)
    assert choice is not None
    facts = ForgettingRecord(
        chosen_step=choice.step,
        reason=str(choice),
        domain_split="validation",
        probe="the general probe",
        stopped_early=True,
        warning=choice.warning,
    )
    said, stamps = describe_choice(facts, {})
    for text in (*said.values(), *(text for each in stamps for text in (each.text, each.detail))):
        assert not SENTENCE.search(translate(text).zh), translate(text).zh
    for stamp in stamps:
        assert stamp.text not in stamp.detail


def test_generated_data_is_stamped(tmp_path: Path) -> None:
    nested = "dataset: {parts: [{_target_: vglm.worlds.pretraining.scene_splits}]}"
    assert "scene_splits" in synthetic_stamps(nested)[0].detail
    config = f"dataset: {{_target_: vglm.data.loading.load_splits, path: {tmp_path}}}"
    assert synthetic_stamps(config) == synthetic_stamps(EVALUATION.config) == ()
    (tmp_path / "SYNTHETIC").touch()
    assert synthetic_stamps(config)[0].text == "SYNTHETIC DATA"
    shipped = Path(__file__).parents[1] / "data" / "background_synthetic"
    assert synthetic_stamps(f"dataset: {{path: {shipped / 'test.json'}}}")


def test_provenance_changes_with_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(b"one")
    first = provenance("seed: 1\n", tmp_path / "adapter")
    assert first == provenance("seed: 1\n", tmp_path / "adapter")
    assert re.fullmatch(r"(commit [0-9a-f]{12}( with changes)?, )?sources sha256 [0-9a-f]{16}", first["code"])
    weights.write_bytes(b"two")
    second = provenance("seed: 2\n", tmp_path / "adapter")
    assert first["tuned weights"] != second["tuned weights"]
    assert first["config"] != second["config"]
    assert "tuned weights" not in provenance("seed: 1\n", None)
