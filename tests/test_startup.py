"""What a command imports: only what it needs, so that it answers at once. No clock is involved."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from programs import run_program

from vglm.caching import cache_folder
from vglm.config import repo_root
from vglm.config.places import ensure_home

LIBRARIES = {"torch", "transformers", "peft", "datasets", "pandas", "accelerate", "bitsandbytes", "wandb"}
OF_SCORES_AND_PICTURES = {
    "scipy",
    "nltk",
    "sacrebleu",
    "numpy",
    "PIL",
    "pyarrow",
    "pydicom",
    "pydantic",
    "rich",
    "jinja2",
}
COMPILER = {"torch._inductor.compile_fx", "pandas", "datasets.arrow_dataset", "wandb.sdk"}


def _imported(*command: str, folder: Path, expected: int = 0) -> set[str]:
    """The modules that ran in a command."""
    environment = {**os.environ, "PYTHONPATH": str(repo_root() / "src"), "VGLM_CACHE": str(folder / "cache")}
    full = [sys.executable, "-X", "importtime", *command]
    done = subprocess.run(full, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    messages = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == expected, "\n".join(messages)
    assert re.match(r"(vglm \w+|\w+\.py): (reading|looking) ", messages[0])  # before anything else
    return set(re.findall(r"import time: +\d+ \| +\d+ \| +(\S+)$", done.stderr, re.MULTILINE))


def test_a_config_error_needs_no_library(tmp_path: Path) -> None:
    script = str(repo_root() / "train.py")
    wrong = ["max_length=abc", "method.rr=4", "trainer.max_steps=many", "model.dtype=3", "dataset.pth=x"]
    of_functions = ["max_length=abc", "answers=foo", "packing=-3", "feature_cache=maybe"]
    for mistakes in (wrong, of_functions, ["recipes=background/lorra"], ["max_length={"]):
        modules = _imported(script, *mistakes, folder=tmp_path, expected=2)
        assert "omegaconf" in modules
        assert not modules & (LIBRARIES | OF_SCORES_AND_PICTURES)
    script = str(repo_root() / "evaluate.py")
    for mistakes in (["dataset=own"], ["dataset=scenes", "temperature=abc", "repeats=-3"], ["metrics=vqaa"]):
        modules = _imported(script, "model=visualglm_tiny", *mistakes, folder=tmp_path, expected=2)
        assert not modules & (LIBRARIES | OF_SCORES_AND_PICTURES)


def test_a_mistake_in_a_command_of_stored_answers_needs_no_library(tmp_path: Path) -> None:
    golden = str(repo_root() / "tests" / "golden" / "evaluation")
    for command in (
        ["score", "nowhere", "metrics.names=[chrf]"],
        ["score", golden, "metrics.names=[foo]"],
        ["report", "x"],
    ):
        modules = _imported("-m", "vglm", *command, folder=tmp_path, expected=2)
        assert not modules & (LIBRARIES | {"scipy", "nltk", "hydra", "pydicom"})


def test_the_doctor_needs_no_model(few_shot_folder: Path, tmp_path: Path) -> None:
    modules = _imported("-m", "vglm", "doctor", str(few_shot_folder), folder=tmp_path, expected=1)
    assert "sentencepiece" in modules
    assert not modules & (LIBRARIES - {"pandas"})


def test_training_evaluation_and_reports_load_what_they_use(few_shot_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    data = ["dataset=fewshot_background", f"dataset.path={few_shot_folder}", f"output_dir={run}"]
    short = ["trainer=debug", "trainer.max_steps=1", "trainer.use_cpu=true"]
    short += ["checkpoint_selection.score_checkpoints=false"]
    modules = _imported(str(repo_root() / "train.py"), *data, *short, folder=tmp_path)
    assert {"peft.peft_model", "transformers.trainer_pt_utils", "bitsandbytes.nn"} <= modules
    assert not modules & COMPILER

    many = tmp_path / "many.jsonl"  # long enough for a table
    many.write_text("".join(f'{{"question": "q{row}", "answer": "a{row}"}}\n' for row in range(2100)))
    own = ["dataset=own", f"dataset.path={many}", f"output_dir={tmp_path / 'other'}"]
    modules = _imported(str(repo_root() / "train.py"), *own, *short, folder=tmp_path)
    assert "pyarrow" in modules
    assert not modules & COMPILER

    small = ["max_new_tokens=2", "image_use=false", "baselines=false", "shots_in_context=0", "splits=[train]"]
    modules = _imported(str(repo_root() / "evaluate.py"), f"run={run}", *small, folder=tmp_path)
    assert "peft.peft_model" in modules
    assert not modules & COMPILER

    again = [f"run={run}", *small, "metrics=vqa"]  # the answers are stored
    assert not _imported(str(repo_root() / "evaluate.py"), *again, folder=tmp_path) & LIBRARIES

    modules = _imported("-m", "vglm", "report", str(run / "evaluation"), folder=tmp_path)
    assert not modules & LIBRARIES


def test_training_a_quantised_model_with_an_8_bit_optimizer_works_as_before(
    few_shot_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = run_program(  # its libraries are put off as in a process that begins with nothing
        *(str(repo_root() / "train.py"), "dataset=fewshot_background", f"dataset.path={few_shot_folder}"),
        *("method=qlora", "trainer=debug", "trainer.max_steps=1", "trainer.optim=adamw_8bit", f"output_dir={run}"),
        *("checkpoint_selection.score_checkpoints=false", "trainer.use_cpu=true"),
    )
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["quantization"] == "nf4"
    assert (run / "adapter" / "adapter_model.safetensors").is_file()


def _run(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(repo_root() / "src")}
    command = [sys.executable, "-c", f"import sys\nfrom vglm.config.lazy import defer\ndefer()\ndefer()\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout


def test_a_library_that_is_put_off_is_the_same_once_it_is_used() -> None:
    code = """
