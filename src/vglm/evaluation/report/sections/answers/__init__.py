"""The answers side by side; the page's script builds their cards as they are shown."""

import base64
import io
import json
import random
from collections.abc import Mapping, Sequence
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from vglm.evaluation.messages import translate
from vglm.evaluation.predictions import IMAGES_FOLDER
from vglm.evaluation.report.formatting import FLIPS, arm, right_by, section_texts, split_title
from vglm.evaluation.report.section import Scored
from vglm.evaluation.report.sections.slices import field_title, value_title
from vglm.evaluation.score.comparison import Comparison, Pair, Summary, slice_values
from vglm.files import inside
from vglm.text.messages import Text

say = section_texts(__file__)
MAX_IMAGE_BYTES = 20_000_000
"""Size of the images in the page, those of wrong answers first, so that it opens in seconds."""
MAX_ROWS_BYTES = 5_000_000
"""Size of the answers in the page, wrong ones first; of more, `ALL_ANSWERS` beside it holds all."""
ALL_ANSWERS = "answers.jsonl"
LARGE_SHARE = 0.75
"""This share of it is for images as the folder keeps them; the rest is for small ones of `SMALL_SIDE_PX`."""
SMALL_SIDE_PX = 224
MAX_EXAMPLES = 5
EXAMPLES_SEED = 1
RANKS = {(True, False): 0, (False, False): 1, (False, True): 2, (True, True): 3}
"""(Right before, right after) -> rank in the order of the answers: failures stand before successes."""


def show(scored: Scored) -> Mapping[str, Any]:
    """The answers as data for the script, and some that changed."""
    comparison, evaluation = scored.comparison, scored.evaluation
    images = _Images(scored.folder / IMAGES_FOLDER)
    changed = _changed(comparison)
    examples = _examples(changed)
    rows, shown = scored.once(_all_and_fitting)
    shown = [_with_images(row, images) for row in shown]
    about = {"n": len(shown), "total": len(rows), "file": ALL_ANSWERS}
    content = _data(comparison, shown, images)
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    meanings = {"before": translate(evaluation.baseline.meaning), "after": translate(evaluation.candidate.meaning)}
    return {
        "data": Markup(data),
        "left": images.left,
        "rows_left": None if len(shown) == len(rows) else say("rows_left", **about),
        "right_by": right_by(comparison),
        "splits": [_counts(split, part) for split, part in comparison.splits.items()],
        "meanings": say("meanings", baseline=comparison.baseline, candidate=comparison.candidate, **meanings),
        "examples": [(pair, say(f"flip.{FLIPS.index(pair.right)}")) for pair in examples],
        "drawn": say("examples_drawn", n=len(examples), total=len(changed), seed=EXAMPLES_SEED),
    }


def files(scored: Scored) -> Mapping[str, str]:
    """All answers, a sample a line, where the page cannot hold them."""
    comparison = scored.comparison
    rows, shown = scored.once(_all_and_fitting)
    if len(shown) == len(rows):
        return {}
    pairs = ((split, pair) for split, part in comparison.splits.items() for pair in part.all_pairs)
    return {ALL_ANSWERS: "".join(json.dumps(_line(*pair), ensure_ascii=False) + "\n" for pair in pairs)}


def _with_images(row: list[Any], images: "_Images") -> list[Any]:
    """A row with the numbers of its images in place of their hashes; the other's is None where it is the same."""
    own, other = row[11:13]
    return [*row[:11], images.index(own), None if other == own else images.index(other), *row[13:]]


def _line(split: str, pair: Pair) -> dict[str, Any]:
    return {
        "split": split,
        "id": pair.candidate.id,
        "draw": pair.candidate.draw,
        "question": pair.candidate.question,
        "reference": pair.candidate.reference,
        "before": pair.baseline.prediction,
        "after": pair.candidate.prediction,
        "right_before": pair.right[0],
        "right_after": pair.right[1],
    }


def _counts(split: str, part: Summary) -> tuple[Text, Text | None]:
    """How many answers differ, and how many there are not."""
    gained, lost = len(part.flips(False, True)), len(part.flips(True, False))
    about = {"changed": part.changed, "n": part.n, "gained": gained, "lost": lost}
    errors = say("errors", errors=part.errors) if part.errors else None
    return say("answers_split", split=split_title(split), **about), errors


def _changed(comparison: Comparison) -> list[Pair]:
    """Samples whose answers changed, one draw of each."""
    changed: dict[tuple[str, str], Pair] = {}
    for part in comparison.splits.values():
        for pair in part.all_pairs:
            if pair.is_changed:
                changed.setdefault(pair.sample, pair)
    return list(changed.values())


def _examples(changed: Sequence[Pair]) -> list[Pair]:
    """Some of them, drawn by seed; failures first."""
    drawn = random.Random(EXAMPLES_SEED).sample(changed, min(MAX_EXAMPLES, len(changed)))
    return sorted(drawn, key=lambda pair: RANKS[pair.right])


