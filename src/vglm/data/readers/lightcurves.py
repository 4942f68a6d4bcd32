"""Read variable stars: a table of labels, and for each star a CSV or FITS light curve, which becomes a picture.

    star,file,type,period,amplitude,split
    KIC 3733346,kplr003733346-2009166043257_llc.fits,RRAB,0.682,0.91,train
    TIC 31381302,tess/tic31381302.csv,eclipsing,2.451,,test

`file` and `type` are needed. A type is a name of `vglm.data.astronomy.questions.TYPES` in Chinese or English, or a
catalogue's code for one. `star` keeps a star's files on one side of a split; without it the FITS header's object, or
the file's name, identifies the star. `period` (days) and `amplitude` (magnitudes) may be empty: then they are not asked
about. `split` is train, validation or test. Other columns go into `Sample.meta`.

The light curves themselves are described in `vglm.data.astronomy.files`, the pictures in `vglm.data.astronomy.plots`.
Each is drawn once and kept as PNG in `picture_dir`, under a name made of the file's content and the settings; the data
are not changed.

Source: the table is ours; types and codes follow the General Catalogue of Variable Stars (Samus et al. 2017, ARep 61,
80).
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vglm.caching import cache_folder
from vglm.data.astronomy.files import CSV_SUFFIXES, FITS_SUFFIXES, FluxColumn, is_fits, read_light_curve, read_star_name
from vglm.data.astronomy.light_curve import measure
from vglm.data.astronomy.plots import DRAWING, View, draw
from vglm.data.astronomy.questions import QUESTIONS, Question, ask, find_type, type_fault
from vglm.data.astronomy.series import SERIES, keep_series
from vglm.data.problems import BadRow
from vglm.data.readers.csv_table import iterate_csv
from vglm.data.readers.rows import ImageFolders, RowCheck, check_choice, quote, split_name
from vglm.data.sample import Sample
from vglm.errors import ConfigError, DataError
from vglm.files import read_bytes, whole_file
from vglm.text.prompt import Language

NAME = "lightcurves"
SCHEMA = "a CSV table with columns file (CSV or FITS light curves) and type, or a folder with such labels.csv"

TABLE = "labels.csv"
"""The table that is looked for in a folder."""


_KNOWN_COLUMNS = ("star", "file", "type", "period", "amplitude", "split")
_NUMBERS = {"period": "days", "amplitude": "magnitudes"}


def recognises(path: Path) -> bool:
    """Whether it is a table with `file` and `type` whose first file is a light curve's, or a folder with one."""
    table = path / TABLE if path.is_dir() else path
    if table.suffix.lower() not in (".csv", ".tsv"):
        return False
    try:
        rows = iterate_csv(table)
        names, (_, first) = next(rows)[1], next(rows)
    except (DataError, StopIteration):
        return False
    if isinstance(first, BadRow):
        return False
    cells = dict(zip((name.lower() for name in names), first.values(), strict=True))
    return "type" in cells and cells.get("file", "").lower().endswith((*FITS_SUFFIXES, *CSV_SUFFIXES))


