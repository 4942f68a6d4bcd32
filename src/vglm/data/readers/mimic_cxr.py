"""Read MIMIC-CXR-JPG by its split file: radiographs, their reports and what the metadata file says of them.

    mimic-cxr-2.0.0-split.csv[.gz]     dicom_id,study_id,subject_id,split
                                       02aa804e-bde0afdd-112c0b34-7bc16630-4e384014,50414267,10000032,train
    mimic-cxr-2.0.0-metadata.csv[.gz]  dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,...
                                       02aa804e-...,10000032,50414267,CHEST (PA AND LAT),PA,...
    files/p10/p10000032/s50414267/02aa804e-....jpg     the picture (or .png, .dcm)
    files/p10/p10000032/s50414267.txt                  the report, which comes with MIMIC-CXR (mimic-cxr-reports.zip)

The path is the data set's folder or its split file. `train`, `validate` and `test` go into `meta["split"]`, the view
into `meta["view"]`; the patient is the group. Rows are lines of the split file, the header being line 1.

A report's sections begin with a heading in capitals and a colon at the start of a line; the usual headings are known in
small letters and misspelt too. CONCLUSION and FINDINGS AND IMPRESSION count as the impression, a heading that names a
view (CHEST, TWO VIEWS) as the findings; of a section that occurs twice the last one is used. A report with neither
findings nor impression has what follows the first paragraph of its last section in their place. What was asked and how
the picture was made (indication, history, technique, comparison) is never part of the answer unless `sections` names
it.

Sources: Johnson et al. 2019, "MIMIC-CXR-JPG, a large publicly available database of labeled chest radiographs",
https://physionet.org/content/mimic-cxr-jpg/2.0.0/; the sections as MIT-LCP/mimic-cxr:txt/section_parser.py tells them
apart, without its list of single reports.
"""

import csv
import difflib
import gzip
import io
import logging
import re
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from vglm.data.problems import BadRow
from vglm.data.readers.encodings import not_utf8
from vglm.data.readers.rows import ImageFolders, RowCheck, SeveralImages, check_choice, split_name
from vglm.data.readers.xrayglm import ENGLISH_QUESTION
from vglm.data.sample import Sample, Turn
from vglm.errors import DataError
from vglm.files import check_regular, lines_of, read_bytes

NAME = "mimic_cxr"
WINDOW = "auto"
SCHEMA = "a folder with mimic-cxr-2.0.0-split.csv, ...-metadata.csv and files/p10/p.../s.../<dicom_id>.jpg"

_COLUMNS = ("dicom_id", "study_id", "subject_id", "split")
_META_COLUMNS = ("dicom_id", "ViewPosition")
_SUFFIXES = (".jpg", ".png", ".dcm", ".jpeg", ".JPG", ".PNG", ".DCM")
_HEADING = re.compile(
    r"^[ \t]*(?P<title>[A-Z][A-Z /&,()-]*|[A-Za-z]{4,}(?: [A-Za-z/]+){0,3})[ \t]*:(?=\s|$)", re.MULTILINE
)
_PARAGRAPH = re.compile(r"\n[ \t]*\n")
_LAST_PARAGRAPH = "last paragraph"
_MAIN = ("impression", "findings", "history", "comparison", "addendum")
_KNOWN = {
    **dict.fromkeys(("impression", "conclusion", "findings and impression", "findings/impression"), "impression"),
    **dict.fromkeys(("findings", "finding", "chest, two views", "reference findings"), "findings"),
    **dict.fromkeys(("comparison", "comparisons", "reference exam"), "comparison"),
    **dict.fromkeys(("indication", "reason for examination", "reason for exam", "clinical indication"), "indication"),
    **dict.fromkeys(("history", "clinical history", "clinical information", "patient history", "pfi"), "history"),
    **dict.fromkeys(("examination", "exam", "type of examination", "study"), "examination"),
    **dict.fromkeys(("recommendation", "recommendations", "recommendation(s)"), "recommendations"),
    **dict.fromkeys(("wet read", "wetread"), "wet read"),
    **{name: name for name in ("technique", "notification", "addendum", "date", "comment")},
}
_VIEW = re.compile(
    r"chest|portable|ribs|bone window|(?:pa|ap|one|two|frontal|lateral) views?|frontal (?:and|upright|semi-upright)"
    r"|(?:pa|ap) and lat|lateral and (?:pa|ap)"
)
logger = logging.getLogger(__name__)

_SAFE = re.compile(r"[\w-]+")
_LONGEST_REPORT = 1 << 24
_LARGEST_TABLE = 1 << 28
_DAMAGE = (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error)


def recognises(path: Path) -> bool:
    """Whether a CSV file has the columns of the split file, or a folder has such a file of the usual name."""
    try:
        file = path if path.is_file() else _find(path, "split")
        if file is None or not file.name.lower().endswith((".csv", ".csv.gz")):
            return False
        return set(_COLUMNS) <= set(next(csv.reader(_lines(file)), []))
    except (*_DAMAGE, DataError):
        return False


