"""How well copies of training pictures are found, how often other pictures are called copies, and how long it takes.

    python benchmarks/look_alikes.py [--real FOLDER ...] [--count 400]

Recall: each picture comes back compressed (JPEG, quality 30), at half size, flipped, with 10 or 20 % of each side cut
away, or all of that. False alarms: each fifth of a set, truly different pictures of one kind, against the others.
`--real` adds folders of pictures, each a set.

On 2026-11-27, `--count 60 --real` with the 20 published few-shot pictures and 5 chest X-rays of OpenI:

    set                     JPEG 30  half size    flipped  crop 10 %  crop 20 %        all   false alarms
    fewshot-background         100%       100%       100%       100%        90%        60%   0 of 20 (320 pairs)
    openi-sample               100%       100%       100%       100%       100%       100%   0 of 5 (20 pairs)
    scenes                     100%       100%       100%        92%        83%        85%   0 of 60 (2,880 pairs)
    phantom X-rays             100%       100%       100%        77%        75%        68%   0 of 60 (2,880 pairs)
    light curves               100%        65%       100%        77%        85%         0%   0 of 60 (2,880 pairs)

5 X-rays are too few to generalise. Before alike pictures were searched by their position in the mean picture, the
phantoms' crops were found in 2, 9 and 3%. Of 40 crops among 400 phantoms 30 are found, as many as without the choice of
the likeliest 64; a test picture that is like the others costs a fifth of a second, once.
"""

import argparse
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vglm.data.images import open_image
from vglm.data.look_alikes import find_copies, thumbnail
from vglm.worlds import radiograph_render, render
from vglm.worlds.radiographs import sample_chest
from vglm.worlds.scenes import sample_scene
from vglm.worlds.star_dialogues import star_splits

Thumbnails = list[NDArray[np.uint8]]


def compressed(picture: Image.Image) -> Image.Image:
    """As a JPEG of low quality."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=30)
    return Image.open(buffer).convert("RGB")


def halved(picture: Image.Image) -> Image.Image:
    """At half the size."""
    return picture.resize((max(picture.width // 2, 1), max(picture.height // 2, 1)))


def cropped(share: float) -> Callable[[Image.Image], Image.Image]:
    """Without a share of each side, more of it on the left and on top."""

    def crop(picture: Image.Image) -> Image.Image:
        width, height = picture.size
        left, top = round(0.7 * share * width), round(0.6 * share * height)
        return picture.crop((left, top, left + round((1 - share) * width), top + round((1 - share) * height)))

    return crop


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG 30": compressed,
    "half size": halved,
    "flipped": ImageOps.mirror,
    "crop 10 %": cropped(0.1),
    "crop 20 %": cropped(0.2),
    "all": lambda picture: compressed(halved(ImageOps.mirror(cropped(0.1)(picture)))),
}


def picture_sets(count: int, size: int, folders: list[Path]) -> Iterator[tuple[str, list[Image.Image]]]:
    """Sets of different pictures, by name."""
    for folder in folders:
        files = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg", ".jpeg"))
        yield folder.name, [open_image(file) for file in files]
    rng = np.random.default_rng(0)
    yield "scenes", [render.render(sample_scene(rng), size) for _ in range(count)]
    yield "phantom X-rays", [radiograph_render.render(sample_chest(rng), "frontal", size) for _ in range(count)]
    stars = star_splits(train_stars=count, test_stars=1, size=64).train
    pictures = {star.group: star for star in stars}
    shown = [picture for star in pictures.values() if (picture := star.open_image()) is not None]
    yield "light curves", shown[:count]


def main() -> None:
    """Print a line for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400, help="pictures of each generated set")
    parser.add_argument("--size", type=int, default=224, help="pixels of generated scenes and X-rays")
    parser.add_argument("--real", type=Path, nargs="*", default=[], help="folders of pictures")
    parsed = parser.parse_args()
    print(f"{'set':20}" + "".join(f"{name:>11}" for name in EDITS) + "   false alarms")
    for name, pictures in picture_sets(parsed.count, parsed.size, parsed.real):
        small = [thumbnail(picture) for picture in pictures]
        recalls = []
        for edit in EDITS.values():
            copies = find_copies([thumbnail(edit(picture)) for picture in pictures], small)
            recalls.append(sum(copy.tested == copy.learned for copy in copies) / len(small))
        folds = min(len(small), 5)
        alarms = pairs = 0
        for fold in range(folds):
            tested, learned = small[fold::folds], [thumb for i, thumb in enumerate(small) if i % folds != fold]
            alarms += len(find_copies(tested, learned))
            pairs += len(tested) * len(learned)
        shown = "".join(f"{recall:11.0%}" for recall in recalls)
        print(f"{name:20}{shown}   {alarms} of {len(small)} ({pairs:,} pairs)", flush=True)
    noise = np.random.default_rng(0).integers(0, 256, (2000, 64, 64), dtype=np.uint8)
    started = time.perf_counter()
    find_copies(noise[:1000], noise[1000:])
    print(f"1,000,000 pairs: {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
