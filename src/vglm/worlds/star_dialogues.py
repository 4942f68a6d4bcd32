"""Questions about synthetic variable stars: a supply made on demand, or a folder of light-curve files.

stars = StarDialogues(stars=1000, seed=1)
stars[0]  ->  Sample(
    id="stars-1-0.0",
    group="stars-1-0",
    image=<RGB picture of 64 x 64 pixels>,
    turns=(Turn("这颗星是什么类型的变星？", "天琴座RR型变星。"),),
    language="zh",
    meta={"kind": "type", "language": "zh", "type": "rr_lyrae", "subtype": "ab", "telescope": "kepler",
          "period_days": 0.571, "amplitude_mag": 0.94},
)

`write_star_set` writes the same stars as a researcher has them, one CSV or FITS file each and a table of labels, for
`vglm.data.readers.lightcurves` to read:

    python -m vglm.worlds.star_dialogues outputs/stars --stars 60 --seed 7 --format fits
"""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from vglm.data.astronomy.files import write_csv, write_fits
from vglm.data.astronomy.light_curve import LightCurve, measure
from vglm.data.astronomy.plots import View, draw
from vglm.data.astronomy.questions import Question, ask
from vglm.data.astronomy.series import SERIES
from vglm.data.sample import Sample, SampleSequence
from vglm.data.splits import Splits
from vglm.errors import ConfigError
from vglm.files import new_folder, write_text
from vglm.text.prompt import Language
from vglm.worlds.command import write_set
from vglm.worlds.lightcurves import SHARES, Star, sample_star

_QUESTIONS: tuple[tuple[Question, Language], ...] = (
    ("type", "zh"),
    ("type", "en"),
    ("period", "zh"),
    ("amplitude", "en"),
)
"""What even stars are asked; of odd ones the period is asked in English and the amplitude in Chinese."""


def _star(seed: int, number: int, *, balanced: bool = False) -> Star:
    """Star `number` of a seed: it follows from the two alone. Balanced, the types take turns."""
    kind = list(SHARES)[number % len(SHARES)] if balanced else None
    return sample_star(np.random.default_rng([seed, number]), kind, name=f"stars-{seed}-{number}")


@dataclass(frozen=True)
class Simulated:
    """Simulates a star's light curve once more, which would fill the memory if all were kept."""

    seed: int
    number: int
    balanced: bool

    def __call__(self) -> LightCurve:
        """The light curve."""
        return _star(self.seed, self.number, balanced=self.balanced).curve


class StarDialogues(SampleSequence):
    """Samples generated on access, four per star: its type in Chinese and in English, its period, its amplitude.

    A star is simulated, measured and drawn when its first sample is asked for; its picture is kept, 12 kB at 64 pixels.

    Args:
        stars: Number of stars.
        seed: Another seed gives other stars; take one for training and another for held-out stars.
        balanced: Whether all types are equally frequent, rather than as in `SHARES`.
        view: See `vglm.data.astronomy.plots`.
        size: Width and height of the pictures in pixels.
    """

    def __init__(self, stars: int, seed: int, *, balanced: bool = False, view: View = "star", size: int = 64) -> None:
        self.stars = stars
        self.seed = seed
        self.balanced = balanced
        self.view = view
        self.size = size
        self._cached: dict[int, tuple[bytes, dict[str, str | float]]] = {}

    def __len__(self) -> int:
        return self.stars * len(_QUESTIONS)

    def sample(self, index: int) -> Sample:
        """See `SampleSequence`."""
        number, turn = divmod(index, len(_QUESTIONS))
        question, language = _QUESTIONS[turn]
        if question != "type" and number % 2 == 1:
            language = "en" if language == "zh" else "zh"
        pixels, facts = self._facts(number)
        name = f"stars-{self.seed}-{number}"
        value = facts[{"type": "type", "period": "period_days", "amplitude": "amplitude_mag"}[question]]
        return Sample(
            id=f"{name}.{turn}",
            group=name,
            image=Image.frombytes("RGB", (self.size, self.size), pixels),
            turns=(ask(question, value, language, name),),
            language=language,
            meta={
                "kind": question,
                "language": language,
                **facts,
                SERIES: Simulated(self.seed, number, self.balanced),
            },
        )

    def _facts(self, number: int) -> tuple[bytes, dict[str, str | float]]:
        if number not in self._cached:
            star = _star(self.seed, number, balanced=self.balanced)
            pixels = draw(star.curve, measure(star.curve), view=self.view, size=self.size).tobytes()
            self._cached[number] = (
                pixels,
                {
                    "type": star.kind,
                    "subtype": star.subtype,
                    "telescope": star.telescope,
                    "period_days": star.period_days,
                    "amplitude_mag": star.amplitude_mag,
                },
            )
        return self._cached[number]


