"""What a newcomer types: a YAML file of their own, a sweep, its evaluation, and the same from Python."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rich.cells import cell_len

import evaluate
import vglm
from vglm.caching import cache_folder
from vglm.chatting import is_english
from vglm.cli import main
from vglm.config import compose, load_run_config, repo_root
from vglm.config.own_file import take_file
from vglm.data.sample import Sample, Turn
from vglm.errors import ConfigError, DataError, typed
from vglm.evaluation.predict.shared_answers import KIND, SharedAnswers
from vglm.evaluation.predictions import read_predictions, unanswered, write_predictions
from vglm.evaluation.report import print_summary
from vglm.listing import list_kind
from vglm.runs import Run

SMALL = ["image_use=false", "baselines=false", "shots_in_context=0", "max_new_tokens=4", "training_loss_samples=0"]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(repo_root() / "src")}


@pytest.fixture(scope="module")
def sweep(
    random_model_folder: Path, few_shot_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Two runs of a file, from a folder that is no checkout."""
    folder = tmp_path_factory.mktemp("newcomer")
    config = {
        "model": {"path_or_id": str(random_model_folder)},
        "dataset": {"path": str(few_shot_folder), "format": "fewshot"},
        "trainer": {"max_steps": 1, "use_cpu": True},
        "checkpoint_selection": {"score_samples": 2},
        "limit": 3,
    }
    (folder / "my.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = ["-m", "vglm", "train", "-q", "-m", "my.yaml", "seed=1,2", "hydra.sweep.dir=outputs/sweep"]
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_sweep_counts_its_runs_and_ends_with_what_compares_them(
    sweep: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = sweep
    assert "run 1 of 2" in done.stderr
    assert "run 2 of 2" in done.stderr
    assert "reading the config" not in done.stderr  # -q
    assert done.stdout.splitlines()[-1] == "compare them: vglm report outputs/sweep"
    runs = Run.find([folder / "outputs"])
    assert [run.config["seed"] for run in runs] == [1, 2]
    assert {run.record.recipe for run in runs} == {"my"}
    assert {run.record.data.train for run in runs} == {3}


def test_the_console_log_is_what_the_terminal_showed(sweep: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = sweep
    logs = [(run.folder / "console.log").read_text(encoding="utf-8") for run in Run.find([folder / "outputs"])]
    for number, text in enumerate(logs, start=1):
        assert f"run {number} of 2" in text
        assert "step 1: exact match" in text
        assert "    before     " in text
        assert "    reference  " in text
        assert "\r" not in text
        assert "it/s]" not in text
    shown = [line for line in done.stdout.splitlines() if line]
    assert set(shown) <= {line for text in logs for line in text.splitlines()}


def test_answers_of_the_untuned_model_are_given_once(
    sweep: tuple[Path, subprocess.CompletedProcess[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = Run.find([sweep[0] / "outputs"])
    shutil.rmtree(cache_folder(KIND), ignore_errors=True)
    evaluate.run(compose("evaluate", [f"run={first.folder}", "splits=[train]", *SMALL]))
    assert "before: answered in an earlier evaluation" not in capsys.readouterr().out
    evaluate.run(compose("evaluate", [f"run={second.folder}", "splits=[train]", *SMALL]))
    assert "before: answered in an earlier evaluation" in capsys.readouterr().out
    answers = [(run.evaluation / "before" / "predictions.jsonl").read_bytes() for run in (first, second)]
    assert answers[0] == answers[1]

    evaluate.run(compose("evaluate", [f"run={second.folder}", "splits=[train]", *SMALL, "max_new_tokens=5"]))
    assert "before: answered in an earlier evaluation" not in capsys.readouterr().out


def test_kept_answers_that_were_altered_are_asked_again(
    sweep: tuple[Path, subprocess.CompletedProcess[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run.find([sweep[0] / "outputs"])[0]
    shutil.rmtree(cache_folder(KIND), ignore_errors=True)
    overrides = [f"run={run.folder}", "splits=[train]", *SMALL, "limit=2"]
    evaluate.run(compose("evaluate", [*overrides, f"output_dir={sweep[0] / 'one'}"]))
    for path in cache_folder(KIND).rglob("predictions.jsonl"):
        path.write_text(path.read_text(encoding="utf-8").replace('"prediction": "', '"prediction": "x'), "utf-8")
    capsys.readouterr()
    evaluate.run(compose("evaluate", [*overrides, f"output_dir={sweep[0] / 'two'}"]))
    assert "answered in an earlier evaluation" not in capsys.readouterr().out


def test_answers_that_could_not_be_given_are_not_kept(tmp_path: Path) -> None:
    sample = Sample("a", "a", None, (Turn("?", "yes"),), "en")
    shared = SharedAnswers({"model": str(tmp_path)})
    for name, error in (("one", "a package is missing"), ("two", None)):
        record = replace(unanswered(sample, "test"), prediction="" if error else "no", error=error)
        write_predictions([record], tmp_path / name / "before" / "predictions.jsonl")
        shared.keep(tmp_path / name, "before", {"test": [sample]})
    shared.fetch(tmp_path / "three", "before", {"test": [sample]})
    assert [
        prediction.prediction for prediction in read_predictions(tmp_path / "three" / "before" / "predictions.jsonl")
    ] == ["no"]


def test_a_limit_is_stamped_and_the_terminal_speaks_chinese(
    sweep: tuple[Path, subprocess.CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = sweep[0] / "limited"
    run = Run.find([sweep[0] / "outputs"])[0]
    result = vglm.evaluate(
        run, splits="train", limit=2, output_dir=folder, max_new_tokens=4,
        image_use=False, baselines=False, shots_in_context=0, training_loss_samples=0,
    )  # fmt: skip
    frame = result.frame()
    assert list(frame.groupby("arm").size()) == [2, 2]
    assert {"id", "prediction", "reference", "right"} <= set(frame.columns)
    assert set(result.scores_frame()["split"]) == {"train"}
    capsys.readouterr()
    print_summary(folder, result.comparison)
    english = " ".join(capsys.readouterr().out.split())
    assert "LIMITED" in english
    assert "at most 3 samples were trained on" in english
    monkeypatch.setenv("VGLM_LANG", "zh")
    print_summary(folder, result.comparison)
    chinese = capsys.readouterr().out
    assert "报告：" in chinese
    assert "仅用部分数据" in chinese


def test_a_model_is_talked_to_in_one_line(
    sweep: tuple[Path, subprocess.CompletedProcess[str]], few_shot_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sweep[0])
    model, processor = vglm.load_pretrained("latest")
    picture = next(few_shot_folder.rglob("*.png"))
    answer = model.chat(picture, "图中有什么？", max_new_tokens=4)
    inputs = processor(images=vglm.open_image(str(picture)), text="图中有什么？", return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert answer == processor.decode(output[0, inputs["input_ids"].shape[1] :])
    assert model.chat(str(picture), "图中有什么？", max_new_tokens=4, language="zh") == answer
    with pytest.raises(DataError, match="not fetched from addresses"):
        model.chat("https://example.org/cat.jpg", "?")
    with pytest.raises(ConfigError, match="zh or en"):
        model.chat(None, "你好", language="de")
    assert [is_english(text) for text in ("What is it?", "图中有 cat 吗?", "?!")] == [True, False, False]


def test_latest_is_the_interrupted_run_to_resume(
    sweep: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no interrupted run"):
        load_run_config("latest")
    first, second = Run.find([sweep[0] / "outputs"])
    shutil.copytree(first.folder, tmp_path / "outputs" / "finished")
    shutil.copytree(second.folder, tmp_path / "outputs" / "stopped")
    shutil.rmtree(tmp_path / "outputs" / "stopped" / "adapter")
    assert load_run_config("latest").output_dir == str(Path("outputs", "stopped"))


def test_runs_and_choices_are_listed_in_lines(
    sweep: tuple[Path, subprocess.CompletedProcess[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", str(sweep[0] / "outputs")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["recipe", "data", "score"]
    assert lines[1].split() == ["started", "(UTC)", "folder"]
    assert len(lines) == 6
    assert main(["runs", str(sweep[0] / "nowhere")]) == 2
    groups = {"recipes": "recipes", "methods": "conf/method", "datasets": "conf/dataset", "tasks": "conf/task"}
    for kind, folder in groups.items():
        capsys.readouterr()
        assert main(["list", kind]) == 0
        listed = capsys.readouterr().out.splitlines()
        assert len(listed) == len(list((repo_root() / folder).rglob("*.yaml")))
        assert all(len(line) <= 80 and len(line.split("  ", 1)) == 2 for line in listed)
        assert "@package" not in "".join(listed)
    for kind in ("metrics", "formats"):
        assert main(["list", kind]) == 0


def test_chinese_lines_are_cut_and_aligned_by_the_columns_they_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "conf" / "dataset"
    folder.mkdir(parents=True)
    (folder / "胸片.yaml").write_text(f"# {'双肺清晰，' * 20}\n", encoding="utf-8")
    (folder / "mine.yaml").write_text("# Radiographs of mine.\n", encoding="utf-8")
    monkeypatch.setattr("vglm.listing.repo_root", lambda: tmp_path)
    short, long = list_kind("datasets")
    assert short == "mine  Radiographs of mine."
    assert long.startswith("胸片  双肺清晰，")
    assert long.endswith("...")
    assert 76 <= cell_len(long) <= 80


def test_a_file_says_what_the_command_line_says(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("method: qlora\nmodel: {dtype: float32}\nlearning_rates: {lora_B: 16x}\nseed: 3\n", "utf-8")
    own = compose(
        "train",
        [
            override
            for override in take_file([str(path), "seed=4", "output_dir=x"], "train")
            if "recipe=" not in override
        ],
    )
    typed = compose(
        "train",
        ["~recipes", "method=qlora", "model.dtype=float32", "learning_rates.lora_B=16x", "seed=4", "output_dir=x"],
    )
    assert own == typed
    text = "it's a, [b] \\"
    path.write_text(yaml.safe_dump({"task": {"prompt": text}}), "utf-8")
    assert compose("evaluate", take_file([str(path)], "evaluate")).task.prompt == text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("lora_rank: 8\nstage: sft\n", ["lora_rank -> method.r", "not needed: stage", "method.r=8"]),
        ("learning_rate: 0.1\ntrain_type: full\nfoo: 1\n", ["below trainer", "method=full", "no such thing here: foo"]),
        (
            "finetuning_type: full\nuse_dora: false\nfreeze_vit: true\nresume_from_checkpoint: null\nval_size: 0.1\n",
            ["~recipes' method=full 'dataset.division.fractions={train:0.8,validation:0.1,test:0.1}'"],
        ),
        (
            "finetuning_type: lora\nfreeze_vit: false\nnum_train_epochs: 3\n",
            ["~recipes' method=components method.vision=lora trainer.num_train_epochs=3 trainer.max_steps=-1"],
        ),
        ("train_type: lora\ntorch_dtype: bfloat16\n", ["torch_dtype -> model.dtype", "model.dtype=bfloat16"]),
        ("- 1\n", ["expected keys and values"]),
        ("a: [", ["mine.yaml"]),
    ],
)
def test_a_file_of_another_program_is_answered_in_our_words(tmp_path: Path, content: str, expected: list[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content, "utf-8")
    with pytest.raises(ConfigError) as caught:
        take_file([str(path)], "train")
    for part in expected:
        assert part in str(caught.value)


def test_a_command_is_named_as_it_can_be_typed_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repo_root())
    assert typed("evaluate") == "python evaluate.py"
    monkeypatch.chdir(tmp_path)
    assert typed("evaluate") == "vglm evaluate"


def test_a_missing_file_is_one_message() -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        take_file(["nowhere.yaml"], "train")


def test_bash_completes_commands_recipes_and_choices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    assert main(["completion", "bash"]) == 0
    (tmp_path / "vglm.bash").write_text(capsys.readouterr().out, encoding="utf-8")
    expectations = {
        "vglm tra": "train",
        "vglm list rec": "recipes",
        "vglm train recipes = background/lora_s": "background/lora_seed",
        "vglm train method = ql": "qlora",
        "vglm evaluate tas": "task=",
    }
    for words, expected in expectations.items():
        script = (
            f"source vglm.bash; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}}-1)); _shtab_vglm 2>/dev/null;"
            ' echo "${COMPREPLY[@]}"'
        )
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [expected]


def test_scripts_say_which_environment_is_missing(tmp_path: Path) -> None:
    for name in ("train", "evaluate"):
        command = [sys.executable, "-S", "-I", str(repo_root() / f"{name}.py")]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "source .venv/bin/activate" in done.stderr
        assert len(done.stderr.splitlines()) == 1
