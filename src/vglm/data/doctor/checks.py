"""The checks, one function each, and the list of them.

A check looks at a survey and yields what it found: notes are facts to know, warnings call for a decision or a repair.
A new one is a function here and a line in `CHECKS`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vglm.data.doctor.finding import EXAMPLES, Example, Finding, Severity, Table
from vglm.data.doctor.pictures import BROKEN, MISSING, READABLE
from vglm.data.doctor.survey import Survey, hash_text
from vglm.data.doctor.texts import LANGUAGE_NAMES, Language, Mark, evidence, marks_of, normalise
from vglm.data.grouping import INFERRED_SHARE, VIEW_OF_STUDY
from vglm.data.problems import BadRow
from vglm.data.sample import Sample

NOTE, WARNING, UNUSABLE = Severity

PROBE = "probe"
GENERAL_QUESTIONS = (
    "描述这张图片。",
    "描述一下这张图片。",
    "请描述这张图片。",
    "描述这张图片的内容。",
    "这张图片里有什么？",
    "图片里有什么？",
    "图中有什么？",
    "这张图片的内容是什么？",
    "这是什么？",
    "为这张照片写一个标题。",
    "Describe this image.",
    "Describe the image.",
    "Describe this picture.",
    "Can you describe the image?",
    "What is in the picture?",
    "What is in this image?",
    "What do you see?",
    "What is this?",
)
"""Questions that a VisualGLM answers before any tuning, about whatever picture."""

_SMALL_SIDE = 32
_LONG_SHAPE = 4.0
_CLASSES_AT_MOST = 50
_FEWEST_ROWS = 10  # of fewer nothing can be said about classes
_IMBALANCE = 10
_CONSTANT_SHARE = 0.3
_STRAY_SHARE = 0.05
_SEVERAL_REFERENCES = 3
_LENGTHS = (128, 320, 512, 1024, 2048)


@dataclass(frozen=True)
class Check:
    """One thing to look for.

    Attributes:
        title: What a clean report says was looked at.
        run: Yields what it finds.
        needs: "pictures" or "tokens", if the check makes no sense without; None if the rows suffice.
    """

    title: str
    run: Callable[[Survey], Iterator[Finding]]
    needs: str | None = None


# --- rows and pictures that cannot be used ----------------------------------------------------------------------------


def unreadable_rows(survey: Survey) -> Iterator[Finding]:
    """Rows that the reader could make no sample of."""
    if not survey.bad_rows:
        return
    found = _first((name, bad) for name, bad in survey.bad() if not bad.is_missing_image)
    yield Finding(
        WARNING,
        f"{_rows(survey.bad_rows)} cannot be read",
        "Training refuses a file with such rows. Correct them; --fix leaves them out.",
        tuple(_bad_example(name, bad) for name, bad in found),
    )


def missing_pictures(survey: Survey) -> Iterator[Finding]:
    """Rows whose picture is not there."""
    lost = _rows_of_pictures(survey, MISSING) if survey.was_decoded else survey.absent.tolist()
    count = survey.missing + len(lost)
    if not count:
        return
    examples = [
        _bad_example(name, bad) for name, bad in _first(each for each in survey.bad() if each[1].is_missing_image)
    ]
    examples += [_example(survey, row, str(survey.sample(row).image)) for row in lost[:EXAMPLES]]
    total = survey.bad_rows + survey.missing + len(survey)
    yield Finding(
        WARNING,
        f"{count:,} of {_rows(total)} {_verb('name', count)} a picture that is not there",
        "Training refuses them. Add the pictures, say where they lie (--image-dir, dataset.image_dir), or leave these"
        " rows out with dataset.skip_missing=true; --fix does so too."
        + (" The text checks below know only the other rows." if survey.missing else ""),
        tuple(examples[:EXAMPLES]),
    )


def broken_pictures(survey: Survey) -> Iterator[Finding]:
    """Pictures that are there, but cannot be decoded."""
    broken = np.flatnonzero(survey.pictures["status"] == BROKEN)
    if not len(broken):
        return
    rows = _rows_of_pictures(survey, BROKEN)
    yield Finding(
        WARNING,
        f"{_count(len(broken), 'picture')} of {_rows(len(rows))} cannot be decoded",
        "Training would stop at them. Replace the files; --fix leaves the rows out.",
        tuple(
            Example(survey.sample(int(survey.images[each])).id, survey.faults[int(each)]) for each in broken[:EXAMPLES]
        ),
    )


def sizes_and_modes(survey: Survey) -> Iterator[Finding]:
    """How large the pictures are and how they are stored."""
    good = survey.pictures[survey.pictures["status"] == READABLE]
    if not len(good):
        return
    width, height = good["width"].astype(np.int64), good["height"].astype(np.int64)
    area = np.argsort(width * height, kind="stable")
    smallest, middle, largest = (f"{width[area[at]]} x {height[area[at]]}" for at in (0, len(area) // 2, -1))
    stored, counts = np.unique(np.char.add(np.char.add(good["format"], " "), good["mode"]), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    yield Finding(
        NOTE,
        f"Pictures have {smallest} to {largest} pixels, {middle} in the middle"
        if smallest != largest
        else f"All pictures have {smallest} pixels",
        "The model sees all of them as RGB squares of one size.",
        table=Table(("stored as", "pictures"), [(str(stored[each]), f"{counts[each]:,}") for each in order[:8]]),
    )
    long_side, short_side = np.maximum(width, height), np.minimum(width, height)
    modes = good["mode"]
    suspicious = {
        f"less than {_SMALL_SIDE} pixels wide or high": (
            short_side < _SMALL_SIDE,
            "Little is left to see. Look for thumbnails or icons that came in by mistake.",
        ),
        f"more than {_LONG_SHAPE:.0f} times as long as wide": (
            long_side > _LONG_SHAPE * short_side,
            "The model squeezes every picture to a square. Cut or pad them first.",
        ),
        "of one colour": (good["is_plain"], "There is nothing to see in them. Replace them, or leave the rows out."),
        "turned by an EXIF tag": (
            good["is_turned"],
            "The tag is ignored, as in the original, so they lie on their side. Store them upright; --fix does.",
        ),
        "partly transparent": (
            np.isin(modes, ["RGBA", "LA", "PA", "RGBa", "La"]),
            "",
        ),
        "grey of more than 8 bits": (
            np.char.startswith(modes, "I"),
            "They are scaled so that 65535 is white. If their values fill only a part of the range, window them first.",
        ),
        "stored in CMYK": (
            modes == "CMYK",
            "The conversion to RGB is a rough one. Convert them with their colour profile.",
        ),
    }
    indices = np.flatnonzero(survey.pictures["status"] == READABLE)
    for what, (is_so, advice) in suspicious.items():
        if not (total := int(is_so.sum())):
            continue
        is_fact = not advice
        yield Finding(
            NOTE if is_fact else WARNING,
            f"{_count(total, 'picture')} {'is' if total == 1 else 'are'} {what}",
            advice or "Transparency is dropped, not blended: what lies under it becomes visible.",
            tuple(_picture_example(survey, int(each)) for each in indices[is_so][:EXAMPLES]),
        )


# --- duplicates -------------------------------------------------------------------------------------------------------


def duplicate_rows(survey: Survey) -> Iterator[Finding]:
    """Rows with the same picture, the same words and the same answer."""
    repeated = repeated_rows(survey)
    if len(repeated):
        yield Finding(
            WARNING,
            f"{_rows(len(repeated))} {_verb('repeat', len(repeated))} an earlier one:"
            " same picture, same question, same answer",
            "They weigh double in training, and a score on them counts them double. --fix keeps the first of each.",
            _examples(survey, repeated),
        )


def conflicting_answers(survey: Survey) -> Iterator[Finding]:
    """Rows that ask the same about the same picture and are answered differently."""
    rows, asked = survey.rows, _inputs(survey)
    _, input_of = np.unique(np.stack([asked, rows["answer"]], axis=1), axis=0, return_index=True)
    _, first, answers = np.unique(asked[input_of], return_inverse=True, return_counts=True)
    several = answers[first] > 1
    if not several.any():
        return
    conflicts = int((answers > 1).sum())
    members = np.flatnonzero(np.isin(asked, asked[input_of[several]]))
    if np.count_nonzero(answers >= _SEVERAL_REFERENCES) > 0.5 * len(answers):
        yield Finding(
            NOTE,
            f"Most questions have several answers, {len(input_of) / len(answers):.1f} a picture and question",
            "Such as the five captions of COCO. Training learns from each; a score compares with one at a time.",
            _examples(survey, members),
        )
        return
    together = members[np.argsort(asked[members], kind="stable")]
    yield Finding(
        WARNING,
        f"{_count(conflicts, 'picture and question', 'pictures and questions')} have different answers,"
        f" {_rows(len(members))} in all",
        "No model can give all of them. Decide for one answer, or ask what tells them apart. --fix leaves them be.",
        _examples(survey, together),
    )


def duplicate_pictures(survey: Survey) -> Iterator[Finding]:
    """Files of different names with the same pixels."""
    readable = np.flatnonzero(survey.pictures["status"] == READABLE)
    _, group_of, sizes = np.unique(survey.pictures["pixels"][readable], axis=0, return_inverse=True, return_counts=True)
    group_of = group_of.ravel()
    copies = int((sizes - 1).sum())
    if not copies:
        return
    groups = [readable[group_of == each] for each in np.flatnonzero(sizes > 1)[:EXAMPLES]]
    yield Finding(
        WARNING,
        f"{_count(copies, 'picture')} {'has' if copies == 1 else 'have'} the pixels of another one under another name",
        "Groups made from names cannot know. --fix lets all rows use the first file and gives them one group.",
        tuple(_picture_example(survey, int(each)) for group in groups for each in group[:2])[:EXAMPLES],
    )


def look_alikes(survey: Survey) -> Iterator[Finding]:
    """Pictures that differ in their pixels, but hardly to the eye."""
    found = survey.look_alikes
    if not found:
        return
    count = sum(map(len, found))
    group_of = survey.rows["group"][survey.images]
    is_apart = [len(set(group_of[each].tolist())) > 1 for each in found]
    pairs = [each for _, group in sorted(zip(is_apart, found, strict=True), reverse=True) for each in group[:2]]
    yield Finding(
        WARNING if any(is_apart) else NOTE,
        f"{_count(count, 'picture')} look almost like another one, in {_count(len(found), 'set')}",
        "Copies in another size or compression, or neighbouring frames. Keep one of each, or give them one group,"
        " so that none is tested on what it was trained with.",
        tuple(_picture_example(survey, each) for each in pairs[:EXAMPLES]),
    )


# --- answers and questions --------------------------------------------------------------------------------------------


def answers_to_look_at(survey: Survey) -> Iterator[Finding]:
    """Answers that are empty or hold phrases and tokens that nobody wants the model to learn."""
    kinds = {
        Mark.EMPTY: ("no answer, such as N/A or a dash", "The model would learn to say nothing."),
        Mark.BOILERPLATE: (
            "phrases of a language model, such as an apology",
            "They come from the program that wrote or translated the answers; the model would learn them.",
        ),
        Mark.UNRESOLVED: (
            "unresolved tokens, such as XXXX or <image>",
            "The model would learn to write them. Complete the answers where you can.",
        ),
        Mark.GARBLED: (
            "garbled characters or HTML entities",
            "A file was read in the wrong encoding or cut out of a web page. Repair it at its source.",
        ),
    }
    for mark, (what, consequence) in kinds.items():
        rows = np.flatnonzero(survey.rows["marks"] & mark)
        if len(rows):
            yield Finding(
                WARNING,
                f"{_count(len(rows), 'answer')} {'has' if len(rows) == 1 else 'have'} {what}",
                f"{consequence} --fix leaves the rows out.",
                tuple(_example(survey, row, evidence(_marked_answer(survey.sample(row)))) for row in _head(rows)),
            )
    rows = np.flatnonzero(survey.rows["marks"] & Mark.DETACHED)
    if len(rows):
        yield Finding(
            NOTE,
            f"{_count(len(rows), 'answer')} {'has' if len(rows) == 1 else 'have'} blanks before punctuation, as"
            " tokenised captions do, or characters without width",
            "The model's answers never have them, for decoding drops them. Exact match compares without them; BLEU and"
            " its like do not. Write the answers as they are to be read.",
            _examples(survey, rows),
        )
    rows = np.flatnonzero(survey.rows["open_question"])
    if len(rows):
        yield Finding(
            WARNING,
            f"{_count(len(rows), 'question')} {_verb('hold', len(rows))} an unresolved token",
            "Such as {name} or <|user|>, which is ordinary text to VisualGLM. Fill it in, or take it out.",
            tuple(_example(survey, row, evidence(survey.sample(row).question)) for row in _head(rows)),
        )


def languages(survey: Survey) -> Iterator[Finding]:
    """What the questions and answers are written in."""
    rows = survey.rows
    if not len(rows):
        return
    asked, answered = rows["question_language"], rows["answer_language"]
    counts = {each: (int((asked == each).sum()), int((answered == each).sum())) for each in Language}
    present = [each for each in Language if any(counts[each])]
    yield Finding(
        NOTE,
        "Answers: " + _listed(f"{counts[each][1]:,} {LANGUAGE_NAMES[each]}" for each in present if counts[each][1]),
        table=Table(
            ("language", "questions", "answers"),
            [(LANGUAGE_NAMES[each], f"{counts[each][0]:,}", f"{counts[each][1]:,}") for each in present],
        ),
    )
    clear = (int(Language.CHINESE), int(Language.LATIN))
    crossed = np.isin(asked, clear) & np.isin(answered, clear) & (asked != answered) & rows["is_sentence"]
    if crossed.any():
        yield Finding(
            WARNING,
            f"{_count(int(crossed.sum()), 'answer')} in another language than the question",
            "Fine if the question asks for it; else the model learns to mix. Translate one side.",
            _examples(survey, np.flatnonzero(crossed)),
        )
    frame = (rows["english"] & (asked == Language.CHINESE)) | (~rows["english"] & (asked == Language.LATIN))
    if frame.any():
        yield Finding(
            WARNING,
            f"{_count(int(frame.sum()), 'question')} in the frame of the other language",
            "A Chinese prompt reads 问：…答：, an English one Q:…A:. Set `english` in the rows or as an option.",
            _examples(survey, np.flatnonzero(frame)),
        )
    main = max(clear, key=lambda each: counts[Language(each)][1])
    other = clear[1 - clear.index(main)]
    stray = np.flatnonzero((answered == other) & rows["is_sentence"] & ~crossed)
    if len(stray) and counts[Language(other)][1] < _STRAY_SHARE * len(rows):
        yield Finding(
            NOTE,
            f"{_rows(len(stray))} in {LANGUAGE_NAMES[Language(other)]} among {len(rows):,}",
            "Too few to learn a language from; check that they belong here.",
            _examples(survey, stray),
        )


def lengths(survey: Survey) -> Iterator[Finding]:
    """How many tokens the samples have."""
    rows = survey.rows
    total = rows["prompt_tokens"] + rows["history_tokens"] + rows["answer_tokens"]
    columns = {"prompt": rows["prompt_tokens"] + rows["history_tokens"], "answer": rows["answer_tokens"], "both": total}
    at = (50, 95, 99, 100)
    limits = [limit for limit in _LENGTHS if limit < total.max() * 2] or [_LENGTHS[0]]
    over = ", ".join(f"{int((total > limit).sum()):,} over {limit:,}" for limit in limits)
    yield Finding(
        NOTE,
        f"Samples have {np.median(total):.0f} tokens in the middle and {total.max():,} at most",
        f"Of {_rows(len(rows))}: {over}.",
        table=Table(
            ("tokens", "median", "95%", "99%", "longest"),
            [
                (name, *(f"{np.percentile(values, each, method='higher'):.0f}" for each in at))
                for name, values in columns.items()
            ],
        ),
    )


def truncation(max_length: int) -> Callable[[Survey], Iterator[Finding]]:
    """What would be cut at a length.

    Args:
        max_length: Tokens that a sample may have.

    Returns:
        The check.
    """

    def run(survey: Survey) -> Iterator[Finding]:
        rows = survey.rows
        bare = rows["prompt_tokens"] + rows["answer_tokens"]
        cut = np.flatnonzero((bare + rows["history_tokens"] > max_length) & (bare <= max_length))
        if len(cut):
            yield Finding(
                WARNING,
                f"{_count(len(cut), 'dialogue')} would lose turns at {max_length:,} tokens",
                "The oldest turns are cut. Split the dialogues, or allow more tokens.",
                _examples(survey, cut),
            )
        too_long = np.flatnonzero(bare > max_length)
        if len(too_long):
            yield Finding(
                WARNING,
                f"{_rows(len(too_long))} {'has' if len(too_long) == 1 else 'have'} more than {max_length:,} tokens"
                " even without history",
                "Neither picture, question nor answer is ever cut in silence. Shorten the texts, or allow more tokens.",
                _examples(survey, too_long),
            )

    return run


def classes(survey: Survey) -> Iterator[Finding]:
    """How often each answer occurs, for each sort of question."""
    overview = []
    details: list[Finding] = []
    for code, kind in enumerate(survey.kinds):
        rows = np.flatnonzero(survey.rows["kind"] == code)
        _, first, class_of, counts = np.unique(
            survey.rows["answer"][rows], return_index=True, return_inverse=True, return_counts=True
        )
        most = survey.sample(int(rows[first[counts.argmax()]])).answer
        overview.append(
            (kind or "none", f"{len(rows):,}", f"{len(counts):,}", f"{counts.max():,} x {_short(most, 24)}")
        )
        details += _classes_of(survey, rows, first, class_of, counts, f" of kind {kind}" if kind else "")
    if len(overview) > 1:
        yield Finding(
            NOTE,
            f"{_count(len(overview), 'kind')} of questions",
            table=Table(("kind", "rows", "answers", "most frequent"), overview),
        )
    yield from (each for each in details if each.severity is WARNING or len(overview) == 1)


def _classes_of(
    survey: Survey,
    rows: NDArray[np.intp],
    first: NDArray[np.intp],
    class_of: NDArray[np.intp],
    counts: NDArray[np.intp],
    of_kind: str,
) -> Iterator[Finding]:
    """The classes of some rows: where each occurs first, which one each row is, how often each occurs."""
    if len(rows) < _FEWEST_ROWS:
        return
    order = np.argsort(-counts, kind="stable")
    largest, smallest = int(counts.max()), int(counts.min())
    share = largest / len(rows)
    most = (_example(survey, int(rows[first[order[0]]])),)
    if len(counts) == 1:
        yield Finding(
            WARNING,
            f"All {_rows(len(rows))}{of_kind} have the same answer",
            "There is nothing to tell apart. Add rows with other answers.",
            most,
        )
        return
    if len(counts) > min(_CLASSES_AT_MOST, len(rows) / 2):
        yield Finding(
            NOTE,
            f"{len(counts):,} different answers in {_rows(len(rows))}{of_kind}: free text",
            "" if largest == 1 else f"The most frequent one is given {largest:,} times.",
        )
        if share >= _CONSTANT_SHARE:
            yield Finding(
                WARNING,
                f"One answer fits {share:.0%} of the rows{of_kind}",
                "A model that always says it looks good. Report scores on the other rows beside the average.",
                most,
            )
        return
    is_unbalanced = largest >= _IMBALANCE * smallest and largest > _IMBALANCE
    each_has = f"{largest:,} rows each" if smallest == largest else f"{smallest:,} to {largest:,} rows each"
    shown = [(survey.sample(int(rows[first[each]])).answer, int(counts[each])) for each in order[:10]]
    advice = " Collect more of the rare ones; report a score that counts classes alike." if is_unbalanced else ""
    yield Finding(
        WARNING if is_unbalanced else NOTE,
        f"{len(counts)} classes{of_kind}: {each_has}",
        f"Always saying the most frequent answer would be right in {share:.1%}.{advice}",
        table=Table(
            ("answer", "rows", "share"),
            [(_short(answer, 60), f"{count:,}", f"{count / len(rows):.1%}") for answer, count in shown],
        ),
    )
    for split in ("validation", "test"):
        seen, tested = _in_split(survey, rows, "train"), _in_split(survey, rows, split)
        unseen = np.setdiff1d(class_of[tested], class_of[seen])
        if seen.any() and len(unseen):
            yield Finding(
                WARNING,
                f"{_count(len(unseen), 'class', 'classes')}{of_kind} of {split}"
                f" {'is' if len(unseen) == 1 else 'are'} never trained",
                "Such answers can only be wrong. Divide the data by class, or leave these rows out.",
                _examples(survey, rows[np.flatnonzero(tested & np.isin(class_of, unseen))]),
            )


# --- groups, splits, tasks --------------------------------------------------------------------------------------------


def groups(survey: Survey) -> Iterator[Finding]:
    """What must stay together, such as the pictures of a study, a patient or a star."""
    rows = survey.rows
    if not len(rows):
        return
    _, sizes = np.unique(rows["group"], return_counts=True)
    ids = survey.ids
    if not rows["has_own_group"].all():
        yield Finding(
            NOTE,
            f"{_count(len(sizes), 'group')} (study, patient, star) in {_rows(len(rows))},"
            f" up to {_rows(int(sizes.max()))} each" + (f", by {ids.source}" if ids is not None else ""),
            "Split by group, never by row.",
        )
        if ids is not None and ids.without:
            yield Finding(
                WARNING,
                f"{_rows(len(ids.without))} {'has' if len(ids.without) == 1 else 'have'} no id in {ids.source},"
                " and the others do",
                "They are grouped by what else they name (a study, the picture), so a patient of theirs may be in"
                " training and test. Fill the ids in, or leave these rows out.",
                _examples(survey, np.array(ids.without)),
            )
        return
    studies = infer_groups(survey)
    if studies is None:
        yield Finding(
            NOTE, f"No group is known beyond the picture: {_count(len(sizes), 'group')} in {_rows(len(rows))}"
        )
        return
    _, sizes = np.unique(studies, return_counts=True)
    pairs = np.unique(np.stack([studies, rows["split"][survey.images].astype(np.uint64)], axis=1), axis=0)
    divided = int((np.unique(pairs[:, 0], return_counts=True)[1] > 1).sum())
    yield Finding(
        WARNING if divided else NOTE,
        f"Pictures seem to be named <study>_<view>: {_count(len(sizes), 'study', 'studies')},"
        f" up to {_count(int(sizes.max()), 'picture')} each",
        f"{_count(divided, 'study', 'studies')} {_verb('lie', divided)} in several splits: a score measures memory."
        " Divide by study."
        if divided
        else "Views of one study are no independent pictures. Keep them together when you split.",
    )


def splits(survey: Survey) -> Iterator[Finding]:
    """Which splits there are, and what they share."""
    rows = survey.rows
    if survey.splits in ([], [""]):
        yield Finding(
            NOTE,
            "No split is given",
            "One file is then both trained and tested on, unless dataset.fractions divides it.",
        )
        return
    of_split = [np.flatnonzero(rows["split"] == code) for code in range(len(survey.splits))]
    yield Finding(
        NOTE,
        "Splits: "
        + _listed(f"{name or 'none'} ({len(each):,})" for name, each in zip(survey.splits, of_split, strict=True)),
    )
    for leak in leaks(survey):
        advice = (
            f"A score on them measures memory. Training refuses it; --fix leaves the rows of {leak.train} out."
            if leak.is_certain
            else "A score on them may measure memory. Look at them; --fix leaves them be."
        )
        yield Finding(
            WARNING,
            f"{_rows(len(leak.tested_rows))} of {leak.tested} {_verb('share', len(leak.tested_rows))} {leak.shared}"
            f" with {_rows(len(leak.train_rows))} of {leak.train}",
            advice,
            _examples(survey, np.concatenate([leak.tested_rows[:2], leak.train_rows[:2]])),
        )


def questions(survey: Survey) -> Iterator[Finding]:
    """Questions that belong to another task too."""
    rows = survey.rows
    if not len(rows):
        return
    _, first, counts = np.unique(rows["question"], return_index=True, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:5]
    yield Finding(
        NOTE,
        f"{_count(len(counts), 'different question')} in {_rows(len(rows))}",
        table=Table(
            ("question", "rows"),
            [(_short(survey.sample(int(first[each])).question, 60), f"{counts[each]:,}") for each in most],
        ),
    )
    trained = rows[_in_split(survey, slice(None), "train")] if "train" in survey.splits else rows
    general = np.array([hash_text(normalise(each)) for each in GENERAL_QUESTIONS], np.uint64)
    is_probe = _in_split(survey, slice(None), PROBE)
    taken = np.flatnonzero(
        np.isin(rows["question"], general) & np.isin(rows["question"], trained["question"]) & ~is_probe
    )
    if len(taken):
        yield Finding(
            WARNING,
            f"{_rows(len(taken))} {_verb('ask', len(taken))} what the model answers already about any picture",
            "After tuning it would give such answers to every picture. Ask in words that belong to this task alone.",
            _examples(survey, taken),
        )
    if PROBE in survey.splits:
        shared = np.flatnonzero(np.isin(rows["question"], rows["question"][is_probe]) & ~is_probe)
        if len(shared):
            yield Finding(
                WARNING,
                f"{_rows(len(shared))} {_verb('ask', len(shared))} a question of the probe",
                "The probe is to show what is forgotten of other tasks. Reword the question of this task.",
                _examples(survey, shared),
            )
    for place, hashes in survey.other_tasks.items():
        shared = np.flatnonzero(np.isin(rows["question"], hashes))
        if len(shared):
            yield Finding(
                WARNING,
                f"{_rows(len(shared))} {_verb('ask', len(shared))} a question of {place} too",
                "One model cannot tell which of the two tasks is meant. Reword one of them.",
                _examples(survey, shared),
            )
    named = np.flatnonzero(~is_probe & (rows["kind"] != (survey.kinds.index("") if "" in survey.kinds else -1)))
    pairs = np.stack([rows["question"], rows["kind"].astype(np.uint64)], axis=1)[named]
    _, first = np.unique(pairs, axis=0, return_index=True)  # one row of each question and kind, by question
    asked, kinds = np.unique(pairs[first, 0], return_counts=True)
    several = np.isin(pairs[first, 0], asked[kinds > 1])
    if several.any():
        yield Finding(
            WARNING,
            f"{_count(int((kinds > 1).sum()), 'question')} asked for more than one kind of answer",
            "The same words mean different tasks. Reword them, so that the model can tell what is wanted.",
            _examples(survey, named[first[several]]),
        )


CHECKS: tuple[Check, ...] = (
    Check("unreadable rows", unreadable_rows),
    Check("missing pictures", missing_pictures),
    Check("broken pictures", broken_pictures, needs="pictures"),
    Check("sizes and modes", sizes_and_modes, needs="pictures"),
    Check("duplicate rows", duplicate_rows),
    Check("conflicting answers", conflicting_answers),
    Check("duplicate pictures", duplicate_pictures, needs="pictures"),
    Check("pictures that look alike", look_alikes, needs="pictures"),
    Check("empty, boilerplate and unresolved answers", answers_to_look_at),
    Check("languages", languages),
    Check("token lengths", lengths, needs="tokens"),
    Check("class balance", classes),
    Check("groups", groups),
    Check("splits and leakage", splits),
    Check("questions of other tasks", questions),
)
"""All checks in the order of the report; `examine` adds `truncation` for the length it is asked about."""


# --- what several checks and --fix ask for ----------------------------------------------------------------------------


def repeated_rows(survey: Survey) -> NDArray[np.intp]:
    """The rows that say nothing new: same split, picture, words and answer as an earlier one; the probe may repeat."""
    rows = survey.rows
    keys = np.stack([_inputs(survey), rows["answer"], rows["split"].astype(np.uint64)], axis=1)
    _, first = np.unique(keys, axis=0, return_index=True)
    return np.setdiff1d(np.flatnonzero(~_in_split(survey, slice(None), PROBE)), first)


@dataclass(frozen=True)
class Leak:
    """What a split that is trained or chosen on shares with one that is tested on.

    Attributes:
        shared: What is shared: "a group", "a picture", "a text" (of rows without picture) or "a look-alike picture".
        train: Name of the first split.
        tested: Name of the second.
        train_rows: Rows of the first split that share it, ascending.
        tested_rows: Rows of the second.
    """

    shared: str
    train: str
    tested: str
    train_rows: NDArray[np.intp]
    tested_rows: NDArray[np.intp]

    @property
    def is_certain(self) -> bool:
        """Whether nobody need look at the pictures to know."""
        return self.shared != "a look-alike picture"


def leaks(survey: Survey) -> Iterator[Leak]:
    """Find what the splits share, the probe aside."""
    contents, rows = survey.content_of_row, survey.rows
    shared_by: dict[str, NDArray[Any]] = {
        "a group": rows["group"],
        "a picture": np.where(contents < 0, 0, contents + 1),
        "a text": np.where(contents < 0, rows["words"], 0),
        "a look-alike picture": _look_alike_ids(survey),
    }
    for train, tested in (("train", "test"), ("train", "validation"), ("validation", "test")):
        here, there = (np.flatnonzero(_in_split(survey, slice(None), each)) for each in (train, tested))
        for name, keys in shared_by.items():
            both = np.intersect1d(keys[here], keys[there])
            both = both[both != 0]
            if len(both):
                yield Leak(name, train, tested, here[np.isin(keys[here], both)], there[np.isin(keys[there], both)])


def infer_groups(survey: Survey) -> NDArray[np.uint64] | None:
    """Tell groups by the pictures' names.

    Args:
        survey: The survey.

    Returns:
        For each picture a hash of its study, where nine in ten are named `<study>_<view>` such as OpenI's 2_1, and
        studies have several; None where not.
    """
    studies = np.zeros(len(survey.images), np.uint64)
    named = 0
    for picture in range(len(studies)):
        image = survey.sample_of_picture(picture).image
        stem = image.stem if isinstance(image, Path) else str(image)
        match = VIEW_OF_STUDY.fullmatch(stem)
        named += match is not None
        studies[picture] = hash_text(match.group(1) if match else stem)
    is_told = 0 < named >= INFERRED_SHARE * len(studies) and len(np.unique(studies)) < len(studies)
    return studies if is_told else None


def _look_alike_ids(survey: Survey) -> NDArray[np.int64]:
    """For each row the number of the group that its picture looks like, counting from 1; 0 for none."""
    group_of_content = np.zeros(2 * len(survey.images) + 1, np.int64)
    contents = survey.content_of_row
    content_of_picture = {int(survey.image_of_row[row]): int(contents[row]) for row in survey.images}
    for number, group in enumerate(survey.look_alikes, start=1):
        for picture in group:
            group_of_content[content_of_picture[picture]] = number
    return np.where(contents < 0, 0, group_of_content[contents])


def _inputs(survey: Survey) -> NDArray[np.uint64]:
    """What stands for each row's input: its picture and all words up to the last question."""
    pairs = np.stack([survey.content_of_row.astype(np.uint64), survey.rows["words"]], axis=1)
    return np.unique(pairs, axis=0, return_inverse=True)[1].ravel().astype(np.uint64)


