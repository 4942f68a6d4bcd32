"""`train.run` from config to run folder, and `python train.py` from any directory."""

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from builders import interrupted_in_step
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from programs import Program, run_processes
from safetensors.torch import load_file

from train import run
from vglm.config import compose, repo_root
from vglm.errors import ConfigError, DataError, WorkbenchError
from vglm.model.identity import hash_weights
from vglm.model.loading import load_pretrained
from vglm.runs import Run, read_scores
from vglm.tuning.run_folder import newest_checkpoint


@pytest.fixture
def configure(random_model_folder: Path, few_shot_folder: Path, tmp_path: Path):
    """The default recipe on the random model and the six pictures, three steps."""

    def configure(*overrides: str, folder: str = "run") -> DictConfig:
        return compose(
            overrides=[
                f"model.path_or_id={random_model_folder}",
                "dataset=fewshot_background",
                f"dataset.path={few_shot_folder}",
                "trainer=debug",
                "trainer.max_steps=3",
                "trainer.per_device_train_batch_size=2",
                "checkpoint_selection.score_checkpoints=false",
                f"output_dir={tmp_path / folder}",
                *overrides,
            ]
        )

    return configure


def test_a_run_folder_tells_what_was_run(configure, tmp_path: Path, random_model_folder: Path) -> None:
    folder = run(configure("seed=5", "method.r=2"))
    assert folder == tmp_path / "run" == Run.latest(tmp_path).folder
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.yaml", "splits.json", "run.json", "log.jsonl", "adapter", "checkpoint-2", "checkpoint-3"}

    facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    base, _ = load_pretrained(random_model_folder)
    assert facts["base_weights_xxh3"] == hash_weights(base)
    assert (facts["seed"], facts["recipe"]) == (5, "background/lora")
    assert facts["data"]["trained_on_test"] == facts["data"]["train"] == 6
    assert facts["versions"]["peft"]
    assert [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()] == [1, 2, 3, 3]
    assert sum(path.stat().st_size for path in folder.glob("**/*") if path.is_file()) < 1_000_000


def test_a_run_repeats_from_its_own_config(configure, tmp_path: Path) -> None:
    first = run(configure("method.lora_dropout=0.2"))
    again = OmegaConf.load(first / "config.yaml")
    again.output_dir = again.trainer.output_dir = str(tmp_path / "again")
    second = run(again)
    one, other = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (first, second))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    different = run(configure("method.lora_dropout=0.2", "seed=2", folder="different"))
    third = load_file(different / "adapter" / "adapter_model.safetensors")
    assert any(not torch.equal(one[name], third[name]) for name in one)


def test_cached_features_and_short_rows_change_nothing(configure) -> None:
    plain = run(configure("feature_cache=false", folder="plain"))
    cached = run(configure(folder="cached"))
    facts = json.loads((cached / "run.json").read_text(encoding="utf-8"))
    assert facts["reload_difference"] < 1e-5  # of features from the cache and from pixels
    assert (facts["sequences"]["dialogues"], facts["sequences"]["sequences"]) == (6, 6)

    packed = run(configure("packing=200", folder="packed"))
    folders = (plain, cached, packed)
    logs = [[json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()] for folder in folders]
    losses = [torch.tensor([line["loss"] for line in log if "loss" in line]) for log in logs]
    for series in losses[1:]:
        torch.testing.assert_close(series, losses[0], rtol=0, atol=1e-5)  # other batches round otherwise
    with pytest.raises(ConfigError, match="packing does not go with prompt methods"):
        run(configure("packing=200", "method=prompt_tuning", folder="refused"))


def test_an_interrupted_run_resumes_from_its_folder_alone(configure, tmp_path: Path) -> None:
    whole = run(configure(folder="whole"))
    with interrupted_in_step(3):
        run(configure(folder="broken"))
    broken = tmp_path / "broken"
    assert not (broken / "adapter").exists()
    moved = broken.rename(tmp_path / "moved")
    assert run(compose(overrides=[f"resume={moved}"])) == moved
    assert not broken.exists()

    one, other = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (whole, moved))
    assert all(torch.equal(one[name], other[name]) for name in one)
    logs = [[json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()] for folder in (whole, moved)]
    assert logs[0][:3] == logs[1][:3]
    with pytest.raises(ConfigError, match="has finished"):
        run(compose(overrides=[f"resume={moved}"]))


