"""Every task composes, passes the check, is in the README beside it, and runs; a run keeps its own evaluation."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from benchmark_files import mmbench_set, mme_set, pope_set, scienceqa_set, write_lines

import evaluate
import train
from vglm.config import build, check_config, compose, loosen, repo_root
from vglm.errors import ConfigError
from vglm.evaluation.predict.task import Task
from vglm.evaluation.predictions import read_evaluation, read_predictions
from vglm.evaluation.score.metrics import select_metrics
from vglm.runs import Run

FOLDER = repo_root() / "conf" / "task"
TASKS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
FILES: dict[str, Callable[[Path], Path]] = {
    "mmbench": mmbench_set,
    "mme": mme_set,
    "pope": pope_set,
    "scienceqa": scienceqa_set,
}
SMALL = {
    "xray": ["dataset.test_studies=1", "dataset.train_studies=1"],
    "astronomy": ["dataset.test_stars=3", "dataset.train_stars=2"],
    "general_ability": ["dataset.per_kind=1"],
    "background": [],
}


@pytest.fixture(scope="module")
def run_folder(random_model_folder: Path, few_shot_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished LoRA run of one violent step."""
    output = tmp_path_factory.mktemp("outputs") / "lora"
    data = ["dataset=fewshot_background", f"dataset.path={few_shot_folder}", f"output_dir={output}"]
    steps = ["trainer.max_steps=1", "trainer.learning_rate=0.5", "trainer.use_cpu=true", "trainer.disable_tqdm=true"]
    return train.run(compose("train", [f"model.path_or_id={random_model_folder}", *data, *steps]))


def overrides_of(task: str, folder: Path) -> list[str]:
    if task in SMALL:
        return [f"task={task}", *SMALL[task]]
    return [f"task={task}", f"dataset.path={FILES[task](folder)}"]


def test_these_are_the_tasks() -> None:
    assert sorted([*SMALL, *FILES]) == TASKS


