"""What does each saving of a training step bring?

    python benchmarks/ablation.py                        a middle size on a CPU, minutes
    python benchmarks/ablation.py --size full            on a GPU, in bfloat16
    python benchmarks/ablation.py --rounds 9 --savings cache head

Every row compares two steps (forward and backward, LoRA on all linear layers of the language model) that differ in one
thing. Both run in turn, with and without, as often as --rounds says; the factor is the median of the one over that of
the other: seconds of the processor (on a GPU, seconds), and bytes kept for the backward pass. A factor above 1 is the
saving's gain. Weights are random; questions and answers are those of data/background_synthetic.

saving          without it
cache           the vision tower sees the pictures in every step
padding         rows are padded to 320 tokens, as the original pads them
head            logits of all tokens, where only those of answers count
parts           logits of the answers all at once; of the longest answers and the full vocabulary
packing         short samples have rows of their own; here with one long sample among them
checkpointing   all is kept for the backward pass (it costs time, and saves memory)
lora_dtype      beside bfloat16 weights LoRA computes in float32
compile         (on a GPU alone) layers run operation by operation

Measured on 2 CPU cores with nothing else to do (--rounds 3, 2026-11-28), time and bytes kept: cache 2.17 and 1.00,
padding 4.72 and 5.16, head 1.69 and 1.74, parts 0.97 and 1.58, packing 3.58 and 3.37, checkpointing 0.69 and 4.39,
lora_dtype 1.33 and 1.21.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from full_size import LORA_TARGETS, SAMPLES, TOKENIZER, sizes
from peft import LoraConfig
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from vglm.data.collator import Collator
from vglm.data.loading import load_dataset
from vglm.data.packing import pack
from vglm.model import modeling
from vglm.model.configuration import VisualGlmConfig
from vglm.model.image_processing import VisualGlmImageProcessor
from vglm.model.modeling import IGNORE_INDEX
from vglm.model.processing import VisualGlmProcessor
from vglm.model.tokenization import VisualGlmTokenizer
from vglm.planning.measurement import random_model
from vglm.tuning.methods import attach
from vglm.tuning.sharing import lay_out

MIDDLE = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 8, "num_hidden_layers": 6}
ROWS = 4
ORIGINAL_LENGTH = 320
Step = Callable[[], Tensor]


def configuration(size: str, tokenizer: VisualGlmTokenizer) -> VisualGlmConfig:
    """The full architecture, or a middle one with a vocabulary of 32,000."""
    full = sizes("full", tokenizer)
    if size == "full":
        return full
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "mask_token_id", "gmask_token_id")
    ids = {name: getattr(full.text_config, name) for name in names}
    return VisualGlmConfig(
        text_config={**MIDDLE, "vocab_size": 32_000, **ids},
        vision_config=MIDDLE,
        qformer_config=MIDDLE,
        image_token_id=full.image_token_id,
    )


class Bench:
    """A model with LoRA, and batches for it.

    Args:
        size: See `configuration`.
        device: Where to run.
        dtype: Of the base.
    """

    def __init__(self, size: str, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.half: Bench | None = self if dtype == torch.bfloat16 else None
        tokenizer = VisualGlmTokenizer.from_pretrained(TOKENIZER)
        self.config = configuration(size, tokenizer)
        base = random_model(self.config, device, dtype)
        self.model: Any = attach(base, LoraConfig(r=8, lora_alpha=16, target_modules=LORA_TARGETS)).train()
        for name, parameter in self.model.named_parameters():
            if ".lora_B." in name:
                nn.init.normal_(parameter, std=0.01)
        side = self.config.vision_config.image_size
        images = VisualGlmImageProcessor(size={"height": side, "width": side})
        self.processor = VisualGlmProcessor(images, tokenizer, num_image_tokens=self.config.num_image_tokens)
        self.samples = load_dataset(SAMPLES).train[:ROWS]
        self.pixels = Collator(self.processor)(self.samples)
        with torch.no_grad():
            features = base.get_image_features(self.pixels["pixel_values"].to(device, dtype)).cpu()
        self.batch = {name: tensor for name, tensor in self.pixels.items() if name != "pixel_values"}
        self.batch["image_features"] = features

    def step(self, batch: Mapping[str, Tensor], model: Any = None) -> Step:
        """A forward pass over a batch."""
        laid = {name: tensor.to(self.device) for name, tensor in lay_out(batch, self.config).items()}
        if "pixel_values" in laid:
            laid["pixel_values"] = laid["pixel_values"].to(self.dtype)
        return lambda: (model or self.model)(**laid, use_cache=False).loss

    def padded(self, length: int) -> dict[str, Tensor]:
        """The batch with rows of that length."""
        more = max(0, length - self.batch["input_ids"].shape[1])
        values = {"labels": IGNORE_INDEX, "attention_mask": 0}
        return {
            name: tensor if name == "image_features" else F.pad(tensor, (more, 0), value=values.get(name, 3))
            for name, tensor in self.batch.items()
        }

    def answers_of(self, length: int) -> dict[str, Tensor]:
        """The batch with answers of that many tokens more, all of which count."""
        batch = self.padded(0)
        repeated = batch["labels"][:, -1:].expand(-1, length)
        for name, value in (("labels", repeated), ("input_ids", repeated), ("layout_ids", repeated)):
            batch[name] = torch.cat((batch[name], value), dim=1)
        batch["attention_mask"] = F.pad(batch["attention_mask"], (0, length), value=1)
        return batch


def measure(step: Step, model: nn.Module, device: torch.device) -> tuple[float, int]:
    """Seconds of forward and backward, and bytes kept between them."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    clock = time.process_time if device.type == "cpu" else time.perf_counter
    started = clock()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = step()
    loss.backward()
    loss.item()  # waits for the device
    return clock() - started, sum(storages.values())


