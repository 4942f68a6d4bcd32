"""The weight files of a checkpoint: found, opened without trusting them, and compared with what a model needs.

Files are memory-mapped, so taking the inventory of a 15 GB checkpoint reads only its headers. Pickled files (`.bin`,
`.pt`) go through PyTorch's restricted unpickler: a file that names any type beyond tensors, plain values and NumPy
arrays is refused, and no code from it is run. Their records must be stored uncompressed, since PyTorch maps them
without checking for compression, and no tensor may have more elements than the file can hold.
"""

import re
import stat
import warnings
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm

from vglm.caching import remembered
from vglm.errors import CheckpointError, WorkbenchError, brief
from vglm.files import parse_json_object, read_text
from vglm.model.conversion import EMBEDDINGS, HEAD, Entry
from vglm.model.hashing import Algorithm, combine, describe, in_threads

CACHE_KIND = "identities"
"""Folder of the cache that keeps the hashes of checkpoints."""

LONGEST_JSON = 2**26
"""Bytes of a configuration or an index; the index of the published checkpoint has 10^5."""

_SHOWN_PROBLEMS = 5
_LONGEST_LATEST = 2**10  # bytes of a file that names one folder
_MOST_SHARED = 4  # times the size of a file that its tensors may have together: a tied head is stored once
_READ_ADVICE = "Fetch it again."
# What a SAT training run leaves beside the weights: NumPy's random state, an array of 32-bit integers. Older NumPy
# versions, which wrote the published files, knew the function under the first of the two names.
_RECONSTRUCT_ARRAY = np.ndarray(0).__reduce__()[0]
_SAFE_GLOBALS: list[Any] = [
    (_RECONSTRUCT_ARRAY, "numpy.core.multiarray._reconstruct"),
    (_RECONSTRUCT_ARRAY, "numpy._core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    type(np.dtype(np.uint32)),
]
_UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    zipfile.BadZipFile,
    NotImplementedError,
    SafetensorError,
)


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies, under which key, and what it looks like."""

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class WeightFiles:
    """The weight files of one checkpoint and every tensor in them.

    Attributes:
        folder: The checkpoint.
        files: Its weight files, in the order they are read.
        tensors: What they hold, by key, or what of it was selected, by another name.
    """

    folder: Path
    files: tuple[Path, ...]
    tensors: Mapping[str, StoredTensor]

    @classmethod
    def sharded(cls, folder: Path, name: str) -> "WeightFiles":
        """Find files as transformers writes them: `name`, or the shards listed in `name`.index.json.

        Raises:
            CheckpointError: No such file, a shard is missing or unreadable, or the index and the shards disagree.
        """
        index = folder / f"{name}.index.json"
        if not index.is_file():
            if not (folder / name).is_file():
                raise CheckpointError(f"{folder} has neither {name} nor {index.name}; it holds {listing(folder)}.")
            return cls._take(folder, {folder / name: ()})
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
            raise CheckpointError(f"{index}: weight_map must map tensor names to file names.")
        promised: dict[Path, list[str]] = {}
        for key, shard in weight_map.items():
            if Path(shard).name != shard:
                raise CheckpointError(
                    f"{index}: {_short(key)!r} must lie in a file beside the index, not in {_short(shard)!r}."
                )
            promised.setdefault(folder / shard, []).append(key)
        return cls._take(folder, dict(sorted(promised.items())))

    @classmethod
    def sat(cls, folder: Path) -> "WeightFiles":
        """Find the file of a SwissArmyTransformer checkpoint: `latest` names the iteration's folder.

        Raises:
            CheckpointError: There is none, several to choose from, or it is split for model parallelism.
        """
        candidates = sorted(folder.glob("*/mp_rank_00_model_states.pt"))
        if (folder / "latest").is_file():
            latest = folder / "latest"
            iteration = read_text(latest, error=CheckpointError, advice=_READ_ADVICE, limit=_LONGEST_LATEST).strip()
            file = folder / iteration / "mp_rank_00_model_states.pt"
            if file not in candidates:
                raise CheckpointError(f"{folder}/latest names iteration {iteration!r}, but there is no {file}.")
        elif len(candidates) == 1:
            file = candidates[0]
        else:
            raise CheckpointError(
                f"{folder} must hold one <iteration>/mp_rank_00_model_states.pt, or a file `latest` that names the"
                " iteration; found"
                f" {', '.join(str(path.relative_to(folder)) for path in candidates) or listing(folder)}."
            )
        if parts := sorted(file.parent.glob("mp_rank_0[1-9]_model_states.pt")):
            raise CheckpointError(
                f"{file.parent} is split for model parallelism ({1 + len(parts)} files). Join the parts with SAT first."
            )
        return cls._take(folder, {file: ()})

    @classmethod
    def _take(cls, folder: Path, promised: Mapping[Path, Collection[str]]) -> "WeightFiles":
        tensors: dict[str, StoredTensor] = {}
        problems = []
        for file, keys in promised.items():
            if not file.is_file():
                actual = "is no regular file" if file.exists() else "is missing"
                problems.append(f"{file.name} {actual}" + (f", which should hold {_count(keys)}" if keys else ""))
                continue
            content = read_tensors(file, keys)
            problems += [
                f"{file.name} lacks {_short(key)!r}, which the index promises" for key in keys if key not in content
            ]
            for key, tensor in content.items():
                if key in tensors:
                    problems.append(f"{_short(key)!r} is both in {tensors[key].file.name} and in {file.name}")
                tensors[key] = StoredTensor(file, key, tuple(tensor.shape), tensor.dtype)
        _raise(folder, problems)
        return cls(folder, tuple(promised), tensors)

    def select(self, names: Mapping[str, str]) -> "WeightFiles":
        """A part of the tensors under other names.

        Args:
            names: The key of each tensor by its name in the result.
        """
        return replace(self, tensors={name: self.tensors[key] for name, key in names.items()})

    @property
    def is_small(self) -> bool:
        """Whether reading them takes so little time that a progress bar would only flicker."""
        return self._bytes < 1_000_000_000

    @property
    def _bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)

    def check(self, expected: Mapping[str, tuple[int, ...]], optional: Collection[str] = ()) -> None:
        """Compare keys and shapes with what a model needs.

        Args:
            expected: The shape of every tensor, by key.
            optional: Those of them that may be absent.

        Raises:
            CheckpointError: Keys are missing or unexpected, shapes differ, or a tensor is not of a float type; names
                the first few with their files.
        """
        problems = []
        for key, shape in expected.items():
            stored = self.tensors.get(key)
            if stored is None:
                if key not in optional:
                    problems.append(f"{key!r} of shape {shape} is missing")
            elif stored.shape != shape:
                problems.append(f"{key!r} in {stored.file.name} has shape {stored.shape}, expected {shape}")
            elif not stored.dtype.is_floating_point:
                problems.append(f"{key!r} in {stored.file.name} has dtype {stored.dtype}, expected a float type")
        strays = self.tensors.keys() - expected.keys()
        problems += [f"{_short(key)!r} in {self.tensors[key].file.name} is unexpected" for key in sorted(strays)]
        _raise(self.folder, problems)

    def are_equal(self, first: str, second: str) -> bool:
        """Whether two stored tensors have the same type and the same numbers."""
        left, right = self.tensors[first], self.tensors[second]
        if (left.shape, left.dtype) != (right.shape, right.dtype):
            return False
        content = read_tensors(left.file)
        other = content if left.file == right.file else read_tensors(right.file)
        return torch.equal(content[left.key], other[right.key])

    def stream(self, doing: str = "Loading") -> Iterator[tuple[str, Tensor]]:
        """Yield every tensor; shows a progress bar unless the files are small.

        One file is mapped at a time, of safetensors one tensor, since every page that was read counts as memory.

        The tensors are views of the file: copy what is to be kept.

        Args:
            doing: What is done with them, for the progress bar.

        Raises:
            CheckpointError: The bytes of a file do not agree with its checksums.
        """
        with self.progress(f"{doing} {self.folder.name}") as progress:
            for file in self.files:
                _verify(file)
                is_mapped_anew = file.suffix == ".safetensors"
                content = {} if is_mapped_anew else read_tensors(file)
                for name, stored in self.tensors.items():
                    if stored.file == file:
                        if is_mapped_anew:
                            content = read_tensors(file, only=stored.key)
                        yield name, content[stored.key]
                        progress.update(content[stored.key].nbytes)

    def progress(self, label: str) -> Any:
        """A bar over all their bytes, not shown where they are few."""
        return tqdm(total=self._bytes, desc=label, unit="B", unit_scale=True, disable=self.is_small)


class NativeWeights:
    """The tensors of a checkpoint under their native names, whatever its layout, read on access.

    Args:
        files: Where they are stored, checked to be complete.
        entries: What each stored tensor becomes; a head that only repeats the embeddings may be absent.
        is_tied: Whether the head is the embeddings.
    """

    def __init__(self, files: WeightFiles, entries: Iterable[Entry], is_tied: bool) -> None:
        self.files = files
        self.is_tied = is_tied
        self._entries = {entry.source: entry for entry in entries if not (is_tied and entry.native == (HEAD,))}
        self._entry_of = {name: entry for entry in self._entries.values() for name in entry.native}
        if is_tied:
            self._entry_of[HEAD] = self._entry_of[EMBEDDINGS]
        self._opened: tuple[Path, dict[str, Tensor]] | None = None

    def stream(self, doing: str = "Loading") -> Iterator[tuple[str, Tensor]]:
        """Yield every native tensor once, in the order of the files; see `WeightFiles.stream`."""
        for key, tensor in self.files.stream(doing):
            if key in self._entries:
                yield from self._entries[key].to_native(tensor).items()

    def __getitem__(self, name: str) -> Tensor:
        """One native tensor, a view of its file where the layouts agree; a tied head is the embeddings."""
        entry = self._entry_of[name]
        stored = self.files.tensors[entry.source]
        if self._opened is None or self._opened[0] != stored.file:
            self._opened = stored.file, read_tensors(stored.file)
        return entry.to_native(self._opened[1][stored.key])[name if name in entry.native else entry.native[0]]

    @property
    def dtype(self) -> torch.dtype:
        """The checkpoint's type: that of its word embeddings."""
        return self.files.tensors[self._entry_of[EMBEDDINGS].source].dtype

    def hash(self, algorithm: Algorithm = "xxh3", prefixes: tuple[str, ...] = ("",)) -> str:
        """The hash of tensors by their native names, whatever the layout, see `vglm.model.hashing`.

        Reads them at the first time, on several threads; from then on the cache knows it, until a file changes.

        Args:
            algorithm: How.
            prefixes: Of the names that count.
        """
        requested = [
            (entry.source, entry.native, repr(entry.operation), self.files.tensors[entry.source].file.name)
            for entry in self._entries.values()
            if entry.native and entry.source in self.files.tensors
        ]
        described = remembered(
            CACHE_KIND, self.files.files, [1, algorithm, requested], partial(self._describe, algorithm)
        )
        return combine({name: value for name, value in described.items() if name.startswith(prefixes)}, algorithm)

    def _describe(self, algorithm: Algorithm) -> dict[str, str]:
        described: dict[str, str] = {}
        with self.files.progress(f"Identifying {self.files.folder.name}") as progress:
            for file in self.files.files:
                pickled = None if file.suffix == ".safetensors" else read_tensors(file)

                def describe_one(entry: Entry, pickled: Mapping[str, Tensor] | None = pickled) -> dict[str, str]:
                    stored = self.files.tensors[entry.source]
                    tensor = (read_tensors(stored.file, only=stored.key) if pickled is None else pickled)[stored.key]
                    rows = {name: describe(value, algorithm) for name, value in entry.to_native(tensor).items()}
                    progress.update(tensor.nbytes)
                    return rows

                stored_here = {key for key, stored in self.files.tensors.items() if stored.file == file}
                jobs = [partial(describe_one, entry) for key, entry in self._entries.items() if key in stored_here]
                for rows in in_threads(jobs):
                    described |= rows
        return described


