"""Training samples with the highest loss under the tuned model; wrong labels are often among them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vglm.data.sample import Sample
from vglm.evaluation.predict.generation import keep_image
from vglm.evaluation.predict.likelihoods import score_choices
from vglm.evaluation.predictions import IMAGES_FOLDER, SampleLoss, unanswered, write_losses

SHOWN = 20
"""Samples whose images are kept for the report."""


def measure_losses(
    model: Any, processor: Any, train: Sequence[Sample], folder: Path, *, batch_size: int = 16
) -> list[SampleLoss]:
    """Compute the loss of each training answer, and write all of them into the evaluation folder, highest first.

    Args:
        model: The tuned VisualGLM, or a `PeftModel` of one.
        processor: The model's processor.
        train: The training samples; those whose image cannot be opened are left out. One that a few-shot task repeats
            counts once.
        folder: The evaluation folder: gets `training_loss.json` and copies of the images of the first `SHOWN`.
        batch_size: Samples per call of the model.

    Returns:
        For each sample the mean negative log-likelihood of its answer's tokens, the end included, in nats.
    """
    train = list({(sample.id, sample.question, sample.answer): sample for sample in train}.values())
    answers = [[sample.answer] for sample in train]
    scores = score_choices(model, processor, train, answers, batch_size=batch_size, title="training loss")
    rows = [
        (-score[0].per_token, score[0].tokens, sample) for score, sample in zip(scores, train, strict=True) if score
    ]
    rows.sort(key=lambda row: -row[0])
    losses = []
    for index, (loss, tokens, sample) in enumerate(rows):
        record = unanswered(sample, "train")
        sample_loss = SampleLoss(record.id, record.question, record.reference, loss, tokens, record.image)
        if index < SHOWN and (image := sample.open_image()) is not None:
            sample_loss = replace(sample_loss, image_sha256=keep_image(image, folder / IMAGES_FOLDER))
        losses.append(sample_loss)
    write_losses(losses, folder)
    return losses