def star_splits(
    *,
    train_stars: int,
    test_stars: int,
    seed: int = 1,
    test_seed: int = 2,
    balanced: bool = True,
    view: View = "star",
    size: int = 64,
) -> Splits:
    """The world of variable stars as a data set: training and test stars.

    Args:
        train_stars: Number of training stars, made on demand.
        test_stars: Number of held-out stars.
        seed: Seed of the training stars.
        test_seed: Seed of the held-out stars; must differ from `seed`.
        balanced: Whether the training stars are of all types alike, so that rare ones are learned in as few steps as
            frequent ones. The held-out stars always have the frequencies of `SHARES`.
        view: See `vglm.data.astronomy.plots`.
        size: Width and height of the pictures in pixels.

    Returns:
        The splits, without a retention set. For files they name, and hash, the settings that all samples follow from.

    Raises:
        ConfigError: The seeds are equal, so the held-out stars would be training stars.
    """
    if seed == test_seed:
        raise ConfigError(f"dataset.seed and dataset.test_seed are both {seed}: the test would be on training stars.")
    settings = [
        f"stars seed={s} stars={n} balanced={b} view={view} size={size}"
        for s, n, b in ((seed, train_stars, balanced), (test_seed, test_stars, False))
    ]
    return Splits(
        train=StarDialogues(train_stars, seed, balanced=balanced, view=view, size=size),
        test=StarDialogues(test_stars, test_seed, view=view, size=size),
        retention=[],
        files={name: hashlib.sha256(name.encode()).hexdigest() for name in settings},
        synthetic="vglm.worlds.star_dialogues.star_splits",
    )


def write_star_set(folder: Path, *, seed: int, stars: int = 100, format: Literal["csv", "fits"] = "csv") -> None:
    """Write `labels.csv` and one light-curve file per star into a new folder.

    Args:
        folder: Where to write; it must not exist or be empty, and holds either the whole set or nothing afterwards.
        seed: The stars are those of `StarDialogues(stars, seed)`.
        stars: Number of stars.
        format: `csv`, or `fits` as Kepler and TESS publish them.

    Raises:
        ConfigError: FITS files are requested and astropy is not installed.
        DataError: `folder` holds something already, or cannot be written.
    """
    rows = ["star,file,type,period,amplitude"]
    with new_folder(folder) as staging:
        for number in range(stars):
            star = _star(seed, number)
            name = f"{star.curve.star}.{format}"
            if format == "fits":
                write_fits(star.curve, staging / name, telescope=star.telescope)
            else:
                write_csv(star.curve, staging / name)
            numbers = f"{star.period_days:.6g},{star.amplitude_mag:.4g}"
            rows.append(f"{star.curve.star},{name},{star.kind},{numbers}")
        write_text(staging / "labels.csv", "".join(f"{row}\n" for row in rows))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a set from the command line; returns the exit code."""
    return write_set(
        write_star_set,
        arguments,
        example="outputs/stars --stars 60 --seed 7 --format fits",
        least={"seed": 0},
    )


if __name__ == "__main__":
    sys.exit(main())
