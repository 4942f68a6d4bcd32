"""What an evaluation's files carry is put into words in both languages, and data is in none of ours."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from PIL import Image
from test_report import EVALUATION, make_folder, record  # noqa: F401

from vglm.data.doctor import SAY
from vglm.data.loading import load_dataset
from vglm.data.sample import Sample, Turn
from vglm.data.splits import Leakage
from vglm.evaluation.checkpoint_selection import choose
from vglm.evaluation.messages import FILE_TEXTS, Message, translate
from vglm.evaluation.predict.answers import Answers
from vglm.evaluation.predict.controls import make_controls
from vglm.evaluation.predict.provenance import describe_choice, provenance, synthetic_stamps
from vglm.evaluation.predictions import Arm, Stamp, read_evaluation, write_evaluation
from vglm.evaluation.report import render
from vglm.evaluation.report.formatting import SHARED, named
from vglm.evaluation.report.section import Section
from vglm.evaluation.report.sections import SECTIONS
from vglm.evaluation.score.baselines import collect_baselines
from vglm.evaluation.score.metrics import select_metrics
from vglm.evaluation.score.statistics import compare_paired
from vglm.evaluation.seals import write_seals
from vglm.runs import CheckpointScore, ForgettingRecord
from vglm.text.messages import Texts
from vglm.worlds.general_ability import retention_splits

SENTENCE = re.compile(r"[a-z]+ [a-z]+ [a-z]+")
"""Three English words in a row."""
CATALOGUES = [SAY, FILE_TEXTS, SHARED, *(Section.load(name).texts for name in SECTIONS)]


@pytest.mark.parametrize("texts", CATALOGUES, ids=lambda texts: "/".join(texts.path.parts[-2:]))
def test_places_are_the_same_in_both_languages(texts: Texts) -> None:
    assert texts.own
    for english, chinese in texts.own.values():
        assert set(re.findall(r"\{(\w+)", chinese)) <= set(re.findall(r"\{(\w+)", english)), english


def test_sentences_are_told_from_their_names_and_numbers() -> None:
    tuned = {"model": "tiny", "method": "LoraConfig", "n": 1020, "data": "radiograph splits"}
    counts = (Message("samples.test", {"n": 120}), Message("samples.retention", {"n": 7}))
    summary = Message("summary.scored", {"what": Message("summary.tuned", tuned), "counts": counts, "draws": 1})
    assert translate(summary) == (
        "tiny tuned with LoraConfig on 1,020 samples of radiograph splits. Scored on 120 test samples and 7 retention"
        " samples.",
        "tiny，用 LoraConfig 在 radiograph splits 的 1,020 条样本上调优。"
        "评分数据：120 条测试样本、7 条能力保持集样本。",
    )
    groups = [Message("leak.groups", {"n": n, "total": 3}) for n in (2, 1)]
    assert translate(Message("leaked", {"leaks": tuple(groups)})) == (
        "2 of 3 test samples are of groups that were trained on; 1 of 3 test samples are of groups that were"
        " trained on. The scores show memory as well as skill.",
        "3 条测试样本中有 2 条所属的组参与过训练；3 条测试样本中有 1 条所属的组参与过训练。"
        "得分既反映能力，也反映记忆。",
    )
    blank = Message("control_meaning.before", {"meaning": Message("control_meaning.blank")})
    assert translate(blank) == ("before, each image replaced by one plain colour", "调优前，每张图像换成单一颜色")
    assert translate("each image replaced by one plain colour").zh == "each image replaced by one plain colour"


def test_messages_stay_what_they_are_in_files(tmp_path: Path) -> None:
    leak = Leakage("test", "train", 3, 1, 2, "a")
    detail = Message("leaked", {"leaks": ("of an older run", Message("leak.splits", asdict(leak)))})
    evaluation = replace(
        EVALUATION,
        summary=Message("summary.image_use"),
        stamps=(Stamp(text="LEAKED", detail=detail),),
        facts={"run": "outputs/1", "test data": Message("test_data", {"n": 3, "sha256": "ab"})},
        candidate=Arm(label="after", meaning=Message("meaning.adapter")),
        sealed=write_seals(tmp_path),
    )
    write_evaluation(evaluation, tmp_path)
    assert read_evaluation(tmp_path) == evaluation
    assert str(detail) == f"of an older run; {leak}. The scores show memory as well as skill."
    stored = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert stored["facts"]["test data"] == {"key": "test_data", "values": {"n": 3, "sha256": "ab"}}


@pytest.mark.parametrize(
    "message",
    [Message("of.tomorrow", {"n": 5}), Message("training_images", {"n": 5}), Message("samples.test", {"n": "5"})],
)
def test_a_message_of_another_version_is_shown_with_its_values(message: Message) -> None:
    for words in translate(message):
        assert words == f"{message.key}: n 5"


def test_kinds_of_question_that_are_known_have_chinese_names(make_folder: Callable[..., Path]) -> None:  # noqa: F811
    rows = [record(f"{row}", "猫。", kind=["colour", "yes_no", "mine"][row % 3]) for row in range(24)]
    after = [replace(row, prediction="沙滩。") for row in rows]
    report = render(make_folder(rows, after)).parent
    slices = (report / "index.html").read_text(encoding="utf-8").partition('id="slices"')[2].partition("</section>")[0]
    assert 'lang="en">colour</span><span class="zh" lang="zh-Hans">颜色</span>' in slices
    assert '<th scope="row">mine</th>' in slices
    assert "颜色" in (report / "report.zh.md").read_text(encoding="utf-8")


def test_data_is_not_translated(make_folder: Callable[..., Path]) -> None:  # noqa: F811
    """Values and names of fields that are words of the interface too."""
    words = ["model", "run", "training", "normal", "test", "code"]
    rows = [
        record(f"{row}", "猫。", meta={"all": words[row % 6], "report": words[row % 2], "study": words[3 + row % 2]})
        for row in range(24)
    ]
    after = [replace(row, prediction="沙滩。") for row in rows]
    facts = {"data": "model", "model": "run"}
    arms = {"baseline": Arm(label="before", meaning="training"), "candidate": Arm(label="after", meaning="run")}
    evaluation = replace(EVALUATION, title="model", summary="run", facts=facts, stamps=(), **arms)
    text = render(make_folder(rows, after, evaluation)).read_text(encoding="utf-8")
    shown, _, rest = text.partition('<script type="application/json" id="data">')
    assert rest.count("<dd>model</dd>") == rest.count("<dd>run</dd>") == 1
    assert [f"· {name} <small>" in shown for name in ("all", "report", "study")] == [True] * 3
    for word in words:
        assert f'<th scope="row">{word}</th>' in shown
    data = json.loads(rest.partition("</script>")[0])
    assert sorted(map(tuple, data["fields"])) == [("all", "all"), ("report", "report"), ("study", "study")]
    assert not any(data["words"])


def test_all_that_the_workbench_says_of_arms_and_baselines_has_chinese() -> None:
    """Also what is said next month: the sentences come from where they are made."""
    images = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green", "blue", "gold")]
    samples = [
        Sample(id=str(row), group=str(row), image=image, turns=(Turn("哪里？", "沙滩。"),))
        for row, image in enumerate(images)
    ]
    texts = [translate(control.arm.meaning) for control in make_controls({"test": samples}, 4, True, 1)]
    test = [record(str(row), "沙滩。") for row in range(4)]
    answers = Answers("after", {"after": test, "after-text-only": test}, ["沙滩。"] * 4)
    baselines = collect_baselines(samples, answers, select_metrics(["exact_match"]))
    assert len(baselines) == 5
    texts += [named("baseline", baseline.name) for baseline in baselines] + [
        translate(baseline.meaning) for baseline in baselines
    ]
    results = [compare_paired([0, 1, 1], [1, 1, 0]), compare_paired([0, 0.5, 1], [1, 1, 0], groups=["a", "a", "b"])]
    texts += [
        translate(text) for result in results for text in (result.test, result.interval_method, result.power_line)
    ]
    facts = provenance("seed: 1\n", None)
    texts += [named("fact", name) for name in facts] + [translate(fact) for fact in facts.values()]
    stamps = synthetic_stamps("vglm.worlds.star_dialogues.star_splits")
    texts += [text for stamp in stamps for text in (named("stamp", stamp.text), translate(stamp.detail))]
    for text in texts:
        assert not SENTENCE.search(text.zh), text


@pytest.mark.parametrize(("domain", "retention"), [((0, 0.9), (0.8, 0.5)), ((0, 0), (0.8, 0.8)), ((0, 1), (0.8, 0.8))])
def test_what_is_said_of_a_chosen_checkpoint_has_chinese(
    domain: tuple[float, ...], retention: tuple[float, ...]
) -> None:
    scores = [CheckpointScore(10 * row, *pair, 40, 162) for row, pair in enumerate(zip(domain, retention, strict=True))]
    choice = choose(scores, 5)
    assert choice is not None
    facts = ForgettingRecord(
        chosen_step=choice.step,
        reason=str(choice),
        domain_split="validation",
        retention="the general retention set",
        stopped_early=True,
        warning=choice.warning,
        choice=asdict(choice),
    )
    described, stamps = describe_choice(facts, {})
    assert str(described["checkpoint"]).startswith(f"{choice}; scored by exact_match on validation samples")
    for text in (translate(described["checkpoint"]), *(translate(stamp.detail) for stamp in stamps)):
        assert not SENTENCE.search(text.zh), text.zh
    for stamp in stamps:
        assert named("stamp", stamp.text).zh != stamp.text
        assert stamp.text not in str(stamp.detail)
    older, _ = describe_choice(replace(facts, choice=None), {})
    assert str(older["checkpoint"]) == str(described["checkpoint"])  # the sentence of the run's record


def test_generated_data_is_stamped(few_shot_folder: Path, tmp_path: Path) -> None:
    data = shutil.copytree(few_shot_folder, tmp_path / "data")
    assert synthetic_stamps(load_dataset(data).synthetic) == ()
    (data / "SYNTHETIC").touch()
    for path in (data, data / "dataset.json"):
        assert synthetic_stamps(load_dataset(path).synthetic)[0].text == "SYNTHETIC DATA"
    assert "retention_splits" in str(synthetic_stamps(retention_splits(per_kind=1).synthetic)[0].detail)


def test_provenance_changes_with_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(b"one")
    first = provenance("seed: 1\n", tmp_path / "adapter")
    assert first == provenance("seed: 1\n", tmp_path / "adapter")
    assert re.fullmatch(r"(commit [0-9a-f]{12}( with changes)?, )?sources sha256 [0-9a-f]{16}", str(first["code"]))
    weights.write_bytes(b"two")
    second = provenance("seed: 2\n", tmp_path / "adapter")
    assert first["tuned weights"] != second["tuned weights"]
    assert first["config"] != second["config"]
    assert "tuned weights" not in provenance("seed: 1\n", None)
