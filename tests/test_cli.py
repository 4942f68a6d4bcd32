"""The `vglm` command: quick help, exit codes, convert."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vglm.cli import main
from vglm.model.loading import load_pretrained


@pytest.mark.parametrize("arguments", [["--help"], ["convert", "--help"]])
def test_help_shows_an_example_without_heavy_imports(arguments: list[str]) -> None:
    code = (
        "import sys, atexit\n"
        "heavy = {'torch', 'transformers', 'peft', 'hydra', 'numpy'}\n"
        "atexit.register(lambda: print('heavy:', sorted(heavy & set(sys.modules))))\n"
        f"from vglm.cli import main; main({arguments!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment())
    assert "example: vglm convert" in done.stdout
    assert "heavy: []" in done.stdout


def test_python_m_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vglm", "--version"], capture_output=True, text=True, check=True, env=_environment()
    )
    assert done.stdout.startswith("vglm ")


def test_convert_writes_a_native_checkpoint(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, destination = str(reference / "sat_layout"), tmp_path / "native"
    arguments = ["convert", source, str(destination), "--tokenizer", str(reference / "hf_layout"), "--dtype", "float32"]
    assert main(arguments) == 0
    assert f"wrote {destination}" in capsys.readouterr().out
    converted, processor = load_pretrained(destination)
    original, _ = load_pretrained(source, tokenizer=reference / "hf_layout", dtype="float32")
    inputs = processor(text="你好", return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(converted(**inputs).logits, original(**inputs).logits)


def test_ctrl_c_leaves_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vglm.model.export.convert", interrupted)
    assert main(["convert", "anything", str(tmp_path / "native")]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_bad_input_is_one_message_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert "nowhere: there is no such folder" in errors
    assert len(errors.splitlines()) == 1
    (tmp_path / "empty").mkdir()
    assert main(["convert", str(tmp_path / "empty"), str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
