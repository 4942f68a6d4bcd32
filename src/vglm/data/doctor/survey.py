"""Read a data set once and keep a few numbers per row; the rows themselves are in a temporary file.

    with survey_rows(Source("openi", "xrayglm", [Part("openi-zh.json", None, rows)])) as survey:
        survey.rows["answer"]      # a hash of each answer, shape (rows,)
        survey.sample(3)           # the fourth usable row, as the reader gave it

A row costs some 100 bytes of memory, however long its texts are.
"""

import json
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from vglm.data.doctor.finding import progress_title
from vglm.data.doctor.pictures import PICTURE, READABLE, decode_pictures
from vglm.data.doctor.similarity import find_look_alikes
from vglm.data.doctor.texts import Mark, Script, is_sentence, language_of, marks_of, normalise, unresolved_in
from vglm.data.grouping import FoundIds, find_ids
from vglm.data.outline import Outline, own_groups
from vglm.data.problems import BadRow
from vglm.data.sample import Sample, Turn
from vglm.data.slices import ImageSlice
from vglm.data.windowing import Window

ROW = np.dtype(
    [
        ("split", np.int16),  # index into Survey.splits
        ("kind", np.int32),  # index into Survey.kinds
        ("image", np.uint64),  # hash of where the picture is; 0 = none
        ("group", np.uint64),  # hash of the group's name
        ("has_own_group", np.bool_),  # the group says no more than which row or picture it is
        ("words", np.uint64),  # hash of all turns up to the last question
        ("question", np.uint64),  # hash of the last question as `normalise` sees it
        ("answer", np.uint64),  # hash of the last answer as `normalise` sees it
        ("turns", np.int32),
        ("marks", np.uint8),  # Mark, of all answers
        ("open_question", np.bool_),  # a question holds an unresolved token
        ("question_language", np.uint8),  # Script
        ("answer_language", np.uint8),
        ("is_sentence", np.bool_),  # the last question and answer both are
        ("is_english", np.bool_),  # the prompt
        ("prompt_tokens", np.int32),  # last question, its frame, image slots, special tokens
        ("history_tokens", np.int32),
        ("answer_tokens", np.int32),
    ]
)
"""What is kept of a row that a reader could make a sample of."""

_CHUNK = 4096


class Lengths(NamedTuple):
    """How many tokens a sample has.

    Attributes:
        prompt: The last question with its frame, the image slots and the special tokens; never cut.
        history: The turns before it, of which the oldest are cut first.
        answer: The answer with the token that closes it.
    """

    prompt: int
    history: int
    answer: int


@dataclass(frozen=True)
class Part:
    """One file of a data set.

    Attributes:
        name: What its sample ids begin with.
        split: The split that all its rows belong to; None where the rows say so, or nothing does.
        rows: What its reader yields.
    """

    name: str
    split: str | None
    rows: Iterable[Sample | BadRow]


@dataclass(frozen=True)
class Source:
    """A data set to survey.

    Attributes:
        path: Where it is, for the report.
        format: The name of its format.
        parts: Its files.
    """

    path: str
    format: str
    parts: Sequence[Part]


