"""Runs side by side: what belongs together is one row, what cannot be compared is refused."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

import train
from vglm.cli import main
from vglm.config import compose
from vglm.errors import ConfigError, DataError
from vglm.evaluation.sweep import as_markdown, compare_methods, find_runs, tabulate


@pytest.fixture(scope="module")
def sweep(random_model_folder: Path, few_shot_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three trained runs, evaluated by the command itself: one method with two seeds, and another method."""
    folder = tmp_path_factory.mktemp("sweep")
    for name, overrides in {"a1": ["seed=1"], "a2": ["seed=2"], "b1": ["seed=1", "method.r=2"]}.items():
        fixed = [f"model.path_or_id={random_model_folder}", "dataset=fewshot_background", "trainer=debug"]
        fixed += [f"dataset.path={few_shot_folder}", f"output_dir={folder / name}", "trainer.disable_tqdm=true"]
        fixed += ["training.score_checkpoints=false"]
        train.run(compose(overrides=[*fixed, *overrides]))
    assert main(["report", str(folder), "--markdown", str(folder / "table.md")]) == 0
    return folder


def _answer(run: Path, right: int) -> None:
    """Have the run's model answer so many samples right."""
    path = run / "evaluation/after/predictions.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for index, record in enumerate(records):
        record["prediction"] = record["reference"] if index < right else "?"
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records), encoding="utf-8")


@pytest.fixture
def copied(sweep: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sweep, tmp_path / "sweep"))


def test_the_command_evaluates_and_writes_a_table(sweep: Path) -> None:
    assert all(run.is_evaluated for run in find_runs([sweep]))
    lines = (sweep / "table.md").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("| method | seeds |")
    assert [line.split(" | ")[1] for line in lines[2:4]] == ["2", "1"]
    assert "method.r=8" in lines[2]
    assert "method.r=2" in lines[3]
    assert "6 held-out samples" in lines[5]
    assert lines[7].startswith("| methods | points |")
    assert "method.r=2 − " in lines[9]
    assert "the same 6 samples" in lines[-1]


def test_where_all_answers_are_right_the_interval_still_has_a_width(copied: Path) -> None:
    for name in ("a1", "a2", "b1"):
        _answer(copied / name, 6)
    row = tabulate(find_runs([copied]))[0]
    assert row.after == row.interval.high == 1.0
    assert 0.5 < row.interval.low < 0.7  # Wilson's for 6 of 6 is 0.61


def test_a_row_takes_the_seeds_of_a_method_together(copied: Path) -> None:
    for name, right in {"a1": 3, "a2": 6, "b1": 0}.items():
        _answer(copied / name, right)
    runs = find_runs([copied / "a1", copied])  # the same run twice counts once
    assert len(runs) == 3
    first, second = tabulate(runs)
    assert (first.seeds, first.by_seed, first.after) == ((1, 2), (0.5, 1.0), 0.75)
    assert 0.5 <= first.interval.low < 0.75 < first.interval.high <= 1.0
    assert (second.after, second.samples, second.forgotten) == (0.0, 6, None)
    assert first.size == max(
        (copied / name / "adapter/adapter_model.safetensors").stat().st_size for name in ("a1", "a2")
    )
    assert first.size > second.size
    assert first.peak_memory is not None
    assert first.peak_memory > 100e6  # PyTorch alone takes more
    assert "| 75.0 |" in as_markdown([first, second])


def test_methods_are_tested_against_each_other_sample_by_sample(copied: Path) -> None:
    for name, right in {"a1": 0, "a2": 0, "b1": 6}.items():
        _answer(copied / name, right)
    (test,) = compare_methods(find_runs([copied]))
    assert (test.result.difference, test.result.n) == (1.0, 6)
    assert test.p_value == test.result.p_value == pytest.approx(2 / 2**6)  # six gains of six
    assert "r=8" in test.first
    assert "r=2" in test.second

    shutil.copytree(copied / "b1", copied / "c1")
    config = (copied / "c1/config.yaml").read_text(encoding="utf-8")
    (copied / "c1/config.yaml").write_text(config.replace("r: 2", "r: 3"), encoding="utf-8")
    _answer(copied / "c1", 6)
    runs = find_runs([copied])
    tests = compare_methods(runs)
    assert [test.result.difference for test in tests] == [1.0, 1.0, 0.0]
    assert [test.p_value for test in tests] == pytest.approx([3 * 2 / 2**6, 3 * 2 / 2**6, 1.0])  # Holm over three
    assert as_markdown(tabulate(runs), tests).count("not told apart") == 4  # and once in the legend
    assert compare_methods([run for run in runs if run.folder.name == "a1"]) == []


def test_runs_that_cannot_be_compared_are_refused(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such folder"):
        find_runs([tmp_path / "nothing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no finished run"):
        find_runs([tmp_path / "empty"])

    shutil.copytree(copied / "a1", copied / "again")
    with pytest.raises(DataError, match="more than once with seed 1"):
        tabulate(find_runs([copied]))
    shutil.rmtree(copied / "again")

    path = copied / "b1/evaluation"
    for file in path.glob("*/predictions.jsonl"):
        file.write_text("".join(file.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    with pytest.raises(DataError, match="other test samples"):
        tabulate(find_runs([copied]))

    (copied / "a1/config.yaml").write_text(yaml.safe_dump([1]), encoding="utf-8")
    with pytest.raises(DataError, match="is damaged"):
        find_runs([copied])
