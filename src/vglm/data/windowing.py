"""Show pictures of more than 8 bits, as X-ray detectors make them: which grey values become black and which white.

    {"rule": "file", "center": 2048.0, "width": 4096.0, "inverted": False}      a sample's meta["grey_window"]

An X-ray has 10 to 16 bits of grey, a model's input 8. What is between `center - width / 2` and `center + width / 2` is
spread over 0 to 255, what is below or above is clipped (linear window, DICOM PS3.3, C.11.2.1.3.2). A header may ask for
another curve, which the window then names: `"function": "SIGMOID"` (C.11.2.1.3.1) or `"TABLE"`, the file's own VOI
look-up table. `inverted` pictures (DICOM's MONOCHROME1) are turned round, so that bone is white. The window that was
applied is recorded with the sample, and applied again whenever its picture is opened.

| rule | DICOM | 16-bit grey (PNG, TIFF) |
|---|---|---|
| `auto` | as `file`; if the file names no window, as `percentiles` | as `percentiles` |
| `file` | the header's first VOI look-up table, else its first WindowCenter and WindowWidth | bad row: they name none |
| `full` | all values that BitsStored allows, after the rescaling of the header | 0 to 65535 |
| `percentiles` | the picture's own 0.5 and 99.5 percentiles, pixels of padding left out | likewise |
| `<center>/<width>` | these values, such as `2048/4096`, after the rescaling | these values |

The rule is `dataset.options.window`; X-ray formats have `auto` if nothing is said, others open 16-bit grey as `full`
and DICOM as `auto`, without a record.

DICOM files need pydicom: `pip install ".[xray]"`. Compressed ones (JPEG, JPEG 2000) need a decoder that pydicom finds;
Pillow is one for baseline JPEG and JPEG 2000. "Rescaling" is by the header's slope and intercept, or by its modality
look-up table.
"""

import io
import math
import os
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vglm.data.problems import BadRow
from vglm.data.sample import ImageSlice, Sample
from vglm.errors import ConfigError, DataError, brief
from vglm.files import check_regular

Curve = Callable[[NDArray[Any]], NDArray[Any]]
WindowRule = str
"""`auto`, `file`, `full`, `percentiles` or `<center>/<width>`."""
RULES = ("auto", "file", "full", "percentiles")
PERCENTILES = (0.5, 99.5)
PERCENTILE_PIXELS = 1_000_000
"""Percentiles are taken of about so many pixels at most, evenly spaced rows and columns."""
FUNCTIONS = ("LINEAR", "SIGMOID", "TABLE")
META_KEY = "grey_window"
"""Where a sample's `meta` has the window that its picture is shown through."""
MAX_PIXELS = 100_000_000
"""Largest width x height of a picture that is decoded; 300 MB as RGB."""
MAX_BYTES = 1 << 30
"""Largest DICOM picture, all frames of it decoded, that is opened."""
MAX_DEFLATED_BYTES = 1 << 28
"""What a deflated DICOM file may unpack to; it is held whole."""

_ALWAYS_8_BITS = (".jpg", ".jpeg", ".gif", ".bmp", ".webp")
_GIVEN = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*")
_STEP = 1e-6
_PIXELS_AT_ONCE = 1 << 22
_DICOM_OFFSET = 128
_DICOM_MARK = b"DICM"


