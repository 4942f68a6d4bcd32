"""What do cached features, packing and lazy reading save, compared with runs without them on the same machine?

    python benchmarks/data.py [--rows 100000] [--pictures 5000]

Prints a line for each question: both times (or sizes) and their ratio, measured in this run with the tiny model on the
CPU. Seconds are seconds of CPU time, which other work on the machine does not stretch.

    cached / uncached        training steps of LoRA from cached features, against opening and encoding every picture
    packed / padded          the same steps with samples packed into rows, against the original's fixed length of 320
                             tokens (64 for the question, 256 for the answer) and against padding to the longest
    lazy / eager start-up    reading, checking and measuring a data set, against decoding its pictures besides, as the
                             original does
    memory                   what a started process holds, for 1,000 and for all rows
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

TINY = Path(__file__).parents[1] / "data" / "visualglm_tiny"
FIXED_LENGTH = 320
ROW = 128
BATCH = 16
EPOCH = 160


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the large data set")
    parser.add_argument("--pictures", type=int, default=5_000, help="pictures that they are about")
    parser.add_argument("--start", nargs=2, metavar=("FOLDER", "HOW"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.start:
        print(json.dumps(start(Path(arguments.start[0]), is_eager=arguments.start[1] == "eager")))
        return
    print(f"{'':34}{'with':>12}{'without':>12}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        compare_epochs(Path(folder))
        compare_start_up(Path(folder), arguments.rows, arguments.pictures)


def line(name: str, better: float, worse: float, unit: str) -> None:
    """One question's answer: how many times as much it takes without the measure."""
    print(f"{name:34}{f'{better:.2f} {unit}':>12}{f'{worse:.2f} {unit}':>12}{worse / better:7.2f}x", flush=True)


# --- epochs -----------------------------------------------------------------------------------------------------------


def compare_epochs(folder: Path) -> None:
    """Train the same epoch in five ways."""
    from peft import LoraConfig

    from vglm.data.collator import Collator
    from vglm.model.loading import load_pretrained
    from vglm.tuning.features import open_features
    from vglm.tuning.methods import attach
    from vglm.worlds.pretraining import SceneDialogues

    model, processor = load_pretrained(TINY, device_map="cpu")
    tuned = attach(model, LoraConfig(target_modules=r".*language_model\.layers.*\.query_key_value", r=8))
    samples = [saved(sample, folder) for sample in SceneDialogues(EPOCH, seed=7, size=224)]
    time.sleep(2)  # so that the pictures' files count as settled
    features = open_features(tuned, processor, folder=folder / "cache")
    assert features is not None
    began = time.process_time()
    print(f"{features.fill(samples)}: {time.process_time() - began:.2f} s, once")

    plain = Collator(processor)
    cached = Collator(processor, features=features)
    packed = Collator(processor, features=features, packing=ROW)
    seconds = {name: epoch(tuned, make, samples) for name, make in {
        "plain": plain,
        "cached": cached,
        "packed": packed,
        "fixed": lambda rows: to_fixed_length(cached(rows), processor.tokenizer.pad_token_id),
    }.items()}  # fmt: skip
    line("epoch, cached / uncached", seconds["cached"], seconds["plain"], "s")
    line(f"epoch, packed ({ROW}) / padded to {FIXED_LENGTH}", seconds["packed"], seconds["fixed"], "s")
    line(f"epoch, packed ({ROW}) / dynamic padding", seconds["packed"], seconds["cached"], "s")


def saved(sample: Any, folder: Path) -> Any:
    """The sample with its picture in a file, as a user's would be."""
    if sample.image is None:
        return sample
    path = folder / f"{sample.id}.png"
    sample.image.save(path)
    return replace(sample, image=path)


def epoch(model: Any, collate: Any, samples: Sequence[Any]) -> float:
    """Seconds of an epoch: batches made, forward and backward."""
    import torch

    torch.manual_seed(0)
    model.train()
    for parameter in model.parameters():
        parameter.grad = None
    model(**collate(samples[:BATCH])).loss.backward()  # whatever a first call brings in is no part of the question
    began = time.process_time()
    for first in range(0, len(samples), BATCH):
        model(**collate(samples[first : first + BATCH])).loss.backward()
    return time.process_time() - began


def to_fixed_length(batch: dict[str, Any], pad_token_id: int) -> dict[str, Any]:
    """Pad every row to the original's fixed length."""
    import torch.nn.functional as F

    missing = FIXED_LENGTH - batch["input_ids"].shape[1]
    fillers = {"input_ids": pad_token_id, "layout_ids": pad_token_id, "attention_mask": 0, "labels": -100}
    return {
        key: F.pad(tensor, (missing, 0), value=fillers[key]) if key in fillers else tensor
        for key, tensor in batch.items()
    }


# --- starting ---------------------------------------------------------------------------------------------------------


def compare_start_up(folder: Path, rows: int, pictures: int) -> None:
    """Start on a small and on the large data set, each in a process of its own."""
    write_data(folder / "small", min(1000, rows), min(1000, pictures))
    write_data(folder / "large", rows, pictures)
    lazy, eager = (started(folder / "large", how) for how in ("lazy", "eager"))
    small = started(folder / "small", "lazy")
    line(f"start-up, {rows:,} rows, lazy / eager", lazy["seconds"], eager["seconds"], "s")
    line(f"memory, {min(1000, rows):,} / {rows:,} rows", small["megabytes"], lazy["megabytes"], "MB")
    line(f"memory, {rows:,} rows, lazy / eager", lazy["megabytes"], eager["megabytes"], "MB")


def write_data(folder: Path, rows: int, pictures: int) -> None:
    """A data set of random plain pictures of 224 x 224 pixels, in the published format."""
    from PIL import Image

    generator = random.Random(1)
    folder.mkdir()
    for number in range(pictures):
        colour = tuple(generator.randrange(256) for _ in range(3))
        Image.new("RGB", (224, 224), colour).save(folder / f"{number}.png", compress_level=1)
    entries = [
        {"img": f"{n % pictures}.png", "prompt": "描述这张图片。", "label": "肺野清晰。" * generator.randrange(1, 20)}
        for n in range(rows)
    ]
    (folder / "dataset.json").write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")


def started(folder: Path, how: str) -> dict[str, float]:
    """What `start` measures, in a fresh process."""
    command = [sys.executable, __file__, "--start", str(folder), how]
    environment = os.environ | {"VGLM_CACHE": str(folder.parent / "start_cache")}
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    measured: dict[str, float] = json.loads(output.splitlines()[-1])
    return measured


def start(folder: Path, *, is_eager: bool) -> dict[str, float]:
    """Make a data set ready to train on; returns seconds and the process's growth in MB."""
    import psutil

    from vglm.data.images import open_image
    from vglm.data.loading import load_dataset
    from vglm.data.sequences import TrainingSequences
    from vglm.model.loading import load_pretrained

    _, processor = load_pretrained(TINY, device_map="cpu")
    before, began = psutil.Process().memory_info().rss, time.process_time()
    sequences = TrainingSequences(load_dataset(folder).train, processor, max_length=2048)
    samples = []
    if is_eager:
        for image in {sample.image for sample in sequences}:
            samples.append(processor.image_processor(open_image(image), return_tensors="pt")["pixel_values"])
    seconds = time.process_time() - began
    return {"seconds": seconds, "megabytes": (psutil.Process().memory_info().rss - before) / 1e6}


if __name__ == "__main__":
    main()
