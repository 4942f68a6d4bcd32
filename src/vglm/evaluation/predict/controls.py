"""Does the answer depend on the image? The same questions with a blank image, another sample's, one of the same class.

```
image       a model that looks     a model that does not
true        这张图片的背景是沙滩。      这张图片的背景是沙滩。
blank       这张图片的背景是雪地。      这张图片的背景是沙滩。     one colour, the same for all
shuffled    这张图片的背景是森林。      这张图片的背景是沙滩。     the image of another sample
neighbour   这张图片的背景是沙滩。      这张图片的背景是沙滩。     of another sample with the same reference
```

The visual gain is the score with the true image minus that with another sample's, see
`vglm.evaluation.score.image_use`. Where the neighbour scores like the true image, the answers depend on what the images
of a class share; where it scores lower, they depend on this particular image. No torch is needed here.
"""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from PIL import Image

from vglm.data.sample import Sample
from vglm.errors import ConfigError, DataError
from vglm.evaluation.messages import Message
from vglm.evaluation.predictions import TEXT_ONLY, Arm
from vglm.text.normalisation import normalise

BLANK_COLOUR = (123, 117, 104)
"""The mean colour that the model's image processor subtracts, so that a blank image is all zeros to the model."""
BLANK_SIZE_PX = 224
MAX_TRIES = 20
"""Samples of the same class that are looked at for an image of other content."""


@dataclass(frozen=True)
class Control:
    """Questions of the test split with other images.

    Attributes:
        arm: Label and meaning, e.g. `blank`.
        samples: The questions as they are asked.
        is_for_candidate: Whether only the arm that is judged answers it.
    """

    arm: Arm
    samples: Sequence[Sample]
    is_for_candidate: bool = False

    def of(self, label: Literal["before", "after"]) -> "Control":
        """The same as asked of one arm, named after it: `before-blank`."""
        meaning = Message(f"control_meaning.{label}", {"meaning": self.arm.meaning})
        return replace(self, arm=Arm(label=f"{label}-{self.arm.label}", meaning=meaning))


def make_controls(
    splits: Mapping[str, Sequence[Sample]], image_use_samples: int, text_only: bool, seed: int
) -> tuple[Control, ...]:
    """The controls of an evaluation.

    Args:
        splits: Split name -> samples; only `test` has controls.
        image_use_samples: How many of its questions are asked again with other images; 0 for none.
        text_only: Whether all of them are asked without images, for the baseline of that name.
        seed: Of the draws.

    Returns:
        Those of `image_controls`, and `text-only`.

    Raises:
        ConfigError: `image_use_samples` is not a positive integer or 0.
    """
    if not isinstance(image_use_samples, int) or image_use_samples < 0:
        raise ConfigError(f"image_use_samples must be a positive integer, got {image_use_samples!r}.")
    test = splits.get("test", ())
    controls = image_controls(test, max_samples=image_use_samples, seed=seed)
    if text_only and len(test):
        without = [replace(sample, image=None, window=None) for sample in test]
        controls += (Control(_arm(TEXT_ONLY), without, True),)
    return controls


def image_controls(samples: Sequence[Sample], *, max_samples: int, seed: int) -> tuple[Control, ...]:
    """The questions to ask again, with which images.

    Args:
        samples: The test split.
        max_samples: Maximum number of questions about images; of more, a random sample.
        seed: Of the draw and of the dealing; same samples and seed, same result.

    Returns:
        `blank`, `shuffled` and `neighbour`, as far as the samples allow: none without images, no `shuffled` where one
        image belongs to most questions, and in `neighbour` only questions that share their reference with another one.
    """
    rows = [index for index, sample in enumerate(samples) if sample.image is not None]
    generator = random.Random(seed)
    if len(rows) > max_samples:
        rows = sorted(generator.sample(rows, max_samples))
    chosen = [samples[index] for index in rows]
    controls = [Control(_arm("blank"), blank_images(chosen))]
    try:
        shuffled = shuffle_images(chosen, seed)
    except DataError:
        shuffled = []  # too few different images
    controls.append(Control(_arm("shuffled"), shuffled))
    neighbours = neighbour_images(chosen, samples, seed)
    controls.append(Control(_arm("neighbour"), neighbours))
    return tuple(control for control in controls if control.samples)


def _arm(label: str) -> Arm:
    return Arm(label=label, meaning=Message(f"control_meaning.{label}"))


def blank_images(samples: Sequence[Sample]) -> list[Sample]:
    """Give every question about an image a blank one; other questions are unchanged."""
    blank = Image.new("RGB", (BLANK_SIZE_PX, BLANK_SIZE_PX), BLANK_COLOUR)
    return [sample if sample.image is None else replace(sample, image=blank, window=None) for sample in samples]


def shuffle_images(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """Give every question about an image the image of another sample, one with other content.

    The images are permuted among the same questions, so each is used as often as before. Samples without an image
    stay as they are, and so do those whose image cannot be opened. With equal images lying side by side, a shift by the
    size of the largest such group meets no equal one.

    Args:
        samples: At least two different images among them, none of them in more than half of the samples.
        seed: Same samples and seed, same result.

    Returns:
        The samples in their order, with other images.

    Raises:
        DataError: One image belongs to so many samples that not all of them can get another.
    """
    owners: dict[str, list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        with suppress(DataError):
            if (content := sample.image_sha256()) is not None:
                owners[content].append(index)
    count = sum(map(len, owners.values()))
    largest = max(map(len, owners.values()), default=0)
    if 2 * largest > count:
        raise DataError(
            f"the images cannot be shuffled: {largest} of {count} questions are about the same image, so not every one"
            " can get another. Evaluate on more images."
        )
    groups = list(owners.values())
    random.Random(seed).shuffle(groups)
    dealt = [index for group in groups for index in group]
    shuffled = list(samples)
    for position, index in enumerate(dealt):
        shuffled[index] = _with_image_of(samples[index], samples[dealt[(position + largest) % count]])
    return shuffled


def neighbour_images(samples: Sequence[Sample], others: Sequence[Sample], seed: int) -> list[Sample]:
    """Give questions the image of another sample with the same reference answer.

    Args:
        samples: The questions.
        others: Where the images come from.
        seed: Same samples and seed, same result.

    Returns:
        Those questions for which there is an image of other content, from another group, whose reference answer (after
        normalisation) and whose kind of question are the same.
    """
    classes: dict[tuple[object, str], list[int]] = defaultdict(list)
    for index, other in enumerate(others):
        if other.image is not None:
            classes[_class_of(other)].append(index)
    generator = random.Random(seed)
    neighbours = []
    for sample in samples:
        if sample.image is None:
            continue
        candidates = [index for index in classes[_class_of(sample)] if others[index].group != sample.group]
        generator.shuffle(candidates)
        for index in candidates[:MAX_TRIES]:
            try:
                is_other = others[index].image_sha256() != sample.image_sha256()
            except DataError:
                continue
            if is_other:
                neighbours.append(_with_image_of(sample, others[index]))
                break
    return neighbours


def _with_image_of(sample: Sample, other: Sample) -> Sample:
    """The other sample's image and window."""
    return replace(sample, image=other.image, window=other.window)


def _class_of(sample: Sample) -> tuple[object, str]:
    return sample.meta.get("kind"), normalise(sample.answer)
