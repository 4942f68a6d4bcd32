"""What simple ways to answer are worth on the test split, so that a score can be read against them.

One of `baselines.json`:

    {"name": "majority class", "meaning": {"key": "majority", "values": {"n": "20"}},
     "scores": {"exact_match": 0.1, "rouge_l_characters": 0.71}, "n": 120, "intervals": {"exact_match": [0.06, 0.17]}}

| baseline | answers with | what a model that is no better has learned |
|---|---|---|
| constant answer | for each metric, the training answer that scores best on the training split | a form of words |
| majority class | the most frequent training answer to the same question | which answers are common |
| random training answer | the answer of a training sample drawn at random | the range of answers |
| nearest neighbour | the answer of the training sample whose image looks most alike to the untuned model | to look up |
| text only | what the tuned model answers without the image | what questions give away |
| k-shot in context | what the untuned model answers after k training examples | what showing examples brings, untuned |

The examples of the last one are earlier turns of the dialogue, in text: the prompt holds one image, that of the
question, so the examples' own pictures cannot be shown. They are drawn by seed once, the same for all questions.
"""

import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from vglm.data.images import open_image
from vglm.data.sample import Sample, Turn
from vglm.data.windowing import META_KEY
from vglm.errors import ConfigError, DataError
from vglm.evaluation.messages import Message, Sentence
from vglm.evaluation.predict.image_use import TEXT_ONLY
from vglm.evaluation.predictions import Arm, Prediction, unanswered
from vglm.evaluation.score.comparison import BASELINES_FILE, Baseline
from vglm.evaluation.score.metrics import METRICS, Metric, select_metrics
from vglm.evaluation.score.metrics.base import measure, normalise
from vglm.evaluation.score.metrics.external import declare
from vglm.evaluation.score.metrics.labels import reference_answers
from vglm.files import write_json

logger = logging.getLogger(__name__)

IN_CONTEXT = "in-context"
MAX_CONSTANTS = 20
"""Training answers, the most frequent ones, that are tried as the constant answer."""
MAX_TRAIN = 200
"""Training samples that a constant answer is scored on; of more, so many are drawn."""
DRAWS = 20
MAX_DRAWN = 5000
"""The random answers are drawn `DRAWS` times, or as often as makes no more than so many answers, but at least once."""
MAX_COUNTED = 5000
"""Training samples whose answers are counted; of more, which may be made on demand, so many are drawn."""
MAX_FEATURES = 5000
"""Training images that are compared with a test image; of more, so many are drawn."""


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
    shots: "Shots | None" = None

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


def write_baselines(baselines: Iterable[Baseline], folder: Path) -> None:
    """Write `baselines.json` into the evaluation folder."""
    write_json(folder / BASELINES_FILE, [asdict(baseline) for baseline in baselines], error=DataError)


def collect_baselines(
    train: Sequence[Sample], answers: Answers, metrics: Mapping[str, Any] | None = None, *, seed: int = 1
) -> list[Baseline]:
    """Score every baseline for which there is what it needs.

    Args:
        train: The training split; without samples there is no baseline that learns from it.
        answers: The candidate's records of the test split give questions and references.
        metrics: `names` and `labels`, as a file of conf/metrics/ has them; what every report shows where None.
        seed: Of the draws.

    Returns:
        The baselines, in the order of the module's description; none without a test split.

    Raises:
        ConfigError: A metric is unknown.
    """
    test = [record for record in answers.candidate if record.split == "test" and record.draw == 0]
    if not test:
        return []
    score = _Scorer(METRICS if metrics is None else _own_metrics(metrics))
    baselines = []
    if len(train):
        generator = random.Random(seed)
        baselines.append(_constant_answer(_drawn(train, MAX_TRAIN, generator), test, score))
        counted = _drawn(train, MAX_COUNTED, generator)
        size = f"{len(counted):,}" + (f"/{len(train):,}" if len(counted) < len(train) else "")
        meaning = Message("majority", {"n": size})
        baselines.append(score.judge("majority class", meaning, _answer_with(test, _majority(counted))))
        baselines.append(_random_answer(train, test, score, generator))
    if answers.nearest:
        pairs = zip(test, answers.nearest, strict=True)
        rows = [replace(record, prediction=answer, error=None, likelihoods={}, finish=None) for record, answer in pairs]
        baselines.append(score.judge("nearest neighbour", Message("nearest"), rows))
    if answers.text_only:
        baselines.append(score.judge("text only", Message("text_only"), answers.text_only))
    if answers.shots is not None:
        name = Message("baseline.shots", {"n": answers.shots.count or "k"})
        how, shown = answers.shots.arm.meaning, answers.in_context
        baselines.append(score.judge(name, how, shown) if shown else Baseline(name, how, {}))
    return baselines


