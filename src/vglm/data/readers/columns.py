"""Turn the rows of a table (CSV, JSON Lines, Parquet, ...) into samples; the role of each column is given or inferred.

{"image": "cats/1.jpg", "question": "How many cats?", "answer": "Two.", "patient_id": "p7", "split": "val"}
-> image, turns=(Turn("How many cats?", "Two."),), group="p7", meta={"split": "validation"}

A column's role is inferred from its name, only if exactly one column fits. A table without a question column needs
`question`, unless its answers are captions. Columns with no part of their own go into `Sample.meta`. A list of answers,
one per person, is kept there as `answers` for the VQA accuracy, and the most frequent one (the first of several) is the
answer. Rows that hold `messages` or LLaVA's `conversations` are read as dialogues.
"""

import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeGuard

from vglm.data.ids import group_name
from vglm.data.problems import BadRow
from vglm.data.readers.dialogue import (
    DialogueOptions,
    DialogueReader,
    find_pictures,
    group_of_image,
    listed,
    optional_text,
    read_history,
)
from vglm.data.readers.marks import settle_marks
from vglm.data.readers.rows import (
    IMAGE_SUFFIXES,
    LONGEST_NO_VALUE,
    NO_VALUES,
    ImageFolders,
    RowCheck,
    SeveralImages,
    half_character,
    is_blank,
    kind_of,
    language_of,
    not_an_object,
    quote,
    read_answers,
    read_group,
    refuse_several,
    spread_images,
)
from vglm.data.sample import Sample, Turn
from vglm.errors import ConfigError, DataError
from vglm.text.prompt import Language

CAPTION_QUESTIONS: Mapping[Language, str] = {"zh": "描述这张图片。", "en": "Describe the picture."}
"""The question about a picture that has only a caption."""

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
    "system": ("system", "system_prompt"),
}
PARTS = (*_GUESSES, "group", "input")
"""What a column can be."""
_SHAPE = "with the table's columns"
_ANSWERS = "answers"
"""The column of TextVQA, OK-VQA and VizWiz with what several people answered; alone, or beside the one that counts."""
_WHOLE = re.compile(r"-?\d+(?:\.0)?")
_LONGEST_KEPT = 512
"""Characters of a text that is remembered: a question or a name, no picture in base64."""
_SPECIAL_KEYS = frozenset((_ANSWERS, "history", "english"))

logger = logging.getLogger(__name__)


class ColumnOptions(DialogueOptions, total=False):
    """Options of the formats that are tables, beside those of dialogues.

    Attributes:
        image_column: The column with the picture or its file name; guessed by name if None, as are the others.
        question_column: The column with the question.
        answer_column: The column with the answer.
        group_column: The column that says which rows must not be split between training and test.
        split_column: The column that says train, validation or test.
        input_column: The column that goes on with the question on a line of its own; `input` beside `instruction`.
        system_column: The column with what comes before the first question; `system` if there is one.
        columns: Several of these in one: `{image: Bild, question: Frage, answer: Antwort}`.
        question: The question of every row of a table without a question column.
    """

    image_column: str | None
    question_column: str | None
    answer_column: str | None
    group_column: str | None
    split_column: str | None
    input_column: str | None
    system_column: str | None
    columns: Mapping[str, str | None] | None
    question: str | None


@dataclass(frozen=True)
class Columns:
    """Which column is what; None where there is none.

    Attributes:
        answer: Holds the answer.
        question: Holds the question.
        image: Holds the picture or its name.
        group: Says which rows belong together, if the user named it; else the ids in the row do, see `vglm.data.ids`.
        split: Says which split a row belongs to.
        input: Goes on with the question.
        system: Comes before the first question.
    """

    answer: str
    question: str | None = None
    image: str | None = None
    group: str | None = None
    split: str | None = None
    input: str | None = None
    system: str | None = None

    @cached_property
    def used(self) -> frozenset[str]:
        """The columns that do not go into `Sample.meta`; the group stays there too."""
        parts = (self.answer, self.question, self.image, self.split, self.input, self.system)
        return frozenset(filter(None, parts)) | {"english", "history"}


