"""The general retention set: abilities that a model of the scene world should keep after other tuning.

retention_splits(per_kind=10).retention[1]  ->  Sample(
    id="probe-5-0-en",
    group="probe-5-0",
    image=<RGB picture of 64 x 64 pixels>,
    turns=(Turn("Describe the picture.", "Three red cats on the beach."),),
    language="en",
    meta={"kind": "caption", "family": "caption", "language": "en"},
)

    family    kinds                                 what is asked
    caption   caption                               a sentence about the picture
    question  subject, colour, count, place         one attribute
    dialogue  dialogue                              an attribute, then another one, with the first answer as history
    plain     plain, plain_dialogue                 one exchange, or two, without a picture

Scenes are drawn from a stream of random numbers of their own, so that no recipe's training set has their pictures.
Words are shared where there are few: each question of `plain` is also in `scenes` (and so in a replay set made of it),
a `plain_dialogue` is in no training set. Of the scene world's kinds, `yes_no` and `repeat` are left out unless asked
for: the shipped tiny model answers them hardly better than by chance, so there is nothing in them to forget.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from vglm.data.sample import Sample, Turn
from vglm.data.splits import Splits
from vglm.errors import ConfigError
from vglm.text.prompt import LANGUAGES, Language
from vglm.worlds.questions import TEXT_ONLY_KINDS, ask
from vglm.worlds.render import render
from vglm.worlds.scenes import Scene, sample_scene

PLAIN_DIALOGUE = "plain_dialogue"
FAMILIES = {
    "caption": "caption",
    **dict.fromkeys(("subject", "colour", "count", "place", "yes_no"), "question"),
    "dialogue": "dialogue",
    **dict.fromkeys(("plain", PLAIN_DIALOGUE, "repeat"), "plain"),
}
"""Kind of question -> what it is in the general retention set."""
KINDS = ("caption", "subject", "colour", "count", "place", "dialogue", "plain", PLAIN_DIALOGUE)
"""The kinds of the shipped retention set."""

_STREAM = (7, 11)
"""Four numbers seed each scene here; the scene world takes two, the background set three."""


def retention_splits(*, per_kind: int = 10, seed: int = 5, kinds: Sequence[str] = KINDS, size: int = 64) -> Splits:
    """The general retention set as a data set: nothing to train on, and all samples in the split `retention`.

    Args:
        per_kind: Scenes of each kind of question; each is asked about in Chinese and in English.
        seed: Another seed gives other scenes and wordings.
        kinds: Which kinds, of `FAMILIES`.
        size: Width and height of the pictures in pixels, at least 16.

    Returns:
        The splits. In place of files they name, and hash, the settings that all samples follow from.

    Raises:
        ConfigError: A kind is unknown, or there are no samples.
    """
    if unknown := [kind for kind in kinds if kind not in FAMILIES]:
        raise ConfigError(f"dataset.kinds: there is no {unknown[0]!r}. Choose from {', '.join(FAMILIES)}.")
    if per_kind < 1 or not kinds:
        raise ConfigError(f"dataset.per_kind must be at least 1 and dataset.kinds name a kind, got {per_kind}.")
    samples = []
    for index in range(per_kind * len(kinds)):
        rng = np.random.default_rng([seed, index, *_STREAM])
        scene, kind, name = sample_scene(rng), kinds[index % len(kinds)], f"probe-{seed}-{index}"
        image = None if kind == PLAIN_DIALOGUE or kind in TEXT_ONLY_KINDS else render(scene, size)
        for language in LANGUAGES:
            turns = _turns(scene, kind, language, rng)
            meta = {"kind": kind, "family": FAMILIES[kind], "language": language}
            samples.append(Sample(f"{name}-{language}", name, image, turns, language, meta))
    setting = f"general probe seed={seed} per_kind={per_kind} kinds={','.join(kinds)} size={size}"
    files = {setting: hashlib.sha256(setting.encode()).hexdigest()}
    return Splits(
        train=[],
        test=[],
        retention=samples,
        files=files,
        synthetic="vglm.worlds.general_ability.retention_splits",
    )


def _turns(scene: Scene, kind: str, language: Language, rng: np.random.Generator) -> tuple[Turn, ...]:
    if kind != PLAIN_DIALOGUE:
        return ask(scene, kind, language, rng)
    first = ask(scene, "plain", language, rng)
    while True:
        second = ask(scene, "plain", language, rng)
        if second[0].answer != first[0].answer:
            return (*first, *second)
