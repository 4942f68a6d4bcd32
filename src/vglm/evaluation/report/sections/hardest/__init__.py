"""The training samples that the tuned model finds hardest, among which wrong labels are often found."""

import base64
from collections.abc import Mapping
from statistics import median
from typing import Any

from vglm.evaluation.predictions import IMAGES_FOLDER, SampleLoss, read_losses
from vglm.evaluation.report.formatting import section_texts
from vglm.evaluation.report.section import Scored
from vglm.evaluation.report.sections.answers import reduced
from vglm.files import inside

say = section_texts(__file__)
MAX_SHOWN = 20


def show(scored: Scored) -> Mapping[str, Any] | None:
    """The hardest samples with their pictures; None where no loss was measured."""
    losses = read_losses(scored.folder)
    if not losses:
        return None
    middle = median(loss.loss for loss in losses)
    rows = [(loss, f"{loss.loss:.2f}", _picture(scored, loss)) for loss in losses[:MAX_SHOWN]]
    return {"hardest": rows, "about": say("about", n=len(losses), k=len(rows), median=f"{middle:.2f}")}


def record(scored: Scored) -> Mapping[str, Any]:
    """Sample -> loss, highest first."""
    losses = read_losses(scored.folder)
    return {"training_loss": {loss.id: loss.loss for loss in losses}} if losses else {}


def _picture(scored: Scored, sample: SampleLoss) -> str | None:
    """A small picture as the page holds it; None where the folder has none."""
    if sample.image_sha256 is None:
        return None
    path = inside(scored.folder, IMAGES_FOLDER, f"{sample.image_sha256}.webp")
    if not path.is_file():
        return None
    return "data:image/webp;base64," + base64.b64encode(reduced(path.read_bytes())).decode()
