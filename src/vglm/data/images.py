"""Open one picture for the model: RGB, fully decoded, or an error with the file's name.

The pixels are what VisualGLM's own `Image.open(path).convert("RGB")` makes: transparency is dropped, not blended;
an EXIF orientation is ignored, so a photograph that relies on it is shown rotated; of an animation the first frame is
used. Two things differ: 16-bit grey is scaled (65535 becomes 255), where `convert` would clip everything above 255 to
white, unless the sample has a window of its own; and DICOM is read, through the window of its header
(`vglm.data.windowing`). A sample opens its picture itself (`Sample.open_image`), because it has its window.

Source: THUDM/VisualGLM-6B:model/chat.py and finetune_visualglm.py.
"""

import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from vglm.data.dicom import MAX_PIXELS, check_dicom_header, decode_first_frame, is_dicom, quiet_decoders, read_dicom
from vglm.data.slices import ImageSlice
from vglm.data.windowing import DeepGrey, Window, WindowRule, find_window
from vglm.errors import DataError, brief

# Formats that Pillow decodes itself. Left out are those it hands to other programs (EPS to Ghostscript).
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")


_ALWAYS_8_BITS = (".jpg", ".jpeg", ".gif", ".bmp", ".webp")


def open_image(image: str | Path | ImageSlice | Image.Image, window: Window | None = None) -> Image.Image:
    """Decode a picture to RGB.

    Args:
        image: A file, a piece of one, or a picture in memory of any mode.
        window: Which values of grey with more than 8 bits are shown, a sample's `window`; None shows all values of a
            16-bit picture, and of a DICOM file those that its header names.

    Returns:
        A new picture, mode RGB, all pixels in memory.

    Raises:
        DataError: The file is missing, no picture, damaged or cut off, has no pixels or more than `MAX_PIXELS`, or its
            grey values have no defined white.
    """
    image = Path(image) if isinstance(image, str) else image
    quiet_decoders()  # what Pillow warns of is either checked below or without effect on RGB
    if isinstance(image, Image.Image):
        return _decode(image, "the image in memory", window)
    with _open_lazily(image, window) as lazy:
        return _decode(lazy, f"image {image}", window)


def usable_cores() -> int:
    """The processor's cores that this process may use: its share of them where several run on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def decoding_threads() -> ThreadPoolExecutor:
    """As many threads as cores, for decoders let each other run."""
    return ThreadPoolExecutor(usable_cores())


def check_image_header(image: Path | ImageSlice) -> None:
    """Read only a picture's first bytes: enough to find missing files, other kinds of file and absurd sizes.

    Args:
        image: A file or a piece of one.

    Raises:
        DataError: As `open_image`, but for damage further on.
    """
    quiet_decoders()
    if is_dicom(image):
        check_dicom_header(image)
        return
    with _open_lazily(image) as lazy:
        _check_size(lazy, f"image {image}")


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a picture's header says, before decoding.

    Attributes:
        format: Such as "PNG"; "DICOM" where it is not one of Pillow's.
        mode: Pillow's mode: "RGB", "L" (grey), "RGBA", "P" (palette), "I;16" (16-bit grey), "CMYK" ...
        width: In pixels.
        height: In pixels.
        is_turned: An EXIF orientation asks for a rotation or reflection, which the model does not apply.
    """

    format: str
    mode: str
    width: int
    height: int
    is_turned: bool


def read_image_header(image: Path | ImageSlice) -> ImageHeader:
    """Read only a picture's first bytes.

    Args:
        image: The file, or where in a larger file it is.

    Returns:
        What they say.

    Raises:
        DataError: As `check_image_header`.
    """
    quiet_decoders()
    with _open_lazily(image) as lazy:
        _check_size(lazy, f"image {image}")
        try:
            orientation = lazy.getexif().get(ExifTags.Base.Orientation, 1)
        except Exception:  # damaged EXIF data; Pillow raises many kinds, and the orientation cannot be read
            orientation = 1
        return ImageHeader(lazy.format or "DICOM", lazy.mode, lazy.width, lazy.height, orientation in range(2, 9))


