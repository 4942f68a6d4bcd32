"""Turn the rows of a table (CSV, JSON Lines, Parquet, ...) into samples: which column is what, told or guessed.

{"image": "cats/1.jpg", "question": "How many cats?", "answer": "Two.", "patient_id": "p7", "split": "val"}
-> image, turns=(Turn("How many cats?", "Two."),), group="p7", meta={"split": "validation"}

A column is guessed by its name, only if just one fits. A table without a question column needs `question`, unless its
answers are captions. Columns with no part of their own go into `Sample.meta`. Rows that hold `messages` or LLaVA's
`conversations` are read as dialogues.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from vglm.data.problems import BadRow
from vglm.data.readers.dialogue import (
    DialogueOptions,
    DialogueReader,
    find_pictures,
    group_of_image,
    read_history,
)
from vglm.data.readers.rows import (
    GROUP_KEYS,
    IMAGE_SUFFIXES,
    ImageFolders,
    RowCheck,
    SeveralImages,
    group_in,
    is_english,
    kind_of,
    not_an_object,
    quote,
    refuse_several,
    spread_images,
)
from vglm.data.sample import Sample, Turn
from vglm.errors import ConfigError, DataError

CAPTION_QUESTION = "描述这张图片。"
CAPTION_QUESTION_ENGLISH = "Describe the picture."

_CAPTIONS = ("caption", "text", "txt", "description", "report", "描述", "报告")
_GUESSES = {
    "image": (
        "image",
        "images",
        "img",
        "image_path",
        "image_file",
        "file_name",
        "file_names",
        "filename",
        "picture",
        "图片",
        "图像",
    ),
    "question": ("question", "prompt", "query", "instruction", "问题"),
    "answer": (
        "answer",
        "label",
        "response",
        "output",
        "completion",
        "multiple_choice_answer",
        "回答",
        "答案",
        *_CAPTIONS,
    ),
    "split": ("split",),
}
_SHAPE = "with the table's columns"


class ColumnOptions(DialogueOptions, total=False):
    """Options of the formats that are tables, beside those of dialogues.

    Attributes:
        image_column: The column with the picture or its file name; guessed by name if None, as are the others.
        question_column: The column with the question.
        answer_column: The column with the answer.
        group_column: The column that says which rows must not be split between training and test.
        split_column: The column that says train, validation or test.
        question: What is asked in every row of a table without a question column.
    """

    image_column: str | None
    question_column: str | None
    answer_column: str | None
    group_column: str | None
    split_column: str | None
    question: str | None


@dataclass(frozen=True)
class Columns:
    """Which column is what; None where there is none.

    Attributes:
        answer: Holds the answer.
        question: Holds the question.
        image: Holds the picture or its name.
        group: Says which rows belong together.
        split: Says which split a row belongs to.
    """

    answer: str
    question: str | None = None
    image: str | None = None
    group: str | None = None
    split: str | None = None

    @property
    def used(self) -> frozenset[str]:
        """The columns that do not go into `Sample.meta`; the group stays there too."""
        return frozenset(filter(None, (self.answer, self.question, self.image, self.split))) | {"english", "history"}


@dataclass(frozen=True)
class TableReader:
    """Makes samples of a table's rows.

    Attributes:
        dialogues: Reads rows that hold messages, and carries the options of dialogues.
        columns: Which column is what; None where the rows hold messages.
        question: What is asked where there is no question column.
        renamed: Where the rows hold messages: what the columns that were named by the user are called there.
    """

    dialogues: DialogueReader
    columns: Columns | None
    question: str | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def start(
        cls, path: Path | str, folders: ImageFolders, name: str, names: Iterable[str], **options: Any
    ) -> "TableReader":
        """Settle the columns.

        Args:
            path: The table, for messages.
            folders: Where pictures are looked up.
            name: What sample ids begin with.
            names: The table's columns.
            **options: See `ColumnOptions`.

        Returns:
            A reader for this table's rows.

        Raises:
            ConfigError: An option has a value that it cannot have.
            DataError: A named column does not exist, several columns could be the same thing, there is no answer
                column, or there is no question.
        """
        dialogue_keys = [each.name for each in fields(DialogueReader)]
        dialogues = DialogueReader(
            folders, name, **{key: value for key, value in options.items() if key in dialogue_keys}
        )
        names = tuple(dict.fromkeys(names))
        if holds_dialogues(names):
            return cls(dialogues, None, renamed=_rename(path, names, options))
        return cls(dialogues, _settle(path, names, options), options.get("question"))

    def read(self, number: int | str, row: Any, split: str | None = None) -> Iterator[Sample | BadRow]:
        """Make the samples of one row.

        Args:
            number: Its number or name.
            row: Values by column; pictures inside a larger file come as `ImageSlice`.
            split: The split that the row's file stands for, if any.

        Yields:
            One sample, or one for each picture on request, or one bad row.
        """
        if not isinstance(row, dict):
            yield not_an_object(number, row, _SHAPE)
        elif self.columns is None or all(isinstance(row.get(key), list) for key in ("prompt", "completion")):
            marked = {self.renamed.get(key, key): value for key, value in row.items()}
            if split is not None:
                marked["split"] = split
            read = self.dialogues.read_messages if "conversations" not in row else self.dialogues.read_llava
            yield from read(number, marked)
        else:
            yield from self._read_columns(self.columns, number, row, split)

    def _read_columns(
        self, columns: Columns, number: int | str, row: Mapping[str, Any], split: str | None
    ) -> Iterator[Sample | BadRow]:
        check = RowCheck(number)
        several: SeveralImages = self.dialogues.several_images
        answer = _text(check, row, columns.answer)
        asked = _text(check, row, columns.question) if columns.question else self.question
        given = row.get(columns.image) if columns.image else None
        images = [] if given is None or given == "" else given if isinstance(given, list) else [given]
        refuse_several(check, len(images), several)
        pictures = find_pictures(check, self.dialogues.folders, images)
        if columns.image is None:
            _refuse_unread_images(check, row)
        meta = {key: value for key, value in row.items() if key not in columns.used}
        if columns.split is not None:
            split = check.split(row.get(columns.split), columns.split)
        if split is not None:
            meta["split"] = split
        history = read_history(check, row.get("history"))
        meta = check.meta(meta)
        group = group_in(row) if columns.group is None else row.get(columns.group)
        if isinstance(group, list | dict):
            check.fail(f"{columns.group!r} to be text or a number", kind_of(group), "write one value")
        bad = check.bad_row()
        if bad is not None:
            yield bad
            return
        identity = f"{self.dialogues.name}#{number}"
        words = [text for turn in history for text in (turn.question, turn.answer)]
        english = self._speaks_english(row.get("english"), [*words, asked or "", answer])
        sample = Sample(
            id=identity,
            group=str(group)
            if group not in (None, "")
            else group_of_image(images[0], identity)
            if images
            else identity,
            image=None,
            turns=(*history, Turn(asked or caption_question(english), answer)),
            english=english,
            meta=meta,
        )
        yield from spread_images(sample, pictures, several)

    def _speaks_english(self, written: Any, words: list[str]) -> bool:
        if self.dialogues.english is not None:
            return self.dialogues.english
        return written if isinstance(written, bool) else is_english(*words)


def caption_question(english: bool) -> str:
    """What is asked of a picture that comes with a caption only."""
    return CAPTION_QUESTION_ENGLISH if english else CAPTION_QUESTION


def holds_dialogues(names: Iterable[str]) -> bool:
    """Whether a table with these columns holds messages."""
    names = set(names)
    return bool(names & {"messages", "conversations"})


def looks_like_samples(names: Iterable[str]) -> bool:
    """Whether a table with these columns has an answer, and a question or a picture to it."""
    names = set(names)
    return bool(names & set(_GUESSES["answer"])) and bool(names & {*_GUESSES["question"], *_GUESSES["image"]})


def _settle(path: Path | str, names: tuple[str, ...], options: Mapping[str, Any]) -> Columns:
    """Find each column's part."""
    found = {part: _find(path, part, names, options.get(f"{part}_column")) for part in _GUESSES}
    group = options.get("group_column") or next((name for name in GROUP_KEYS if name in names), None)
    if group is not None and group not in names:
        raise DataError(f"{path}: there is no column {quote(group)}. {_these(names)}")
    answer, question = found["answer"], found["question"]
    if answer is None:
        raise DataError(
            f"{path}: expected a column with the answer, such as 'answer', 'label' or 'caption'. {_these(names)} "
            "Name it in dataset.options.answer_column."
        )
    if question is None and options.get("question") is None and answer not in _CAPTIONS:
        raise DataError(
            f"{path}: expected a column with the question, such as 'question' or 'prompt'. {_these(names)} Name it in "
            "dataset.options.question_column, or set dataset.options.question to what is asked in every row."
        )
    return Columns(answer=answer, question=question, image=found["image"], group=group, split=found["split"])


