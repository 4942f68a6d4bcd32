"""Run folders from anywhere: what is whole is read, what is damaged or forged is refused in one message."""

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import run_record
from hypothesis import given
from hypothesis import strategies as st

from vglm.errors import LONGEST_MESSAGE, AdapterError, CheckpointError, ConfigError, WorkbenchError
from vglm.runs import CheckpointScore, LogLine, Run

CONFIG = {name: {"_target_": f"x.{name}"} for name in ("model", "dataset", "method", "trainer")}
SCORE = {"step": 0, "domain": 0.5, "retention": None, "domain_n": 4, "retention_n": 0}


def write_run(folder: Path, result: str | None = "adapter", **values: Any) -> Path:
    """A run folder as a training leaves it."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / "run.json").write_text(json.dumps(run_record(**values)))
    if result is not None:
        (folder / result).mkdir()
    return folder


def test_a_run_says_what_its_files_say(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", seed=7, data={"train": 9, "plan": {"protocol": {"name": "k_fold", "fold": 1}}})
    (folder / "log.jsonl").write_text('{"step": 5, "loss": 1.5, "epoch": 1.0}\n{"step": 5, "train_runtime": 3.0}\n')
    (folder / "forgetting.jsonl").write_text(f'{json.dumps(SCORE)}\n{{"step": 5, "dom')
    (folder / "splits.json").write_text('{"files": {"a": "0"}, "splits": {"test": {"sha256": "1", "samples": 3}}}')
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"12345")
    run = Run.open(folder)
    assert run.config == CONFIG
    assert (run.record.seed, run.record.data.train, run.record.version) == (7, 9, 1)
    assert run.record.data.plan.protocol is not None
    assert run.record.data.plan.protocol.fold == 1
    assert (run.result, run.adapter, run.is_verified, run.size) == (folder / "adapter", folder / "adapter", True, 5)
    assert run.log == [LogLine(step=5, loss=1.5), LogLine(step=5)]
    assert run.checkpoint_scores == [CheckpointScore(**SCORE)]  # type: ignore[arg-type]
    assert run.splits is not None
    assert run.splits.splits["test"].sha256 == "1"
    assert not run.is_evaluated
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "evaluation.json").touch()
    assert run.is_evaluated
    assert run.evaluations == [folder / "evaluation"]


def test_a_run_without_the_files_of_later_versions_is_read(tmp_path: Path) -> None:
    run = Run.open(write_run(tmp_path / "run", result="model"))
    assert (run.log, run.checkpoint_scores, run.splits, run.adapter) == ([], [], None, None)
    assert (run.record.forgetting, run.record.data.plan.protocol, run.record.data.train_images) == (None, None, None)
    (run.folder / "run.json").write_text(json.dumps(run_record(version=2)))
    with pytest.raises(AdapterError, match="version 2, this workbench reads up to 1"):
        _ = Run(run.folder).record


def test_a_result_that_failed_its_check_is_taken_only_when_told(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "outputs" / "run", result="adapter.unverified")
    with pytest.raises(ConfigError, match=r"holds adapter\.unverified/ alone.*unverified=true"):
        Run.open(folder)
    with pytest.raises(WorkbenchError, match="holds no finished run"):
        Run.latest(tmp_path)
    run = Run.open(folder, unverified=True)
    assert (run.adapter, run.is_verified) == (folder / "adapter.unverified", False)
    assert Run.latest(tmp_path, unverified=True).folder == folder
    (folder / "adapter").mkdir()
    assert Run.open(folder, unverified=True).result == folder / "adapter"


def test_what_is_no_finished_run_is_told_what_it_can_be_used_for(tmp_path: Path) -> None:
    begun = write_run(tmp_path / "begun", result=None)
    with pytest.raises(ConfigError, match=r"continue the run: (python train\.py|vglm train) resume="):
        Run.open(begun)
    merged = tmp_path / "merged"
    merged.mkdir()
    (merged / "config.json").touch()
    with pytest.raises(ConfigError, match=r"looks like a model.*model\.path_or_id=") as caught:
        Run.open(merged)
    assert "resume=" not in str(caught.value)


def test_latest_is_the_last_started_of_the_finished_ones(tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match="no finished run"):
        Run.latest(tmp_path)
    write_run(tmp_path / "a/1", started="2026-01-02")
    write_run(tmp_path / "b/2", started="2026-01-01T12:00:00+00:00")
    write_run(tmp_path / "b/3", started="2027", result=None)
    assert Run.latest(tmp_path).folder == tmp_path / "a/1"
    assert [run.folder.name for run in Run.find([tmp_path, tmp_path / "a"])] == ["1", "2"]


def test_latest_passes_over_what_is_damaged_or_forged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write_run(tmp_path / "good", started="2026-01-01")
    tomorrow = datetime.now(UTC) + timedelta(days=3)
    for name, started in (("9999", "9999"), ("year", "9999-01-01"), ("soon", tomorrow.isoformat()), ("no", 5)):
        write_run(tmp_path / name, started=started)
    os.utime(write_run(tmp_path / "dated", started=tomorrow.isoformat()) / "run.json", (2**33, 2**33))
    (write_run(tmp_path / "bytes") / "run.json").write_bytes(b"\xff\xfe{}")
    (write_run(tmp_path / "cut") / "run.json").write_text('{"recipe": "x"')
    (write_run(tmp_path / "config", started="2026-02-01") / "config.yaml").write_text("[")
    (write_run(tmp_path / "none", started="2026-02-02") / "config.yaml").unlink()
    pipe = write_run(tmp_path / "pipe") / "run.json"
    pipe.unlink()
    os.mkfifo(pipe)
    assert Run.latest(tmp_path).folder == good
    warnings = capsys.readouterr().err.splitlines()
    names = ("9999", "year", "soon", "no", "dated", "bytes", "cut", "config", "none", "pipe")
    for name in names:
        assert sum(f"warning: latest passes over {tmp_path / name}: " in line for line in warnings) == 1, name
    assert len(warnings) == len(names)


def test_links_that_lead_out_of_a_run_are_not_followed(tmp_path: Path) -> None:
    victim = write_run(tmp_path / "victim")
    for name in ("config.yaml", "run.json", "adapter"):
        folder = write_run(tmp_path / f"stranger-{name}", result=None if name == "adapter" else "adapter")
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(victim / name)
        with pytest.raises(WorkbenchError, match=f"{name}' leads out of this folder"):
            _ = (run := Run.open(folder)).config, run.record
    inner = write_run(tmp_path / "own", result=None)
    (inner / "result").mkdir()
    (inner / "adapter").symlink_to("result")
    assert Run.open(inner).adapter == inner / "adapter"


CONFIGS = {
    "a: [": "is damaged",
    "- 1": "is no config of train.py",
    "1: 2": "is no config of train.py",
    "model: 5": "is no config of train.py",
    "model: {_target_: 5}": "is no config of train.py",
    "a: 2026-13-45": "is damaged",
    "a: &x [1]\nb: *x": "aliases",
    "a: ${oc.env:HOME}": "asks to be replaced by something else",
    "[" * 100_000: "is damaged",
    "a: " + "9" * 5000: "is damaged",
    "x: " + "y" * 2**20: "at most 1,000,000 were expected",
    "a: !!python/object/apply:os.system [x]": "is damaged",
}


@pytest.mark.parametrize("content", CONFIGS, ids=lambda text: text[:30])
def test_a_damaged_config_is_one_message(tmp_path: Path, content: str) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "config.yaml").write_text(content)
    with pytest.raises(ConfigError, match=CONFIGS[content]) as caught:
        _ = Run.open(folder).config
    assert len(str(caught.value)) < LONGEST_MESSAGE
    assert "config.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("run.json", lambda run: run.record),
        ("splits.json", lambda run: run.splits),
        ("log.jsonl", lambda run: run.log),
        ("forgetting.jsonl", lambda run: run.checkpoint_scores),
    ],
)
@pytest.mark.parametrize(
    "content",
    [
        b"\xff\n",
        b"[]\n",
        b"5\n",
        b'{"step": "five", "files": 5}\n',
        b'{"step": 1.5, "files": {"a": 1}, "splits": {}}\n',
        b'{"a": ' * 5000 + b"\n",
        b'{"step": ' + b"1" * 5000 + b"}\n",
        b'{"recipe": "\\ud800", "step": true}\n',
        b'{"' + b"x" * 100_000 + b'": 1}\n',
    ],
    ids=range(9),
)
def test_damaged_files_are_one_message(tmp_path: Path, name: str, read: Callable[[Run], Any], content: bytes) -> None:
    folder = write_run(tmp_path / "run")
    (folder / name).write_bytes(content)
    with pytest.raises((AdapterError, CheckpointError), match=name.replace(".", r"\.")) as caught:
        read(Run.open(folder))
    assert len(str(caught.value)) < LONGEST_MESSAGE


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(key=st.sampled_from(sorted(run_record())), value=_JSON)
def test_any_value_anywhere_in_the_record_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: Any
) -> None:
    folder = tmp_path_factory.mktemp("run")
    (folder / "run.json").write_text(json.dumps(run_record() | {key: value}))
    message = ""
    try:
        _ = Run(folder).record
    except AdapterError as error:
        message = str(error)
    assert len(message) < LONGEST_MESSAGE
    assert "run.json" in message or not message
    shutil.rmtree(folder)
