"""Checks of radiographs (DICOM headers, views, findings) and of light curves (stars per type, points, gaps)."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from vglm.data.astronomy.series import SERIES, open_series
from vglm.data.dicom import DicomFacts, describe_dicom, is_dicom
from vglm.data.doctor.checks.common import NOTE, WARNING, counts_of
from vglm.data.doctor.finding import EXAMPLES, SAY, Example, Finding, Table
from vglm.data.doctor.survey import Survey
from vglm.data.readers import lightcurves
from vglm.errors import ConfigError, DataError
from vglm.text.finding_words import NO_FINDING
from vglm.text.labeller import label_report
from vglm.text.messages import Text

LOOKED_AT = 200
"""Maximum number of headers, or light curves, that are read, spread evenly over the data set."""
REPORTS = 2000
"""Maximum number of reports that are labelled, spread evenly over the data set."""

_PICTURE_NAME = re.compile(r"[^\s'\"<>|]+\.(?:png|jpe?g|bmp|tiff?|webp)", re.IGNORECASE)
_CERTAINTIES = ("positive", "uncertain", "negative")
_VIEWS = ("view", "view_position", "ViewPosition", "viewposition", "views", "projection")


def dicom_headers(survey: Survey) -> Iterator[Finding]:
    """The facts of DICOM headers: bits, window, views, and the patient."""
    headers = list(_headers(survey))
    if not headers:
        return
    all_facts = [facts for _, facts in headers]
    files = SAY.counted("n.dicom_files", len(headers))
    bits = Counter(facts.bits for facts in all_facts).most_common()
    yield Finding(
        NOTE,
        SAY(
            "dicom.title",
            files=files,
            bits=[SAY("dicom.bits", n=count, bits=of) for of, count in bits],
            kinds=counts_of(facts.kind for facts in all_facts),
        ),
        SAY("dicom.detail", n=sum(facts.has_window for facts in all_facts)),
    )
    if views := [facts.view for facts in all_facts if facts.view]:
        yield Finding(NOTE, SAY("dicom.views", views=counts_of(views)))
    groups = defaultdict(set)
    for sample, facts in headers:
        groups[facts.patient].add(sample.group)
    divided = [patient for patient, names in groups.items() if patient and len(names) > 1]
    if divided and len(groups.keys() - {""}) > 1:  # else all files may carry one and the same placeholder
        yield Finding(
            WARNING,
            SAY.counted("dicom.divided", len(divided)),
            SAY("dicom.divided.detail"),
            tuple(
                Example(sample.id, SAY("dicom.divided.example"), sample)
                for sample, facts in headers
                if facts.patient in divided
            )[:EXAMPLES],
        )
    named = [(sample.id, facts.personal) for sample, facts in headers if facts.personal]
    if named:
        tags = sorted({tag for _, personal in named for tag in personal})
        yield Finding(
            WARNING,
            SAY.counted("dicom.personal", len(named), files=files, tags=tags),
            SAY("dicom.personal.detail"),
            tuple(Example(where, ", ".join(personal)) for where, personal in named[:EXAMPLES]),
        )


def dicom_beside(survey: Survey) -> Iterator[Finding]:
    """Pictures that are missing under the name in the row, but present as DICOM."""
    lost = [(survey.sample(int(row)).id, str(survey.sample(int(row)).image)) for row in survey.absent[:LOOKED_AT]]
    bad = (bad_row for bad_row in survey.bad() if bad_row[1].is_missing_image)
    lost += [(f"{name}#{row.row}", row.fault) for name, row in islice(bad, LOOKED_AT)]
    source = Path(survey.source.path)
    folders = [source if source.is_dir() else source.parent]
    if len(survey.images) and isinstance(image := survey.sample_of_picture(0).image, Path):
        folders.append(image.parent)
    beside = [(where, path) for where, text in lost if (path := _dicom_named(text, folders)) is not None]
    if beside:
        yield Finding(
            WARNING,
            SAY.counted("dicom.beside", len(beside), missing=SAY.counted("n.missing", len(lost))),
            SAY("dicom.beside.detail"),
            tuple(Example(where, str(path)) for where, path in beside[:EXAMPLES]),
        )


def views(survey: Survey) -> Iterator[Finding]:
    """Views of radiographs, where the rows name them."""
    counts = Counter(str(view) for sample in survey.samples() if (view := _named(sample.meta, _VIEWS)))
    if counts:
        yield Finding(NOTE, SAY("views.title", views=counts_of(counts.elements())))


def reported_findings(survey: Survey) -> Iterator[Finding]:
    """What reports on chests find, by the rules of `label_report`; nothing of other data."""
    some = [label_report(survey.sample(row).answer) for row in _spread(len(survey))]
    if 2 * sum(map(bool, some)) <= len(some):
        return
    reports = [label_report(survey.sample(row).answer) for row in _spread(len(survey), REPORTS)]
    normal, unread = sum(NO_FINDING in labels for labels in reports), sum(not labels for labels in reports)
    counts = Counter[tuple[str, str]](label for labels in reports for label in labels.items())
    names = {name for name, _ in counts} - {NO_FINDING}
    rows = sorted(([counts[name, certainty] for certainty in _CERTAINTIES], name) for name in names)
    title = SAY.counted("reports.title", len(reports), normal=normal, abnormal=len(reports) - normal - unread)
    columns = tuple(SAY(f"reports.{column}") for column in ("finding", *_CERTAINTIES))
    yield Finding(
        NOTE,
        SAY("reports.unread", title=title, n=unread) if unread else title,
        SAY("reports.detail", share=normal / len(reports)),
        table=Table(columns, [(name, *map("{:,}".format, row)) for row, name in reversed(rows)]),
    )


def stars(survey: Survey) -> Iterator[Finding]:
    """Stars per type, and what their light curves are like."""
    if survey.source.format != lightcurves.NAME or not len(survey):
        return
    types = {sample.group: str(sample.meta.get("type", "")) for sample in survey.samples()}
    counts = Counter(types.values())
    rare = [name for name, count in counts.items() if count < 2]
    yield Finding(
        WARNING if rare else NOTE,
        SAY.counted("stars.title", len(types), types=SAY.counted("n.types", len(counts))),
        SAY("stars.rare", types=rare) if rare else None,
        table=Table(
            (SAY("stars.type"), SAY("stars.stars")), [(name, f"{count:,}") for name, count in counts.most_common()]
        ),
    )
    if not (curves := list(_curves(survey))):
        return
    points, baseline, gap = zip(*curves, strict=True)
    rows = [
        (
            SAY(f"curves.{name}"),
            f"{min(values):,.{digits}f}",
            f"{median(values):,.{digits}f}",
            f"{max(values):,.{digits}f}",
        )
        for name, values, digits in (("points", points, 0), ("baseline", baseline, 1), ("gap", gap, 1))
    ]
    yield Finding(
        NOTE,
        SAY.counted("curves.title", len(curves)),
        table=Table((Text.of(""), SAY("curves.least"), SAY("curves.median"), SAY("curves.most")), rows),
    )


def _headers(survey: Survey) -> Iterator[tuple[Any, DicomFacts]]:
    for picture in _spread(len(survey.images)):
        sample = survey.sample_of_picture(picture)
        if isinstance(sample.image, Path) and is_dicom(sample.image):
            with suppress(DataError):  # reported by the check of broken pictures
                yield sample, describe_dicom(sample.image)


def _curves(survey: Survey) -> Iterator[tuple[int, float, float]]:
    """Number of points, days from first to last and longest gap of light curves, one for each picture."""
    for picture in _spread(len(survey.images)):
        sample = survey.sample_of_picture(picture)
        with suppress(DataError, ConfigError):  # reported by the check of unreadable rows
            time = open_series(sample.meta[SERIES], sample.group).time
            yield len(time), float(time[-1] - time[0]), float(np.diff(time).max())


def _spread(count: int, most: int = LOOKED_AT) -> Iterable[int]:
    return range(count) if count <= most else (index * count // most for index in range(most))


def _dicom_named(text: str, folders: Sequence[Path]) -> Path | None:
    """The DICOM file of a picture that a text names, there or in one of the folders."""
    names = [Path(name) for name in _PICTURE_NAME.findall(text)]
    paths = [path for name in names for path in (name, *(folder / name for folder in folders))]
    paths += [folder / name.name for name in names for folder in folders]
    candidates = (path.with_suffix(end) for path in paths for end in (".dcm", ".DCM", ".dicom"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _named(meta: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((meta[name] for name in names if meta.get(name)), None)