def test_full_tuning_saves_a_model(configure) -> None:
    folder = run(configure("method=components", "method.qformer=frozen", "method.language_model=frozen"))
    load_pretrained(folder / "model")
    assert not (folder / "adapter").exists()
    assert set(load_file(folder / "checkpoint-3" / "trainable.safetensors")) == {
        "model.language_projection.weight",
        "model.language_projection.bias",
    }


def test_wandb_offline_writes_a_local_run(configure) -> None:
    folder = run(configure("tracker=wandb", "tracker.mode=offline"))
    assert list(folder.glob("wandb/offline-run-*/run-*.wandb"))


def test_wandb_out_of_reach_is_no_reason_to_stop(
    configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        Thread(target=server.serve_forever).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        folder = run(configure("tracker=wandb", "tracker.mode=online"))
        server.shutdown()
    assert (folder / "adapter").is_dir()
    assert len((folder / "log.jsonl").read_text().splitlines()) == 4
    (warning,) = [record.getMessage() for record in caplog.records if "Weights & Biases" in record.getMessage()]
    assert "tracker: Weights & Biases cannot be used (No API key" in warning
    assert "The curves are in log.jsonl; tracker.mode=offline" in warning


def test_a_run_on_relative_paths_is_evaluated_from_anywhere(
    configure, random_model_folder: Path, few_shot_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(few_shot_folder.parent)
    folder = run(configure(f"dataset.path={few_shot_folder.name}"))
    stored = OmegaConf.load(folder / "config.yaml")
    assert (stored.dataset.path, stored.model.path_or_id) == (str(few_shot_folder), str(random_model_folder))


def test_tensorboard_writes_to_the_run_folder(configure) -> None:
    folder = run(configure("tracker=tensorboard"))
    assert list(folder.glob("tensorboard/events.out.tfevents.*"))


@pytest.mark.parametrize(
    ("overrides", "error", "expected"),
    [
        (["method.r=0", "sed=1"], ConfigError, "2 problems"),
        (["method.target_modules=[nothing]"], ConfigError, "does not fit this model"),
        (["dataset.path=nowhere"], DataError, "nowhere does not exist"),
        (["model.path_or_id=."], WorkbenchError, "is not a VisualGLM checkpoint"),
        (["trainer.eval_strategy=steps"], ConfigError, "trainer: You have set `args.eval_strategy`"),
        (["trainer.max_steps=0"], ConfigError, "max_steps must be a positive integer up to 100,000,000, or -1"),
        (["dataset.train=absent.json"], DataError, "has no absent.json"),
    ],
)
def test_bad_input_leaves_no_folder(
    configure, overrides: list[str], error: type[Exception], expected: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=expected):
        run(configure(*overrides))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_picture_is_found_before_anything_is_written(configure, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    Image.effect_noise((64, 64), 50).save(data / "noise.png")
    whole = (data / "noise.png").read_bytes()
    (data / "noise.png").write_bytes(whole[: len(whole) // 2])
    row = {"img": "noise.png", "prompt": "？", "label": "噪声"}
    (data / "dataset.json").write_text(json.dumps([row]), encoding="utf-8")
    with pytest.raises(DataError, match=r"noise\.png"):
        run(configure(f"dataset.path={data}"))
    assert not (tmp_path / "run").exists()


def test_train_py_runs_from_any_directory_and_leaves_no_litter(
    random_model_folder: Path, few_shot_folder: Path, tmp_path: Path
) -> None:
    command = [
        sys.executable,
        str(repo_root() / "train.py"),
        f"model.path_or_id={random_model_folder}",
        "dataset=fewshot_background",
        f"dataset.path={few_shot_folder}",
        "trainer=debug",
        "trainer.max_steps=1",
    ]
    environment = {**os.environ, "PYTHONPATH": str(repo_root() / "src")}
    options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}

    preview = subprocess.run([*command, "--cfg", "job"], check=True, **options)
    assert OmegaConf.create(preview.stdout).trainer.max_steps == 1
    assert list(tmp_path.iterdir()) == []

    done = subprocess.run(command, check=True, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
    folder = Run.latest(tmp_path / "outputs").folder
    assert folder.parent == tmp_path / "outputs" / "background" / "lora"
    assert f"vglm evaluate run={folder.relative_to(tmp_path)}" in done.stdout
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["command"] == command[1:]
    assert "Traceback" not in done.stderr


def _command(random_model_folder: Path, data: Path) -> list[str]:
    return [
        str(repo_root() / "train.py"),
        f"model.path_or_id={random_model_folder}",
        "dataset=fewshot_background",
        f"dataset.path={data}",
        "trainer=debug",
        "trainer.disable_tqdm=true",
    ]


def test_a_run_that_is_asked_to_terminate_saves_and_says_how_to_go_on(
    random_model_folder: Path, few_shot_folder: Path, tmp_path: Path
) -> None:
    options = ["trainer.max_steps=100000", "trainer.save_steps=100000", "checkpoint_selection.score_checkpoints=false"]
    command = [*_command(random_model_folder, few_shot_folder), *options, "output_dir=run"]
    log = tmp_path / "run" / "log.jsonl"
    with (tmp_path / "said").open("w") as errors, Program(*command, cwd=tmp_path, stderr=errors) as program:
        while program.poll() is None and not (log.exists() and len(log.read_text().splitlines()) > 2):
            time.sleep(0.1)
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 143, (tmp_path / "said").read_text()
    assert (tmp_path / "said").read_text().splitlines()[-1] == "Stopped. Continue with: vglm train resume=run"
    assert newest_checkpoint(tmp_path / "run") is not None
    assert not list((tmp_path / "run").glob("adapter*"))


def test_two_processes_learn_what_one_does(random_model_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rows = []
    for number in range(11):  # batches of 8 and 3: a whole one for each process, and one that is for one process alone
        Image.new("RGB", (30, 20), (20 * number, 255 - 20 * number, 99)).save(data / f"{number}.png")
        answer = f"颜色{number}。" * (1 + number % 4)
        rows.append({"img": f"{number}.png", "prompt": "背景是什么颜色？" * (1 + number % 3), "label": answer})
    (data / "dataset.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")

    command = [*_command(random_model_folder, data), "trainer.max_steps=4", "checkpoint_selection.score_samples=2"]
    done = run_processes(*command, "trainer.per_device_train_batch_size=4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = Run.latest(tmp_path / "outputs").folder
    assert list((tmp_path / "outputs" / "background" / "lora").iterdir()) == [folder]
    assert done.stdout.count("next: vglm evaluate") == 1

    overrides = [override for override in command[1:] if "=" in override]
    alone = run(
        compose(overrides=[*overrides, "trainer.per_device_train_batch_size=8", f"output_dir={tmp_path / 'one'}"])
    )
    one, other = ((run_folder / "log.jsonl").read_text().splitlines()[:4] for run_folder in (alone, folder))
    losses = [torch.tensor([json.loads(line)["loss"] for line in log]) for log in (one, other)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
    first, second = (load_file(run_folder / "adapter" / "adapter_model.safetensors") for run_folder in (alone, folder))
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-5)
    assert read_scores(alone / "forgetting.jsonl") == read_scores(folder / "forgetting.jsonl")


def test_processes_that_cannot_have_the_folder_say_so_once(
    random_model_folder: Path, few_shot_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/mine.txt").write_text("mine")
    done = run_processes(*_command(random_model_folder, few_shot_folder), "output_dir=taken", cwd=tmp_path)
    assert done.returncode != 0
    assert done.stderr.count("error: output_dir taken is taken") == 1
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["mine.txt"]
