"""What does the feature cache cost and save: bytes a picture, differences of logits, time at large pictures, cores.

    python benchmarks/feature_cache.py
    python benchmarks/feature_cache.py --pictures 24 --megapixels 12 --rounds 3

With the tiny model: how far logits from cached features are from those of pixels, in each type; the bytes on disk. Then
processor seconds of answers about large photographs (JPEG), without the cache, with an empty one, and with one that
knows them, as the second arm of an evaluation finds it, interleaved. Last the time in which photographs become ready
for the encoder, by one thread and by as many as there are cores, interleaved; on a busy machine only its ratio is
meaningful.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from vglm.caching import VARIABLE
from vglm.config import repo_root
from vglm.data.collator import Collator
from vglm.data.feature_cache import FeatureCache, list_cache
from vglm.data.images import usable_cores
from vglm.data.sample import Sample, Turn
from vglm.evaluation.predict.decoding import Decoding
from vglm.evaluation.predict.generation import generate_predictions
from vglm.model.loading import load_pretrained
from vglm.tuning.features import open_features
from vglm.worlds.pretraining import SceneDialogues

TINY = repo_root() / "data" / "visualglm_tiny"


def compare_logits(folder: Path) -> None:
    """Print the bytes a picture, and the largest difference of a logit where the batch is another one."""
    scenes = [sample for sample in SceneDialogues(40, seed=9) if sample.image is not None][:16]
    for dtype in ("float32", "float16", "bfloat16"):
        model, processor = load_pretrained(TINY, dtype=dtype)
        features = open_features(model, processor, folder=folder / dtype)
        assert features is not None
        filled = features.fill(scenes)
        with torch.no_grad():
            pixels, cached = Collator(processor)(scenes), Collator(processor, features=features)(scenes)
            pixels["pixel_values"] = pixels["pixel_values"].to(model.dtype)
            plain, other = model(**pixels, skip_logits=False).logits, model(**cached, skip_logits=False).logits
        difference, scale = (plain - other).abs().max().item(), plain.abs().max().item()
        size = filled.size_bytes / filled.pictures
        print(
            f"{dtype:10} {size:8,.0f} bytes a picture; logits of up to {scale:.1f} differ by {difference:.1e} at most"
        )


def photographs(folder: Path, count: int, megapixels: float) -> list[Sample]:
    """Photographs, as far as a decoder can tell, in files."""
    generator = np.random.default_rng(1)
    size = (round(2000 * (megapixels / 3) ** 0.5), round(1500 * (megapixels / 3) ** 0.5))
    folder.mkdir()
    for number in range(count):
        noise = generator.integers(0, 255, (150, 200, 3), dtype=np.uint8)
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=90)
    time.sleep(3)  # until files count as settled
    return [Sample(str(n), "g", folder / f"{n}.jpg", (Turn("?", "!"),)) for n in range(count)]


def processor_seconds(run: Callable[[], Any]) -> float:
    """Of all threads."""
    start = time.process_time()
    run()
    return time.process_time() - start


def compare_answers(samples: Sequence[Sample], rounds: int, work: Path) -> None:
    """Print processor seconds of answers without the cache, with an empty and with a full one."""
    model, processor = load_pretrained(TINY)
    seconds: dict[str, list[float]] = {"no cache": [], "empty cache": [], "full cache": []}
    for number in range(rounds):
        os.environ[VARIABLE] = str(work / f"cache{number}")
        for name, times in seconds.items():
            is_cached = name != "no cache"
            copies = work / f"copies {is_cached} {number}"  # the second arm of an evaluation has those of the first

            def answer(copies: Path = copies, is_cached: bool = is_cached) -> None:
                decoding = Decoding(max_new_tokens=1, batch_size=8)
                generate_predictions(model, processor, samples, decoding, images=copies, feature_cache=is_cached)

            times.append(processor_seconds(answer))
    for name, times in seconds.items():
        ratio = median(times) / median(seconds["no cache"])
        print(f"answers, {name:12} {1e3 * median(times) / len(samples):7.0f} ms a picture, {ratio:.2f} of no cache")
    (part,) = list_cache(Path(os.environ[VARIABLE]) / "features")
    print(f"on disk {part.size_bytes / part.pictures:,.0f} bytes a picture, its share of encoder.json included")


def compare_cores(samples: Sequence[Sample], rounds: int, work: Path) -> None:
    """Print how long photographs take to become ready for the encoder."""
    _, processor = load_pretrained(TINY)

    def prepare(picture: Image.Image) -> Any:
        return processor.image_processor([picture], return_tensors="pt")["pixel_values"]

    cores = usable_cores()
    everyone = os.sched_getaffinity(0)
    seconds: dict[int, list[float]] = {1: [], cores: []}
    for number in range(rounds):
        for threads, times in seconds.items():
            os.sched_setaffinity(0, set(list(everyone)[:threads]))
            folder = work / f"filled{threads}-{number}"
            cache = FeatureCache(folder, {}, (1, 1), lambda made: torch.zeros(len(made), 1, 1), prepare=prepare)
            start = time.perf_counter()
            cache.fill(samples)
            times.append(time.perf_counter() - start)
    os.sched_setaffinity(0, everyone)
    for threads, times in seconds.items():
        print(f"{threads} cores: {1e3 * median(times) / len(samples):.0f} ms a picture by the clock")


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--megapixels", type=float, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        compare_logits(work / "logits")
        samples = photographs(work / "photographs", parsed.pictures, parsed.megapixels)
        compare_answers(samples, parsed.rounds, work)
        compare_cores(samples, parsed.rounds, work)


if __name__ == "__main__":
    main()
