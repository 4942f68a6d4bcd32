r"""A harness's questions, each a text and a list of pictures, to answers and likelihoods.

question = Question("pope/test/3", "Is there a dog in the image?\nAnswer with a single word.", lambda: [picture])

answer_questions(model, processor, [question], [{"max_new_tokens": 16, "until": ["\n\n"]}])
["Yes"]

score_continuations(model, processor, [question, question], ["Yes", "No"])
[Likelihood(log_likelihood=-0.21, is_greedy=True), Likelihood(log_likelihood=-1.93, is_greedy=False)]

The text becomes the question of this package's one prompt, in its English form unless there are Chinese characters in
it; `<image>` is removed, since the picture always precedes the text. The model takes one picture: what to do with more
is the caller's choice, and questions with a video or a sound are refused.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from PIL import Image

from vglm.data.sample import Sample, Turn
from vglm.errors import ConfigError, DataError
from vglm.evaluation.predict.decoding import Decoding
from vglm.evaluation.predict.generation import AnsweringProcessor, GenerativeModel, generate_predictions
from vglm.evaluation.predict.likelihoods import score_choices
from vglm.text.prompt import clean_response

logger = logging.getLogger(__name__)

BATCHES_IN_MEMORY = 4
"""How many batches' pictures are open at once, so that samples of similar length can share one."""

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
MAX_ERRORS_SHOWN = 5

_AS_DECODED = {
    "num_beams": 1.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0.0,
    "min_length": 0.0,
    "min_new_tokens": 0.0,
}
"""Settings that change a greedy answer, and the values that answers are generated with."""

Item = TypeVar("Item")

_CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a harness; its pictures are not opened yet.

    Attributes:
        name: What messages call it, e.g. `pope/test/3`. Questions with the same name and text have the same pictures.
        text: The question.
        open_visuals: Gives what belongs to it: PIL images or paths of pictures, none for a question without one.
    """

    name: str
    text: str
    open_visuals: Callable[[], Sequence[Any] | None] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely an answer is.

    Attributes:
        log_likelihood: Natural logarithm of the probability that the model answers exactly this and ends.
        is_greedy: Whether it is the model's greedy answer.
    """

    log_likelihood: float
    is_greedy: bool


def answer_questions(
    model: GenerativeModel,
    processor: AnsweringProcessor,
    questions: Sequence[Question],
    settings: Sequence[Mapping[str, Any]],
    *,
    batch_size: int = 1,
    max_new_tokens: int = 64,
    several_images: Literal["refuse", "first"] = "refuse",
) -> list[str]:
    """Answer questions greedily.

    Args:
        model: A VisualGLM, or a `PeftModel` of one.
        processor: The model's processor.
        questions: The questions.
        settings: For each question its harness's generation settings: `max_new_tokens` and `until` (texts before whose
            first appearance the answer is cut off) are followed, those that a greedy answer does not depend on ignored.
        batch_size: Questions per call of `generate`.
        max_new_tokens: Longest answer, in tokens, where a question's settings name none.
        several_images: Whether to refuse a question with several pictures, or to ask it with the first and to say so.

    Returns:
        One answer per question, in their order; an empty one, which a warning counts, where a picture cannot be opened.

    Raises:
        ConfigError: Settings ask for sampling, beams or penalties, or an argument has a value that cannot work.
        DataError: A question has several pictures, or other things than pictures.
    """
    _check(batch_size, several_images)
    limits, stops = _read_settings(questions, settings, max_new_tokens)
    answers = [""] * len(questions)
    errors: list[str] = []
    cut = done = 0
    for limit in sorted(set(limits)):
        for indices in _chunks([index for index, other in enumerate(limits) if other == limit], batch_size):
            samples, more = _open([questions[index] for index in indices], several_images)
            records = generate_predictions(
                model,
                processor,
                samples,
                Decoding(batch_size=batch_size, max_new_tokens=limit),
                title=f"answers {done + 1} to {done + len(indices)} of {len(questions)}",
            )
            for index, record in zip(indices, records, strict=True):
                answers[index] = _before(record.prediction, stops[index])
                errors += [] if record.error is None else [record.error]
            cut, done = cut + more, done + len(indices)
    _warn_of_images(cut, len(questions))
    if errors:
        logger.warning("%d of %d answers are empty: %s", len(errors), len(questions), errors[0])
    return answers


def score_continuations(
    model: GenerativeModel,
    processor: AnsweringProcessor,
    questions: Sequence[Question],
    continuations: Sequence[str],
    *,
    batch_size: int = 1,
    several_images: Literal["refuse", "first"] = "refuse",
) -> list[Likelihood]:
    """Score given answers by how likely the model is to give them.

    Args:
        model: A VisualGLM, or a `PeftModel` of one.
        processor: The model's processor.
        questions: The question of each answer to score.
        continuations: The answers; white space around them, which the prompt has no place for, is not scored.
        batch_size: Answers per call of the model.
        several_images: See `answer_questions`.

    Returns:
        One likelihood per answer, in their order.

    Raises:
        ConfigError: An argument has a value that cannot work.
        DataError: A question has several pictures, or other things than pictures, or one that cannot be opened.
    """
    _check(batch_size, several_images)
    indices: dict[Question, list[int]] = {}
    for index, question in enumerate(questions):
        indices.setdefault(question, []).append(index)
    likelihoods: dict[int, Likelihood] = {}
    cut = done = 0
    for chunk in _chunks(list(indices), batch_size):
        samples, more = _open(chunk, several_images)
        title = f"questions {done + 1} to {done + len(chunk)} of {len(indices)}"
        texts = [[continuations[index].strip() for index in indices[question]] for question in chunk]
        lists = [list(dict.fromkeys(text)) for text in texts]
        scores = score_choices(model, processor, samples, lists, batch_size=batch_size, title=title)
        if unread := [question.name for question, score in zip(chunk, scores, strict=True) if not score]:
            raise DataError(
                f"the pictures of {_listed(unread)} cannot be opened, so no answer can be scored. Replace them in the"
                " task's data, or leave these questions out."
            )
        longest = max(
            score.tokens for choices in scores for score in choices
        )  # a greedy answer that goes on is another one
        decoding = Decoding(batch_size=batch_size, max_new_tokens=longest)
        greedy = generate_predictions(model, processor, samples, decoding, title=f"{title}, greedy")
        for question, chunk_texts, choices, record in zip(chunk, texts, scores, greedy, strict=True):
            by_text = {
                score.choice: Likelihood(score.log_likelihood, record.prediction == clean_response(score.choice))
                for score in choices
            }
            likelihoods |= {index: by_text[text] for index, text in zip(indices[question], chunk_texts, strict=True)}
        cut, done = cut + more, done + len(chunk)
    _warn_of_images(cut, len(indices))
    return [likelihoods[index] for index in range(len(questions))]


