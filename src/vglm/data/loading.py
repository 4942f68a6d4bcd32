"""Load a data set in any known format: read and check it, find its groups, divide it, hash it.

data = load_dataset("data/background_synthetic", retention="probe.json")
data.train[0].answer            # "这张图片的背景是金色的沙滩。"
data.data_hash                  # SHA-256 over all files

data = load_dataset("openi/openi-zh.json", image_dir="images", division=ByGroup({"train": 0.8, "test": 0.2}))
data.plan["group"]              # "inferred from the pictures' names: the part before _"
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import eq
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vglm.config.components import recorded
from vglm.data.division import SPLITS, ByGroup, Pool
from vglm.data.grouping import find_groups, find_strata, merge_by_picture
from vglm.data.hashing import hash_file
from vglm.data.image_checks import check_images
from vglm.data.outline import Outline
from vglm.data.readers import is_hub_name, recognise
from vglm.data.sample import Sample
from vglm.data.slices import ImageSlice
from vglm.data.sources import SourceReader
from vglm.data.splits import Splits
from vglm.data.table import Selection
from vglm.errors import DataError
from vglm.files import check_regular

SYNTHETIC_MARKER = "SYNTHETIC"
"""A file of this name says that the samples of its folder were generated; reports are stamped so."""

_PUBLISHED_FILE = "dataset.json"
_SPLIT_FILES = {"train": "train.json", "validation": "validation.json", "test": "test.json"}


@recorded
def load_dataset(
    path: str | Path,
    *,
    format: str | None = None,
    options: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    train: str | None = None,
    test: str | None = None,
    validation: str | None = None,
    retention: str | None = None,
    image_dir: str | Path | None = None,
    skip_missing: bool = False,
    division: ByGroup | None = None,
    allow_leakage: bool = False,
) -> Splits:
    """Read a data set, divide it, and check every row and, in small sets, every picture.

    Splits come from where the data itself has them: files of their own (`train.json`, `validation.json`, `test.json`,
    or those named), or rows that say which split they are in. Data without any is divided by `division`.

    Args:
        path: The data set's folder, a single file, or `hf://owner/name`. A folder without `train` and `test`, but with
            the published `dataset.json`, counts as that file.
        format: Name of the format, see `vglm.data.readers`; recognised by the content if None.
        options: The format's own options.
        columns: What the columns of a table are called: `{"image": "Bild", "question": "Frage", "answer": "Antwort"}`.
        train: File of the training split, relative to `path`.
        test: File of the test split.
        validation: File of the validation split.
        retention: File of the retention set, if there is one.
        image_dir: Where pictures lie, relative to `path`; beside each file if None.
        skip_missing: Leave out rows whose picture is missing, rather than refuse the file, and say how many.
        division: How the samples are divided and what belongs together, see `vglm.data.division`. None keeps the splits
            of the data; data without any is train and test at once.
        allow_leakage: Let a training run go on though it learns from test samples; its reports are stamped.

    Returns:
        The splits. Samples hold paths; pictures are opened again batch by batch.

    Raises:
        ConfigError: Format, option or division cannot be; the message says what can.
        DataError: A file is missing or cannot be read, has bad rows, or names pictures that cannot be opened. All bad
            rows of a file are in one message.
    """
    division = division or ByGroup()
    names = {"train": train, "validation": validation, "test": test, "retention": retention}
    root, files = _find_files(path, names, format, division.is_by_group)
    options = {**(options or {}), **({"columns": dict(columns)} if columns else {})}
    reader = SourceReader(root, format=format, image_dir=image_dir, skip_missing=skip_missing, options=options)
    data = _gather(reader, files, division)
    divided = division.divide(data.pool)
    return Splits(
        **{name: data.select(divided.rows[name]) for name in (*SPLITS, "retention")},
        files=data.files,
        image_hashes=data.image_hashes,
        thumbnails=data.thumbnails,
        plan={**data.plan, **divided.plan},
        allow_leakage=allow_leakage,
        synthetic=_synthetic_folder(path),
    )


def count_folds(path: str | Path, *, division: ByGroup, **dataset: Any) -> int:
    """How many runs a division into folds takes on a data set.

    Args:
        path: As for `load_dataset`.
        division: `KFold` or `LeaveOneOut`; its `fold` does not matter.
        **dataset: As for `load_dataset`.

    Returns:
        The number of folds, or of groups to be left out in turn.
    """
    plan = load_dataset(path, division=division, **dataset).plan
    return int(plan["protocol"]["folds"])


def _synthetic_folder(path: str | Path) -> str | None:
    """The name of the folder that holds the data, if it says that it was generated."""
    if is_hub_name(path):
        return None
    path = Path(path)
    is_marked = any((folder / SYNTHETIC_MARKER).is_file() for folder in (path, path.parent))
    return (path if path.is_dir() else path.parent).name if is_marked else None


@dataclass(frozen=True)
class _Data:
    """All rows of a data set, source after source, before they are divided."""

    sources: Sequence[Sequence[Sample]]
    outline: Outline
    pool: Pool
    files: Mapping[str, str]
    image_hashes: Mapping[Path | ImageSlice, str]
    thumbnails: Mapping[Path | ImageSlice, NDArray[np.uint8]]
    plan: Mapping[str, Any]

    def select(self, rows: Sequence[int]) -> Sequence[Sample]:
        """The samples of some rows, which are all of one source, under their groups."""
        start = 0
        for source in self.sources:
            if rows and start <= rows[0] < start + len(source):
                break
            start += len(source)
        else:
            return []
        groups = self.pool.groups_of(rows)
        is_regrouped = self.pool.groups is not self.outline.groups and any(
            group != self.outline.groups[row] for group, row in zip(groups, rows, strict=True)
        )
        if isinstance(source, list):
            samples = [source[row - start] for row in rows]
            if not is_regrouped:
                return samples
            return [replace(sample, group=group) for sample, group in zip(samples, groups, strict=True)]
        if not is_regrouped and _are_all(rows, start, len(source)):
            return source
        return Selection(source, [row - start for row in rows], groups if is_regrouped else None)


def _are_all(rows: Sequence[int], start: int, count: int) -> bool:
    """Whether these are all rows from one on, in order."""
    return len(rows) == count and all(map(eq, rows, range(start, start + count)))


def _gather(reader: SourceReader, files: Mapping[str, str], division: ByGroup) -> _Data:
    """Read all files and find out what belongs together and which splits the data itself brings."""
    sources = {name: reader.read(name) for name in dict.fromkeys(files.values())}
    rules = {rule for rule in (division.group, division.stratify) if rule is not None}
    fields = {"split", "kind", *(rules - {"none", "reader", "picture"})}
    outlines = {name: Outline.of(samples, *fields) for name, samples in sources.items()}
    image_hashes, thumbnails = check_images(reader.root, sources, outlines)
    divided = {name: outline for name, outline in outlines.items() if name != files.get("retention")}
    main, everything = (Outline.joined(list(some.values()), fields) for some in (divided, outlines))
    groups, group_source = find_groups(main, division.group)
    strata, stratum_source = find_strata(main, division.stratify)
    plan = {"group": group_source, "left_out": dict(reader.left_out)}
    if division.is_by_group:
        contents = {str(image): digest for image, digest in image_hashes.items()}
        groups = merge_by_picture(groups, main.pictures, contents)
        plan["spread"] = stratum_source
    used = {name: digest for source in sources for name, digest in reader.hashes(source).items()}
    for image in image_hashes:
        if isinstance(image, Path):
            used[Path(os.path.relpath(image, reader.root)).as_posix()] = hash_file(image)
    pool = Pool(
        ids=everything.ids,
        groups=everything.groups if groups is everything.groups else [*groups, *everything.groups[len(groups) :]],
        strata=strata,
        predefined=_predefined_splits(reader.root, files, outlines),
        undivided=range(len(main)),
    )
    return _Data(list(sources.values()), everything, pool, used, image_hashes, thumbnails, plan)


def _find_files(
    path: str | Path, names: Mapping[str, str | None], format: str | None, is_divided: bool
) -> tuple[Path, dict[str, str]]:
    """The data set's folder and the file of each split; `all` for one that is not divided yet."""
    retention = {"retention": names["retention"]} if names["retention"] is not None else {}
    if is_hub_name(path):
        return Path(), {"all": str(path)}
    path = Path(path)
    if path.is_file():
        return path.parent, {"all": path.name, **retention}
    if not path.is_dir():
        if path.exists():
            check_regular(path, advice="Pass a folder or a file.")
        raise DataError(
            f"data set {path} does not exist. Expected a folder with train.json and test.json, or one JSON file."
        )
    files = {name: file or _SPLIT_FILES[name] for name, file in names.items() if name != "retention"}
    if names["validation"] is None and not (path / files["validation"]).is_file():
        del files["validation"]
    absent = [file for file in dict.fromkeys(files.values()) if not (path / file).exists()]
    if not absent:
        return path, {**files, **retention}
    is_named = any(names[split] is not None for split in SPLITS)
    if not is_named and len(absent) == len(files):
        if (path / _PUBLISHED_FILE).is_file():
            return path, {"all": _PUBLISHED_FILE, **retention}
        if format is not None or _is_recognised(path):
            return path, {"all": ".", **retention}
    if is_divided and absent == [files["test"]] and names["test"] is None:
        return path, {"all": files["train"], **retention}
    actual = ", ".join(sorted(file.name for file in path.glob("*.json"))) or "no JSON file"
    raise DataError(
        f"data set {path} has no {' and no '.join(absent)}; it holds {actual}. "
        "Name its files in dataset.train and dataset.test, or pass one file or another format's folder."
    )


