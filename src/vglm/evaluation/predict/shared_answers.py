"""A cache of the untuned model's answers, shared by all runs that start from it.

    shared = SharedAnswers(facts)                  what the answers depend on besides the questions; None shares none
    shared.fetch(folder, "before", splits)         copies answers of an earlier evaluation, if any
    records = answer_splits(...)                   generates what is missing
    shared.keep(folder, "before", splits)          for the next one

They are stored in `cache_folder("answers")`. Everything they depend on is part of their key, including the sources of
the package and the modification time of every picture. Records of other questions are still generated anew.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from vglm.caching import cache_folder
from vglm.data.images import image_sha256
from vglm.data.sample import Sample
from vglm.data.slices import ImageSlice
from vglm.data.splits import fingerprint
from vglm.errors import WorkbenchError
from vglm.evaluation.predictions import PREDICTIONS_FILE, read_predictions
from vglm.evaluation.seals import digest_of
from vglm.files import file_sha256, read_text, replaced_folder, write_text

KIND = "answers"
"""Folder of the cache."""
_HASH_FILE = "sha256"


class SharedAnswers:
    """The kept answers of one model, as it answers now.

    Args:
        facts: All that its answers depend on besides the questions, as JSON; None shares nothing.
    """

    def __init__(self, facts: Mapping[str, Any] | None) -> None:
        self.facts = facts

    def fetch(self, folder: Path, label: str, splits: Mapping[str, Sequence[Sample]]) -> None:
        """Copy cached answers to these questions to where `answer_splits` looks for them, unless some are there.

        Args:
            folder: The evaluation folder.
            label: The arm's name.
            splits: The questions.
        """
        target = folder / label
        if self.facts is None or target.exists():
            return
        stored = self._stored_file(splits)
        try:
            if read_text(stored / _HASH_FILE).strip() != file_sha256(stored / PREDICTIONS_FILE):
                return
            shutil.copytree(stored, target, ignore=shutil.ignore_patterns(_HASH_FILE, ".*"))
        except (WorkbenchError, OSError):  # nothing is kept, or it cannot be read: the model is asked
            shutil.rmtree(target, ignore_errors=True)
            return
        print(f"{label}: answered in an earlier evaluation of the same model")

    def keep(self, folder: Path, label: str, splits: Mapping[str, Sequence[Sample]]) -> None:
        """Cache the answers to these questions; a failure only costs the next evaluation time.

        Where a picture could not be opened nothing is kept: the package or disk that was missing may come back.
        """
        if self.facts is None or (stored := self._stored_file(splits)).exists():
            return
        try:
            if any(prediction.error is not None for prediction in read_predictions(folder / label / PREDICTIONS_FILE)):
                return
            stored.parent.mkdir(parents=True, exist_ok=True)
            with replaced_folder(stored, marker=_HASH_FILE) as new:
                shutil.copytree(folder / label, new, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
                write_text(new / _HASH_FILE, file_sha256(new / PREDICTIONS_FILE) + "\n")
        except (WorkbenchError, OSError):
            return

    def _stored_file(self, splits: Mapping[str, Sequence[Sample]]) -> Path:
        questions = {name: [fingerprint(rows), _pictures(rows)] for name, rows in splits.items()}
        return cache_folder(KIND) / digest_of({"facts": self.facts, "asked": questions})[:32]


def _pictures(samples: Sequence[Sample]) -> str:
    """A hash of where the pictures are and how old, or of their content where they were made in memory."""
    return digest_of({"pictures": [_picture(sample) for sample in samples]})


def _picture(sample: Sample) -> Any:
    image = sample.image
    if isinstance(image, Image.Image):
        return image_sha256(image)
    path = image.file if isinstance(image, ImageSlice) else image
    if path is None or not path.is_file():
        return None
    state = path.stat()
    return [str(image), str(sample.window), path.resolve().as_posix(), state.st_size, state.st_mtime_ns]
