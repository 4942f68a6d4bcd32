"""Runs side by side: what belongs together is one row, what cannot be compared is refused."""

import csv
import io
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from builders import without_seals
from rich.console import Console

import evaluate
import train
from vglm.cli import main
from vglm.config import compose
from vglm.errors import ConfigError, DataError
from vglm.evaluation.score.side_by_side import MethodTest, Row, as_markdown, compare_methods, print_rows, tabulate
from vglm.evaluation.score.statistics import Interval, bootstrap_interval, compare_paired, compare_seeds
from vglm.runs import Run


@pytest.fixture(scope="module")
def sweep(random_model_folder: Path, few_shot_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three trained runs, one of them evaluated by the command: one method with two seeds, and another method."""
    folder = tmp_path_factory.mktemp("sweep")
    for name, overrides in {"a1": ["seed=1"], "a2": ["seed=2"], "b1": ["seed=1", "method.r=2"]}.items():
        fixed = [f"model.path_or_id={random_model_folder}", "dataset=fewshot_background", "trainer=debug"]
        fixed += [f"dataset.path={few_shot_folder}", f"output_dir={folder / name}", "trainer.disable_tqdm=true"]
        fixed += ["checkpoint_selection.score_checkpoints=false"]
        run = train.run(compose(overrides=[*fixed, *overrides]))
        if name != "b1":
            evaluate.run(compose("evaluate", [f"run={run}", "image_use=false", "baselines=false"]))
    assert not (folder / "b1" / "evaluation").exists()
    assert main(["report", str(folder), "--markdown", str(folder / "table.md")]) == 0
    return folder


def _answer(run: Path, right: int) -> None:
    """Have the run's model answer so many samples right."""
    path = without_seals(run / "evaluation") / "after/predictions.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for index, record in enumerate(records):
        record["prediction"] = record["reference"] if index < right else "?"
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


@pytest.fixture
def copied(sweep: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sweep, tmp_path / "sweep"))


def test_the_command_evaluates_and_writes_a_table(sweep: Path) -> None:
    assert all(run.is_evaluated for run in Run.find([sweep]))
    lines = (sweep / "table.md").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("| method | seeds |")
    assert [line.split(" | ")[1] for line in lines[2:4]] == ["2", "1"]
    assert "method.r=8" in lines[2]
    assert "method.r=2" in lines[3]
    assert "6 held-out samples" in lines[5]
    assert "EVALUATED ON TRAINING IMAGES: all of them; see the reports." in lines[5]
    assert lines[7].startswith("| methods | points |")
    assert "method.r=2 − " in lines[9]
    assert "the same 6 samples" in lines[-1]


def test_where_all_answers_are_right_the_interval_still_has_a_width(copied: Path) -> None:
    for name in ("a1", "a2", "b1"):
        _answer(copied / name, 6)
    row = tabulate(Run.find([copied]))[0]
    assert row.after == row.interval.high == 1.0
    assert 0.5 < row.interval.low < 0.7  # Wilson's for 6 of 6 is 0.61


def test_a_row_takes_the_seeds_of_a_method_together(copied: Path) -> None:
    for name, right in {"a1": 3, "a2": 6, "b1": 0}.items():
        _answer(copied / name, right)
    runs = Run.find([copied / "a1", copied])  # the same run twice counts once
    assert len(runs) == 3
    first, second = tabulate(runs)
    assert (first.seeds, first.by_seed, first.after) == ((1, 2), (0.5, 1.0), 0.75)
    assert (second.after, second.samples, second.forgotten) == (0.0, 6, None)
    assert first.size == max(
        (copied / name / "adapter/adapter_model.safetensors").stat().st_size for name in ("a1", "a2")
    )
    assert first.size > second.size
    assert first.peak_memory is not None
    assert first.peak_memory > 100e6  # PyTorch alone takes more
    # right in both seeds, or in one: by the analysis of variance of [1 1 1 0 0 0] and [1 1 1 1 1 1]
    assert first.seed_sd == pytest.approx(math.sqrt((0.75 - 0.15) / 6))
    assert first.sample_se == pytest.approx(math.sqrt(0.075 / 6))
    assert (first.interval.low, first.interval.high) == (0.0, 1.0)  # two seeds that far apart say next to nothing
    assert second.seed_sd is None
    table = as_markdown([first, second])
    assert "| 2 | 0.0 | 75.0 | 0.0-100.0 | 31.6 | 11.2 |" in table
    assert "| 1 | 0.0 | 0.0 | 0.0-39.0 | ? | - |" in table
    assert "?: one seed, so what another would do is unknown" in table
    assert "what another seed would do is unknown (seed sd: ?)" in as_markdown([second])