@pytest.mark.parametrize("task", TASKS)
def test_a_task_composes_and_is_described(task: str) -> None:
    cfg = compose("evaluate", [f"task={task}", "model=visualglm_tiny"])
    if task in FILES:
        cfg.dataset.path = "somewhere"
    check_config(cfg, "evaluate")
    assert (cfg.task.name, cfg.task.version) == (task, 1)
    assert select_metrics(cfg.metrics.names, cfg.metrics.labels)
    text = (FOLDER / f"{task}.yaml").read_text(encoding="utf-8")
    assert f"python evaluate.py task={task}" in text
    assert f"| `{task}` |" in (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("task", TASKS)
def test_a_task_runs(task: str, random_model_folder: Path, tmp_path: Path) -> None:
    model = ["model=visualglm_tiny", f"model.path_or_id={random_model_folder}", "max_new_tokens=2"]
    rest = [f"output_dir={tmp_path / 'out'}", "image_use=false", "baselines=false"]
    folder = evaluate.run(compose("evaluate", [*overrides_of(task, tmp_path), *model, *rest]))
    evaluation = read_evaluation(folder)
    assert evaluation.title == f"random_tiny on {task}"
    assert str(evaluation.facts["task"]) == f"{task}, version 1"
    assert evaluation.facts["prompt"] == yaml.safe_load(evaluation.config)["task"]["prompt"]
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert list(metrics["splits"]) == ["retention" if task == "general_ability" else "test"]
    assert metrics["primary"] == yaml.safe_load(evaluation.config)["metrics"]["names"][0]
    assert f"{task}, version 1" in (folder / "report" / "index.html").read_text(encoding="utf-8")


def test_a_prompt_is_what_the_model_is_asked(random_model_folder: Path, tmp_path: Path) -> None:
    model = ["model=visualglm_tiny", f"model.path_or_id={random_model_folder}", "max_new_tokens=2"]
    path = [f"dataset.path={scienceqa_set(tmp_path)}", f"output_dir={tmp_path / 'out'}"]
    folder = evaluate.run(compose("evaluate", ["task=scienceqa", *model, *path]))
    records = read_predictions(folder / "true" / "predictions.jsonl")
    ending = "\nAnswer with the option's letter from the given choices directly."
    assert records[0].question == f"Which is farthest north?\nA. Ohio\nB. Utah\nC. Iowa{ending}"
    assert records[1].question.startswith(
        "Context: Mona will print her name. With care.\nWhich is farthest north?\nA. past"
    )
    assert [record.reference for record in records] == ["B", "B", "B"]
    controls = read_predictions(folder / "text-only" / "predictions.jsonl")
    assert [record.question for record in controls] == [record.question for record in records]


def test_a_run_keeps_its_evaluation_and_takes_the_tasks_data(run_folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(run_folder, tmp_path / "runs" / "lora")
    few = ["max_new_tokens=2", "image_use=false", "baselines=false"]
    own = evaluate.run(compose("evaluate", [f"run={copied}", *few]))
    written = {path.name: path.read_bytes() for path in own.iterdir() if path.is_file()}
    task = evaluate.run(compose("evaluate", [f"run={copied}", *overrides_of("mme", tmp_path), *few]))
    assert (own, task) == (copied / "evaluation", copied / "evaluation-mme")
    assert {path.name: path.read_bytes() for path in own.iterdir() if path.is_file()} == written
    evaluation = read_evaluation(task)
    assert (evaluation.title, evaluation.purpose) == ("background/lora, mme", "tuning")
    assert evaluation.facts["run"] == str(copied)
    assert [stamp.text for stamp in evaluation.stamps] == ["LEAKED", "ANSWERS CUT"]  # its own data
    assert {record.id.partition("#")[0] for record in read_predictions(task / "after" / "predictions.jsonl")} == {
        "MME_Benchmark"
    }
    (run,) = Run.find([tmp_path / "runs"])  # what `vglm report` compares
    assert run.evaluation == own


def test_the_order_is_conf_task_command_line() -> None:
    cfg = compose(
        "evaluate", ["task=mme", "dataset=own", "metrics=vqa", "max_new_tokens=3", "task.prompt={question}\\nKurz!"]
    )
    assert (cfg.dataset.get("format"), cfg.metrics.names[0], cfg.max_new_tokens) == (None, "vqa_accuracy", 3)
    assert (cfg.task.name, build(cfg.task).prompt) == ("mme", "{question}\\nKurz!")
    assert compose("evaluate", ["task=mme"]).max_new_tokens == 16
    assert "task" in (repo_root() / "conf" / "evaluate.yaml").read_text(encoding="utf-8")


def test_a_prompt_needs_no_quotes_of_its_own() -> None:
    assert loosen(["task.prompt={question} Yes: or no?"], "evaluate") == ["++task.prompt='{question} Yes: or no?'"]
    assert loosen(["dataset.fractions={test:1.0}"], "evaluate") == ["++dataset.fractions={test:1.0}"]


def test_without_a_task_all_is_as_before() -> None:
    task = build(compose("evaluate", ["model=visualglm_tiny", "dataset=scenes"]).task)
    assert task == Task()
    assert (task.facts, Task(prompt="{question}!").facts) == ({}, {"prompt": "{question}!"})


def test_mistakes_in_a_task_are_told_before_weights_load(random_model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean `prompt`"):
        check_config(compose("evaluate", ["task=general_ability", "model=visualglm_tiny", "task.promt=x"]), "evaluate")
    with pytest.raises(ConfigError, match=r"task\.version must be a whole number or x\.y, got 'new'"):
        Task(name="mme", version="new")
    with pytest.raises(ConfigError, match=r"task\.name must be of lower-case letters"):
        Task(name="My task", version=1)
    nowhere = ["model=visualglm_tiny", f"model.path_or_id={tmp_path / 'nowhere'}", "dataset.per_kind=1"]
    with pytest.raises(
        ConfigError, match=r"no \{options\}; there are \{family\}, \{kind\}, \{language\}, \{question\}"
    ):
        evaluate.run(compose("evaluate", ["task=general_ability", *nowhere, "task.prompt={options}"]))
    with pytest.raises(ConfigError, match="task=mm: no such choice; did you mean `mme`"):
        compose("evaluate", ["task=mm"])


def test_the_example_is_a_whole_task_wherever_its_file_lies(random_model_folder: Path, tmp_path: Path) -> None:
    example = (FOLDER / "README.md").read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "my_benchmark.yaml").write_text(example, encoding="utf-8")
    rows = [{"question": f"How many {name}?", "answer": "two"} for name in ("cats", "dogs")]
    write_lines(tmp_path / "my_benchmark.jsonl", rows)
    here = [f"hydra.searchpath=[file://{tmp_path}]", "task=my_benchmark", f"dataset.path={tmp_path}/my_benchmark.jsonl"]
    model = ["model=visualglm_tiny", f"model.path_or_id={random_model_folder}", "max_new_tokens=2"]
    folder = evaluate.run(compose("evaluate", [*here, *model, f"output_dir={tmp_path / 'out'}", "baselines=false"]))
    records = read_predictions(folder / "true" / "predictions.jsonl")
    questions = [record.question for record in records]
    assert questions == [f"How many {name}?\nAnswer in one word." for name in ("cats", "dogs")]
    assert str(read_evaluation(folder).facts["task"]) == "my_benchmark, version 1"
