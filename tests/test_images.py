import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vglm.data import images
from vglm.data.images import check_image_header, decoding_threads, image_sha256, open_image
from vglm.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)  # (height, width, RGB)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header says `width x height`, with hardly any pixels behind it."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 64))]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in [*chunks, (b"IEND", b"")]
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm"])
def test_a_lossless_file_gives_its_pixels(tmp_path: Path, suffix: str) -> None:
    image = open_image(save(tmp_path / f"a.{suffix}", Image.fromarray(PIXELS)))
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), PIXELS)


@pytest.mark.parametrize("mode", ["RGBA", "L", "LA", "P", "1", "CMYK"])
def test_other_modes_become_what_the_original_makes_of_them(tmp_path: Path, mode: str) -> None:
    path = save(tmp_path / "a.tiff", Image.fromarray(PIXELS).convert(mode))
    assert open_image(path).tobytes() == Image.open(path).convert("RGB").tobytes()


def test_transparency_is_dropped_not_blended(tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS)
    image.putalpha(0)
    assert np.array_equal(np.asarray(open_image(save(tmp_path / "a.png", image))), PIXELS)


def test_palette_with_transparency_opens_without_a_warning(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    path = save(tmp_path / "a.png", image, transparency=bytes([0, 128]))
    assert np.asarray(open_image(path)).tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_other_code_may_warn_while_pictures_are_decoded(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(PIXELS))

    def decode_and_warn() -> None:
        with decoding_threads() as pool:
            pool.submit(open_image, path).result()
            pool.submit(warnings.warn, "of something else").result()

    with pytest.warns(UserWarning, match="of something else"):
        decode_and_warn()


def test_what_decoders_warn_of_is_ignored_under_any_later_filter(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(PIXELS))
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("ignore")
        open_image(path)
        warnings.simplefilter("always")
        open_image(path)
        for module in (
            "PIL.Image",
            "pydicom.pixels",
            "openjpeg.utils",
            "gdcm",
            "vglm.data.windowing",
            "other",
            "gdcmx",
        ):
            warnings.warn_explicit(f"of {module}", UserWarning, "file.py", 1, module=module)
    assert [str(warning.message) for warning in shown] == ["of other", "of gdcmx"]


def test_exif_orientation_is_ignored_as_in_the_original(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    assert open_image(save(tmp_path / "a.jpg", Image.fromarray(PIXELS), exif=exif)).size == (5, 7)


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=20))
def test_16_bit_grey_is_scaled(values: list[int]) -> None:
    file = BytesIO()
    Image.fromarray(np.array([values], dtype=np.uint16)).save(file, format="PNG")
    grey = np.asarray(open_image(Image.open(file)))
    assert np.array_equal(grey, np.repeat(np.round(np.array([values]) / 257)[..., None], 3, axis=2))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_grey_values_without_a_white_are_refused(tmp_path: Path, dtype: type) -> None:
    path = save(tmp_path / "a.tiff", Image.fromarray(np.array([[-1, 70000]], dtype=dtype)))
    with pytest.raises(DataError, match=r"a\.tiff holds (int|float)32 grey values from -1.* to 70000"):
        open_image(path)


def test_a_single_pixel_is_a_picture(tmp_path: Path) -> None:
    assert open_image(save(tmp_path / "a.png", Image.new("RGB", (1, 1)))).size == (1, 1)


def test_a_picture_in_memory_needs_no_file() -> None:
    assert np.array_equal(np.asarray(open_image(Image.fromarray(PIXELS))), PIXELS)
    assert open_image(Image.new("L", (3, 2), 9)).getpixel((0, 0)) == (9, 9, 9)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "tiff", "bmp"])
@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.5])
def test_a_file_cut_off_is_refused_by_name(tmp_path: Path, suffix: str, fraction: float) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"cut.{suffix}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    with pytest.raises(DataError, match=rf"cut\.{suffix} is (no picture that can be read|damaged or cut off)"):
        open_image(path)


@given(position=st.integers(0, 400), value=st.integers(0, 255))
def test_a_corrupt_byte_gives_a_picture_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    path = save(tmp_path_factory.getbasetemp() / "corrupt.png", Image.fromarray(np.tile(PIXELS, (4, 4, 1))))
    data = bytearray(path.read_bytes())
    data[position % len(data)] = value
    path.write_bytes(data)
    try:
        outcome = open_image(path).mode
    except DataError as error:
        outcome = str(error)
    assert outcome == "RGB" or "corrupt.png" in outcome


@pytest.mark.parametrize(
    "data", [b"a text that calls itself a picture", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_what_is_no_picture_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "text.png").write_bytes(data)
    with pytest.raises(DataError, match=r"text\.png is no picture that can be read.*Expected one of PNG, JPEG"):
        open_image(tmp_path / "text.png")


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png does not exist"):
        open_image(tmp_path / "none.png")
    with pytest.raises(DataError, match="is not a file"):
        open_image(tmp_path)


@pytest.mark.parametrize(("width", "height"), [(10_001, 10_000), (2**31 - 1, 2**31 - 1), (60_000, 60_000)])
@pytest.mark.parametrize("check", [open_image, check_image_header])
def test_absurd_sizes_are_refused_from_the_header(tmp_path: Path, width: int, height: int, check: object) -> None:
    (tmp_path / "bomb.png").write_bytes(png_claiming(width, height))
    with pytest.raises(DataError, match=r"bomb\.png .*100,000,000.*Scale it down"):
        check(tmp_path / "bomb.png")


def test_the_size_limit_itself_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 35)
    assert open_image(Image.new("RGB", (7, 5))).size == (7, 5)
    with pytest.raises(DataError, match="36 x 1 pixels, more than 35"):
        open_image(Image.new("RGB", (36, 1)))


def test_no_pixels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 x 4 pixels"):
        open_image(Image.new("RGB", (0, 4)))
    (tmp_path / "zero.png").write_bytes(png_claiming(0, 4))
    with pytest.raises(DataError, match=r"zero\.png"):
        open_image(tmp_path / "zero.png")


def test_the_header_alone_does_not_show_later_damage(tmp_path: Path) -> None:
    (tmp_path / "short.png").write_bytes(png_claiming(100, 100))
    check_image_header(tmp_path / "short.png")
    with pytest.raises(DataError, match=r"short\.png is damaged or cut off"):
        open_image(tmp_path / "short.png")


def test_the_hash_is_of_the_content(tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS)
    digest = image_sha256(image)
    assert image_sha256(save(tmp_path / "a.png", image)) == image_sha256(save(tmp_path / "b.bmp", image)) == digest
    turned = Image.frombytes("RGB", (7, 5), image.tobytes())  # the same bytes in another shape
    changed = image.copy()
    changed.putpixel((0, 0), tuple(int(255 - value) for value in PIXELS[0, 0]))
    assert len({digest, image_sha256(turned), image_sha256(changed)}) == 3
