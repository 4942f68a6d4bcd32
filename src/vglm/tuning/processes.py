"""The processes that train together: one, or as many as `torchrun` or `accelerate launch` started.

Their group is made by `transformers.TrainingArguments`, which knows on what they run.
"""

import os
from collections.abc import Callable
from typing import TypeVar

from vglm.config import is_one_of_several
from vglm.errors import WorkbenchError

T = TypeVar("T")


def is_main() -> bool:
    """Whether this is the process that writes and prints."""
    return not is_one_of_several() or os.environ["RANK"] == "0"


def agree(act: Callable[[], T]) -> T:
    """Have the main process do something, and the others have its result, or fail with it.

    Args:
        act: Its result must pickle.

    Raises:
        WorkbenchError: As the main process.
    """
    if not is_one_of_several():
        return act()
    from accelerate.utils import broadcast_object_list

    outcome: list[T | WorkbenchError | None] = [None]
    if is_main():
        try:
            outcome = [act()]
        except WorkbenchError as error:
            outcome = [error]
    broadcast_object_list(outcome)
    if isinstance(outcome[0], WorkbenchError):
        raise outcome[0]
    return outcome[0]  # type: ignore[return-value]  # the main process has one
