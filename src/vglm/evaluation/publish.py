"""Turn a run into a folder that can be published: weights, model card, numbers, report.

    publish(Run.open("outputs/background/lora/<time>"), Path("background-lora"), to="hub")

    background-lora/
      README.md                  the model card: the hub's metadata; base, data, hashes; what the report says
      report/                    index.html, report.md, report.json and the plots, as the evaluation left them
      adapter_config.json ...    `hub`: what the run trained; otherwise merged plain weights in the layout named

Only what was evaluated is published. The card names data by hashes and counts. The report shows pictures, questions and
answers of the test set, so check it before publishing where these are not public.
"""

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from vglm.errors import AdapterError, CheckpointError, ConfigError, DataError, typed
from vglm.evaluation.certificate import CERTIFICATE_FILE, merge_runs
from vglm.evaluation.messages import translate
from vglm.evaluation.predict.provenance import hash_tuned_weights
from vglm.evaluation.predictions import Evaluation, Stamp, predictions_file, read_evaluation, read_predictions
from vglm.evaluation.score.comparison import compare_folder
from vglm.files import check_vacant, new_folder, read_json, read_text, write_json, write_text
from vglm.model.adapters import CONFIG_FILE, WEIGHT_FILES
from vglm.model.export import convert
from vglm.model.identity import RECORD
from vglm.runs import Run

FORMS = ("hub", "native", "hf", "sat")
REFUSED = {
    "gguf": "GGUF, and llama.cpp which reads it, has no operator for two rotary positions a token or for a prompt whose"
    " tokens see each other in both directions.",
    "vllm": "vLLM has one position a token, or M-RoPE's three, and causal masks, and so cannot express this"
    " architecture; serve it with vglm api.",
}
"""Requested forms that are not available, and why."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PRIVATE_FACTS = ("run",)  # its path on this machine


def publish(run: Run, destination: Path, *, to: str, dtype: str | None = None) -> Path:
    """Write a folder that is ready to be published, all or nothing.

    Args:
        run: A finished run with its evaluation.
        destination: Folder to make.
        to: One of `FORMS`: what the run trained as it is, or plain weights in a layout of `vglm.model.export`.
        dtype: Of the plain weights, see `merge_runs`.

    Raises:
        AdapterError: The run's result cannot be read, or virtual tokens were to become weights.
        CheckpointError: The merged weights do not answer as base and adapter do, or cannot be written.
        ConfigError: There is no such form, or the run was not evaluated.
        DataError: The evaluation is damaged, or of other weights.
    """
    if to in REFUSED:
        raise ConfigError(f"--to {to} cannot be: {REFUSED[to]}")
    if to not in FORMS:
        raise ConfigError(f"--to must be one of {', '.join(FORMS)}, got {to!r}.")
    if dtype is not None and (to == "hub" or run.adapter is None):
        raise ConfigError("--dtype is for weights that are merged. Leave it out.")
    check_vacant(destination, error=ConfigError)
    report = run.evaluation / "report"
    if not run.is_evaluated or not (report / "report.md").is_file():
        raise ConfigError(
            f"{run.folder} has no evaluation with a report, and without one a card has nothing to say. Make it first:"
            f" {typed('evaluate')} run={run.folder}"
        )
    evaluation = read_evaluation(run.evaluation)
    _check_weights(run, evaluation)
    with new_folder(destination, error=CheckpointError) as folder:
        _write_weights(run, folder, to, dtype)
        shutil.copytree(report, folder / "report")
        write_text(folder / "README.md", model_card(run, evaluation, to), error=CheckpointError)
        _remove_paths(folder, _private_paths(run, evaluation))
    return destination


def model_card(run: Run, evaluation: Evaluation, to: str) -> str:
    """The text of README.md.

    Args:
        run: What was trained.
        evaluation: Of it.
        to: The form of the weights, one of `FORMS`.
    """
    facts = {name: translate(text).en for name, text in evaluation.facts.items() if name not in _PRIVATE_FACTS}
    rows = {**facts, "evaluated": evaluation.created, "versions": ", ".join(map(" ".join, evaluation.versions.items()))}
    table = "\n".join(f"| {name} | {text.replace('|', '/')} |" for name, text in rows.items())
    splits = run.splits.splits if run.splits is not None else {}
    hashes = "\n".join(f"| {name} | `{split.sha256}` |" for name, split in splits.items())
    report = read_text(run.evaluation / "report" / "report.md", error=DataError)
    numbers = re.sub(r"^#", "##", report, flags=re.MULTILINE).replace("](curves.svg)", "](report/curves.svg)")
    return f"""---
{_metadata(run, evaluation, to).to_yaml()}
---

# {evaluation.title}

{translate(evaluation.summary).en}

Answers, pictures, curves and all metrics: [report/index.html](report/index.html). The weights have the licence of their
base, and what the licence of the data asks for holds as well.

| | |
| --- | --- |
{table}
| data, sha256 over all files | `{run.record.data.sha256}` |

| split | sha256 over questions and answers |
| --- | --- |
{hashes}

## Use

```bash
{_use(run, to)}
```

