"""One command becomes the runs of a protocol, and their evaluations become one result."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from builders import run_record
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from vglm.cli import main as vglm
from vglm.config import anchor_paths, build, check_config, compose, entry_point
from vglm.errors import AdapterError, ConfigError, DataError
from vglm.evaluation.predictions import (
    Arm,
    Evaluation,
    Prediction,
    Stamp,
    read_evaluation,
    write_evaluation,
    write_predictions,
)
from vglm.evaluation.score.side_by_side import collect_protocol
from vglm.evaluation.seals import write_seals

# --- one command, many runs -------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = []
    for study in range(5):
        for view in (1, 2):
            Image.new("RGB", (2, 2), (study, view, 0)).save(folder / f"{study}_{view}.png")
            rows.append({"img": f"{study}_{view}.png", "prompt": "?", "label": f"report {study}"})
    (folder / "data.json").write_text(json.dumps(rows))
    return folder / "data.json"


def launch(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> list[DictConfig]:
    """The configs that the command would run, each checked."""
    configs: list[DictConfig] = []

    @entry_point("train")
    def main(cfg: DictConfig) -> None:
        check_config(cfg)
        anchor_paths(cfg)
        OmegaConf.resolve(cfg)  # while Hydra runs
        configs.append(cfg)

    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    main()
    return configs


def test_a_few_shot_curve_is_one_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: Path) -> None:
    own = ["dataset=own", f"dataset.path={data}"]
    runs = launch(monkeypatch, tmp_path, "protocol=few_shot", "shots=1,2", "seeds=3", *own)
    assert [(run.dataset.division.shots, run.seed) for run in runs] == [(k, seed) for k in (1, 2) for seed in (1, 2, 3)]
    assert [Path(run.output_dir).name for run in runs][:2] == ["shots-1_seed-1", "shots-1_seed-2"]
    assert len({Path(run.output_dir).parent for run in runs}) == 1
    splits = [build(run.dataset) for run in runs]
    assert [len(split.train) for split in splits] == [1, 1, 1, 2, 2, 2]
    assert all(split.test == splits[0].test for split in splits)
    for smaller, larger in zip(splits[:3], splits[3:], strict=True):
        assert {sample.id for sample in smaller.train} < {sample.id for sample in larger.train}


@pytest.mark.parametrize(("arguments", "count"), [(["protocol=k_fold", "folds=2"], 2), (["protocol=leave_one_out"], 5)])
def test_folds_are_one_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: Path, arguments: Sequence[str], count: int
) -> None:
    runs = launch(monkeypatch, tmp_path, *arguments, "dataset=own", f"dataset.path={data}")
    assert [run.dataset.division.fold for run in runs] == list(range(count))
    tested = [sample.id for run in runs for sample in build(run.dataset).test]
    assert sorted(tested) == sorted(f"data.json#{row}" for row in range(1, 11))
    assert len({run.output_dir for run in runs}) == count


def test_a_data_set_with_replay_is_one_choice() -> None:
    cfg = compose(overrides=["dataset=with_replay", "dataset.datasets.replay.train_samples=50"])
    check_config(cfg)
    splits = build(cfg.dataset)
    assert len(splits.train) == 25
    assert sum(name == "replay" for name in splits.train.names) == 5
    assert len(splits.test) == 120
    assert splits.leakage == []
    assert splits.train[0].id.startswith("task:train.json#")


# --- many runs, one result --------------------------------------------------------------------------------------------


def write_run(
    folder: Path,
    protocol: dict[str, object],
    answers: dict[str, bool],
    *,
    is_evaluated: bool = True,
    reference: str = "yes",
) -> None:
    """A run whose tuned model was right on some test samples and whose base was right on none."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(run_record(data={"plan": {"protocol": protocol}})))
    if not is_evaluated:
        return
    evaluation = folder / "evaluation"
    arms = {"before": dict.fromkeys(answers, False), "after": answers}
    for label, right in arms.items():
        records = [
            Prediction(
                id=name, group=name, split="test", kind=None, language="zh", question="?", history=(),
                reference=reference, prediction=reference if is_right else "no", image=None, image_sha256=None,
            )
            for name, is_right in right.items()
        ]  # fmt: skip
        (evaluation / label).mkdir(parents=True)
        write_predictions(records, evaluation / label / "predictions.jsonl")
    before, after = (Arm(label=label, meaning=label) for label in arms)
    described = Evaluation(
        title="t", summary="s", purpose="tuning", baseline=before, candidate=after, facts={}, decoding={}, command="c",
        versions={}, config="", created="2026-01-01T00:00:00+00:00", sealed=write_seals(evaluation),
    )  # fmt: skip
    write_evaluation(described, evaluation)


def test_a_curve_is_the_mean_over_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for shots, seed, right in ((20, 1, 4), (20, 2, 3), (5, 1, 2), (5, 2, 0)):
        plan = {"name": "few_shot", "shots": shots, "shot_seed": seed}
        write_run(tmp_path / f"{shots}-{seed}", plan, {f"x#{row}": row < right for row in range(4)})
    result = collect_protocol(tmp_path)
    assert [(row.shots, row.before, row.after, row.by_run, row.runs, row.samples) for row in result.rows] == [
        (5, 0.0, 0.25, (0.5, 0.0), 2, 4),
        (20, 0.0, 0.875, (1.0, 0.75), 2, 4),
    ]
    assert vglm(["protocol", str(tmp_path)]) == 0
    assert "20 shots   before 0.0%   after 87.5% (75.0% to 100.0%)   2 seeds" in capsys.readouterr().out


