"""Drawing samples of groups with replacement."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vglm.evaluation.score.statistics.basics import Statistic

BLOCK = 2_000_000
"""Number of resampled clusters in memory at a time."""
MAX_KEPT = 400_000_000
"""Number kept for the next metric, in a byte each (two where one is drawn 256 times); more are drawn again."""

_CACHED = 1 << 16
"""Number that a processor's cache holds while they are counted."""


def resample(clusters: NDArray[np.float64], statistic: Statistic, resamples: int, seed: int) -> NDArray[np.float64]:
    """Scores of samples of clusters, drawn with replacement.

    Args:
        clusters: Sums of each cluster, shape (G, k).
        statistic: From sums to the score.
        resamples: How many to draw.
        seed: Of the draws.

    Returns:
        Shape (resamples,).
    """
    count = len(clusters)
    distinct, times = np.unique(clusters, axis=0, return_counts=True)
    if 4 * len(distinct) <= count:  # right/wrong scores, mostly: how often each row is drawn says all
        generator, shares, step = np.random.default_rng(seed), times / count, max(1, BLOCK // len(distinct))
        sizes = (min(step, resamples - start) for start in range(0, resamples, step))
        sums = [generator.multinomial(count, shares, size=size) @ distinct for size in sizes]
        return np.atleast_1d(statistic(np.concatenate(sums)))
    blocks = (_kept_draws if resamples * count <= MAX_KEPT else _draw_clusters)(count, resamples, seed)
    return np.concatenate([np.atleast_1d(statistic(times @ clusters)) for times in blocks])


@lru_cache(1)
def _kept_draws(count: int, resamples: int, seed: int) -> list[NDArray[np.unsignedinteger]]:
    """The same draws for every metric of a report; the last ones stay: up to 400 MB (800 in two bytes each).

    Other reports of as many groups in the same process take them too.
    """
    return list(_draw_clusters(count, resamples, seed))


def _draw_clusters(count: int, resamples: int, seed: int) -> Iterator[NDArray[np.unsignedinteger]]:
    """How often each of `count` clusters is drawn, in blocks of draws, each of shape (draws, count)."""
    generator = np.random.default_rng(seed)
    step, rows = max(1, BLOCK // count), max(1, _CACHED // count)
    for start in range(0, resamples, step):
        drawn = generator.integers(count, size=(min(step, resamples - start), count), dtype=np.int32)
        times = np.concatenate([_times(drawn[row : row + rows]) for row in range(0, len(drawn), rows)])
        yield times.astype(np.min_scalar_type(times.max()), copy=False)


def _times(drawn: NDArray[np.int32]) -> NDArray[np.uint16]:
    """How often each number is in each row, shape as it is."""
    rows, count = drawn.shape
    cells = drawn + count * np.arange(rows)[:, None]
    return np.bincount(cells.ravel(), minlength=rows * count).reshape(rows, count).astype(np.uint16)
