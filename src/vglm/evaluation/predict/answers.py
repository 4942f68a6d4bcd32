"""What the arms of an evaluation answered, and what was noted while their models were loaded: `answers.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vglm.data.sample import Sample
from vglm.errors import DataError
from vglm.evaluation.predictions import TEXT_ONLY, Arm, Prediction, read_arms
from vglm.files import inside, read_record, write_json

ANSWERS_FILE = "answers.json"


@dataclass(frozen=True)
class Shots:
    """Test questions with training examples before them.

    Attributes:
        arm: Label and meaning.
        count: How many examples each question has; 0 where none fit.
        samples: The questions as they are asked; none where no example fits.
    """

    arm: Arm
    count: int
    samples: Sequence[Sample]


@dataclass(frozen=True)
class Answers:
    """What the arms of an evaluation answered.

    Attributes:
        label: The name of the arm that is judged.
        records: The name of every arm and control -> its records.
        nearest: For each test sample the answer of `nearest_answers`; empty where not computed.
        forest: For each test sample the answer of `forest_answers`; empty where it did not run.
        precision: How the models computed, see `precision_of`.
        shots: What the untuned model was shown before each test question; None without in-context examples.
    """

    label: str
    records: Mapping[str, Sequence[Prediction]]
    nearest: Sequence[str] = ()
    forest: Sequence[str] = ()
    precision: Mapping[str, Any] = field(default_factory=dict)
    shots: Shots | None = None

    @property
    def candidate(self) -> Sequence[Prediction]:
        """The records of the arm that is judged."""
        return self.records[self.label]

    @property
    def text_only(self) -> Sequence[Prediction]:
        """Its records of the test questions without their images; empty where there are none."""
        return self.records.get(TEXT_ONLY) or self.records.get(f"{self.label}-{TEXT_ONLY}") or ()

    @property
    def in_context(self) -> Sequence[Prediction]:
        """The untuned model's records of the test questions after examples; empty where there are none."""
        return () if self.shots is None else self.records.get(self.shots.arm.label, ())


@dataclass(frozen=True, slots=True)
class _Noted:
    """What `answers.json` holds: `Answers` without the records, and examples without their samples."""

    label: str
    nearest: tuple[str, ...]
    shots: tuple[Arm, int] | None
    forest: tuple[str, ...] = ()


def write_answers(answers: Answers, folder: Path) -> None:
    """Write `answers.json` into the evaluation folder, whose arms have their records already."""
    shots = answers.shots and [asdict(answers.shots.arm), answers.shots.count]
    content = {"label": answers.label, "nearest": list(answers.nearest), "shots": shots}
    if answers.forest:
        content["forest"] = list(answers.forest)
    write_json(folder / ANSWERS_FILE, content, error=DataError)


def read_answers(folder: Path) -> Answers:
    """Read what the arms answered.

    Raises:
        DataError: A file is missing or damaged.
    """
    noted = read_record(inside(folder, ANSWERS_FILE), _Noted, advice="Run evaluate.py again.")
    shots = noted.shots and Shots(*noted.shots, samples=())
    return Answers(noted.label, read_arms(folder), noted.nearest, noted.forest, shots=shots)