@dataclass(frozen=True)
class TableReader:
    """Makes samples of a table's rows.

    Attributes:
        dialogues: Reads rows that hold messages, and carries the options of dialogues.
        columns: Which column is what; None where the rows hold messages.
        question: The question where there is no question column.
        renamed: Where the rows hold messages: what the columns that were named by the user are called there.
        cells: Goes through a column from the first row on, if it can be read twice.
        whole: Columns known to hold whole numbers only.
    """

    dialogues: DialogueReader
    columns: Columns | None
    question: str | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    cells: Callable[[str], Iterable[Any]] | None = None
    whole: dict[str, bool] = field(default_factory=dict)

    @classmethod
    def start(
        cls,
        path: Path | str,
        folders: ImageFolders,
        name: str,
        names: Iterable[str],
        cells: Callable[[str], Iterable[Any]] | None = None,
        **options: Any,
    ) -> "TableReader":
        """Settle the columns.

        Args:
            path: The table, for messages.
            folders: Where pictures are looked up.
            name: What sample ids begin with.
            names: The table's columns.
            cells: Goes through a column from the first row on, if it can be read twice.
            **options: See `ColumnOptions`.

        Returns:
            A reader for this table's rows.

        Raises:
            ConfigError: An option has a value that it cannot have.
            DataError: A named column does not exist, several columns could be the same thing, there is no answer
                column, or there is no question.
        """
        dialogue_keys = [field.name for field in fields(DialogueReader)]
        dialogues = DialogueReader(
            folders, name, **{key: value for key, value in options.items() if key in dialogue_keys}
        )
        names = tuple(dict.fromkeys(names))
        named = _named(options)
        if holds_dialogues(names):
            return cls(dialogues, None, renamed=_rename(path, names, options, named))
        columns = _settle(path, names, named, options.get("question"))
        return cls(dialogues, columns, options.get("question"), cells=cells)

    def read(self, number: int | str, row: Any, split: str | None = None) -> Iterable[Sample | BadRow]:
        """Make the samples of one row.

        Args:
            number: Its number or name.
            row: Values by column; pictures inside a larger file come as `ImageSlice`.
            split: The split that the row's file stands for, if any.

        Returns:
            One sample, or one for each picture on request, or one bad row.
        """
        if not isinstance(row, dict):
            return (not_an_object(number, row, _SHAPE),)
        if self.columns and split is None and (sample := self._read_plain(self.columns, number, row)) is not None:
            return (sample,)
        if self.columns is None or all(isinstance(row.get(key), list) for key in ("prompt", "completion")):
            marked = {self.renamed.get(key, key): value for key, value in row.items()}
            if split is not None:
                marked["split"] = split
            read = self.dialogues.read_messages if "conversations" not in row else self.dialogues.read_llava
            return read(number, marked)
        return self._read_columns(self.columns, number, row, split)

    def _read_plain(self, columns: Columns, number: int | str, row: Mapping[str, Any]) -> Sample | None:
        """The sample of an ordinary row, in a sixth of the time; None for any other row.

        It has a picture that is there, one question and one answer, both plain text, and perhaps further keys.
        """
        if self._is_special or not _SPECIAL_KEYS.isdisjoint(row) or isinstance(row.get("completion"), list):
            return None
        question, answer, image = row.get(columns.question or ""), row.get(columns.answer), row.get(columns.image or "")
        if not (_is_plain(answer) and isinstance(question, str) and isinstance(image, str)):
            return None
        if not (_is_plain_again(question) and _is_plain_again(image)):
            return None
        if (picture := self.dialogues.folders.existing(image)) is None:
            return None
        group, meta = None, {}
        if not row.keys() <= columns.used:
            check = RowCheck(number)
            meta = {key: value for key, value in row.items() if key not in columns.used}
            meta, group = check.meta(meta), read_group(check, row)
            if check.bad_row() is not None:
                return None
        language = self.dialogues.language or language_of(question, answer)
        identity, group = f"{self.dialogues.name}#{number}", group or group_of_image(image, "")
        return Sample(identity, group, picture, (Turn(question, answer),), language, meta)

    @cached_property
    def _is_special(self) -> bool:
        """Whether columns or options make more of each row than a question, an answer and a picture."""
        columns = self.columns
        if columns is None or columns.question is None or columns.image is None or self.question is not None:
            return True
        return any((columns.group, columns.split, columns.input, columns.system))

    def _read_columns(
        self, columns: Columns, number: int | str, row: Mapping[str, Any], split: str | None
    ) -> Iterator[Sample | BadRow]:
        check = RowCheck(number)
        several: SeveralImages = self.dialogues.several_images
        answer, votes = self._answer(check, row, columns.answer)
        question = self._question_of(check, row, columns)
        history = read_history(check, row.get("history"))
        cell = row.get(columns.image) if columns.image else None
        images = listed(None if cell == "" else cell)
        refuse_several(check, len(images), several)
        named = len(images)
        answers = [*(turn.answer for turn in history), answer]
        questions = [turn.question for turn in history]
        if question is None:
            question = CAPTION_QUESTIONS[self._language(row.get("english"), [*questions, *answers])]
        questions, images = settle_marks(check, [*questions, question], answers, images)
        refuse_several(check, 0 if named else len(images), several)
        pictures = find_pictures(check, self.dialogues.folders, images)
        if columns.image is None:
            _refuse_unread_images(check, row)
        meta = {key: value for key, value in row.items() if key not in columns.used}
        if columns.split is not None:
            split = check.split(row.get(columns.split), columns.split)
        if split is not None:
            meta["split"] = split
        if votes:
            meta["answers"] = votes
        system = optional_text(check, row, columns.system)
        if system and self.dialogues.system == "meta":
            meta["system"] = system
        meta = check.meta(meta)
        group = read_group(check, row) if columns.group is None else group_name(row.get(columns.group))
        if columns.group is not None and group is None:
            fix = "write it, or leave out group_column"
            check.fail(f"{columns.group!r} to name the row's group", kind_of(row.get(columns.group)), fix)
        bad = check.bad_row()
        if bad is not None:
            yield bad
            return
        identity = f"{self.dialogues.name}#{number}"
        language = self._language(row.get("english"), [*questions, *answers])
        if system and self.dialogues.system == "prepend":
            questions[0] = f"{system}\n{questions[0]}"
        sample = Sample(
            id=identity,
            group=group or (group_of_image(images[0], identity) if images else identity),
            image=pictures[0] if pictures else None,
            turns=tuple(map(Turn, questions, answers)),
            language=language,
            meta=meta,
        )
        yield from spread_images(sample, pictures, several)

    def _question_of(self, check: RowCheck, row: Mapping[str, Any], columns: Columns) -> str | None:
        """What a row asks; None where there is only a caption."""
        further = optional_text(check, row, columns.input)
        if columns.question is None or (further and row.get(columns.question) in (None, "")):
            question = self.question
        else:
            question = self._text(check, row, columns.question)
        return f"{question}\n{further}" if question and further else further or question

    def _answer(self, check: RowCheck, row: Mapping[str, Any], column: str) -> tuple[str, list[str]]:
        """The answer to learn, and where several people answered all of theirs; what most of them gave is learned."""
        value = row.get(column)
        if isinstance(value, str) and column == _ANSWERS and value.lstrip().startswith("["):
            try:
                value = json.loads(value)  # a list in a cell of a CSV table
            except (ValueError, RecursionError):
                check.fail(f"{column!r} to be a JSON list", quote(value), 'write ["first answer", "second answer"]')
                return "", []
        if isinstance(value, list) and column not in _CAPTIONS:
            votes = read_answers(check, value, repr(column))
            return max(votes, key=votes.count, default=""), votes
        answers = row.get(_ANSWERS)
        if (
            column != _ANSWERS
            and isinstance(answers, list)
            and any(isinstance(answer, str | Mapping) for answer in answers)
        ):
            return self._text(check, row, column), read_answers(check, answers, repr(_ANSWERS))
        return self._text(check, row, column), []

    def _text(self, check: RowCheck, row: Mapping[str, Any], column: str) -> str:
        """A cell's text; a number counts as one, as spreadsheets make numbers of what looks like it."""
        value = row.get(column)
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        is_number = is_whole or (isinstance(value, float) and math.isfinite(value))
        text = str(value) if is_number else check.text(row, column)
        if text.endswith(".0") and _WHOLE.fullmatch(text) and self._is_whole(column):
            return text[:-2]
        return text

    def _is_whole(self, column: str) -> bool:
        """Whether a column holds only whole numbers and gaps, of which pandas makes 3.0 for 3."""
        if column not in self.whole:
            cells = () if self.cells is None else self.cells(column)
            self.whole[column] = self.cells is not None and all(map(_is_whole_or_empty, cells))
            if self.whole[column]:
                logger.warning("column %r holds whole numbers written as 3.0, which are read as 3", column)
        return self.whole[column]

    def _language(self, written: Any, words: list[str]) -> Language:
        if self.dialogues.language is None and isinstance(written, bool):
            return "en" if written else "zh"
        return self.dialogues.language or language_of(*words)


