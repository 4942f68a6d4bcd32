"""Overrides of any kind end in a config or in one short message."""

import os
import subprocess
import sys
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vglm.config import check_config, compose, repo_root
from vglm.config.overrides import loosen
from vglm.errors import ConfigError, message_of

_KEYS = """
seed method method.r dataset dataset.path resume run output_dir recipes recipe trainer.max_steps learning_rates task
checkpoint_selection.retention splits metrics.names model._target_ sed a.b.c
"""
KEYS = st.sampled_from(_KEYS.split())
SIGNS = st.sampled_from(["", "", "", "+", "++", "~"])
VALUES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["null", "", "true", "1e999", "-1", "{a: 1}", "[1, 2]", "1,2", "${seed}", "${x", "lora", "range(1,3)"]
    ),
    st.sampled_from(["${oc.env:HOME}", "${repo_root:}", "???", "[[]]", "{}", "'", '"', "\\", "a=b", "*", "&a", "!!x"]),
    st.integers().map(str),
    st.floats().map(str),
)
ARGUMENTS = st.lists(st.builds(lambda sign, key, value: f"{sign}{key}={value}", SIGNS, KEYS, VALUES), max_size=3)


@pytest.mark.parametrize("config_name", ["train", "evaluate"])
@given(arguments=ARGUMENTS)
@example(arguments=["=" + "[" * 2000 + "]" * 2000])
@example(arguments=["allow_leakage." + "a" * 5000 + "=1"])
@example(arguments=["method=\ud83d"])
@settings(max_examples=25)
def test_any_overrides_are_composed_or_refused_in_a_few_words(config_name: str, arguments: list[str]) -> None:
    try:
        check_config(compose(config_name, arguments), config_name)
    except ConfigError as error:
        message = message_of(error)
        assert 0 < len(message) < 1000
        assert message.encode("utf-8")


@pytest.mark.parametrize(
    ("config_name", "argument", "expected"),
    [
        ("train", "dataset=5", "dataset=5: name one of the files in conf/dataset/: background_synthetic, "),
        ("train", "recipes=5", "recipes=5: name one of the files in recipes/: "),
        ("evaluate", "metrics=NaN", "metrics=NaN: name one of the files in conf/metrics/"),
        ("evaluate", "model=9223372036854775808", "name one of the files in conf/model/"),
        ("train", "=" + "[" * 400 + "]" * 400, "400 brackets in each other"),
        ("train", "+checkpoint_selection.retention.per_kind=" + "[" * 400 + "]" * 400, "400 brackets in each other"),
        ("train", f"allow_leakage.{'a' * 5000}=1", "are more than any setting needs"),
        ("train", f"dataset.path={'a' * 100_000}", "are more than any setting needs"),
        ("train", "method=\ud83d", "this argument is no valid text"),
        ("train", "a." * 90 + "b=1", "a.a.a"),
        ("train", "recipe=background/qlora", "did you mean recipes=background/qlora"),
        ("train", "recipe=background/qlorra", "did you mean recipes=background/qlorra"),
    ],
)
def test_what_no_setting_looks_like_is_refused(config_name: str, argument: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_config(compose(config_name, [argument]), config_name)
    assert expected in message_of(caught.value)
    assert len(message_of(caught.value)) < 1000


def test_a_run_can_be_given_a_name_of_its_own() -> None:
    cfg = compose(overrides=["recipe=my-name"])
    check_config(cfg)
    assert cfg.recipe == "my-name"


@pytest.mark.parametrize(
    ("config_name", "argument", "expected"),
    [
        ("train", "max_length=abc", "max_length must be a positive integer, got 'abc'"),
        ("train", "answers=foo", "answers: expected one of 'every', 'last', got 'foo'"),
        ("train", "packing=-3", "packing must be a positive integer, or null for no packing, got -3"),
        ("train", "feature_cache=maybe", "feature_cache: expected bool, got 'maybe'"),
        ("train", "allow_leakage=1", "allow_leakage: expected bool, got 1"),
        ("train", "resume=true", "resume: expected str | PathLike[str] | null, got True"),
        ("train", "learning_rates=3", "learning_rates: expected Mapping"),
        ("evaluate", "batch_size=0", "batch_size must be a positive integer, got 0"),
        ("evaluate", "max_new_tokens=abc", "max_new_tokens must be a positive integer, got 'abc'"),
        ("evaluate", "splits=[foo]", "splits: expected one of 'test', 'retention', "),
        ("evaluate", "splits=tset", "did you mean `test`?"),
        ("evaluate", "run=5", "run: expected Run | str | PathLike[str] | null, got 5"),
        ("evaluate", "baselines=no_thanks", "baselines: expected bool"),
    ],
)
def test_keys_of_no_component_are_checked_with_the_others(config_name: str, argument: str, expected: str) -> None:
    overrides = [argument, "model=visualglm_tiny", "dataset=background_synthetic", "model.dtpye=float32"]
    with pytest.raises(ConfigError, match="2 problems in the config") as caught:
        check_config(compose(config_name, overrides), config_name)
    assert expected in str(caught.value)
    assert "model.dtpye" in str(caught.value)


@pytest.mark.parametrize("config_name", ["train", "evaluate"])
def test_every_key_of_a_config_has_a_type(config_name: str) -> None:
    from omegaconf import OmegaConf

    from vglm.config.settings import signature_of

    primary = OmegaConf.load(repo_root() / "conf" / f"{config_name}.yaml")
    assert {str(key) for key in primary} - {"defaults", "hydra", "task"} <= set(signature_of(config_name).parameters)


@pytest.mark.parametrize(
    ("script", "argument", "expected"),
    [
        ("train.py", "resume=true", "error: resume: expected the folder of a run"),
        ("evaluate.py", "run=5", "error: run: expected the folder of a run"),
        ("train.py", "dataset=5", "error: dataset=5: name one of the files"),
        ("train.py", "method.=", "error: "),
    ],
)
def test_the_command_line_says_what_it_does_and_ends_in_one_message(
    script: str, argument: str, expected: str, tmp_path: Path
) -> None:
    command = [sys.executable, str(repo_root() / script), argument]
    environment = {**os.environ, "PYTHONPATH": str(repo_root() / "src")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    first, message = done.stderr.split("\n", 1)
    assert done.returncode == 2
    assert first == f"{script}: reading the config"
    assert message.startswith(expected)
    assert "Traceback" not in message
    assert len(message) < 1000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (
            "metrics.custom={a: {_target_: b.c, terms: [积液, 气胸 片]}}",
            {"a": {"_target_": "b.c", "terms": ["积液", "气胸 片"]}},
        ),
        ("choices=[是,否]", ["是", "否"]),
        ('choices=["是", 否]', ["是", "否"]),
        ("a={b: c d，e , f: [g]}", {"b": "c d，e", "f": ["g"]}),
    ],
)
def test_chinese_in_a_list_or_mapping_needs_no_quotes(argument: str, expected: object) -> None:
    (loosened,) = loosen([argument], "evaluate")
    assert OverridesParser.create().parse_override(loosened).value() == expected


def test_composing_leaves_the_hydra_that_it_is_called_from_as_it_was(tmp_path: Path) -> None:
    """As `train.py` does when it resumes a run of a version that had no metrics, or a user's own Hydra program."""
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(tmp_path)):
        outer = GlobalHydra.instance().hydra
        assert compose("train", ["seed=3"]).seed == 3
        assert GlobalHydra.instance().hydra is outer
