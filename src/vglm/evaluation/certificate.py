"""Merge runs into a plain model, and publish it only with a certificate that it answers as base and adapter did.

    merge_runs([Path("outputs/background/qlora/<time>")], Path("merged"), dtype="float16")

The tuned model (the base as the run used it, quantised or not, with the adapter) answers the run's test split. Then
the merged model is written, loaded again from the written files, and answers the same. `merge_certificate.json`:

    {"passed": true, "problems": [], "warnings": [], "kind": "merged", "dtype": "float16", …,
     "logits": {"positions": 210, "max_difference": 0.004, "mean_difference": 0.0006, "relative_difference": 0.0003,
                "adapter_effect": 0.62, "noise": 0.0},
     "greedy_agreement": 1.0,
     "exact_match": {"n": 120, "adapter": 0.925, "merged": 0.925},
     "updates": {"overall": {"relative_update": 0.021, "rounding": 0.00021}, "modules": {…}}}

A model that does not pass is not published but kept as `merged.unverified/`, with the certificate that says why.

Virtual tokens (P-tuning, prompt tuning) do not change the weights. Their base is written to `model/` and the adapter
beside it to `adapter/`, certified in the same way.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vglm.config import build, repo_root
from vglm.data.collator import Collator
from vglm.data.sample import Sample
from vglm.errors import AdapterError, CheckpointError, ConfigError
from vglm.evaluation.predict.generation import generate_predictions
from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.metrics import EXACT_MATCH
from vglm.files import check_vacant, claimed, read_json, replaced_folder, write_json
from vglm.model.hashing import ALGORITHMS, Algorithm
from vglm.model.identity import RECORD, hash_weights, recorded_hash
from vglm.model.loading import attach_adapter, default_device, describe_device, load_pretrained, save_native
from vglm.model.modeling import VisualGlmForConditionalGeneration
from vglm.runs import UNVERIFIED, Run
from vglm.tuning.contract import answer_logits, measure_noise, relative_difference
from vglm.tuning.merge import (
    Combination,
    Updates,
    combine_adapters,
    is_prompt_adapter,
    merge_adapter,
    total,
)

CERTIFICATE_FILE = "merge_certificate.json"
COMPARED_PROMPTS = 16
"""Number of test prompts whose logits are compared; all of them are answered and scored."""

MERGED, EXPORTED = "merged", "not merged: virtual tokens are no change of the weights; exported beside the base"
"""The result of merging an adapter."""

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Tolerance:
    """How far a merged model may be from base and adapter.

    Attributes:
        relative_logits: Largest `relative_difference` of the logits.
        greedy_agreement: Smallest share of equal greedy tokens.
        exact_match: Largest difference of the score; one sample is always allowed.
    """

    relative_logits: float
    greedy_agreement: float
    exact_match: float = 0.01


TOLERANCES = {
    "float32": Tolerance(1e-4, 0.999),
    "float16": Tolerance(5e-3, 0.99),
    "bfloat16": Tolerance(4e-2, 0.95),
    "int8": Tolerance(2e-2, 0.97),  # whose layers round their inputs too, which no merged model repeats
    "int8_fast": Tolerance(2e-2, 0.97),
}
"""By the coarsest number format among the base's and the merged model's."""

NOISE_PROMPTS = 4
"""Number of them on which the tuned model's own noise is measured, see `measure_noise`."""

_NOISY = 0.25
"""Share of an update that rounding may take before it is worth a warning."""


