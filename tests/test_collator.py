from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch
from PIL import Image

from vglm.data.collator import Collator
from vglm.data.sample import Sample
from vglm.errors import DataError
from vglm.text.prompt import Language

PADDING, END = 256, 257


class ByteProcessor:
    """A whole processor of a few lines: bytes as tokens, one slot for an image, pictures as they are."""

    def __call__(
        self, *, images: Any, text: Any, history: Any, language: Any, answer: Any, return_tensors: str, padding: bool
    ) -> dict[str, torch.Tensor]:
        assert (return_tensors, padding) == ("pt", True)
        prompts = [
            b"I" * (image is not None)
            + "".join(f"{before} {after} " for before, after in turns).encode()
            + (f"Q:{question}A:" if spoken == "en" else f"问{question}答").encode()
            for image, question, turns, spoken in zip(images, text, history, language, strict=True)
        ]
        answers = [[] if answer is None else [*reply.encode(), END] for reply in answer or text]
        rows = [[*prompt, *reply] for prompt, reply in zip(prompts, answers, strict=True)]
        length = max(map(len, rows))
        batch = {
            "input_ids": torch.tensor([[PADDING] * (length - len(row)) + row for row in rows]),
            "attention_mask": torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows]),
        }
        if answer is not None:
            batch["labels"] = torch.tensor([[-100] * (length - len(reply)) + reply for reply in answers])
        pixels = [torch.from_numpy(np.array(image)).permute(2, 0, 1).float() for image in images if image is not None]
        return batch | ({"pixel_values": torch.stack(pixels)} if pixels else {})


def sample(image: Path | Image.Image | None, *turns: tuple[str, str], language: Language = "en") -> Sample:
    return builders.sample("train.json#7", *turns, group="g", image=image, language=language)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    Image.new("RGBA", (2, 2), (10, 20, 30, 0)).save(tmp_path / "a.png")
    return [
        sample(tmp_path / "a.png", ("u", "v"), ("w", "x")),
        sample(None, ("何", "yz"), language="zh"),
        sample(Image.new("RGB", (2, 2), (1, 2, 3)), ("?", "k")),
    ]


def text_of(ids: torch.Tensor) -> list[str]:
    return [bytes(token for token in row if token < 256).decode() for row in ids.tolist()]


def test_a_batch_holds_every_part_of_its_samples(samples: list[Sample]) -> None:
    batch = Collator(ByteProcessor())(samples)
    assert text_of(batch["input_ids"]) == ["Iu v Q:wA:x", "问何答yz", "IQ:?A:k"]
    assert text_of(batch["labels"].clamp(min=0)) == ["\0" * 10 + "x", "\0" * 9 + "yz", "\0" * 10 + "k"]
    assert batch["attention_mask"].sum(-1).tolist() == [12, 12, 8]
    assert batch["pixel_values"][:, :, 0, 0].tolist() == [[10, 20, 30], [1, 2, 3]]


def test_without_answers_a_batch_ends_with_the_prompt(samples: list[Sample]) -> None:
    batch = Collator(ByteProcessor(), with_answers=False)(samples)
    assert text_of(batch["input_ids"]) == ["Iu v Q:wA:", "问何答", "IQ:?A:"]
    assert set(batch) == {"input_ids", "attention_mask", "pixel_values"}


def test_a_batch_without_pictures_has_no_pixels(samples: list[Sample]) -> None:
    assert set(Collator(ByteProcessor())(samples[1:2])) == {"input_ids", "attention_mask", "labels", "layout_ids"}


def test_a_picture_that_broke_meanwhile_is_told_with_its_row(samples: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"train\.json#7: image .*a\.png does not exist"):
        Collator(ByteProcessor())(samples)
