"""Arrow's arrays from texts and numbers, and back.

    text_array(["a", None])                                 StringArray ["a", null]
    numbers_of(number_array(np.arange(3)))                  array([0, 1, 2])

Arrow's own `pa.array`, `to_numpy` and Python values as arguments of its functions import pandas where it is installed.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def text_array(texts: Iterable[str | None]) -> pa.StringArray:
    """Texts as an array.

    Args:
        texts: None becomes a null.

    Raises:
        UnicodeEncodeError: A text has half a character.
    """
    builder = pa.lib.StringBuilder()
    builder.append_values(texts)
    return builder.finish()


@cache
def text_scalar(text: str) -> pa.StringScalar:
    """A text as an argument of Arrow's functions; for texts of the code, as all are remembered."""
    return text_array([text])[0]


def number_array(numbers: NDArray[Any], is_present: NDArray[np.bool_] | None = None) -> pa.Array:
    """An array of the same numbers, in the same memory, or of truth values, which take a bit each.

    Args:
        numbers: Shape (n,).
        is_present: Which of them count, shape (n,); the others are nulls. All count if None.
    """
    is_truth = numbers.dtype == np.bool_
    values = np.packbits(numbers, bitorder="little") if is_truth else np.ascontiguousarray(numbers)
    valid = None if is_present is None else pa.py_buffer(np.packbits(is_present, bitorder="little"))
    return pa.Array.from_buffers(pa.from_numpy_dtype(numbers.dtype), len(numbers), [valid, pa.py_buffer(values)])


def numbers_of(array: pa.Array) -> NDArray[Any]:
    """The numbers of an array without nulls, shape (n,), in the same memory, which is not to be written to."""
    numbers: NDArray[Any] = np.frombuffer(array.buffers()[1], array.type.to_pandas_dtype())
    return numbers[array.offset : array.offset + len(array)]
