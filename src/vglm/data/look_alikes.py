"""Find test pictures that are modified copies of training pictures: recompressed, scaled, flipped or cropped.

find_copies(tested, learned)     [Copy(tested=3, learned=17, how="flipped, cropped")]

Pictures are compared as thumbnails of 64 x 64 grey values, less the mean picture of the training set: the black border
of X-rays and the axes of plots are in all of them and carry no information. Each picture is tried on 100 boxes of the
other and of its mirror image, both ways round, in coarse form; the best candidates of each test picture are then
aligned and must agree in every part of the picture, so that the same scene with another subject is no copy.

Where all pictures are similar, as X-rays are, a box that is slightly off hides the difference between pictures. There
the mean picture shows where a test picture was cropped: the test picture is aligned with it, and its difference to the
mean is compared with that of the same box in each training picture.

Hashes of pictures (difference hash, DCT hash) are quicker to compare, but a crop changes every bit of them. Here a pair
costs 200 products of 144 numbers, which a matrix product of all pairs makes in blocks; `benchmarks/look_alikes.py`
has time, recall and false alarms.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

SIDE = 64
"""Pixels of a thumbnail's side."""

MAX_PAIRS = 1_000_000_000
"""With more pairs of pictures nothing is searched."""

MAX_CROPPED_PAIRS = 20_000_000
"""With more pairs of pictures no crops are searched, a hundredth of the work."""

_BLOCK_PICTURES = 1024
"""Number of test pictures, and of training pictures, that are compared at a time."""

_COARSE = 12
_LEAST_SHARE = 0.6
"""Of the side that is left of a picture."""
_MOST_TENTHS_CUT = 3
"""Tenths of the width, and of the height, that a crop may take away."""
_CANDIDATES = 2
_CANDIDATE_CORRELATION = 0.8
_CANDIDATES_BY_MEAN = 2
"""For each of both mirror images."""
_CUT_BY_MEAN = 64
"""Training pictures among which they are looked for exactly."""
_FINE = 32
"""Cells of the side in which aligned pictures must agree; finer detail does not survive a compression."""
_STEPS = ((0.04, _COARSE), (0.02, 16), (0.01, 24), (0.005, _FINE))
"""Of the alignment, as shares of the side, and the cells of the side to compare by: texture misleads a large step."""
_LAST_STEPS = ((0.0025, _FINE),)
"""Of the candidate that agrees best."""
_WORTH_ALIGNING = 0.85
_MIN_CORRELATION = 0.95
_SAME_CORRELATION, _RIVAL_SHARE = 0.985, 0.25
"""Where all pictures are much alike, as X-rays are, a copy less alike than the first must differ from its original at
most a quarter as much as from the next training picture."""
_MIN_SPREAD = 2.0
"""Grey levels; a picture with fewer is plain, and matches any other plain one."""
_BLOCK = 2
_MAX_BLOCK_DIFFERENCE = 20.0
"""Grey levels, by which the means of 2 x 2 cells of aligned pictures may differ."""
_MEAN_OF_AT_LEAST = 8

Grey = NDArray[np.float32]
Scope = Literal["all", "whole", "nothing"]
"""Which copies are searched for: crops too, whole pictures alone, none."""


@dataclass(frozen=True)
class Copy:
    """Two pictures, one of which is made from the other.

    Attributes:
        tested: Index of the test picture.
        learned: Index of the training picture.
        how: `re-encoded` (or scaled), `flipped`, `cropped`, or `flipped, cropped`.
    """

    tested: int
    learned: int
    how: str


class _Box(NamedTuple):
    """A part of a picture, edges as shares of its sides."""

    left: float
    right: float
    top: float
    bottom: float


_WHOLE = _Box(0.0, 1.0, 0.0, 1.0)


class _Fit(NamedTuple):
    """How well a picture agrees with a box of another, and which."""

    correlation: float
    is_flipped: bool
    box: _Box


def thumbnail(picture: Image.Image) -> NDArray[np.uint8]:
    """Reduce a picture to grey means, shape (64, 64), uint8."""
    return np.asarray(picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.uint8)


def search_scope(tested: int, learned: int) -> Scope:
    """What `find_copies` searches for, given the numbers of pictures."""
    pairs = tested * learned
    return "all" if pairs <= MAX_CROPPED_PAIRS else "whole" if pairs <= MAX_PAIRS else "nothing"


