"""Hashes of tensors that are equal for the same numbers under the same names, whatever type they are stored in.

    hash_tensors({"weight": torch.ones(2).half()}.items()) == hash_tensors({"weight": torch.ones(2)}.items())

A tensor counts as the narrowest of bfloat16, float16 and float32 that holds all of its numbers exactly, so a tensor in
half precision is hashed as stored, and its exact copy in another type has the same hash (except for NaN, which has many
bit patterns). Older records use SHA-256 over float32 copies, which is ten times slower; it is computed only to check
such a record.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import torch
import xxhash
from torch import Tensor

Algorithm = Literal["xxh3", "sha256"]

ALGORITHMS: tuple[Algorithm, ...] = ("xxh3", "sha256")
"""From the one in use to older ones."""

_AT_ONCE = 2**22  # elements
_FIRST_LOOK = 2**10  # elements; nearly always enough to see that a type is too narrow
_THREADS = 4  # more do not help: memory and disks are the limit
_NARROW = (torch.bfloat16, torch.float16)


def hash_tensors(tensors: Iterable[tuple[str, Tensor]], algorithm: Algorithm = "xxh3") -> str:
    """Hash numbers by name, in any order.

    Args:
        tensors: Names and tensors.
        algorithm: How.

    Returns:
        Hexadecimal digits: 32 of XXH3, 64 of SHA-256.
    """
    return combine({name: describe(tensor, algorithm) for name, tensor in tensors}, algorithm)


def combine(described: Mapping[str, str], algorithm: Algorithm = "xxh3") -> str:
    """The hash of tensors, each described by `describe`."""
    lines = "".join(sorted(f"{name} {text}\n" for name, text in described.items()))
    return str(_new(algorithm, lines.encode()).hexdigest())


def describe(tensor: Tensor, algorithm: Algorithm = "xxh3") -> str:
    """Shape and hash of a tensor's numbers, and the type that they were hashed in."""
    flat = tensor.detach().reshape(-1)
    dtype = torch.float32 if algorithm == "sha256" else _narrowest(flat)
    digest = _new(algorithm)
    for part in flat.split(_AT_ONCE):
        numbers = part.to(dtype) if part.is_floating_point() else part
        digest.update(numbers.cpu().contiguous().view(torch.uint8).numpy().data)
    kind = "" if algorithm == "sha256" else f"{dtype if flat.is_floating_point() else flat.dtype} "
    return f"{tuple(tensor.shape)} {kind}{digest.hexdigest()}"


def in_threads(jobs: Iterable[Callable[[], dict[str, str]]]) -> Iterator[dict[str, str]]:
    """Do jobs of hashing, several at a time, and yield their results in order."""
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        yield from pool.map(lambda job: job(), jobs)


def _new(algorithm: Algorithm, content: bytes = b"") -> Any:
    return hashlib.sha256(content) if algorithm == "sha256" else xxhash.xxh3_128(content)


def _narrowest(flat: Tensor) -> torch.dtype:
    """The first of `_NARROW` that holds all numbers of a tensor, float32 where none does."""
    for dtype in _NARROW if flat.is_floating_point() else ():
        if flat.dtype == dtype or (
            _holds(dtype, flat[:_FIRST_LOOK]) and all(_holds(dtype, part) for part in flat.split(_AT_ONCE))
        ):
            return dtype
    return torch.float32


def _holds(dtype: torch.dtype, numbers: Tensor) -> bool:
    wide = numbers.float()
    return torch.equal(wide.to(dtype).float().view(torch.int32), wide.view(torch.int32))
