"""Mix data sets with weights, for example a task and a replay set against forgetting.

    mixture = Mixture({"xray": xray.train, "replay": scenes.train}, weights={"xray": 0.8, "replay": 0.2}, seed=1)
    mixture.names[:5]          # ["xray", "xray", "replay", "xray", "xray"]
    mixture[2]                 # Sample(id="replay:scenes-1-17", ...)

Which sample stands at which index follows from the weights, the seed and the parts' sizes alone, never from a random
generator's state: a resumed run, and every process of a run on several, sees the same mixture.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from vglm.data.sample import Sample, SampleSequence, Turn
from vglm.data.splits import Splits
from vglm.errors import ConfigError
from vglm.text.prompt import Language


class Mixture(SampleSequence):
    """Samples of several sequences in fixed proportions, evenly interleaved.

    Every beginning of the mixture keeps the proportions to within one sample of each part. A part is gone through in a
    seeded order, and again in another order once all of it was seen, so that of any two of its samples one occurs at
    most once more often than the other.

    Args:
        parts: Name -> samples.
        weights: Name -> its share; they need not sum to one. A part without weight takes no part.
        length: Number of samples; None takes as many as show every sample of the first part once.
        seed: Of the order within the parts.

    Raises:
        ConfigError: A weight is negative or of no part, none is positive, or a part with a weight is empty.
    """

    def __init__(
        self,
        parts: Mapping[str, Sequence[Sample]],
        weights: Mapping[str, float],
        *,
        length: int | None = None,
        seed: int = 1,
    ) -> None:
        if unknown := sorted(set(weights) - set(parts)):
            raise ConfigError(f"dataset.weights: there is no {unknown[0]!r}; choose from {', '.join(parts)}.")
        if any(weight < 0 for weight in weights.values()) or not any(weights.values()):
            raise ConfigError(f"dataset.weights must be at least 0 and not all 0, got {dict(weights)}.")
        self.used = [name for name in parts if weights.get(name, 0) > 0]
        if empty := [name for name in self.used if not len(parts[name])]:
            raise ConfigError(f"dataset.weights: {empty[0]!r} has no training samples to mix in.")
        self.parts = [parts[name] for name in self.used]
        total = sum(weights[name] for name in self.used)
        shares = [weights[name] / total for name in self.used]
        if length is None:
            length = round(len(self.parts[0]) / shares[0])
        if length < 1:
            raise ConfigError(f"dataset.length must be at least 1, got {length}.")
        self._part = _interleave(shares, length)
        self._index = np.empty(length, dtype=np.int64)
        for number, (name, part) in enumerate(zip(self.used, self.parts, strict=True)):
            indices = np.flatnonzero(self._part == number)
            self._index[indices] = _passes(len(part), len(indices), seed, name)

    @property
    def names(self) -> list[str]:
        """The part that each sample comes from."""
        return [self.used[number] for number in self._part]

    def __len__(self) -> int:
        return len(self._part)

    def dialogues(self) -> Iterator[tuple[Sequence[Turn], bool, Language]]:
        """Turns, whether there is a picture, and the language, of all samples in order.

        Parts that can say so without making a picture do (`vglm.worlds.pretraining.SceneDialogues.dialogues`).
        """
        for number, row in zip(self._part.tolist(), self._index.tolist(), strict=True):
            part = self.parts[number]
            if (cheap := getattr(part, "dialogues", None)) is not None:
                yield from cheap([row])
            else:
                sample = part[row]
                yield sample.turns, sample.image is not None, sample.language

    def sample(self, index: int) -> Sample:
        """See `SampleSequence`."""
        number = int(self._part[index])
        sample = self.parts[number][int(self._index[index])]
        return replace(sample, id=f"{self.used[number]}:{sample.id}")


def mix_splits(
    datasets: Mapping[str, Splits],
    weights: Mapping[str, float],
    *,
    length: int | None = None,
    seed: int = 1,
    allow_leakage: bool = False,
) -> Splits:
    """Train on a mixture, and evaluate on the first data set.

    Args:
        datasets: Name -> data set. The first is the task: the mixture has its validation, test and retention set.
        weights: Name -> share of the training samples.
        length: Number of training samples in one epoch; None shows each sample of the task once.
        seed: Of the order within each data set.
        allow_leakage: As for `load_dataset`.

    Returns:
        The splits. A file of the data set `a` is called `a/<file>`.

    Raises:
        ConfigError: As `Mixture`.
    """
    if not datasets:
        raise ConfigError("dataset.datasets is empty. Name at least one data set.")
    task_name, task = next(iter(datasets.items()))
    return Splits(
        train=Mixture({name: dataset.train for name, dataset in datasets.items()}, weights, length=length, seed=seed),
        test=task.test,
        retention=task.retention,
        validation=task.validation,
        files={
            f"{name}/{file}": digest for name, dataset in datasets.items() for file, digest in dataset.files.items()
        },
        image_hashes={image: digest for dataset in datasets.values() for image, digest in dataset.image_hashes.items()},
        thumbnails={image: small for dataset in datasets.values() for image, small in dataset.thumbnails.items()},
        plan={
            "task": task_name,
            "weights": dict(weights),
            "seed": seed,
            "datasets": {name: dict(dataset.plan) for name, dataset in datasets.items()},
        },
        allow_leakage=allow_leakage or any(dataset.allow_leakage for dataset in datasets.values()),
        synthetic=task.synthetic,
    )


def _interleave(shares: Sequence[float], length: int) -> np.ndarray:
    """The part at each index, shape (length,): always the one furthest behind its share.

    Source: quota apportionment; with the deadline rule of Tijdeman, "The chairman assignment problem" (1980), every
    beginning of n samples has n * share of a part, give or take less than one.
    """
    taken = [0] * len(shares)
    parts = np.empty(length, dtype=np.int16)
    for index in range(length):
        # of the parts that may have one more by now, the one whose next sample is due first
        chosen, due_first = 0, float("inf")
        for part, share in enumerate(shares):
            if share * (index + 1) > taken[part] and (due := (taken[part] + 1) / share) < due_first:
                chosen, due_first = part, due
        parts[index] = chosen
        taken[chosen] += 1
    return parts


def _passes(size: int, count: int, seed: int, name: str) -> np.ndarray:
    """Indices of a part of some size for its places, shape (count,): one permutation after another."""
    entropy = int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:8], "big")
    passes = -(-count // size)
    orders = [np.random.default_rng([entropy, number]).permutation(size) for number in range(passes)]
    return np.concatenate(orders)[:count] if orders else np.empty(0, dtype=np.int64)
