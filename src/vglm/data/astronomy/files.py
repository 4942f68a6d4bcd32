"""Read light curves from files: CSV, and the FITS files of Kepler, K2 and TESS.

A CSV file names its columns, `time` in days and `flux`, or `mag` instead, and optionally `error`; other columns are
ignored. Without a line of names the columns are time, flux and error, unless the last comment above them names them.
Lines that begin with `#` are comments. Unnamed values in the range of magnitudes (around 3 to 30) raise an error that
asks for the name, instead of a guess.

    # KIC 3733346, quarter 1
    time,flux,error
    131.5122,21305.4,8.1
    131.5326,21291.0,8.1

A FITS file as the missions publish it has a table extension (`LIGHTCURVE`) with `TIME` in days, `PDCSAP_FLUX`
(corrected by the pipeline; `SAP_FLUX` is the plain sum over pixels) and `SAP_QUALITY` (Kepler, K2) or `QUALITY` (TESS),
whose bits say what was wrong with a measurement. Files of the K2 and TESS community are read too: K2SFF (`T`, `FCOR`),
EVEREST and others with `FLUX`, eleanor (`CORR_FLUX`), QLP (`KSPSAP_FLUX`, `DET_FLUX`), TASOC (`FLUX_CORR`). A column
without any measurement is skipped for the next one in this order.

Sources: Thompson et al. 2016, "Kepler Archive Manual" (KDMC-10008-006); Tenenbaum & Jenkins 2018, "TESS Science Data
Products Description Document"; the quality bits that are dropped are those of lightkurve's "default"
(lightkurve/lightkurve: `src/lightkurve/utils.py`).
"""

import csv
import gzip
import io
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vglm.data.astronomy.light_curve import LightCurve, Numbers
from vglm.errors import ConfigError, DataError, brief
from vglm.files import read_bytes, write_text

FluxColumn = Literal["auto", "pdcsap", "sap"]

FITS_SUFFIXES = (".fits", ".fit", ".fits.gz", ".fit.gz")
CSV_SUFFIXES = (".csv", ".tsv", ".txt", ".dat")

KEPLER_BAD_QUALITY = 1130799
TESS_BAD_QUALITY = 175
"""Bits of the quality column for which a measurement is dropped."""

_LARGEST_BYTES = 1 << 28  # ten times the longest light curve of a mission

_TIME = ("time", "t", "bjd", "hjd", "jd", "mjd", "date")
_FLUX = ("flux", "pdcsap_flux", "sap_flux", "f")
_MAGNITUDE = ("mag", "magnitude", "vmag")
_MAGNITUDES = (3.0, 30.0)
"""Range of the median magnitude of measured stars; the median flux is rarely within it, in any unit."""
_ERROR = ("error", "flux_err", "flux_error", "err", "e_flux", "mag_err", "magerr", "e_mag", "sigma")
_UNCERTAIN = re.compile("err|unc|sig|^e_|std|amp|num|flag")
_FITS_TIME = ("TIME", "T", "BJD")
_FITS_FLUX = {
    "auto": (
        *("PDCSAP_FLUX", "KSPSAP_FLUX", "DET_FLUX", "FLUX_CORR", "CORR_FLUX", "FCOR"),  # corrected, by whom ever
        *("FLUX", "SAP_FLUX", "FLUX_RAW", "RAW_FLUX", "FRAW"),
    ),
    "pdcsap": ("PDCSAP_FLUX",),
    "sap": ("SAP_FLUX",),
}


def is_fits(path: Path) -> bool:
    """Whether a file's name is that of a FITS file."""
    return path.name.lower().endswith(FITS_SUFFIXES)


