"""What must stay together, and what the splits share."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vglm.data.doctor.checks.common import NOTE, WARNING, about, examples, in_split, listed, rows_of
from vglm.data.doctor.finding import SAY, Finding
from vglm.data.doctor.survey import Survey, hash_text
from vglm.data.grouping import INFERRED_SHARE, VIEW_OF_STUDY
from vglm.data.ids import group_name
from vglm.data.readers import lightcurves
from vglm.text.messages import Text

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
            SAY(
                "groups.by",
                source=_source(survey),
                groups=SAY.counted("n.groups", len(sizes)),
                rows=rows_of(len(table)),
                most=rows_of(sizes.max()),
            ),
            SAY("groups.by_detail"),
        )
        if ids is not None:
            yield from about(survey, ids.without, "groups.without", source=ids.source)
        return
    studies = infer_groups(survey)
    if studies is None:
        yield Finding(
            NOTE,
            SAY("groups.none", groups=SAY.counted("n.groups", len(sizes)), rows=rows_of(len(table))),
            SAY("groups.none_detail"),
        )
        return
    splits_of = pd.Series(survey.rows["split"][survey.images]).groupby(studies)
    divided = int((splits_of.nunique() > 1).sum())
    yield Finding(
        WARNING if divided else NOTE,
        SAY(
            "groups.named",
            studies=SAY.counted("n.studies", splits_of.ngroups),
            pictures=SAY.counted("n.pictures", int(splits_of.size().max())),
        ),
        SAY.counted("groups.divided", divided) if divided else SAY("groups.together"),
    )


def _source(survey: Survey) -> Text:
    """Where the groups stand: the ids that were found, a field of that content, or the beginning of pictures' names."""
    if survey.ids is not None:
        return Text.of(survey.ids.source)
    if survey.source.format == lightcurves.NAME:
        return SAY("groups.by_star")
    samples = [survey.sample(int(row)) for row in np.flatnonzero(~survey.rows["has_own_group"])[:_LOOKED_AT]]
    fields = [key for key in samples[0].meta if all(group_name(row.meta.get(key)) == row.group for row in samples)]
    if fields:
        return Text.of(fields[0])
    images = [(row.image, row.group) for row in samples]
    if all(isinstance(image, Path) and image.name.startswith(f"{group}_") for image, group in images):
        return SAY("groups.by_names")
    return SAY("groups.by_format", format=survey.source.format)


def infer_groups(survey: Survey) -> NDArray[np.uint64] | None:
    """Infer groups from the pictures' names.

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
            SAY("splits.none"),
            SAY("splits.none_detail"),
        )
        return
    sizes = survey.table["split"].value_counts()
    names = (
        SAY("splits.size", name=name or SAY("splits.no_name"), n=int(sizes[code]))
        for code, name in enumerate(survey.splits)
    )
    yield Finding(NOTE, SAY("splits.title", splits=listed(names)))
    for leak in leaks(survey):
        yield Finding(
            WARNING,
            SAY.counted(
                "splits.leak",
                len(leak.tested_rows),
                tested=leak.tested,
                shared=SAY(f"splits.shared.{leak.shared}"),
                rows=rows_of(len(leak.train_rows)),
                train=leak.train,
            ),
            SAY("splits.certain" if leak.is_certain else "splits.uncertain", train=leak.train),
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
