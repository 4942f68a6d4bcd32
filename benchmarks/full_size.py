"""What does VisualGLM-6B (7.8 billion parameters) need, to answer and to be trained, against the published figures?

    python benchmarks/full_size.py                                       on a GPU: measured; without one: computed
    python benchmarks/full_size.py --check --cases nf4 qlora-1           computed and measured, side by side
    python benchmarks/full_size.py --size tiny --check                   everything for real on a CPU, in seconds

The architecture is built with random weights directly on the device, one tensor at a time and quantised as it goes, so
neither the host nor the device ever holds the model in half precision where it is quantised. Answers are given to one
image in 32 slots with 64 new tokens; training steps take the questions and answers of data/background_synthetic, cut by
the tokenizer of the tiny model, whose small vocabulary makes more tokens of a sentence than the released one.

The computed budget is that of `vglm plan`: the same modules on the meta device, with every tensor counted. The CUDA
context comes on top.

With the language model alone in 4 bits (`nf4` and `qlora-*`, the default of `load_pretrained`), 2 GB of the vision
transformer in half precision leave no room below 6 GB; the cases with `-vision` load with
quantization_parts=[vision,qformer,projection,language_model]. Word embeddings stay as they are: bitsandbytes has
quantised ones that answer, but they cannot be saved.

On one H100 (2026-11-26, torch 2.11, transformers 5.23) this measured, in GB: half 14.67, nf4 6.42, nf4-vision 4.78,
qlora-1 6.70, qlora-vision-1 5.07, lora-1 15.3; what is computed lies within 1.5% of it.
"""

import argparse
import gc
import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from vglm.data.collator import Collator
from vglm.data.loading import load_dataset
from vglm.model.configuration import VisualGlmConfig
from vglm.model.image_processing import VisualGlmImageProcessor
from vglm.model.loading import empty_model
from vglm.model.processing import VisualGlmProcessor
from vglm.model.tokenization import VisualGlmTokenizer
from vglm.planning.budget import (
    BLAS_WORKSPACE,
    PARTS,
    attach_shapes,
    bytes_of_weights,
    count_parameters,
    optimizer_states,
    rehearse_answering,
    rehearse_training,
    shape_model,
)
from vglm.planning.measurement import random_model
from vglm.planning.plan import OVERLAP
from vglm.tuning.methods import attach

ROOT = Path(__file__).parents[1]
TOKENIZER = ROOT / "data" / "visualglm_tiny"
SAMPLES = ROOT / "data" / "background_synthetic"
LORA_TARGETS = r".*language_model\.layers\.\d+\.(attention\.(query_key_value|dense)|mlp\.(dense_h_to_4h|dense_4h_to_h))"
LORA_RANK = 8
VIRTUAL_TOKENS = 16
STEPS = 3
ALL_LINEAR = ("vision", "qformer", "projection", "language_model")
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
TINY: dict[str, dict[str, Any]] = {
    "text_config": {
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 4600,
    },
    "vision_config": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 28,
    },
    "qformer_config": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    },
}


@dataclass(frozen=True)
class Case:
    """One thing to do with the model.

    Attributes:
        quantization: As in `load_pretrained`.
        parts: Likewise, `quantization_parts`.
        method: None to answer, else "lora" or "p_tuning_v2", to train.
        batch_size: Samples of a training step.
        is_checkpointed: Whether layers are computed again in the backward pass rather than kept.
        published: GB that the original's documentation names.
        aim: GB to stay below.
    """

    quantization: str | None = None
    parts: tuple[str, ...] | None = None
    method: str | None = None
    batch_size: int = 1
    is_checkpointed: bool = False
    published: str = ""
    aim: float | None = None