def _rename(path: Path | str, names: tuple[str, ...], options: Mapping[str, Any]) -> dict[str, str]:
    """Of the user's columns those that make sense beside messages, under the names by which dialogues know them."""
    for option in ("question", "question_column", "answer_column"):
        if options.get(option) is not None:
            raise ConfigError(f"dataset.options.{option}: {path} holds dialogues, which have their own questions.")
    told = {part: options.get(f"{part}_column") for part in ("image", "group", "split")}
    return {
        name: "images" if part == "image" else part
        for part, column in told.items()
        if (name := _find(path, part, names, column) if column is not None else None) is not None
    }


def _find(path: Path | str, part: str, names: tuple[str, ...], told: str | None) -> str | None:
    if told is not None:
        if told not in names:
            raise DataError(f"{path}: there is no column {quote(told)}. {_these(names)}")
        return told
    fitting = [name for name in names if name in _GUESSES[part]]
    if len(fitting) > 1:
        raise DataError(
            f"{path}: each of {', '.join(map(quote, fitting))} could be the column with the {part}. "
            f"Choose in dataset.options.{part}_column."
        )
    return fitting[0] if fitting else None


def _these(names: tuple[str, ...]) -> str:
    return f"Its columns are {', '.join(map(quote, names))}."


def _text(check: RowCheck, row: Mapping[str, Any], column: str) -> str:
    """A cell's text; a number counts as one, as spreadsheets make numbers of what looks like it."""
    value = row.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return str(value)
    return check.text(row, column)


def _refuse_unread_images(check: RowCheck, row: Mapping[str, Any]) -> None:
    """No picture may be passed over because its column's name is unknown."""
    for key, value in row.items():
        if isinstance(value, str) and value.lower().endswith(IMAGE_SUFFIXES) and " " not in value:
            fix = f"set dataset.options.image_column={key}"
            check.fail("the column with the picture to be known", f"{quote(key)}: {quote(value)}", fix)