@dataclass
class Survey:
    """The facts of a data set after reading every row once.

    Attributes:
        source: What was read.
        splits: Names of the splits; "" stands for rows of no split.
        kinds: Names of the sorts of question; "" where a row names none.
        rows: Shape (usable rows,), dtype `ROW`.
        bad_rows: Number of unusable rows, apart from those with a missing picture.
        missing: Number of rows of which only the picture is missing, and which are not among `rows` for that.
        absent: The rows whose picture their reader did not find.
        images: For each distinct picture the first row that shows it, shape (pictures,).
        image_of_row: For each row the index into `images`, or -1, shape (usable rows,).
        pictures: What decoding showed, shape (pictures,), dtype `PICTURE`; empty before, or if it was left out.
        faults: Why a picture cannot be used, by its index.
        ids: Groups by the ids of patients and studies, as training makes them; None where no row has one.
        other_tasks: Hashes of the questions of data that is to be trained or tested along with this, by where it is.
    """

    source: Source
    splits: list[str]
    kinds: list[str]
    rows: NDArray[Any]
    bad_rows: int
    missing: int
    absent: NDArray[np.intp]
    images: NDArray[np.intp]
    image_of_row: NDArray[np.intp]
    _samples: "_Spool"
    _bad: "_Spool"
    pictures: NDArray[Any] = field(default_factory=lambda: np.empty(0, PICTURE))
    faults: Mapping[int, str] = field(default_factory=dict)
    other_tasks: Mapping[str, NDArray[np.uint64]] = field(default_factory=dict)
    ids: FoundIds | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, row: int) -> Sample:
        """The sample of a usable row; its `meta` is as the reader gave it."""
        sample = _unpack(self._samples[row])
        return sample if self.ids is None else replace(sample, group=self.ids.groups[row])

    def samples(self) -> Iterator[Sample]:
        """All samples in order."""
        samples = map(_unpack, self._samples)
        if self.ids is None:
            return samples
        return (replace(sample, group=group) for sample, group in zip(samples, self.ids.groups, strict=True))

    def sample_of_picture(self, picture: int) -> Sample:
        """The first sample that shows a picture."""
        return self.sample(int(self.images[picture]))

    def bad(self) -> Iterator[tuple[str, BadRow]]:
        """All rows that no sample could be made of, with the name of their file."""
        for record in self._bad:
            yield record["part"], BadRow(record["row"], record["fault"], record["is_missing_image"])

    def decode(self, workers: int | None = None) -> None:
        """Look at all pictures, see `decode_pictures`."""
        self.pictures, self.faults = decode_pictures(self.sample_of_picture, len(self.images), workers)

    @property
    def has_lengths(self) -> bool:
        """Whether tokens were counted."""
        return len(self) > 0 and bool(self.rows["answer_tokens"][0] >= 0)

    @property
    def was_decoded(self) -> bool:
        """Whether the pictures were looked at, so that they can be compared by content."""
        return len(self.pictures) == len(self.images)

    @cached_property
    def content_of_row(self) -> NDArray[np.int64]:
        """What each row shows, by content if the pictures were decoded, else by path; -1 without a picture."""
        if not len(self.images):
            return np.full(len(self), -1, np.int64)
        contents = np.arange(len(self.images))
        if self.was_decoded:
            contents = np.unique(self.pictures["pixels"], axis=0, return_inverse=True)[1].ravel()
            broken = self.pictures["status"] != READABLE
            contents[broken] = len(contents) + np.flatnonzero(broken)  # each is like no other
        return np.where(self.image_of_row < 0, -1, contents[self.image_of_row])

    @cached_property
    def table(self) -> pd.DataFrame:
        """`rows` as a table under their numbers, with the column `input`: rows with one picture and words share it."""
        table = pd.DataFrame(self.rows)
        contents = self.content_of_row.astype(np.uint64)
        table["input"] = table.groupby([contents, "words"]).ngroup()
        return table

    @cached_property
    def look_alikes(self) -> list[list[int]]:
        """Groups of pictures that look alike, by index; of those with equal pixels only one, of plain ones none."""
        if not self.was_decoded or not len(self.pictures):
            return []
        candidates = np.flatnonzero((self.pictures["status"] == READABLE) & ~self.pictures["is_plain"])
        _, first = np.unique(self.pictures["pixels"][candidates], axis=0, return_index=True)
        distinct = candidates[np.sort(first)]
        return [distinct[group].tolist() for group in find_look_alikes(self.pictures["cells"][distinct])]


@contextmanager
def survey_rows(
    source: Source,
    count_tokens: Callable[[Sample], Lengths] | None = None,
    other_tasks: Mapping[str, Iterable[Sample | BadRow]] | None = None,
) -> Iterator[Survey]:
    """Read all rows once.

    Args:
        source: The files and their rows.
        count_tokens: Measures a sample; tokens are not counted if None.
        other_tasks: Rows of other data, whose questions are to be compared with these, by where they are.

    Yields:
        The survey, pictures not yet decoded. Its rows can be read until the context ends.

    Raises:
        DataError: A reader found that its file as a whole cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="vglm-doctor-") as name:
        folder = Path(name)
        with _Spool(folder / "samples.jsonl") as samples, _Spool(folder / "bad_rows.jsonl") as bad:
            splits: dict[str, int] = {}
            kinds: dict[str, int] = {}
            chunks: list[NDArray[Any]] = []
            pending: list[tuple[Any, ...]] = []
            missing = 0
            absent: list[int] = []
            outline = Outline()
            progress = tqdm(desc=progress_title("rows"), unit="row", delay=2)
            for part in source.parts:
                for row in part.rows:
                    progress.update()
                    if isinstance(row, BadRow) and row.is_missing_image and row.sample is not None:
                        absent.append(len(samples))
                        row = row.sample
                    if isinstance(row, BadRow):
                        missing += row.is_missing_image
                        fault = {"row": row.row, "fault": row.fault, "is_missing_image": row.is_missing_image}
                        bad.append({"part": part.name, **fault})
                        continue
                    sample = _keep_in_memory_picture(row, folder, len(samples))
                    split = part.split or sample.meta.get("split")
                    outline.add(sample)
                    samples.append(_pack(sample, split if isinstance(split, str) else None))
                    pending.append(_describe(sample, split, splits, kinds, count_tokens))
                    if len(pending) == _CHUNK:
                        chunks.append(np.array(pending, ROW))
                        pending.clear()
            progress.close()
            rows = np.concatenate([*chunks, np.array(pending, ROW)])
            ids = find_ids(outline)
            if ids is not None:
                rows["group"] = list(ids.groups.map(hash_text))
                outline = replace(outline, groups=ids.groups)
                rows["has_own_group"] = own_groups(outline)
            pictured = np.flatnonzero(rows["image"])
            _, first, inverse = np.unique(rows["image"][pictured], return_index=True, return_inverse=True)
            order = np.argsort(first)  # pictures in the order of the rows, not of their hashes
            rank = np.empty_like(order)
            rank[order] = np.arange(len(order))
            image_of_row = np.full(len(rows), -1, np.intp)
            image_of_row[pictured] = rank[inverse]
            yield Survey(
                source=source,
                splits=list(splits),
                kinds=list(kinds),
                rows=rows,
                bad_rows=len(bad) - missing,
                missing=missing,
                absent=np.array(absent, np.intp),
                images=pictured[first[order]],
                image_of_row=image_of_row,
                _samples=samples,
                _bad=bad,
                ids=ids,
                other_tasks={task_name: _question_hashes(task) for task_name, task in (other_tasks or {}).items()},
            )


def hash_text(text: str) -> int:
    """A 64-bit hash of a text; never 0."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()) or 1


