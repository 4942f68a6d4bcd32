"""Studies of the synthetic chest world: the radiographs of imaginary patients, each with its report.

studies = RadiographStudies(studies=2000, seed=1)
studies[1]  ->  Sample(
    id="chest-1-0_1#en",
    group="chest-1-0",
    image=<RGB picture of 64 x 64 pixels>,
    turns=(Turn("What can be diagnosed from this chest X-ray?", "Normal heart. Opacity in the left upper zone..."),),
    language="en",
    meta={"kind": "frontal", "language": "en", "is_abnormal": True, "heart": "normal", "opacity": "left upper",
          "effusion": "none", "pneumothorax": "none", "device": "none", "cardiothoracic_ratio": 0.44},
)

A study is one patient: a frontal and a lateral picture, each with a report in Chinese and one in English, four samples
of one group. `write_radiograph_set` writes the same as files, in XrayGLM's format, named as OpenI's are (`<study>_1` is
the frontal picture, `<study>_2` the lateral one):

    {"annotations": [
        {"image_id": "1_1", "caption": "心影不大，左肺上野见片状阴影，...", "kind": "frontal", "heart": "normal", ...},
        ...
    ]}
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from vglm.data.sample import Sample, SampleSequence
from vglm.data.splits import Splits
from vglm.errors import ConfigError, DataError
from vglm.files import new_folder, write_text
from vglm.text.prompt import LANGUAGES, Language
from vglm.worlds.command import write_set
from vglm.worlds.radiograph_render import cardiothoracic_ratio, render
from vglm.worlds.radiograph_reports import report_turn, write_report
from vglm.worlds.radiographs import VIEWS, Chest, View, sample_chest


class RadiographStudies(SampleSequence):
    """Samples made on demand: study i follows from (seed, i) alone, so they can be accessed in any order.

    Args:
        studies: Number of studies; each gives `len(views) * len(languages)` samples, one after another.
        seed: Another seed gives other patients; take one for training and another for held-out studies.
        size: Width and height of the pictures in pixels, at least 16.
        views: Which pictures a study has.
        languages: In which languages it is reported.

    Raises:
        ConfigError: There is no study, view or language, or an unknown one.
    """

    def __init__(
        self,
        studies: int,
        seed: int,
        size: int = 64,
        views: Sequence[View] = VIEWS,
        languages: Sequence[Language] = LANGUAGES,
    ) -> None:
        if studies < 1:
            raise ConfigError(f"studies must be a positive integer, got {studies}.")
        for name, values, allowed in (("views", views, VIEWS), ("languages", languages, LANGUAGES)):
            if not values or set(values) - set(allowed) or len(set(values)) != len(values):
                raise ConfigError(f"{name} must be some of {list(allowed)}, each once, got {list(values)}.")
        self.studies = studies
        self.seed = seed
        self.size = size
        self._kinds = [(view, language) for view in views for language in languages]

    def __len__(self) -> int:
        return self.studies * len(self._kinds)

    def chest(self, study: int) -> Chest:
        """The patient of one study."""
        return sample_chest(np.random.default_rng([self.seed, study]))

    def sample(self, index: int) -> Sample:
        """See `SampleSequence`."""
        study, kind = divmod(index, len(self._kinds))
        view, language = self._kinds[kind]
        chest = self.chest(study)
        group = f"chest-{self.seed}-{study}"
        return Sample(
            id=f"{group}_{VIEWS.index(view) + 1}#{language}",
            group=group,
            image=render(chest, view, self.size),
            turns=(report_turn(chest, view, language),),
            language=language,
            meta={"kind": view, "language": language, **describe(chest)},
        )


def describe(chest: Chest) -> dict[str, Any]:
    """A study's findings in plain words and numbers, as they stand in a sample's `meta`."""
    return {
        "is_abnormal": chest.is_abnormal,
        "heart": chest.heart,
        "opacity": "none" if chest.opacity is None else f"{chest.opacity.side} {chest.opacity.zone}",
        "effusion": chest.effusion,
        "pneumothorax": chest.pneumothorax,
        "device": "none" if chest.device == "none" else f"{chest.device} {chest.device_side}",
        "cardiothoracic_ratio": round(cardiothoracic_ratio(chest), 2),
    }


def radiograph_splits(
    *,
    train_studies: int,
    test_studies: int,
    seed: int = 1,
    test_seed: int = 2,
    views: Sequence[View] = VIEWS,
    languages: Sequence[Language] = LANGUAGES,
) -> Splits:
    """The chest world as a data set: training and test patients.

    Args:
        train_studies: Number of training studies, made on demand.
        test_studies: Number of held-out studies.
        seed: Seed of the training studies.
        test_seed: Seed of the held-out studies; must differ from `seed`.
        views: Which pictures a study has.
        languages: In which languages it is reported.

    Returns:
        The splits, without a retention set. For files they name, and hash, the settings that all samples follow from.

    Raises:
        ConfigError: The seeds are equal, so the held-out patients would be training patients; or as
            `RadiographStudies`.
    """
    if seed == test_seed:
        raise ConfigError(f"dataset.seed and dataset.test_seed are both {seed}: the test would be on training studies.")
    kinds = f"views={','.join(views)} languages={','.join(languages)}"
    settings = [
        f"radiographs seed={s} studies={n} {kinds}" for s, n in ((seed, train_studies), (test_seed, test_studies))
    ]
    return Splits(
        train=RadiographStudies(train_studies, seed, views=views, languages=languages),
        test=list(RadiographStudies(test_studies, test_seed, views=views, languages=languages)),
        retention=[],
        files={name: hashlib.sha256(name.encode()).hexdigest() for name in settings},
        synthetic="vglm.worlds.radiograph_studies.radiograph_splits",
    )


def write_radiograph_set(
    folder: Path, seed: int, *, train_studies: int = 200, test_studies: int = 50, size: int = 64
) -> None:
    """Write `train-zh.json`, `train-en.json`, `test-zh.json`, `test-en.json` and their `images/` into a new folder.

    Args:
        folder: Where to write; it must not exist or be empty, and holds either the whole set or nothing afterwards.
        seed: Another seed gives other patients, the same seed the same set.
        train_studies: Training studies, of two pictures each.
        test_studies: Test studies; they go on numbering where the training studies end.
        size: Width and height of the pictures in pixels, at least 16.

    Raises:
        ConfigError: There is no study in a split.
        DataError: `folder` holds something already, or cannot be written.
    """
    with new_folder(folder) as staging:
        (staging / "images").mkdir()
        first = 1
        for split, studies in (("train", train_studies), ("test", test_studies)):
            _write_split(staging, split, RadiographStudies(studies, seed, size), first)
            first += studies


def _write_split(folder: Path, split: str, studies: RadiographStudies, first: int) -> None:
    """The pictures of a split, and one file of reports for each language; studies are numbered from `first`."""
    rows: dict[Language, list[dict[str, Any]]] = {language: [] for language in LANGUAGES}
    for study in tqdm(range(first, first + studies.studies), desc=split, unit="study", delay=2):
        chest = sample_chest(np.random.default_rng([studies.seed, study]))
        for number, view in enumerate(VIEWS, start=1):
            name = f"{study}_{number}"
            render(chest, view, studies.size).save(folder / "images" / f"{name}.png", optimize=True)
            for language in LANGUAGES:
                caption = write_report(chest, view, language)
                rows[language].append({"image_id": name, "caption": caption, "kind": view, **describe(chest)})
    for name, annotations in rows.items():
        lines = ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in annotations)
        write_text(folder / f"{split}-{name}.json", f'{{"annotations": [\n{lines}\n]}}\n', error=DataError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a set from the command line; returns the exit code."""
    return write_set(
        write_radiograph_set,
        arguments,
        example="outputs/phantoms --seed 7 --size 256",
        least={"seed": 0, "size": 16},
    )


if __name__ == "__main__":
    sys.exit(main())
