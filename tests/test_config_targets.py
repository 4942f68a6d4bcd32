"""What configs may build: nothing from strangers is imported, and no name leads out of its package."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import run_record
from omegaconf import DictConfig, OmegaConf

from vglm.cli import main as vglm
from vglm.config import allow_targets, build, check_config, compose, entry_point, read_run_values, repo_root, targets
from vglm.errors import ConfigError

PAYLOAD = "from pathlib import Path\nimport os\nPath({marker!r}).touch()\ndef load(**_):\n    return os\n"


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package and a namespace `outputs` on the way; the file that appears if either is imported."""
    marker = tmp_path / "was-here"
    for folder in ("strange_package", "outputs/run"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "payload.py").write_text(PAYLOAD.format(marker=str(marker)))
    (tmp_path / "strange_package" / "__init__.py").write_text(PAYLOAD.format(marker=str(marker)))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(targets, "_allowed", set())
    yield marker
    for name in [module for module in sys.modules if module.partition(".")[0] in ("strange_package", "outputs")]:
        del sys.modules[name]


STRANGE = "strange_package.payload.load"


@pytest.mark.parametrize(
    "component",
    [
        {"_target_": STRANGE},
        {"_target_": "outputs.run.payload.load"},
        {"_target_": STRANGE, "_partial_": True},
        {"_target_": "peft.LoraConfig", "r": {"_target_": STRANGE}},
        {"_target_": "peft.LoraConfig", "target_modules": [[{"_target_": STRANGE}]]},
        {"_target_": "peft.LoraConfig", "_args_": [{"_target_": STRANGE}]},
        {"_target_": "${.name}", "name": STRANGE},
        {"name": STRANGE, "nested": {"_target_": "${..name}"}},
        {"_target_": "peft.LoraConfig", "r": "${result_of:strange_package.payload.load,${..other}}"},
    ],
)
def test_a_stranger_s_component_is_not_even_imported(component: dict[str, Any], marker: Path) -> None:
    from vglm.config import register_resolvers

    register_resolvers()
    cfg = OmegaConf.create({"method": component, "other": {"path": "x"}})
    with pytest.raises(Exception, match="may not be built"):
        build(cfg.method)
    with pytest.raises(ConfigError, match="may not be built"):
        check_config(cfg)
    assert not marker.exists()


@pytest.mark.parametrize(
    "target",
    [
        *("os.system", "builtins.eval", "subprocess.run", "pathlib.Path.unlink", "shutil.rmtree", "torch.load"),
        *("vglm.config.build", "vglm.config.app.os.system", "vglm.config.targets.hydra.utils.call", "vglm.cli.main"),
        *("vglm.caching.clear_folder", "vglm.files.write_text", "vglm.model.export.convert", "vglm.model.loading"),
        *("transformers.pipeline", "transformers.utils.import_utils.importlib.import_module", "transformers.Trainer"),
        *(
            "peft.utils.other.torch.load",
            "peft.get_peft_model",
            "peft.LoraConfig.from_pretrained",
            "peft.config.os.system",
        ),
        *("hydra.utils.get_method", "hydra.utils.instantiate", "functools.partial", "importlib.import_module"),
        *(
            "",
            ".",
            "a",
            "peft.",
            ".LoraConfig",
            "peft..LoraConfig",
            "vglm/data",
            "peft.LoraConfig()",
            5,
            None,
            ["peft.LoraConfig"],
        ),
    ],
)
def test_only_components_are_built(target: object) -> None:
    with pytest.raises(ConfigError, match=r"may not be built|is no name of a component"):
        build({"_target_": target, "path": "x"})


def test_what_the_user_names_may_be_built_but_does_not_lead_out_of_its_package(marker: Path) -> None:
    allow_targets("strange_package")
    assert build({"_target_": STRANGE}) is os
    check_config(OmegaConf.create({"model": {"_target_": STRANGE, "anything": 1}}))
    assert marker.exists()
    for target in ("strange_package.os.system", "strange_package.payload.os.path.join", "strange_package.payload.Path"):
        with pytest.raises(ConfigError, match=r"leads into|nothing of strange_package's own"):
            build({"_target_": target})
    with pytest.raises(ConfigError, match="may not be built"):
        build({"_target_": "strange_package_2.load"})


def test_a_folder_is_no_package_even_if_named(marker: Path) -> None:
    allow_targets("outputs")
    with pytest.raises(ModuleNotFoundError, match=r"outputs is a folder without __init__\.py"):
        build({"_target_": "outputs.run.payload.load"})
    assert not marker.exists()