def _own_metrics(metrics: Mapping[str, Any]) -> list[Metric]:
    """The metrics of a config but those that need more than texts: nobody asks a judge about a rule's answers."""
    external = declare(metrics.get("external"))
    chosen = select_metrics(list(metrics["names"]), metrics.get("labels"), external)
    return [metric for metric in chosen if metric.name not in external]


class _Scorer:
    """Scores records by some metrics; equal answers to equal references are looked at once."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = {metric.name: metric for metric in metrics}
        self._known: dict[tuple[str, str, str], float] = {}

    def __call__(self, records: Sequence[Prediction]) -> dict[str, float | None]:
        """Metric -> score; None where it is undefined."""
        return {name: self.score(metric, records) for name, metric in self.metrics.items()}

    def judge(self, name: Sentence, meaning: Sentence, records: Sequence[Prediction]) -> Baseline:
        """A rule by its answers."""
        return Baseline(name, meaning, _defined(self(records)), *self.doubt(records))

    def doubt(self, records: Sequence[Prediction]) -> tuple[int, dict[str, tuple[float, float]]]:
        """How many samples the primary metric counts, and its interval where there is one."""
        primary = next(iter(self.metrics.values()), None)
        if primary is None:
            return len(records), {}
        try:
            found = measure(primary, records)
        except DataError:  # the references are no labels
            return len(records), {}
        low, high = found.interval
        return found.n, {primary.name: (float(low), float(high))} if low < high else {}

    def score(self, metric: Metric, records: Sequence[Prediction]) -> float | None:
        """One metric's score."""
        try:
            if metric.function is None or metric.table is not None:
                value = metric.score(records)
            else:
                value = fmean(self._row(metric, metric.function, record) for record in records)
        except DataError:  # the references are no labels
            return None
        return value if math.isfinite(value) else None

    def _row(self, metric: Metric, function: Callable[[str, str], float], record: Prediction) -> float:
        if record.error is not None:
            return 0.0
        key = (metric.name, record.prediction, record.reference)
        if key not in self._known:
            self._known[key] = function(record.prediction, record.reference)
        return self._known[key]


def _answer_with(test: Sequence[Prediction], answer: Callable[[Prediction], str]) -> list[Prediction]:
    return [replace(record, prediction=answer(record), error=None, likelihoods={}, finish=None) for record in test]


def _always(test: Sequence[Prediction], answer: str) -> list[Prediction]:
    return _answer_with(test, lambda _: answer)


def _drawn(train: Sequence[Sample], count: int, generator: random.Random) -> list[Sample]:
    """All samples, or so many of them."""
    if len(train) <= count:
        return list(train)
    return [train[index] for index in sorted(generator.sample(range(len(train)), count))]


def _defined(scores: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in scores.items() if value is not None}


def _label(sample: Sample) -> str:
    """What a sample teaches to answer: the most frequent one where the reference lists several answers."""
    return Counter(reference_answers(sample.answer)).most_common(1)[0][0]


def _constant_answer(train: Sequence[Sample], test: Sequence[Prediction], score: _Scorer) -> Baseline:
    """For each metric the answer that scores best where it was found, which is not where it is judged."""
    labels = [answer for answer, _ in Counter(map(_label, train)).most_common(MAX_CONSTANTS)]
    asked = [unanswered(sample, "train") for sample in train]
    known = {answer: _always(asked, answer) for answer in labels}
    scores: dict[str, float | None] = {}
    chosen: dict[str, str] = {}
    for name, metric in score.metrics.items():
        if metric.is_better_higher is None:
            continue  # a length is neither good nor bad
        sign = 1 if metric.is_better_higher else -1
        found = {answer: score.score(metric, rows) for answer, rows in known.items()}
        values = {answer: -math.inf if value is None else sign * value for answer, value in found.items()}
        chosen[name] = max(labels, key=values.__getitem__)  # of equal ones the more frequent
        scores[name] = score.score(metric, _always(test, chosen[name]))
    answers = tuple(f"{name}: {answer}" for name, answer in chosen.items())
    if len(set(chosen.values())) == 1:
        answers = (next(iter(chosen.values())),)
    meaning = Message("constant", {"n": len(train), "answers": answers})
    primary = next(iter(score.metrics), None)
    doubt = score.doubt(_always(test, chosen[primary])) if primary in chosen else (len(test), {})
    return Baseline("constant answer", meaning, _defined(scores), *doubt)


