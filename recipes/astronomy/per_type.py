"""Score an evaluation type by type: precision, recall and F1 of each type of star, and their plain mean, macro-F1.

python recipes/astronomy/per_type.py outputs/astronomy/variable_stars/<time>/evaluation

Every type counts alike in macro-F1, so a model that never names a rare type pays for it, however rare it is; accuracy
would hardly show it. An answer that is no type's name counts against the true type and for none.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from vglm.data.astronomy.questions import TYPES
from vglm.errors import DataError, WorkbenchError
from vglm.evaluation.predictions import PREDICTIONS_FILE, Prediction, read_evaluation, read_predictions


@dataclass(frozen=True)
class TypeScore:
    """How well one type is named.

    Attributes:
        stars: Number of stars of this type.
        precision: Share of right answers among those that name it; 0 if none does.
        recall: Share of its questions that are answered right.
    """

    stars: int
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Harmonic mean of the two, 0 if both are."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def score_types(predictions: Sequence[Prediction]) -> dict[str, TypeScore]:
    """Score the questions about the type.

    Args:
        predictions: Records of an arm; those of another `kind` than "type" are left out.

    Returns:
        The types that occur among the references, the most frequent first.

    Raises:
        DataError: No record asks about a type.
    """
    asked = [each for each in predictions if each.kind == "type"]
    if not asked:
        raise DataError("expected questions of the kind 'type', found none. Evaluate on a set of variable stars.")
    truth, named, right = Counter[str](), Counter[str](), Counter[str]()
    stars: dict[str, set[str]] = {}
    for record in asked:
        expected, answer = _type(record.reference), _type(record.prediction)
        truth[expected] += 1
        named[answer] += 1
        right[expected] += answer == expected
        stars.setdefault(expected, set()).add(record.group)
    return {
        name: TypeScore(len(stars[name]), right[name] / max(named[name], 1), right[name] / count)
        for name, count in truth.most_common()
    }


def _type(answer: str) -> str:
    name = answer.strip().rstrip("。.")
    return next((key for key, each in TYPES.items() if name in (each.chinese, each.english)), name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of each arm; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="an evaluation folder, as evaluate.py writes it")
    folder = parser.parse_args(arguments).folder
    try:
        evaluation = read_evaluation(folder)
        for arm in (evaluation.baseline, evaluation.candidate):
            scores = score_types(read_predictions(folder / arm.label / PREDICTIONS_FILE))
            print(f"{arm.label}: macro-F1 {fmean(each.f1 for each in scores.values()):.3f}")
            for name, each in scores.items():
                print(
                    f"  {name:<16} {each.stars:>5} stars   precision {each.precision:.2f}   recall {each.recall:.2f}"
                    f"   F1 {each.f1:.2f}"
                )
    except WorkbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