CASES = {
    "half": Case(published="15"),
    "int8": Case("int8"),
    "nf4": Case("nf4", published="8.7, 6.3"),
    "nf4-vision": Case("nf4", ALL_LINEAR, aim=5.5),
    "lora-1": Case(method="lora", published="18"),
    "lora-4": Case(method="lora", batch_size=4),
    "qlora-1": Case("nf4", None, "lora", 1, True, published="9.8"),
    "qlora-4": Case("nf4", None, "lora", 4, True),
    "qlora-vision-1": Case("nf4", ALL_LINEAR, "lora", 1, True, aim=6.0),
    "qlora-vision-4": Case("nf4", ALL_LINEAR, "lora", 4, True),
    "p_tuning_v2-1": Case(method="p_tuning_v2"),
    "p_tuning_v2-4": Case(method="p_tuning_v2", batch_size=4),
}
"""`-vision`: vision transformer, Q-Former and projection are quantised as well. A number is the batch size.

Of the original's inference in 4 bits, 8.7 GB were published first and 6.3 GB later.
"""


def sizes(size: str, tokenizer: VisualGlmTokenizer) -> VisualGlmConfig:
    """The configuration of the full or the tiny size, with the special ids of a tokenizer."""
    parts: dict[str, dict[str, Any]] = TINY if size == "tiny" else {"text_config": {}}
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "mask_token_id", "gmask_token_id")
    text = {**parts["text_config"], **{name: getattr(tokenizer, name) for name in names}}
    return VisualGlmConfig(**{**parts, "text_config": text}, image_token_id=tokenizer.unk_token_id)


# --- computed --------------------------------------------------------------------------------------------------------


def compute_budget(
    config: VisualGlmConfig,
    case: Case,
    batch: Mapping[str, torch.Tensor],
    dtype: torch.dtype,
    new_tokens: int,
    *,
    on_cpu: bool = False,
) -> dict[str, int]:
    """Bytes that a case needs, by what they are for; see `vglm.planning.budget`.

    Args:
        config: The architecture.
        case: What is done.
        batch: Its inputs, from the collator.
        dtype: Of what is not quantised.
        new_tokens: Length of the answer.
        on_cpu: Whether attention is that of a CPU, which keeps its weights.
    """
    model = shape_model(config, dtype, case.quantization, case.parts)
    budget = bytes_of_weights(model)
    if case.method is None:
        step = rehearse_answering(model, batch, new_tokens, fused_attention=not on_cpu)
    else:
        tuned: Any = attach_shapes(model, peft_config(case))
        trained = sum(parameter.nbytes for parameter in tuned.parameters() if parameter.requires_grad)
        budget |= {"adapter": trained, "optimizer": optimizer_states(tuned, torch.optim.AdamW, {}).on_device}
        step = rehearse_training(tuned, batch, is_checkpointed=case.is_checkpointed, fused_attention=not on_cpu)
    overlap = step.peak - sum(step.parts.values())
    workspace = {} if on_cpu else {"cuBLAS workspace": BLAS_WORKSPACE}
    return {**budget, **step.parts, OVERLAP: overlap, **workspace}


def peft_config(case: Case) -> Any:
    """What a case trains."""
    from peft import LoraConfig, PrefixTuningConfig

    if case.method == "lora":
        return LoraConfig(task_type="CAUSAL_LM", r=LORA_RANK, lora_alpha=16, target_modules=LORA_TARGETS)
    return PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=VIRTUAL_TOKENS)


# --- measured --------------------------------------------------------------------------------------------------------


@dataclass
class Peak:
    """Highest memory of a stretch of work: of CUDA's allocator on a GPU, growth of the process on a CPU."""

    bytes: int = 0


@contextmanager
def watching(device: torch.device) -> Iterator[Peak]:
    """Note the peak of what happens inside."""
    peak = Peak()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        torch.cuda.synchronize(device)
        peak.bytes = torch.cuda.max_memory_allocated(device)
        return
    import psutil

    process, done = psutil.Process(), threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.005):
            peak.bytes = max(peak.bytes, process.memory_info().rss - before)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


@dataclass(frozen=True)
class Measurement:
    """What came of running a case.

    Attributes:
        parameters: Number by component.
        bytes: By what they are for, as far as it can be told; see `compute_budget`.
        build_peak: Highest memory while the model was built, in bytes.
        peak: Highest memory while it worked, in bytes.
        seconds: For the answer, or for one training step after the first.
    """

    parameters: dict[str, int]
    bytes: dict[str, int]
    build_peak: int
    peak: int
    seconds: float


