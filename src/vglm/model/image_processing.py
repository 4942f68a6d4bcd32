"""Images to `pixel_values`: RGB, square bicubic resize, scaled to 0..1, normalised with CLIP's mean and deviation.

    >>> image_processor = VisualGlmImageProcessor(size={"height": 224, "width": 224})
    >>> image_processor(Image.open("photo.jpg"), return_tensors="pt").pixel_values.shape
    torch.Size([1, 3, 224, 224])

It is transformers' processor of BLIP in its Pillow form: the numbers do not depend on whether torchvision is installed.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers.image_utils import ChannelDimension, infer_channel_dimension_format
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil


class VisualGlmImageProcessor(BlipImageProcessorPil):
    """Prepare an image or a list of images: PIL, of any mode, or arrays (H, W, C) or (C, H, W) of 1, 3 or 4 channels.

    Returns `pixel_values`, float32, shape (number of images, 3, height, width). VisualGLM models differ in `size` only.

    Source: THUDM/visualglm-6b:visual.py (BlipImageEvalProcessor).
    """

    size = {"height": 224, "width": 224}

    def convert_to_rgb(
        self, image: Image.Image | NDArray[Any], input_data_format: str | ChannelDimension | None = None
    ) -> NDArray[Any]:
        """Drop transparency, as the original's `Image.convert("RGB")` does; transformers would paint it white."""
        if isinstance(image, Image.Image):
            return np.array(image.convert("RGB"))
        layout = input_data_format or infer_channel_dimension_format(image, num_channels=(1, 3, 4))
        opaque = image[..., :3] if layout == ChannelDimension.LAST else image[:3]
        return np.asarray(super().convert_to_rgb(opaque, input_data_format=layout))