@dataclass(frozen=True, slots=True)
class Window:
    """Which grey values are shown.

    Attributes:
        rule: Where the values come from, as in the table above; never `auto`.
        center: Middle of the values that are told apart, in the picture's own units after DICOM's rescaling.
        width: How many values those are; above 0.
        inverted: Whether low values are shown white.
        function: The curve: `LINEAR`, `SIGMOID`, or `TABLE`, which is in the file.
    """

    rule: str
    center: float
    width: float
    inverted: bool = False
    function: str = "LINEAR"

    def apply(self, grey: NDArray[Any], table: Curve | None = None) -> NDArray[np.uint8]:
        """Map grey values (rows, columns) of any number type to 0..255; `table` is that of the file, if it has one.

        Raises:
            DataError: The window is a table, and there is none.
        """
        if self.function == "TABLE" and table is None:
            raise DataError(f"{META_KEY!r} is a look-up table, and the picture's file has none. Restore the file.")
        result = np.empty(grey.shape, np.uint8)
        rows = max(1, _PIXELS_AT_ONCE // max(1, grey[:1].size))
        for first in range(0, len(grey), rows):  # as floating-point numbers a large picture is many times as large
            shown = self._share(grey[first : first + rows], table)
            result[first : first + rows] = ((1 - shown if self.inverted else shown) * 255).round()
        return result

    def _share(self, grey: NDArray[Any], table: Curve | None) -> NDArray[Any]:
        """How bright values are, from 0 to 1."""
        if self.function == "TABLE":
            assert table is not None
            return table(grey)
        values = grey.astype(np.float64)
        if self.function == "SIGMOID":
            with np.errstate(over="ignore"):  # far below the center, where the curve is 0
                return np.asarray(1 / (1 + np.exp(-4 * (values - self.center) / self.width)))
        return np.asarray(np.clip((values - (self.center - self.width / 2)) / self.width, 0, 1))

    @classmethod
    def recorded(cls, value: Any, name: str) -> "Window":
        """The window of a sample's `meta`.

        Raises:
            DataError: It is none.
        """
        try:
            window = cls(str(value["rule"]), float(value["center"]), float(value["width"]), bool(value["inverted"]))
            window = replace(window, function=str(value.get("function", "LINEAR")))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{name}: {META_KEY!r} has to be a window as vglm.data.windowing records it.") from error
        if not (math.isfinite(window.center) and 0 < window.width < math.inf):
            raise DataError(f"{name}: {META_KEY!r} needs a finite center and a width above 0, found {dict(value)}.")
        if window.function not in FUNCTIONS:
            raise DataError(f"{name}: {META_KEY!r} has the unknown function {window.function!r}. Make the data anew.")
        return window

    def record(self) -> dict[str, Any]:
        """What goes into a sample's `meta`."""
        return {key: value for key, value in asdict(self).items() if (key, value) != ("function", "LINEAR")}


@dataclass(frozen=True, slots=True)
class DeepGrey:
    """A picture of more than 8 bits.

    Attributes:
        stored: Decodes the values in the file, shape (rows, columns).
        full: The smallest and the largest value that the format allows, after DICOM's rescaling.
        file_window: Window of the file's header, if it names one.
        inverted: Whether low values are to be shown white.
        rescale: DICOM's rescaling of stored values.
        padding: The stored values, from the first to the second, that are no part of the picture.
        table: The header's VOI look-up table: rescaled values to 0..1.
    """

    stored: Callable[[], NDArray[Any]]
    full: tuple[float, float]
    file_window: Window | None = None
    inverted: bool = False
    rescale: Curve = np.asarray
    padding: tuple[float, float] | None = None
    table: Curve | None = None

    def load(self) -> NDArray[Any]:
        """Decode the grey values, shape (rows, columns), after DICOM's rescaling."""
        return self.rescale(self.stored())

    def measured(self) -> NDArray[Any]:
        """Decode as many values as percentiles need, without those of padding, in any shape."""
        stored = self.stored()
        stride = max(1, math.ceil(math.sqrt(stored.size / PERCENTILE_PIXELS)))
        stored = stored[::stride, ::stride]
        if self.padding is not None:
            inside = (stored < self.padding[0]) | (stored > self.padding[1])
            stored = stored[inside] if inside.any() else stored
        return self.rescale(stored)


def check_rule(rule: WindowRule, key: str = "dataset.options.window") -> None:
    """Refuse what is no rule.

    Raises:
        ConfigError: Neither one of `RULES` nor `<center>/<width>` with a positive width.
    """
    given = _GIVEN.fullmatch(rule)
    if rule not in RULES and (given is None or float(given[2]) <= 0):
        raise ConfigError(f"{key} must be one of {', '.join(RULES)} or <center>/<width> like 2048/4096, got {rule!r}.")


def is_dicom(image: Path | ImageSlice) -> bool:
    """Whether a file's bytes say that it is DICOM, whatever its name."""
    try:
        if isinstance(image, ImageSlice):
            head = replace(image, size=min(image.size, _DICOM_OFFSET + 4)).read_bytes()
        else:
            check_regular(image)
            with image.open("rb") as file:
                head = file.read(_DICOM_OFFSET + 4)
    except (OSError, DataError):
        return False
    return head[_DICOM_OFFSET:] == _DICOM_MARK


def find_window(grey: DeepGrey, rule: WindowRule, name: str) -> Window:
    """Work out what a rule means for a picture.

    Args:
        grey: The picture.
        rule: One of the rules above.
        name: The picture's name, for messages.

    Raises:
        ConfigError: `rule` is none.
        DataError: The rule is `file`, and the file names no window; or its numbers give none.
    """
    return Window.recorded(asdict(_find_window(grey, rule, name)), name)


def _find_window(grey: DeepGrey, rule: WindowRule, name: str) -> Window:
    check_rule(rule)
    if rule == "auto":
        rule = "percentiles" if grey.file_window is None else "file"
    if rule == "file":
        if grey.file_window is None:
            raise DataError(f"{name} names no window in its header. Set the window rule to auto or percentiles.")
        if grey.file_window.function not in FUNCTIONS:
            raise DataError(f"{name} has a window of the kind {grey.file_window.function!r}. Set the rule percentiles.")
        return grey.file_window
    if rule == "full":
        return _between(rule, *grey.full, grey.inverted)
    if rule == "percentiles":
        low, high = np.percentile(grey.measured(), PERCENTILES)
        return _between(rule, float(low), float(high), grey.inverted)
    given = _GIVEN.fullmatch(rule)
    assert given is not None  # check_rule
    return Window("given", float(given[1]), float(given[2]), grey.inverted)


def read_dicom(image: Path | ImageSlice) -> DeepGrey | None:
    """Read a DICOM file's header.

    Args:
        image: A file, or a piece of one.

    Returns:
        What is needed to show its first frame, which is not decoded yet; None if it is in colour.

    Raises:
        DataError: pydicom is not installed; the file holds no picture, one of a kind that is not shown here, or one
            that is too large. `load` raises it where the picture cannot be decoded.
    """
    name = f"image {image}"
    with _understood(image):
        header = _checked_header(image, with_pixels=False)
        if header.SamplesPerPixel == 3:
            return None
        slope, intercept = _number(header, "RescaleSlope", 1), _number(header, "RescaleIntercept", 0)
        if not (math.isfinite(slope) and math.isfinite(intercept)):
            raise ValueError(f"it is rescaled by {slope} and {intercept}")
        table = header.get("ModalityLUTSequence") or ()
        bits = min(max(int(header.get("BitsStored", 16)), 1), 32)
        is_signed = header.get("PixelRepresentation", 0) == 1
        lowest, highest = (-(1 << bits - 1), (1 << bits - 1) - 1) if is_signed else (0, (1 << bits) - 1)
    from pydicom.pixels.processing import apply_modality_lut

    def rescale(stored: NDArray[Any]) -> NDArray[Any]:
        with _decoding(name):
            return np.asarray(apply_modality_lut(stored, header))

    with _decoding(name), _understood(image):
        ends = (0, (1 << int(table[0].LUTDescriptor[2])) - 1) if table else rescale(np.array([lowest, highest]))
        inverted = header.PhotometricInterpretation == "MONOCHROME1"
        window, curve = _header_window(header, inverted, name)
        padding = _padding(header)
    return DeepGrey(
        lambda: _pixels(image), (float(min(ends)), float(max(ends))), window, inverted, rescale, padding, curve
    )


def check_dicom_header(image: Path | ImageSlice) -> None:
    """Read a DICOM file's header only.

    Raises:
        DataError: pydicom is not installed, or the header names no picture of a kind and size that is shown here.
    """
    _checked_header(image, with_pixels=False)


def show_dicom(image: Path | ImageSlice, recorded: Any = None) -> Image.Image:
    """Open a DICOM file as a picture of 8 bits.

    Args:
        image: A file, or a piece of one.
        recorded: The window of a sample's `meta`; by the rule `auto` if None.

    Returns:
        A picture of mode L or RGB.

    Raises:
        DataError: As `read_dicom`, or `recorded` is no window.
    """
    grey = read_dicom(image)
    if grey is None:
        return Image.fromarray(_pixels(image))
    name = f"image {image}"
    window = find_window(grey, "auto", name) if recorded is None else Window.recorded(recorded, name)
    return Image.fromarray(window.apply(grey.load(), grey.table))


def record_window(sample: Sample, rule: WindowRule = "auto") -> Sample | BadRow:
    """Find the window for a sample's picture and write it into the sample's `meta`.

    Args:
        sample: As a reader made it. A picture of 8 bits, and a sample without picture, are left as they are.
        rule: One of the rules above.

    Returns:
        The sample, with `meta["grey_window"]` where it matters, or a bad row if the picture cannot be opened.

    Raises:
        ConfigError: `rule` is none.
    """
    check_rule(rule)
    if not isinstance(sample.image, Path | ImageSlice):
        return sample
    try:
        grey = _read_deep(sample.image)
        if grey is None:
            return sample
        window = find_window(grey, rule, f"image {sample.image}")
    except DataError as error:
        return BadRow(sample.id.rpartition("#")[2], f"expected a picture that can be shown, found: {error}")
    return replace(sample, meta={**sample.meta, META_KEY: window.record()})


def _read_deep(image: Path | ImageSlice) -> DeepGrey | None:
    """The grey values of a picture of more than 8 bits; None for any other, which is not decoded."""
    if isinstance(image, Path) and (image.suffix.lower() in _ALWAYS_8_BITS or not os.path.isfile(image)):
        return None
    if is_dicom(image):
        return read_dicom(image)
    try:
        with Image.open(image if isinstance(image, Path) else io.BytesIO(image.read_bytes())) as picture:
            if not picture.mode.startswith("I"):
                return None
            values = np.asarray(picture)
            return DeepGrey(lambda: values, (0, 65535))
    except Exception:  # said, with its reason, by whoever opens the picture
        return None


def _checked_header(image: Path | ImageSlice, *, with_pixels: bool) -> Any:
    """A DICOM file's data set, of a kind and size that can be shown."""
    name = f"image {image}"
    try:
        import pydicom
    except ImportError as error:
        raise DataError(f'{name} is DICOM, which needs pydicom: pip install ".[xray]".') from error
    with _understood(image):
        raw = io.FileIO(image) if isinstance(image, Path) else _Piece(image.read_bytes())
        with _Bounded(raw) as source:
            header = pydicom.dcmread(source, stop_before_pixels=not with_pixels)
        kind = str(header.get("PhotometricInterpretation", "none"))
        rows, columns, samples = (int(header.get(key, 0)) for key in ("Rows", "Columns", "SamplesPerPixel"))
        bits, frames = int(header.get("BitsAllocated", 16)), _frames(header)
    if rows < 1 or columns < 1:
        raise DataError(f"{name} is DICOM without a picture. Take its row out.")
    is_grey = samples == 1 and kind in ("MONOCHROME1", "MONOCHROME2")
    if not is_grey and not (samples == 3 and bits == 8):
        raise DataError(f"{name} is DICOM of the kind {kind}. Expected MONOCHROME1, MONOCHROME2 or 8-bit colour.")
    if rows * columns > MAX_PIXELS or rows * columns * samples * frames * bits // 8 > MAX_BYTES:
        raise DataError(f"{name} has {frames} frames of {columns} x {rows} pixels, more than {MAX_BYTES >> 20} MB.")
    return header


@contextmanager
def _understood(image: Path | ImageSlice) -> Iterator[None]:
    """One kind of error for the many that pydicom raises for damaged data and garbage in place of numbers."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"image {image} is DICOM that cannot be read: {brief(error)}. Replace the file.") from error


class _Piece(io.BytesIO):
    """A picture inside a larger file."""

    name = "a picture"


class _Bounded(io.BufferedReader):
    """A DICOM file; all that is left of it at once is read of a deflated one only, which few bytes can make endless."""

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        if size is None or size < 0:
            unpacker, rest, length = zlib.decompressobj(-zlib.MAX_WBITS), content, 0
            while rest and not unpacker.eof:
                length += len(unpacker.decompress(rest, 1 << 20))
                if length > MAX_DEFLATED_BYTES:
                    raise DataError(f"{self.name} unpacks to more than {MAX_DEFLATED_BYTES >> 20} MB. Replace it.")
                rest = unpacker.unconsumed_tail
        return content


def _pixels(image: Path | ImageSlice) -> NDArray[Any]:
    """A DICOM file's first frame, (rows, columns) or (rows, columns, 3)."""
    header = _checked_header(image, with_pixels=True)
    try:
        pixels: NDArray[Any] = header.pixel_array
    except Exception as error:  # pydicom raises many kinds for damaged data and missing decoders
        raise DataError(f"image {image} is DICOM whose picture cannot be decoded: {brief(error)}.") from error
    return pixels[0] if _frames(header) > 1 else pixels


def _frames(header: Any) -> int:
    return int(header.get("NumberOfFrames", None) or 1)


def _between(rule: str, low: float, high: float, inverted: bool) -> Window:
    """The window from one value to another; a picture of one value keeps a width of 1."""
    return Window(rule, (low + high) / 2, max(high - low, 1.0), inverted)


def _header_window(header: Any, inverted: bool, name: str) -> tuple[Window | None, Curve | None]:
    """The header's first table or window, a window as an exact range; and the table."""
    tables = header.get("VOILUTSequence") or ()
    if tables and tables[0].get("LUTDescriptor") and tables[0].get("LUTData"):
        from pydicom.pixels.processing import apply_voi

        entries, first, bits = (int(each) for each in tables[0].LUTDescriptor)
        entries = entries or 1 << 16

        def curve(values: NDArray[Any]) -> NDArray[Any]:
            with _decoding(name):
                return np.asarray(apply_voi(np.trunc(values).astype(np.int64), header) / ((1 << bits) - 1))

        return Window("file", first + entries / 2, float(entries), inverted, "TABLE"), curve
    center, width = _number(header, "WindowCenter", math.nan), _number(header, "WindowWidth", math.nan)
    function = str(header.get("VOILUTFunction") or "LINEAR").upper()
    if not (math.isfinite(center) and math.isfinite(width)) or width < (1 if function == "LINEAR" else 0) or not width:
        return None, None
    if function == "LINEAR":  # C.11.2.1.2.1: from c - 0.5 - (w - 1) / 2; a width of 1 is a step at c - 0.5
        width = width - 1 or _STEP
        center += (width / 2 if width == _STEP else 0) - 0.5
    return Window("file", center, width, inverted, "LINEAR" if function == "LINEAR_EXACT" else function), None


def _padding(header: Any) -> tuple[float, float] | None:
    """The stored values that fill the frame around a picture (C.7.5.1.1.2)."""
    value = _number(header, "PixelPaddingValue", math.nan)
    limit = _number(header, "PixelPaddingRangeLimit", value)
    return None if math.isnan(value) else (min(value, limit), max(value, limit))


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Whatever pydicom makes of damaged tables and numbers becomes one kind of error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{name} is DICOM whose grey values cannot be read: {reason}. Replace the file.") from error


def _number(header: Any, key: str, default: float) -> float:
    """A header's number, the first of several."""
    value = header.get(key, None)
    if value is None or value == "":
        return default
    return float(value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value)
