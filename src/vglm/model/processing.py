r"""Convert images and dialogues to model inputs, and token ids back to answers.

    >>> inputs = processor(images=image, text="图中有几个人？", return_tensors="pt")
    >>> {name: tuple(tensor.shape) for name, tensor in inputs.items()}        # what model() and generate() take
    {'input_ids': (1, 57), 'attention_mask': (1, 57), 'pixel_values': (1, 3, 224, 224)}

One sample in tokens, with four image slots and an answer to learn (`labels`: -100 before `<sop>`, from there the ids):

    <img> | slot slot slot slot | </img>问：图中有几个人？\n答： | [gMASK] <sop> | 三个人。 | <eop>
"""

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import BatchFeature, ProcessorMixin

from vglm.model.image_processing import VisualGlmImageProcessor
from vglm.model.modeling import IGNORE_INDEX
from vglm.model.tokenization import VisualGlmTokenizer
from vglm.text.prompt import LANGUAGES, Language, Prompt, clean_response

History = Sequence[tuple[str, str]]


class Cut(NamedTuple):
    """What a sample loses to fit into `max_length`.

    Attributes:
        turns: Turns of the history, the oldest ones.
        tokens: Tokens at the end of the answer, its `<eop>` among them.
    """

    turns: int
    tokens: int