def test_seeds_that_were_tracked_elsewhere_are_of_one_method(copied: Path) -> None:
    path = copied / "a2" / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["tracker"] |= {"report_to": "wandb", "project": "mine", "mode": "offline"}
    config["trainer"]["report_to"] = "wandb"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    assert [row.seeds for row in tabulate(Run.find([copied]))] == [(1, 2), (1,)]


def test_the_interval_of_one_seed_is_of_other_samples_alone(copied: Path) -> None:
    _answer(copied / "b1", 3)
    (row,) = tabulate(Run.find([copied / "b1"]))
    assert row.interval == bootstrap_interval([1, 1, 1, 0, 0, 0])
    assert (row.seed_sd, row.sample_se) == (None, pytest.approx(math.sqrt(0.3 / 6)))


def test_methods_with_the_same_seeds_are_compared_over_the_seeds_too(copied: Path) -> None:
    shutil.copytree(copied / "b1", copied / "b2")
    config = (copied / "b2/config.yaml").read_text(encoding="utf-8")
    changed = re.sub("^seed: 1$", "seed: 2", config, flags=re.MULTILINE)
    (copied / "b2/config.yaml").write_text(changed, encoding="utf-8")
    facts = json.loads((copied / "b2/run.json").read_text(encoding="utf-8"))
    (copied / "b2/run.json").write_text(json.dumps(facts | {"seed": 2}), encoding="utf-8")
    for name, right in {"a1": 3, "a2": 5, "b1": 1, "b2": 2}.items():
        _answer(copied / name, right)
    runs = Run.find([copied])
    tests = compare_methods(runs)
    assert tests[0].over_seeds is not None
    assert (tests[0].over_seeds.mean, tests[0].result.difference) == pytest.approx((-2.5 / 6, -2.5 / 6))
    rows = [[[float(index < right) for index in range(6)] for right in rights] for rights in ((3, 5), (1, 2))]
    expected = compare_seeds(*rows, is_paired=True, groups=list("abcdef"))
    assert tests[0].over_seeds.interval == pytest.approx(expected.interval)
    low, high = (100 * end for end in expected.interval)
    assert f"| {max(-100, low):+.1f} to {min(100, high):+.1f} |" in as_markdown(tabulate(runs), tests)


@pytest.mark.parametrize("name", ["lora", "lora method.r=8", "p_tuning_v2_projection"])
def test_the_tables_fit_a_terminal_of_80_columns_and_no_figure_is_cut(name: str) -> None:
    figures = {"before": 0.0, "after": 0.944, "interval": Interval(0.0, 1.0), "by_seed": (0.94,), "sample_se": 0.104}
    costs = {"forgotten": 35.2, "samples": 120, "seconds": 20.0, "peak_memory": 650_000_000, "size": 270_000}
    row = Row(name=f"background/{name}", seeds=(1, 2, 3), seed_sd=0.2, **figures, **costs)
    result = compare_paired(np.repeat([0, 1], [60, 60]), np.repeat([1, 0], [100, 20]))
    seeds = compare_seeds(*np.random.default_rng(1).random((2, 3, 120)), is_paired=True)
    output = io.StringIO()
    print_rows([row], Console(file=output, width=80), [MethodTest(row.name, "background/qlora", result, 0.04, seeds)])
    lines = output.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any(" ".join(line.split()).endswith("3 0.0 94.4 0.0-100.0 20.0 10.4 35.2 650 20 0.27") for line in lines)
    assert {"seeds", "interval", "sd", "se", "forgot", "MB"} <= {*lines[0].split(), *lines[1].split()}


def test_methods_are_tested_against_each_other_sample_by_sample(copied: Path) -> None:
    for name, right in {"a1": 0, "a2": 0, "b1": 6}.items():
        _answer(copied / name, right)
    (test,) = compare_methods(Run.find([copied]))
    assert (test.result.difference, test.result.n) == (1.0, 6)
    assert test.p_value == test.result.p_value == pytest.approx(1 / 2**6)  # six gains of six, mid-p
    assert test.result.p_value_exact == pytest.approx(2 / 2**6)
    assert test.over_seeds is None  # the methods have not the same seeds
    assert "r=8" in test.first
    assert "r=2" in test.second

    shutil.copytree(copied / "b1", copied / "c1")
    config = (copied / "c1/config.yaml").read_text(encoding="utf-8")
    (copied / "c1/config.yaml").write_text(config.replace("r: 2", "r: 3"), encoding="utf-8")
    _answer(copied / "c1", 6)
    runs = Run.find([copied])
    tests = compare_methods(runs)
    assert [test.result.difference for test in tests] == [1.0, 1.0, 0.0]
    assert [test.p_value for test in tests] == pytest.approx([3 / 2**6, 3 / 2**6, 1.0])  # Holm over three
    assert as_markdown(tabulate(runs), tests).count("not told apart") == 4  # six samples are too few; and the legend
    assert compare_methods([run for run in runs if run.folder.name == "a1"]) == []


