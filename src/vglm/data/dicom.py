"""Read DICOM pictures: their size and kind, their first frame, and the window of their header.

    grey = read_dicom(Path("1_IM-0001-4001.dcm"))
    grey.file_window                  Window(rule="file", center=2047.5, width=4095.0, inverted=False)
    grey.show(grey.file_window)       shape (rows, columns), uint8

pydicom (`pip install ".[xray]"`) does the work: decoding, the modality and VOI look-up tables, the sigmoid curve.
Compressed files (JPEG, JPEG 2000) need a decoder that pydicom finds; Pillow is one for baseline JPEG and JPEG 2000.
This module adds what pydicom lacks: bounds on the size of what is decoded, one kind of error for damaged files, tables
of other depths than pydicom reads, and a linear window as an exact range.
"""

import hashlib
import io
import math
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vglm.data.slices import ImageSlice
from vglm.data.windowing import Curve, DeepGrey, Window
from vglm.errors import DataError, brief
from vglm.files import check_regular

MAX_PIXELS = 100_000_000
"""Largest width x height of a picture that is decoded; 300 MB as RGB."""
MAX_BYTES = 1 << 30
"""Largest DICOM picture, all frames of it decoded, that is opened."""
MAX_DEFLATED_BYTES = 1 << 28
"""Maximum size of an unpacked deflated DICOM file, which is held in memory."""