import importlib.util, datasets
from transformers.utils import is_datasets_available
assert importlib.util.find_spec("datasets") is not None and is_datasets_available()
stand_in = datasets.Dataset
assert not isinstance([], stand_in) and "pandas" not in sys.modules
from datasets.features import Value
import datasets.arrow_dataset
assert datasets is sys.modules["datasets"] and datasets.Value is Value
assert datasets.Dataset is datasets.arrow_dataset.Dataset is not stand_in
table = stand_in.from_dict({"a": [1, 2]})
assert isinstance(table, datasets.Dataset) and isinstance(table, stand_in) and table["a"][1] == 2
print(datasets.__version__)
"""
    assert _run(code).strip()


def test_a_table_of_pictures_inside_larger_files_needs_no_pandas(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from vglm.data.outline import Outline
from vglm.data.sample import Sample, Turn
from vglm.data.slices import ImageSlice
from vglm.data.table import write_table
pictures = [None, Path("/a.png"), ImageSlice(Path("/b.tar"), 512, 9), ImageSlice(Path("/c.tsv"), 0, 8, is_base64=True)]
samples = [Sample(f"x#{{row}}", "g", picture, (Turn("?", "!"),)) for row, picture in enumerate(pictures)]
table = write_table(Path({str(tmp_path / "t.arrow")!r}), samples)
assert list(table) == samples and len(Outline.of(table)) == 4
print("pandas" in sys.modules)
"""
    assert _run(code).strip() == "False"


def test_what_bitsandbytes_compiles_is_compiled_when_it_is_called() -> None:
    code = """
import torch
compile_now = torch.compile
import bitsandbytes
assert torch.compile is compile_now and "torch._inductor.compile_fx" not in sys.modules
layer = torch.nn.Linear(64, 64)
optimizer = bitsandbytes.optim.AdamW8bit(layer.parameters(), min_8bit_size=16)
before = layer.weight.detach().clone()
layer(torch.ones(1, 64)).sum().backward()
optimizer.step()
print(not torch.equal(before, layer.weight))
"""
    assert _run(code).strip().endswith("True")


def test_transformers_looks_through_its_models_once_and_finds_the_same() -> None:
    code = """
import builtins
opened, open_now = [], builtins.open
builtins.open = lambda path, *arguments, **options: opened.append(str(path)) or open_now(path, *arguments, **options)
import transformers.models
from transformers.utils import import_utils
builtins.open = open_now
opened = [path for path in opened if path.endswith("modeling_bloom.py")]
folder = transformers.models.__path__[0]
scan = import_utils.create_import_structure_from_path
assert scan(folder) is scan(folder + "/__init__.py")
import importlib
sys.meta_path.pop(0)
assert importlib.reload(import_utils).create_import_structure_from_path(folder) == scan(folder)
print(len(opened))
"""
    assert _run(code).strip() == "1"


def test_a_user_without_a_home_gets_a_private_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import pwd
    import tempfile

    def unknown(_: int) -> None:
        raise KeyError

    for name in ("HOME", "VGLM_CACHE", "XDG_CACHE_HOME", "USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "to be restored")
    monkeypatch.setenv("USER", "to be restored")
    del os.environ["HOME"], os.environ["USER"]
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = cache_folder("features")
    assert folder.is_relative_to(tmp_path)
    assert oct(Path(os.environ["HOME"]).stat().st_mode)[-3:] == "700"
    assert cache_folder("features") == folder
    first = os.environ.pop("HOME")
    Path(first).rmdir()
    Path(first).symlink_to(tmp_path)  # someone else was there before
    ensure_home()
    assert os.environ["HOME"] != first