def _rows_of_pictures(survey: Survey, status: int) -> list[int]:
    if not survey.was_decoded or not len(survey.pictures):
        return []
    pictures = np.flatnonzero(survey.pictures["status"] == status)
    return np.flatnonzero(np.isin(survey.image_of_row, pictures)).tolist()


def _in_split(survey: Survey, rows: NDArray[np.intp] | slice, split: str) -> NDArray[np.bool_]:
    codes = survey.rows["split"][rows]
    return codes == survey.splits.index(split) if split in survey.splits else np.zeros(len(codes), np.bool_)


def _marked_answer(sample: Sample) -> str:
    return next((turn.answer for turn in sample.turns if marks_of(turn.answer) & ~Mark.DETACHED), sample.answer)


# --- words ------------------------------------------------------------------------------------------------------------


def _example(survey: Survey, row: int, text: str | None = None) -> Example:
    sample = survey.sample(int(row))
    return Example(sample.id, _short(text if text is not None else f"{sample.question} → {sample.answer}"), sample)


def _examples(survey: Survey, rows: NDArray[np.intp]) -> tuple[Example, ...]:
    return tuple(_example(survey, row) for row in _head(rows))


def _picture_example(survey: Survey, picture: int) -> Example:
    record = survey.pictures[picture]
    size = f"{record['width']} x {record['height']} {record['mode']}"
    sample = survey.sample_of_picture(picture)
    return Example(sample.id, f"{sample.image} ({size})", sample)


def _bad_example(name: str, bad: BadRow) -> Example:
    return Example(f"{name}:{bad.row}", bad.fault)


def _head(rows: NDArray[np.intp]) -> list[int]:
    return [int(row) for row in rows[:EXAMPLES]]


def _first(items: Iterable[Any]) -> list[Any]:
    found = []
    for item in items:
        found.append(item)
        if len(found) == EXAMPLES:
            break
    return found


def _short(text: str, length: int = 160) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _count(number: int, noun: str, plural: str | None = None) -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _rows(number: int) -> str:
    return _count(number, "row")


def _verb(verb: str, number: int) -> str:
    return f"{verb}s" if number == 1 else verb


def _listed(items: Iterable[str]) -> str:
    parts: Sequence[str] = list(items)
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
