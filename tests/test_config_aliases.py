"""Names of earlier versions: their run folders, users' recipes and commands."""

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf, open_dict

from train import run
from vglm.config import build, check_config, compose, load_run_config, read_run_values, repo_root
from vglm.config.aliases import KEYS, TARGETS, current_target
from vglm.config.overrides import in_todays_names
from vglm.config.signatures import missing_name
from vglm.config.targets import known_targets
from vglm.errors import ConfigError
from vglm.runs import Run

# As train.py wrote them: before checkpoints were scored, and before synthetic worlds had a place of their own.
FIRST = """
model: {_target_: vglm.model.loading.load_pretrained, path_or_id: MODEL, dtype: float32}
method: {_target_: peft.LoraConfig, _convert_: all, task_type: CAUSAL_LM, r: 2, target_modules: .*query_key_value}
dataset: {_target_: vglm.data.loading.load_splits, path: DATA}
trainer:
  {_target_: transformers.TrainingArguments, _convert_: all, max_steps: 2, per_device_train_batch_size: 2,
  learning_rate: 0.0003, logging_steps: 1, save_steps: 1, remove_unused_columns: false, label_names: [labels],
  use_cpu: true, output_dir: run, run_name: background/lora, seed: 1, report_to: none}
tracker: {_target_: vglm.tuning.trainer.Tracker, report_to: none}
recipe: background/lora
seed: 1
output_dir: run
resume: null
learning_rates: {}
"""
LATER = (
    FIRST.replace(
        "dataset: {_target_: vglm.data.loading.load_splits, path: DATA}",
        "dataset: {_target_: vglm.data.loading.load_splits, _convert_: all, path: DATA, format: null, options: {},"
        " columns: {}, image_dir: null, skip_missing: false, group: null, stratify: null,"
        " fractions: {train: 0.5, validation: 0.25, test: 0.25}, seed: 1}",
    )
    + """
training:
  probe: {_target_: vglm.data.synthetic.probe.probe_splits, _convert_: all, per_kind: 1, seed: 5, kinds: [caption],
    _partial_: true}
  _target_: vglm.evaluation.forgetting.CheckpointScoring
  score_checkpoints: true
  score_samples: 1
  forgetting_budget: null
  patience: 2
  metric: exact_match
  validation_share: 0.2
answers: every
max_length: 2048
packing: null
feature_cache: true
allow_leakage: false
shots: null
seeds: null
folds: null
"""
)


