import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from builders import sample as make_sample
from PIL import Image

from vglm.data.collator import open_image_of
from vglm.data.dicom import is_dicom
from vglm.data.doctor import examine, write_cleaned_copy
from vglm.data.doctor.pictures import look_at
from vglm.data.images import check_image_header, image_sha256, open_image
from vglm.data.loading import load_dataset
from vglm.data.problems import BadRow
from vglm.data.readers import add_window, read_samples
from vglm.data.sample import Sample
from vglm.data.slices import ImageSlice
from vglm.data.windowing import Window, check_rule
from vglm.errors import ConfigError, DataError

pydicom = pytest.importorskip("pydicom")

RAMP = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)


def write_dicom(path: Path, pixels: np.ndarray, **tags: object) -> Path:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"  # Digital X-Ray Image Storage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID, header.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    header.Rows, header.Columns = pixels.shape[:2]
    header.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    header.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        header.PlanarConfiguration = 0
    header.BitsAllocated = 8 * pixels.dtype.itemsize
    header.BitsStored = 12 if pixels.dtype.itemsize == 2 else 8
    header.HighBit = header.BitsStored - 1
    header.PixelRepresentation = int(pixels.dtype.kind == "i")
    header.PixelData = pixels.tobytes()
    for tag, value in tags.items():
        setattr(header, tag, value)
    header.save_as(path, enforce_file_format=True)
    return path


def sample_of(image: Path | ImageSlice) -> Sample:
    return make_sample("x#1", image=image)


def grey(picture: Image.Image) -> np.ndarray:
    assert picture.mode == "RGB"
    return np.asarray(picture)[..., 0]


def windowed(path: Path | ImageSlice, rule: str = "auto") -> Sample:
    sample = add_window(sample_of(path), rule)
    assert isinstance(sample, Sample), sample
    return sample


def window_of(path: Path, rule: str = "auto") -> Window:
    window = windowed(path, rule).window
    assert window is not None
    assert Window.recorded(json.loads(json.dumps(window.record())), "x") == window
    return window


def test_the_headers_window_is_applied_as_the_standard_defines_it(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", RAMP, WindowCenter=["2048", "100"], WindowWidth=["1001", "10"])
    # PS3.3 C.11.2.1.2.1: ((x - (c - 0.5)) / (w - 1) + 0.5) * 255 between c - 0.5 +- (w - 1) / 2
    expected = np.clip((RAMP - 2047.5) / 1000 + 0.5, 0, 1) * 255
    np.testing.assert_array_equal(grey(open_image(path)), expected.round().astype(np.uint8))
    assert window_of(path) == Window("file", 2047.5, 1000.0)


def test_exact_linear_windows_are_taken_as_they_stand(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", RAMP, WindowCenter=2048, WindowWidth=1000, VOILUTFunction="LINEAR_EXACT")
    assert window_of(path) == Window("file", 2048.0, 1000.0)


def lookup(first: int, values: np.ndarray, bits: int) -> object:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(values), first, bits])
    item.add_new("LUTData", "OW", values.astype("<u2").tobytes())
    return Sequence([item])


CURVE = np.linspace(0, 1, 4096) ** 2
AS_PYDICOM_SHOWS = {
    "linear": {"WindowCenter": 1500, "WindowWidth": 2000},
    "a width of one": {"WindowCenter": 2048, "WindowWidth": 1},
    "linear, exact": {"WindowCenter": 1500, "WindowWidth": 2000, "VOILUTFunction": "LINEAR_EXACT"},
    "linear, exact and narrow": {"WindowCenter": 1500, "WindowWidth": 0.5, "VOILUTFunction": "LINEAR_EXACT"},
    "sigmoid": {"WindowCenter": 1500, "WindowWidth": 1000, "VOILUTFunction": "SIGMOID"},
    "sigmoid, rescaled": {
        "WindowCenter": 200,
        "WindowWidth": 300,
        "VOILUTFunction": "SIGMOID",
        "RescaleSlope": "0.5",
        "RescaleIntercept": "-1000",
    },
    "several windows": {"WindowCenter": ["1500", "9"], "WindowWidth": ["2000", "9"]},
    "a modality table": {
        "WindowCenter": 30000,
        "WindowWidth": 50000,
        "ModalityLUTSequence": lambda: lookup(0, CURVE * 65535, 16),
    },
    "a table of values": {"VOILUTSequence": lambda: lookup(0, CURVE * 4095, 12)},
    "a table before a window": {
        "WindowCenter": 1500,
        "WindowWidth": 2000,
        "VOILUTSequence": lambda: lookup(1000, CURVE[::2] * 65535, 16),
    },
    "a table after the rescaling": {
        "RescaleSlope": "1",
        "RescaleIntercept": "-1024",
        "VOILUTSequence": lambda: lookup(-1024, CURVE * 65535, 16),
    },
}


