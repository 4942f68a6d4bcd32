"""What must stay together, and what the splits share."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vglm.data.doctor.checks.common import NOTE, WARNING, count_of, examples, in_split, listed, rows_of, verb
from vglm.data.doctor.finding import Finding
from vglm.data.doctor.survey import Survey, hash_text
from vglm.data.grouping import INFERRED_SHARE, VIEW_OF_STUDY
from vglm.data.ids import group_name
from vglm.data.readers import lightcurves

_LOOKED_AT = 1000
"""Maximum number of rows whose groups are looked up."""


def groups(survey: Survey) -> Iterator[Finding]:
    """What must stay together, such as the pictures of a study, a patient or a star."""
    table, ids = survey.table, survey.ids
    if table.empty:
        return
    sizes = table["group"].value_counts()
    if not table["has_own_group"].all():
        yield Finding(
            NOTE,
            f"Grouped by {_source(survey)}: {count_of(len(sizes), 'group')} in {rows_of(len(table))},"
            f" up to {rows_of(sizes.max())} each",
            "Split by group, never by row.",
        )
        if ids is not None and ids.without:
            yield Finding(
                WARNING,
                f"{rows_of(len(ids.without))} {'has' if len(ids.without) == 1 else 'have'} no id in {ids.source},"
                " and the others do",
                "They are grouped by what else they name (a study, the picture), so a patient of theirs may be in"
                " training and test. Fill the ids in, or leave these rows out.",
                examples(survey, ids.without),
            )
        return
    studies = infer_groups(survey)
    if studies is None:
        yield Finding(
            NOTE,
            f"Grouped by nothing, each picture alone: {count_of(len(sizes), 'group')} in {rows_of(len(table))}",
            "No row names a patient, a study or the like. If pictures belong together, name the field or column that"
            " says so with dataset.division.group=<name>.",
        )
        return
    splits_of = pd.Series(survey.rows["split"][survey.images]).groupby(studies)
    divided = int((splits_of.nunique() > 1).sum())
    yield Finding(
        WARNING if divided else NOTE,
        f"Pictures seem to be named <study>_<view>: {count_of(splits_of.ngroups, 'study', 'studies')},"
        f" up to {count_of(splits_of.size().max(), 'picture')} each",
        f"{count_of(divided, 'study', 'studies')} {verb('lie', divided)} in several splits: a score measures memory."
        " Divide by study."
        if divided
        else "Views of one study are no independent pictures. Keep them together when you split.",
    )


def _source(survey: Survey) -> str:
    """Where the groups stand: the ids that were found, a field of that content, or the beginning of pictures' names."""
    if survey.ids is not None:
        return survey.ids.source
    if survey.source.format == lightcurves.NAME:
        return "star"
    samples = [survey.sample(int(row)) for row in np.flatnonzero(~survey.rows["has_own_group"])[:_LOOKED_AT]]
    fields = [key for key in samples[0].meta if all(group_name(row.meta.get(key)) == row.group for row in samples)]
    if fields:
        return fields[0]
    images = [(row.image, row.group) for row in samples]
    if all(isinstance(image, Path) and image.name.startswith(f"{group}_") for image, group in images):
        return "the pictures' names up to the first _"
    return f"what the format {survey.source.format} says"


def infer_groups(survey: Survey) -> NDArray[np.uint64] | None:
    """Tell groups by the pictures' names.

    Args:
        survey: The survey.

    Returns:
        For each picture a hash of its study, where nine in ten are named `<study>_<view>` such as OpenI's 2_1, and
        studies have several; None where not.
    """
    studies = np.zeros(len(survey.images), np.uint64)
    named = 0
    for picture in range(len(studies)):
        image = survey.sample_of_picture(picture).image
        stem = image.stem if isinstance(image, Path) else str(image)
        match = VIEW_OF_STUDY.fullmatch(stem)
        named += match is not None
        studies[picture] = hash_text(match.group(1) if match else stem)
    are_views = 0 < named >= INFERRED_SHARE * len(studies) and len(np.unique(studies)) < len(studies)
    return studies if are_views else None


def splits(survey: Survey) -> Iterator[Finding]:
    """Which splits there are, and what they share."""
    if survey.splits in ([], [""]):
        yield Finding(
            NOTE,
            "No split is given",
            "One file is then both trained and tested on, unless dataset.division.fractions divides it.",
        )
        return
    sizes = survey.table["split"].value_counts()
    names = (f"{name or 'none'} ({sizes[code]:,})" for code, name in enumerate(survey.splits))
    yield Finding(NOTE, f"Splits: {listed(names)}")
    for leak in leaks(survey):
        advice = (
            f"A score on them measures memory. Training refuses it; --fix leaves the rows of {leak.train} out."
            if leak.is_certain
            else "A score on them may measure memory. Look at them; --fix leaves them be."
        )
        yield Finding(
            WARNING,
            f"{rows_of(len(leak.tested_rows))} of {leak.tested} {verb('share', len(leak.tested_rows))} {leak.shared}"
            f" with {rows_of(len(leak.train_rows))} of {leak.train}",
            advice,
            examples(survey, [*leak.tested_rows[:2], *leak.train_rows[:2]]),
        )


@dataclass(frozen=True)
class Leak:
    """What a split that is trained or chosen on shares with one that is tested on.

    Attributes:
        shared: What is shared: "a group", "a picture", "a text" (of rows without picture) or "a look-alike picture".
        train: Name of the first split.
        tested: Name of the second.
        train_rows: Rows of the first split that share it, ascending.
        tested_rows: Rows of the second.
    """

    shared: str
    train: str
    tested: str
    train_rows: NDArray[np.intp]
    tested_rows: NDArray[np.intp]

    @property
    def is_certain(self) -> bool:
        """Whether this is certain without looking at the pictures."""
        return self.shared != "a look-alike picture"


def leaks(survey: Survey) -> Iterator[Leak]:
    """Find what the splits share, the retention set aside."""
    contents, rows = survey.content_of_row, survey.rows
    shared_by: dict[str, NDArray[Any]] = {
        "a group": rows["group"],
        "a picture": np.where(contents < 0, 0, contents + 1),
        "a text": np.where(contents < 0, rows["words"], 0),
        "a look-alike picture": _look_alike_ids(survey),
    }
    for train, tested in (("train", "test"), ("train", "validation"), ("validation", "test")):
        here, there = (np.flatnonzero(in_split(survey, split)) for split in (train, tested))
        for name, keys in shared_by.items():
            both = np.intersect1d(keys[here], keys[there])
            both = both[both != 0]
            if len(both):
                yield Leak(name, train, tested, here[np.isin(keys[here], both)], there[np.isin(keys[there], both)])


def _look_alike_ids(survey: Survey) -> NDArray[np.int64]:
    """For each row the number of the group that its picture looks like, counting from 1; 0 for none."""
    group_of_content = np.zeros(2 * len(survey.images) + 1, np.int64)
    contents = survey.content_of_row
    content_of_picture = {int(survey.image_of_row[row]): int(contents[row]) for row in survey.images}
    for number, group in enumerate(survey.look_alikes, start=1):
        for picture in group:
            group_of_content[content_of_picture[picture]] = number
    return np.where(contents < 0, 0, group_of_content[contents])
