"""F1 of 14 findings by CheXbert, whose weights the user has: `metrics.external.chexbert.weights=<chexbert.pth> …`."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from vglm.evaluation.score.metrics.external import CHEXBERT_NAMES, Compute, ComputedMetric, StoredMetric

_KINDS = {
    "micro_f1": ("micro-F1 of 14", "微平均 F1（14 类）", "14 classes"),
    "macro_f1": ("macro-F1 of 14", "宏平均 F1（14 类）", "14 classes|absent ones 0"),
    "micro_f1_5": ("micro-F1 of 5", "微平均 F1（5 类）", "5 classes"),
    "macro_f1_5": ("macro-F1 of 5", "宏平均 F1（5 类）", "5 classes|absent ones 0"),
}
"""Statistic -> title, title in Chinese, signature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChexbertMetric(ComputedMetric):
    """`metrics.external.chexbert`.

    Attributes:
        weights: The published `chexbert.pth`.
        tokenizer: Folder with the `vocab.txt` of bert-base-uncased.
        uncertain: What uncertain findings count as: `positive`, as in F1-CheXbert, or `negative`.
        batch_size: Reports at once.
    """

    NAMED_ANEW: ClassVar[tuple[str, ...]] = ("weights", "tokenizer")

    weights: str
    tokenizer: str
    uncertain: Literal["positive", "negative"] = "positive"
    batch_size: int = 16

    def names(self, key: str) -> tuple[str, ...]:
        """The names of its metrics, whatever its key."""
        return CHEXBERT_NAMES

    def problems(self) -> Iterable[str]:
        """What is wrong with the values."""
        if not Path(self.weights).is_file():
            yield f"weights {self.weights!r} is no file; expected chexbert.pth"
        if not (Path(self.tokenizer) / "vocab.txt").is_file():
            yield f"tokenizer {self.tokenizer!r} has no vocab.txt; expected a folder with that of bert-base-uncased"

    def open(self, key: str, folder: Path) -> tuple[list[StoredMetric], Compute]:
        """Load the labeller."""
        from vglm.evaluation.score.encoders import Chexbert  # imports torch and transformers

        labeller = Chexbert(Path(self.weights), Path(self.tokenizer), batch_size=self.batch_size)
        described = [
            StoredMetric(
                name=f"chexbert_{statistic}",
                title=f"CheXbert, {title}",
                title_zh=f"CheXbert {title_zh}",
                signature=f"{labeller.signature}|uncertain counts as {self.uncertain}|{how}",
                rows=key,
                statistic=statistic,
            )
            for statistic, (title, title_zh, how) in _KINDS.items()
        ]
        return described, lambda records: labeller.rows(records, uncertain=self.uncertain)
