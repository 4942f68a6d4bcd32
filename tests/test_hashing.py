"""One identity for the same numbers, whatever they are stored in; another for any other numbers, names or shapes."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vglm.model.hashing import ALGORITHMS, describe, hash_tensors, in_threads

HALVES = (torch.bfloat16, torch.float16)
NUMBERS = st.lists(
    st.floats(width=16, allow_nan=False) | st.sampled_from([0.0, -0.0, math.inf, 1.0, 65504.0, 6e-8]), max_size=40
)


@given(NUMBERS, st.sampled_from(HALVES), st.sampled_from(ALGORITHMS))
def test_an_exact_copy_in_a_wider_type_is_the_same(numbers, dtype, algorithm) -> None:
    stored = torch.tensor(numbers, dtype=torch.float32).to(dtype)
    assert describe(stored, algorithm) == describe(stored.float(), algorithm)


@given(NUMBERS, st.data())
def test_the_types_that_hold_all_numbers_agree(numbers, data) -> None:
    wide = torch.tensor(numbers, dtype=torch.float32)
    same = [wide.to(dtype) for dtype in HALVES if torch.equal(wide.to(dtype).float(), wide)]
    assert {describe(number) for number in same} <= {describe(wide)}
    if numbers:
        index = data.draw(st.integers(0, len(numbers) - 1))
        other = wide.clone()
        other[index] = 3.0 if wide[index] != 3.0 else 4.0
        assert describe(other) != describe(wide)


@pytest.mark.parametrize("at", [0, 1023, 1024, 2**22 - 1, 2**22, 2**22 + 5])
def test_one_number_anywhere_decides(at: int) -> None:
    tensor = torch.ones(2**22 + 6)
    before = describe(tensor)
    assert "bfloat16" in before
    tensor[at] = 1 + 2**-10
    assert "torch.float16" in describe(tensor) != before
    assert describe(tensor) == describe(tensor.half())
    tensor[at] = 1 + 2**-20
    assert "float32" in describe(tensor)


def test_names_shapes_and_integers_count() -> None:
    rows: list[dict[str, Tensor]] = [
        {"a": torch.ones(2, 3)},
        {"b": torch.ones(2, 3)},
        {"a": torch.ones(3, 2)},
        {"a": torch.ones(2, 3, dtype=torch.int32)},
        {"a": torch.ones(2, 3), "b": torch.ones(1)},
    ]
    for algorithm in ALGORITHMS:
        assert len({hash_tensors(row.items(), algorithm) for row in rows}) == len(rows)
        both = list(rows[-1].items())
        assert hash_tensors(both, algorithm) == hash_tensors(both[::-1], algorithm)


def test_views_are_hashed_as_what_they_show() -> None:
    table = torch.arange(12.0).reshape(3, 4)
    assert describe(table.T) == describe(table.T.contiguous()) != describe(table)


def test_jobs_keep_their_order() -> None:
    jobs: list[Callable[[], dict[str, str]]] = [lambda i=i: {str(i): ""} for i in range(50)]  # type: ignore[misc]
    assert [list(numbers) for numbers in in_threads(jobs)] == [[str(i)] for i in range(50)]
