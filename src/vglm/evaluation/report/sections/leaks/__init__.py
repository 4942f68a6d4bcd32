"""Test pictures that were trained on, beside the training pictures that they are or are made from."""

import base64
from collections.abc import Mapping
from typing import Any

from vglm.errors import DataError
from vglm.evaluation.predictions import IMAGES_FOLDER, LEAKS_FILE
from vglm.evaluation.report.formatting import section_texts
from vglm.evaluation.report.section import Scored
from vglm.files import inside, read_json

say = section_texts(__file__)


def show(scored: Scored) -> Mapping[str, Any] | None:
    """The pairs, each with both pictures; None where there are none."""
    path = inside(scored.folder, LEAKS_FILE)
    if not path.is_file():
        return None
    content = read_json(path)
    try:
        pairs = [
            {
                "how": say.name("how", str(pair["how"])),
                "names": (str(pair["tested"]), str(pair["learned"])),
                "images": [_picture(scored, str(digest)) for digest in pair["images"]],
            }
            for pair in content["pairs"]
        ]
        return {"pairs": pairs, "about": say("about", n=int(content["total"]), shown=len(pairs))}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged. Run evaluate.py again.") from error


def _picture(scored: Scored, digest: str) -> str | None:
    """A small copy as a data URI; None where it is gone."""
    path = inside(scored.folder, IMAGES_FOLDER, f"{digest}.webp")
    return "data:image/webp;base64," + base64.b64encode(path.read_bytes()).decode() if path.is_file() else None