def image_sha256(image: Path | ImageSlice | Image.Image) -> str:
    """Identify a picture by its content, whatever its file is called and however it is compressed.

    Args:
        image: A file, a piece of one, or a picture in memory.

    Returns:
        SHA-256 over width, height and the decoded RGB pixels, as 64 hexadecimal digits.

    Raises:
        DataError: As `open_image`.
    """
    rgb = open_image(image)
    return hashlib.sha256(f"{rgb.width}x{rgb.height} RGB\n".encode() + rgb.tobytes()).hexdigest()


def choose_window(image: Path | ImageSlice, rule: WindowRule) -> Window | None:
    """Compute which grey values of a picture a rule shows.

    Args:
        image: A file, or a piece of one.
        rule: See `vglm.data.windowing`.

    Returns:
        The window; None for a picture in colour, of 8 bits, or that is not a picture: opening it raises the error.

    Raises:
        ConfigError: `rule` is none.
        DataError: The rule gives no window, or a DICOM file cannot be read.
    """
    grey = _read_deep(image)
    return None if grey is None else find_window(grey, rule, f"image {image}")


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
    except Exception:  # reported, with its reason, when the picture is opened
        return None


def _show_dicom(image: Path | ImageSlice, window: Window | None) -> Image.Image:
    """A DICOM file as a picture of mode L or RGB; without a window by the rule `auto`."""
    grey = read_dicom(image)
    if grey is None:
        return Image.fromarray(decode_first_frame(image))
    return Image.fromarray(grey.show(window or find_window(grey, "auto", f"image {image}")))


def _open_lazily(image: Path | ImageSlice, window: Window | None = None) -> Image.Image:
    if isinstance(image, Path) and not os.path.isfile(image):  # unlike Path.is_file it answers for over-long names too
        actual = "is not a file" if os.path.exists(image) else "does not exist"
        raise DataError(f"image {image} {actual}. Expected a picture.")
    source = image if isinstance(image, Path) else io.BytesIO(image.read_bytes())
    Image.init()
    formats = [name for name in _FORMATS if name in Image.OPEN]  # a Pillow built without AVIF does not know the name
    try:
        return Image.open(source, formats=formats)
    except Image.DecompressionBombError as error:
        raise DataError(f"image {image} is larger than {MAX_PIXELS:,} pixels. Scale it down.") from error
    except Exception as error:  # Pillow raises many kinds for damaged data
        if is_dicom(image):
            return _show_dicom(image, window)
        raise DataError(
            f"image {image} is no picture that can be read: {brief(error)}."
            f" Expected one of {', '.join(formats)}, DICOM."
        ) from error


def _decode(image: Image.Image, name: str, window: Window | None) -> Image.Image:
    _check_size(image, name)
    try:
        image.load()
    except Exception as error:  # as above
        raise DataError(f"{name} is damaged or cut off: {brief(error)}. Replace the file.") from error
    if image.mode == "F" or image.mode.startswith("I"):
        image = _scale_to_8_bits(image, name, window)
    try:
        return image.convert("RGB")
    except Exception as error:  # as above
        raise DataError(f"{name} has colours that are none: {brief(error)}. Save it as RGB.") from error


def _check_size(image: Image.Image, name: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{name} has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}. Scale it down.")
    if image.width * image.height == 0:
        raise DataError(f"{name} has {image.width} x {image.height} pixels, so there is nothing to see. Replace it.")


def _scale_to_8_bits(image: Image.Image, name: str, window: Window | None) -> Image.Image:
    grey = np.asarray(image)
    if window is not None:
        return Image.fromarray(window.apply(grey))
    if image.mode == "F" or grey.min() < 0 or grey.max() > 65535:
        raise DataError(
            f"{name} holds {grey.dtype} grey values from {grey.min()} to {grey.max()}, "
            "for which white is not defined. Save it with 8 or 16 bits."
        )
    return Image.fromarray(((grey.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))
