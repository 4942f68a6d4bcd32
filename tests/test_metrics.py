import json
import math
import random
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from statistics import fmean

import pytest
import sacrebleu
import yaml
from builders import arm, compare_all, record, score_all
from hypothesis import given
from hypothesis import strategies as st

from vglm.errors import ConfigError
from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.metrics import (
    ALL_METRICS,
    EXACT_MATCH,
    METRICS,
    Metric,
    exact_match,
    rouge_l_characters,
    rouge_l_words,
    select_metrics,
)
from vglm.evaluation.score.metrics.benchmarks import BENCHMARK_METRICS
from vglm.evaluation.score.metrics.choices import CIRCULAR_ACCURACY
from vglm.evaluation.score.metrics.text import cider_d, contains, meteor, normalised_match
from vglm.evaluation.score.statistics import bootstrap_interval, wilson_interval
from vglm.model.tokenization import VisualGlmTokenizer
from vglm.text.normalisation import normalise
from vglm.text.prompt import clean_response

TOKENIZER = VisualGlmTokenizer.from_pretrained(Path(__file__).parents[1] / "data" / "visualglm_tiny")

TEXTS = st.text(alphabet="ab 图的。", max_size=8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  two\n red\tcats ", "two red cats"),
        ("ＡＢＣ１２，", "ABC12,"),
        ("图中\u3000有猫", "图中 有猫"),
        ("ﬁne", "fine"),
        ("Cat", "Cat"),
        ("", ""),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("图中有两只猫，一只狗。", " 图中有两只猫,一只狗。\n", 1.0),
        ("Two cats.", "two cats.", 0.0),
        ("两只猫", "两只猫。", 0.0),
        ("", "两只猫。", 0.0),
        ("Two cats; one dog", "Two cats ; one dog", 0.0),  # decoding keeps this blank
        ("a cat", "acat", 0.0),
        ("a b", "a\u200db", 0.0),  # a joiner without width is no blank to the tokenizer
    ],
)
def test_exact_match(prediction: str, reference: str, expected: float) -> None:
    assert exact_match(prediction, reference) == expected


TOKENISED = (
    *("heart normal . no effusion .", "is it red ?", "it does n't show effusion", "they 're dogs , two !"),
    *("the patient 's heart", "dogs ' tails", "wait …", "心影\u200b增大。", "心影\ufeff增大。", "5\u200emm"),
    *("a  .  b ， c", "图 ， 好 ！", "a\x03b"),
)


@pytest.mark.parametrize("reference", TOKENISED)
def test_an_answer_learned_token_by_token_is_an_exact_match(reference: str) -> None:
    decoded = clean_response(TOKENIZER.decode(TOKENIZER.encode_plain(reference)))
    assert exact_match(decoded, reference) == 1.0
    assert normalised_match(decoded, reference) == 1.0


@given(
    st.lists(st.sampled_from([*".,?!'ntmsvreaB心。，…", "n't", "'s", " '", "\u200b", "．"]), max_size=9), st.booleans()
)
def test_references_and_decoded_answers_have_one_form(parts: list[str], has_blanks: bool) -> None:
    reference = " ".join((" " if has_blanks else "").join(parts).replace("\u200b", " ").split())
    assert normalise(clean_response(TOKENIZER.decode(TOKENIZER.encode_plain(reference)))) == normalise(reference)
    assert normalise(normalise(reference)) == normalise(reference)


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("蓝色的海", "蓝色的天空", 2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5)),  # 蓝色的
        ("这张图片的背景是草地。", "这张图片的背景是沙滩。", 9 / 11),  # 9 of 11 characters in both, so P = R = F1
        ("a cat", "cat", 2 * (3 / 4) * 1 / (3 / 4 + 1)),  # blanks are no characters
        ("abcd", "dcba", 1 / 4),
        ("猫", "狗", 0.0),
        ("", "狗", 0.0),
        ("ＯＫ", "OK", 1.0),
    ],
)
def test_rouge_l_characters_by_hand(prediction: str, reference: str, expected: float) -> None:
    assert rouge_l_characters(prediction, reference) == pytest.approx(expected, abs=1e-12)