class VisualGlmProcessor(ProcessorMixin):
    """The image processor and the tokenizer of one model, and the number of slots that an image takes in its prompt.

    Args:
        image_processor: Makes `pixel_values`.
        tokenizer: Encodes texts; its `<unk>` id marks an image slot.
        num_image_tokens: Slots per image, as in the model's config.
        kwargs: `chat_template`, which transformers passes to every processor it loads.
    """

    def __init__(
        self,
        image_processor: VisualGlmImageProcessor,
        tokenizer: VisualGlmTokenizer,
        num_image_tokens: int = 32,
        **kwargs: Any,
    ) -> None:
        self.num_image_tokens = num_image_tokens
        super().__init__(image_processor, tokenizer, **kwargs)

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        history: History | Sequence[History | None] | None = None,
        language: Language | Sequence[Language] = "zh",
        answer: str | Sequence[str] | None = None,
        return_tensors: str | None = None,
        padding: bool | None = None,
        max_length: int | None = None,
        image_features: Sequence[Tensor | None] | None = None,
    ) -> BatchFeature:
        r"""Build a batch; each argument is one value for all samples, or a list with one entry per sample.

        Args:
            images: PIL images or arrays; None, alone or in the list, for a sample without image.
            text: Questions. Whatever a user writes here, in the history or in an answer, is read as plain text: it can
                produce neither special tokens nor image slots.
            history: Earlier turns as (question, answer) pairs, oldest first.
            language: `zh` for a prompt that reads `问：...\n答：`, `en` for `Q:...\nA:`.
            answer: Answers to learn; with them the batch has `labels`.
            return_tensors: "pt" or "np"; None gives a list of ints per sample.
            padding: Whether to pad on the left to the longest sample; None pads where tensors are requested.
            max_length: Most tokens of a sample, answer included; see `measure_cut`. None: as many as there are.
            image_features: In place of `images`, what the model's `get_image_features` made of each, shape
                (num_image_tokens, Q-Former width); None for a sample without image. A list, for `return_tensors="pt"`
                only.

        Returns:
            `input_ids`, `attention_mask` (1 = token, 0 = padding) and, with answers, `labels` (-100 = not counted; the
            loss starts at `<sop>`), each (B, L), int64; `pixel_values` (samples with an image, 3, H, W), float32, in
            the order of those samples and absent where no sample has an image; or `image_features` (samples with an
            image, num_image_tokens, Q-Former width) likewise.

        Raises:
            ValueError: Lists of different lengths, a missing or empty list of texts, entries of a wrong type, or a
                question that does not fit into `max_length`.
        """
        columns = _columns(
            images=(images, isinstance(images, list | tuple)),
            text=(text, isinstance(text, list | tuple)),
            history=(history, history is not None and not all(map(_is_turn, history))),
            language=(language, isinstance(language, list | tuple)),
            answer=(answer, isinstance(answer, list | tuple)),
            image_features=(image_features, image_features is not None),
        )
        _check_entries(columns, has_answers=answer is not None)

        batch: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": []}
        if answer is not None:
            batch["labels"] = []
        for image, question, turns, spoken, reply, features in zip(*columns.values(), strict=True):
            has_image = image is not None or features is not None
            requested = Prompt(question, tuple(turns or ()), has_image, spoken)
            prompt, target, _ = self._encode(requested, reply, max_length)
            batch["input_ids"].append(prompt + target)
            batch["attention_mask"].append([1] * len(prompt + target))
            if answer is not None:
                batch["labels"].append([IGNORE_INDEX] * (len(prompt) - 1) + prompt[-1:] + target)
        if padding or (padding is None and return_tensors is not None):
            fillers = {"input_ids": self.tokenizer.pad_token_id, "attention_mask": 0, "labels": IGNORE_INDEX}
            batch = {key: _pad_left(rows, fillers[key]) for key, rows in batch.items()}

        inputs: dict[str, Any] = dict(batch)
        if pictures := [image for image in columns["images"] if image is not None]:
            inputs["pixel_values"] = self.image_processor(pictures, return_tensors=return_tensors)["pixel_values"]
        if encoded := [features for features in columns["image_features"] if features is not None]:
            inputs["image_features"] = torch.stack(encoded)
        return BatchFeature(inputs, tensor_type=return_tensors)

    def measure_cut(
        self, text: str, *, history: History, has_image: bool, language: Language, answer: str, max_length: int
    ) -> Cut:
        """What one sample loses at `max_length`.

        The image slots, the last question and the answer cue are never cut. The history gives way first, whole turns
        from the oldest on; then the end of the answer, which is then learned as one that goes on.

        Args:
            text: The last question.
            history: As in a call.
            has_image: Whether an image comes before the dialogue.
            language: As in a call.
            answer: Likewise.
            max_length: Likewise.

        Raises:
            ValueError: The last question leaves no room for an answer.
        """
        return self._encode(Prompt(text, tuple(history), has_image, language), answer, max_length)[2]

    def decode(self, token_ids: Any, **kwargs: Any) -> str:
        """Turn the tokens of one sample into its answer.

        Args:
            token_ids: Ids, shape (L,): an answer, or a prompt with its answer. What counts lies behind the first
                `<sop>`, if there is one, and before the next `<eop>`. Ids beyond the tokenizer's pieces, which the
                model may know since its vocabulary is rounded up, decode to nothing.
            kwargs: Passed on to the tokenizer.

        Returns:
            The answer without special tokens, tidied by `clean_response`.
        """
        ids = [int(token) for token in token_ids]
        if (begin := self.tokenizer.bos_token_id) in ids:
            ids = ids[ids.index(begin) + 1 :]
        ids = _until(ids, self.tokenizer.eos_token_id)
        size = len(self.tokenizer)
        ids = [token for token in ids if 0 <= token < size]
        return clean_response(self.tokenizer.decode(ids, **{"skip_special_tokens": True, **kwargs}))

    def batch_decode(self, sequences: Any, **kwargs: Any) -> list[str]:
        """Apply `decode` to each sequence of a batch, shape (B, L)."""
        return [self.decode(sequence, **kwargs) for sequence in sequences]

    def _encode(self, prompt: Prompt, answer: str | None, max_length: int | None) -> tuple[list[int], list[int], Cut]:
        """Token ids of a prompt and of its answer (none without one), and what was cut."""
        target = [] if answer is None else [*self.tokenizer.encode_plain(answer), self.tokenizer.eos_token_id]
        ids, turns = self._encode_prompt(prompt), len(prompt.history)
        while prompt.history and max_length is not None and len(ids) + len(target) > max_length:
            prompt = replace(prompt, history=prompt.history[1:])
            ids = self._encode_prompt(prompt)
        left_out = turns - len(prompt.history)
        if max_length is None or len(ids) + len(target) <= max_length:
            return ids, target, Cut(left_out, 0)
        if len(ids) + min(len(target), 1) > max_length:
            room = " and leaves no room for an answer" if target else ""
            raise ValueError(
                f"processor: a question takes {len(ids)} tokens without its history{room}; max_length is {max_length}."
                " Shorten the question, or raise max_length."
            )
        return ids, target[: max_length - len(ids)], Cut(left_out, len(ids) + len(target) - max_length)

    def _encode_prompt(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt, from `<img>` to `<sop>`."""
        encode = self.tokenizer.encode_plain
        slots = [self.tokenizer.unk_token_id] * (self.num_image_tokens if prompt.has_image else 0)
        text = [*encode(prompt.before_image), *slots, *encode(prompt.after_image)]
        ids: list[int] = self.tokenizer.build_inputs_with_special_tokens(text)
        return ids


def _is_turn(entry: Any) -> bool:
    """Whether an entry of `history` is one (question, answer) pair, so that the history is that of one sample."""
    return isinstance(entry, list | tuple) and len(entry) == 2 and all(isinstance(text, str) for text in entry)


def _columns(**arguments: tuple[Any, bool]) -> dict[str, list[Any]]:
    """Give every argument, passed as (value, whether it is a list over the samples), one entry per sample."""
    lengths = {name: len(value) for name, (value, is_list) in arguments.items() if is_list}
    if len(set(lengths.values())) > 1:
        actual = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"processor: lists must have one entry per sample, but {actual}.")
    count = next(iter(lengths.values()), 1)
    if count == 0:
        raise ValueError(f"processor: {', '.join(lengths)} is empty; pass at least one sample.")
    return {name: list(value) if is_list else [value] * count for name, (value, is_list) in arguments.items()}


def _check_entries(columns: dict[str, list[Any]], has_answers: bool) -> None:
    """Refuse entries of a wrong type, all at once."""
    kinds: dict[str, Callable[[Any], bool]] = {
        "images": lambda image: not isinstance(image, str | PathLike),
        "text": lambda text: isinstance(text, str),
        "history": lambda turns: turns is None or all(map(_is_turn, turns)),
        "language": lambda name: name in LANGUAGES,
        "answer": lambda text: isinstance(text, str) or not has_answers,
    }
    wrong = [
        f"{name}[{row}] is {reprlib.repr(entry)}"
        for name, is_right in kinds.items()
        for row, entry in enumerate(columns[name])
        if not is_right(entry)
    ]
    if wrong:
        expected = (
            "images opened with PIL, str for text and answer, (question, answer) pairs of str for history, zh or en for"
            " language"
        )
        raise ValueError(f"processor: {'; '.join(wrong)}. Expected {expected}.")


def _pad_left(rows: list[list[int]], filler: int) -> list[list[int]]:
    """Bring all rows to the length of the longest."""
    width = max(map(len, rows))
    return [[filler] * (width - len(row)) + row for row in rows]


class AnswerDecoder:
    """`processor.decode` for answers that grow, which are decoded again and again: without transformers' detours.

    The ids are those of an answer alone. A `<sop>` among them is one more special token, not where an answer begins, or
    what was shown already would be gone.

    Args:
        processor: Whose special tokens stay as they are from now on.
    """

    def __init__(self, processor: VisualGlmProcessor) -> None:
        self._tokenizer = tokenizer = processor.tokenizer
        self._end = tokenizer.eos_token_id
        self._is_cleaned = tokenizer.clean_up_tokenization_spaces
        self._hidden, self._size = frozenset(tokenizer.all_special_ids), len(tokenizer)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Turn ids into what `VisualGlmProcessor.decode` makes of them behind a prompt."""
        hidden, size = self._hidden, self._size
        ids = _until(list(token_ids), self._end)
        text = self._tokenizer.text_of([token for token in ids if 0 <= token < size and token not in hidden])
        if self._is_cleaned and " " in text:  # all that it looks for begins with one
            text = self._tokenizer.clean_up_tokenization(text)
        return clean_response(text)


def _until(ids: list[int], end: int) -> list[int]:
    """The ids before the first `<eop>`."""
    return ids[: ids.index(end)] if end in ids else ids