def _is_recognised(path: Path) -> bool:
    try:
        recognise(path)
    except DataError:
        return False
    return True


def _predefined_splits(
    root: Path, files: Mapping[str, str], outlines: Mapping[str, Outline]
) -> dict[str, Sequence[int]]:
    """The rows of each split that has a file of its own, or that its rows name."""
    starts = {}
    start = 0
    for name, outline in outlines.items():
        starts[name] = start
        start += len(outline)
    rows_of_split: dict[str, Sequence[int]] = {
        split: range(starts[name], starts[name] + len(outlines[name]))
        for split, name in files.items()
        if split != "all"
    }
    if "all" not in files:
        return rows_of_split
    name = files["all"]
    named = outlines[name].fields["split"]
    nameless = np.flatnonzero(~named.where(lambda split: split in SPLITS))
    if len(nameless) == len(named):
        return rows_of_split
    if len(nameless):
        first = outlines[name].ids[int(nameless[0])]
        raise DataError(
            f"{root / name}: {len(nameless)} of {len(named)} rows do not say which split they are in (first: {first}),"
            f" and the others do. Give each of them one of {', '.join(SPLITS)}, or none to any."
        )
    for split in SPLITS:
        rows = np.flatnonzero(named.where(partial(eq, split)))
        if len(rows):
            rows_of_split[split] = (starts[name] + rows).tolist()
    return rows_of_split