@pytest.mark.parametrize("tags", AS_PYDICOM_SHOWS.values(), ids=AS_PYDICOM_SHOWS)
@pytest.mark.parametrize("kind", ["MONOCHROME2", "MONOCHROME1"])
def test_a_picture_is_shown_as_pydicom_shows_it(tmp_path, tags, kind):
    tags = {name: value() if callable(value) else value for name, value in tags.items()}
    path = write_dicom(tmp_path / "a.dcm", RAMP, PhotometricInterpretation=kind, **tags)
    header = pydicom.dcmread(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = pydicom.pixels.apply_modality_lut(header.pixel_array, header)
        shown = pydicom.pixels.apply_voi_lut(values, header).astype(float)
    slope, intercept = float(tags.get("RescaleSlope", 1)), float(tags.get("RescaleIntercept", 0))
    if "VOILUTSequence" in tags:
        ends = 0.0, 2.0 ** tags["VOILUTSequence"][0].LUTDescriptor[2] - 1
    else:
        ends = (0.0, 65535.0) if "ModalityLUTSequence" in tags else (intercept, 4095 * slope + intercept)
    expected = (shown - ends[0]) / (ends[1] - ends[0]) * 255
    expected = 255 - expected if kind == "MONOCHROME1" else expected
    assert np.abs(grey(open_image(path)) - expected).max() <= 0.5 + 1e-3
    assert np.array_equal(grey(open_image(path)), grey(windowed(path).open_image()))
    assert window_of(path, "file") == window_of(path)


@pytest.mark.parametrize(
    ("padded", "tags"),
    [
        (0, {"PixelPaddingValue": 0}),
        (4095, {"PixelPaddingValue": 4095}),
        (3, {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 5}),
        (3, {"PixelPaddingValue": 5, "PixelPaddingRangeLimit": 0}),
    ],
)
@pytest.mark.parametrize("slope", [1, -2])
def test_padding_has_no_part_in_the_percentiles(tmp_path, padded, tags, slope):
    pixels = (RAMP // 4 + 1000).astype(np.uint16)
    pixels[:4] = padded
    tags = {**tags, "RescaleSlope": slope, "RescaleIntercept": 100}
    window = window_of(write_dicom(tmp_path / "a.dcm", pixels, **tags), "percentiles")
    low, high = np.percentile(pixels[4:] * float(slope) + 100, (0.5, 99.5))
    assert (window.center, window.width) == pytest.approx(((low + high) / 2, high - low))


def test_nothing_but_padding_is_a_picture_all_the_same(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", np.full((8, 8), 7, np.uint16), PixelPaddingValue=7)
    assert window_of(path) == Window("percentiles", 7.0, 1.0)


def test_an_unknown_curve_and_a_broken_table_are_refused(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", RAMP, WindowCenter=9, WindowWidth=9, VOILUTFunction="CUBIC")
    with pytest.raises(DataError, match=r"has a window of the kind 'CUBIC'\. Set the rule percentiles"):
        open_image(path)
    assert window_of(path, "percentiles").rule == "percentiles"
    table = lookup(0, CURVE[:8] * 65535, 16)
    table[0].LUTDescriptor = [4096, 0, 16]
    for name in ("ModalityLUTSequence", "VOILUTSequence"):
        with pytest.raises(DataError, match="is DICOM that cannot be read"):
            open_image(write_dicom(tmp_path / "b.dcm", RAMP, **{name: table}))


def packed(first: int, values: np.ndarray) -> object:
    """A table of 8-bit entries, a byte each."""
    table = lookup(first, values, 8)
    table[0]["LUTData"].value = values.astype(np.uint8).tobytes()
    return table


TABLES = {
    "8 bits, more entries than 256": lambda values: lookup(0, values * 255, 8),
    "8 bits, packed in bytes": lambda values: packed(0, values * 255),
    "9 bits": lambda values: lookup(0, values * 511, 9),
    "12 bits": lambda values: lookup(0, values * 4095, 12),
    "16 bits, from a negative value": lambda values: lookup(-1000, np.append(np.zeros(1000), values) * 65535, 16),
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("name", ["VOILUTSequence", "ModalityLUTSequence"])
def test_tables_of_every_depth_are_followed(tmp_path, table, name):
    path = write_dicom(tmp_path / "a.dcm", RAMP, **{name: table(CURVE)})
    shown = grey(windowed(path, "file" if name == "VOILUTSequence" else "full").open_image()).astype(float)
    assert np.abs(shown - CURVE[RAMP] * 255).max() <= 1


def test_values_beside_a_table_are_its_first_and_last(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", RAMP, VOILUTSequence=lookup(1000, CURVE[:500] * 255 / CURVE[499], 8))
    shown = grey(open_image(path))
    assert (shown[RAMP < 1000] == 0).all()
    assert (shown[RAMP >= 1500] == 255).all()


def test_a_recorded_table_needs_the_files_own(tmp_path):
    table = window_of(write_dicom(tmp_path / "a.dcm", RAMP, VOILUTSequence=lookup(0, CURVE * 4095, 12)))
    assert table.function == "TABLE"
    with pytest.raises(DataError, match="is a look-up table, and the picture's file has none"):
        open_image(write_dicom(tmp_path / "b.dcm", RAMP), table)
    with pytest.raises(DataError, match="has the unknown function 'CUBIC'"):
        Window.recorded({**table.record(), "function": "CUBIC"}, "x")


def test_without_a_window_the_percentiles_decide(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", RAMP)
    low, high = np.percentile(RAMP, (0.5, 99.5))
    assert window_of(path) == Window("percentiles", (low + high) / 2, high - low)
    shown = grey(open_image(path))
    assert (shown.min(), shown.max()) == (0, 255)


def test_what_is_recorded_is_what_is_shown(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", RAMP, WindowCenter=2048, WindowWidth=1001)
    shown = grey(windowed(path, "1024/512").open_image())
    expected = (np.clip((RAMP.astype(float) - 768) / 512, 0, 1) * 255).round()
    np.testing.assert_array_equal(shown, expected)
    assert not np.array_equal(shown, grey(open_image(path)))


def test_rescaling_comes_before_the_window_and_full_means_the_stored_bits(tmp_path):
    tags = {"RescaleSlope": "2", "RescaleIntercept": "-1000"}
    path = write_dicom(tmp_path / "a.dcm", RAMP, **tags)
    window = window_of(path, "full")
    assert window.center - window.width / 2 == -1000
    assert window.center + window.width / 2 == 4095 * 2 - 1000
    shown = grey(open_image(path, window))
    np.testing.assert_array_equal(shown, (RAMP / 4095 * 255).round())


def test_monochrome1_is_turned_round(tmp_path):
    plain = write_dicom(tmp_path / "a.dcm", RAMP, WindowCenter=2048, WindowWidth=4097)
    inverted = write_dicom(
        tmp_path / "b.dcm", RAMP, WindowCenter=2048, WindowWidth=4097, PhotometricInterpretation="MONOCHROME1"
    )
    difference = grey(open_image(plain)).astype(int) + grey(open_image(inverted)) - 255
    assert abs(difference).max() <= 1
    assert window_of(inverted).inverted


def test_signed_values_and_colour_are_read(tmp_path):
    signed = write_dicom(tmp_path / "a.dcm", RAMP.astype(np.int16) - 2048)
    assert window_of(signed, "full").center == -0.5
    colours = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    path = write_dicom(tmp_path / "b.dcm", colours)
    np.testing.assert_array_equal(np.asarray(open_image(path)), colours)
    assert windowed(path).window is None


def test_deep_png_is_shown_by_its_recorded_window(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(RAMP).save(path)
    assert grey(open_image(path)).max() == 16  # all of 0 to 65535 is shown: 12 bits of it are nearly black
    assert window_of(path).rule == "percentiles"
    assert grey(windowed(path).open_image()).max() == 255
    assert window_of(path, "full").width == 65535


def test_a_row_brings_its_window_along(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    window = Window("given", 2048.0, 4096.0, inverted=True)
    row = {"image": "a.png", "question": "?", "answer": "!", "grey_window": window.record()}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (sample,) = read_samples(tmp_path / "rows.jsonl")
    assert (sample.window, dict(sample.meta)) == (window, {})
    np.testing.assert_array_equal(grey(sample.open_image()), window.apply(RAMP))
    (tmp_path / "rows.jsonl").write_text(json.dumps(row | {"grey_window": "bright"}))
    with pytest.raises(DataError, match="'grey_window' has to be a window"):
        list(read_samples(tmp_path / "rows.jsonl"))


def test_pictures_of_8_bits_have_no_window(tmp_path):
    for name, mode in (("a.png", "L"), ("b.png", "RGB"), ("c.jpg", "L")):
        Image.new(mode, (4, 4)).save(tmp_path / name)
        assert windowed(tmp_path / name).window is None


def test_a_piece_of_a_larger_file_is_read_too(tmp_path):
    content = write_dicom(tmp_path / "a.dcm", RAMP, WindowCenter=2048, WindowWidth=4096).read_bytes()
    (tmp_path / "shard").write_bytes(b"x" * 100 + content)
    piece = ImageSlice(tmp_path / "shard", 100, len(content))
    assert is_dicom(piece)
    np.testing.assert_array_equal(np.asarray(open_image(piece)), np.asarray(open_image(tmp_path / "a.dcm")))
    assert windowed(piece).window is not None


def test_broken_files_become_messages(tmp_path):
    whole = write_dicom(tmp_path / "a.dcm", RAMP)
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(whole.read_bytes()[:-200])
    check_image_header(whole)
    with pytest.raises(DataError, match="cannot be decoded"):
        open_image(cut)
    assert isinstance(add_window(sample_of(cut)), BadRow)
    (tmp_path / "junk.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 64)
    with pytest.raises(DataError, match=r"junk\.dcm is DICOM"):
        open_image(tmp_path / "junk.dcm")
    palette = write_dicom(tmp_path / "p.dcm", RAMP, PhotometricInterpretation="PALETTE COLOR")
    with pytest.raises(DataError, match="of the kind PALETTE COLOR"):
        check_image_header(palette)
    row = add_window(sample_of(whole), "file")
    assert isinstance(row, BadRow)
    assert (row.row, "names no window" in row.fault) == ("1", True)


def test_rules_and_recorded_windows_are_checked():
    for rule in ("auto", "2048/4096", "-500/1500.5"):
        check_rule(rule)
    for rule in ("Auto", "2048", "2048/0", "a/b"):
        with pytest.raises(ConfigError, match=r"dataset\.options\.window must be one of auto, file"):
            check_rule(rule)
    for value in ("bright", {"rule": "full"}, {"rule": "full", "center": 0, "width": 0, "inverted": False}):
        with pytest.raises(DataError, match="grey_window"):
            Window.recorded(value, "image x")


def test_without_pydicom_the_message_names_the_extra(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", RAMP)
    code = (
        "import sys; sys.modules['pydicom'] = None\n"
        "from pathlib import Path; from vglm.data.images import open_image\n"
        f"open_image(Path({str(path)!r}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'is DICOM, which needs pydicom: pip install ".[xray]".' in result.stderr


def test_whoever_opens_the_picture_sees_it_through_its_window(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "2_1.png")
    (tmp_path / "openi.json").write_text(json.dumps({"annotations": [{"image_id": "2_1", "caption": "Normal."}]}))
    data = load_dataset(tmp_path / "openi.json")
    (sample,) = data.train
    shown = image_sha256(sample.open_image())
    assert shown != image_sha256(sample.image)
    assert data.hash_images([sample]) == [sample.image_sha256()] == [shown]
    assert look_at(sample)["pixels"].tobytes().hex() == shown[:32]
    assert image_sha256(open_image_of(sample)) == shown
    with examine(tmp_path / "openi.json", workers=1) as diagnosis:
        (cleaned,) = diagnosis.survey.samples()
        write_cleaned_copy(diagnosis, tmp_path / "cleaned")
    assert (cleaned.window, dict(cleaned.meta)) == (sample.window, dict(sample.meta))
    (copied,) = load_dataset(tmp_path / "cleaned" / "data.jsonl").train
    assert (copied.window, image_sha256(copied.open_image())) == (sample.window, shown)