def _question_hashes(rows: Iterable[Sample | BadRow]) -> NDArray[np.uint64]:
    hashes = array("Q", (hash_text(normalise(row.question)) for row in rows if isinstance(row, Sample)))
    return np.unique(np.frombuffer(hashes, np.uint64))


def _describe(
    sample: Sample,
    split: object,
    splits: dict[str, int],
    kinds: dict[str, int],
    count_tokens: Callable[[Sample], Lengths] | None,
) -> tuple[Any, ...]:
    """One row of `ROW`."""
    kind = sample.meta.get("kind")
    marks = Mark(0)
    for turn in sample.turns:
        marks |= marks_of(turn.answer)
    lengths = Lengths(-1, -1, -1) if count_tokens is None else count_tokens(sample)
    question, question_language, asks_in_words = _describe_question(sample.question)
    return (
        splits.setdefault(split if isinstance(split, str) else "", len(splits)),
        kinds.setdefault(kind if isinstance(kind, str) else "", len(kinds)),
        0 if sample.image is None else hash_text(str(sample.image)),
        hash_text(sample.group),
        sample.group == sample.id or _names_picture(sample.group, sample.image),
        hash_text("\0".join([text for turn in sample.history for text in turn] + [sample.question])),
        question,
        hash_text(normalise(sample.answer)),
        len(sample.turns),
        marks,
        any(_is_open(turn.question) for turn in sample.turns),
        question_language,
        language_of(sample.answer),
        asks_in_words and is_sentence(sample.answer),
        sample.language == "en",
        *lengths,
    )


@lru_cache(1024)  # most questions come again and again
def _describe_question(question: str) -> tuple[int, Script, bool]:
    return hash_text(normalise(question)), language_of(question), is_sentence(question)


_is_open = lru_cache(1024)(unresolved_in)


def _names_picture(group: str, image: object) -> bool:
    """Whether a group is called as its picture is."""
    if not isinstance(image, Path):
        return False
    return group in (image.stem, image.name) or str(image).endswith(f"/{group}")


def _keep_in_memory_picture(sample: Sample, folder: Path, number: int) -> Sample:
    """Write a picture that exists in memory only to the temporary folder, so that it can be looked at later."""
    if not isinstance(sample.image, Image.Image):
        return sample
    path = folder / f"{number}.png"
    sample.image.save(path)
    return replace(sample, image=path)


def _pack(sample: Sample, split: str | None) -> dict[str, Any]:
    image = sample.image
    location: Any = str(image) if isinstance(image, Path) else None
    if isinstance(image, ImageSlice):
        location = [str(image.file), image.offset, image.size, image.is_base64]
    meta = {**sample.meta, "split": split} if split else dict(sample.meta)
    turns = [[turn.question, turn.answer] for turn in sample.turns]
    window = None if sample.window is None else sample.window.record()
    named = {"id": sample.id, "group": sample.group, "image": location, "turns": turns, "language": sample.language}
    return {**named, "meta": meta, "window": window}


def _unpack(record: Mapping[str, Any]) -> Sample:
    location = record["image"]
    image: Path | ImageSlice | None = (
        None if location is None else Path(location) if isinstance(location, str) else None
    )
    if isinstance(location, list):
        image = ImageSlice(Path(location[0]), *location[1:])
    turns = tuple(Turn(question, answer) for question, answer in record["turns"])
    window = None if record["window"] is None else Window.recorded(record["window"], record["id"])
    return Sample(record["id"], record["group"], image, turns, record["language"], record["meta"], window)


class _Spool:
    """Records in a file, one a line, read back by number."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self._offsets = array("Q")
        self._end = 0

    def __enter__(self) -> "_Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._offsets)

    def append(self, record: Mapping[str, Any]) -> None:
        line = json.dumps(record).encode() + b"\n"  # ASCII: half characters survive as escapes
        self._file.write(line)
        self._offsets.append(self._end)
        self._end += len(line)

    def __getitem__(self, number: int) -> dict[str, Any]:
        self._file.seek(self._offsets[number])
        record: dict[str, Any] = json.loads(self._file.readline())
        return record

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number in range(len(self)):  # other reads may come between
            yield self[number]
