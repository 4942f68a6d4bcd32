"""What all tests share: one thread a process, no network, the opt-in marks, the reference data, two small folders."""

import json
import os
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: more threads on few cores are slower by far
os.environ.update(ACCELERATE_USE_CPU="true", HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", WANDB_MODE="disabled")

from pathlib import Path

import pytest
import torch
from hypothesis import settings
from PIL import Image

torch.set_num_threads(1)
_CACHE = tempfile.TemporaryDirectory(prefix="vglm-tests-", ignore_cleanup_errors=True)
os.environ["VGLM_CACHE"] = _CACHE.name  # what tests encode stays out of the user's cache
settings.register_profile("workbench", deadline=None)  # a first call may import a library
settings.load_profile("workbench")

REFERENCE = Path(__file__).parent / "reference" / "visualglm-mini-a"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, with the reason."""
    for item in items:
        for variable, mark in (("VGLM_REAL_DATA", "real_data"), ("VGLM_WEIGHTS", "weights")):
            if item.get_closest_marker(mark) and not os.environ.get(variable):
                item.add_marker(pytest.mark.skip(reason=f"set {variable} to a folder to run it"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def real_data() -> Path:
    """The folder of the real data sets; only for tests marked `real_data`."""
    return Path(os.environ["VGLM_REAL_DATA"])


@pytest.fixture(scope="session")
def reference() -> Path:
    """The miniature VisualGLM in the original's layouts, and the numbers that the original computed with it."""
    return REFERENCE


@pytest.fixture(scope="session")
def random_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A native checkpoint of every part of the architecture, with two language-model layers and random weights."""
    from vglm.model.initialization import initialize_model
    from vglm.model.loading import save_native

    model, processor = initialize_model(
        REFERENCE / "hf_layout",
        text_config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        qformer_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "vocab_size": 8,
        },
        num_image_tokens=4,
    )
    folder = tmp_path_factory.mktemp("models") / "random_tiny"
    save_native(model, processor, folder)
    return folder


@pytest.fixture(scope="session")
def few_shot_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six plain pictures and the published format's `dataset.json`; the answer is the colour."""
    folder = tmp_path_factory.mktemp("few_shot")
    colours = {"红色": "red", "绿色": "green", "蓝色": "blue", "黄色": "yellow", "白色": "white", "黑色": "black"}
    rows = []
    for name, colour in colours.items():
        Image.new("RGB", (30, 20), colour).save(folder / f"{colour}.png")
        rows.append({"img": f"{colour}.png", "prompt": "背景是什么颜色？", "label": f"{name}。"})
    (folder / "dataset.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return folder