@pytest.mark.parametrize("arguments", [["--allow-target", "strange_package"], ["--allow-target=strange_package"]])
def test_the_command_line_allows_a_package(
    arguments: list[str], marker: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built: list[object] = []

    @entry_point("train")
    def main(cfg: DictConfig) -> None:
        built.append(build(cfg.model))

    monkeypatch.setattr("sys.argv", ["train.py", *arguments, f"model._target_={STRANGE}"])
    main()
    assert built == [os]
    monkeypatch.setattr("sys.argv", ["train.py", "--allow-target", "../x"])
    with pytest.raises(SystemExit):
        main()
    assert "expected the name of a package" in capsys.readouterr().err


@pytest.mark.parametrize(
    "override",
    [
        f"+hydra.callbacks.x={{_target_: {STRANGE}}}",
        f"hydra.sweeper._target_={STRANGE}",
        f"hydra.launcher._target_={STRANGE}",
        f"+hydra.sweeper.params={{x: {{_target_: {STRANGE}}}}}",
        f"+hydra.sweeper.custom_search_space={STRANGE}",
    ],
)
def test_hydra_itself_builds_nothing_strange(
    override: str, marker: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @entry_point("train")
    def main(cfg: DictConfig) -> None:
        raise AssertionError("must not run")

    monkeypatch.setattr("sys.argv", ["train.py", override])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not marker.exists()


# --- the config of a run ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("trainer: ${oc.env:HOME}", r"\$\{oc\.env:HOME\}.*asks to be replaced"),
        ("trainer: {run_name: ['a', 'x ${oc.env:HOME} y']}", "asks to be replaced"),
        ("'${oc.env:HOME}': 1", "asks to be replaced"),
        ("trainer: &a {x: 1}\nmodel: *a", "YAML aliases"),
        ("trainer: !!python/object/apply:os.system [ls]", "is damaged"),
        ("a: [" * 2000, "is damaged"),
        ("[1]", r"is no config of train\.py"),
        ("1: 2", r"is no config of train\.py"),
        (b"\xff\xfe\x00", "is damaged"),
        ("a: " + "x" * 2_000_000, "at most 1,000,000 were expected"),
    ],
)
def test_nothing_in_a_run_s_config_is_resolved(text: str | bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=expected) as caught:
        read_run_values(path)
    assert len(str(caught.value)) < 1000 + len(str(tmp_path))


@pytest.fixture
def hostile_run(marker: Path) -> Path:
    """A finished run whose model and data are to be made by a module in its folder."""
    folder = marker.parent / "outputs" / "run"
    cfg = compose(overrides=["recipe=run", "output_dir=outputs/run"])
    cfg.model = cfg.dataset = {"_target_": "outputs.run.payload.load"}
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    (folder / "run.json").write_text(json.dumps(run_record()))
    (folder / "adapter").mkdir()
    return folder


@pytest.mark.parametrize("command", [["evaluate.py", "run=latest"], ["train.py", "resume=outputs/run"]])
def test_a_run_folder_executes_nothing(command: list[str], hostile_run: Path, marker: Path) -> None:
    working_directory = marker.parent
    if command[0] == "train.py":
        (hostile_run / "adapter").rmdir()
    environment = {**os.environ, "PYTHONPATH": f"{repo_root() / 'src'}{os.pathsep}{working_directory}"}
    script, *arguments = command
    done = subprocess.run(
        [sys.executable, str(repo_root() / script), *arguments],
        capture_output=True,
        text=True,
        cwd=working_directory,
        env=environment,
        check=False,
    )
    assert done.returncode == 2
    assert "outputs.run.payload.load may not be built" in done.stderr
    assert "Traceback" not in done.stderr
    assert not marker.exists()


def test_merging_a_run_executes_nothing(
    hostile_run: Path, marker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vglm(["merge", str(hostile_run), "--output", str(tmp_path / "merged")]) == 2
    assert "outputs.run.payload.load may not be built" in capsys.readouterr().err
    assert not marker.exists()
    assert not (tmp_path / "merged").exists()


def test_the_folder_of_a_script_is_not_imported_from(tmp_path: Path) -> None:
    (tmp_path / "wandb").mkdir()  # as Weights & Biases itself leaves it where it ran
    (tmp_path / "wandb" / "__init__.py").write_text("raise AssertionError('imported')")
    script = tmp_path / "script.py"
    script.write_text(
        "from vglm.config.app import prepare_process\nprepare_process()\nimport wandb\nprint(wandb.__file__)"
    )
    environment = {**os.environ, "PYTHONPATH": str(repo_root() / "src")}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=tmp_path, env=environment, check=True
    )
    assert str(tmp_path) not in done.stdout


def test_what_builds_code_of_others_is_built_at_every_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab_scores").mkdir()
    (tmp_path / "lab_scores" / "__init__.py").write_text(
        "from pathlib import Path\nfrom vglm.evaluation.score.metrics import EXACT_MATCH\n"
        "def own(file):\n    Path(file).read_text()\n    return EXACT_MATCH\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(targets, "_allowed", {"lab_scores"})
    file = tmp_path / "words.txt"
    file.touch()
    own = {"mine": {"_target_": "lab_scores.own", "file": str(file)}}
    metrics = {"_target_": "vglm.evaluation.score.settings.MetricSettings", "names": ["mine"], "custom": own}
    check_config({"metrics": metrics}, "evaluate")
    file.unlink()
    with pytest.raises(ConfigError, match=r"words\.txt"):
        check_config({"metrics": metrics}, "evaluate")