{numbers}"""


def _metadata(run: Run, evaluation: Evaluation, to: str) -> ModelCardData:
    comparison = compare_folder(run.evaluation, evaluation)
    main = comparison.splits[comparison.main]
    dataset = translate(evaluation.facts.get("training data", "own data")).en.partition(",")[0]
    result = EvalResult(
        task_type="visual-question-answering",
        dataset_type=re.sub(r"\W+", "_", dataset),
        dataset_name=f"{dataset}, {comparison.main} split, n = {main.n}",
        metric_type=main.primary_metric.name,
        metric_value=round(main.primary.after, 4),
    )
    base = _base_id(run)
    return ModelCardData(
        language=["zh", "en"],
        license="other",
        license_name="that-of-the-base-model",
        library_name="peft" if to == "hub" and run.adapter is not None else "transformers",
        base_model=base,
        base_model_relation=None if base is None else "adapter" if to == "hub" and run.adapter else "finetune",
        pipeline_tag="image-text-to-text",
        tags=["visualglm", "visualglm-workbench", *map(_tag, evaluation.stamps)],
        model_name=evaluation.title,
        eval_results=[result],
    )


def _tag(stamp: Stamp) -> str:
    return re.sub(r"\W+", "-", stamp.text.lower()).strip("-")


def _base_id(run: Run) -> str | None:
    """The id on the hub of the base; None for a folder."""
    base = str(run.config["model"].get("path_or_id"))
    return base if _HUB_ID.fullmatch(base) and not Path(base).exists() else None


def _use(run: Run, to: str) -> str:
    base = _base_id(run) or f"<the base, {Path(str(run.config['model'].get('path_or_id'))).name}>"
    if to == "hub" and run.adapter is not None:
        return f"vglm chat --from_pretrained {base} --adapter <this folder> --image photo.png"
    tokenizer = " --tokenizer <a folder with ice_text.model>" if to == "sat" else ""
    return f"vglm chat --from_pretrained <this folder>{tokenizer} --image photo.png"


def _check_weights(run: Run, evaluation: Evaluation) -> None:
    """Refuse an evaluation of other weights than the run has now."""
    written, result = evaluation.facts.get("tuned weights"), run.result
    if result is not None and written is not None and written != f"sha256 {(hash_tuned_weights(result) or '')[:16]}":
        raise DataError(
            f"{run.evaluation} was made with other weights than {result} holds now. Evaluate again:"
            f" {typed('evaluate')} run={run.folder}"
        )


# --- paths ------------------------------------------------------------------------------------------------------------


def _private_paths(run: Run, evaluation: Evaluation) -> set[Path]:
    """Folders of this machine that report and card may name: of run, model, data and pictures."""
    named = {Path(text) for text in _strings(run.config)}
    for arm in (evaluation.baseline, evaluation.candidate):
        records = read_predictions(predictions_file(run.evaluation, arm.label))
        named |= {Path(record.image).parent for record in records if record.image}
    folders = {folder for folder in (*named, run.folder.absolute(), Path.cwd(), Path.home()) if folder.is_absolute()}
    return folders | {folder.resolve() for folder in folders}


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(item)


def _remove_paths(folder: Path, paths: Iterable[Path]) -> None:
    """Shorten every path below these folders, in all texts of a folder, to what begins with the folder's own name."""
    names = {text: path.name for path in paths if path.name for text in (str(path), json.dumps(str(path))[1:-1])}
    names |= {str(home): "~" for home in (Path.home(), Path.home().resolve()) if str(home) in names}
    begin = r"(?:(?<=\\n)|(?<=\\t)|(?<![\w+.~-]))"  # no part of a longer path or of an embedded picture
    pattern = re.compile(f"{begin}(?:{'|'.join(map(re.escape, sorted(names, key=len, reverse=True)))})(?![\\w.-])")
    for file in folder.rglob("*"):
        if file.suffix in (".html", ".json", ".jsonl", ".md", ".svg"):
            text = file.read_text(encoding="utf-8")
            if (short := pattern.sub(lambda match: names[match[0]], text)) != text:
                write_text(file, short, error=CheckpointError)


# --- weights ----------------------------------------------------------------------------------------------------------


def _write_weights(run: Run, folder: Path, to: str, dtype: str | None) -> None:
    result = run.result
    assert result is not None  # a finished run has one
    if to == "hub" and run.adapter is not None:
        _copy_adapter(run, folder)
        return
    if to == "hub":
        shutil.copytree(result, folder, dirs_exist_ok=True)
        return
    source, work = result, folder / ".work"
    if run.adapter is not None:
        _check_mergeable(run, to)
        source = work / "merged"
        work.mkdir()
        certificate = merge_runs([run.folder], source, dtype=dtype)
        if not certificate.passed:
            raise CheckpointError(f"the merged weights are not published: {'; '.join(certificate.problems)}.")
        shutil.copyfile(source / CERTIFICATE_FILE, folder / CERTIFICATE_FILE)
    if to == "native":
        shutil.copytree(source, folder, dirs_exist_ok=True)
    else:
        written = convert(source, work / to, to=to)  # type: ignore[arg-type]
        for path in written.iterdir():
            path.rename(folder / path.name)
    if work.exists():
        shutil.rmtree(work)


def _check_mergeable(run: Run, to: str) -> None:
    assert run.adapter is not None
    kind = read_json(run.adapter / CONFIG_FILE, error=AdapterError)
    if (
        to != "native"
        and isinstance(kind, dict)
        and kind.get("peft_type") in ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING")
    ):
        raise AdapterError(
            f"{run.adapter} is made of virtual tokens, which are no change of the weights, and the layout {to} has no"
            " place for them. Export it --to hub, or --to native with its base beside it."
        )


def _copy_adapter(run: Run, folder: Path) -> None:
    assert run.adapter is not None
    for name in _adapter_files(run.adapter):
        shutil.copyfile(run.adapter / name, folder / name)
    settings: Any = read_json(run.adapter / CONFIG_FILE, error=AdapterError)
    base = _base_id(run) or Path(str(run.config["model"].get("path_or_id"))).name  # no path of this machine
    write_json(folder / CONFIG_FILE, {**settings, "base_model_name_or_path": base}, error=CheckpointError)


def _adapter_files(adapter: Path) -> Iterator[str]:
    for name in (*WEIGHT_FILES, RECORD):
        if (adapter / name).is_file():
            yield name
