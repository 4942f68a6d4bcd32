"""Scores of a text against its reference: matches, n-grams, longest common subsequences, lengths.

```
exact_match("这张图片的背景是沙滩。", " 这张图片的背景是沙滩。") == 1.0
rouge_l_characters("蓝色的海", "蓝色的天空") == 2 * 3 / (4 + 5)
exact_match("car", '["automobile", "car"]') == 1.0            the nearest of several references
BLEU_ZH.score(records)                                        as sacrebleu -tok zh
```

Scores of corpora (BLEU, chrF, CIDEr-D) take a list of references as one text: give them a row each, as COCO does.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache, wraps
from importlib import metadata
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vglm.evaluation.predictions import Prediction, reference_answers
from vglm.evaluation.score.metrics.base import Metric, Rows
from vglm.text.normalisation import normalise

Tokens = Callable[[str], Sequence[str]]

OWN = "vglm 4"
"""The version of definitions that are this project's own; it rises when one of them changes."""


def _best_of_references(score: Callable[[str, str], float]) -> Callable[[str, str], float]:
    """A score of an answer against the reference that it is nearest to, where that is a JSON list of several.

    An answer that is that list itself, as a model says that has learned to write lists, is right too.

    Pairs are remembered, and their texts with them: 262,144 pairs of different texts of 300 Chinese characters take
    393 MB. Metrics share the texts.
    """

    @lru_cache(2**18)  # every slice takes it again
    @wraps(score)
    def best(prediction: str, reference: str) -> float:
        right = [reference] if prediction.strip() == reference.strip() else reference_answers(reference)
        return max(score(prediction, reference) for reference in right)

    return best


# --- matches ---------------------------------------------------------------------------------------------------------


@_best_of_references
def exact_match(prediction: str, reference: str) -> float:
    """1.0 where the two texts are equal after `normalise`, else 0.0."""
    return float(normalise(prediction) == normalise(reference))


def simplify(text: str) -> str:
    """A text without what is rarely meant: `normalise`, lower case, no punctuation, one blank between words."""
    return " ".join(normalise(text).lower().translate(_SEPARATORS).split())


class _Separators(dict[int, int]):
    """Of each character met so far what stands for it: a blank for punctuation, signs and separators."""

    def __missing__(self, code: int) -> int:
        self[code] = ord(" ") if unicodedata.category(chr(code))[0] in "PSZ" else code
        return self[code]


_SEPARATORS = _Separators()


@_best_of_references
def normalised_match(prediction: str, reference: str) -> float:
    """1.0 where the two texts are equal after `simplify`, else 0.0."""
    return float(simplify(prediction) == simplify(reference))


@_best_of_references
def contains(prediction: str, reference: str) -> float:
    """1.0 where the prediction has the reference in it after `simplify`, at word boundaries in Latin script.

    An answer that names everything contains every reference: look at the answer's length too.
    """
    return float(_has_words(simplify(prediction), simplify(reference)))


_LETTER = r"[^\W\u2e80-\U0010ffff]"
"""A letter or digit of a script with blanks between words; a Han character beside a Latin word is not part of it."""


END_OF_WORD = rf"(?!{_LETTER})"
"""What follows a whole word."""


_IS_LETTER = re.compile(_LETTER).match


def _has_words(text: str, words: str) -> bool:
    """Whether the pattern of `as_words` is in a text, both simplified, without making a pattern of each reference."""
    start = text.find(words) if words else -1
    while start >= 0:
        end = start + len(words)
        begins = start == 0 or not _IS_LETTER(words[0]) or not _IS_LETTER(text[start - 1])
        if begins and (end == len(text) or not _IS_LETTER(words[-1]) or not _IS_LETTER(text[end])):
            return True
        start = text.find(words, start + 1)
    return False


def as_words(text: str) -> str:
    """The pattern that finds a simplified text as whole words, whatever number of blanks is between them."""
    before, after = (re.match(_LETTER, text[index]) is not None for index in (0, -1))
    words = " +".join(map(re.escape, text.split()))
    return rf"{f'(?<!{_LETTER})' if before else ''}{words}{END_OF_WORD if after else ''}"


