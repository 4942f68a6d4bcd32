"""How much faster is decoding than transformers' own loop, for the same tokens?

    python benchmarks/decoding.py
    python benchmarks/decoding.py --batch 1 64 --tokens 100 --adapter outputs/background/lora/<time>
    python benchmarks/decoding.py --quantization nf4 int8 int8_fast
    python benchmarks/decoding.py --precisions --checkpoint <folder>

Both run in turn with the tiny model in float32, in one process. Printed is the processor time for each token of a
batch: the minimum of all rounds, which other work on the machine disturbs least, minus the minimum for the prompt
alone. Different answers end the run with exit code 1.

Measured on one core of an AMD EPYC (Zen 5) with nothing else to do (--rounds 3, 2026-11-28), times faster: 2.1 for 1
row, 1.5 for 8, 1.1 for 32, where products and attention take most of the time; a token takes 0.5, 1.4 and 3.8 ms.

With --precisions, an evaluation's answers in each type of numbers instead, each in a process of its own: processor
time an answer, with the pictures and once they are cached, the peak of memory, and answers that are not float32's.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from vglm.caching import VARIABLE
from vglm.config import repo_root
from vglm.evaluation.predict.decoding import Decoding
from vglm.evaluation.predict.generation import generate_predictions
from vglm.model.decoding import decode, prefill
from vglm.model.loading import load_pretrained
from vglm.worlds.pretraining import SceneDialogues

PRECISIONS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "int8": {"dtype": "float32", "quantization": "int8"},
    "nf4": {"dtype": "float32", "quantization": "nf4"},
}
GREEDY = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "eos_token_id": None}


def least(rounds: int, acts: list[Callable[[], Any]]) -> list[tuple[float, Any]]:
    """Processor seconds and result of each, the least of so many rounds in which they take turns."""
    best: list[tuple[float, Any]] = [(float("inf"), None)] * len(acts)
    for _ in range(rounds):
        for index, act in enumerate(acts):
            begin = time.process_time()
            with torch.inference_mode():
                result = act()
            best[index] = min(best[index], (time.process_time() - begin, result), key=lambda timed: timed[0])
    return best


def main() -> int:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--adapter", type=Path, help="a run, or the folder of a peft adapter")
    parser.add_argument("--quantization", nargs="*", default=["none"], help="none, nf4, int8, int8_fast")
    parser.add_argument("--precisions", action="store_true", help="answers in float32, bfloat16, int8 and nf4")
    parser.add_argument("--checkpoint", type=Path, default=repo_root() / "data/visualglm_tiny")
    parser.add_argument("--answers", type=int, default=256)
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    if parsed.precisions:
        compare_precisions(parsed)
        return 0
    print("weights    batch  transformers, ms a token  here, ms a token  ratio")
    return int(sum(compare(kind, parsed) for kind in parsed.quantization) > 0)


def compare(kind: str, parsed: argparse.Namespace) -> int:
    """Print the times of one way of quantising; returns how many batches were answered differently."""
    settings: dict[str, Any] = {"quantization": None if kind == "none" else kind, "adapter": parsed.adapter}
    model, processor = load_pretrained(parsed.checkpoint, dtype="float32", **settings)
    base = model.get_base_model() if parsed.adapter else model
    picture = Image.linear_gradient("L").convert("RGB")
    differ = 0
    for rows in parsed.batch:
        inputs = dict(processor(images=[picture] * rows, text=["图中有什么？"] * rows, return_tensors="pt"))
        arguments: dict[str, Any] = {**inputs, **GREEDY, "max_new_tokens": parsed.tokens}
        (usual, expected), (ours, result), (prompt, _) = least(
            parsed.rounds,
            [
                lambda arguments=arguments: model.generate(**arguments),
                lambda arguments=arguments: model.generate(**arguments, custom_generate=decode),
                lambda inputs=inputs: prefill(model, base, inputs),
            ],
        )
        differ += not torch.equal(expected, result)
        steps = parsed.tokens - 1
        usual, ours = 1000 * (usual - prompt) / steps, 1000 * (ours - prompt) / steps
        print(f"{kind:9}  {rows:5}  {usual:24.2f}  {ours:16.2f}  {usual / ours:5.2f}")
    return differ


def compare_precisions(parsed: argparse.Namespace) -> None:
    """Print what answers cost in each type of numbers, and how many differ from those in float32."""
    expected: list[str] = []
    print("numbers    s an answer  pictures cached  peak MB  other answers")
    for name, settings in PRECISIONS.items():
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            job = process.submit(answer, parsed.checkpoint, settings, parsed.answers)
            first, second, peak, answers = job.result()
        expected = expected or answers
        differ = sum(one != other for one, other in zip(expected, answers, strict=True))
        print(f"{name:9}  {first:11.4f}  {second:15.4f}  {peak:7.0f}  {differ} of {len(answers)}")


def answer(checkpoint: Path, settings: dict[str, Any], count: int) -> tuple[float, float, float, list[str]]:
    """Processor seconds of an answer with an empty and with a full cache, the process's peak in MB, and the answers."""
    torch.set_num_threads(1)
    model, processor = load_pretrained(checkpoint, **settings)
    samples = list(SceneDialogues(count, seed=9))
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ[VARIABLE] = folder
        for _ in range(2):
            begin = time.process_time()
            records = generate_predictions(model, processor, samples, Decoding(batch_size=64), feature_cache=True)
            seconds.append((time.process_time() - begin) / count)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return seconds[0], seconds[1], peak, [record.prediction or "" for record in records]


if __name__ == "__main__":
    sys.exit(main())