def find_copies(tested: Sequence[NDArray[np.uint8]], learned: Sequence[NDArray[np.uint8]]) -> list[Copy]:
    """Find for each test picture the training picture that it agrees with best, if it is a copy.

    Args:
        tested: Thumbnails of the test pictures.
        learned: Thumbnails of the training pictures.

    Returns:
        At most one pair for each test picture, in order. A plain picture is in none. With more than
        `MAX_CROPPED_PAIRS` pairs no crop is found.

    Raises:
        ValueError: There are more than `MAX_PAIRS` pairs.
    """
    if (scope := search_scope(len(tested), len(learned))) == "nothing":
        raise ValueError(f"more than {MAX_PAIRS:,} pairs of pictures")
    if not len(tested) or not len(learned):
        return []
    first, second = np.asarray(tested, np.uint8), np.asarray(learned, np.uint8)
    views = _VIEWS if scope == "all" else [view for view in _VIEWS if view[1] == _WHOLE]
    mean = np.zeros((SIDE, SIDE), np.float32)
    if len(second) >= _MEAN_OF_AT_LEAST:
        mean = second.mean(axis=0, dtype=np.float64).astype(np.float32)
    halved = _Halved.of(second, mean) if scope == "all" and mean.any() else None
    starts = range(0, len(first), _BLOCK_PICTURES)
    copies = []
    for start in tqdm(starts, desc="comparing images", unit="block", delay=2):
        block = first[start : start + _BLOCK_PICTURES].astype(np.float32)
        for index, candidates in enumerate(_candidates(block, second, mean, views)):
            if halved is not None:
                candidates += _candidates_by_mean(block[index], mean, halved)
            copies += _copies(start + index, block[index], second, mean, candidates)
    return copies


def _copies(
    index: int, tested: Grey, learned: NDArray[np.uint8], mean: Grey, candidates: "Sequence[_Candidate]"
) -> list[Copy]:
    """The test picture with the candidate that it agrees with best, if that is its original."""
    best: dict[int, tuple[_Likeness, bool]] = {}
    for candidate in candidates:
        pair = _in_order(tested, learned[candidate.learned].astype(np.float32), candidate.is_forward)
        likeness = _likeness(*pair, _align(*pair, candidate.is_flipped, candidate.box), mean)
        so_far = best.get(candidate.learned)
        if so_far is None or (likeness.agrees, likeness.value) > (so_far[0].agrees, so_far[0].value):
            best[candidate.learned] = likeness, candidate.is_forward
    ranked = sorted(best.items(), key=lambda item: -item[1][0].value)
    if not ranked or not ranked[0][1][0].agrees:
        return []
    which, (likeness, is_forward) = ranked[0]
    pair = _in_order(tested, learned[which].astype(np.float32), is_forward)
    likeness = _likeness(*pair, _align(*pair, likeness.fit.is_flipped, likeness.fit.box, _LAST_STEPS), mean)
    rival = ranked[1][1][0].value if ranked[1:] else 0.0
    return [Copy(index, which, _describe(likeness.fit))] if _is_copy(likeness, rival) else []


def _is_copy(likeness: "_Likeness", rival: float) -> bool:
    """Whether a picture is alike enough, and unless it is the same in all, much more so than the next one."""
    if not likeness.agrees or likeness.value < _MIN_CORRELATION:
        return False
    return likeness.value >= _SAME_CORRELATION or 1 - likeness.value <= _RIVAL_SHARE * (1 - rival)


class _Candidate(NamedTuple):
    """A training picture that may be a copy: which, in which view, and whether that is a view of it."""

    correlation: float
    learned: int
    is_flipped: bool
    box: _Box
    is_forward: bool


def _candidates(
    tested: Grey, learned: NDArray[np.uint8], mean: Grey, views: Sequence[tuple[bool, _Box]]
) -> list[list[_Candidate]]:
    """For each picture of a block the training pictures with the best coarse correlations, best first."""
    best: list[list[_Candidate]] = [[] for _ in tested]
    is_plain = tested.std(axis=(1, 2)) < _MIN_SPREAD
    for start in range(0, len(learned), _BLOCK_PICTURES):
        block = learned[start : start + _BLOCK_PICTURES].astype(np.float32)
        forward, backward = _best_boxes(tested, block, mean, views), _best_boxes(block, tested, mean, views)
        scores = np.maximum(forward[0], backward[0].T)
        scores[:, block.std(axis=(1, 2)) < _MIN_SPREAD] = -1
        scores[is_plain] = -1
        for test in np.flatnonzero(scores.max(axis=1) >= _CANDIDATE_CORRELATION):
            for train in np.argsort(-scores[test])[:_CANDIDATES]:
                is_forward = bool(forward[0][test, train] >= backward[0][train, test])
                flip, box = views[forward[1][test, train] if is_forward else backward[1][train, test]]
                best[test].append(_Candidate(float(scores[test, train]), start + int(train), flip, box, is_forward))
    return [
        sorted((candidate for candidate in some if candidate.correlation >= _CANDIDATE_CORRELATION), reverse=True)[
            :_CANDIDATES
        ]
        for some in best
    ]