def read(
    path: Path,
    *,
    image_dir: Path | None = None,
    name: str,
    reports_dir: str | None = None,
    sections: Sequence[str] = ("FINDINGS", "IMPRESSION"),
    skip_reports: bool = False,
    views: Sequence[str] | None = None,
    several_images: SeveralImages = "each",
    question: str | None = None,
) -> Iterator[Sample | BadRow]:
    """Read the split file line by line.

    Args:
        path: The folder, or the split file in it.
        image_dir: Folder that holds `p10`, `p11`, ...; `files` beside the split file by default, or its own folder.
        name: What sample ids begin with: `<name>#<line>`.
        reports_dir: Folder that holds the reports' `p10`, `p11`, ..., if they do not lie among the pictures.
        sections: The parts of the report that make up the answer, under their usual names. A report with none of them
            is a bad row.
        skip_reports: Leave out the rows whose report has none of the sections, with one warning that counts them.
        views: Which views to take, such as `[PA, AP]`, by the metadata file; all if None. Others are not rows.
        several_images: What to make of a study with several pictures of the views taken: `each` makes a sample of every
            one, `first` of the first in the file, `refuse` bad rows of the others.
        question: The question; XrayGLM's question in English by default.

    Yields:
        A sample for each good row, and a `BadRow` for another.

    Raises:
        DataError: There is no split file, it lacks a column, or `views` are requested and there is no metadata file.
    """
    check_choice("several_images", several_images, SeveralImages)
    split_file = path if path.is_file() else _find(path, "split")
    if split_file is None:
        raise DataError(
            f"{path}: expected mimic-cxr-2.0.0-split.csv or .csv.gz, found none. Pass the folder that has it."
        )
    folder = split_file.parent
    view_of = _views(folder, is_needed=views is not None)
    folders = ImageFolders(folder, image_dir or (folder / "files" if (folder / "files").is_dir() else folder))
    reports = folders.root if reports_dir is None else Path(reports_dir)
    if not reports.is_dir():
        raise DataError(f"{path}: reports_dir {reports} is not a folder. Pass the folder that holds p10, p11, ...")
    load = lru_cache(maxsize=64)(lambda file: _report(file, tuple(sections)))
    seen: set[str] = set()
    skipped = 0
    for line, row in _rows(split_file):
        check = RowCheck(line)
        if None in row or None in row.values():
            check.fail(f"{len(_COLUMNS)} columns as in line 1", "another number", "correct the line")
            bad = check.bad_row()
            assert bad is not None
            yield bad
            continue
        dicom, study, subject = (_identifier(check, row, key) for key in _COLUMNS[:3])
        split = split_name(row["split"])
        if split is None:
            check.fail("'split' to be train, validate or test", repr(row["split"]), "correct it")
        if bad := check.bad_row():
            yield bad
            continue
        view = view_of.get(dicom, "")
        if views is not None and view not in views:
            continue
        if study in seen and several_images == "first":
            continue
        if study in seen and several_images == "refuse":
            check.fail("one picture a study", f"another one of s{study}", "set dataset.options.several_images=each")
        seen.add(study)
        study_path = f"p{subject[:2]}/p{subject}/s{study}"
        image = check.image(folders, *(f"{study_path}/{dicom}{suffix}" for suffix in _SUFFIXES))
        try:
            report = load(reports / f"{study_path}.txt")
        except _NoSection as error:
            if skip_reports:
                skipped += 1
                continue
            fix = "set dataset.options.sections, or dataset.options.skip_reports=true to leave such rows out"
            check.fail(f"a section {' or '.join(sections)}", str(error), fix)
            report = ""
        except DataError as error:
            check.fail("a report", str(error), "unpack mimic-cxr-reports.zip there, or set dataset.options.reports_dir")
            report = ""
        if bad := check.bad_row():
            yield bad
            continue
        yield Sample(
            id=f"{name}#{line}",
            group=f"p{subject}",
            image=image,
            turns=(Turn(question or ENGLISH_QUESTION, report),),
            language="en",
            meta={"split": split, "study": f"s{study}", "dicom": dicom, **({"view": view} if view else {})},
        )
    if skipped:
        logger.warning("%s: left out %d rows, whose report has no %s", path, skipped, " or ".join(sections))


class _NoSection(DataError):
    """A report has none of the wanted sections."""