@given(prediction=TEXTS, reference=TEXTS)
def test_rouge_l_characters_equals_the_definition(prediction: str, reference: str) -> None:
    first, second = ("".join(text.split()) for text in (prediction, reference))
    subsequences = {part for n in range(len(first) + 1) for part in combinations(first, n)}
    longest = max(len(part) for part in subsequences if _is_subsequence(part, second))
    expected = 2 * longest / (len(first) + len(second)) if longest else 0.0
    assert rouge_l_characters(prediction, reference) == pytest.approx(expected, abs=1e-12)


def _is_subsequence(part: tuple[str, ...], text: str) -> bool:
    characters = iter(text)
    return all(character in characters for character in part)


def records(pairs: list[list[str]]) -> list[Prediction]:
    return [record(prediction, reference, str(index)) for index, (prediction, reference) in enumerate(pairs)]


@pytest.mark.parametrize(
    ("prediction", "scores"),
    [
        ("car", {"exact_match": 1, "normalised_match": 1, "contains": 1, "rouge_l_words": 1, "accuracy": 1}),
        ("Automobile!", {"exact_match": 0, "normalised_match": 1, "contains": 1, "rouge_l_words": 1, "accuracy": 1}),
        ("a boat", {"exact_match": 0, "normalised_match": 0, "contains": 0, "rouge_l_words": 0, "accuracy": 0}),
    ],
)
def test_of_several_references_the_nearest_counts(prediction: str, scores: dict[str, float]) -> None:
    records = arm(('["automobile", "car"]', prediction))
    labels = ["automobile", "car", "boat"]
    actual = {metric.name: metric.score(records) for metric in select_metrics(list(scores), labels)}
    assert {name: actual[name] for name in scores} == scores


def test_a_list_that_the_model_was_to_write_is_right() -> None:
    answer = '["automobile", "car"]'
    assert exact_match(answer, f" {answer}") == rouge_l_characters(answer, answer) == 1.0
    assert exact_match('["automobile"]', answer) == 0.0


def test_a_record_with_an_error_scores_nothing() -> None:
    assert EXACT_MATCH.score([record("", "")]) == 1.0
    assert [metric.score([record("", "", error="unreadable")]) for metric in METRICS] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("prediction", "reference", "normalised", "contained"),
    [
        ("A CAT!", "a cat", 1.0, 1.0),
        ("It is a cat, I think", "cat", 0.0, 1.0),
        ("It is a category", "cat", 0.0, 0.0),
        ("背景是：沙滩。", "沙滩", 0.0, 1.0),
        ("ＲＲ Lyrae型", "rr lyrae", 0.0, 1.0),
        ("", "cat", 0.0, 0.0),
        ("cat", "", 0.0, 0.0),
    ],
)
def test_looser_matches(prediction: str, reference: str, normalised: float, contained: float) -> None:
    assert normalised_match(prediction, reference) == normalised
    assert contains(prediction, reference) == contained


CONFIGS = Path(__file__).parents[1] / "conf" / "metrics"
GOLDEN = json.loads((Path(__file__).parent / "golden" / "metrics" / "text.json").read_text(encoding="utf-8"))
SETS = {
    **GOLDEN["pairs"],
    "short": [["a cat", "a cat"], ["猫", "狗"]],
    "one empty": [["", "a dog on a sofa"], ["a dog on a red sofa", "a dog on a red sofa"]],
    "nothing in common": [["x", "y"], ["", ""]],
}


@pytest.mark.parametrize("pairs", SETS.values(), ids=SETS.keys())
def test_bleu_and_chrf_equal_sacrebleu(pairs: list[list[str]]) -> None:
    predictions, references = ([pair[side] for pair in pairs] for side in (0, 1))
    for name in ("zh", "char", "13a"):
        metric, original = ALL_METRICS[f"bleu_{name}"], sacrebleu.BLEU(tokenize=name)
        expected = original.corpus_score(predictions, [references])
        assert 100 * metric.score(records(pairs)) == pytest.approx(expected.score, abs=1e-9)
        assert metric.signature == original.get_signature().format().replace("#:1|", "nrefs:1|") + "|not cut"
    expected_chrf = sacrebleu.CHRF().corpus_score(predictions, [references]).score
    assert 100 * ALL_METRICS["chrf"].score(records(pairs)) == pytest.approx(expected_chrf, abs=1e-9)