def measure(
    config: VisualGlmConfig,
    case: Case,
    batch: Mapping[str, torch.Tensor],
    device: torch.device,
    dtype: torch.dtype,
    new_tokens: int,
) -> Measurement:
    """Build the model, do what the case says, and weigh the tensors; arguments as in `compute_budget`."""
    with watching(device) as peak:
        with watching(device) as build_peak:
            model = random_model(config, device, dtype, case.quantization, case.parts)
        counts, weights = count_parameters(model), bytes_of_weights(model)
        inputs = {name: tensor.to(device) for name, tensor in batch.items()}
        inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        work = _answer if case.method is None else _train
        seconds, more = work(model, case, inputs, new_tokens)
    return Measurement(counts, weights | more, build_peak.bytes, peak.bytes, seconds)


@torch.inference_mode()
def _answer(model: Any, case: Case, inputs: dict[str, Any], new_tokens: int) -> tuple[float, dict[str, int]]:
    start = time.perf_counter()
    output = model.generate(
        **inputs, do_sample=False, max_new_tokens=new_tokens, min_new_tokens=new_tokens, return_dict_in_generate=True
    )
    assert output.sequences.shape[1] == inputs["input_ids"].shape[1] + new_tokens  # waits for the device
    output.sequences.cpu()
    seconds = time.perf_counter() - start
    layers = output.past_key_values.layers
    return seconds, {"keys and values": sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)}


def _train(base: Any, case: Case, inputs: dict[str, Any], _: int) -> tuple[float, dict[str, int]]:
    if case.is_checkpointed:
        base.activation_checkpointing_enable()
    model = attach(base, peft_config(case)).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    seconds = 0.0
    for step in range(STEPS):
        start = time.perf_counter()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model(**inputs, use_cache=False).loss
        if step == 0:
            vocabulary = base.config.text_config.vocab_size
            saved = sum(
                tensor.untyped_storage().nbytes() for tensor in storages.values() if tensor.shape[-1:] != (vocabulary,)
            )
        storages.clear()
        loss.backward()
        optimizer.step()
        if step == 0:
            gradients = sum(parameter.grad.nbytes for parameter in trained if parameter.grad is not None)
        optimizer.zero_grad()
        loss.item()  # waits for the device
        seconds = time.perf_counter() - start
    states = [value for state in optimizer.state.values() for value in state.values()]
    measured = {
        "adapter": sum(parameter.nbytes for parameter in trained),
        "gradients": gradients,
        "optimizer": sum(value.nbytes for value in states),
    }
    return seconds, measured if case.is_checkpointed else measured | {"activations": saved}


# --- shown -----------------------------------------------------------------------------------------------------------


def make_batches(config: VisualGlmConfig, tokenizer: VisualGlmTokenizer) -> dict[int, dict[str, torch.Tensor]]:
    """The inputs: by batch size those of a training step, under 0 one question to answer."""
    side = config.vision_config.image_size
    images = VisualGlmImageProcessor(size={"height": side, "width": side})
    processor = VisualGlmProcessor(images, tokenizer, num_image_tokens=config.num_image_tokens)
    samples = load_dataset(SAMPLES).train
    batches = {size: Collator(processor)(samples[:size]) for size in {case.batch_size for case in CASES.values()}}
    return {0: Collator(processor, with_answers=False)(samples[:1]), **batches}


def parameter_table(config: VisualGlmConfig) -> Table:
    """Number of parameters by component."""
    table = Table(title="Parameters", box=box.SIMPLE_HEAD)
    table.add_column("component")
    table.add_column("parameters", justify="right")
    counts = count_parameters(empty_model(config))
    for name, number in counts.items():
        table.add_row(name, f"{number:,}")
    head = config.text_config.vocab_size * config.text_config.hidden_size if config.tie_word_embeddings else 0
    table.add_row("total", f"{sum(counts.values()):,}")
    table.add_row("with the tied head counted apart", f"{sum(counts.values()) + head:,}")
    return table