def row_of_nothing() -> Row:
    return Row("a", (1,), 0.0, 0.0, Interval(0.0, 1.0), (0.0,), None, 0.0, None, 60, 1.0, None, 1)


def test_a_difference_that_other_seeds_might_not_show_is_called_so() -> None:
    generator = np.random.default_rng(5)
    first, wins = (generator.random((3, 60)) < 0.5) * 1.0, np.zeros((3, 60))
    sentences = []
    for shift in ((0.3, 0.3, 0.3), (0.0, 0.0, 1.0)):  # every seed wins alike; or one alone
        for row, share in zip(wins, shift, strict=True):
            row[:] = generator.random(60) < share
        second = np.maximum(first, wins)
        result = compare_paired(first.mean(axis=0), second.mean(axis=0))
        test = MethodTest("a", "b", result, result.p_value, compare_seeds(first, second, is_paired=True))
        assert result.p_value < 0.05
        sentences.append(last_word(test))
    assert sentences == ["differ |", "in these seeds |"]


def last_word(test: MethodTest) -> str:
    return as_markdown([row_of_nothing()], [test]).splitlines()[-3].split(" | ")[-1]


def test_of_methods_with_one_seed_nobody_says_that_they_differ() -> None:
    result = compare_paired(np.zeros(60), np.repeat([1.0, 0.0], 30))
    assert result.p_value < 0.001
    assert last_word(MethodTest("a", "b", result, result.p_value, None)) == "in these seeds |"
    few = compare_paired(np.zeros(8), np.ones(8))
    assert few.p_value < 0.05
    assert last_word(MethodTest("a", "b", few, few.p_value, None)) == "not told apart |"


def test_methods_with_other_seeds_are_compared_by_the_seeds_too() -> None:
    generator = np.random.default_rng(6)
    first = (generator.random((3, 60)) < 0.5) * 1.0
    for shift, expected in (((0.6, 0.6, 0.6, 0.6), "differ |"), ((0.0, 0.0, 0.0, 1.0), "in these seeds |")):
        second = np.stack([np.maximum(first[0], generator.random(60) < share) for share in shift])
        result = compare_paired(first.mean(axis=0), second.mean(axis=0))
        test = MethodTest("a", "b", result, 0.01, compare_seeds(first, second, is_paired=False))
        assert last_word(test) == expected


def test_runs_that_cannot_be_compared_are_refused(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such folder"):
        Run.find([tmp_path / "nothing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no finished run"):
        Run.find([tmp_path / "empty"])

    shutil.copytree(copied / "a1", copied / "again")
    with pytest.raises(DataError, match="more than once with seed 1"):
        tabulate(Run.find([copied]))
    shutil.rmtree(copied / "again")

    path = without_seals(copied / "b1/evaluation")
    for file in path.glob("*/predictions.jsonl"):
        file.write_text("".join(file.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    with pytest.raises(DataError, match="other test samples"):
        tabulate(Run.find([copied]))

    (copied / "a1/config.yaml").write_text(yaml.safe_dump([1]), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"is no config of train\.py"):
        Run.find([copied])


def test_a_table_for_a_paper_has_the_numbers_of_the_rows(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["report", str(sweep), "--format", "csv", "--output", str(tmp_path / "paper")]) == 0
    with (tmp_path / "paper" / "comparison.csv").open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    rows = tabulate(Run.find([sweep]))
    assert [(row["method"], float(row["after"]), row["seeds"]) for row in written] == [
        (row.name, row.after, " ".join(map(str, row.seeds))) for row in rows
    ]
    methods = (tmp_path / "paper" / "methods.md").read_text(encoding="utf-8")
    assert f"Training seeds: {rows[0].name} (seeds 1, 2); {rows[1].name} (seeds 1)." in methods
    assert f"{rows[1].name}: It was tuned with LoraConfig, r 2" in methods
