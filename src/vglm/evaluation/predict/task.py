"""A task: which data to ask about, in which words, decoded and scored how, all in one file with a version.

conf/task/mme.yaml
    # @package _global_
    defaults:
      - override /dataset: mme
      - override /metrics: mme
    task: {_target_: vglm.evaluation.predict.task.Task, name: mme, version: 1, prompt: "{question}"}
    splits: [test]
    max_new_tokens: 16

python evaluate.py task=mme dataset.path=<folder> run=latest
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vglm.data.sample import Sample
from vglm.data.templates import QUESTION, fill_template, parse_template
from vglm.errors import ConfigError
from vglm.evaluation.messages import Message, Sentence

if TYPE_CHECKING:
    from vglm.evaluation.predict.arms import Arms, ModelArm

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_VERSION = re.compile(r"\d+(\.\d+)*")


@dataclass(frozen=True)
class Task:
    """What a task file sets besides data, decoding and metrics; the default is no task.

    Attributes:
        name: In lower case, such as `mme`: part of folder names and reports.
        version: An integer or x.y, raised whenever prompt, data or scoring changes, so that scores of different
            versions are not taken for comparable.
        prompt: A template of the question, see `fill_template`.

    Raises:
        ConfigError: The name, the version or the prompt cannot be.
    """

    name: str | None = None
    version: int | float | str | None = None
    prompt: str = QUESTION

    def __post_init__(self) -> None:
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise ConfigError(f"task.name must be of lower-case letters, digits, - and _, got {self.name!r}.")
        if self.name is not None and not _VERSION.fullmatch(str(self.version)):
            raise ConfigError(f"task.version must be a whole number or x.y, got {self.version!r}.")
        parse_template(self.prompt)

    @property
    def facts(self) -> dict[str, Sentence]:
        """What a report shows of it; nothing where the questions are asked as they are and no task was named."""
        facts: dict[str, Sentence] = {}
        if self.name is not None:
            facts["task"] = Message("task", {"name": self.name, "version": self.version})
        return facts if not facts and self.prompt == QUESTION else {**facts, "prompt": self.prompt}

    def check(self, samples: dict[str, Sequence[Sample]]) -> dict[str, Sequence[Sample]]:
        """Return the samples to evaluate, if the prompt can be made of it.

        Raises:
            ConfigError: The prompt has a field that not all samples have.
        """
        for rows in samples.values():
            self.reword(rows)
        return samples

    def reword(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Samples with their last questions in the task's words, see `fill_template`."""
        return fill_template(samples, self.prompt)

    def ask(self, arms: "Arms") -> "Arms":
        """The same arms, asked in the task's words, with the task among their facts.

        Args:
            arms: With samples as they were read, so that their provenance stays valid.
        """
        title = arms.title
        if self.name is not None:
            title = f"{arms.facts['model']} on {self.name}" if "model" in arms.facts else f"{title}, {self.name}"
        return replace(
            arms,
            title=title,
            facts={**arms.facts, **self.facts},
            baseline=self._reworded(arms.baseline),
            candidate=self._reworded(arms.candidate),
        )

    def output_dir(self, run: Path | None, model: str, data: str) -> Path:
        """Where the evaluation goes if the command line does not say: each task of a run into a folder of its own.

        Args:
            run: The run's folder; None for a model alone.
            model: Name of the model.
            data: Name of the data.
        """
        if run is None:
            return Path("outputs/evaluation") / f"{model} on {self.name or data}"
        return run / ("evaluation" if self.name is None else f"evaluation-{self.name}")

    def _reworded(self, arm: "ModelArm") -> "ModelArm":
        return replace(
            arm,
            samples={name: self.reword(rows) for name, rows in arm.samples.items()},
            controls=[replace(control, samples=self.reword(control.samples)) for control in arm.controls],
        )