def _check(batch_size: int, several_images: str) -> None:
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(f"batch_size must be a positive integer, got {batch_size!r}.")
    if several_images not in ("refuse", "first"):
        raise ConfigError(f"several_images must be refuse or first, got {several_images!r}.")


def _read_settings(
    questions: Sequence[Question], settings: Sequence[Mapping[str, Any]], default: int
) -> tuple[list[int], list[list[str]]]:
    """Most new tokens and stop texts of each question; all that cannot be followed is refused at once."""
    limits: list[int] = []
    stops: list[list[str]] = []
    problems: dict[str, str] = {}  # what is wrong -> the first question with it
    for question, setting in zip(questions, settings, strict=True):
        for wrong in _not_greedy(setting):
            problems.setdefault(wrong, question.name)
        limit = setting.get("max_new_tokens", default)
        if not isinstance(limit, int) or limit < 1:
            problems.setdefault(f"max_new_tokens={limit!r} (must be a positive integer)", question.name)
        until = setting.get("until") or []
        texts = [until] if isinstance(until, str) else list(until)
        limits.append(limit)
        stops.append([text for text in texts if text])
    if problems:
        actual = "; ".join(f"{wrong}, first in {name}" for wrong, name in problems.items())
        raise ConfigError(
            f"answers are generated greedily, but the task asks for {actual}. Where that is not what its score depends"
            " on, set it for the run: --gen_kwargs do_sample=False,temperature=0,num_beams=1."
        )
    return limits, stops


def _not_greedy(settings: Mapping[str, Any]) -> list[str]:
    """The settings that ask for another answer than the greedy one; a temperature of 0 is how harnesses say greedy."""
    do_sample, temperature = settings.get("do_sample"), settings.get("temperature")
    is_asked_for = do_sample if do_sample is not None else temperature is not None
    is_sampled = is_asked_for and (temperature is None or float(temperature) > 0)
    wrong = [f"do_sample={do_sample}, temperature={temperature}"] if is_sampled else []
    numbers = {name: settings[name] for name in _AS_DECODED if settings.get(name) is not None}
    return wrong + [f"{name}={value}" for name, value in numbers.items() if float(value) != _AS_DECODED[name]]


def _chunks(items: list[Item], batch_size: int) -> Iterator[list[Item]]:
    size = batch_size * BATCHES_IN_MEMORY
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _open(questions: Sequence[Question], several_images: str) -> tuple[list[Sample], int]:
    """Fetch the pictures of some questions; also how many of the questions lost some of theirs."""
    samples: list[Sample] = []
    problems: list[str] = []
    cut = 0
    for question in questions:
        visuals = list(question.open_visuals() or [])
        wrong = {_kind(visual) for visual in visuals} - {"picture"}
        if wrong:
            problems.append(f"{question.name} has {' and '.join(sorted(wrong))}")
        elif len(visuals) > 1 and several_images == "refuse":
            problems.append(f"{question.name} has {len(visuals)} pictures")
        else:
            cut += len(visuals) > 1
            samples.append(_sample(question, visuals[0] if visuals else None))
    if problems:
        raise DataError(
            f"the model takes one picture a question, but {_listed(problems)}. Leave such tasks out, or pass"
            " several_images=first to ask about the first of several pictures."
        )
    return samples, cut


def _kind(visual: Any) -> str:
    if isinstance(visual, Image.Image) or (isinstance(visual, str) and visual.lower().endswith(PICTURE_SUFFIXES)):
        return "picture"
    return f"the file {visual!r}" if isinstance(visual, str) else f"a {type(visual).__name__}"


def _sample(question: Question, picture: Image.Image | str | None) -> Sample:
    text = question.text.replace("<image>", "").strip()
    return Sample(
        id=question.name,
        group=question.name,
        image=Path(picture) if isinstance(picture, str) else picture,
        turns=(Turn(text, ""),),
        language="zh" if _CHINESE.search(text) else "en",
    )


def _before(text: str, stops: Sequence[str]) -> str:
    """The text up to the first stop text in it."""
    return text[: min((text.find(stop) for stop in stops if stop in text), default=len(text))].strip()


def _warn_of_images(cut: int, total: int) -> None:
    if cut:
        logger.warning("%d of %d questions have several pictures and were asked with the first one only", cut, total)


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - MAX_ERRORS_SHOWN} more" if len(items) > MAX_ERRORS_SHOWN else ""
    return "; ".join(items[:MAX_ERRORS_SHOWN]) + more