def read_light_curve(
    path: Path, *, star: str | None = None, flux: FluxColumn = "auto", magnitudes: bool | None = None
) -> LightCurve:
    """Read one star's file.

    Args:
        path: A CSV or FITS file.
        star: The star's name; if None the one in the FITS header, or the file's name without suffix.
        flux: Which flux of a mission's FITS file to take: `pdcsap`, `sap`, or the best there is.
        magnitudes: Whether the brightness in files without names of columns is in magnitudes; if None, it is flux
            unless it looks like magnitudes, and then the file is refused.

    Raises:
        ConfigError: It is a FITS file and astropy is not installed.
        DataError: The file cannot be read as a light curve; the message has no file name and reads `expected ..., found
            ...; ...`, for a row of a table.
    """
    return _read_fits(path, star, flux) if is_fits(path) else _read_csv(path, star, magnitudes)


def read_star_name(path: Path) -> str:
    """The object that a FITS file's header names, else the file's name without suffix.

    Raises:
        ConfigError: It is a FITS file and astropy is not installed.
        DataError: It is not a FITS file although its name says so.
    """
    stem = path.name.split(".")[0]
    if not is_fits(path):
        return stem
    with _opened(path) as units:
        return str(units[0].header.get("OBJECT") or "").strip() or stem