def test_rouge_l_words_equals_rouge_score_in_english() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    original = RougeScorer(["rougeL"])
    for prediction, reference in GOLDEN["pairs"]["english"]:
        assert rouge_l_words(prediction, reference) == original.score(reference, prediction)["rougeL"].fmeasure
    assert rouge_l_words("背景是草地", "背景是沙滩。") == pytest.approx(2 * 3 / 10)


@pytest.mark.parametrize("name", ["english", "chinese, spaced"])
def test_cider_d_equals_pycocoevalcap(name: str) -> None:
    pairs = GOLDEN["pairs"][name]
    scores = cider_d([pair[0].split() for pair in pairs], [pair[1].split() for pair in pairs])
    assert 100 * fmean(scores) == pytest.approx(GOLDEN["pycocoevalcap"][name]["CIDEr"], abs=1e-9)


def test_cider_d_beside_pycocoevalcap() -> None:
    scorer = pytest.importorskip("pycocoevalcap.cider.cider_scorer", reason="pycocoevalcap is not installed")
    generator = random.Random(3)
    texts = [" ".join(generator.choices(["a", "b", "c", "d", "e", "f"], k=generator.randint(1, 9))) for _ in range(40)]
    pairs = list(zip(texts[:20], texts[20:], strict=True))
    original = scorer.CiderScorer()
    for prediction, reference in pairs:
        original += (prediction, [reference])
    expected = original.compute_score()[1].tolist()
    assert cider_d([one.split() for one, _ in pairs], [one.split() for _, one in pairs]) == pytest.approx(expected)


def test_cider_d_of_one_sample_is_0() -> None:
    assert cider_d([["a", "cat"]], [["a", "cat"]]) == [0.0]


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        # 6 of 6 words, 2 of them by their stems, in one run: the penalty is 0.5 * (1 / 6)^3
        ("the cats sat on the mats", "the cat sat on the mat", 1 - 0.5 / 6**3),
        # 3 of 4 and 3 of 3 words in 2 runs ("a", "dog sleeps"): P = 3/4, R = 1
        ("a big dog sleeps", "a dog sleeps", (0.75 / (0.9 * 0.75 + 0.1)) * (1 - 0.5 * (2 / 3) ** 3)),
        ("猫", "狗", 0.0),
        ("", "狗", 0.0),
    ],
)
def test_meteor_by_hand(prediction: str, reference: str, expected: float) -> None:
    assert meteor(prediction, reference) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["english", "chinese"])
def test_meteor_ranks_answers_as_java_does_but_scores_higher(name: str) -> None:
    ours = [meteor(*pair) for pair in GOLDEN["pairs"][name]]
    java = GOLDEN["meteor_1.5"][name]["sentences"]
    indices = range(len(java))
    assert sorted(indices, key=ours.__getitem__) == sorted(indices, key=java.__getitem__)
    assert all(1.5 * theirs < mine < 2.5 * theirs for mine, theirs in zip(ours, java, strict=True))
    assert "not Java's METEOR 1.5" in ALL_METRICS["meteor"].signature


def test_score_all_adds_lengths_and_intervals() -> None:
    scores = score_all(records(GOLDEN["pairs"]["chinese"]), ["bleu_zh", "exact_match"])
    assert list(scores) == ["bleu_zh", "exact_match", "answer_length", "length_ratio"]
    bleu = scores["bleu_zh"]
    assert bleu.interval.low < bleu.value < bleu.interval.high
    assert "tok:zh" in bleu.metric.signature
    assert scores["exact_match"].interval == wilson_interval(0, 4)
    lengths = [[len(text) for text in pair] for pair in GOLDEN["pairs"]["chinese"]]
    assert scores["answer_length"].value == fmean(first for first, _ in lengths)
    assert scores["length_ratio"].value == sum(first for first, _ in lengths) / sum(second for _, second in lengths)
    assert json.loads(json.dumps({name: score.as_dict() for name, score in scores.items()}))["bleu_zh"]["n"] == 4


