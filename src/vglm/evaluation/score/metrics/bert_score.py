"""BERTScore, by a model that the user has: `metrics.external.bert_score.model=<folder of a BERT or RoBERTa>`."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vglm.evaluation.score.metrics.external import Compute, ComputedMetric, StoredMetric


@dataclass(frozen=True, slots=True, kw_only=True)
class BertScoreMetric(ComputedMetric):
    """`metrics.external.bert_score`.

    Attributes:
        model: Folder with the weights and the tokenizer of a BERT or RoBERTa.
        num_layers: The layer whose states are compared; None for the one that the package bert-score takes for a model
            of the folder's name.
        batch_size: Pairs of texts at once.
    """

    NAMED_ANEW: ClassVar[tuple[str, ...]] = ("model",)

    model: str
    num_layers: int | None = None
    batch_size: int = 32

    def problems(self) -> Iterable[str]:
        """What is wrong with the values."""
        if self.num_layers is not None and self.num_layers < 1:
            yield f"num_layers must be positive, got {self.num_layers!r}"
        if not (Path(self.model) / "config.json").is_file():
            yield f"model {self.model!r} is no folder with a model's config.json and weights"

    def open(self, key: str, folder: Path) -> tuple[list[StoredMetric], Compute]:
        """Load the model."""
        from vglm.evaluation.score.encoders import BertScore  # imports torch and transformers

        scorer = BertScore(Path(self.model), self.num_layers, batch_size=self.batch_size)
        return [StoredMetric(name=key, title="BERTScore", signature=scorer.signature, rows=key)], scorer.rows
