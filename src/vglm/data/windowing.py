"""Show pictures of more than 8 bits, as X-ray detectors make them: which grey values become black and which white.

    Window(rule="file", center=2048.0, width=4096.0)        the field `window` of a sample

An X-ray has 10 to 16 bits of grey, a model's input 8. What is between `center - width / 2` and `center + width / 2` is
spread over 0 to 255, what is below or above is clipped (linear window, DICOM PS3.3, C.11.2.1.3.2). A header may ask for
another curve, which the window then names: `"SIGMOID"` (C.11.2.1.3.1) or `"TABLE"`, the file's own VOI look-up table.
`inverted` pictures (DICOM's MONOCHROME1) are turned round, so that bone is white. The window that was applied is
recorded with the sample, and applied again whenever the sample opens its picture.

| rule | DICOM | 16-bit grey (PNG, TIFF) |
|---|---|---|
| `auto` | as `file`; if the file names no window, as `percentiles` | as `percentiles` |
| `file` | the header's first VOI look-up table, else its first WindowCenter and WindowWidth | bad row: they name none |
| `full` | all values that BitsStored allows, after the rescaling of the header | 0 to 65535 |
| `percentiles` | the picture's own 0.5 and 99.5 percentiles, pixels of padding left out | likewise |
| `<center>/<width>` | these values, such as `2048/4096`, after the rescaling | these values |

The rule is `dataset.options.window`; X-ray formats have `auto` by default, others open 16-bit grey as `full`
and DICOM as `auto`, without a record. "Rescaling" is by a DICOM header's slope and intercept, or by its modality
look-up table, see `vglm.data.dicom`.
"""

import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vglm.errors import ConfigError, DataError

Curve = Callable[[NDArray[Any]], NDArray[Any]]
WindowRule = str
"""`auto`, `file`, `full`, `percentiles` or `<center>/<width>`."""
RULES = ("auto", "file", "full", "percentiles")
PERCENTILES = (0.5, 99.5)
PERCENTILE_PIXELS = 1_000_000
"""Percentiles are computed from about this many pixels at most, evenly spaced rows and columns."""
FUNCTIONS = ("LINEAR", "SIGMOID", "TABLE")
WINDOW_KEY = "grey_window"
"""What rows of a file call the window that their picture is shown through."""

_GIVEN = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*")
_PIXELS_AT_ONCE = 1 << 22


@dataclass(frozen=True, slots=True)
class Window:
    """Which grey values are shown.

    Attributes:
        rule: Where the values come from, as in the table above; never `auto`.
        center: Center of the window, in the picture's own units after DICOM's rescaling.
        width: How many values those are; above 0.
        inverted: Whether low values are shown white.
        function: The curve: `LINEAR`, or `SIGMOID` or `TABLE`, which are in the file.
    """

    rule: str
    center: float
    width: float
    inverted: bool = False
    function: str = "LINEAR"

    def apply(self, grey: NDArray[Any], curve: Curve | None = None) -> NDArray[np.uint8]:
        """Map grey values (rows, columns) of any number type to 0..255; `curve` is that of the file, if it has one.

        Raises:
            DataError: The window is a curve of the file, and there is none.
        """
        if self.function == "LINEAR":
            curve = self._linear
        elif curve is None:
            kind = {"SIGMOID": "sigmoid curve", "TABLE": "look-up table"}[self.function]
            raise DataError(f"{WINDOW_KEY!r} is a {kind}, and the picture's file has none. Restore the file.")
        result = np.empty(grey.shape, np.uint8)
        rows = max(1, _PIXELS_AT_ONCE // max(1, grey[:1].size))
        for first in range(0, len(grey), rows):  # as floating-point numbers a large picture is many times as large
            shares = curve(grey[first : first + rows])  # 0 to 1
            result[first : first + rows] = ((1 - shares if self.inverted else shares) * 255).round()
        return result

    def _linear(self, grey: NDArray[Any]) -> NDArray[Any]:
        return np.clip((grey.astype(np.float64) - (self.center - self.width / 2)) / self.width, 0, 1)

    @classmethod
    def recorded(cls, value: Any, name: str) -> "Window":
        """The window of a row, as `record` wrote it.

        Raises:
            DataError: It is none.
        """
        try:
            window = cls(str(value["rule"]), float(value["center"]), float(value["width"]), bool(value["inverted"]))
            window = replace(window, function=str(value.get("function", "LINEAR")))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{name}: {WINDOW_KEY!r} has to be a window as vglm.data.windowing records it.") from error
        if not (math.isfinite(window.center) and 0 < window.width < math.inf):
            raise DataError(f"{name}: {WINDOW_KEY!r} needs a finite center and a width above 0, found {dict(value)}.")
        if window.function not in FUNCTIONS:
            raise DataError(f"{name}: {WINDOW_KEY!r} has the unknown function {window.function!r}. Make the data anew.")
        return window

    def record(self) -> dict[str, Any]:
        """What is written down of it."""
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
        padding: The stored values, from the first to the second, that are not part of the picture.
        curve: The header's curve or VOI look-up table: rescaled values to 0..1.
    """

    stored: Callable[[], NDArray[Any]]
    full: tuple[float, float]
    file_window: Window | None = None
    inverted: bool = False
    rescale: Curve = np.asarray
    padding: tuple[float, float] | None = None
    curve: Curve | None = None

    def show(self, window: Window) -> NDArray[np.uint8]:
        """Decode the picture and map it to 0..255, shape (rows, columns)."""
        return window.apply(self.rescale(self.stored()), self.curve)

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
    """Refuse an invalid rule.

    Raises:
        ConfigError: Neither one of `RULES` nor `<center>/<width>` with a positive width.
    """
    match = _GIVEN.fullmatch(rule)
    if rule not in RULES and (match is None or float(match[2]) <= 0):
        raise ConfigError(f"{key} must be one of {', '.join(RULES)} or <center>/<width> like 2048/4096, got {rule!r}.")


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
    match = _GIVEN.fullmatch(rule)
    assert match is not None  # check_rule
    return Window("given", float(match[1]), float(match[2]), grey.inverted)


def _between(rule: str, low: float, high: float, inverted: bool) -> Window:
    """The window from one value to another; a picture of one value keeps a width of 1."""
    return Window(rule, (low + high) / 2, max(high - low, 1.0), inverted)
