from pathlib import Path

import numpy as np
import PIL
import pytest
from packaging.version import Version
from PIL import Image
from transformers import AutoImageProcessor

import vglm.model  # noqa: F401 (registers the image processor with AutoImageProcessor)
from vglm.model.image_processing import VisualGlmImageProcessor

SIZE = {"height": 28, "width": 28}
NAMES = ["img0.png", "img1.png", "img2_gray.png", "img3_rgba.png", "img4_large.png"]

enlarged = pytest.mark.skipif(
    Version(PIL.__version__) < Version("13"), reason="the reference was made with Pillow 13, which enlarges otherwise"
)


@pytest.mark.parametrize("index", [pytest.param(index, marks=[enlarged] if index == 3 else []) for index in range(5)])
def test_pixel_values_equal_the_originals(index: int, reference: Path) -> None:
    expected = np.load(reference / "expected.npz")[f"images/{index}/pixel_values"]
    processor = VisualGlmImageProcessor(size=SIZE)
    with Image.open(reference / "images" / NAMES[index]) as image:
        array = np.atleast_3d(np.array(image))
        for source in (image, array, np.moveaxis(array, -1, 0)):
            pixel_values = processor(source, return_tensors="np").pixel_values
            assert pixel_values.dtype == np.float32
            np.testing.assert_allclose(pixel_values, expected[None], rtol=0, atol=1e-5)


@pytest.mark.parametrize("index", [0, 4])
def test_the_released_size_equals_the_original(index: int, reference: Path) -> None:
    expected = np.load(reference / "expected.npz")
    with Image.open(reference / "images" / NAMES[index]) as image:
        processor = VisualGlmImageProcessor()
        pixel_values = processor(image, return_tensors="np").pixel_values[0]
    deviation, mean = (np.array(values)[:, None, None] for values in (processor.image_std, processor.image_mean))
    resized = np.moveaxis((pixel_values * deviation + mean) * 255, 0, -1)
    np.testing.assert_allclose(resized, expected[f"images/{index}/resized_224_uint8"], rtol=0, atol=1e-3)
    if index == 0:
        rows = expected["images/0/pixel_values_224_rows_0_111_223"]
        np.testing.assert_allclose(pixel_values[:, [0, 111, 223]], rows, rtol=0, atol=1e-5)


def test_a_list_is_a_batch_in_order() -> None:
    red, blue = (Image.new("RGB", size, colour) for size, colour in (((9, 5), "red"), ((40, 70), "blue")))
    processor = VisualGlmImageProcessor(size=SIZE)
    batch = processor([red, blue], return_tensors="pt").pixel_values
    assert batch.shape == (2, 3, 28, 28)
    for row, image in zip(batch, (red, blue), strict=True):
        assert (row == processor(image, return_tensors="pt").pixel_values[0]).all()


@pytest.mark.parametrize("mode", ["1", "P", "LA", "CMYK", "I;16"])
def test_every_mode_is_converted_as_pillow_does(mode: str) -> None:
    ramp = Image.linear_gradient("L").resize((20, 20))
    source = ramp.convert("I").convert(mode) if mode == "I;16" else ramp.convert(mode)
    processor = VisualGlmImageProcessor(size=SIZE)
    converted = processor(source.convert("RGB"), return_tensors="np").pixel_values
    np.testing.assert_array_equal(processor(source, return_tensors="np").pixel_values, converted)


@pytest.mark.parametrize("auto", [True, False])
def test_a_saved_processor_keeps_its_size(auto: bool, tmp_path: Path) -> None:
    VisualGlmImageProcessor(size=SIZE).save_pretrained(tmp_path)
    reloaded = (AutoImageProcessor if auto else VisualGlmImageProcessor).from_pretrained(tmp_path)
    assert isinstance(reloaded, VisualGlmImageProcessor)
    assert dict(reloaded.size) == SIZE
