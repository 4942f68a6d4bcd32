"""From a path to findings: recognise the format, read all rows once, decode all pictures once, run all checks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vglm.data.doctor.checks import CHECKS, RETENTION, Check, truncation
from vglm.data.doctor.finding import SAY, Finding, Severity
from vglm.data.doctor.pictures import MISSING, READABLE
from vglm.data.doctor.survey import Lengths, Part, Source, Survey, survey_rows
from vglm.data.readers import formats, is_hub_name, read, recognise
from vglm.data.readers.rows import split_name
from vglm.data.sample import Sample
from vglm.errors import DataError
from vglm.text.messages import Text

_DATA_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".xlsx", ".parquet")


@dataclass(frozen=True)
class Diagnosis:
    """What was found in a data set.

    Attributes:
        survey: The rows and pictures; can be read until `examine` ends.
        findings: What each check found, in the order of the report.
        clean: Titles of the checks that found nothing to mend.
        left_out: Titles of the checks that were not made, with the reason.
        counted_with: Whose tokens were counted; None if none were.
        usable: Number of rows that training can use.
    """

    survey: Survey
    findings: Sequence[Finding]
    clean: Sequence[Text]
    left_out: Mapping[Text, Text]
    counted_with: Text | None
    usable: int

    @property
    def severity(self) -> Severity:
        """That of the worst finding: the exit code."""
        return max((finding.severity for finding in self.findings), default=Severity.NOTE)

    @property
    def facts(self) -> dict[Text, Text]:
        """The data set in a few figures."""
        survey = self.survey
        unreadable = survey.bad_rows + survey.missing
        pictures = self._pictures_there()
        facts = {
            "format": Text.of(survey.source.format),
            "rows": Text.of(f"{len(survey) + unreadable:,}"),
            "usable": Text.of(f"{self.usable:,}"),
            "pictures": Text.of(f"{pictures:,}") if survey.was_decoded else SAY("fact.not_decoded", n=pictures),
        }
        if text_only := int((survey.rows["image"] == 0).sum()):
            facts["text_only"] = Text.of(f"{text_only:,}")
        if dialogues := int((survey.rows["turns"] > 1).sum()):
            facts["dialogues"] = Text.of(f"{dialogues:,}")
        return {SAY(f"fact.{name}"): value for name, value in facts.items()}

    def _pictures_there(self) -> int:
        survey = self.survey
        if survey.was_decoded and len(survey.pictures):
            return int((survey.pictures["status"] != MISSING).sum())
        return len(survey.images) - len(np.unique(survey.image_of_row[survey.absent]))

    @property
    def verdict(self) -> Text:
        """The outcome in a sentence."""
        warnings = sum(finding.severity is Severity.WARNING for finding in self.findings)
        if self.severity is Severity.UNUSABLE:
            return SAY("verdict.unusable")
        return SAY.counted("verdict.warnings", warnings) if warnings else SAY("verdict.clean")


@contextmanager
def examine(
    path: str | Path,
    *,
    format: str | None = None,
    image_dir: Path | None = None,
    options: Mapping[str, Any] | None = None,
    other_tasks: Sequence[str | Path] = (),
    count_tokens: Callable[[Sample], Lengths] | None = None,
    counted_with: Text | None = None,
    max_length: int | None = None,
    with_pictures: bool = True,
    workers: int | None = None,
) -> Iterator[Diagnosis]:
    """Check a data set.

    Args:
        path: A file, a folder, or `hf://owner/name`. A folder that is no format of its own may hold a file for each
            split, `train.*`, `validation.*`, `test.*`, `retention.*`, or one file of a known format.
        format: The format's name; recognised by the content if None.
        image_dir: Where the pictures lie; beside the file if None.
        options: The format's own options.
        other_tasks: Other data that is to be trained or tested along with this, for questions in both.
        count_tokens: Measures a sample; tokens are not counted if None.
        counted_with: Whose tokens these are, for the report.
        max_length: Tokens that a sample may have; truncation is not checked if None.
        with_pictures: Whether to decode the pictures; without, only what the rows say is checked.
        workers: Processes that decode; one for each core if None.

    Yields:
        The diagnosis. Nothing of the data set is changed.

    Raises:
        ConfigError: There is no such format or option.
        DataError: There is nothing to read at `path`, its format is not known, or the file as a whole is damaged.
    """
    source = _open_source(path, format, image_dir, dict(options or {}))
    others = {
        str(task): (row for part in _open_source(task, None, None, {}).parts for row in part.rows)
        for task in other_tasks
    }
    with survey_rows(source, count_tokens, others) as survey:
        if with_pictures:
            survey.decode(workers)
        is_usable = np.ones(len(survey), np.bool_)
        if survey.was_decoded and len(survey.pictures):
            pictured = survey.image_of_row >= 0
            is_usable[pictured] = survey.pictures["status"][survey.image_of_row[pictured]] == READABLE
        else:
            is_usable[survey.absent] = False
        usable = int(is_usable.sum())
        checks = [*CHECKS]
        if max_length is not None:
            checks.append(Check("truncation", truncation(max_length), needs="tokens"))
        yield _run(survey, checks, usable, counted_with)


def _run(survey: Survey, checks: Sequence[Check], usable: int, counted_with: Text | None) -> Diagnosis:
    findings: list[Finding] = []
    clean: list[Text] = []
    left_out: dict[Text, Text] = {}
    is_there = {"pictures": survey.was_decoded, "tokens": survey.has_lengths}
    if not usable:
        findings.append(Finding(Severity.UNUSABLE, SAY("no_rows.title"), SAY("no_rows.detail")))
    for check in checks:
        if check.needs is not None and not is_there[check.needs]:
            left_out[check.title] = SAY(f"not_checked.{check.needs}")
            continue
        results = list(check.run(survey))
        findings += results
        if all(finding.severity is Severity.NOTE for finding in results):
            clean.append(check.title)
    return Diagnosis(survey, findings, clean, left_out, counted_with, usable)


def _open_source(path: str | Path, format: str | None, image_dir: Path | None, options: dict[str, Any]) -> Source:
    """The files of a data set, none read yet."""
    source = Path(path)
    files: dict[Path, str | None] = {}
    if format is None and not is_hub_name(path) and source.is_dir():
        try:
            recognise(source)
        except DataError:
            files = _files_of_splits(source)
            if not files:
                raise
    if not files:
        name = format or recognise(path, options.get("columns")).NAME
        rows = read(path, format=format, image_dir=image_dir, **options)
        return Source(str(path), name, [Part(source.name, None, rows)])
    readers = list(dict.fromkeys(recognise(file, options.get("columns")).NAME for file in files))
    parts = [Part(file.name, split, read(file, image_dir=image_dir, **options)) for file, split in files.items()]
    return Source(str(path), " and ".join(readers), parts)


def _files_of_splits(folder: Path) -> dict[Path, str | None]:
    """The files that are named after a split, with our name for it; else the one file that is of a known format."""
    splits: dict[Path, str | None] = {}
    files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in _DATA_SUFFIXES and file.is_file()]
    for file in files:
        split = RETENTION if file.stem in (RETENTION, "probe") else split_name(file.stem)
        if split is not None:
            splits[file] = split
    if splits:
        return splits
    readable = [file for file in files if any(reader.recognises(file) for reader in formats().values())]
    if len(readable) > 1:
        names = ", ".join(file.name for file in readable)
        raise DataError(f"{folder} holds several data sets: {names}. Pass one of these files.")
    return dict.fromkeys(readable)