def read_tensors(
    file: Path, promised: Collection[str] = (), only: str | None = None, inside: str | None = None
) -> dict[str, Tensor]:
    """Map one weight file into memory.

    Args:
        file: A `.safetensors` file, a pickled state dict (`.bin`), or a SAT checkpoint (`.pt`), whose tensors are under
            `module` beside the state of the training run.
        promised: Keys that the file should hold, for the message.
        only: Of a `.safetensors` file, map this tensor alone.
        inside: Entry of a pickle that holds the tensors, if it is not the whole of it; of a `.pt`, `module`.

    Returns:
        The tensors by key, on the CPU, backed by the file where its format allows (all but PyTorch's before 1.6).

    Raises:
        CheckpointError: The file is truncated or damaged, compressed, no regular file, holds other things than tensors
            or tensors that it has no room for, or names types that are not on the list of safe ones.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise CheckpointError(f"{file} is no regular file. {_READ_ADVICE}")
        if only is not None:
            with safe_open(file, framework="pt") as opened:
                return {only: opened.get_tensor(only)}
        content = load_file(file) if file.suffix == ".safetensors" else _unpickle(file)
    except UnpicklingError as err:
        refused = re.search(r"GLOBAL ([\w.]+)", str(err))
        if refused:
            raise CheckpointError(
                f"{file} asks for {refused.group(1)!r}, which a file of weights has no use for. It was not run. Do not"
                " use this file unless you know where it comes from."
            ) from err
        raise CheckpointError(_unreadable(file, err, promised)) from err
    except _UNREADABLE as err:
        raise CheckpointError(_unreadable(file, err, promised)) from err
    inside = "module" if file.suffix == ".pt" else inside
    if inside is not None:
        if not isinstance(content, dict) or not isinstance(content.get(inside), dict):
            actual = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
            raise CheckpointError(f"{file} has no entry `{inside}` of tensors, found {_short(actual) or 'nothing'}.")
        content = content[inside]
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} must hold a dictionary of tensors, found {type(content).__name__}.")
    strays = [str(key) for key, value in content.items() if not isinstance(value, Tensor) or not isinstance(key, str)]
    if strays:
        raise CheckpointError(f"{file} must hold tensors by name, but {_count(strays)} is something else.")
    _check_room(file, content)
    return content


def _check_room(file: Path, content: Mapping[str, Tensor]) -> None:
    """Refuse tensors that have more numbers than there are in the file, or that are more than their numbers."""
    for key, tensor in content.items():
        is_plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided
        if not is_plain or tensor.is_meta or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise CheckpointError(f"{file}: {_count([key])} is no plain tensor. {_READ_ADVICE}")
    size, nbytes = file.stat().st_size, sum(tensor.nbytes for tensor in content.values())
    if nbytes > _MOST_SHARED * size:
        raise CheckpointError(f"{file} has {size:,} bytes, too few for tensors of {nbytes:,}. {_READ_ADVICE}")


def _verify(file: Path) -> None:
    """Compare the records of a pickled file with their checksums, which PyTorch writes but never reads."""
    if not zipfile.is_zipfile(file):  # safetensors and PyTorch's format before 1.6 have none
        return
    damaged, whole = [], 0
    with zipfile.ZipFile(file) as archive:
        for record in archive.infolist():
            try:
                with archive.open(record) as stream:
                    while stream.read(1 << 20):
                        pass
                whole += record.file_size > 0
            except (zipfile.BadZipFile, OSError, ValueError, EOFError):
                damaged.append(record.filename)
    if damaged and whole:  # where none fits, the writer left the checksums out
        raise CheckpointError(_unreadable(file, ValueError(f"{_count(damaged)} does not fit its checksum"), ()))


def _unpickle(file: Path) -> Any:
    with file.open("rb") as stream:
        is_zip = stream.read(4) == b"PK\x03\x04"  # PyTorch's format since 1.6; only that can be mapped
    if is_zip:
        _check_stored_plain(file)
    with warnings.catch_warnings(), torch.serialization.safe_globals(_SAFE_GLOBALS):
        warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
        return torch.load(file, map_location="cpu", mmap=is_zip, weights_only=True)


def _check_stored_plain(file: Path) -> None:
    """Refuse compressed records, which PyTorch would take for what they unpack to, and more of them than there is."""
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
    packed = [record.filename for record in records if record.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise CheckpointError(
            f"{file} was packed anew: {_count(packed)} is compressed, which PyTorch cannot read. {_READ_ADVICE}"
        )
    if sum(record.file_size for record in records) > file.stat().st_size:
        raise CheckpointError(f"{file} promises more than it holds. {_READ_ADVICE}")


def _unreadable(file: Path, err: Exception, promised: Collection[str]) -> str:
    # PyTorch surrounds the cause with advice, some of which is to switch the safe unpickler off.
    text = str(err).rpartition("WeightsUnpickler error:")[2].partition("This is an internal miniz error")[0].strip()
    reason = brief(ValueError(text.splitlines()[0])) if text else "it ends too early"
    expected = f" It should hold {_count(promised)}." if promised else ""
    return f"{file} cannot be read ({reason}); it may be truncated or damaged.{expected} Fetch it again."


def read_json(file: Path, *, error: type[WorkbenchError] = CheckpointError) -> dict[str, Any]:
    """Read a JSON object of a checkpoint or an adapter.

    Args:
        file: The file.
        error: What to raise.

    Raises:
        CheckpointError: Or `error`: the file cannot be read, is too large or holds something else.
    """
    text = read_text(file, error=error, advice=_READ_ADVICE, limit=LONGEST_JSON)
    return parse_json_object(text, str(file), error=error, advice=_READ_ADVICE)


def listing(folder: Path) -> str:
    """What a folder holds, for a message."""
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "nothing"


def _count(names: Collection[str]) -> str:
    first, *rest = names
    return repr(_short(first)) + (f" and {len(rest)} more" if rest else "")


def _short(name: str, length: int = 100) -> str:
    return name if len(name) <= length else f"{name[:length]}..."


def _raise(folder: Path, problems: list[str]) -> None:
    if problems:
        more = f"; and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
        raise CheckpointError(
            f"{folder} is not a complete checkpoint of this model: {'; '.join(problems[:_SHOWN_PROBLEMS])}{more}."
        )
