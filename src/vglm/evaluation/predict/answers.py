"""What the arms of an evaluation answered, and what was found while their models were loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vglm.data.sample import Sample
from vglm.evaluation.predictions import TEXT_ONLY, Arm, Prediction


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
        nearest: For each test sample the answer of `nearest_answers`; empty where nobody looked.
        precision: How the models computed, see `precision_of`.
        shots: What the untuned model was shown before each test question; None where it was not asked so.
    """

    label: str
    records: Mapping[str, Sequence[Prediction]]
    nearest: Sequence[str] = ()
    precision: Mapping[str, Any] = field(default_factory=dict)
    shots: Shots | None = None

    @property
    def candidate(self) -> Sequence[Prediction]:
        """The records of the arm that is judged."""
        return self.records[self.label]

    @property
    def text_only(self) -> Sequence[Prediction]:
        """Its records of the test questions without their images; empty where they were not asked."""
        return self.records.get(TEXT_ONLY) or self.records.get(f"{self.label}-{TEXT_ONLY}") or ()

    @property
    def in_context(self) -> Sequence[Prediction]:
        """The untuned model's records of the test questions after examples; empty where none were asked so."""
        return () if self.shots is None else self.records.get(self.shots.arm.label, ())
