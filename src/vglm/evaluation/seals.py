"""Hashes that show whether an evaluation's files were changed after the answers were generated.

    evaluation.json     `sha256` over all else in it, `sealed` with the hash of `seals.json`
    seals.json          file -> its SHA-256; of answers also a hash of every line, so that a report says how many differ
    external.json       `sha256` over itself and every arm's `scores.jsonl`

What a metric makes of these files is recomputed for every report, so `metrics.json` and `report/` need no seal. This
detects records that were altered, dropped, added, swapped or reordered afterwards. It cannot detect changes by somebody
who recomputed the hashes, since everything needed for that is in the folder. To rule that out, keep the hash of
`evaluation.json` elsewhere, such as in a commit or a preregistration.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vglm.errors import DataError
from vglm.evaluation.messages import Message
from vglm.files import file_sha256, inside, read_bytes, read_record, write_json

SEALS_FILE = "seals.json"
SCORES_FILE = "scores.jsonl"
DESCRIPTION_FILE = "external.json"
_ANSWERS = "*/predictions.jsonl"
_SEALED = (_ANSWERS, "answers.json", "baselines.json", "curves.json", "images/*.webp")
_DIGITS = 8
"""Digits kept of a line's hash: enough to count different lines in a file whose own hash differs."""
MAX_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Seal:
    """What a file was.

    Attributes:
        sha256: Of its bytes.
        lines: Of a file of answers the first digits of every line's SHA-256, in order.
    """

    sha256: str
    lines: tuple[str, ...] = ()


def write_seals(folder: Path) -> str:
    """Write `seals.json` of the answers and all that was made while models were loaded.

    Returns:
        Its SHA-256, for `Evaluation.sealed`.
    """
    return _write({name: _seal(path) for name, path in _present(folder).items()}, folder)


def renew_seal(folder: Path, name: str) -> str:
    """Seal one file that was legitimately rewritten; returns the new hash of `seals.json`."""
    return _write({**_read(folder), name: _seal(folder / name)}, folder)


def digest_of(content: Mapping[str, Any]) -> str:
    """SHA-256 of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def scores_digest(metrics: Any, folder: Path) -> str:
    """SHA-256 of stored scores: what they are, and every arm's numbers."""
    files = {path.parent.name: file_sha256(path) for path in sorted(folder.glob(f"*/{SCORES_FILE}"))}
    return digest_of({"metrics": metrics, "files": files})


def find_changes(folder: Path, sealed: str | None) -> tuple[Message, ...]:
    """What differs from its seal, in words; nothing where an older version made the folder without seals.

    Args:
        folder: The evaluation folder.
        sealed: Hash of `seals.json`, as the description has it.
    """
    if sealed is None:
        return ()
    path = inside(folder, SEALS_FILE)
    if not path.is_file():
        return (Message("change.missing", {"file": SEALS_FILE}),)
    if file_sha256(path) != sealed:
        return (Message("change.file", {"file": SEALS_FILE}),)
    changes = [*_file_changes(folder), *_score_changes(folder)]
    more = [Message("change.more", {"n": len(changes) - MAX_SHOWN})] if len(changes) > MAX_SHOWN else []
    return (*changes[:MAX_SHOWN], *more)


def _file_changes(folder: Path) -> Iterator[Message]:
    seals, present = _read(folder), _present(folder)
    for name in seals.keys() - present.keys():
        yield Message("change.missing", {"file": name})
    for name, path in present.items():
        if name not in seals:
            yield Message("change.added", {"file": name})
        elif file_sha256(path) != seals[name].sha256:
            yield _answer_change(name, seals[name].lines, _seal(path).lines)


def _answer_change(name: str, before: tuple[str, ...], after: tuple[str, ...]) -> Message:
    """How many lines of a file are others."""
    gone, new = Counter(before) - Counter(after), Counter(after) - Counter(before)
    edited = min(gone.total(), new.total())
    if before == after:
        return Message("change.file", {"file": name})
    if not gone and not new:
        return Message("change.order", {"file": name, "n": len(before)})
    counts = {"edited": edited, "missing": gone.total() - edited, "added": new.total() - edited}
    return Message("change.answers", {"file": name, "n": len(before), **counts})


def _score_changes(folder: Path) -> Iterator[Message]:
    path = inside(folder, DESCRIPTION_FILE)
    if not path.is_file():
        return
    with suppress(ValueError, RecursionError):  # reported where it is read
        described = json.loads(path.read_bytes())
        is_sealed = isinstance(described, dict) and "metrics" in described
        if is_sealed and described.get("sha256") != scores_digest(described["metrics"], folder):
            yield Message("change.scores", {"file": DESCRIPTION_FILE})


def _present(folder: Path) -> dict[str, Path]:
    paths = [path for pattern in _SEALED for path in sorted(folder.glob(pattern)) if not path.name.startswith(".")]
    names = [path.relative_to(folder).as_posix() for path in paths]
    return {name: inside(folder, *name.split("/")) for name in names}


def _seal(path: Path) -> Seal:
    if not path.match(_ANSWERS):
        return Seal(file_sha256(path))
    content = read_bytes(path, advice="Check its rights.")
    lines = (hashlib.sha256(line).hexdigest()[:_DIGITS] for line in content.split(b"\n") if line.strip())
    return Seal(hashlib.sha256(content).hexdigest(), tuple(lines))


def _read(folder: Path) -> dict[str, Seal]:
    return dict(read_record(inside(folder, SEALS_FILE), dict[str, Seal], advice="Run evaluate.py again."))


def _write(seals: Mapping[str, Seal], folder: Path) -> str:
    write_json(folder / SEALS_FILE, {name: asdict(seal) for name, seal in seals.items()}, error=DataError)
    return file_sha256(folder / SEALS_FILE)
