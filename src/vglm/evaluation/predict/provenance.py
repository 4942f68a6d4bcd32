"""Provenance of an evaluation, so that it can be reproduced: hashes of code, config and tuned weights.

code_state()                             commit 76e1495 with changes, sources sha256 4f1c0a66b2d39e10
provenance(config, run.result)            {"config": "sha256 …", "code": …, "tuned weights": "sha256 …"}
"""

import hashlib
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from vglm.data.sample import Sample
from vglm.data.splits import fingerprint
from vglm.evaluation.messages import Message, Sentence
from vglm.evaluation.predictions import Stamp
from vglm.runs import ForgettingRecord, Run

PACKAGE = Path(__file__).resolve().parents[2]
_SOURCES = (".py", ".j2", ".css", ".js", ".yaml")
_WEIGHTS = (".safetensors", ".bin", ".pt")
_BLOCK_BYTES = 1 << 20


def provenance(config: str, result: Path | None) -> dict[str, Sentence]:
    """Facts for the report beside what the arms themselves say.

    Args:
        config: The resolved configuration, as YAML.
        result: A run's `adapter/` or `model/`; None for a model alone.
    """
    facts: dict[str, Sentence] = {"code": code_state()}
    facts["config"] = f"sha256 {hashlib.sha256(config.encode()).hexdigest()[:16]}"
    if result is not None and (digest := hash_tuned_weights(result)) is not None:
        facts["tuned weights"] = f"sha256 {digest[:16]}"
    return facts


@cache
def code_state() -> Message:
    """The commit where the code is a checkout, whether files differ from it, and a hash of the package's sources."""
    digest = hashlib.sha256()
    for path in sorted(path for path in PACKAGE.rglob("*") if path.suffix in _SOURCES and path.is_file()):
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    sources = {"sha256": digest.hexdigest()[:16]}
    if _git("ls-files", "--error-unmatch", "__init__.py") is None or (commit := _git("rev-parse", "HEAD")) is None:
        return Message("code.sources", sources)
    is_changed = _git("status", "--porcelain", "--untracked-files=no")
    return Message("code.changed" if is_changed else "code.commit", {"commit": commit[:12], **sources})


def _git(*arguments: str) -> str | None:
    """The git state of the package's folder; None without git or a checkout."""
    with suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(PACKAGE), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    return None


def hash_tuned_weights(result: Path) -> str | None:
    """SHA-256 of the weights in a run's `adapter/` or `model/`, names and contents; None where there are none."""
    paths = [path for path in sorted(result.rglob("*")) if path.suffix in _WEIGHTS and path.is_file()]
    if not paths:
        return None
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(result.parent).as_posix()}\0".encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def synthetic_stamps(source: str | None) -> tuple[Stamp, ...]:
    """The stamp of generated data.

    Args:
        source: What generated it, see `vglm.data.splits.Splits`; None for data that was found.
    """
    if source is None:
        return ()
    return (Stamp(text="SYNTHETIC DATA", detail=Message("synthetic", {"source": source})),)


# --- how the run went -----------------------------------------------------------------------------------------------


def curves_of(run: Run) -> dict[str, Any]:
    """The curves of a run, as an evaluation folder keeps them in `curves.json`.

    Args:
        run: A finished run. One without `forgetting.jsonl` has a learning curve only.

    Returns:
        `learning`: a dictionary for each logged step, with `step`, `loss` and `learning_rate`. `forgetting`: one for
        each scored checkpoint, see `CheckpointScore`. `metric`, `domain_split`, `budget_points`, `chosen_step` and
        `stopped_early` say what was scored and chosen.

    Raises:
        AdapterError: `run.json` is damaged.
        CheckpointError: Another file is.
    """
    facts = run.record.forgetting or ForgettingRecord()
    learning = []
    for line in run.log:
        if line.loss is not None:
            rate = {} if line.learning_rate is None else {"learning_rate": line.learning_rate}
            learning.append({"step": line.step, "loss": line.loss, **rate})
    return {
        "learning": learning,
        "forgetting": [asdict(score) for score in run.checkpoint_scores],
        "metric": facts.metric,
        "retention_metric": facts.retention_metric or facts.metric,
        "domain_split": facts.domain_split,
        "budget_points": facts.budget_points,
        "chosen_step": facts.chosen_step,
        "stopped_early": facts.stopped_early,
    }


def describe_choice(
    facts: ForgettingRecord | None, samples: Mapping[str, Sequence[Sample]]
) -> tuple[dict[str, Sentence], tuple[Stamp, ...]]:
    """What a report must state about a chosen checkpoint.

    Args:
        facts: What the run's record says of it.
        samples: Split name -> what the report evaluates on, or draws from where it has a limit.

    Returns:
        Facts, and a stamp where no checkpoint that kept to the budget has learned. Nothing where none was chosen.
    """
    if facts is None or facts.chosen_step is None:
        return {}, ()
    retention = samples.get("retention", ())
    reused = len(retention) > 0 and fingerprint(retention) == facts.retention_sha256
    full = reason = _reason(facts)
    if facts.warning is not None:
        full = Message("checkpoint.warned", {"warning": Message(f"stamp.{facts.warning}"), "reason": reason})
    about = {"metric": facts.metric, "split": facts.domain_split, "retention": Message(f"retention.{facts.retention}")}
    chosen = Message("checkpoint.scored", {"reason": full, **about})
    if facts.retention_metric not in (None, facts.metric):
        chosen = Message("checkpoint.scored_apart", {"reason": full, **about, "other": facts.retention_metric})
    if reused:
        chosen = Message("checkpoint.reused", {"what": chosen})
    if facts.stopped_early:
        chosen = Message("checkpoint.stopped", {"what": chosen})
    stamps = () if facts.warning is None else (Stamp(text=facts.warning, detail=reason),)
    return {"checkpoint": chosen}, stamps


def _reason(facts: ForgettingRecord) -> Sentence:
    """Why that checkpoint was chosen, without the warning; of older runs the sentence in their record."""
    if facts.choice is None:
        return facts.reason.removeprefix(f"{facts.warning}: ")
    kinds = {None: "kept", "FORGETTING BUDGET EXCEEDED": "over"}
    shares = {name: 100 * facts.choice[name] for name in ("domain", "domain_before")}
    at = Message("checkpoint.at", {**facts.choice, **shares})
    kind = kinds.get(facts.warning, "nothing")
    return Message(f"checkpoint.{kind}", {"at": at, "budget": facts.choice["budget_points"]})
