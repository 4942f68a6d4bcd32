"""How a run's skill and its memory of everything else change while it trains, and which checkpoint to keep.

`forgetting.jsonl` of a run folder has a line for the model before training (step 0) and for each scored checkpoint:

    {"step": 50, "domain": 0.925, "probe": 0.8148, "domain_n": 40, "probe_n": 162}

`domain` is the score on what is being learned, `probe` that on general questions; both from 0 to 1.

    choose(scores, budget_points=5)      Choice(step=50, domain=0.925, lost_points=1.2, ...)

Pure functions over these lines; who scores, and when, is `vglm.tuning.checkpoint_scores`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vglm.files import write_json_lines
from vglm.runs import CheckpointScore


@dataclass(frozen=True, slots=True)
class Choice:
    """The checkpoint to keep.

    Attributes:
        step: Its step.
        domain: Its score on the domain, 0.0 to 1.0.
        domain_before: That before training.
        lost_points: Hundredths lost on the probe since before training; negative where it gained.
        budget_points: How many might be lost.
        candidates: Number of checkpoints it was chosen from.
    """

    step: int
    domain: float
    domain_before: float
    lost_points: float
    budget_points: float
    candidates: int

    @property
    def warning(self) -> str | None:
        """What a reader must know before all: that no checkpoint kept to the budget, or none that did has learned."""
        if self.lost_points > self.budget_points:
            return "FORGETTING BUDGET EXCEEDED"
        return None if self.domain > self.domain_before else "NOTHING LEARNED WITHIN THE FORGETTING BUDGET"

    def __str__(self) -> str:
        facts = (
            f"step {self.step} of {self.candidates} checkpoints ({100 * self.domain:.1f} on the domain,"
            f" {100 * self.domain_before:.1f} before; {self.lost_points:.1f} points lost on the probe)"
        )
        if self.warning is None:
            return f"kept {facts}: the best on the domain within a forgetting budget of {self.budget_points:g} points"
        if self.lost_points > self.budget_points:
            found = f"no checkpoint lost {self.budget_points:g} points at most; kept the one that lost least"
        else:
            found = f"no checkpoint that lost {self.budget_points:g} points at most is better than before; kept one"
        return (
            f"{self.warning}: {found}, {facts}. Save more often (trainer.save_steps), lower trainer.learning_rate, mix"
            " other questions in (dataset=with_replay), or allow more"
        )


def choose(scores: Sequence[CheckpointScore], budget_points: float) -> Choice | None:
    """The checkpoint with the best domain score among those that lost no more than a budget on the probe.

    Of equal ones that which lost less is taken, then the earlier. Where all lost more, the one that lost least is.

    Args:
        scores: With probe; step 0, what the loss is counted from, among them.
        budget_points: How many hundredths of the probe's score may be lost.

    Returns:
        The choice; None while there is no checkpoint. Step 0 is none: keeping it would be not to train.
    """
    lost = lost_points(scores)
    candidates = [each for each in scores if each.step > 0]
    if not candidates:
        return None

    def key(each: CheckpointScore) -> tuple[bool, float, float, int]:
        if lost[each.step] <= budget_points:
            return True, each.domain, -lost[each.step], -each.step
        return False, -lost[each.step], each.domain, -each.step

    best = max(candidates, key=key)
    before = next(each.domain for each in scores if each.step == 0)
    return Choice(best.step, best.domain, before, lost[best.step], budget_points, len(candidates))


def is_lost(scores: Sequence[CheckpointScore], budget_points: float, patience: int | None) -> bool:
    """Whether the last `patience` checkpoints all lost more than the budget, so that training on is of no use.

    Args:
        scores: As for `choose`, in order.
        budget_points: Likewise.
        patience: None never gives up.
    """
    lost = lost_points(scores)
    last = [lost[each.step] > budget_points for each in scores if each.step > 0]
    return patience is not None and len(last) >= patience and all(last[-patience:])


def lost_points(scores: Sequence[CheckpointScore]) -> dict[int, float]:
    """Step -> hundredths of the probe's score lost since step 0, to a millionth; nothing where there is no probe."""
    before = next((each.probe for each in scores if each.step == 0), None)
    return {
        each.step: round(100 * (before - each.probe), 6)
        for each in scores
        if before is not None and each.probe is not None
    }


def write_scores(path: Path, scores: Sequence[CheckpointScore]) -> None:
    """Write `forgetting.jsonl`, whole or not at all."""
    write_json_lines(path, map(asdict, scores))
