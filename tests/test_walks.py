"""What a researcher adds, each in as many files as the README says.

A metric: test_pipeline. A section of the report: test_report_sections. Ten lines without Hydra: test_api.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from train import run
from vglm.config import check_config, compose, repo_root
from vglm.data import readers
from vglm.data.loading import load_dataset

FORMAT = """
from vglm.data.sample import Sample, Turn

NAME = "pipes"
SCHEMA = "lines of picture | question | answer"


def recognises(path):
    return path.suffix == ".pipes"


def read(path, *, image_dir=None, name):
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        image, question, answer = (part.strip() for part in line.split("|"))
        row = f"{name}#{number}"
        yield Sample(row, row, (image_dir or path.parent) / image, (Turn(question, answer),))
"""
METHOD = """
_target_: peft.LoHaConfig
_convert_: all
task_type: CAUSAL_LM
r: 2
alpha: 4
target_modules: .*language_model\\.layers\\.\\d+\\.attention\\.query_key_value
"""


@pytest.fixture
def pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The readers with one module more."""
    folder = tmp_path / "formats"
    folder.mkdir()
    (folder / "pipes.py").write_text(FORMAT, encoding="utf-8")
    monkeypatch.setattr(readers, "__path__", [*readers.__path__, str(folder)])
    readers.formats.cache_clear()
    yield
    sys.modules.pop("vglm.data.readers.pipes", None)
    readers.formats.cache_clear()


@pytest.mark.usefixtures("pipes")
def test_a_data_format_is_one_module(few_shot_folder: Path, tmp_path: Path) -> None:
    picture = next(path for path in sorted(few_shot_folder.rglob("*")) if path.suffix in (".png", ".jpg"))
    data = tmp_path / "mine.pipes"
    data.write_text(f"{picture} | 这是什么？ | 海。\n{picture} | What is it? | The sea.\n", encoding="utf-8")
    assert readers.recognise(data).NAME == "pipes"
    assert [sample.answer for sample in load_dataset(data).train] == ["海。", "The sea."]


def test_a_tuning_method_is_one_file(random_model_folder: Path, few_shot_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "method"
    folder.mkdir(parents=True)
    (folder / "loha.yaml").write_text(METHOD, encoding="utf-8")
    overrides = [
        f"hydra.searchpath=[file://{repo_root()},file://{folder.parent}]",
        "method=loha",
        f"model.path_or_id={random_model_folder}",
        "dataset=fewshot_background",
        f"dataset.path={few_shot_folder}",
        "trainer.max_steps=2",
        "trainer.per_device_train_batch_size=2",
        "checkpoint_selection.score_checkpoints=false",
        f"output_dir={tmp_path / 'run'}",
    ]
    cfg = compose(overrides=overrides)
    check_config(cfg)
    weights = load_file(run(cfg) / "adapter" / "adapter_model.safetensors")
    assert any("hada_w1" in name and bool(torch.count_nonzero(weight)) for name, weight in weights.items())
