"""Every recipe composes, passes the check, trains, and is described in its domain's README."""

import json
import math
import re
from pathlib import Path

import pytest

from train import run
from vglm.config import check_config, compose, repo_root

RECIPES = sorted(
    path.relative_to(repo_root() / "recipes").with_suffix("").as_posix()
    for path in (repo_root() / "recipes").rglob("*.yaml")
)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_trains_two_steps(recipe: str, random_model_folder: Path, few_shot_folder: Path, tmp_path: Path) -> None:
    overrides = [
        f"recipes={recipe}",
        "model=visualglm_tiny",
        f"model.path_or_id={random_model_folder}",
        "trainer.max_steps=2",
        "trainer.per_device_train_batch_size=2",
        "trainer.logging_steps=1",
        "checkpoint_selection.score_samples=2",
        "checkpoint_selection.retention.per_kind=1",
        f"output_dir={tmp_path / 'run'}",
    ]
    dataset = compose(overrides=[f"recipes={recipe}"]).dataset
    if dataset._target_ == "vglm.data.loading.load_dataset":
        overrides += ["dataset=fewshot_background", f"dataset.path={few_shot_folder}"]
    overrides += [f"dataset.{key}=24" for key in dataset if re.fullmatch("(train|test)_(samples|studies|stars)", key)]
    cfg = compose(overrides=overrides)
    check_config(cfg)
    folder = run(cfg)
    assert (folder / "adapter").is_dir() or (folder / "model").is_dir()
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_says_how_it_is_run_and_its_readme_names_it(recipe: str) -> None:
    path = repo_root() / "recipes" / f"{recipe}.yaml"
    assert f"python train.py recipes={recipe}" in path.read_text(encoding="utf-8")
    readme = (path.parent / "README.md").read_text(encoding="utf-8")
    assert f"`{path.name}`" in readme
