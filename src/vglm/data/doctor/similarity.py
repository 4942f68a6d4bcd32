"""Find pictures that look alike, without comparing each with every other.

A picture is shrunk to 9 x 9 cells. Its perceptual hash has one bit for each pair of neighbouring cells: is the right
(the lower) one brighter? Of 144 bits those of re-compressed, scaled or slightly edited copies differ in a few. The bits
are distributed over nine bands of 16; two hashes that differ in at most eight bits agree in at least one band, so only
pictures that share a band are compared.

Bits that are the same in all pictures of a set (the black border of X-rays) make bands crowded. Where more than
`_CROWD` pictures share one, each is compared with the `_CROWD // 2` next in the order of the other bands.

Source: the difference hash of N. Krawetz, "Kind of Like That" (2013), row and column form.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GRID = 9
MAX_DISTANCE = 8
"""Largest number of differing bits between pictures that look alike, of 144."""

_BANDS = 9
_CROWD = 128
# A hash ignores how large a difference is, so the cells themselves are compared too, in grey levels of 256.
_MAX_CELL_DIFFERENCE = 24
_MAX_COLOUR_DIFFERENCE = 12
_MIN_STEP = 2.0  # grey levels; what is fainter is noise of the compression
# Neighbouring bits are correlated; dealing them out in a fixed random order gives every band some of each region.
_ORDER = np.random.default_rng(0).permutation(2 * GRID * (GRID - 1))


def shrink(picture: Image.Image) -> NDArray[np.uint8]:
    """Reduce a picture to the means of 9 x 9 cells.

    Args:
        picture: RGB, any size.

    Returns:
        Shape (9, 9, 3), uint8.
    """
    return np.asarray(picture.resize((GRID, GRID), Image.Resampling.BOX), dtype=np.uint8)


def hash_bits(cells: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Compute perceptual hashes.

    Args:
        cells: What `shrink` makes of N pictures, shape (N, 9, 9, 3).

    Returns:
        Shape (N, 144), bool.
    """
    grey = _grey(cells)
    across = grey[:, :, 1:] > grey[:, :, :-1] + _MIN_STEP
    down = grey[:, 1:, :] > grey[:, :-1, :] + _MIN_STEP
    return np.concatenate([across.reshape(len(grey), -1), down.reshape(len(grey), -1)], axis=1)


def look_alike(cells: NDArray[np.uint8], first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Compare pairs of pictures.

    Args:
        cells: Shape (N, 9, 9, 3), uint8.
        first: Indices of the pairs' first pictures, shape (P,).
        second: Of their second pictures, shape (P,).

    Returns:
        Shape (P,): at most `MAX_DISTANCE` bits differ, and no cell differs by more than its share of a different
        overall brightness and a little.
    """
    return _compare(cells, _pack(hash_bits(cells)), first, second)


def find_look_alikes(cells: NDArray[np.uint8]) -> list[list[int]]:
    """Find the groups of pictures that `look_alike` joins, directly or through others.

    Args:
        cells: Shape (N, 9, 9, 3), uint8.

    Returns:
        Indices of each group of at least two, ascending; the groups in the order of their first pictures.
    """
    if len(cells) < 2:
        return []
    bits = hash_bits(cells)
    packed = _pack(bits)
    bands = np.ascontiguousarray(np.packbits(bits[:, _ORDER], axis=1)).view(np.uint16)  # (N, 9)
    group_of = np.arange(len(cells))  # the smallest index in the group
    for first, second in _candidates(bands):
        apart = group_of[first] != group_of[second]
        first, second = first[apart], second[apart]
        alike = _compare(cells, packed, first, second)
        if alike.any():
            group_of = _join(group_of, first[alike], second[alike])
    order = np.argsort(group_of, kind="stable")
    starts = np.flatnonzero(np.diff(group_of[order], prepend=-1))
    return [sorted(group.tolist()) for group in np.split(order, starts[1:]) if len(group) > 1]


def _join(group_of: NDArray[np.intp], first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.intp]:
    """Put the groups of each pair together."""
    parent = np.arange(len(group_of))

    def root(member: int) -> int:
        while parent[member] != member:
            parent[member] = member = int(parent[parent[member]])
        return member

    for one, other in zip(group_of[first].tolist(), group_of[second].tolist(), strict=True):
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    while not np.array_equal(parent, parent[parent]):
        parent = parent[parent]
    return parent[group_of]


def _pack(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Hashes as three words each, shape (N, 3)."""
    padded = np.zeros((len(bits), 192), np.bool_)
    padded[:, : bits.shape[1]] = bits
    return np.packbits(padded, axis=1).view(np.uint64)


def _grey(cells: NDArray[np.uint8]) -> NDArray[np.float32]:
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    return np.asarray(cells.astype(np.float32) @ weights, np.float32)


def _candidates(bands: NDArray[np.uint16]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Index pairs that agree in a band; a pair may come several times."""
    for band in range(_BANDS):
        others = [bands[:, (band + shift) % _BANDS] for shift in range(_BANDS - 1, 0, -1)]
        order = np.lexsort([*others, bands[:, band]])  # the last key counts first
        starts = np.flatnonzero(np.diff(bands[order, band], prepend=-1)) if len(order) else order
        sizes = np.diff(starts, append=len(order))
        # Pairs at one distance in this order are taken together, as long as they lie in the same crowd.
        end_of = np.repeat(starts + sizes, sizes)
        reach_of = np.repeat(np.where(sizes <= _CROWD, sizes, _CROWD // 2), sizes)
        indices = np.arange(len(order))
        for step in range(1, _CROWD):
            indices = indices[(indices + step < end_of[indices]) & (step <= reach_of[indices])]
            if not len(indices):
                break
            yield order[indices], order[indices + step]


def _compare(
    cells: NDArray[np.uint8], packed: NDArray[np.uint64], first: NDArray[np.intp], second: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """`look_alike`, the cheap comparison first."""
    alike: NDArray[np.bool_] = np.bitwise_count(packed[first] ^ packed[second]).sum(axis=1) <= MAX_DISTANCE
    close = np.flatnonzero(alike)
    if len(close):
        difference = cells[first[close]].astype(np.float32) - cells[second[close]].astype(np.float32)
        grey = difference.mean(axis=3)
        grey -= grey.mean(axis=(1, 2), keepdims=True)
        colour = difference.mean(axis=(1, 2))
        colour -= colour.mean(axis=1, keepdims=True)
        alike[close] = (np.abs(grey).max(axis=(1, 2)) <= _MAX_CELL_DIFFERENCE) & (
            np.abs(colour).max(axis=1) <= _MAX_COLOUR_DIFFERENCE
        )
    return alike
