from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vglm.evaluation.metrics import METRICS, exact_match, normalise, rouge_l_characters, score
from vglm.evaluation.predictions import Prediction

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
    ],
)
def test_exact_match(prediction: str, reference: str, expected: float) -> None:
    assert exact_match(prediction, reference) == expected


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


def test_a_record_with_an_error_scores_nothing() -> None:
    record = Prediction(
        id="a", group="a", split="test", kind=None, english=True, question="?", history=(), reference="", prediction="",
        image=None, image_sha256=None,
    )  # fmt: skip
    assert score(record)["exact_match"] == 1.0
    failed = Prediction(**{name: getattr(record, name) for name in record.__slots__} | {"error": "unreadable"})
    assert score(failed) == {metric.name: 0.0 for metric in METRICS}