@pytest.mark.parametrize("version", [FIRST, LATER])
def test_a_run_of_an_earlier_version_is_resumed(
    version: str, random_model_folder: Path, few_shot_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = version.replace("MODEL", str(random_model_folder)).replace("DATA", str(few_shot_folder))
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    arguments = [f"resume={tmp_path}"] + (["allow_leakage=true"] if version is FIRST else [])
    run(compose(overrides=arguments))
    done = Run.open(tmp_path)
    assert done.record.training is not None
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    if version is FIRST:
        assert done.config["answers"] == "last"  # of a dialogue nothing else was learned then
        assert done.record.data.train == 6
        assert any("the run goes on as it was, with answers=last, max_length=2048, packing=None" in it for it in notes)
    else:
        assert [score.step for score in done.checkpoint_scores] == [0, 1, 2]
        assert done.record.data.train == 3
        assert any("training -> checkpoint_selection" in it for it in notes)
    assert len(set(notes)) == len(notes)  # each once, however often the file is read
    now = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    assert "training" not in now
    assert not any(name in str(now) for name in (*TARGETS, "fractions: ", "'group': None, 'stratify': None, 'path'"))


def test_every_former_target_is_something_today() -> None:
    former = {
        "vglm.data.synthetic.probe.probe_splits",
        "vglm.worlds.probe.probe_splits",
        "vglm.data.synthetic.pretraining.scene_splits",
        "vglm.data.synthetic.radiograph_studies.radiograph_splits",
        "vglm.data.synthetic.star_dialogues.star_splits",
        "vglm.evaluation.task.Task",
        "vglm.evaluation.predict.task.Task",
        "vglm.evaluation.forgetting.CheckpointScoring",
        "vglm.evaluation.score.forgetting.CheckpointScoring",
        "vglm.tuning.vision_pretraining.initialize_seeing_model",
        "vglm.tuning.finding_pretraining.load_with_findings",
        "vglm.data.loading.load_splits",
    }
    now = {current_target(name) for name in former}
    assert [name for name in now if missing_name(name)] == []
    assert now <= known_targets()


def test_a_command_and_a_recipe_of_an_earlier_version(capsys: pytest.CaptureFixture[str]) -> None:
    cfg = compose(overrides=["training.patience=5", "dataset@training.probe=scenes", "dataset=own", "dataset.path=x"])
    assert cfg.checkpoint_selection.patience == 5
    assert "training.patience=5 -> checkpoint_selection.patience=5" in capsys.readouterr().err
    check_config(cfg)

    recipe = compose(overrides=["checkpoint_selection.patience=4"])
    with open_dict(recipe):
        recipe.training = {"patience": 3, "score_samples": 8}
    read = in_todays_names(recipe, ["checkpoint_selection.patience=4"])
    assert (read.checkpoint_selection.patience, read.checkpoint_selection.score_samples) == (4, 8)
    assert "training" not in read
    assert "training -> checkpoint_selection" in capsys.readouterr().err
    assert in_todays_names(read, []) is read
    assert capsys.readouterr().err == ""


def test_a_recipe_that_chooses_a_file_by_its_former_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = compose(overrides=["dataset=general_ability"]).dataset
    for name in ("conf", "data"):
        (tmp_path / name).symlink_to(repo_root() / name)
    recipe = tmp_path / "recipes" / "mine.yaml"
    recipe.parent.mkdir()
    recipe.write_text("# @package _global_\ndefaults:\n  - override /dataset: general_probe\n", encoding="utf-8")
    for module in ("overrides", "resolvers"):
        monkeypatch.setattr(f"vglm.config.{module}.repo_root", lambda: tmp_path)
    cfg = compose(overrides=["recipes=mine"])
    assert cfg.dataset == expected
    assert "dataset=general_probe -> dataset=general_ability" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"fractions": {"train": 0.5, "test": 0.5}, "seed": 3}, {"_target_": "vglm.data.division.ByGroup", "seed": 3}),
        (
            {"protocol": "k_fold", "folds": 4, "fold": 1},
            {"_target_": "vglm.data.division.KFold", "folds": 4, "fold": 1},
        ),
        ({"protocol": "few_shot", "shots": 2}, {"_target_": "vglm.data.division.FewShot", "shots": 2}),
        ({"protocol": "leave_one_out", "fold": 0}, {"_target_": "vglm.data.division.LeaveOneOut", "fold": 0}),
    ],
)
def test_a_division_in_keys_of_the_data(
    settings: dict[str, object], expected: dict[str, object], tmp_path: Path
) -> None:
    dataset = {"_target_": "vglm.data.loading.load_splits", "path": "x", "train": "a.json", **settings}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"dataset": dataset, "trainer": {}}), encoding="utf-8")
    read = read_run_values(tmp_path / "config.yaml")["dataset"]
    assert expected.items() <= read["division"].items()
    assert set(read) == {"_target_", "path", "train", "division"}
    build(read["division"])


def test_keys_are_renamed_once(tmp_path: Path) -> None:
    assert not set(KEYS.values()) & set(KEYS)
    assert not {current_target(name) for name in TARGETS} & set(TARGETS)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("tracker", {"report_to": "wandb", "project": "p", "mode": "online"}, ["tracker=wandb", "tracker.project=p"]),
        ("trainer", {"torch_compile": True}, ["trainer.torch_compile=true"]),
    ],
)
def test_what_only_the_command_line_may_ask_for(
    key: str, value: dict[str, object], named: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    cfg = OmegaConf.to_container(compose(), resolve=True)
    assert isinstance(cfg, dict)
    cfg[key] |= value
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(cfg), encoding="utf-8")
    with pytest.raises(ConfigError, match="which only your own command line may ask for"):
        load_run_config(tmp_path, compose())
    assert load_run_config(tmp_path, compose(overrides=named))[key].items() >= value.items()


def test_a_run_of_a_million_years_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.max_steps must be a positive integer up to 100,000,000"):
        check_config(compose(overrides=["trainer.max_steps=1000000000000000"]))
