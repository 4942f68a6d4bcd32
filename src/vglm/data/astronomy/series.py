"""A reference from a sample to its light curve, beside the picture made of it: `Sample.meta["light_curve"]`.

series = keep_series(file, flux="auto", magnitudes=None)        a text, for `Sample.meta`
open_series(series, "KIC 3733346")                              the `LightCurve`
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vglm.data.astronomy.files import FluxColumn, read_light_curve
from vglm.data.astronomy.light_curve import LightCurve
from vglm.errors import DataError

SERIES = "light_curve"
"""Its key in `Sample.meta`."""


def keep_series(file: Path, *, flux: FluxColumn, magnitudes: bool | None) -> str:
    """How to read a light curve again, see `read_light_curve`."""
    return json.dumps({"file": str(file), "flux": flux, "magnitudes": magnitudes})


def open_series(series: str | Callable[[], LightCurve], star: str) -> LightCurve:
    """The light curve.

    Args:
        series: From `keep_series`; or what simulates it.
        star: The star's name.

    Raises:
        DataError: The file cannot be read any more, or the text is not from `keep_series`.
    """
    if callable(series):
        return series()
    try:
        settings: dict[str, Any] = json.loads(series)
        file, options = Path(settings["file"]), {name: settings[name] for name in ("flux", "magnitudes")}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{star}: {SERIES!r} does not say where a light curve is, but {series[:100]!r}.") from error
    return read_light_curve(file, star=star, **options)