def case_table(name: str, budget: Mapping[str, int], measured: Measurement | None, unit: int) -> Table:
    """One case in detail."""
    table = Table(title=name, box=box.SIMPLE_HEAD)
    table.add_column(f"{'MB' if unit == 10**6 else 'kB'} of")
    for column in ("computed", "measured")[: 1 if measured is None else 2]:
        table.add_column(column, justify="right")
    for part, number in budget.items():
        row = [part, f"{number / unit:,.1f}"]
        if measured is not None:
            row.append(f"{measured.bytes[part] / unit:,.1f}" if part in measured.bytes else "-")
        table.add_row(*row)
    total = ["sum / peak", f"{sum(budget.values()) / unit:,.1f}"]
    table.add_row(*total, *([] if measured is None else [f"{measured.peak / unit:,.1f}"]))
    return table


def summary_table(budgets: Mapping[str, dict[str, int]], measured: Mapping[str, Measurement]) -> Table:
    """All cases, beside what was published for the original."""
    table = Table(title="Memory in GB (1e9 bytes)", box=box.SIMPLE_HEAD)
    table.add_column("case", no_wrap=True)
    for column in ("weights", "computed", "measured", "seconds", "published", "aim"):
        table.add_column(column, justify="right")
    for name, budget in budgets.items():
        case, seen = CASES[name], measured.get(name)
        table.add_row(
            name,
            f"{sum(budget[part] for part in PARTS) / 1e9:.3f}",
            f"{sum(budget.values()) / 1e9:.3f}",
            "" if seen is None else f"{seen.peak / 1e9:.3f}",
            "" if seen is None else f"{seen.seconds:.2f}",
            case.published,
            "" if case.aim is None else f"{case.aim:g}",
        )
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=f"cases: {', '.join(CASES)}"
    )
    add = parser.add_argument
    add("--cases", nargs="+", choices=list(CASES), default=list(CASES), metavar="CASE", help="which (default: all)")
    add("--size", choices=["tiny", "full"], default="full", help="of the architecture (default: %(default)s)")
    add("--device", help="where to measure (default: the GPU if there is one)")
    add("--dtype", choices=list(DTYPES), default="bfloat16", help="of what is not quantised (default: %(default)s)")
    add("--new-tokens", type=int, default=64, help="length of the answer (default: %(default)s)")
    add("--check", action="store_true", help="measure on a CPU too, and show each case beside its budget")
    add("--json", type=Path, metavar="FILE", help="write the figures, in bytes, to this file")
    parsed = parser.parse_args(arguments)

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells of every cast in every layer
    accelerator = torch.accelerator.current_accelerator()
    device = torch.device(parsed.device or accelerator or "cpu")
    is_measured = parsed.check or device.type != "cpu"
    dtype, console = DTYPES[parsed.dtype], Console(width=80)
    tokenizer = VisualGlmTokenizer.from_pretrained(TOKENIZER)
    config = sizes(parsed.size, tokenizer)
    batches = make_batches(config, tokenizer)

    console.print(parameter_table(config))
    if not is_measured:
        console.print("No GPU here: computed, not measured.")
    budgets: dict[str, dict[str, int]] = {}
    measured: dict[str, Measurement] = {}
    for name in parsed.cases:
        case = CASES[name]
        batch = batches[case.batch_size if case.method else 0]
        budgets[name] = compute_budget(
            config, case, batch, dtype, parsed.new_tokens, on_cpu=is_measured and device.type == "cpu"
        )
        if is_measured:
            measured[name] = measure(config, case, batch, device, dtype, parsed.new_tokens)
        if parsed.check or not is_measured:
            console.print(
                case_table(name, budgets[name], measured.get(name), 10**6 if parsed.size == "full" else 10**3)
            )
    console.print(summary_table(budgets, measured))
    lengths = ", ".join(f"{size}: {batch['input_ids'].shape[1]}" for size, batch in batches.items() if size)
    console.print(f"{parsed.dtype} where not quantised; tokens of a row by batch size: {lengths}.")
    if parsed.json:
        report = {
            name: {"computed": budgets[name], "measured": vars(measured[name]) if name in measured else None}
            for name in budgets
        }
        parsed.json.write_text(json.dumps({"device": str(device), "cases": report}, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
