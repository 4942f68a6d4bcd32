"""The pre-training set of the tiny model: dialogues about scenes, drawn on demand.

dialogues = SceneDialogues(length=1_000_000, seed=1)
dialogues[1]  ->  Sample(
    id="scenes-1-1",
    group="scenes-1-1",
    image=<RGB picture of 64 x 64 pixels>,
    turns=(Turn("帆船是什么颜色的？", "蓝色。"),),
    language="zh",
    meta={"kind": "colour", "language": "zh", "subject": "boat", "colour": "blue", "count": 3, "place": "snow"},
)
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vglm.data.sample import Sample, SampleSequence, Turn
from vglm.data.splits import Splits
from vglm.errors import ConfigError
from vglm.text.prompt import Language
from vglm.worlds.questions import QUESTION_KINDS, TEXT_ONLY_KINDS, YES_NO, ask
from vglm.worlds.render import render
from vglm.worlds.scenes import Scene, sample_scene

MIXTURE: Mapping[str, float] = {
    "caption": 0.32,
    "subject": 0.14,
    "count": 0.14,
    "colour": 0.08,
    "place": 0.06,
    "yes_no": 0.1,
    "dialogue": 0.11,
    "plain": 0.02,
    "repeat": 0.03,
}
"""Share of each question kind; half of each kind is in Chinese, half in English."""


@dataclass(frozen=True, slots=True)
class _Item:
    """A sample before its picture is drawn."""

    kind: str
    language: Language
    scene: Scene
    turns: tuple[Turn, ...]


class SceneDialogues(SampleSequence):
    """Samples made on demand: number i follows from (seed, i) alone, so they can be accessed in any order.

    Args:
        length: Number of samples.
        seed: Another seed gives other scenes and questions; take one for training and another for held-out samples.
        size: Width and height of the pictures in pixels, at least 16.
        mixture: Weights of the question kinds; they need not sum to one. None takes `MIXTURE`.

    Raises:
        ConfigError: `mixture` names an unknown kind, or its weights are negative or all zero.
    """

    longest = 200
    """More bytes than the questions and answers of any sample have together, the cues between them included."""

    def __init__(self, length: int, seed: int, size: int = 64, mixture: Mapping[str, float] | None = None) -> None:
        mixture = MIXTURE if mixture is None else mixture
        unknown = sorted(set(mixture) - set(QUESTION_KINDS))
        if unknown:
            raise ConfigError(f"mixture: unknown question kinds {unknown}. Choose from {list(QUESTION_KINDS)}.")
        if any(weight < 0 for weight in mixture.values()) or sum(mixture.values()) <= 0:
            raise ConfigError(f"mixture: weights must be >= 0 and not all zero, got {dict(mixture)}.")
        self.length = length
        self.seed = seed
        self.size = size
        self._kinds = tuple(mixture)
        self._thresholds = np.cumsum(list(mixture.values())) / sum(mixture.values())

    def __len__(self) -> int:
        return self.length

    def sample(self, index: int) -> Sample:
        """See `SampleSequence`."""
        item = self._item(index)
        name = f"scenes-{self.seed}-{index}"
        meta: dict[str, Any] = {"kind": item.kind, "language": item.language}
        if item.kind == "yes_no":
            meta["choices"] = list(YES_NO[item.language])
        if item.kind in TEXT_ONLY_KINDS:
            return Sample(name, name, None, item.turns, item.language, meta)
        scene = item.scene
        meta |= {"subject": scene.kind, "colour": scene.colour, "count": scene.count, "place": scene.place}
        return Sample(name, name, render(scene, self.size), item.turns, item.language, meta)

    def texts(self) -> Iterator[str]:
        """The questions and answers of all samples in order, without drawing a picture."""
        for index in range(self.length):
            for turn in self._item(index).turns:
                yield turn.question
                yield turn.answer

    def dialogues(self, rows: Iterable[int] | None = None) -> Iterator[tuple[tuple[Turn, ...], bool, Language]]:
        """Turns, whether there is a picture, and the language, of these or all samples; no picture is drawn."""
        for index in range(self.length) if rows is None else rows:
            item = self._item(index)
            yield item.turns, item.kind not in TEXT_ONLY_KINDS, item.language

    def _item(self, index: int) -> _Item:
        rng = np.random.default_rng([self.seed, index])
        kind = self._kinds[
            min(int(np.searchsorted(self._thresholds, rng.random(), side="right")), len(self._kinds) - 1)
        ]
        language: Language = "en" if rng.random() < 0.5 else "zh"
        scene = sample_scene(rng)
        return _Item(kind, language, scene, ask(scene, kind, language, rng))


def corpus_lines(lines: int = 40_000, seed: int = 0) -> Iterator[str]:
    """Text for training a tokenizer: as many questions and answers, as frequent as in pre-training.

    The random strings of the "repeat" kind are left out; `questions.characters` lists the characters they are made of.
    """
    mixture = {kind: share for kind, share in MIXTURE.items() if kind != "repeat"}
    texts = SceneDialogues(lines, seed, mixture=mixture).texts()
    return (text for text, _ in zip(texts, range(lines), strict=False))


def scene_splits(*, train_samples: int, test_samples: int, seed: int = 1, test_seed: int = 2) -> Splits:
    """The scene world as a data set: training and test pictures.

    Args:
        train_samples: Number of training samples, made on demand.
        test_samples: Number of held-out samples.
        seed: Seed of the training samples.
        test_seed: Seed of the held-out samples; must differ from `seed`.

    Returns:
        The splits, without a retention set. For files they name, and hash, the settings that all samples follow from.

    Raises:
        ConfigError: The seeds are equal, so the held-out samples would be training samples.
    """
    if seed == test_seed:
        raise ConfigError(f"dataset.seed and dataset.test_seed are both {seed}: the test would be on training samples.")
    settings = [f"scenes seed={s} samples={n}" for s, n in ((seed, train_samples), (test_seed, test_samples))]
    return Splits(
        train=SceneDialogues(train_samples, seed),
        test=list(SceneDialogues(test_samples, test_seed)),
        retention=[],
        files={name: hashlib.sha256(name.encode()).hexdigest() for name in settings},
        synthetic="vglm.worlds.pretraining.scene_splits",
    )
