"""Log an evaluation where its run was tracked: Weights & Biases, or TensorBoard.

A run that was trained with `tracker=wandb` has its id in its folder, `wandb/run-<time>-<id>/`; the evaluation goes to
the same run, or, where there is no id, to a new one of the same project:

    evaluation/metrics                  a table: split, metric, both arms, difference, interval, p-values, n
    evaluation/verdict                  the sentence
    evaluation/test/exact_match         the candidate's score; .../difference
    evaluation/report, evaluation/scores, evaluation/curves      the page and the plots
    artifact evaluation-<id>            metrics.json and the folder report/, as they are

A failure here cannot affect the report, which is already written; it is reported in a line on stderr.
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from vglm.config.run_config import uploads
from vglm.evaluation.score.schema import METRICS_FILE
from vglm.files import inside, read_json
from vglm.runs import Run

MAX_PAGE_BYTES = 30_000_000
"""A larger page is in the artifact only."""
COLUMNS = ("split", "metric", "baseline", "candidate", "difference", "low", "high", "p_value", "p_value_holm", "n")
_WANDB_SETTINGS = "wandb/settings"
"""Below the folder that it keeps its files in, Weights & Biases reads there where to connect to."""
_RUN_NAME = re.compile(r"(?:offline-)?run-(\d{8}_\d{6})-(\w+)")


def track_evaluation(evaluation: Path, tuned: Run | None, named: str = "none") -> str | None:
    """Upload a finished evaluation to where its run was tracked.

    Args:
        evaluation: The evaluation folder, with its report.
        tuned: The run, whose config says where; None for a model alone, which was not tracked.
        named: The tracker that the command line names: without it nothing leaves this machine.

    Returns:
        Where it went, in words; None where nothing was tracked or it failed, with a message on stderr.
    """
    run, settings = (None, None) if tuned is None else (tuned.folder, tuned.config.get("tracker"))
    kind = settings.get("report_to") if isinstance(settings, Mapping) else None
    if run is None or kind not in ("wandb", "tensorboard"):
        return None
    if kind == "wandb" and (run / _WANDB_SETTINGS).exists():
        actual = f"{run / _WANDB_SETTINGS} could send your key elsewhere"
        print(f"warning: the evaluation was not uploaded: {actual}. Remove that file if it is yours.", file=sys.stderr)
        return None
    if uploads(settings) and named != kind:
        print(f"note: the run was tracked with {kind}; tracker={kind} puts the report there as well.", file=sys.stderr)
        return None
    from vglm.tuning.tracker import Tracker

    assert isinstance(settings, Mapping)
    mode: Any = os.environ.get("WANDB_MODE") or settings.get("mode")
    tracker = Tracker(kind, settings.get("project"), mode)
    try:
        inside(run, kind)  # where the tracker keeps its files
        report = read_json(evaluation / "report" / "report.json")
        with tracker.writing_to(run):
            return _to_wandb(evaluation, run, report) if kind == "wandb" else _to_tensorboard(run, report)
    except Exception as error:  # of a library, a network, a full disk: the report is there all the same
        reason = " ".join(str(error).split())
        print(f"warning: the evaluation was not uploaded ({reason}); its report is complete.", file=sys.stderr)
        return None


def find_run_id(run: Path) -> str | None:
    """The id that Weights & Biases gave to a run, the newest one; None where its folder has none."""
    names = [_RUN_NAME.fullmatch(path.name) for path in (run / "wandb").glob("*run-*")]
    matches = sorted((name[1], name[2]) for name in names if name is not None)
    return matches[-1][1] if matches else None


def table_rows(report: Mapping[str, Any]) -> list[list[Any]]:
    """The scores of `report.json`, one row for each metric of each split, in the order of `COLUMNS`."""
    arms = report["arms"]["baseline"], report["arms"]["candidate"]
    rows = []
    for split, content in report["splits"].items():
        for name in report["metrics"]:
            if name in content["scores"]:
                score = content["scores"][name]
                values = [score["values"][arm] for arm in arms] + [score["difference"], *score["interval"]]
                rows.append([split, name, *values, score["p_value"], score["p_value_holm"], score["n"]])
    return rows


def _scalars(report: Mapping[str, Any]) -> dict[str, float]:
    """Name -> number, of what is defined."""
    scalars = {}
    for split, name, _, after, difference, *_ in table_rows(report):
        scalars[f"evaluation/{split}/{name}"] = after
        scalars[f"evaluation/{split}/{name}/difference"] = difference
    return {name: value for name, value in scalars.items() if value is not None}


def _to_wandb(evaluation: Path, run: Path, report: Mapping[str, Any]) -> str:
    import wandb

    folder, wandb_id = evaluation / "report", find_run_id(run)
    resume: Literal["allow"] | None = None if wandb_id is None else "allow"
    with wandb.init(id=wandb_id, resume=resume, job_type="evaluation", settings=wandb.Settings(silent=True)) as tracked:
        content: dict[str, Any] = {"evaluation/metrics": wandb.Table(columns=list(COLUMNS), data=table_rows(report))}
        for name in ("index.html", "scores.svg", "curves.svg"):
            path = folder / name
            if path.is_file() and path.stat().st_size <= MAX_PAGE_BYTES:
                key = "report" if name == "index.html" else path.stem
                content[f"evaluation/{key}"] = wandb.Html(path.read_text(encoding="utf-8"), inject=False)
        tracked.log(content)
        tracked.summary.update(_scalars(report) | {"evaluation/verdict": report["verdict"]["en"]})
        artifact = wandb.Artifact(f"evaluation-{tracked.id}", type="evaluation")
        artifact.add_file(str(evaluation / METRICS_FILE))
        artifact.add_dir(str(folder), name="report")
        tracked.log_artifact(artifact)
        address = f"{Path(tracked.dir).parent} (offline: wandb sync uploads it)" if tracked.offline else tracked.url
    return f"Weights & Biases, run {tracked.id}: {address}"


def _to_tensorboard(run: Path, report: Mapping[str, Any]) -> str:
    from torch.utils.tensorboard import SummaryWriter

    folder = run / "tensorboard" / "evaluation"
    with SummaryWriter(str(folder)) as writer:
        for name, value in _scalars(report).items():
            writer.add_scalar(name, value)
        writer.add_text("evaluation/verdict", report["verdict"]["en"])
    return f"TensorBoard: {folder}"