def _read_csv(path: Path, star: str | None, magnitudes: bool | None) -> LightCurve:
    try:
        text = read_bytes(path, advice="Bring the file again.", limit=_LARGEST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as err:
        actual = f"byte {err.start} that is no UTF-8"
        raise DataError(f"expected {path.name} to be text, found {actual}; fix: save it as CSV") from err
    numbered = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    first = next((index for index, (_, line) in enumerate(numbered) if not line.lstrip().startswith("#")), 0)
    comment = numbered[first - 1][1].lstrip(" \t#").strip() if first else ""
    numbered = [(number, line) for number, line in numbered if not line.lstrip().startswith("#")]
    if not numbered:
        raise DataError(f"expected columns time and flux in {path.name}, found no line; fix: bring the file again")
    delimiter = next((mark for mark in ",;\t" if mark in numbered[0][1]), None)
    rows = [(number, _split(line, delimiter)) for number, line in numbered]
    names = [cell.lower() for cell in rows[0][1]]
    if any(_number(cell) is None for cell in names if cell):
        time, light, error, is_magnitude = _columns(path, names)
        rows = rows[1:]
        is_named = True
    elif is_named := _names_columns(titles := [cell.lower() for cell in _split(comment, delimiter)], len(names)):
        time, light, error, is_magnitude = _columns(path, titles)
    else:
        time, light, error, is_magnitude = 0, 1, 2 if len(names) > 2 else None, bool(magnitudes)
    used = [time, light] if error is None else [time, light, error]
    values: list[list[float]] = []
    for number, cells in rows:
        numbers = [_number(cells[column]) if column < len(cells) else None for column in used]
        if None in numbers:
            bad = numbers.index(None)
            shown = repr(cells[used[bad]]) if used[bad] < len(cells) else f"{len(cells)} columns"
            raise DataError(
                f"expected a number in column {used[bad] + 1} of line {number} of {path.name}, found {shown};"
                " fix: correct the line, or leave the cell empty where nothing was measured"
            )
        values.append([number for number in numbers if number is not None])
    table = np.array(values, dtype=float).reshape(len(values), len(used))
    spread = table[:, 2] if error is not None else None
    if not is_named and magnitudes is None:
        _refuse_magnitudes(path, table[:, 1])
    if is_magnitude:
        finite = table[np.isfinite(table[:, 1]), 1]
        with np.errstate(over="ignore", invalid="ignore"):  # an absurd magnitude becomes no number, and is dropped
            table[:, 1] = 10 ** (-0.4 * (table[:, 1] - (np.median(finite) if len(finite) else 0.0)))
            spread = None if spread is None else spread * table[:, 1] * 0.4 * math.log(10)
    return LightCurve.clean(star or path.name.split(".")[0], table[:, 0], table[:, 1], spread)


def _names_columns(titles: list[str], count: int) -> bool:
    """Whether the words of a comment are the names of that many columns."""
    return len(titles) == count and bool({*titles} & {*_TIME}) and bool({*titles} & {*_FLUX, *_MAGNITUDE})


def _refuse_magnitudes(path: Path, light: Numbers) -> None:
    """Refuse nameless values that are magnitudes as likely as flux: the curve would be upside down."""
    light = light[np.isfinite(light)]
    if len(light) and light.min() > 0 and _MAGNITUDES[0] <= np.median(light) and light.max() <= _MAGNITUDES[1]:
        raise DataError(
            f"expected columns with names, found values from {light.min():g} to {light.max():g}, maybe magnitudes; fix:"
            f" dataset.options.magnitudes=true (false: flux), or `time,mag` or `time,flux` above them in {path.name}"
        )


def _split(line: str, delimiter: str | None) -> list[str]:
    try:
        cells = line.split() if delimiter is None else next(csv.reader([line], delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"expected cells of numbers, found {brief(error)}; fix: correct the line") from error
    return [cell.strip() for cell in cells]


def _number(cell: str) -> float | None:
    """A cell's number; not-a-number where the cell is empty, None where it is something else."""
    if not cell:
        return math.nan
    try:
        return float(cell)
    except ValueError:
        return None


def _columns(path: Path, names: list[str]) -> tuple[int, int, int | None, bool]:
    """Positions of time, light and error, and whether the light is in magnitudes."""

    def find(choices: tuple[str, ...]) -> int | None:
        return next((names.index(choice) for choice in choices if choice in names), None)

    time, flux, magnitude = find(_TIME), find(_FLUX), find(_MAGNITUDE)
    if magnitude is None:
        bands = [index for index, name in enumerate(names) if "mag" in name and not _UNCERTAIN.search(name)]
        magnitude = bands[0] if len(bands) == 1 else None
    light = magnitude if flux is None else flux
    if time is None or light is None:
        raise DataError(
            f"expected columns `time` and `flux` (or `mag`) in {path.name}, found {', '.join(names)}; fix: name them so"
        )
    return time, light, find(_ERROR), flux is None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The units of a FITS file; all errors of astropy about a damaged file become one kind of error."""
    fits = _fits()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unusual headers do not matter
            warnings.filterwarnings(
                "error", message=".*truncated"
            )  # but the missing end of a table would read as zeros
            with fits.open(_unpacked(path), memmap=False, disable_image_compression=True) as units:
                yield units
    except DataError:
        raise
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataError(
            f"expected {path.name} to be a FITS file, found damage: {reason}; fix: download it again"
        ) from error


def _unpacked(path: Path) -> io.BytesIO:
    """A file's bytes, unpacked up to a limit."""
    content = read_bytes(path, limit=_LARGEST_BYTES)
    if content[:2] == b"\x1f\x8b":
        with gzip.open(io.BytesIO(content)) as packed:
            content = packed.read(_LARGEST_BYTES + 1)
    if len(content) > _LARGEST_BYTES:
        raise DataError(f"expected a light curve of at most {_LARGEST_BYTES:,} bytes, found more; fix: split the file")
    return io.BytesIO(content)


def _fits() -> Any:
    try:
        from astropy.io import fits
    except ImportError as error:
        raise ConfigError(
            f"FITS files need astropy, which cannot be imported ({error}). Install it: pip install -e .[astronomy]"
        ) from error
    return fits


def _read_fits(path: Path, star: str | None, flux: FluxColumn) -> LightCurve:
    with _opened(path) as units:
        return _from_units(path, units, star, flux)


def _from_units(path: Path, units: Any, star: str | None, flux: FluxColumn) -> LightCurve:
    """The light curve in the first table that has a time and a flux with measurements in it."""
    seen: list[str] = []
    empty: list[str] = []
    has_pixels = False
    for unit in units:
        names = [] if getattr(unit, "columns", None) is None else [name.upper() for name in unit.columns.names]
        seen += names
        time = next((name for name in _FITS_TIME if name in names), None)
        for chosen in _FITS_FLUX[flux] if time is not None else ():
            if chosen not in names:
                continue
            table = unit.data
            light = np.array(table[chosen], dtype=float)
            if light.ndim != 1:
                has_pixels = True
                continue
            is_tess = "QUALITY" in names and "KEPLER" not in str(units[0].header.get("TELESCOP")).upper()
            for column in {"SAP_QUALITY", "QUALITY"} & set(names):
                bad = np.array(table[column], dtype=np.int64) & (TESS_BAD_QUALITY if is_tess else KEPLER_BAD_QUALITY)
                light[bad != 0] = np.nan
            if chosen in ("FCOR", "FRAW") and "MOVING" in names:  # K2SFF: while the thrusters fire
                light[np.array(table["MOVING"], dtype=float) != 0] = np.nan
            if not np.isfinite(light).any():
                empty.append(chosen)
                continue
            spread = np.array(table[f"{chosen}_ERR"], dtype=float) if f"{chosen}_ERR" in names else None
            name = star or str(units[0].header.get("OBJECT") or "").strip() or path.name.split(".")[0]
            return LightCurve.clean(name, np.array(table[time], dtype=float), light, spread)
    if empty:
        raise DataError(
            f"expected measurements in {path.name}, found none in {' or '.join(empty)};"
            " fix: take the row out, or set dataset.options.flux=auto"
        )
    if has_pixels:
        raise DataError(
            f"expected a light curve in {path.name}, found target pixels;"
            " fix: pass the mission's light-curve file, not pixels"
        )
    raise DataError(
        f"expected a table with TIME and {' or '.join(_FITS_FLUX[flux])} in {path.name},"
        f" found {', '.join(dict.fromkeys(seen)) or 'no table'}; fix: pass the mission's light-curve file, or write the"
        " columns time and flux to CSV"
    )


def write_csv(curve: LightCurve, path: Path) -> None:
    """Write a light curve with columns time, flux and, if known, error."""
    columns = [curve.time, curve.flux] + ([] if curve.error is None else [curve.error])
    lines = (",".join(f"{value:.9g}" for value in row) for row in zip(*columns, strict=True))
    header = ",".join(("time", "flux", "error")[: len(columns)])
    write_text(path, "\n".join([f"# {curve.star}", header, *lines]) + "\n", error=DataError)


def write_fits(curve: LightCurve, path: Path, *, telescope: Literal["kepler", "tess"]) -> None:
    """Write a light curve as a Kepler or TESS light-curve file: the columns and keywords by which such files are read.

    Args:
        curve: The light curve; its flux, relative to the median, becomes `SAP_FLUX` and `PDCSAP_FLUX`.
        path: The file; replaced if it exists.
        telescope: Whose conventions to follow.

    Raises:
        ConfigError: astropy is not installed.
    """
    fits = _fits()
    flux = curve.flux.astype(">f4")
    spread = np.full(len(flux), np.nan, ">f4") if curve.error is None else curve.error.astype(">f4")
    quality = np.zeros(len(flux), ">i4")
    columns = [
        fits.Column("TIME", "D", unit="BJD - 2454833" if telescope == "kepler" else "BJD - 2457000", array=curve.time),
        fits.Column("SAP_FLUX", "E", array=flux),
        fits.Column("SAP_FLUX_ERR", "E", array=spread),
        fits.Column("PDCSAP_FLUX", "E", array=flux),
        fits.Column("PDCSAP_FLUX_ERR", "E", array=spread),
        fits.Column("SAP_QUALITY" if telescope == "kepler" else "QUALITY", "J", array=quality),
    ]
    primary = fits.PrimaryHDU()
    primary.header["TELESCOP"] = telescope.capitalize() if telescope == "kepler" else "TESS"
    primary.header["OBJECT"] = curve.star
    table = fits.BinTableHDU.from_columns(columns, name="LIGHTCURVE")
    fits.HDUList([primary, table]).writeto(path, overwrite=True)