def _in_float32(model: Any, is_wide: bool) -> None:
    for layer in model.modules():
        if hasattr(layer, "lora_variant"):
            layer.lora_variant.clear()
            layer.cast_input_dtype_enabled = True
    if not is_wide:
        from vglm.model.half_lora import compute_in_type_of_base

        compute_in_type_of_base(model)


def pairs(bench: Bench, names: Sequence[str], size: str) -> dict[str, tuple[Step, Step]]:
    """A step with each saving, and one without it."""
    usual = bench.step(bench.batch)
    everywhere = bench.batch | {"labels": bench.batch["input_ids"].clone()}
    made: dict[str, tuple[Step, Step]] = {
        "cache": (usual, bench.step(bench.pixels)),
        "padding": (usual, bench.step(bench.padded(ORIGINAL_LENGTH))),
        "head": (usual, bench.step(everywhere)),
    }
    long = bench.step(bench.answers_of(400))

    def at_once() -> Tensor:
        with mock.patch.object(modeling, "LARGEST_LOGITS", 2**62):
            return long()

    def in_parts() -> Tensor:
        with mock.patch.object(modeling, "LARGEST_LOGITS", modeling.LARGEST_LOGITS if size == "full" else 2**23):
            return long()

    made["parts"] = (in_parts, at_once)
    width = 4 * bench.batch["input_ids"].shape[1]
    made["packing"] = (
        bench.step(pack(dict(bench.batch), [True] * ROWS, width)),
        bench.step(bench.padded(width)),
    )

    def checkpointed() -> Tensor:
        bench.model.activation_checkpointing_enable()
        try:
            return usual()
        finally:
            bench.model.activation_checkpointing_disable()

    made["checkpointing"] = (checkpointed, usual)
    if "lora_dtype" in names:
        bench.half = other = bench.half or Bench(size, bench.device, torch.bfloat16)
        half = other.step(other.batch)

        def as_peft() -> Tensor:
            _in_float32(other.model, True)
            try:
                return half()
            finally:
                _in_float32(other.model, False)

        made["lora_dtype"] = (half, as_peft)
    if "compile" in names and bench.device.type != "cpu":
        base = bench.model.get_base_model().model.language_model
        compiled = [torch.compile(layer) for layer in base.layers]

        def with_compiled() -> Tensor:
            with mock.patch.object(base, "layers", nn.ModuleList(compiled)):
                return usual()

        made["compile"] = (with_compiled, usual)
    return {name: pair for name, pair in made.items() if name in names}


def main() -> int:
    """Run the benchmark from the command line."""
    names = ["cache", "padding", "head", "parts", "packing", "checkpointing", "lora_dtype", "compile"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["middle", "full"], default="middle", help="(default: middle)")
    parser.add_argument("--rounds", type=int, default=5, help="of each pair (default: %(default)s)")
    parser.add_argument("--savings", nargs="+", choices=names, default=names, metavar="SAVING", help=", ".join(names))
    parsed = parser.parse_args()
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    bench = Bench(parsed.size, device, dtype)
    table = Table(title=f"{parsed.size} size, {ROWS} samples a step, {dtype}, {device}", box=box.SIMPLE_HEAD)
    for column in ("saving", "ms with", "without", "factor", "MB with", "without", "factor"):
        table.add_column(column, justify="left" if column == "saving" else "right")
    for name, (with_it, without) in pairs(bench, parsed.savings, parsed.size).items():
        steps: dict[bool, list[tuple[float, int]]] = {True: [], False: []}
        for turn in range(parsed.rounds + 1):
            for is_with, step in ((True, with_it), (False, without)):
                model = bench.half.model if name == "lora_dtype" and bench.half else bench.model
                measured = measure(step, model, device)
                if turn:  # the first round warms up
                    steps[is_with].append(measured)
        (fast, slow), (few, many) = (
            [median(figures[index] for figures in steps[is_with]) for is_with in (True, False)] for index in (0, 1)
        )
        times = [f"{1000 * fast:.0f}", f"{1000 * slow:.0f}", f"{slow / fast:.2f}"]
        table.add_row(name, *times, f"{few / 1e6:.1f}", f"{many / 1e6:.1f}", f"{many / few:.2f}")
    Console(width=80).print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
