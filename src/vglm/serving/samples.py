"""The samples of a saved evaluation as a page shows them: with the picture as the model saw it, if it is available."""

from contextlib import suppress
from pathlib import Path

from PIL import Image

from vglm.data.images import image_sha256, open_image
from vglm.errors import DataError
from vglm.evaluation.predictions import IMAGES_FOLDER, Prediction
from vglm.files import inside


def picture_of(record: Prediction, folder: Path) -> tuple[Image.Image | None, bool]:
    """The picture of a sample.

    Args:
        record: The sample. The path in it is used only if its pixels have the hash in the record.
        folder: The evaluation folder, which holds a small copy.

    Returns:
        Mode RGB: the file that was evaluated if it is still there, else the small copy; None if neither can be had.
        And whether it is what the model saw, which holds for a sample without a picture too.
    """
    if record.image_sha256 is None:
        return None, True
    with suppress(DataError):
        if record.image is not None:
            image = open_image(Path(record.image))
            if image_sha256(image) == record.image_sha256:
                return image, True
    with suppress(DataError):
        return open_image(inside(folder, IMAGES_FOLDER, f"{record.image_sha256}.webp")), False
    return None, False
