"""What all tests share: one thread a process, a home of their own, no network, the opt-in marks, two small folders."""

import gc
import json
import os
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

_HOME = tempfile.TemporaryDirectory(prefix="vglm-tests-", ignore_cleanup_errors=True)
# Before torch is imported, and for the processes that tests start. What tests write stays out of the user's
# folders, what lies there does not reach the tests; more threads on few cores are slower by far.
os.environ.update(
    HOME=_HOME.name, XDG_CACHE_HOME=f"{_HOME.name}/.cache", VGLM_CACHE=f"{_HOME.name}/vglm", OMP_NUM_THREADS="1",
    HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", WANDB_MODE="disabled", ACCELERATE_USE_CPU="true",
)  # fmt: skip
for _name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "HF_HOME", "HF_DATASETS_CACHE", "TORCH_HOME", "NETRC"):
    os.environ.pop(_name, None)
# No test fails for being slow: a first call may import a library, and the machine may be busy.
settings.register_profile("workbench", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("workbench")

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "tests" / "reference" / "visualglm-mini-a"
LONGEST = (
    *("evaluate", "shards", "batch_cutting", "recipes", "notebooks", "readme", "startup", "statistics"),
    *("shared_training", "train", "tuning_trainer", "certificate", "sweep", "serving_parallel", "sat_fine_tunes"),
)
NAMES, CHANGED, FILE = pytest.StashKey[set[str]](), pytest.StashKey[list[str]](), pytest.StashKey[Path]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest; skip what this machine cannot run, with the reason."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem.removeprefix("test_"), len(ranks)))
    for item in items:
        for variable, mark in (("VGLM_REAL_DATA", "real_data"), ("VGLM_WEIGHTS", "weights")):
            if item.get_closest_marker(mark) and not os.environ.get(variable):
                item.add_marker(pytest.mark.skip(reason=f"set {variable} to a folder to run it"))
        if item.get_closest_marker("gpu") and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_collection_finish() -> None:
    """Take what was imported out of the garbage collector's rounds: a training asks for several, of all objects."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """The same of what the tests of the last file imported."""
    last = item.config.stash.get(FILE, None)
    item.config.stash[FILE] = item.path
    if last not in (None, item.path):
        gc.collect()
        gc.freeze()


@cache
def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _names() -> set[str]:
    """What lies in the repository, but for caches and environments."""
    names = set()
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [
            folder for folder in folders if not folder.startswith((".", "__pycache__")) and "egg-info" not in folder
        ]
        names |= {os.path.relpath(os.path.join(folder, name), ROOT) for name in (*folders, *files)}
    return names


def pytest_sessionstart(session: pytest.Session) -> None:
    """Remember the repository as it was."""
    session.config.stash[NAMES] = _names()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where tests left something in the repository, or took something away."""
    changed = sorted(_names() ^ session.config.stash[NAMES])
    if changed and not hasattr(session.config, "workerinput"):  # one process looks after those that xdist starts
        session.config.stash[CHANGED] = changed
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was skipped, and what the tests left in the repository."""
    skipped = [
        report.longrepr for report in terminalreporter.stats.get("skipped", []) if isinstance(report.longrepr, tuple)
    ]
    reasons = Counter(reason.removeprefix("Skipped: ") for _, _, reason in skipped)
    terminalreporter.write_line(f"{len(skipped)} tests skipped" + (":" if skipped else ""))
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"  {count:3} x {reason}")
    if changed := config.stash.get(CHANGED, []):
        message = f"ERROR: tests must write to tmp_path; in the repository came or went: {', '.join(changed[:5])}"
        terminalreporter.write_line(message, red=True)


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
    from vglm.model.loading import save_native
    from vglm.worlds.initialization import initialize_model

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
