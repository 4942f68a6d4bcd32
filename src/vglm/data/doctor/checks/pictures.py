"""Rows and pictures that cannot be used, and how the others are stored."""

from collections.abc import Iterator

import numpy as np

from vglm.data.doctor.checks.common import (
    NOTE,
    WARNING,
    bad_example,
    count_of,
    example,
    first_few,
    picture_example,
    rows_of,
    rows_of_pictures,
    verb,
)
from vglm.data.doctor.finding import EXAMPLES, Example, Finding, Table
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
        f"{rows_of(survey.bad_rows)} cannot be read",
        "Training refuses a file with such rows. Correct them; --fix leaves them out.",
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
    yield Finding(
        WARNING,
        f"{count:,} of {rows_of(total)} {verb('name', count)} a picture that is not there",
        "Training refuses them. Add the pictures, say where they lie (--image-dir, dataset.image_dir), or leave these"
        " rows out with dataset.skip_missing=true; --fix does so too."
        + (" The text checks below know only the other rows." if survey.missing else ""),
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
        f"{count_of(len(broken), 'picture')} of {rows_of(len(rows))} cannot be decoded",
        "Training would stop at them. Replace the files; --fix leaves the rows out.",
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
        f"Pictures have {smallest} to {largest} pixels, {middle} in the middle"
        if smallest != largest
        else f"All pictures have {smallest} pixels",
        "The model sees all of them as RGB squares of one size.",
        table=Table(("stored as", "pictures"), [(str(stored[index]), f"{counts[index]:,}") for index in order[:8]]),
    )
    long_side, short_side = np.maximum(width, height), np.minimum(width, height)
    modes = good["mode"]
    suspicious = {
        f"less than {_SMALL_SIDE} pixels wide or high": (
            short_side < _SMALL_SIDE,
            "Little is left to see. Look for thumbnails or icons that came in by mistake.",
        ),
        f"more than {_LONG_SHAPE:.0f} times as long as wide": (
            long_side > _LONG_SHAPE * short_side,
            "The model squeezes every picture to a square. Cut or pad them first.",
        ),
        "of one colour": (good["is_plain"], "There is nothing to see in them. Replace them, or leave the rows out."),
        "turned by an EXIF tag": (
            good["is_turned"],
            "The tag is ignored, as in the original, so they lie on their side. Store them upright; --fix does.",
        ),
        "partly transparent": (
            np.isin(modes, ["RGBA", "LA", "PA", "RGBa", "La"]),
            "",
        ),
        "grey of more than 8 bits": (
            np.char.startswith(modes, "I"),
            "They are scaled so that 65535 is white. If their values fill only a part of the range, window them first.",
        ),
        "stored in CMYK": (
            modes == "CMYK",
            "The conversion to RGB is a rough one. Convert them with their colour profile.",
        ),
    }
    indices = np.flatnonzero(survey.pictures["status"] == READABLE)
    for what, (is_so, advice) in suspicious.items():
        if not (total := int(is_so.sum())):
            continue
        is_fact = not advice
        yield Finding(
            NOTE if is_fact else WARNING,
            f"{count_of(total, 'picture')} {'is' if total == 1 else 'are'} {what}",
            advice or "Transparency is dropped, not blended: what lies under it becomes visible.",
            tuple(picture_example(survey, int(index)) for index in indices[is_so][:EXAMPLES]),
        )