class _Halved(NamedTuple):
    """Training pictures at half their size.

    Attributes:
        pictures: Shape (n, 32, 32).
        own: What each has beside the mean picture, as a vector of length 1, shape (n, 1024).
    """

    pictures: Grey
    own: Grey

    @classmethod
    def of(cls, learned: NDArray[np.uint8], mean: Grey) -> "_Halved":
        """Make them of thumbnails, shape (n, 64, 64), and of their mean."""
        pictures = _cut(learned.astype(np.float32), _WHOLE, _FINE)
        return cls(pictures, _unit(pictures - _cut(mean, _WHOLE, _FINE)))


def _candidates_by_mean(tested: Grey, mean: Grey, learned: _Halved) -> Iterator[_Candidate]:
    """The training pictures that have most of what a picture has beside the mean picture, where it is aligned with it.

    Args:
        tested: Shape (64, 64).
        mean: Of the training pictures, shape (64, 64).
        learned: The training pictures.
    """
    if tested.std() < _MIN_SPREAD:
        return
    coarse = _cut(tested, _WHOLE, _COARSE)
    for flip in (False, True):
        boxes = [view for view in _VIEWS if view[0] == flip]
        scores = _unit(np.stack([_cut(mean, box, _COARSE, flip) for _, box in boxes])) @ _unit(coarse[None])[0]
        fit = _align(tested, mean, *boxes[int(scores.argmax())])
        if fit.correlation < _CANDIDATE_CORRELATION:
            continue  # this picture is not like the others
        common = _cut(mean, fit.box, _COARSE, flip)
        own = _unit((coarse - common)[None])[0]
        rough = learned.own @ _spread(own.reshape(_COARSE, _COARSE), fit.box, _FINE, flip).ravel()
        likely = np.argsort(-rough)[:_CUT_BY_MEAN]  # cropping all takes a hundred times as long
        scores = _unit(_cut(learned.pictures[likely], fit.box, _COARSE, flip) - common) @ own
        for index in np.argsort(-scores)[:_CANDIDATES_BY_MEAN]:
            yield _Candidate(float(scores[index]), int(likely[index]), flip, fit.box, True)


def _in_order(tested: Grey, learned: Grey, is_forward: bool) -> tuple[Grey, Grey]:
    """The whole picture, and that of which it is a part."""
    return (tested, learned) if is_forward else (learned, tested)


_INTERVALS = [(low / 10, 1 - (cut - low) / 10) for cut in range(_MOST_TENTHS_CUT + 1) for low in range(cut + 1)]
_VIEWS = [(flip, _Box(*x, *y)) for flip, x, y in product((False, True), _INTERVALS, _INTERVALS)]


def _best_boxes(
    whole: Grey, parts: Grey, mean: Grey, views: Sequence[tuple[bool, _Box]]
) -> tuple[Grey, NDArray[np.int16]]:
    """The best correlation of each picture of `whole` with a box of each of `parts`, and which view it is."""
    best = np.full((len(whole), len(parts)), -1, np.float32)
    view = np.zeros(best.shape, np.int16)
    coarse = _cut(whole, _WHOLE, _COARSE)
    for number, (flip, box) in enumerate(views):
        common = _cut(mean, box, _COARSE, flip)
        scores = _unit(coarse - common) @ _unit(_cut(parts, box, _COARSE, flip) - common).T
        view[scores > best] = number
        np.maximum(best, scores, out=best)
    return best, view


def _unit(pictures: Grey) -> Grey:
    """Pictures as vectors of mean 0 and length 1, shape (n, pixels); plain ones are 0."""
    flat = pictures.reshape(len(pictures), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.where(length > 0, length, 1), np.float32)


