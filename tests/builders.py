"""What several tests make: a sample, the record of an answer, the record of a finished run."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch.nn.modules import module as registration

from vglm.data.sample import Sample, Turn
from vglm.data.slices import ImageSlice
from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.metrics import Score, adjust, compare_arms, measure, select_metrics
from vglm.evaluation.score.metrics.parsing import Labels
from vglm.evaluation.score.statistics import PairedComparison
from vglm.text.prompt import Language

MOST_MODULES, MOST_NUMBERS = 10_000, 10_000_000


class TooLargeError(BaseException):
    """Passes by what handles errors."""


@contextmanager
def little_is_built() -> Iterator[None]:
    """Fail as soon as more modules or parameters are made than a test can mean."""
    modules = numbers = 0

    def add_module(*_: Any) -> None:
        nonlocal modules
        modules += 1
        if modules > MOST_MODULES:
            raise TooLargeError(f"{modules} modules were made")

    def add_parameter(_: Any, name: str, parameter: Any) -> None:
        nonlocal numbers
        numbers += 0 if parameter is None or parameter.is_meta else parameter.numel()
        if numbers > MOST_NUMBERS:
            raise TooLargeError(f"{numbers} numbers of parameters were made, the last ones for {name}")

    handles = [
        registration.register_module_module_registration_hook(add_module),
        registration.register_module_parameter_registration_hook(add_parameter),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def sample(
    id: str = "a.json#1",
    *turns: tuple[str, str],
    question: str = "?",
    answer: str = "!",
    group: str | None = None,
    image: Path | ImageSlice | Image.Image | None = None,
    language: Language = "zh",
    **meta: Any,
) -> Sample:
    """A sample with these turns, or with one question and its answer."""
    dialogue = tuple(Turn(*turn) for turn in turns or ((question, answer),))
    return Sample(id, group or id, image, dialogue, language, meta)


def question_about(
    id: str,
    image: Path | Image.Image | None,
    question: str,
    *,
    language: Language = "zh",
    history: tuple[tuple[str, str], ...] = (),
    **meta: Any,
) -> Sample:
    """A sample that asks about a picture, after these turns."""
    return sample(id, *history, (question, "答案"), image=image, language=language, **meta)


def record(prediction: str = "", reference: str = "", id: str = "0", **values: Any) -> Prediction:
    """The record of an answer in the test split."""
    fields: dict[str, Any] = {
        "group": id, "split": "test", "kind": None, "language": "en", "question": "?", "history": (),
        "image": None, "image_sha256": None,
    }  # fmt: skip
    return Prediction(id=id, prediction=prediction, reference=reference, **(fields | values))


def arm(*pairs: tuple[str, str | None], **values: Any) -> list[Prediction]:
    """Records of (reference, prediction), numbered; no prediction is an error."""
    return [
        record(answer or "", reference, str(index), error="unreadable" if answer is None else None, **values)
        for index, (reference, answer) in enumerate(pairs)
    ]


def score_all(records: Sequence[Prediction], names: Sequence[str], labels: Labels | None = None) -> dict[str, Score]:
    """The records' score by each metric."""
    return {metric.name: measure(metric, records) for metric in select_metrics(names, labels)}


def compare_all(
    before: Sequence[Prediction], after: Sequence[Prediction], names: Sequence[str]
) -> dict[str, tuple[PairedComparison, float | None]]:
    """Two arms by each metric, with p-values by Holm."""
    metrics = select_metrics(names)
    return adjust({metric.name: compare_arms(metric, before, after) for metric in metrics}, metrics)


def run_record(**values: Any) -> dict[str, Any]:
    """What `run.json` of a finished run says, with some values of one's own."""
    data = {"train": 4, "sha256": "d" * 64} | values.pop("data", {})
    training = {"train_runtime": 2.5}
    facts = {"recipe": "tiny/lora", "seed": 1, "started": "2026-01-02T03:04:05.678+00:00"}
    return facts | {"base_weights_sha256": "b" * 64, "data": data, "training": training} | values


def without_seals(evaluation: Path) -> Path:
    """An evaluation folder as versions wrote it that hashed no answers, so that a test can give other answers."""
    (evaluation / "seals.json").unlink(missing_ok=True)
    path = evaluation / "evaluation.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    unsealed = {name: value for name, value in content.items() if name not in ("sealed", "sha256")}
    path.write_text(json.dumps(unsealed, ensure_ascii=False), encoding="utf-8")
    return evaluation


@contextmanager
def interrupted_in_step(number: int) -> Iterator[None]:
    """A training inside is stopped by Ctrl-C in this step, counted from 1."""
    from vglm.tuning.trainer import WorkbenchTrainer  # takes seconds to import

    learn = WorkbenchTrainer.training_step

    def training_step(self: Any, *arguments: Any, **options: Any) -> Any:
        if self.state.global_step == number - 1:
            raise KeyboardInterrupt
        return learn(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WorkbenchTrainer, "training_step", training_step)
        with pytest.raises(KeyboardInterrupt):
            yield
