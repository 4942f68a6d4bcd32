"""Packed rows give every sample the positions, the sight and the loss that it has alone."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vglm.data.collator import Collator
from vglm.data.packing import fill_rows
from vglm.data.sample import Sample, Turn
from vglm.errors import ConfigError
from vglm.model.loading import load_pretrained
from vglm.model.modeling import glm_layout, image_slots, packed_layout


@pytest.fixture(scope="module")
def loaded(random_model_folder: Path):
    return load_pretrained(random_model_folder)


def make(count: int) -> list[Sample]:
    """Samples of many lengths, every third without picture."""
    generator = torch.Generator().manual_seed(5)
    samples = []
    for number in range(count):
        question, answer = (int(n) for n in torch.randint(1, 30, (2,), generator=generator))
        image = None if number % 3 == 2 else Image.effect_noise((40, 30), 20 + 10 * number)
        samples.append(
            Sample(str(number), "g", image, (Turn("问" * question, "ab" * answer),), "zh" if number % 2 else "en")
        )
    return samples


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 60))
def test_every_sample_is_in_one_row_and_no_row_is_over_full(lengths: list[int], capacity: int) -> None:
    rows = fill_rows(lengths, capacity)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(len(row) == 1 or sum(lengths[index] for index in row) <= capacity for row in rows)
    emptiest = sorted(sum(lengths[index] for index in row) for row in rows)[:2]
    assert len(rows) < 2 or sum(emptiest) > capacity or max(lengths) > capacity


@pytest.mark.parametrize("capacity", [1, 64, 150, 1000])
def test_the_loss_and_its_gradients_are_those_of_the_unpacked_batch(loaded, capacity: int) -> None:
    model, processor = loaded
    samples = make(9)
    plain, packed = Collator(processor)(samples), Collator(processor, packing=capacity)(samples)
    results = []
    for batch in (plain, packed):
        model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        results.append((loss.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    (loss, gradients), (packed_loss, packed_gradients) = results
    assert abs(float(loss - packed_loss)) < 1e-5
    assert len(gradients) == len(packed_gradients) > 0
    for one, other in zip(gradients, packed_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    if capacity >= 64:
        assert len(packed["input_ids"]) < len(samples)
        assert packed["input_ids"].numel() < plain["input_ids"].numel()


def test_a_row_lays_its_samples_out_as_they_are_alone(loaded) -> None:
    model, processor = loaded
    samples = make(6)
    batch = Collator(processor, packing=120)(samples)
    layout = packed_layout(batch["input_ids"], batch["segment_ids"], model.config)
    rows = []
    for row, segments in enumerate(batch["segment_ids"]):
        for segment in range(int(segments.max()) + 1):
            ids = batch["input_ids"][row, segments == segment]
            positions, blocks = glm_layout(ids[None], None, model.config.text_config)
            assert torch.equal(layout.positions[row][:, segments == segment], positions[0])
            assert torch.equal(layout.block_ids[row, segments == segment] == segment, blocks[0] == 0)
            slots = image_slots(ids[None], blocks, model.config)
            assert torch.equal(layout.image_mask[row, segments == segment], slots[0])
            assert layout.offsets[row, segments == segment].tolist() == list(range(len(ids)))
            rows.append(ids.tolist())
    alone = [Collator(processor)([sample])["input_ids"][0].tolist() for sample in samples]
    assert sorted(rows) == sorted(alone)


def test_samples_of_a_row_do_not_see_each_other(loaded) -> None:
    model, processor = loaded
    first, second = make(2)
    other = Sample("x", "g", first.image, (Turn(first.question, "zz" * 29),), language=first.language)
    outputs = []
    for company in (first, other):
        batch = Collator(processor, packing=500)([company, second])
        assert len(batch["input_ids"]) == 1
        hidden = model.eval()(**{key: tensor for key, tensor in batch.items() if key != "labels"}).logits[0]
        length = len(Collator(processor)([second])["input_ids"][0])
        segment = (
            int(batch["segment_ids"].max())
            if batch["input_ids"][0, :length].tolist() != (Collator(processor)([second])["input_ids"][0].tolist())
            else 0
        )
        outputs.append(hidden[batch["segment_ids"][0] == segment])
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=1e-5)


def test_packing_is_for_training_only(loaded) -> None:
    with pytest.raises(ConfigError, match="packing is for training"):
        Collator(loaded[1], with_answers=False, packing=100)
    with pytest.raises(ConfigError, match="packing must be a positive integer"):
        Collator(loaded[1], packing=0)


def test_packed_rows_refuse_a_cache_and_virtual_tokens(loaded) -> None:
    model, processor = loaded
    batch = Collator(processor, packing=500)(make(2))
    with pytest.raises(ValueError, match="Packed rows"):
        model(**batch, inputs_embeds=torch.zeros(1, 3, 32))