_VOI_KEYS = ("PhotometricInterpretation", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction")
_STEP = 1e-6
_OFFSET = 128
_MARK = b"DICM"


def is_dicom(image: Path | ImageSlice) -> bool:
    """Whether a file's bytes say that it is DICOM, whatever its name."""
    try:
        if isinstance(image, ImageSlice):
            head = replace(image, size=min(image.size, _OFFSET + 4)).read_bytes()
        else:
            check_regular(image)
            with image.open("rb") as file:
                head = file.read(_OFFSET + 4)
    except (OSError, DataError):
        return False
    return head[_OFFSET:] == _MARK


def check_dicom_header(image: Path | ImageSlice) -> None:
    """Read a DICOM file's header only.

    Raises:
        DataError: pydicom is not installed, or the header names no picture of a kind and size that is shown here.
    """
    _checked_header(image, with_pixels=False)


def read_dicom(image: Path | ImageSlice) -> DeepGrey | None:
    """Read a DICOM file's header.

    Args:
        image: A file, or a piece of one.

    Returns:
        What is needed to show its first frame, which is not decoded yet; None if it is in colour.

    Raises:
        DataError: pydicom is not installed; the file holds no picture, one of a kind that is not shown here, or one
            that is too large. `show` and `measured` raise it where the picture cannot be decoded.
    """
    with _understood(image):
        header = _checked_header(image, with_pixels=False)
        if header.SamplesPerPixel == 3:
            return None
        is_inverted = header.PhotometricInterpretation == "MONOCHROME1"
        depth = _widen_table(header, "ModalityLUTSequence")
        rescale = partial(_rescale, header=header, image=image)
        ends = (0, (1 << depth) - 1) if depth else rescale(np.array(_stored_range(header)))
        if not np.isfinite(ends).all():
            raise ValueError("its slope and intercept are no finite numbers")
        window = _header_window(header, is_inverted)
        curve = _curve_of(header, window, image)
        padding = _padding(header)
    return DeepGrey(
        partial(decode_first_frame, image),
        (float(min(ends)), float(max(ends))),
        window,
        is_inverted,
        rescale,
        padding,
        curve,
    )


_PERSONAL = (
    *("PatientName", "PatientID", "PatientBirthDate", "OtherPatientIDs", "PatientAddress", "PatientTelephoneNumbers"),
    *("ReferringPhysicianName", "PerformingPhysicianName", "InstitutionName", "InstitutionAddress"),
)
"""Keywords of what may say who a patient is, of DICOM PS3.15 table E.1-1."""
_NOBODY = re.compile(r"[\W_]*((anon\w*|none|unknown|removed|de-?identified)[\W\d_]*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DicomFacts:
    """The facts of a header, without the picture.

    Attributes:
        bits: Stored for a pixel.
        kind: Its photometric interpretation, such as `MONOCHROME2`.
        has_window: Whether it says which grey values to show.
        view: Such as `PA` or `LATERAL`; empty where it does not say.
        personal: Keywords of filled fields that may say who the patient is; no contents.
        patient: A hash that files of one patient share; empty where no patient is named.
    """

    bits: int
    kind: str
    has_window: bool
    view: str
    personal: tuple[str, ...]
    patient: str


def describe_dicom(image: Path | ImageSlice) -> DicomFacts:
    """What a DICOM file's header says, for the doctor.

    A patient's id counts as personal unless the header says that the identity was removed (PatientIdentityRemoved).

    Raises:
        DataError: As for `read_dicom`.
    """
    header = _checked_header(image, with_pixels=False)
    patient = str(header.get("PatientID") or "").strip()
    is_removed = str(header.get("PatientIdentityRemoved", "")).upper() == "YES"
    personal = [
        name
        for name in _PERSONAL
        if not (is_removed and name == "PatientID") and _NOBODY.fullmatch(str(header.get(name) or "")) is None
    ]
    is_nobody = bool(_NOBODY.fullmatch(patient)) and not any(map(str.isdigit, patient))  # ANON0001 is a pseudonym
    return DicomFacts(
        bits=int(header.get("BitsStored", 0) or 0),
        kind=str(header.get("PhotometricInterpretation", "")),
        has_window="WindowCenter" in header or "VOILUTSequence" in header,
        view=str(header.get("ViewPosition") or ""),
        personal=tuple(personal),
        patient="" if is_nobody else hashlib.blake2b(patient.encode(), digest_size=8).hexdigest(),
    )


def decode_first_frame(image: Path | ImageSlice) -> NDArray[Any]:
    """A DICOM file's first frame as it is stored, (rows, columns) or (rows, columns, 3).

    Raises:
        DataError: It cannot be decoded.
    """
    header = _checked_header(image, with_pixels=True)
    try:
        pixels: NDArray[Any] = header.pixel_array
    except Exception as error:  # pydicom raises many kinds for damaged data and missing decoders
        raise DataError(f"image {image} is DICOM whose picture cannot be decoded: {brief(error)}.") from error
    return pixels[0] if _frames(header) > 1 else pixels


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


def quiet_decoders() -> None:
    """From now on ignore what Pillow and pydicom warn of, in all threads; what other code warns of is shown as before.

    `warnings.catch_warnings` is no way to do so: of two threads the one that leaves last puts back the other's filters.
    """
    filters: Any = warnings.filters
    if not filters or filters[0] is not _OF_DECODERS:  # another one put before it may let the warnings through again
        filters[:] = [_OF_DECODERS, *(other for other in filters if other is not _OF_DECODERS)]


_DECODERS = r"(PIL|pydicom|openjpeg|libjpeg|gdcm|vglm\.data\.(dicom|images|windowing))\b"
_OF_DECODERS = ("ignore", None, Warning, re.compile(_DECODERS), 0)


@contextmanager
def _understood(image: Path | ImageSlice) -> Iterator[None]:
    """One kind of error for the many that pydicom raises for damaged data and garbage in place of numbers."""
    try:
        quiet_decoders()
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


def _frames(header: Any) -> int:
    return int(header.get("NumberOfFrames", None) or 1)


# --- grey values ------------------------------------------------------------------------------------------------------


def _stored_range(header: Any) -> tuple[int, int]:
    """The smallest and the largest value that the header's bits allow."""
    bits = min(max(int(header.get("BitsStored", 16)), 1), 32)
    is_signed = header.get("PixelRepresentation", 0) == 1
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if is_signed else (0, (1 << bits) - 1)


def _rescale(stored: NDArray[Any], header: Any, image: Path | ImageSlice) -> NDArray[Any]:
    from pydicom.pixels.processing import apply_modality_lut

    with _understood(image):
        if header.get("ModalityLUTSequence"):
            stored = stored.astype(np.int64)  # a table may begin at a negative value
        return np.asarray(apply_modality_lut(stored, header))


def _table(header: Any, sequence: str) -> Any:
    """The first look-up table of a sequence, if it is one."""
    item = next(iter(header.get(sequence) or ()), None)
    return item if item is not None and item.get("LUTDescriptor") and item.get("LUTData") else None


def _widen_table(header: Any, sequence: str) -> int | None:
    """Describe a look-up table's entries as 16 bits, the depth that pydicom reads safely; return the depth they have.

    pydicom indexes a VOI table of 8 bits modulo 256, has no type for entries of 9 bits, nor for a modality table's of
    12, and takes entries that are packed in bytes (PS3.3, C.11.1.1.1 and C.11.2.1.1) for words.
    """
    item = _table(header, sequence)
    if item is None:
        return None
    entries, first, depth = map(int, item.LUTDescriptor)
    if not 1 <= depth <= 16:
        raise ValueError(f"its look-up table has entries of {depth} bits")
    item.LUTDescriptor = [entries, first, 16]
    data = item.LUTData
    if isinstance(data, bytes) and (entries or 1 << 16) <= len(data) < 2 * (entries or 1 << 16):  # a byte each
        word = "<u2" if header.original_encoding[1] else ">u2"
        item["LUTData"].value = np.frombuffer(data, np.uint8).astype(word).tobytes()
    return depth


def _header_window(header: Any, inverted: bool) -> Window | None:
    """The header's first table or window, a linear window as an exact range."""
    if (table := _table(header, "VOILUTSequence")) is not None:
        entries, first = int(table.LUTDescriptor[0]) or 1 << 16, int(table.LUTDescriptor[1])
        return Window("file", first + entries / 2, float(entries), inverted, "TABLE")
    center, width = _number(header, "WindowCenter", math.nan), _number(header, "WindowWidth", math.nan)
    function = str(header.get("VOILUTFunction") or "LINEAR").upper()
    if not (math.isfinite(center) and math.isfinite(width)) or width < (1 if function == "LINEAR" else 0) or not width:
        return None
    if function == "LINEAR":  # C.11.2.1.2.1: from c - 0.5 - (w - 1) / 2; a width of 1 is a step at c - 0.5
        width = width - 1 or _STEP
        center += (width / 2 if width == _STEP else 0) - 0.5
    return Window("file", center, width, inverted, "LINEAR" if function == "LINEAR_EXACT" else function)


def _curve_of(header: Any, window: Window | None, image: Path | ImageSlice) -> Curve | None:
    """The header's look-up table or sigmoid curve, from rescaled values to 0..1."""
    if window is None or window.function not in ("TABLE", "SIGMOID"):
        return None
    import pydicom
    from pydicom.pixels.processing import apply_voi_lut

    depth = 16 if window.function == "SIGMOID" else _widen_table(header, "VOILUTSequence")
    assert depth is not None
    voi = pydicom.Dataset()  # without the rescaling, which would shift the output's range
    for key in _VOI_KEYS:
        if key in header:
            voi.add(header[key])
    voi.BitsStored, voi.PixelRepresentation = depth, 0
    voi.set_original_encoding(*header.original_encoding)
    first, last = window.center - window.width / 2, window.center + window.width / 2 - 1

    def curve(values: NDArray[Any]) -> NDArray[Any]:
        with _understood(image):
            if window.function == "TABLE":
                values = np.clip(values, first, last).astype(np.int64)
            return np.asarray(apply_voi_lut(values, voi) / (2**depth - 1))

    return curve


def _padding(header: Any) -> tuple[float, float] | None:
    """The stored values that fill the frame around a picture (C.7.5.1.1.2)."""
    value = _number(header, "PixelPaddingValue", math.nan)
    limit = _number(header, "PixelPaddingRangeLimit", value)
    return None if math.isnan(value) else (min(value, limit), max(value, limit))


def _number(header: Any, key: str, default: float) -> float:
    """A header's number, the first of several."""
    value = header.get(key, None)
    if value is None or value == "":
        return default
    return float(value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value)
