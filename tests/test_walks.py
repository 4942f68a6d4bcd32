"""What a researcher adds, each in the files that docs/howto/extending.md shows, which are those that run here.

More of a metric: test_pipeline; of a section: test_report_sections. Ten lines without Hydra: test_api.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from golden import make_evaluation
from safetensors.torch import load_file

from train import run
from vglm.config import allow_targets, check_config, compose, repo_root
from vglm.data import readers
from vglm.data.loading import load_dataset
from vglm.errors import DataError
from vglm.evaluation.report import render, sections
from vglm.evaluation.score.scoring import rescore

PAGE = repo_root() / "docs" / "howto" / "extending.md"


def from_page(name: str) -> str:
    """A file as the page about extending has it."""
    match = re.search(
        rf"^`[^`]*{re.escape(name)}`:\n\n```\w+\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert match is not None, name
    return match[1]


@pytest.fixture
def pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The readers with one module more."""
    folder = tmp_path / "formats"
    folder.mkdir()
    (folder / "pipes.py").write_text(from_page("readers/pipes.py"), encoding="utf-8")
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
    data.write_text(f"{picture} | 这是什么？\n", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"mine\.pipes:1: expected picture \| question \| answer, found .*fix: write two bars"
    ):
        load_dataset(data)


def test_a_tuning_method_is_one_file(random_model_folder: Path, few_shot_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "method"
    folder.mkdir(parents=True)
    (folder / "loha.yaml").write_text(from_page("method/loha.yaml"), encoding="utf-8")
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


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the stored evaluation, beside packages that Python imports from."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Path(shutil.copytree(make_evaluation.FOLDER, tmp_path / "evaluation"))
    for name in ("my_package", "my_sections.sizes", "my_sections"):
        sys.modules.pop(name, None)


def test_a_metric_is_a_function(stored: Path) -> None:
    (stored.parent / "my_package.py").write_text(from_page("my_package.py"), encoding="utf-8")
    allow_targets("my_package")
    custom = {"terms": {"_target_": "my_package.term_recall", "terms": ["红", "海"]}}
    comparison = rescore(stored, {"names": ["terms"], "custom": custom})
    assert comparison.as_dict()["primary"] == "terms"
    assert 0 <= comparison.as_dict()["splits"]["test"]["scores"]["terms"]["values"]["after"] <= 1


def test_a_section_is_a_package(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = stored.parent / "my_sections" / "sizes"
    package.mkdir(parents=True)
    for name in ("__init__.py", "section.html.j2", "section.md.j2", "messages.yaml"):
        (package / name).write_text(from_page(f"my_sections/sizes/{name}"), encoding="utf-8")
    monkeypatch.setattr(sections, "SECTIONS", [*sections.SECTIONS, "my_sections.sizes"])
    report = render(stored).parent
    page = (report / "index.html").read_text(encoding="utf-8")
    assert "Sizes of the splits" in page.partition('<section id="sizes">')[2]
    assert "## Sizes of the splits" in (report / "report.md").read_text(encoding="utf-8")
    assert "报告含 2 个部分。" in (report / "report.zh.md").read_text(encoding="utf-8")
