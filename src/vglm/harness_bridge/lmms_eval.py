r"""The model class that lmms-eval gets, see `vglm.harness_bridge`; this module alone needs lmms-eval.

One request, as lmms-eval (0.7.3) builds it for a task that generates and for one of multiple choice:

    request.args == (context, {"max_new_tokens": 16, "until": ["\n\n"]}, doc_to_visual, 3, "pope", "test")
    request.args == (context, " Yes", doc_to_visual, 3, "pope", "test")          # one request for each choice

`doc_to_visual` makes a list of PIL images of the row `task_dict["pope"]["test"][3]`.
"""

import inspect
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Literal

import torch
from accelerate import Accelerator
from lmms_eval.api import instance
from lmms_eval.api.model import lmms
from lmms_eval.api.task import ConfigurableTask

from vglm.errors import ConfigError
from vglm.harness_bridge.answering import Question, answer_questions, score_continuations
from vglm.model.loading import load_pretrained
from vglm.model.quantization import Quantization


class VisualGlm(lmms):
    """A VisualGLM that answers lmms-eval's requests.

    Args:
        pretrained: See `vglm.load_pretrained`: a folder in any layout, or an id on the hub.
        adapter: Folder of a peft adapter, such as a run's `adapter/`.
        batch_size: Requests at once; lmms-eval's `--batch_size`.
        max_batch_size: lmms-eval passes it for `--batch_size auto`, which there is not.
        device: Such as "cuda:0" or "cpu"; each process's own device if not given.
        dtype: See `vglm.load_pretrained`.
        quantization: Likewise.
        max_new_tokens: Longest answer, in tokens, where a task names none.
        several_images: "refuse" a question with several pictures, or ask it with the "first".

    Raises:
        ConfigError: `batch_size` is not a number.
        CheckpointError: See `vglm.load_pretrained`.
        AdapterError: Likewise.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str,
        adapter: str | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        dtype: str | None = None,
        quantization: Quantization | None = None,
        max_new_tokens: int = 64,
        several_images: Literal["refuse", "first"] = "refuse",
    ) -> None:
        super().__init__()
        if not str(batch_size).isdecimal():
            raise ConfigError(f"batch_size must be a positive integer, got {batch_size!r}. Pass --batch_size 16 or so.")
        self.accelerator = Accelerator()
        self._rank = self.accelerator.process_index
        self._world_size = self.accelerator.num_processes
        self.device = torch.device(self.accelerator.device if device is None else device)
        self.batch_size = int(batch_size)
        self.max_new_tokens = max_new_tokens
        self.several_images: Literal["refuse", "first"] = several_images
        self.model: Any  # lmms-eval's clean-up at the end looks for modules among the attributes
        self.processor: Any
        self.model, self.processor = load_pretrained(
            pretrained,
            adapter=adapter,
            dtype=dtype,
            quantization=quantization,
            device_map=self.device,
        )

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answer each request greedily, see `answer_questions`.

        Raises:
            ConfigError: See `answer_questions`.
            DataError: Likewise.
        """
        rows = [request.args for request in requests]
        return answer_questions(
            self.model,
            self.processor,
            [self._question(context, *rest) for context, _, *rest in rows],
            [settings or {} for _, settings, *_ in rows],
            batch_size=self.batch_size,
            max_new_tokens=self.max_new_tokens,
            several_images=self.several_images,
        )

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        """Score each request's answer, see `score_continuations`.

        Returns:
            For each request (number, whether the answer is the greedy one), in lmms-eval 0.7 as the `text` of a
            `GenerationResult`, since its evaluator makes a string of a bare pair. The number is the log-likelihood
            where the answer is the task's one target. Where it is one of several choices, it is what lmms-eval
            compares: 0.6 and 0.7 take the choice with the smallest number, so it is minus the log-likelihood there.

        Raises:
            ConfigError: The task asks how likely choices are without their question, or this lmms-eval compares choices
                in a way that is not known.
            DataError: See `score_continuations`.
        """
        rows = [request.args for request in requests]
        if any(len(row) < 6 for row in rows):
            raise ConfigError("acc_mutual_info asks for answers without a question, which the model is not made for.")
        is_choice = [isinstance(row[1], str) for row in rows]
        sign = -1.0 if any(is_choice) and _takes_smallest() else 1.0
        questions = [self._question(context, *rest) for context, _, *rest in rows]
        scores = score_continuations(
            self.model,
            self.processor,
            questions,
            [row[1] if isinstance(row[1], str) else str(row[1](self._row(*row[3:]))) for row in rows],
            batch_size=self.batch_size,
            several_images=self.several_images,
        )
        pairs = [
            (sign * score.log_likelihood if is_one else score.log_likelihood, score.is_greedy)
            for score, is_one in zip(scores, is_choice, strict=True)
        ]
        wrap = getattr(instance, "GenerationResult", None)  # there is none in 0.6
        return pairs if wrap is None else [wrap(text=pair) for pair in pairs]

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refuse: a next round of lmms-eval brings new pictures, and a dialogue of this model has one.

        Raises:
            ConfigError: Always.
        """
        names = sorted({str(request.task_name) for request in requests})
        raise ConfigError(f"{', '.join(names)} goes over several rounds with pictures in each; the model takes one.")

    def _row(self, row: int, task: str, split: str) -> Any:
        return self.task_dict[task][split][row]

    def _question(self, context: str, to_visuals: Callable[[Any], Any], row: int, task: str, split: str) -> Question:
        def open_visuals() -> Any:
            return to_visuals(self._row(row, task, split))

        return Question(f"{task}/{split}/{row}", context, open_visuals)


def _takes_smallest() -> bool:
    """Whether lmms-eval takes the choice with the smallest number for the answer, found by a test call.

    Its interface speaks of log-likelihoods, where the largest would be right, but its multiple choice compares losses.
    The wrong sign would turn every score around without a word, so it is not left to the version.
    """
    task = SimpleNamespace(
        OUTPUT_TYPE="multiple_choice",
        config=SimpleNamespace(process_results=None),
        _metric_fn_list={"acc": None},
        doc_to_choice=lambda doc: ["first", "other"],
        doc_to_target=lambda doc: 0,
        multiple_input=0,
        multiple_target=0,
    )
    process_results: Any = inspect.unwrap(ConfigurableTask.process_results)  # without its waits and new tries
    try:
        return bool(process_results(task, {}, [(1.0, False), (2.0, False)])["acc"])
    except Exception as error:
        raise ConfigError(
            f"this lmms-eval does not tell whether it takes the smallest or the largest number ({error!r})."
            " Multiple choice was tried with lmms-eval 0.6 to 0.7.3."
        ) from error
