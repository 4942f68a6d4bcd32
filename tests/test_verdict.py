"""What a verdict may claim: content before form, no use of images at the floor, no skill on one answer."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from builders import arm, record
from omegaconf import OmegaConf

from vglm.config import compose, repo_root, take_from_run
from vglm.config.run_config import metrics_of_run
from vglm.errors import ConfigError
from vglm.evaluation.predictions import Arm, Evaluation, Prediction, write_evaluation, write_predictions
from vglm.evaluation.report.section import Scored
from vglm.evaluation.report.sections import changes as changes_section
from vglm.evaluation.report.sections import forgetting as forgetting_section
from vglm.evaluation.report.sections import image_use as image_use_section
from vglm.evaluation.report.sections import slices as slices_section
from vglm.evaluation.report.sections import summary as summary_section
from vglm.evaluation.score.comparison import Comparison, compare, judge_change, judge_gain
from vglm.evaluation.score.scoring import read_comparison
from vglm.evaluation.score.settings import MetricSettings
from vglm.text.messages import Text

PLACES = {"沙滩": ["beach"], "雪地": ["snow"]}
BY_PLACE: dict[str, Any] = {"metrics": ["accuracy", "exact_match"], "classes": PLACES}
EVALUATION = Evaluation(
    title="t", summary="s", purpose="tuning", baseline=Arm(label="before", meaning=""),
    candidate=Arm(label="after", meaning=""), facts={}, decoding={}, command="", versions={}, config="", created="",
)  # fmt: skip
SCENE, SHORT = "{}上有四只黄色的猫。", "{}。"


def scored(comparison: Comparison, folder: Path = Path("nowhere")) -> Scored:
    return Scored(folder, EVALUATION, comparison)


def backgrounds(n: int) -> list[str]:
    return [("沙滩", "雪地")[row % 2] for row in range(n)]


def worded(n: int, form: str, right: int | None = None, **values: Any) -> list[Prediction]:
    """Answers of one form, the first ones right; the reference is `SHORT`."""
    names = backgrounds(n)
    named = [name if right is None or row < right else "海面" for row, name in enumerate(names)]
    return arm(*((SHORT.format(true), form.format(name)) for true, name in zip(names, named, strict=True)), **values)


# --- what became of the answers --------------------------------------------------------------------------------------


def test_an_answer_that_only_words_it_otherwise_is_no_gain() -> None:
    comparison = compare(worded(40, SCENE), worded(40, SHORT), **BY_PLACE)
    part = comparison.splits["test"]
    assert part.scores["exact_match"] == (0.0, 1.0)
    assert (comparison.verdict.metric.name, comparison.verdict.finding) == ("accuracy", "open")
    assert part.right == (1.0, 1.0)
    assert part.changes["right before, other wording"] == 40
    assert sum(part.changes.values()) == 40
    (line,) = changes_section.lines(scored(comparison))
    assert line.text.en.startswith("Test set: 40 of 40 answers were right before by accuracy, in other words")


def test_every_answer_is_of_one_kind_of_change() -> None:
    pairs = {
        "now right": ("海面。", "沙滩。"),
        "right before, other wording": ("沙滩上有猫。", "沙滩。"),
        "right in both": ("沙滩。", "沙滩。"),
        "right now, other wording": ("沙滩。", "A beach"),
        "wrong in both": ("海面。", "森林。"),
        "right before, wrong now": ("沙滩。", "雪地。"),
        "punctuation only": ("沙滩", "沙滩。"),
    }
    others = [("雪地。", "雪地。")]
    before, after = ([pair[side] for pair in (*pairs.values(), *others)] for side in (0, 1))
    truth = [*["沙滩。"] * len(pairs), "雪地。"]
    comparison = compare(arm(*zip(truth, before, strict=True)), arm(*zip(truth, after, strict=True)), **BY_PLACE)
    assert comparison.splits["test"].changes == {**dict.fromkeys(pairs, 1), "right in both": 2}
    assert comparison.as_dict()["splits"]["test"]["changes"] == comparison.splits["test"].changes
    assert changes_section.record(scored(comparison))["changes"]["test"]["content"] == "accuracy"


@pytest.mark.parametrize("after", ["A BEACH.", "a beach", "Ａ beach.", "A  beach .", "“A beach.”"])
def test_flips_by_punctuation_case_width_or_spaces_are_counted_apart(after: str) -> None:
    comparison = compare(arm(("A beach.", "A beach!")), arm(("A beach.", after)))
    (pair,) = comparison.splits["test"].pairs
    is_flip = pair.right[0] != pair.right[1]
    assert comparison.splits["test"].changes["punctuation only" if is_flip else "wrong in both"] == 1


def test_a_failed_answer_is_no_other_punctuation() -> None:
    changes = compare(arm(("。", None)), arm(("。", "。"))).splits["test"].changes
    assert (changes["now right"], changes["punctuation only"]) == (1, 0)


def test_without_a_metric_of_content_the_page_says_so() -> None:
    shown = changes_section.show(scored(compare(worded(8, SCENE), worded(8, SHORT))))
    assert shown is not None
    assert [split.en for split in shown["by_form"]] == ["Test set"]
    by_content = changes_section.show(scored(compare(worded(8, SCENE), worded(8, SHORT), **BY_PLACE)))
    assert by_content is not None
    assert by_content["by_form"] == []


def test_a_model_alone_is_judged_by_images_that_ask_for_another_answer(tmp_path: Path) -> None:
    """Half of the shuffled images show the same place, so that the answer stays right whether or not it looks."""
    shown = backgrounds(40)
    true = [
        replace(original, image_sha256=f"{row:064x}", kind="background")
        for row, original in enumerate(arm(*((SHORT.format(name), SHORT.format(name)) for name in shown)))
    ]
    others = [(row + 2 if row < 20 else row + 1) % 40 for row in range(40)]
    shuffled = [
        replace(original, image_sha256=f"{other:064x}", prediction=SHORT.format(shown[other]))
        for original, other in zip(true, others, strict=True)
    ]
    alone = replace(
        EVALUATION,
        purpose="image use",
        baseline=Arm(label="shuffled", meaning=""),
        candidate=Arm(label="true", meaning=""),
        config="metrics: {names: [exact_match]}",
    )
    for label, records in (("shuffled", shuffled), ("true", true)):
        write_predictions(records, tmp_path / label / "predictions.jsonl")
    write_evaluation(alone, tmp_path)
    comparison = read_comparison(tmp_path)
    unlike = sum(shown[row] != shown[other] for row, other in enumerate(others))
    assert (comparison.verdict.result.n, comparison.verdict.result.before) == (unlike, 0)
    assert comparison.gains[0].result.after == 1
    assert comparison.splits["test"].scores["exact_match"] == (1 - unlike / 40, 1.0)  # which is of all samples


# --- image use -------------------------------------------------------------------------------------------------------


def with_controls(
    folder: Path,
    before: Sequence[Prediction],
    after: Sequence[Prediction],
    names: Sequence[str] = ("accuracy",),
    **controls: Sequence[Prediction],
) -> Comparison:
    config = json.dumps({"metrics": {"names": list(names), "labels": PLACES}}, ensure_ascii=False)
    write_evaluation(replace(EVALUATION, config=config), folder)
    for label, records in {"before": before, "after": after, **controls}.items():
        write_predictions(records, folder / label.replace("_", "-") / "predictions.jsonl")
    return read_comparison(folder)


def test_an_arm_at_the_floor_cannot_be_told_to_use_no_image(tmp_path: Path) -> None:
    """Before, every answer is in other words: exact match is 0 with any image; by content the same arm looks."""
    arms = worded(40, SCENE), worded(40, SHORT)
    controls = {"before_shuffled": worded(40, SCENE, 2), "after_shuffled": worded(40, SHORT, 2)}
    by_form = with_controls(tmp_path / "form", *arms, ["exact_match"], **controls)
    metric = by_form.verdict.metric
    assert [judge_gain(gain, metric) for gain in by_form.gains] == ["floor", "better"]
    first, second, change = (line.text.en for line in image_use_section.lines(scored(by_form)))
    assert first.startswith("Image use, before: cannot be determined by exact match")
    assert "no gain" not in first + second + change
    assert (
        change == "What tuning changed of it cannot be determined by exact match: before scored nothing with any image."
    )
    assert by_form.as_dict()["image_use"][0]["finding"] == "floor"
    by_content = with_controls(tmp_path / "content", *arms, **controls)
    assert [judge_gain(gain, by_content.verdict.metric) for gain in by_content.gains] == ["better", "better"]
    assert by_content.gains[0].result.difference == pytest.approx(38 / 40)


def test_what_tuning_changed_of_image_use_is_paired_and_has_an_interval(tmp_path: Path) -> None:
    """Before it scores 10 of 40 with any image; after 40 with the true and 10 with another one: +75 points."""
    before = worded(40, SCENE, 10)
    controls = {"before_shuffled": worded(40, SHORT, 10), "after_shuffled": worded(40, SHORT, 10)}
    comparison = with_controls(tmp_path, before, worded(40, SHORT), **controls)
    (change,) = comparison.gain_changes
    assert (change.result.before, change.result.after, change.result.difference) == (0.0, 0.75, 0.75)
    assert 0.5 < change.result.interval.low < 0.75 < change.result.interval.high
    assert judge_change(change, comparison.verdict.metric) == "better"
    stored = comparison.as_dict()["image_use_change"][0]
    assert (stored["gains"], stored["difference"]) == ({"before": 0.0, "after": 0.75}, 0.75)
    *_, line = image_use_section.lines(scored(comparison))
    assert (
        "the true image is worth +75.0 points more than before (0.0 points before, +75.0 points after" in line.text.en
    )


def test_another_image_with_the_same_answer_is_no_control(tmp_path: Path) -> None:
    """Half of the shuffled images show the same place; a model that looks stays right on these, and gains elsewhere."""
    true = [replace(original, image_sha256=f"{row:064x}") for row, original in enumerate(worded(40, SHORT))]
    donors = [(row + (2 if row < 20 else 1)) % 40 for row in range(40)]
    shuffled = [
        replace(original, image_sha256=f"{donor:064x}", prediction=true[donor].prediction)
        for original, donor in zip(true, donors, strict=True)
    ]
    (gain,) = with_controls(tmp_path, true, true, after_shuffled=shuffled).gains
    assert (gain.result.n, gain.result.before, gain.result.after) == (20, 0.0, 1.0)


# --- verdicts that deceive -------------------------------------------------------------------------------------------


def test_the_test_split_is_judged_whatever_comes_first() -> None:
    def both(train_right: int, test_right: int) -> list[Prediction]:
        return worded(40, SHORT, train_right, split="train") + worded(40, SHORT, test_right)

    comparison = compare(both(0, 20), both(40, 20))
    assert (comparison.main, comparison.verdict.finding) == ("test", "open")
    assert "training set" not in summary_section.verdict(scored(comparison)).en
    only = compare(both(0, 0)[:40], both(40, 0)[:40])
    verdict = summary_section.verdict(scored(only))
    assert (only.main, only.verdict.finding) == ("train", "better")
    assert "on the training set" in verdict.en
    assert "训练集" in verdict.zh
    general, held_out = worded(9, SHORT, split="retention"), worded(9, SHORT, split="validation")
    named = compare(general + held_out, general + held_out)
    assert named.main == "validation"


def test_one_reference_for_all_samples_shows_no_skill() -> None:
    truth = ["是。"] * 40
    before = arm(*((text, "不是。") for text in truth))
    after = arm(*((text, "是。") for text in truth))
    comparison = compare(before, after)
    assert comparison.verdict.finding == "no skill"
    verdict = summary_section.verdict(scored(comparison))
    assert verdict.en.startswith('No skill can be shown: all 40 references are the same ("是。")')
    assert verdict.zh.startswith("无法显示任何能力")
    two = [*truth[:39], "不是。"]
    others = [arm(*((true, answer) for true in two)) for answer in ("不知道。", "是。")]
    assert compare(*others).verdict.finding == "better"


# --- what got worse --------------------------------------------------------------------------------------------------


def test_slices_that_got_worse_are_named_with_holm_over_all_of_them() -> None:
    """Colours lose 30 of 30, counts gain 30 of 30: no change on the whole."""

    def rows(colour: int, count: int) -> list[Prediction]:
        one, other = worded(30, SHORT, colour, kind="colour"), worded(30, SHORT, count, kind="count")
        return one + [replace(original, id=f"n{original.id}", group=f"n{original.group}") for original in other]

    comparison = compare(rows(30, 0), rows(0, 30))
    assert comparison.verdict.finding == "open"
    (worse,) = comparison.worse_slices
    alone = worse.summary.primary.p_value
    assert (worse.field, worse.value, worse.summary.primary.difference) == ("kind", "colour", -1.0)
    assert worse.p_value == pytest.approx(2 * alone)  # two slices with equal p-values
    (line,) = slices_section.lines(scored(comparison))
    assert line.tone == "worse"
    assert line.text.en.startswith("Test set, worse in kind colour: −100.0 points")
    assert comparison.as_dict()["worse_slices"][0]["value"] == "colour"
    assert compare(rows(30, 30), rows(28, 30)).worse_slices == ()


def retained(right: range, n: int = 180) -> list[Prediction]:
    return [
        record(SHORT.format(name) if row in right else "?", SHORT.format(name), f"p{row}", split="retention")
        for row, name in enumerate(backgrounds(n))
    ]


def test_forgetting_is_gross_as_well_as_net() -> None:
    """90 of 180 known before; 20 of them forgotten, 20 of the others learned: net nothing."""
    before, after = worded(40, SHORT, 4) + retained(range(90)), worded(40, SHORT) + retained(range(20, 110))
    comparison = compare(before, after)
    assert comparison.retention_loss_points == 0.0
    stored = comparison.as_dict()["splits"]["retention"]["forgetting"]
    assert [stored[name] for name in ("known", "forgotten", "unknown", "learned")] == [90, 20, 90, 20]
    (line,) = forgetting_section.lines(scored(comparison))
    assert "it forgot 20 of the 90 it knew" in line.text.en
    assert "learned 20 of the 90 it did not know" in line.text.en
    assert comparison.within_budget is None


@pytest.mark.parametrize(
    ("right", "finding"), [(range(90), "shown"), (range(30), "refuted"), (range(20, 110), "not shown")]
)
def test_a_budget_is_shown_not_shown_or_refuted(right: range, finding: str) -> None:
    before, after = worded(40, SHORT, 4) + retained(range(90)), worded(40, SHORT) + retained(right)
    comparison = replace(compare(before, after), budget_points=5.0)
    assert comparison.within_budget is not None
    assert comparison.within_budget.finding == finding
    line = forgetting_section.lines(scored(comparison))[-1]
    assert line.text.en.startswith(f"Forgetting budget, lost at most 5 points: {finding}.")
    assert comparison.as_dict()["within_budget"] == json.loads(json.dumps(asdict(comparison.within_budget)))


def test_the_budget_of_a_run_is_read_beside_its_answers(tmp_path: Path) -> None:
    before, after = worded(8, SHORT, 4) + retained(range(90)), worded(8, SHORT) + retained(range(90))
    assert with_controls(tmp_path, before, after).within_budget is None
    (tmp_path / "curves.json").write_text(json.dumps({"budget_points": 2.5}), encoding="utf-8")
    within_budget = read_comparison(tmp_path).within_budget
    assert within_budget is not None
    assert (within_budget.margin, within_budget.finding) == (0.025, "shown")


def test_both_languages_have_all_words(tmp_path: Path) -> None:
    controls = {"before_shuffled": worded(40, SCENE, 2), "after_shuffled": worded(40, SHORT, 2)}
    before, after = worded(40, SCENE) + retained(range(90)), worded(40, SHORT) + retained(range(20, 110))
    comparison = replace(with_controls(tmp_path, before, after, **controls), budget_points=5.0)
    sections = (changes_section, forgetting_section, image_use_section, slices_section, summary_section)
    texts: list[Text] = [line.text for section in sections for line in section.lines(scored(comparison, tmp_path))]
    assert len(texts) >= 7
    assert all(text.en != text.zh and "{" not in text.en + text.zh for text in texts)


# --- the metrics of a run --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "primary"),
    [
        ("background/lora", "accuracy"),
        ("background/p_tuning", "accuracy"),
        ("xray/synthetic", "findings_micro_f1"),
        ("xray/qlora", "findings_micro_f1"),
        ("xray/openi", "findings_micro_f1"),
        ("astronomy/variable_stars", "accuracy"),
        ("tiny/pretrain", "exact_match"),
    ],
)
def test_a_recipe_carries_its_metrics(recipe: str, primary: str) -> None:
    cfg = compose("train", [f"recipes={recipe}"])
    assert cfg.metrics.names[0] == primary
    assert MetricSettings.of(OmegaConf.to_container(cfg.metrics)).names[0] == primary  # type: ignore[arg-type]


def test_an_evaluation_takes_the_run_s_metrics_unless_others_are_named() -> None:
    trained = {"model": {"_target_": "m"}, "dataset": {"_target_": "d"}}
    own = OmegaConf.to_container(OmegaConf.load(repo_root() / "conf" / "metrics" / "background.yaml"))

    def names(overrides: Sequence[str], run: dict[str, Any]) -> list[str]:
        cfg = compose("evaluate", overrides)
        take_from_run(cfg, run)
        return list(cfg.metrics.names)

    assert names([], trained)[0] == "exact_match"  # of a run that names none
    assert names([], trained | {"metrics": own})[0] == "accuracy"
    assert names(["metrics=vqa"], trained | {"metrics": own})[0] == "vqa_accuracy"
    assert names(["++metrics.names=[chrf]"], trained | {"metrics": own}) == ["chrf"]


def test_a_run_s_config_opens_no_connection() -> None:
    judge = {"names": ["judge"], "external": {"judge": {"base_url": "http://example.org", "model": "m"}}}
    with pytest.raises(ConfigError, match=r"asks for metrics\.external"):
        metrics_of_run({"metrics": judge})
    with pytest.raises(ConfigError, match="the run's metrics: expected names and labels"):
        metrics_of_run({"metrics": "accuracy"})


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("大海上有一艘船。", "海面"),
        ("On the seabed.", "海底"),
        ("A cat on the moon.", "月球"),
        ("夜空中有星星。", "夜空"),
    ],
)
def test_places_are_named_in_both_languages(answer: str, label: str) -> None:
    labels = OmegaConf.to_container(OmegaConf.load(repo_root() / "conf" / "metrics" / "background.yaml").labels)
    truth = [f"这张图片的背景是{name}。" for name in (label, "街道")]
    records = arm((truth[0], answer), (truth[1], "房间。"))
    comparison = compare(records, records, metrics=["accuracy"], classes=labels)  # type: ignore[arg-type]
    assert comparison.splits["test"].primary.after == 0.5
