"""Put several short samples into one row, so that little of a batch is padding.

    padded                      packed (capacity 12)            segment_ids
    . . . . a a a a a           b b b b b b b b c c c .         0 0 0 0 0 0 0 0 1 1 1 -1
    . b b b b b b b b           a a a a a . . . . . . .         0 0 0 0 0 -1 ...
    . . . . . . c c c

The samples of a row do not attend to each other and keep the positions they have alone (`segment_ids` says which token
belongs to which sample), so the loss of a batch is the same as without packing.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def fill_rows(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Distribute samples over rows, the longest first, each into the first row with room for it.

    Args:
        lengths: Tokens of each sample.
        capacity: Most tokens of a row; a sample that is longer gets a row of its own.

    Returns:
        The samples' indices by row.

    Source: first-fit decreasing, Johnson 1973: at most 11/9 of the fewest possible rows, plus one.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda sample: -lengths[sample]):
        row = next((row for row, free in enumerate(room) if free >= lengths[index]), None)
        if row is None:
            rows.append([])
            room.append(capacity)
            row = len(rows) - 1
        rows[row].append(index)
        room[row] -= lengths[index]
    return rows


def pack(batch: "dict[str, Tensor]", has_image: Sequence[bool], capacity: int) -> "dict[str, Tensor]":
    """Pack a padded batch into fewer rows.

    Args:
        batch: As the collator describes it, with `labels`.
        has_image: Whether each sample has an image.
        capacity: See `fill_rows`.

    Returns:
        The same with R rows in place of B samples, padded on the right, and `segment_ids` (R, L): the number of its
        sample within the row for each token, from 0, and -1 on padding. Images are in the order of the samples now.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    is_token = batch["attention_mask"] == 1
    rows = fill_rows(is_token.sum(-1).tolist(), capacity)
    fillers = {"input_ids": int(batch["input_ids"][~is_token][0]) if not bool(is_token.all()) else 0, "labels": -100}
    packed = {
        key: pad_sequence(
            [torch.cat([batch[key][index][is_token[index]] for index in row]) for row in rows],
            batch_first=True,
            padding_value=filler,
        )
        for key, filler in fillers.items()
    }
    packed["segment_ids"] = pad_sequence(
        [torch.cat([torch.full((int(is_token[i].sum()),), index) for index, i in enumerate(row)]) for row in rows],
        batch_first=True,
        padding_value=-1,
    )
    packed["attention_mask"] = (packed["segment_ids"] >= 0).to(batch["attention_mask"].dtype)
    position_of_image = {index: position for position, index in enumerate(i for i, has in enumerate(has_image) if has)}
    order = [position_of_image[index] for row in rows for index in row if has_image[index]]
    packed |= {key: batch[key][order] for key in ("pixel_values", "image_features") if key in batch}
    return packed
