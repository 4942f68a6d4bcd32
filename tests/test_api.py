"""`import vglm`: what a notebook does without Hydra."""

import ast
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file

import evaluate
import train as script
import vglm
from vglm.config import check_config, compose, load_run_config, repo_root
from vglm.errors import ConfigError
from vglm.tuning.components import ComponentTuning

SHORT = {"max_steps": 2, "per_device_train_batch_size": 2, "save_steps": 1, "logging_steps": 1, "use_cpu": True}
QUIET = {"score_checkpoints": False}


def test_importing_is_quick_and_every_name_is_there() -> None:
    code = "import sys, vglm\nassert not {'torch', 'numpy', 'omegaconf', 'yaml'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(getattr(vglm, name) is not None for name in vglm.__all__)
    assert vglm.__doc__ is not None
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = vglm.trian


def test_a_run_from_objects_goes_on_from_the_command_line(
    random_model_folder: Path, few_shot_folder: Path, tmp_path: Path
) -> None:
    run = vglm.train(
        vglm.load_dataset(few_shot_folder),
        model=vglm.load_pretrained(random_model_folder),
        method=peft.LoraConfig(r=3, target_modules=["query_key_value"], task_type="CAUSAL_LM"),
        trainer=transformers.TrainingArguments(**SHORT, learning_rate=0.01),
        checkpoint_selection=QUIET,
        allow_leakage=True,
        seed=5,
        output_dir=tmp_path / "run",
    )
    assert isinstance(run, vglm.Run)
    assert run.config["method"] == {
        "_target_": "peft.LoraConfig",
        "_convert_": "all",
        "r": 3,
        "target_modules": ["query_key_value"],
        "task_type": "CAUSAL_LM",
    }
    assert run.config["dataset"] == {"_target_": "vglm.data.loading.load_dataset", "path": str(few_shot_folder)}
    assert run.config["model"]["path_or_id"] == str(random_model_folder)
    assert (run.config["trainer"]["max_steps"], run.config["trainer"]["seed"], run.record.seed) == (2, 5, 5)

    cfg = load_run_config(run.folder)  # as resume= and a copied config would have it
    cfg.resume, cfg.output_dir = None, str(tmp_path / "again")
    check_config(cfg)
    script.run(cfg)
    one, other = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("run", "again"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)

    tuned, _ = vglm.load_pretrained(run)
    assert isinstance(tuned, peft.PeftModel)
    assert vglm.merge(run, tmp_path / "merged").passed
    vglm.load_pretrained(tmp_path / "merged")
    with pytest.raises(ConfigError, match="an adapter cannot be put on a model that has one"):
        vglm.train(
            few_shot_folder, model=run, checkpoint_selection=QUIET, allow_leakage=True, output_dir=tmp_path / "no"
        )
    assert not (tmp_path / "no").exists()


