"""Every command of the READMEs and of SKILL.md is run, here on few samples, or by the test that is named for it."""

import ast
import re
import shlex
import shutil
from pathlib import Path

import documents
import pytest

import evaluate
import train
from vglm.cli import main
from vglm.config import compose, repo_root

PAGES = ("README.md", "README_zh.md", "skills/vglm/SKILL.md")
OTHER_TESTS = {
    "make demo": "test_recipes.py::test_recipe_trains_two_steps",
    "source .venv/bin/activate": "test_first_steps.py::test_scripts_say_which_environment_is_missing",
    "python train.py -m recipes=": "test_first_steps.py::test_a_sweep_counts_its_runs_and_ends_with_what_compares_them",
    "python train.py recipes=background/lora protocol=": "test_protocol.py::test_a_few_shot_curve_is_one_command",
    "python train.py resume=": "test_first_steps.py::test_latest_is_the_interrupted_run_to_resume",
    "python train.py recipes=background/lora_": "test_recipes.py::test_recipe_trains_two_steps",
    "python train.py recipes=background/qlora model=visualglm_6b": "test_recipes.py::test_recipe_trains_two_steps",
    "python train.py recipes=xray/lora": "test_recipes.py::test_recipe_trains_two_steps",
    "vglm plan": "test_planning.py::test_the_table_has_80_columns_and_the_figures_of_the_json",
    "vglm train my.yaml": "test_first_steps.py::test_a_sweep_counts_its_runs_and_ends_with_what_compares_them",
    "vglm report outputs/sweeps/": "test_sweep.py::test_the_command_evaluates_and_writes_a_table",
    "vglm convert <checkpoint>": "test_cli.py::test_convert_writes_a_native_checkpoint",
    "vglm chat --image photo.png": "test_serving_chat.py::test_commands_are_explained_and_the_dialogue_is_saved",
    "vglm chat --adapter latest": "test_serving_chat.py::test_commands_are_explained_and_the_dialogue_is_saved",
    "vglm demo": "test_web.py::test_only_the_small_copies_and_uploads_are_served",
    "vglm web": "test_web.py::test_a_page_with_a_password_closes_the_api_too",
    "vglm api": "test_serving_api.py::test_models_are_the_base_and_its_adapters",
    "vglm rate": "test_rating.py::test_one_server_rates_an_evaluation",
    "python benchmarks/statistical_tests.py": "test_statistics.py::test_a_detectable_flip_rate_is_found_in_80_percent",
}
"""What a command begins with -> the test that does the same: servers, dialogues, sweeps, original weights."""
NOT_COMMANDS = ("make ", "python -m pytest", "vglm <command>", "vglm plan ...")
ANSWERED_BY_1 = ("doctor", "plan")
"""They end with 1 where the data has warnings, or the training does not fit."""
QUICK = ["limit=2", "image_use=false", "baselines=false", "shots_in_context=0", "max_new_tokens=4"]


def commands() -> list[str]:
    """All of them once, without remarks, in the order of the pages."""
    texts = ((repo_root() / page).read_text(encoding="utf-8") for page in PAGES)
    typed = (shlex.join(shlex.split(line, comments=True)) for text in texts for line in documents.commands(text))
    return list(dict.fromkeys(re.sub(r"'([^' ]*<[^' ]*>[^' ]*)'", r"\1", line) for line in typed))


def other_test(command: str) -> str | None:
    return next((test for start, test in OTHER_TESTS.items() if command.startswith(start)), None)


RUN_HERE = [line for line in commands() if other_test(line) is None and not line.startswith(NOT_COMMANDS)]


def test_commands_that_are_not_run_here_name_a_test_that_is_there() -> None:
    assert len(RUN_HERE) > 15
    assert set(map(other_test, commands())) - {None} == set(OTHER_TESTS.values())
    for test in OTHER_TESTS.values():
        file, _, name = test.partition("::")
        tree = ast.parse((repo_root() / "tests" / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test


@pytest.fixture(scope="module")
def directory(random_model_folder: Path, few_shot_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an evaluated run and the files that commands name."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(few_shot_folder, folder / "pictures")
    (folder / "prompts.txt").write_text("背景是什么？\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_command("python train.py recipes=background/lora", random_model_folder)
        run_command("python evaluate.py run=latest", random_model_folder)
    return folder


def run_command(command: str, model: Path, *further: str) -> None:
    """Run one in this process, on few samples and with a small model."""
    program, *words = shlex.split(command)
    if program == "vglm":
        assert main(words) in ((0, 1) if words[0] in ANSWERED_BY_1 else (0,)), command
    elif words[0] == "evaluate.py":
        evaluate.run(compose("evaluate", [*words[1:], *QUICK]))
    else:
        small = [f"model.path_or_id={model}", "trainer.max_steps=1", "limit=4", "checkpoint_selection.score_samples=2"]
        train.run(compose("train", [*words[1:], *small, *further]))


@pytest.mark.parametrize("command", RUN_HERE)
def test_the_command_runs(
    command: str, directory: Path, random_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(directory)
    (run,) = (directory / "outputs" / "background" / "lora").iterdir()
    named = {"--fix <folder>": f"--fix {tmp_path}/fixed", "<folder>": "pictures", "<file>": "pictures/dataset.json"}
    for name, there in (named | {"<time>": run.name, " --cfg job": ""}).items():
        command = command.replace(name, there)
    run_command(command, random_model_folder, f"output_dir={tmp_path}/run")