def _is_plain(value: Any) -> TypeGuard[str]:
    """Whether a cell is a text with something to say, without marks, in whole characters."""
    if not isinstance(value, str) or "<" in value or "[" in value or is_blank(value) or value.endswith(".0"):
        return False
    return (len(value) >= LONGEST_NO_VALUE or value.strip() not in NO_VALUES) and half_character(value) is None


_is_short_plain = lru_cache(1 << 14)(_is_plain)


def _is_plain_again(text: str) -> bool:
    """The same of a text that may come again and again, as names of pictures and questions do."""
    return (_is_short_plain if len(text) <= _LONGEST_KEPT else _is_plain)(text)


def holds_dialogues(names: Iterable[str]) -> bool:
    """Whether a table with these columns holds messages."""
    names = set(names)
    return bool(names & {"messages", "conversations"})


def looks_like_samples(names: Iterable[str]) -> bool:
    """Whether a table with these columns has an answer, and a question or a picture to it."""
    names = set(names)
    return bool(names & {*_GUESSES["answer"], _ANSWERS}) and bool(names & {*_GUESSES["question"], *_GUESSES["image"]})


def _named(options: Mapping[str, Any]) -> dict[str, str]:
    """The columns that the user names, by their part."""
    columns = options.get("columns") or {}
    if not isinstance(columns, Mapping) or not columns.keys() <= set(PARTS):
        raise ConfigError(
            f"dataset.columns must name columns for some of {', '.join(PARTS)}, such as"
            f" {{image: photo, question: asked}}, got {columns!r}."
        )
    named = {**columns, **{part: options[f"{part}_column"] for part in PARTS if options.get(f"{part}_column")}}
    return {part: str(column) for part, column in named.items() if column is not None}


