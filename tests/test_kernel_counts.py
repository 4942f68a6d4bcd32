"""What a step is made of at full size: no change may make it more, and a decode step waits for nobody."""

import pytest

from benchmarks.kernel_counts import DTYPE, count_decoding, count_training, full_size, main

LAYERS = 28
WEIGHTS_GB = 12.35  # of the language model in bfloat16, read once a step


@pytest.mark.parametrize("rows", [1, 8])
def test_a_decode_step_has_at_most_450_kernels(rows: int) -> None:
    """The meta device has no numbers, so a step that asked for one would fail here."""
    model = full_size(with_lora=False)
    count = count_decoding(model, rows=rows, cached=320)
    assert count.total <= 450
    assert count.kernels["_scaled_dot_product_efficient_attention"] == LAYERS
    states = 2 * LAYERS * rows * 384 * model.config.text_config.hidden_size * DTYPE.itemsize
    assert count.size <= WEIGHTS_GB * 1e9 + 1.05 * states + 0.1e9


def test_lora_adds_two_kernels_a_layer() -> None:
    plain, tuned = (count_decoding(full_size(with_lora=with_lora)) for with_lora in (False, True))
    assert tuned.total == plain.total + 2 * 4 * LAYERS
    assert tuned.size < 1.01 * plain.size


def test_a_training_step_has_no_more_kernels_and_keeps_no_more_than_it_did() -> None:
    count = count_training(full_size(with_lora=True))
    assert count.total <= 2_700
    assert count.size <= 510e9
    assert count.saved_bytes <= 25.6e9


def test_the_command_prints_all_counts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["kernel_counts.py", "--batch", "2", "--by-kind"])
    assert main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:24].strip() for line in lines[1::2]] == [
        "decode step", "decode step with LoRA", "training step with LoRA"
    ]  # fmt: skip
    assert "28 gelu" in lines[2]