@dataclass(frozen=True)
class Certificate:
    """What was compared, and the verdict.

    Attributes:
        kind: `MERGED` or `EXPORTED`.
        dtype: Type of the published weights.
        base: Where the base came from, and in which precision it was used.
        adapters: The runs, and how they were combined.
        tolerance: What the figures below must keep to.
        logits: Differences over the answer positions of the first test prompts.
        greedy_agreement: Share of those positions where both choose the same token.
        exact_match: Score on the test split: `n`, `adapter`, `merged`.
        updates: |dW|/|W| and the rounding noise of `dtype`, overall and by module; empty for virtual tokens.
        problems: Why nothing is published; empty where it passed.
        warnings: What to know all the same.
    """

    kind: str
    dtype: str
    base: Mapping[str, Any]
    adapters: Mapping[str, Any]
    tolerance: Tolerance
    logits: Mapping[str, float]
    greedy_agreement: float
    exact_match: Mapping[str, float]
    updates: Mapping[str, Any]
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the model may be published."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """The content of `merge_certificate.json`."""
        return {"passed": self.passed, **asdict(self)}

    def __str__(self) -> str:
        logits, scores = self.logits, self.exact_match
        moved = self.updates.get("overall")
        noise = f", |dW|/|W| {moved['relative_update']:.1e}, rounding {moved['rounding']:.1e}" if moved else ""
        return (
            f"certificate {'passed' if self.passed else 'FAILED'} ({self.kind}, {self.dtype}): logits differ by at most"
            f" {logits['max_difference']:.1e}, mean {logits['mean_difference']:.1e},"
            f" relative {logits['relative_difference']:.1e} (the adapter's own effect: {logits['adapter_effect']:.1e});"
            f" greedy tokens {self.greedy_agreement:.1%} equal; exact match {scores['adapter']:.1%} ->"
            f" {scores['merged']:.1%} of {scores['n']}{noise}"
        )


@dataclass(frozen=True)
class _Run:
    """A finished run with an adapter, as found in its folder; its base as `recorded_hash` gives it."""

    folder: Path
    config: Mapping[str, Any]
    base: tuple[Algorithm, str]

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"


def merge_runs(
    runs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    dtype: str | None = None,
    combination: Combination | None = None,
    force: bool = False,
) -> Certificate:
    """Merge the adapters of runs into their base and publish the model, if it proves to be the same.

    Args:
        runs: One finished run, or several on the same base: each a `Run`, its folder, or `latest`. They are only read.
        output: Folder to make; it appears when it is whole and certified. What does not pass becomes
            `<output>.unverified` instead, in place of an earlier one.
        dtype: "float32", "float16" or "bfloat16"; None for the type the base computes in.
        combination: How the adapters of several runs become one.
        force: Publish although the base is not the one trained on, or although rounding erases the update.

    Returns:
        The certificate; nothing was published unless it `passed`.

    Raises:
        ConfigError: The arguments do not fit the runs or each other.
        AdapterError: An adapter is damaged, or belongs to another base.
        CheckpointError: The base cannot be read, or the output cannot be written.
    """
    output = Path(output)
    check_vacant(output, error=ConfigError)
    sources = [_read_run(Path(run)) for run in ([runs] if isinstance(runs, str | os.PathLike) else runs)]
    if (len(sources) > 1) != (combination is not None):
        raise ConfigError("Several runs need --weights, a number for each; one run needs none.")
    first_with = {run.base[0]: run for run in reversed(sources)}  # hashes of two kinds are compared through the base
    if others := [run for run in sources if run.base != first_with[run.base[0]].base]:
        first = first_with[others[0].base[0]].folder
        raise ConfigError(f"{others[0].folder} and {first} have different bases, so their updates do not add up.")
    samples = _test_samples(sources)
    source = sources[0].config["model"]
    with claimed(output, error=CheckpointError) as work:
        base, processor = build(source)
        facts = {
            "path_or_id": source.get("path_or_id"),
            f"weights_{ALGORITHMS[0]}": hash_weights(base),
            "quantization": source.get("quantization"),
            "dtype": _name(base.config.dtype or torch.float32),
        }
        warnings = [problem for run in first_with.values() for problem in _check_base(run, base, force=force)]
        adapter = sources[0].adapter
        if combination is not None:
            adapter = combine_adapters(base, [run.adapter for run in sources], combination, work / "combined")
        tuned = attach_adapter(base, adapter, is_checked=False)  # by its hash, above
        print(f"base + adapter: {describe_device(tuned)}")
        before = generate_predictions(tuned, processor, samples, title="base + adapter")
        prompts = _prompts(samples, before, processor)
        reference = _logits(tuned, prompts)
        noise = max(measure_noise(tuned, prompt) for prompt in prompts[:NOISE_PROMPTS])
        with tuned.disable_adapter():
            effect = relative_difference(_logits(tuned, prompts), reference)

        result = _write(tuned, processor, adapter, dtype, work / "result")
        del base, tuned  # what was written must stand without them, and have their room
        merged, processor = result.load()
        after = generate_predictions(merged, processor, samples, title="merged")
        logits = _logits(merged, prompts)

        formats = (facts["dtype"], result.dtype, facts["quantization"])
        certificate = Certificate(
            kind=result.kind,
            dtype=result.dtype,
            base=facts,
            adapters={
                "runs": [run.folder.as_posix() for run in sources],
                "combination": None if combination is None else asdict(combination),
            },
            tolerance=max(
                (TOLERANCES[format] for format in formats if format in TOLERANCES), key=lambda it: it.relative_logits
            ),
            logits=_compare(logits, reference) | {"adapter_effect": effect, "noise": noise},
            greedy_agreement=(logits.argmax(-1) == reference.argmax(-1)).double().mean().item(),
            exact_match={"n": len(samples), "adapter": EXACT_MATCH.score(before), "merged": EXACT_MATCH.score(after)},
            updates=_describe(result.updates),
            warnings=tuple(warnings),
        )
        certificate = _judge(certificate, result.updates, force=force)
        write_json(work / "result" / CERTIFICATE_FILE, certificate.as_dict(), error=CheckpointError)
        if not certificate.passed:
            with replaced_folder(unverified(output), marker=CERTIFICATE_FILE, error=CheckpointError) as folder:
                folder.rmdir()
                (work / "result").rename(folder)
        else:
            check_vacant(output, error=ConfigError)  # somebody else may have been quicker
            if output.exists():
                output.rmdir()
            (work / "result").rename(output)
    return certificate


def unverified(output: Path) -> Path:
    """The folder of a merged model that did not pass."""
    return output.with_name(f"{output.name}{UNVERIFIED}")


@dataclass(frozen=True)
class _Result:
    """What was written, still under a hidden name."""

    kind: str
    dtype: str
    updates: Updates
    model: Path
    adapter: Path | None = None

    def load(self) -> tuple[Any, Any]:
        """The model and its processor as a user gets them: float32 on a CPU, except for what was never merged."""
        as_stored = "auto" if default_device().type != "cpu" or self.kind != MERGED else None
        return load_pretrained(self.model, adapter=self.adapter, dtype=as_stored)


def _write(tuned: Any, processor: Any, adapter: Path, dtype: str | None, folder: Path) -> _Result:
    """Write the merged model, or base and adapter side by side where there is nothing to merge."""
    if not is_prompt_adapter(tuned):
        merged, updates = merge_adapter(tuned, adapter, None if dtype is None else _DTYPES[dtype])
        save_native(merged, processor, folder)
        return _Result(MERGED, _name(merged.dtype), updates, folder)
    if dtype is not None:
        raise ConfigError(
            f"--dtype is for merging, but '{adapter}' is made of virtual tokens, which are exported beside their base"
            " as it is. Leave it out."
        )
    base = tuned.get_base_model()
    save_native(base, processor, folder / "model")
    shutil.copytree(adapter, folder / "adapter")
    return _Result(EXPORTED, _name(base.config.dtype or torch.float32), {}, folder / "model", folder / "adapter")


# --- the verdict -----------------------------------------------------------------------------------------------------


def _judge(certificate: Certificate, updates: Updates, *, force: bool) -> Certificate:
    """Hold the figures against the tolerance, and the update against the rounding."""
    logits, scores, limit = certificate.logits, certificate.exact_match, certificate.tolerance
    problems = []
    allowed = max(limit.relative_logits, 2 * logits["noise"])
    if not logits["relative_difference"] <= allowed:
        problems.append(
            f"logits differ by {logits['relative_difference']:.1e} of their size, at most {allowed:.0e} is allowed"
        )
    if not certificate.greedy_agreement >= limit.greedy_agreement:
        problems.append(
            f"{certificate.greedy_agreement:.1%} of the greedy tokens are equal, at least {limit.greedy_agreement:.1%}"
            " must be"
        )
    lost = abs(scores["merged"] - scores["adapter"])
    if lost * scores["n"] > max(1, limit.exact_match * scores["n"]) + 1e-9:
        problems.append(
            f"exact match differs by {100 * lost:.1f} points, from {scores['adapter']:.1%} with the adapter"
        )

    erased, warnings = [], list(certificate.warnings)
    overall = total(updates.values())
    if overall.rounding > overall.update:
        erased.append(
            f"the update vanishes in {certificate.dtype}: |dW|/|W| is {overall.relative:.1e}, the rounding of the"
            f" weights {overall.noise:.1e}"
        )
    elif noisy := {name: update for name, update in updates.items() if update.rounding > _NOISY * update.update}:
        worst = max(noisy, key=lambda name: noisy[name].noise / (noisy[name].relative or 1.0))
        warnings.append(
            f"rounding to {certificate.dtype} is a good part of the update in {len(noisy)} of {len(updates)} modules,"
            f" most in {worst}: {noisy[worst]}"
        )
    seen_anyway = max(2 * logits["noise"], TOLERANCES["float32"].relative_logits)
    if logits["relative_difference"] > max(logits["adapter_effect"], seen_anyway):
        erased.append(
            f"merging moves the logits by {logits['relative_difference']:.1e} of their size, the adapter itself by only"
            f" {logits['adapter_effect']:.1e}"
        )
    if erased and not force:
        problems += [
            f"{problem}. Choose a finer --dtype, or publish it all the same with --force" for problem in erased
        ]
    else:
        warnings += erased
    return replace(certificate, problems=tuple(problems), warnings=tuple(warnings))


def _compare(logits: Tensor, reference: Tensor) -> dict[str, float]:
    difference = (logits - reference).abs()
    return {
        "positions": len(reference),
        "max_difference": difference.max().item(),
        "mean_difference": difference.mean().item(),
        "relative_difference": relative_difference(logits, reference),
    }


def _describe(updates: Updates) -> dict[str, Any]:
    if not updates:
        return {}
    overall = total(updates.values())
    rows = {name: {"relative_update": update.relative, "rounding": update.noise} for name, update in updates.items()}
    return {"overall": {"relative_update": overall.relative, "rounding": overall.noise}, "modules": rows}


# --- what is compared ------------------------------------------------------------------------------------------------


def _read_run(run: Path) -> _Run:
    """A run whose adapter can be merged, or an imported fine-tune: model/ and adapter/ side by side."""
    if (run / "model").is_dir() and (run / "adapter").is_dir() and not Run.is_at(run):
        return _read_pair(run)
    opened = Run.open(run)
    if opened.adapter is None:
        raise ConfigError(f"{opened.folder} has no adapter to merge: its model/ is a plain model already.")
    return _Run(opened.folder, opened.config, opened.record.base_weights)


def _read_pair(folder: Path) -> _Run:
    """A base and its adapter, which bring no data of their own: they are compared on the shipped pictures."""
    path = folder / "adapter" / RECORD
    record = read_json(path, error=AdapterError, advice="Convert the fine-tune again.")
    try:
        digest = recorded_hash(record)
    except KeyError as error:
        raise AdapterError(f"{path} names no weights. Convert the fine-tune again.") from error
    model = {"_target_": "vglm.model.loading.load_pretrained", "path_or_id": str(folder / "model")}
    dataset = {"_target_": "vglm.data.loading.load_dataset", "path": str(repo_root() / "data/background_synthetic")}
    return _Run(folder, {"model": model, "dataset": dataset}, digest)


def _check_base(run: _Run, base: VisualGlmForConditionalGeneration, *, force: bool) -> list[str]:
    """Refuse a base that is not the one the run was trained on; a warning where it is forced."""
    algorithm, expected = run.base
    if (digest := hash_weights(base, algorithm)) == expected:
        return []
    problem = (
        f"the base is not the one trained on: its weights are {algorithm} {digest[:16]}, {run.folder} names"
        f" {expected[:16]}"
    )
    if not force:
        raise AdapterError(f"{problem}. Restore that base, or merge with --force.")
    return [problem]


def _test_samples(runs: Sequence[_Run]) -> list[Sample]:
    """The test splits of the runs, each data set once."""
    data = list({json.dumps(run.config["dataset"], sort_keys=True): run.config["dataset"] for run in runs}.values())
    samples = [sample for dataset in data for sample in build(dataset).test]
    if not samples:
        raise ConfigError(f"{runs[0].folder}: its data has no test samples, so a merge could not be certified.")
    return samples


def _prompts(samples: Sequence[Sample], predictions: Sequence[Prediction], processor: Any) -> list[dict[str, Tensor]]:
    """Batches of one: the first test prompts, each with the answer that base and adapter gave to it."""
    collate = Collator(processor)
    answered = [
        replace(sample, turns=(*sample.turns[:-1], replace(sample.turns[-1], answer=record.prediction)))
        for sample, record in zip(samples, predictions, strict=True)
        if record.error is None
    ]
    if not answered:
        raise ConfigError(f"no test sample could be answered, so a merge cannot be certified: {predictions[0].error}")
    return [collate([sample]) for sample in answered[:COMPARED_PROMPTS]]


def _logits(model: Any, prompts: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """The logits behind the answers of all prompts, shape (positions, V)."""
    return torch.cat([answer_logits(model, prompt) for prompt in prompts])


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