def _settle(path: Path | str, names: tuple[str, ...], named: Mapping[str, str], fixed_question: str | None) -> Columns:
    """Find each column's part."""
    columns = {part: _find(path, part, names, named.get(part)) for part in PARTS}
    group = columns["group"]
    answer, question = columns["answer"], columns["question"]
    further = columns["input"] or ("input" if question == "instruction" and "input" in names else None)
    if answer is None:
        raise DataError(
            f"{path}: expected a column with the answer, such as 'answer', 'label' or 'caption'. {_these(names)} "
            "Name it: dataset.columns.answer=<name> (of the doctor: --columns answer=<name>)."
        )
    if question is None and fixed_question is None and answer not in _CAPTIONS:
        raise DataError(
            f"{path}: expected a column with the question, such as 'question' or 'prompt'. {_these(names)} Name it: "
            "dataset.columns.question=<name> (of the doctor: --columns question=<name>), or set"
            " dataset.options.question to what is asked in every row."
        )
    image, split, system = columns["image"], columns["split"], columns["system"]
    return Columns(answer, question, image, group, split, input=further, system=system)


def _rename(
    path: Path | str, names: tuple[str, ...], options: Mapping[str, Any], named: Mapping[str, str]
) -> dict[str, str]:
    """Of the user's columns those that make sense beside messages, under the names by which dialogues know them."""
    options_used = [*(["question"] if options.get("question") is not None else []), *named]
    for option in options_used:
        if option in ("question", "answer", "input"):
            raise ConfigError(f"dataset.options.{option}: {path} holds dialogues, which have their own questions.")
    renamed = {_find(path, part, names, column): part for part, column in named.items()}
    return {str(name): "images" if part == "image" else part for name, part in renamed.items()}


def _find(path: Path | str, part: str, names: tuple[str, ...], named: str | None) -> str | None:
    if named is not None:
        if named not in names:
            raise DataError(f"{path}: there is no column {quote(named)}. {_these(names)}")
        return named
    fitting = [name for name in names if name in _GUESSES.get(part, ())]
    if part == "answer" and not fitting and _ANSWERS in names:
        return _ANSWERS
    if len(fitting) > 1:
        raise DataError(
            f"{path}: each of {', '.join(map(quote, fitting))} could be the column with the {part}. "
            f"Choose in dataset.options.{part}_column."
        )
    return fitting[0] if fitting else None


def _these(names: tuple[str, ...]) -> str:
    return f"Its columns are {', '.join(map(quote, names))}."


def _is_whole_or_empty(value: Any) -> bool:
    if isinstance(value, float):
        return value.is_integer() or value != value
    if isinstance(value, str):
        return not value.strip() or _WHOLE.fullmatch(value) is not None
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def _refuse_unread_images(check: RowCheck, row: Mapping[str, Any]) -> None:
    """No picture may be passed over because its column's name is unknown."""
    for key, value in row.items():
        if isinstance(value, str) and value.lower().endswith(IMAGE_SUFFIXES) and " " not in value:
            fix = f"set dataset.options.image_column={key}"
            check.fail("the column with the picture to be known", f"{quote(key)}: {quote(value)}", fix)