class _Images:
    """The images that the page holds, by the hash of their content.

    Args:
        folder: With `<sha256>.webp`.
    """

    def __init__(self, folder: Path) -> None:
        self.uris: list[str] = []
        self._folder, self._room, self._indices = folder, MAX_IMAGE_BYTES, dict[str, int]()
        self._reduced = 0
        self._names = {file.name for file in folder.iterdir()} if folder.is_dir() else set[str]()

    @property
    def left(self) -> Text | None:
        """How many are not in the page as the folder keeps them; None where all are."""
        total, embedded = len(self._indices), len(self.uris)
        if embedded == total and not self._reduced:
            return None
        return say("images_left", n=embedded, total=total, reduced=self._reduced)

    def index(self, sha256: str | None) -> int:
        """Of an image in the page: -1 for none, -2 for one that is not embedded."""
        if sha256 in self._indices:
            return self._indices[sha256]
        if f"{sha256}.webp" not in self._names:
            return -1
        path = inside(self._folder.parent, self._folder.name, f"{sha256}.webp")
        if sha256 is None or not path.is_file():
            return -1
        self._indices[sha256] = self._embed(path)
        return self._indices[sha256]

    def _embed(self, path: Path) -> int:
        content = path.read_bytes()
        if len(content) > self._room - (1 - LARGE_SHARE) * MAX_IMAGE_BYTES:
            small = reduced(content)
            self._reduced += small is not content and len(small) <= self._room
            content = small
        if len(content) > self._room:
            return -2
        self._room -= len(content)
        self.uris.append("data:image/webp;base64," + base64.b64encode(content).decode())
        return len(self.uris) - 1


def reduced(content: bytes) -> bytes:
    """An encoded image, no side longer than `SMALL_SIDE_PX`."""
    with Image.open(io.BytesIO(content)) as image:
        if max(image.size) <= SMALL_SIDE_PX:
            return content
        image.thumbnail((SMALL_SIDE_PX, SMALL_SIDE_PX))
        file = io.BytesIO()
        image.save(file, format="WEBP", quality=80)
    return file.getvalue()


def _fields(comparison: Comparison) -> dict[str, Summary]:
    """What answers can be chosen by, each with the split that names it."""
    owners: dict[str, Summary] = {}
    for part in comparison.splits.values():
        for field in part.slices:
            owners.setdefault(field, part)
    return owners


def _all_and_fitting(scored: Scored) -> tuple[list[list[Any]], list[list[Any]]]:
    """The rows of all samples, and of those that the page holds: all, or by `RANKS` as many as fit."""
    rows = [row for split in scored.comparison.splits for row in _rows(scored.comparison, split)]
    order = sorted(range(len(rows)), key=lambda number: _rank(rows[number]))
    ends = accumulate(_size(rows[number]) for number in order)
    fitting = takewhile(lambda placed: placed[1] <= MAX_ROWS_BYTES, zip(order, ends, strict=True))
    return rows, [rows[number] for number in sorted(number for number, _ in fitting)]


def _size(row: list[Any]) -> int:
    """Bytes of a row in the page, without the numbers of its images."""
    return len(json.dumps([*row[:11], *row[13:]], ensure_ascii=False).encode("utf-8", "replace"))


def _rank(row: list[Any]) -> tuple[int, bool]:
    """The rank of a sample in the order of answers, by the worst of its draws."""
    draws = [row[4:10], *(row[16] if len(row) > 16 else [])]
    return min((RANKS[FLIPS[draw[4]]], not draw[5]) for draw in draws)


def _data(comparison: Comparison, rows: list[list[Any]], images: _Images) -> dict[str, Any]:
    """What the script reads: failures first, each answer as a row in the order of its constants."""
    parts, owners = comparison.splits, _fields(comparison)
    words = [sorted({row[15][index] for row in rows} - {""}) for index in range(len(owners))]
    return {
        "labels": [arm(comparison.baseline), arm(comparison.candidate)],
        "splits": [split_title(split) for split in parts],
        "names": [*parts],
        "fields": [field_title(field, owner) for field, owner in owners.items()],
        "words": [
            {word: name for word in own if (name := value_title(field, word, owner)) != (word, word)}
            for (field, owner), own in zip(owners.items(), words, strict=True)
        ],
        "strings": say.own | {f"flip{index}": say(f"flip.{index}") for index in range(len(FLIPS))},
        "images": images.uris,
        "rows": rows,
    }


def _rows(comparison: Comparison, split: str) -> list[list[Any]]:
    part, index, fields = comparison.splits[split], [*comparison.splits].index(split), _fields(comparison)
    study = {pair.candidate.id: name for name, some in part.slices.get("study", {}).items() for pair in some.pairs}
    rows = []
    for pair, *more in _ordered(part.all_pairs):
        record, other = pair.candidate, pair.baseline
        values = slice_values(record) | ({"study": study[record.id]} if record.id in study else {})
        row = [index, record.id, record.question, record.reference, *_draw(pair), int(record.language == "en")]
        row += [record.image_sha256, other.image_sha256]  # the page has numbers there
        row += [record.history, record.image or record.id, [values.get(name, "") for name in fields]]
        rows.append([*row, *([[_draw(pair) for pair in more]] if more else [])])
    return rows


def _draw(pair: Pair) -> list[Any]:
    """Both answers or why there are none, whether they are right, whether they differ."""
    texts = [pair.baseline.prediction, pair.candidate.prediction, pair.baseline.error, pair.candidate.error]
    return [*texts, FLIPS.index(pair.right), int(pair.is_changed)]


def _ordered(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Samples, each with its draws: by `RANKS`, and among those of one rank the changed answers first."""
    samples: dict[str, list[Pair]] = {}
    for pair in pairs:
        samples.setdefault(pair.candidate.id, []).append(pair)
    draws = [sorted(sample, key=lambda pair: pair.candidate.draw) for sample in samples.values()]
    return sorted(draws, key=lambda draw: min((RANKS[pair.right], not pair.is_changed) for pair in draw))
