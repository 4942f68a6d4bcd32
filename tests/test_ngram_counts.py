"""Counting n-grams in arrays, and finding whole words without a pattern, equal the plain ways."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.metrics import text
from vglm.evaluation.score.metrics.text import (
    BLEU_ZH,
    CHRF,
    CIDER_D,
    LENGTH_RATIO,
    as_words,
    cider_d,
    contains,
    count_shared,
    simplify,
    words,
)

TEXTS = st.lists(st.text("ab 一二", max_size=12), min_size=1, max_size=7)


def shared_by_counters(hypothesis: str, reference: str, orders: int) -> list[list[int]]:
    rows = []
    for order in range(1, orders + 1):
        one, other = (
            Counter(words[index : index + order] for index in range(len(words) - order + 1))
            for words in (hypothesis, reference)
        )
        rows.append([one.total(), other.total(), (one & other).total()])
    return rows


@given(TEXTS, st.data())
def test_shared_ngrams_are_those_of_counters(hypotheses: list[str], data: st.DataObject) -> None:
    references = [data.draw(st.text("ab 一二", max_size=12)) for _ in hypotheses]
    expected = [shared_by_counters(*pair, 6) for pair in zip(hypotheses, references, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "_ROWS_AT_ONCE", 3)
        assert count_shared(hypotheses, references, 6).tolist() == expected


def test_ngrams_of_a_large_vocabulary_are_told_apart() -> None:
    """Where numbers of n-grams would pass 63 bits, they are numbered anew."""
    rng = np.random.default_rng(1)
    rows = ["".join(map(chr, rng.integers(0x4E00, 0x9FA5, 300))) for _ in range(40)]
    others = [row[50:250] + row[:20] for row in rows]
    expected = [shared_by_counters(*pair, 6) for pair in zip(rows, others, strict=True)]
    assert count_shared(rows, others, 6).tolist() == expected


@given(st.lists(st.tuples(st.text("ab 一二", max_size=6), st.text("ab 一二", max_size=6)), min_size=1, max_size=9))
def test_equal_pairs_are_counted_once_and_score_as_each_alone(pairs: list[tuple[str, str]]) -> None:
    records = [Prediction.of_texts(*pair) for pair in pairs * 2]
    for metric in (BLEU_ZH, CHRF, LENGTH_RATIO):
        alone = [metric.rows([record])[0].tolist() for record in records]
        assert metric.rows(records).tolist() == alone
    hypotheses, references = ([words(text) for text in texts] for texts in zip(*pairs * 2, strict=True))
    assert CIDER_D.rows(records)[:, 0].tolist() == cider_d(hypotheses, references)


@given(st.text("ab. '一二é3", max_size=14), st.text("ab. '一二é3", min_size=1, max_size=4))
def test_words_are_found_as_their_pattern_finds_them(prediction: str, reference: str) -> None:
    words = simplify(reference)
    expected = bool(words) and re.search(as_words(words), simplify(prediction)) is not None
    assert contains(prediction, reference) == float(expected)
