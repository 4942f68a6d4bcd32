"""Unusable rows and pictures, and how the others are stored."""

from collections.abc import Iterator

import numpy as np

from vglm.data.doctor.checks.common import (
    NOTE,
    WARNING,
    bad_example,
    example,
    first_few,
    picture_example,
    rows_of,
    rows_of_pictures,
)
from vglm.data.doctor.finding import EXAMPLES, SAY, Example, Finding, Table
from vglm.data.doctor.pictures import BROKEN, MISSING, READABLE
from vglm.data.doctor.survey import Survey

_SMALL_SIDE = 32
_LONG_SHAPE = 4.0


def unreadable_rows(survey: Survey) -> Iterator[Finding]:
    """Rows that the reader could make no sample of."""
    if not survey.bad_rows:
        return
    rows = first_few((name, bad) for name, bad in survey.bad() if not bad.is_missing_image)
    yield Finding(
        WARNING,
        SAY("unreadable_rows.title", rows=rows_of(survey.bad_rows)),
        SAY("unreadable_rows.detail"),
        tuple(bad_example(name, bad) for name, bad in rows),
    )


def missing_pictures(survey: Survey) -> Iterator[Finding]:
    """Rows whose picture is not there."""
    lost = rows_of_pictures(survey, MISSING) if survey.was_decoded else survey.absent.tolist()
    count = survey.missing + len(lost)
    if not count:
        return
    examples = [
        bad_example(name, bad)
        for name, bad in first_few(bad_row for bad_row in survey.bad() if bad_row[1].is_missing_image)
    ]
    examples += [example(survey, row, str(survey.sample(row).image)) for row in lost[:EXAMPLES]]
    total = survey.bad_rows + survey.missing + len(survey)
    detail = SAY("missing_pictures.detail")
    yield Finding(
        WARNING,
        SAY.counted("missing_pictures.title", count, rows=rows_of(total)),
        SAY("missing_pictures.only_others", detail=detail) if survey.missing else detail,
        tuple(examples[:EXAMPLES]),
    )


def broken_pictures(survey: Survey) -> Iterator[Finding]:
    """Pictures that are there, but cannot be decoded."""
    broken = np.flatnonzero(survey.pictures["status"] == BROKEN)
    if not len(broken):
        return
    rows = rows_of_pictures(survey, BROKEN)
    yield Finding(
        WARNING,
        SAY.counted("broken_pictures.title", len(broken), rows=rows_of(len(rows))),
        SAY("broken_pictures.detail"),
        tuple(
            Example(survey.sample(int(survey.images[index])).id, survey.faults[int(index)])
            for index in broken[:EXAMPLES]
        ),
    )


def sizes_and_modes(survey: Survey) -> Iterator[Finding]:
    """How large the pictures are and how they are stored."""
    good = survey.pictures[survey.pictures["status"] == READABLE]
    if not len(good):
        return
    width, height = good["width"].astype(np.int64), good["height"].astype(np.int64)
    area = np.argsort(width * height, kind="stable")
    smallest, middle, largest = (f"{width[area[at]]} x {height[area[at]]}" for at in (0, len(area) // 2, -1))
    stored, counts = np.unique(np.char.add(np.char.add(good["format"], " "), good["mode"]), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    yield Finding(
        NOTE,
        SAY("sizes.range", smallest=smallest, largest=largest, middle=middle)
        if smallest != largest
        else SAY("sizes.same", size=smallest),
        SAY("sizes.detail"),
        table=Table(
            (SAY("sizes.stored_as"), SAY("sizes.pictures")),
            [(str(stored[index]), f"{counts[index]:,}") for index in order[:8]],
        ),
    )
    long_side, short_side = np.maximum(width, height), np.minimum(width, height)
    modes = good["mode"]
    suspicious = {
        "small": short_side < _SMALL_SIDE,
        "long": long_side > _LONG_SHAPE * short_side,
        "plain": good["is_plain"],
        "turned": good["is_turned"],
        "transparent": np.isin(modes, ["RGBA", "LA", "PA", "RGBa", "La"]),
        "deep": np.char.startswith(modes, "I"),
        "cmyk": modes == "CMYK",
    }
    indices = np.flatnonzero(survey.pictures["status"] == READABLE)
    for name, is_so in suspicious.items():
        if total := int(is_so.sum()):
            yield Finding(
                NOTE if name == "transparent" else WARNING,
                SAY.counted(f"picture.{name}", total, side=_SMALL_SIDE, ratio=_LONG_SHAPE),
                SAY(f"picture.{name}.detail"),
                tuple(picture_example(survey, int(index)) for index in indices[is_so][:EXAMPLES]),
            )