def test_a_protocol_shows_the_stamps_of_its_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, stamps in ((1, ("LEAKED", "SYNTHETIC DATA")), (2, ("SYNTHETIC DATA",))):
        folder = tmp_path / str(seed)
        write_run(folder, {"name": "few_shot", "shots": 5, "shot_seed": seed}, {"x#1": True})
        stamped = tuple(Stamp(text=text, detail="why") for text in stamps)
        write_evaluation(
            dataclasses.replace(read_evaluation(folder / "evaluation"), stamps=stamped), folder / "evaluation"
        )
    assert vglm(["protocol", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "LEAKED: 1 of 2 runs; see their reports" in printed
    assert "SYNTHETIC DATA: 2 of 2 runs; see their reports" in printed


def test_folds_are_scored_together_not_averaged(tmp_path: Path) -> None:
    folds = ({"x#1": True}, {"x#2": False, "x#3": False, "x#4": True})
    for fold, answers in enumerate(folds):
        write_run(tmp_path / str(fold), {"name": "k_fold", "fold": fold, "folds": 2}, answers)
    (row,) = collect_protocol(tmp_path).rows
    assert (row.after, row.samples, row.runs) == (0.5, 4, 2)  # the folds' own scores are 1 and 1/3
    assert str(collect_protocol(tmp_path)).endswith("4 samples in 2 folds   before 0.0%   after 50.0%")


def test_a_protocol_is_scored_by_the_primary_metric(tmp_path: Path) -> None:
    for fold, answers in enumerate(({"x#1": True}, {"x#2": False, "x#3": True})):
        folder = tmp_path / str(fold)
        write_run(folder, {"name": "k_fold", "fold": fold, "folds": 2}, answers)
        evaluation = read_evaluation(folder / "evaluation")
        config = json.dumps({"metrics": {"names": ["answer_length"]}})
        write_evaluation(dataclasses.replace(evaluation, config=config), folder / "evaluation")
    result = collect_protocol(tmp_path)
    assert (result.metric.name, result.rows[0].before, result.rows[0].after) == ("answer_length", 2.0, 8 / 3)
    assert str(result).endswith("3 samples in 2 folds   before 2   after 2.67")
    write_evaluation(evaluation, tmp_path / "1" / "evaluation")
    with pytest.raises(DataError, match=r"is judged by answer_length, .* by exact_match"):
        collect_protocol(tmp_path)


def test_folds_that_lack_the_requested_metric_are_judged_by_one_that_all_have(tmp_path: Path) -> None:
    config = json.dumps({"metrics": {"names": ["accuracy", "exact_match"], "labels": ["yes", "no"]}})
    for fold, reference in enumerate(("yes", "perhaps", "blue")):  # two of them are none of the labels
        folder = tmp_path / str(fold)
        write_run(folder, {"name": "k_fold", "fold": fold, "folds": 3}, {f"x#{fold}": True}, reference=reference)
        evaluation = read_evaluation(folder / "evaluation")
        write_evaluation(dataclasses.replace(evaluation, config=config), folder / "evaluation")
    result = collect_protocol(tmp_path)
    assert (result.metric.name, result.rows[0].samples, result.rows[0].after) == ("exact_match", 3, 1.0)
    assert "accuracy, which was requested first, is not computed: 2 of 3 references" in str(result)


def test_nothing_is_evaluated_of_a_protocol_that_is_not_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "0", {"name": "k_fold", "fold": 0, "folds": 2}, {}, is_evaluated=False)
    assert vglm(["protocol", str(tmp_path)]) == 2
    assert "1 of 1 runs are not finished" in capsys.readouterr().err
    (tmp_path / "0" / "adapter").mkdir()
    assert vglm(["protocol", str(tmp_path)]) == 2
    assert "should hold folds 0 to 1 once each" in capsys.readouterr().err
    write_run(tmp_path / "1", {"name": "leave_one_out", "fold": 1, "folds": 2}, {"x#1": True})
    assert vglm(["protocol", str(tmp_path)]) == 2
    assert "holds runs of k_fold and leave_one_out" in capsys.readouterr().err


def test_protocols_that_are_not_whole(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run of a protocol"):
        collect_protocol(tmp_path)
    write_run(tmp_path / "0", {"name": "k_fold", "fold": 0, "folds": 3}, {"x#1": True})
    with pytest.raises(DataError, match=r"should hold folds 0 to 2 once each, and holds \[0\]"):
        collect_protocol(tmp_path)
    write_run(tmp_path / "1", {"name": "k_fold", "fold": 1, "folds": 3}, {}, is_evaluated=False)
    with pytest.raises(ConfigError, match=r"(?s)1 of 2 runs are not evaluated yet.*evaluate\.py -m 'run=|run=.*/1"):
        collect_protocol(tmp_path)
    (tmp_path / "1" / "run.json").write_text("{}")
    with pytest.raises(AdapterError, match=r"run\.json is damaged"):
        collect_protocol(tmp_path)
    (tmp_path / "1" / "run.json").unlink()
    for fold in (1, 2):
        write_run(tmp_path / f"again-{fold}", {"name": "k_fold", "fold": fold, "folds": 3}, {"x#1": True})
    with pytest.raises(DataError, match="x#1 was tested in more than one fold"):
        collect_protocol(tmp_path)
    write_run(tmp_path / "other", {"name": "few_shot", "shots": 5, "shot_seed": 1}, {"x#1": True})
    with pytest.raises(ConfigError, match="holds runs of few_shot and k_fold"):
        collect_protocol(tmp_path)
