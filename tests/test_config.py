"""Composition, precedence, and check_config's answers to bad configs."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from vglm.config import (
    allow_targets,
    build,
    check_config,
    compose,
    entry_point,
    load_run_config,
    loosen,
    repo_root,
    targets,
)
from vglm.config.comments import fields
from vglm.errors import ConfigError


@contextmanager
def _allowed(*names: str) -> Iterator[None]:
    before = set(targets._allowed)
    allow_targets(*names)
    yield
    targets._allowed.clear()
    targets._allowed.update(before)


def test_command_line_beats_recipe_beats_conf() -> None:
    conf = OmegaConf.load(repo_root() / "conf" / "trainer" / "default.yaml")
    recipe = OmegaConf.load(repo_root() / "recipes" / "background" / "lora_seed.yaml")
    assert conf.learning_rate != recipe.trainer.learning_rate

    composed = compose(overrides=["recipes=background/lora_seed"])
    assert composed.trainer.learning_rate == recipe.trainer.learning_rate
    assert composed.trainer.logging_steps == conf.logging_steps
    composed = compose(overrides=["recipes=background/lora_seed", "trainer.learning_rate=0.5", "model=visualglm_tiny"])
    assert composed.trainer.learning_rate == 0.5
    assert composed.model.path_or_id.endswith("visualglm_tiny")


def test_defaults_pass_the_check_and_reach_the_trainer() -> None:
    cfg = compose(overrides=["seed=7", "tracker=tensorboard"])
    check_config(cfg)
    assert cfg.recipe == "background/lora"
    assert cfg.trainer.seed == 7
    assert cfg.trainer.report_to == "tensorboard"
    assert cfg.trainer.output_dir == cfg.output_dir
    assert Path(cfg.output_dir).parent == Path("outputs/background/lora")


def test_fields_that_a_file_leaves_out_need_no_plus() -> None:
    cfg = compose(overrides=["method.use_dora=true", "trainer.optim=sgd", "+method.use_rslora=false"])
    check_config(cfg)
    assert cfg.method.use_dora is True


def test_all_problems_are_reported_at_once() -> None:
    cfg = compose(
        overrides=[
            "sed=3",
            "method.rr=4",
            "method.r=0",
            "method.lora_dropout=1.5",
            "method.modules_to_save=3",
            "trainer.max_steps=many",
            "trainer.save_strategy=sometimes",
            "trainer.lerning_rate=0.1",
            "dataset=fewshot_background",
            "tracker.report_to=wandbb",
            "model._target_=vglm.model.loading.load_pretraind",
        ]
    )
    with pytest.raises(ConfigError) as caught:
        check_config(cfg)
    message = str(caught.value)
    assert message.startswith("11 problems in the config:")
    for line in (
        "sed: no such key; did you mean `seed`?",
        "method.rr: peft.LoraConfig takes no `rr`; did you mean `r`?",
        "method.r must be a positive integer, got 0",
        "method.lora_dropout must be a number from 0 to below 1, got 1.5",
        "method.modules_to_save: expected list[str] | null, got 3",
        "trainer.max_steps must be a positive integer up to 100,000,000, or -1 to count in num_train_epochs, got 'ma",
        "trainer.save_strategy: expected one of 'no', 'steps', 'epoch', 'best', got 'sometimes'",
        "trainer.lerning_rate: transformers.TrainingArguments takes no `lerning_rate`; did you mean `learning_rate`?",
        "dataset.path: a value is required",
        "tracker.report_to: expected one of 'none', 'tensorboard', 'wandb', 'trackio', got 'wandbb'; did you mean `wan",
        "model._target_: vglm.model.loading has no `load_pretraind`; did you mean `load_pretrained`?",
    ):
        assert f"\n  {line}" in message


@pytest.mark.parametrize(
    ("component", "expected"),
    [
        ({"_target_": "no_such_package.Thing"}, "part._target_: cannot import no_such_package.Thing"),
        ({"_target_": "pathlib.Paht"}, "pathlib has no `Paht`; did you mean `Path`?"),
        ({"_target_": "fractions.Fraction.limit_denominator", "max_denominator": "x"}, "part.self: "),
        ({"_target_": "vglm.data.loading.load_dataset", "path": 3}, "part.path: expected str | Path, got 3"),
        ({"_target_": "vglm.data.loading.load_dataset"}, "part.path: vglm.data.loading.load_dataset requires it"),
        ({"_target_": "vglm.tuning.components.ComponentTuning", "visoin": "full"}, "did you mean `vision`?"),
        ({"_target_": "vglm.tuning.components.ComponentTuning", "vision": "ful"}, "did you mean `full`?"),
        ({"_target_": "peft.LoraConfig", "r": True}, "part.r must be a positive integer, got True"),
        ({"value": "${nothing}"}, "part.value: Interpolation key 'nothing' not found"),
    ],
)
def test_each_kind_of_problem_is_named(component: dict[str, object], expected: str) -> None:
    cfg = OmegaConf.create({"part": component})
    with _allowed("no_such_package", "pathlib", "fractions"), pytest.raises(ConfigError) as caught:
        check_config(cfg)
    assert expected in str(caught.value)


def test_a_component_that_refuses_its_values_is_named() -> None:
    method = {"_target_": "peft.LoraConfig", "layers_to_transform": [0], "target_modules": "x"}
    with pytest.raises(ConfigError, match=r"1 problem in the config:\n  method: .*layers_to_transform"):
        check_config(OmegaConf.create({"method": method}))


def test_whole_numbers_fit_where_floats_are_asked_for_but_not_the_reverse() -> None:
    check_config(compose(overrides=["trainer.weight_decay=1"]))
    with pytest.raises(ConfigError, match=r"trainer\.logging_first_step: expected bool, got 1"):
        check_config(compose(overrides=["trainer.logging_first_step=1"]))


def test_loosen_touches_only_fields() -> None:
    arguments = ["-m", "recipes=a/b", "method=lora", "seed=1,2", "hydra.verbose=true", "+a.b=1", "~a", "--cfg", "job"]
    assert loosen(arguments, "train") == arguments
    assert loosen(["method.r=4", "sed=1"], "train") == ["++method.r=4", "++sed=1"]


def test_a_misspelt_choice_is_explained() -> None:
    with pytest.raises(ConfigError, match=r"recipes=background/lorra: no such choice; did you mean `background/lora`?"):
        compose(overrides=["recipes=background/lorra"])
    with pytest.raises(ConfigError, match="method=lroa: no such choice"):
        compose(overrides=["method=lroa"])


def test_build_lets_errors_of_the_component_through() -> None:
    node = OmegaConf.create({"_target_": "vglm.tuning.components.ComponentTuning"})
    with pytest.raises(ConfigError, match="nothing would train"):
        build(node)


@pytest.mark.parametrize("arguments", [["method=lroa"], ["dataset.path=a b(c"], ["seed=1"]])
def test_an_entry_point_prints_one_message_and_exits_with_2(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr("sys.argv", ["train.py", *arguments])

    @entry_point("train")
    def main(cfg: DictConfig) -> None:
        raise ConfigError("seed 1 brings bad luck.")

    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["train.py"])

    @entry_point("train")
    def main(cfg: DictConfig) -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("seed", ["-1", "4294967296", "1.5", "null"])
def test_an_impossible_seed_is_named_once(seed: str) -> None:
    with pytest.raises(ConfigError, match=r"^1 problem in the config:\n  seed must be an integer from 0"):
        check_config(compose(overrides=[f"seed={seed}"]))


@pytest.mark.parametrize("path", ["/数据 集/é", "it's here", "C:\\data (1)", "#5 & more"])
def test_any_path_can_be_given_as_a_value(path: str) -> None:
    cfg = compose(overrides=[f"output_dir={path}", f"model.path_or_id={path}"])
    assert (cfg.output_dir, cfg.model.path_or_id) == (path, path)


@pytest.mark.parametrize("argument", ["model=null", "method="])
def test_a_group_set_to_nothing_is_refused(argument: str) -> None:
    with pytest.raises(ConfigError, match=rf"{argument}: name one of the files in conf/"):
        compose(overrides=[argument])


@pytest.mark.parametrize(
    "content", ["a: 1", "[1]", "trainer: 3", "trainer: {_target_: a.b}\nmodel: {_target_: a.b}\ndataset: -9"]
)
def test_a_config_of_something_else_is_no_run(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(ConfigError, match=r"config\.yaml is no config of train\.py"):
        load_run_config(tmp_path)


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_help_fits_a_terminal(name: str) -> None:
    template = OmegaConf.load(repo_root() / "conf" / f"{name}.yaml").hydra.help.template
    assert max(map(len, template.splitlines())) <= 80


def test_a_folder_without_config_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no config\.yaml"):
        load_run_config(tmp_path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model._partial_=true", "model._partial_: the whole component is needed"),
        ("dataset._partial_=yes_please", "dataset._partial_ must be true or false, got 'yes_please'"),
        ("method._recursive_=x", "method._recursive_ must be true or false, got 'x'"),
        ("method._convert_=zzz", "method._convert_ must be none, partial, object or all, got 'zzz'"),
        ("trainer._args_=5", "trainer._args_ must be a list, got '5'"),
    ],
)
def test_hydra_s_own_keys_are_checked_too(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_config(compose(overrides=[override]))


@pytest.mark.parametrize("key", ["push_to_hub", "hub_model_id", "hub_token"])
def test_a_run_folder_does_not_say_where_results_go(key: str, tmp_path: Path) -> None:
    cfg = OmegaConf.to_container(compose(), resolve=True)
    assert isinstance(cfg, dict)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(cfg), encoding="utf-8")
    assert load_run_config(tmp_path).resume == str(tmp_path)
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb/settings").write_text("[default]\nbase_url = http://127.0.0.1:1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="could send your key elsewhere"):
        load_run_config(tmp_path)
    cfg["trainer"][key] = "x"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(cfg), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"trainer\.{key} would upload with your account"):
        load_run_config(tmp_path)


@pytest.mark.parametrize("path", sorted((repo_root() / "conf").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_field_of_conf_has_a_comment(path: Path) -> None:
    rows = list(fields(path.read_text(encoding="utf-8")))
    explained = {name for name, _, comment in rows if comment}
    lists = {name for name in explained if name.endswith("labels")}  # whose entries are data
    bare = [name for name, default, _ in rows if default and name not in explained]
    assert [name for name in bare if name.rpartition(".")[0] not in lists] == []
