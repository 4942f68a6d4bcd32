"""Pairs of a test picture and the training picture that it leaked from, with thumbnails for the report."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from vglm.data.image_checks import DECODED_AT_START, DECODED_BYTES_AT_START
from vglm.data.images import image_sha256
from vglm.data.look_alikes import MAX_CROPPED_PAIRS, MAX_PAIRS
from vglm.data.sample import Sample
from vglm.data.splits import LookAlike, Splits
from vglm.errors import DataError
from vglm.evaluation.messages import Message
from vglm.evaluation.predictions import IMAGES_FOLDER, LEAKS_FILE, Stamp
from vglm.files import write_json

MAX_PAIRS_SHOWN = 12


def leaked_pairs(
    data: Splits, samples: Mapping[str, Sequence[Sample]], trained_images: Collection[str]
) -> list[LookAlike]:
    """The test samples whose picture was trained on, or is made from one that was.

    Args:
        data: The data that is evaluated.
        samples: The splits that are.
        trained_images: Content hashes of the pictures that were trained on; other pairs do not count.
    """
    if "test" not in samples or not trained_images:
        return []
    pairs = data.look_alikes or []
    hashes = data.hash_images([pair.learned for pair in pairs])
    return [pair for pair, digest in zip(pairs, hashes, strict=True) if digest in trained_images]


def unsearched_stamps(data: Splits, samples: Mapping[str, Sequence[Sample]]) -> list[Stamp]:
    """The stamp of found data in which not all copies of training pictures could be searched."""
    is_searchable = data.synthetic is None and len(data.train) > 0  # generated samples can be endless
    if not is_searchable or data.look_alike_scope == "all" or not _has_pictures(samples.get("test", ())):
        return []
    name = {"nothing": "LOOK-ALIKES NOT SEARCHED", "whole": "CROPS NOT SEARCHED"}[data.look_alike_scope]
    limits = {"pictures": DECODED_AT_START, "megabytes": DECODED_BYTES_AT_START >> 20}
    pairs = {"nothing": MAX_PAIRS, "whole": MAX_CROPPED_PAIRS}[data.look_alike_scope]
    return [Stamp(text=name, detail=Message(f"unsearched.{data.look_alike_scope}", {**limits, "pairs": pairs}))]


def _has_pictures(samples: Sequence[Sample]) -> bool:
    return any(sample.image is not None for sample in samples)


def write_leaks(pairs: Sequence[LookAlike], folder: Path) -> None:
    """Write the first pairs and their pictures into an evaluation folder; look-alikes before equal pictures."""
    shown = sorted(pairs, key=lambda pair: pair.how == "same pixels")[:MAX_PAIRS_SHOWN]
    records = [
        {
            "tested": pair.tested.id,
            "learned": pair.learned.id,
            "how": pair.how,
            "images": [_keep(sample, folder / IMAGES_FOLDER) for sample in (pair.tested, pair.learned)],
        }
        for pair in shown
    ]
    if records:
        write_json(folder / LEAKS_FILE, {"total": len(pairs), "pairs": records}, error=DataError)


def _keep(sample: Sample, images: Path) -> str:
    """Save a small copy of a sample's picture; returns its hash, which is the file's name."""
    picture = sample.open_image()
    assert picture is not None
    from vglm.evaluation.predict.generation import save_copy  # takes seconds to import

    digest = image_sha256(picture)
    images.mkdir(exist_ok=True)
    save_copy(picture, images / f"{digest}.webp")
    return digest