# --- tokens ----------------------------------------------------------------------------------------------------------


class CharacterTokenizer:
    """Tokens for `rouge_score`: every character of the normalised text except white space, in any script."""

    def tokenize(self, text: str) -> list[str]:
        """Split a text into characters."""
        return list("".join(normalise(text).split()))


_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_HAN}]|[^\W{_HAN}]+(?:['’][^\W{_HAN}]+)*")


class WordTokenizer:
    """Lower-case words without punctuation; each Han character is a word, for Chinese has no blanks."""

    def tokenize(self, text: str) -> list[str]:
        """Split a text into words."""
        return _WORD.findall(normalise(text).lower())


characters, words = CharacterTokenizer().tokenize, WordTokenizer().tokenize

# --- ROUGE-L ---------------------------------------------------------------------------------------------------------


def common_length(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest common subsequence, a row of the table at a time as bits of one number.

    Source: Hyyrö 2004, "Bit-parallel LCS-length computation revisited".
    """
    indices: dict[str, int] = {}
    for index, token in enumerate(first):
        indices[token] = indices.get(token, 0) | 1 << index
    everything = row = (1 << len(first)) - 1
    for token in second:
        matches = row & indices.get(token, 0)
        row = (row + matches | row - matches) & everything
    return len(first) - row.bit_count()


def _rouge_l(prediction: Sequence[str], reference: Sequence[str]) -> float:
    if not prediction or not reference:
        return 0.0
    common = common_length(prediction, reference)
    precision, recall = common / len(prediction), common / len(reference)
    return 2 * precision * recall / (precision + recall) if common else 0.0


@_best_of_references
def rouge_l_characters(prediction: str, reference: str) -> float:
    """ROUGE-L on characters: the F1 of the longest common subsequence, from 0.0 to 1.0.

    With L the length of the longest common subsequence, P = L / len(prediction), R = L / len(reference) and
    F1 = 2 P R / (P + R). An empty text scores 0.

    Source: Lin 2004, "ROUGE: a package for automatic evaluation of summaries", as google-research's `rouge_score`
    computes it; its own tokenizer drops everything but a-z and 0-9, so Chinese would always score 0.
    """
    return _rouge_l(characters(prediction), characters(reference))


@_best_of_references
def rouge_l_words(prediction: str, reference: str) -> float:
    """The same on the words of `WordTokenizer`."""
    return _rouge_l(words(prediction), words(reference))


# --- BLEU and chrF, as sacrebleu computes them -----------------------------------------------------------------------

ORDERS = 4
CHRF_ORDERS = 6


_ROWS_AT_ONCE = 2048


def count_shared(
    hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[str]], orders: int
) -> NDArray[np.int64]:
    """How many n-grams answers and references have, and have in common, each as often as in the one that has fewer.

    Args:
        hypotheses: The answers' tokens.
        references: The references' tokens.
        orders: n-grams of 1 to so many tokens.

    Returns:
        Shape (n, orders, 3): of the answer, of the reference, in common.
    """
    counts = np.zeros((len(hypotheses), orders, 3), np.int64)
    for start in range(0, len(hypotheses), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        lengths = np.array([list(map(len, hypotheses[part])), list(map(len, references[part]))])
        counts[part, :, :2] = np.maximum(lengths.T[:, None] - np.arange(orders)[:, None], 0)
        for order, ngrams in enumerate(_ngrams([*hypotheses[part], *references[part]], orders)):
            rows, times = ngrams.shared(lengths.shape[1])
            counts[part, order, 2] = np.bincount(rows, times, lengths.shape[1])
    return counts


class _Ngrams(NamedTuple):
    """The n-grams of one order in some texts.

    Attributes:
        texts: In which text each is, in their order, shape (N,).
        codes: Which it is: equal numbers, equal n-grams; shape (N,).
        limit: All of them are below it.
    """

    texts: NDArray[np.int64]
    codes: NDArray[np.int64]
    limit: int

    def shared(self, rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of texts i and i + rows: i and how often, for each n-gram that both have."""
        limit, codes = self.limit, self.codes
        if 2 * rows * limit >= 2**63:
            numbers, codes = np.unique(codes, return_inverse=True)
            limit = len(numbers)
        sides, pairs = np.divmod(self.texts, rows)
        keys, times = np.unique(2 * (pairs * limit + codes) + sides, return_counts=True)  # both sides are neighbours
        both = np.flatnonzero(keys[1:] >> 1 == keys[:-1] >> 1)
        return (keys[both] >> 1) // limit, np.minimum(times[both], times[both + 1])


def _ngrams(texts: Sequence[Sequence[str]], orders: int) -> Iterator[_Ngrams]:
    """The n-grams of each order, from 1 on."""
    numbers = {token: number for number, token in enumerate(dict.fromkeys(chain.from_iterable(texts)))}
    tokens = np.fromiter(map(numbers.__getitem__, chain.from_iterable(texts)), np.int64)
    owners = np.repeat(np.arange(len(texts)), list(map(len, texts)))
    codes, limit = tokens, max(len(numbers), 1)
    for order in range(orders):
        if order:
            if limit * len(numbers) >= 2**62:
                distinct, codes = np.unique(codes, return_inverse=True)
                limit = len(distinct)
            codes, limit = codes[:-1] * len(numbers) + tokens[order:], limit * max(len(numbers), 1)
        inside = owners[: len(codes)] == owners[order:]  # and not from one text into the next
        yield _Ngrams(owners[: len(codes)][inside], codes[inside], limit)


@cache
def _sacrebleu_tokenizer(name: str) -> Callable[[str], str]:
    from sacrebleu.metrics.bleu import BLEU  # takes a while to import

    tokenizer: Callable[[str], str] = BLEU(tokenize=name).tokenizer
    return tokenizer


def bleu_rows(records: Sequence[Prediction], tokens: Tokens) -> Rows:
    """The counts that BLEU is made of: (length, reference length, 4 matches, 4 totals), shape (n, 10)."""
    counts = _count_tokens(tokens, *_texts(records))
    return np.concatenate([counts[:, 0, :2], counts[..., 2], counts[..., 0]], axis=1, dtype=np.float64)


def _texts(records: Sequence[Prediction]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Answers and references."""
    return tuple(record.prediction for record in records), tuple(record.reference for record in records)


class _Pairs(NamedTuple):
    """The different pairs of answer and reference; many samples have the same, right ones above all.

    Attributes:
        predictions: Their answers.
        references: Their references.
        numbers: Which of them each sample has, shape (n,).
    """

    predictions: tuple[str, ...]
    references: tuple[str, ...]
    numbers: NDArray[np.int64]


@lru_cache(2)  # one for each arm, for every metric
def _pairs(predictions: tuple[str, ...], references: tuple[str, ...]) -> _Pairs:
    numbers: dict[tuple[str, str], int] = {}
    pairs = zip(predictions, references, strict=True)
    index = np.fromiter((numbers.setdefault(pair, len(numbers)) for pair in pairs), np.int64, len(predictions))
    return _Pairs(tuple(prediction for prediction, _ in numbers), tuple(reference for _, reference in numbers), index)


def _split_pairs(
    tokens: Tokens, predictions: tuple[str, ...], references: tuple[str, ...]
) -> tuple[list[Sequence[str]], list[Sequence[str]]]:
    """The tokens of the answers and references of `_pairs`."""
    pairs = _pairs(predictions, references)
    hypotheses, truths = _split_all(tokens, predictions), _split_all(tokens, references)
    return [hypotheses[text] for text in pairs.predictions], [truths[text] for text in pairs.references]


@lru_cache(2)  # both arms have the same references
def _split_all(tokens: Tokens, texts: tuple[str, ...]) -> dict[str, Sequence[str]]:
    """Text -> its tokens; equal ones are one object, for there are few and each would take 76 bytes.

    Those of the last two tuples of texts stay, at 8 bytes a token.
    """
    once: dict[str, str] = {}
    return {text: [once.setdefault(token, token) for token in tokens(text)] for text in dict.fromkeys(texts)}


@lru_cache(4)  # sacrebleu's convention takes them again
def _count_tokens(tokens: Tokens, predictions: tuple[str, ...], references: tuple[str, ...]) -> NDArray[np.int64]:
    counts = count_shared(*_split_pairs(tokens, predictions, references), ORDERS)
    return counts[_pairs(predictions, references).numbers]


def bleu_statistic(sums: Rows) -> Rows:
    """Corpus BLEU of summed counts, 0.0 to 1.0, with sacrebleu's `exp` smoothing.

    BLEU = min(1, e^(1 - r/c)) * (p_1 p_2 p_3 p_4)^(1/4), where the i-th precision of 0 matches counts as
    1 / (2^i * total). No match at all scores 0, as does a corpus too short for a 4-gram.

    Source: Papineni et al. 2002, "BLEU: a method for automatic evaluation of machine translation"; Post 2018, "A call
    for clarity in reporting BLEU scores".
    """
    length, reference_length = sums[..., 0], sums[..., 1]
    matches, totals = sums[..., 2 : 2 + ORDERS], sums[..., 2 + ORDERS :]
    with np.errstate(divide="ignore", invalid="ignore"):
        halvings = np.cumsum(matches == 0, axis=-1)
        precisions = np.where(matches > 0, matches, 0.5**halvings) / totals
        brevity = np.minimum(0.0, 1 - reference_length / length)
        scores = np.exp(brevity + np.log(precisions).mean(axis=-1))
    return np.asarray(np.where((matches.sum(axis=-1) > 0) & (totals.min(axis=-1) > 0), scores, 0.0))


def _bleu(tokenizer: str, title: str) -> Metric:
    def split(text: str) -> list[str]:
        return _sacrebleu_tokenizer(tokenizer)(text.rstrip()).split()

    return Metric(
        f"bleu_{tokenizer}",
        f"BLEU ({title})",
        f"nrefs:1|case:mixed|eff:no|tok:{tokenizer}|smooth:exp|version:{metadata.version('sacrebleu')}|not cut",
        table=lambda records: bleu_rows(records, split),
        statistic=bleu_statistic,
        kind="ngrams",
        title_zh="BLEU（字）" if tokenizer == "char" else None,
    )


def chrf_rows(records: Sequence[Prediction]) -> Rows:
    """The counts that chrF is made of: for 6 orders (n-grams, reference n-grams, matches), shape (n, 18)."""
    return _count_characters(*_texts(records)).reshape(len(records), -1).astype(np.float64)


@lru_cache(4)  # as above
def _count_characters(predictions: tuple[str, ...], references: tuple[str, ...]) -> NDArray[np.int64]:
    pairs = _pairs(predictions, references)
    hypotheses, truths = (["".join(text.split()) for text in texts] for texts in pairs[:2])
    counts = count_shared(hypotheses, truths, CHRF_ORDERS)
    counts[..., 0] *= counts[..., 1] > 0
    return counts[pairs.numbers]


def chrf_statistic(sums: Rows) -> Rows:
    """Corpus chrF2 of summed counts, 0.0 to 1.0: the F-score, beta = 2, of precision and recall averaged over orders.

    Source: Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation"; orders without n-grams are left
    out, as sacrebleu does.
    """
    answers, references, matches = sums[..., 0::3], sums[..., 1::3], sums[..., 2::3]
    with np.errstate(divide="ignore", invalid="ignore"):
        counted = (answers > 0) & (references > 0)
        orders = counted.sum(axis=-1)
        precision = np.where(counted, matches / answers, 0.0).sum(axis=-1) / orders
        recall = np.where(counted, matches / references, 0.0).sum(axis=-1) / orders
        scores = 5 * precision * recall / (4 * precision + recall)
    return np.asarray(np.nan_to_num(scores, nan=0.0))


# --- CIDEr-D ---------------------------------------------------------------------------------------------------------


def cider_d(
    predictions: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    sigma: float = 6.0,
    times: NDArray[np.int64] | None = None,
) -> list[float]:
    """CIDEr-D of tokenised answers, each with one reference.

    For n = 1 to 4, the clipped cosine of the two vectors of tf-idf weights, where idf = log(N) - log(df) counts in how
    many of the N references an n-gram occurs; times e^(-(difference of lengths)^2 / (2 sigma^2)); the mean over n,
    times 10. An n-gram that every reference has weighs nothing, so one sample alone, or equal references, score 0.

    Args:
        predictions: The answers' tokens.
        references: The references' tokens; they are the corpus of the document frequencies.
        sigma: Of the length penalty, in tokens.
        times: How many samples of the corpus each answer and its reference stand for, shape (n,); None for one.

    Returns:
        A score per answer, 0.0 to 10.0.

    Source: Vedantam et al. 2015, "CIDEr: consensus-based image description evaluation"; the variant that
    tylin/coco-caption:pycocoevalcap/cider/cider_scorer.py computes, its length being the number of 2-grams.
    """
    count = len(references)
    times = np.ones(count, np.int64) if times is None else times
    lengths = np.array([list(map(len, predictions)), list(map(len, references))])
    pairs = np.maximum(lengths - 1, 0)  # 2-grams
    cosines = np.zeros(count)
    for ngrams in _ngrams([*predictions, *references], ORDERS):
        numbers, codes = np.unique(ngrams.codes, return_inverse=True)
        keys, repeats = np.unique(ngrams.texts * len(numbers) + codes, return_counts=True)
        texts, codes = np.divmod(keys, max(len(numbers), 1))
        is_true = texts >= count
        frequency = np.bincount(codes[is_true], times[texts[is_true] - count], len(numbers))
        weights = repeats * (math.log(max(times.sum(), 1)) - np.log(np.maximum(frequency, 1)))[codes]
        squares = np.bincount(texts, weights**2, 2 * count)
        first, second = np.flatnonzero(~is_true), np.flatnonzero(is_true)
        sought = (texts[first] + count) * len(numbers) + codes[first]  # the same n-gram of the reference
        position = np.minimum(np.searchsorted(keys[second], sought), max(len(second) - 1, 0))
        both = keys[second][position] == sought if len(second) else np.zeros(len(first), bool)
        mine, other = first[both], second[position[both]] if len(second) else first[both]
        shared = np.bincount(texts[mine], np.minimum(weights[mine], weights[other]) * weights[other], count)
        norms = np.sqrt(squares[:count] * squares[count:])
        cosines += np.divide(shared[:count], norms, out=np.zeros(count), where=norms > 0)
    penalties = np.exp(-((pairs[0] - pairs[1]) ** 2) / (2 * sigma**2))
    scores: list[float] = (10 * penalties * cosines / ORDERS).tolist()
    return scores


def _cider_rows(records: Sequence[Prediction]) -> Rows:
    texts = _texts(records)
    numbers = _pairs(*texts).numbers
    scores = np.array(cider_d(*_split_pairs(words, *texts), times=np.bincount(numbers)))
    return np.stack([scores[numbers], np.ones(len(records))], axis=1)


# --- METEOR ----------------------------------------------------------------------------------------------------------


class _NoSynonyms:
    """Replaces WordNet, which would have to be downloaded."""

    def synsets(self, word: str) -> list[Any]:
        return []


@cache
def _meteor() -> Callable[..., float]:
    from nltk.translate.meteor_score import single_meteor_score  # takes a while to import

    return single_meteor_score  # type: ignore[no-any-return]


@_best_of_references
def meteor(prediction: str, reference: str) -> float:
    """METEOR with exact and stem matches, without synonyms and without Java, 0.0 to 1.0.

    With m matched words in c runs, P = m / words(prediction), R = m / words(reference):
    P R / (0.9 P + 0.1 R) * (1 - 0.5 (c / m)^3). Stems are Porter's and concern English only.

    Source: Banerjee & Lavie 2005, "METEOR: an automatic metric for MT evaluation", as nltk computes it. METEOR 1.5, the
    Java program of coco-caption, weighs otherwise and knows synonyms, so its scores cannot be compared with these.
    """
    hypothesis, truth = words(prediction), words(reference)
    if not hypothesis or not truth:
        return 0.0
    return float(_meteor()(truth, hypothesis, wordnet=_NoSynonyms()))


# --- the metrics -----------------------------------------------------------------------------------------------------


def answer_length(prediction: str, reference: str) -> float:
    """Characters of the answer, without blanks."""
    return float(len(characters(prediction)))


def length_ratio_rows(records: Sequence[Prediction]) -> Rows:
    """(characters of the answer, characters of the reference), without blanks, shape (n, 2)."""
    pairs = _pairs(*_texts(records))
    lengths = [[len(characters(text)) for text in texts] for texts in (pairs.predictions, pairs.references)]
    return np.array(lengths, dtype=np.float64).T[pairs.numbers]


_TOKENS = f"nfkc|without blanks|case kept|not cut|{OWN}"
_WORDS = "nfkc|lower case|words, Han characters singly|punctuation dropped|not cut"

EXACT_MATCH = Metric(
    "exact_match",
    "Exact match",
    f"nfkc|strip|one blank, none where decoding drops it|case kept|not cut|{OWN}",
    exact_match,
    title_zh="完全匹配",
)
NORMALISED_MATCH = Metric(
    "normalised_match",
    "Normalised match",
    f"nfkc|lower case|punctuation dropped|one blank|not cut|{OWN}",
    normalised_match,
    title_zh="归一化匹配",
)
CONTAINS = Metric(
    "contains",
    "Contains the reference",
    f"nfkc|lower case|punctuation dropped|word boundaries in Latin script|not cut|{OWN}",
    contains,
    rewards_naming=True,
    title_zh="包含参考答案",
)
ROUGE_L = Metric(
    "rouge_l_characters",
    "ROUGE-L (characters)",
    "as rouge-score 0.1|F1|characters without blanks|nfkc|case kept|smooth:none|not cut",
    rouge_l_characters,
    kind="ngrams",
    title_zh="ROUGE-L（字）",
)
ROUGE_L_WORDS = Metric(
    "rouge_l_words",
    "ROUGE-L (words)",
    f"as rouge-score 0.1|F1|{_WORDS}|no stemming|smooth:none",
    rouge_l_words,
    kind="ngrams",
    title_zh="ROUGE-L（词）",
)
BLEU_ZH, BLEU_CHAR, BLEU_13A = _bleu("zh", "zh"), _bleu("char", "characters"), _bleu("13a", "13a")
CHRF = Metric(
    "chrf",
    "chrF2",
    "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|tok:characters|smooth:none|not cut|as sacrebleu 2.6",
    table=chrf_rows,
    statistic=chrf_statistic,
    kind="ngrams",
)
CIDER_D = Metric(
    "cider_d",
    "CIDEr-D",
    f"0 to 10|n 1-4|sigma 6|df of these references|smooth:none|{_WORDS}|as pycocoevalcap 1.2",
    table=_cider_rows,
    kind="ngrams",
    unit="",
)
METEOR = Metric(
    "meteor",
    "METEOR (exact and stem)",
    f"nltk {metadata.version('nltk')}|alpha 0.9, beta 3, gamma 0.5|Porter stems|no synonyms|smooth:none|{_WORDS}"
    "|not Java's METEOR 1.5, whose scores are about half as high",
    meteor,
    kind="ngrams",
    title_zh="METEOR（原形与词干）",
)
ANSWER_LENGTH = Metric(
    "answer_length",
    "Answer length",
    f"characters|{_TOKENS}",
    answer_length,
    unit="characters",
    higher_is_better=None,
    title_zh="回答长度",
)
LENGTH_RATIO = Metric(
    "length_ratio",
    "Length ratio",
    f"characters of answers / of references|{_TOKENS}",
    table=length_ratio_rows,
    unit="",
    higher_is_better=None,
    title_zh="长度比",
)