def _rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines of the split file by the names of their columns."""
    try:
        reader = csv.DictReader(_lines(file))
        absent = [column for column in _COLUMNS if column not in (reader.fieldnames or [])]
        if absent:
            actual = ", ".join(reader.fieldnames or []) or "an empty file"
            raise DataError(f"{file}: expected the columns {', '.join(_COLUMNS)}, found {actual}.")
        for row in reader:
            yield reader.line_num, row
    except _DAMAGE as error:
        raise DataError(f"{file} cannot be read: {error}. Restore the file.") from error


def _views(folder: Path, *, is_needed: bool) -> dict[str, str]:
    """View position of each picture; empty if there is no metadata file and none is needed."""
    file = _find(folder, "metadata")
    if file is None:
        if is_needed:
            raise DataError(f"{folder}: dataset.options.views needs mimic-cxr-2.0.0-metadata.csv, found none. Add it.")
        return {}
    try:
        reader = csv.DictReader(_lines(file))
        if not set(_META_COLUMNS) <= set(reader.fieldnames or []):
            raise DataError(f"{file}: expected the columns {', '.join(_META_COLUMNS)}, found others.")
        views: dict[str, str] = {}
        for row in reader:
            view = row["ViewPosition"] or ""
            if views.setdefault(row["dicom_id"], view) != view:
                raise DataError(
                    f"{file}: expected one row with dicom_id {row['dicom_id']}, found the views"
                    f" {views[row['dicom_id']]} and {view}. Take one of them out."
                )
        return views
    except _DAMAGE as error:
        raise DataError(f"{file} cannot be read: {error}. Restore the file.") from error


def _identifier(check: RowCheck, row: dict[str, str], key: str) -> str:
    """A cell that becomes part of a path."""
    value = row[key].strip()
    if not _SAFE.fullmatch(value):
        check.fail(f"{key!r} of letters, digits and dashes", repr(value), "correct it")
    return value


def _report(file: Path, sections: tuple[str, ...]) -> str:
    """The wanted sections of a report in one line.

    Raises:
        DataError: The file is missing.
        _NoSection: It has none of the sections.
    """
    try:
        text = read_bytes(file, advice="Expected a report.", limit=_LONGEST_REPORT).decode()
    except UnicodeDecodeError as error:
        raise not_utf8(file, error) from error
    report = split_report(text)
    parts = [report[name] for section in sections if (name := _section(section)) in report]
    if not parts and not {"findings", "impression"} & report.keys():
        parts = [report[_LAST_PARAGRAPH]] if _LAST_PARAGRAPH in report else []
    if not parts:
        titles = ", ".join(report) or "no text"
        raise _NoSection(f"{file.name} with {titles}")
    return " ".join(parts)


def split_report(text: str) -> dict[str, str]:
    """Divide a report into its sections.

    Args:
        text: The report as it is published.

    Returns:
        Each section that has text, on one line, under its usual name in small letters: `findings`, `impression`,
        `indication`, ...; what stands above the first heading is the `preamble`. Of a report without findings and
        impression the paragraphs after the first of its last section are the `last paragraph`.
    """
    headings: list[re.Match[str]] = []
    for match in _HEADING.finditer(text):
        is_known = match["title"].lower() in _KNOWN
        is_first_line = (
            bool(headings) and text[headings[-1].end() : match.start()] == "\n"
        )  # "FINDINGS:\n LUNGS: clear."
        if is_known or (match["title"].isupper() and not is_first_line):
            headings.append(match)
    starts = [
        (0, 0, "preamble"),
        *((heading.start(), heading.end(), _section(heading["title"])) for heading in headings),
    ]
    ends = [start for start, _, _ in starts[1:]] + [len(text)]
    bodies = [(name, text[start:end]) for (_, start, name), end in zip(starts, ends, strict=True)]
    report = {name: words for name, body in bodies if (words := " ".join(body.split()))}
    if not {"findings", "impression"} & report.keys():
        name, body = bodies[-1]
        first, *others = _PARAGRAPH.split(body)
        if last := " ".join(" ".join(others).split()):
            report |= {name: " ".join(first.split()), _LAST_PARAGRAPH: last}
    return {name: words for name, words in report.items() if words}


@lru_cache(maxsize=4096)
def _section(title: str) -> str:
    """A heading's usual name; its own in small letters if it has none."""
    title = " ".join(title.lower().replace(" / ", "/").replace("/ ", "/").split())
    if title in _KNOWN:
        return _KNOWN[title]
    for name in _MAIN:
        if name in title:
            return name
    if _VIEW.search(title):
        return "findings"
    close = difflib.get_close_matches(title, ("impression", "findings", "comparison", "indication"), n=1, cutoff=0.85)
    return close[0] if close else title


def _find(folder: Path, part: str) -> Path | None:
    """The folder's split or metadata file, plain or packed, of any version."""
    files = [path for ending in ("csv", "csv.gz") for path in folder.glob(f"mimic-cxr-*-{part}.{ending}")]
    return min(files, default=None)


def _lines(file: Path) -> Iterator[str]:
    """A table's lines, plain or packed; few bytes can unpack to any number."""
    check_regular(file)
    length = 0
    unpacked = gzip.open if file.name.lower().endswith(".gz") else open
    with unpacked(file, "rb") as source, io.TextIOWrapper(source, encoding="utf-8-sig", newline="") as text:
        for line in lines_of(text, file):
            length += len(line)
            if length > _LARGEST_TABLE:
                raise DataError(f"{file} has more than {_LARGEST_TABLE:,} characters. Restore the file.")
            yield line