def _majority(train: Sequence[Sample]) -> Callable[[Prediction], str]:
    """A record's most frequent training answer: to its question, else to any."""
    overall: Counter[str] = Counter()
    by_question: dict[str, Counter[str]] = {}
    for sample in train:
        answer = _label(sample)
        overall[answer] += 1
        by_question.setdefault(normalise(sample.question), Counter())[answer] += 1
    return lambda record: by_question.get(normalise(record.question), overall).most_common(1)[0][0]


def _random_answer(
    train: Sequence[Sample], test: Sequence[Prediction], score: _Scorer, generator: random.Random
) -> Baseline:
    count = max(1, min(DRAWS, MAX_DRAWN // len(test)))
    draws = [score(_answer_with(test, lambda _: _label(train[generator.randrange(len(train))]))) for _ in range(count)]
    columns = {name: [draw[name] for draw in draws] for name in score.metrics}
    means = {name: [value for value in values if value is not None] for name, values in columns.items()}
    return Baseline(
        name="random training answer",
        meaning=Message("random", {"n": count}),
        scores={name: fmean(values) for name, values in means.items() if values},
        n=len(test),
    )


# --- examples in the context ------------------------------------------------------------------------------------------


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


def draw_examples(train: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """Draw the training examples that are put before every question.

    Args:
        train: The training split.
        count: How many to draw, or all where there are fewer; 0 for none.
        seed: Of the draw.

    Raises:
        ConfigError: `count` is not a positive integer or 0.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise ConfigError(f"shots_in_context must be a positive integer, or 0 for none, got {count!r}.")
    return [train[place] for place in random.Random(seed).sample(range(len(train)), min(len(train), count))]


def put_in_context(
    examples: Sequence[Sample], test: Sequence[Sample], model: Any, processor: Any, max_new_tokens: int, label: str = ""
) -> Shots | None:
    """Put examples before each question, as many as fit before all of them; none is ever cut.

    Args:
        examples: Training samples, the ones to keep first; their questions and answers become earlier turns.
        test: The questions.
        model: Whose sequence length counts: a VisualGLM, or a `PeftModel` of one.
        processor: The model's processor.
        max_new_tokens: Room for the answer.
        label: The arm that is asked, `before`; empty for a model alone.

    Returns:
        The questions with the examples; None where there are no examples or no questions.
    """
    if not examples or not len(test):
        return None
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    limit = int(base.config.text_config.max_position_embeddings)
    count = _count_fitting(examples, test, processor, limit - max_new_tokens)
    name = f"{label}-{IN_CONTEXT}" if label else IN_CONTEXT
    if count == 0:
        meaning = Message("shots.none", {"tokens": max_new_tokens, "n": len(examples), "limit": limit})
        logger.warning("k-shot in context is %s", meaning)
        return Shots(Arm(label=name, meaning=meaning), 0, ())
    shown = Message("shots.examples", {"n": count}) if count > 1 else Message("shots.one_example")
    key = "shots.some" if count < len(examples) else "shots.all"
    meaning = Message(key, {"shown": shown, "n": len(examples), "limit": limit})
    turns = _example_turns(examples[:count])
    asked = [replace(sample, turns=(*turns, *sample.turns)) for sample in test]
    return Shots(Arm(label=name, meaning=meaning), count, asked)


def _example_turns(examples: Sequence[Sample]) -> list[Turn]:
    """The examples as turns, the first one nearest to the question."""
    return [turn for each in reversed(examples) for turn in (*each.turns[:-1], Turn(each.question, _label(each)))]


def _count_fitting(examples: Sequence[Sample], test: Sequence[Sample], processor: Any, max_length: int) -> int:
    """How many of the examples, from the first on, fit into so many tokens before every question."""
    turns = [(turn.question, turn.answer) for turn in _example_turns(examples)]
    prompts = {(each.question, tuple(each.history), each.image is not None, each.english) for each in test}
    left_out = 0
    for question, history, has_image, english in prompts:
        about = {"has_image": has_image, "english": english, "answer": "", "max_length": max_length}
        try:
            cut = processor.measure_cut(question, history=[*turns, *history], **about)
        except ValueError:  # not even without examples
            return 0
        left_out = max(left_out, cut.turns)
    kept = len(turns) - left_out
    sizes = [len(each.turns) for each in examples]
    return sum(sum(sizes[: place + 1]) <= kept for place in range(len(sizes)))


# --- the nearest image ------------------------------------------------------------------------------------------------


def nearest_answers(
    model: Any,
    processor: Any,
    train: Sequence[Sample],
    test: Sequence[Sample],
    *,
    batch_size: int = 16,
    seed: int = 1,
) -> list[str]:
    """Answer every question with the answer of the training sample whose image looks most alike.

    Args:
        model: The untuned model: a VisualGLM, or a `PeftModel` of one with its adapter off.
        processor: The model's processor.
        train: Where the answers come from; samples without a readable image are left out.
        test: The questions.
        batch_size: Images per call of the vision encoder.
        seed: Of the draw among more than `MAX_FEATURES` training samples.

    Returns:
        One answer for each test sample; the most frequent training answer where it has no readable image. Nothing where
        no training sample has one.
    """
    train = _drawn(train, MAX_FEATURES, random.Random(seed))
    known = vision_features(model, processor, train, batch_size=batch_size, title="training images")
    if not known or not len(test):
        return []
    places = sorted(known)
    table = torch.stack([known[place] for place in places])
    by_question: dict[str, list[int]] = {}
    for row, place in enumerate(places):
        by_question.setdefault(normalise(train[place].question), []).append(row)
    asked = vision_features(model, processor, test, batch_size=batch_size, title="test images")
    majority = _majority(train)
    answers = []
    for index, sample in enumerate(test):
        if index not in asked:
            answers.append(majority(unanswered(sample, "test")))
            continue
        rows = by_question.get(normalise(sample.question)) or list(range(len(places)))
        nearest = rows[int((table[rows] @ asked[index]).argmax())]
        answers.append(_label(train[places[nearest]]))
    return answers


@torch.inference_mode()
def vision_features(
    model: Any, processor: Any, samples: Sequence[Sample], *, batch_size: int = 16, title: str = "images"
) -> Mapping[int, Tensor]:
    """Describe images by the Q-Former's output, averaged over the slots.

    Args:
        model: A VisualGLM, or a `PeftModel` of one.
        processor: The model's processor.
        samples: Those without a readable image are left out; equal files are encoded once.
        batch_size: Images per call.
        title: What the progress bar shows.

    Returns:
        Index in `samples` -> vector of length 1, shape (Q-Former's hidden size,), float32, on the CPU.
    """
    model.eval()
    base = (model.get_base_model() if hasattr(model, "get_base_model") else model).model
    first: dict[object, int] = {}  # image -> the first sample that has it
    for index, sample in enumerate(samples):
        if sample.image is not None:
            first.setdefault(_identity(sample), index)
    features: dict[object, Tensor] = {}
    unique = list(first.items())
    with tqdm(total=len(unique), desc=title, unit="image", delay=2) as progress:
        for start in range(0, len(unique), batch_size):
            opened = []
            for name, index in unique[start : start + batch_size]:
                try:
                    opened.append((name, _open(samples[index])))
                except DataError:
                    continue
            if opened:
                pixels = processor.image_processor([image for _, image in opened], return_tensors="pt")["pixel_values"]
                encoded = base.vision_model(pixels.to(model.device, base.query_tokens.dtype)).last_hidden_state
                queries = base.query_tokens.expand(len(pixels), -1, -1)
                output = base.qformer(query_embeds=queries, encoder_hidden_states=encoded).last_hidden_state
                vectors = torch.nn.functional.normalize(output.float().mean(dim=1), dim=-1).cpu()
                features |= {name: vector for (name, _), vector in zip(opened, vectors, strict=True)}
            progress.update(min(batch_size, len(unique) - start))
    names = {index: _identity(sample) for index, sample in enumerate(samples) if sample.image is not None}
    return {index: features[name] for index, name in names.items() if name in features}


def _open(sample: Sample) -> Image.Image:
    assert sample.image is not None
    return open_image(sample.image, sample.meta.get(META_KEY))


def _identity(sample: Sample) -> object:
    """Tells files apart without opening them; an image in memory, which its sample keeps, is itself."""
    return id(sample.image) if isinstance(sample.image, Image.Image) else sample.image