def test_groups_widen_an_interval() -> None:
    pairs = [["right" if index % 4 < 2 else "wrong", "right"] for index in range(40)]
    alone = records(pairs)
    together = [record(*pair, str(index), group=str(index // 2)) for index, pair in enumerate(pairs)]
    narrow, wide = (score_all(arm, ["exact_match"])["exact_match"] for arm in (alone, together))
    assert narrow.value == wide.value == 0.5
    assert wide.interval.high - wide.interval.low > 1.2 * (narrow.interval.high - narrow.interval.low)
    assert wide.interval_method.endswith("by group")


def test_draws_of_an_answer_do_not_narrow_an_interval() -> None:
    pairs = [["right" if index % 4 < 3 else "wrong", "right"] for index in range(40)]
    once = records(pairs)
    thrice = [replace(original, draw=draw) for original in once for draw in range(3)]
    first, second = (score_all(arm, ["exact_match", "bleu_13a"]) for arm in (once, thrice))
    assert first["exact_match"].interval == wilson_interval(30, 40)
    assert second["exact_match"] == first["exact_match"]
    assert (second["bleu_13a"].n, second["bleu_13a"].interval) == (40, pytest.approx(first["bleu_13a"].interval))
    thrice[0] = replace(thrice[0], prediction="wrong")  # of the first sample two of three draws are right
    mixed = score_all(thrice, ["exact_match"])["exact_match"]
    assert (mixed.n, mixed.value) == (40, pytest.approx((29 + 2 / 3) / 40))
    assert mixed.interval == pytest.approx(bootstrap_interval([2 / 3, 1, 1, 0, *[1, 1, 1, 0] * 9]))


def test_compare_all() -> None:
    pairs = GOLDEN["pairs"]["english"]
    before, after = records([["a cat", reference] for _, reference in pairs]), records(pairs)
    comparisons = compare_all(before, after, ["exact_match", "bleu_13a"])
    comparison, adjusted = comparisons["bleu_13a"]
    assert comparison.difference == pytest.approx(
        ALL_METRICS["bleu_13a"].score(after) - ALL_METRICS["bleu_13a"].score(before)
    )
    assert adjusted == pytest.approx(2 * comparison.p_value)
    assert comparisons["exact_match"][0].flips is not None
    assert comparisons["answer_length"][1] is None


def test_unknown_names_are_all_reported() -> None:
    with pytest.raises(ConfigError, match=r"'bleu_zn' \(did you mean 'bleu_zh'\?\), 'xyz'"):
        select_metrics(["bleu_zn", "exact_match", "xyz"])
    with pytest.raises(ConfigError, match=r"must be a list of texts.*got \[True, False\].*quotes"):
        select_metrics(["accuracy"], [True, False])  # type: ignore[list-item]


def test_every_metric_takes_records_with_errors_and_has_a_signature() -> None:
    first = replace(record("It is a cat", "cat", "0"), likelihoods={"cat": -1.0, "dog": -2.0})
    arm = [first, record("", "dog", "1", error="unreadable")]
    for metric in set(ALL_METRICS.values()) - {*BENCHMARK_METRICS, CIRCULAR_ACCURACY}:  # they need their own samples
        if "labeller" in metric.signature:  # undefined where no reference speaks of a chest
            continue
        assert metric.rows(arm).shape[0] == 2
        assert metric.signature
        value = metric.score(arm)
        assert not metric.is_share or math.isnan(value) or 0 <= value <= 1


VERSION = r"(version:|vglm |nltk |rouge-score |sacrebleu |pycocoevalcap |labeller )\d"
STATED = {"case": r"case", "truncation": r"not cut", "version": VERSION}
STATED_OF_NGRAMS = {"tokens": r"tok:|characters|words", "smoothing": r"smooth"} | STATED


@pytest.mark.parametrize("metric", ALL_METRICS.values(), ids=ALL_METRICS)
def test_a_signature_states_all_that_a_score_depends_on(metric: Metric) -> None:
    stated = STATED_OF_NGRAMS if metric.kind == "ngrams" and metric.name != "length_ratio" else STATED
    assert [what for what, words in stated.items() if re.search(words, metric.signature) is None] == []


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_config_files_name_metrics(path: Path) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(content) == {"_target_", "names", "labels", "convention", "external", "custom"}
    assert len(select_metrics(content["names"])) >= len(content["names"]) > 0