def test_full_tuning_is_loaded_as_a_plain_model(
    random_model_folder: Path, few_shot_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = vglm.train(
        {"path": few_shot_folder},
        model=random_model_folder,
        method=ComponentTuning(projection="full"),
        trainer=SHORT,
        checkpoint_selection=QUIET,
        allow_leakage=True,
    )
    assert run.folder.parent == Path("outputs/custom")
    model, _ = vglm.load_pretrained("latest")
    assert isinstance(model, vglm.VisualGlmForConditionalGeneration)
    trained = load_file(run.folder / "model" / "model.safetensors")
    name = "model.language_projection.weight"
    assert torch.equal(model.state_dict()[name], trained[name])
    with pytest.raises(ConfigError, match="has its own adapter"):
        vglm.load_pretrained(run, adapter="x")


def test_an_object_that_no_config_describes_is_named(
    random_model_folder: Path, few_shot_folder: Path, tmp_path: Path
) -> None:
    data = vglm.load_dataset(few_shot_folder)
    some = replace(data, train=data.train[:4], test=data.test[4:])
    options = {"model": random_model_folder, "trainer": SHORT, "checkpoint_selection": QUIET}
    run = vglm.train(some, output_dir=tmp_path / "run", **options)
    assert run.record.data.train == 4
    assert run.config["dataset"] == {"_target_": "vglm.unrecorded", "type": "vglm.data.splits.Splits"}
    with pytest.raises(ConfigError, match=r"dataset\._target_: it was an object in Python, which no config describes"):
        check_config(load_run_config(run.folder))


def test_every_mistake_is_in_one_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        vglm.train(
            method={"rr": 3},
            trainer={"max_steps": "many"},
            max_length=-3,
            packing="x",
            answers="all",  # type: ignore[arg-type]
            feature_cache="maybe",  # type: ignore[arg-type]
            output_dir=tmp_path / "run",
        )
    message = str(caught.value)
    assert message.startswith("6 problems in the config:")
    for mistake in (
        "method.rr",
        "trainer.max_steps",
        "max_length must be",
        "packing must be",
        "answers: ",
        "feature_cac",
    ):
        assert f"\n  {mistake}" in message
    with pytest.raises(ConfigError, match="method=lroa: no such choice; did you mean `lora`"):
        vglm.train(method="lroa")
    with pytest.raises(ConfigError, match="seed: expected a plain value"):
        vglm.train(seed=torch.tensor(3))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_resumed_only_as_it_was(random_model_folder: Path, few_shot_folder: Path, tmp_path: Path) -> None:
    options = {"model": random_model_folder, "checkpoint_selection": QUIET, "allow_leakage": True}
    data = vglm.load_dataset(few_shot_folder)
    run = vglm.train(data, trainer=SHORT, output_dir=tmp_path, **options)
    (tmp_path / "adapter").rename(tmp_path / "adapter.unverified")
    with pytest.raises(ConfigError, match=r"trainer\.max_steps was 2 and is 3 now"):
        vglm.train(data, trainer={**SHORT, "max_steps": 3}, resume=run, **options)
    again = vglm.train(data, trainer=SHORT, resume=run, **options)
    assert again.result == tmp_path / "adapter"


def test_train_evaluate_and_compare_in_ten_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = vglm.load_dataset(repo_root() / "data/background_synthetic", retention="probe.json")
    data = replace(data, train=data.train[:4], test=data.test[:3], retention=data.retention[:2])
    settings: dict[str, Any] = {"metrics": ["chrf"], "max_new_tokens": 4, "image_use": False, "shots_in_context": 0}
    evaluations = []
    for rank in (1, 2):
        run = vglm.train(data, method={"r": rank}, trainer=SHORT, checkpoint_selection=QUIET)
        evaluations.append(vglm.evaluate(run, dataset=data, **settings))
    table = vglm.compare(evaluations)
    assert len(table.rows) == 2
    assert evaluations[0].report.is_file()
    assert set(evaluations[0].scores["test"]["chrf"]["values"]) == {"before", "after"}
    again = vglm.score(evaluations[0].folder, ["bleu_zh"]).as_dict()
    assert "bleu_zh" in again["splits"]["test"]["scores"]

    arguments = [f"run={run.folder}", "max_new_tokens=4", "splits=[test]", "output_dir=again"]
    with pytest.raises(ConfigError, match=r"dataset\._target_: it was an object in Python"):
        evaluate.run(compose("evaluate", arguments))
    assert not Path("again").exists()


def test_the_readme_names_what_there_is() -> None:
    text = (repo_root() / "README.md").read_text(encoding="utf-8").partition("\n## Python\n")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    used = {node.attr for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Attribute) and _is_vglm(node.value)}
    assert {"load_dataset", "train", "evaluate", "compare", "merge", "load_pretrained"} <= used <= set(vglm.__all__)
    assert set(re.findall(r"`vglm\.(\w+)", text)) == {name for name in vglm.__all__ if not name.startswith("Visual")}


def _is_vglm(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "vglm"