def _cut(pictures: Grey, box: _Box, side: int, flip: bool = False) -> Grey:
    """A box of pictures, (..., P, P), of their mirror images if `flip`, as means of side x side cells."""
    down, across = _cells(box, side, pictures.shape[-1], flip)
    return np.asarray(np.matmul(down, np.tensordot(pictures, across.T.copy(), axes=1)), np.float32)


def _spread(cells: Grey, box: _Box, count: int, flip: bool) -> Grey:
    """The transpose of `_cut`: a picture's product with the result is the product of its cells with `cells`.

    Args:
        cells: Shape (side, side).
        box: Of a picture.
        count: Pixels of its side.
        flip: Whether of its mirror image.

    Returns:
        Shape (count, count).
    """
    down, across = _cells(box, len(cells), count, flip)
    return np.asarray(down.T @ cells @ across, np.float32)


def _cells(box: _Box, side: int, count: int, flip: bool) -> tuple[Grey, Grey]:
    """How much of each line of pixels is in each line of cells, and likewise of columns, shape (side, count) each."""
    across = _weights(box.left, box.right, side, count)
    return _weights(box.top, box.bottom, side, count), across[:, ::-1] if flip else across


@lru_cache(4096)  # the same edges are tried for most pictures: a search takes a third of the time
def _weights(low: float, high: float, side: int, count: int) -> Grey:
    """How much of each of P pixels is in each cell of an interval, shape (side, P), rows with sum 1; read only."""
    edges = count * np.linspace(low, high, side + 1)[:, None]
    pixels = np.arange(count)
    cells = np.clip(np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels), 0, None)
    weights = np.asarray(cells * side / (count * (high - low)), np.float32)
    weights.setflags(write=False)
    return weights


def _correlate(one: Grey, other: Grey) -> float:
    vectors = _unit(np.stack([one, other]))
    return float(vectors[0] @ vectors[1])


def _align(whole: Grey, part: Grey, flip: bool, box: _Box, steps: Sequence[tuple[float, int]] = _STEPS) -> _Fit:
    """Move the edges of a box, ever more finely, while the correlation grows."""
    best = _Fit(0.0, flip, box)
    for step, side in steps:
        target = _cut(whole, _WHOLE, side)
        best = _Fit(_correlate(target, _cut(part, best.box, side, flip)), flip, best.box)
        if best.correlation < _CANDIDATE_CORRELATION:
            return best
        is_better = True
        while is_better:
            is_better = False
            for trial in _moved(best.box, step):
                correlation = _correlate(target, _cut(part, trial, side, flip))
                if correlation > best.correlation + 1e-5:
                    best, is_better = _Fit(correlation, flip, trial), True
        if best.correlation < _WORTH_ALIGNING:
            return best
    return best


def _moved(box: _Box, step: float) -> Iterator[_Box]:
    """The box with one of its edges moved, inside the picture."""
    for edge, shift in product(range(4), (-step, step)):
        edges = list(box)
        edges[edge] = min(max(edges[edge] + shift, 0.0), 1.0)
        moved = _Box(*edges)
        if moved != box and min(moved.right - moved.left, moved.bottom - moved.top) >= _LEAST_SHARE:
            yield moved


class _Likeness(NamedTuple):
    """How well aligned pictures agree in what the mean picture has not, and whether they do so everywhere."""

    value: float
    agrees: bool
    fit: _Fit


def _likeness(whole: Grey, part: Grey, fit: _Fit, mean: Grey) -> _Likeness:
    if fit.correlation < _MIN_CORRELATION:
        return _Likeness(0.0, False, fit)
    target = _cut(whole, _WHOLE, _FINE)
    seen, common = (_cut(picture, fit.box, _FINE, fit.is_flipped) for picture in (part, mean))
    gain = target.std() / max(float(seen.std()), 1e-6)
    rest = (target - target.mean()) - gain * (seen - seen.mean())
    blocks = rest.reshape(_FINE // _BLOCK, _BLOCK, _FINE // _BLOCK, _BLOCK).mean(axis=(1, 3))
    return _Likeness(
        _correlate(target - common, seen - common), bool(np.abs(blocks).max() <= _MAX_BLOCK_DIFFERENCE), fit
    )


def _describe(fit: _Fit) -> str:
    is_cropped = min(fit.box.right - fit.box.left, fit.box.bottom - fit.box.top) < 0.97
    return ", ".join(["flipped"] * fit.is_flipped + ["cropped"] * bool(is_cropped)) or "re-encoded"