def read(
    path: Path,
    *,
    image_dir: Path | None = None,
    name: str,
    questions: Sequence[Question] = QUESTIONS,
    languages: Sequence[Language] = ("zh", "en"),
    view: View = "star",
    size: int = 64,
    flux: FluxColumn = "auto",
    magnitudes: bool | None = None,
    other_types: bool = False,
    picture_dir: str | Path | None = None,
) -> Iterator[Sample | BadRow]:
    """Read a table and its light curves, row by row.

    Args:
        path: The table, or a folder with `labels.csv`.
        image_dir: Where the light curves lie; beside the table if None.
        name: What sample ids begin with, `<name>#<row>.<question>`; rows are lines of the table, its head being 1.
        questions: What to ask about every star: `type`, `period`, `amplitude`.
        languages: In which languages to ask.
        view: What the picture shows: `star`, `raw`, `folded` or `periodogram`.
        size: Width and height of the pictures in pixels; give what the model sees.
        flux: Which flux of a mission's FITS file to take: `pdcsap`, `sap`, or the best there is.
        magnitudes: Whether the brightness in files without names of columns is in magnitudes; those that look like it
            are refused if None.
        other_types: Whether types outside `TYPES` are taken as they are written, rather than refused.
        picture_dir: Where to keep the pictures; if None `lightcurves` in `$VGLM_CACHE`, or in
            `vglm` in the user's cache folder.

    Yields:
        For each row a sample per question and language, all of one group, or a `BadRow`.

    Raises:
        ConfigError: An option has an impossible value, or astropy is not installed.
        DataError: The table cannot be read, or lacks a column.
    """
    for option, chosen, choices in (("questions", questions, Question), ("languages", languages, Language)):
        if isinstance(chosen, str) or not chosen:
            raise ConfigError(f"dataset.options.{option} must be a list with at least one entry, got {chosen!r}.")
        for entry in chosen:
            check_choice(option, entry, choices)
    check_choice("view", view, View)
    check_choice("flux", flux, FluxColumn)
    table = path / TABLE if path.is_dir() else path
    pictures = Path(picture_dir) if picture_dir is not None else cache_folder("lightcurves")
    folders = ImageFolders(table.parent, image_dir)
    for number, row in rows_of(table):
        if isinstance(row, BadRow):
            yield row
            continue
        check = RowCheck(number)
        kind = _type(check, row, other_types)
        values = {number: _positive(check, row, number) for number in _NUMBERS}
        if not any(question == "type" or row.get(question) for question in questions):
            check.fail(f"a value to ask about in {' or '.join(questions)}", "empty cells", "fill one in")
        split = _split(check, row)
        file = check.image(folders, row["file"]) if check.text(row, "file") else None
        picture, star, trouble = None, "", ""
        if file is not None:
            try:
                star = row.get("star") or read_star_name(file)
                picture = _picture(file, star, pictures, view=view, size=size, flux=flux, magnitudes=magnitudes)
            except DataError as error:
                trouble = str(error)
        bad = check.bad_row()
        if trouble:
            bad = BadRow(number, trouble if bad is None else f"{bad.fault}; also {trouble}")
        if bad is not None:
            yield bad
            continue
        facts: dict[str, str | float] = {
            "type": kind,
            **{key: value for key, value in values.items() if value is not None},
        }
        meta: dict[str, Any] = {key: value for key, value in row.items() if key not in _KNOWN_COLUMNS and value} | facts
        if split is not None:
            meta["split"] = split
        if file is not None:
            meta[SERIES] = keep_series(file, flux=flux, magnitudes=magnitudes)
        turn = 0
        for question in questions:
            for language in languages if question in facts else ():
                turn += 1
                yield Sample(
                    id=f"{name}#{number}.{turn}",
                    group=star,
                    image=picture,
                    turns=(ask(question, facts[question], language, star),),
                    language=language,
                    meta={**meta, "kind": question, "language": language},
                )


def rows_of(table: Path) -> Iterator[tuple[int, Any]]:
    """The rows of the table by column, in lower case, with the number of their line."""
    rows = iterate_csv(table)
    columns = [column.lower() for column in next(rows)[1]]
    if absent := [name for name in ("file", "type") if name not in columns]:
        raise DataError(
            f"{table}: expected the columns file and type, found {', '.join(columns)}. Add {' and '.join(absent)}."
        )
    for number, row in rows:
        if isinstance(row, BadRow):
            yield number, row
        else:
            yield number, {column: cell.strip() for column, cell in zip(columns, row.values(), strict=True)}


def _type(check: RowCheck, row: dict[str, str], other_types: bool) -> str:
    if not check.text(row, "type"):
        return ""
    kind = find_type(row["type"])
    if kind is None and not other_types:
        check.fail(*type_fault(row["type"]))
    return kind or row["type"]


def _positive(check: RowCheck, row: dict[str, str], column: str) -> float | None:
    """A number that may be missing."""
    text = row.get(column, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        check.fail(f"{column} in {_NUMBERS[column]}, above 0", quote(text), "correct it, or leave it empty")
        return None
    return value


def _split(check: RowCheck, row: dict[str, str]) -> str | None:
    text = row.get("split", "")
    split = split_name(text)
    if text and split is None:
        check.fail("split to be train, validation or test", quote(text), "correct it, or leave it empty")
    return split


def _picture(
    file: Path, star: str, folder: Path, *, view: View, size: int, flux: FluxColumn, magnitudes: bool | None
) -> Path:
    """The picture of a light curve, drawn unless it is there already."""
    settings = f"{DRAWING} {'fits' if is_fits(file) else 'csv'} {view} {size} {flux} {magnitudes}\n"
    digest = hashlib.sha256(settings.encode() + read_bytes(file, advice="Check its rights.")).hexdigest()
    picture = folder / f"{digest[:40]}.png"
    if not picture.is_file():
        curve = read_light_curve(file, star=star, flux=flux, magnitudes=magnitudes)
        drawn = draw(curve, measure(curve), view=view, size=size)
        with whole_file(picture, error=ConfigError) as partial:
            drawn.save(partial, format="PNG")
    return picture
