"""A run folder is whole, says what made it, and leaves nothing half-written."""

import errno
import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
from programs import run_program

from vglm.data.loading import load_dataset
from vglm.data.splits import Leakage
from vglm.errors import ConfigError, DataError, WorkbenchError
from vglm.files import new_folder, write_text
from vglm.processes import Processes
from vglm.tuning.run_folder import (
    describe_data,
    newest_checkpoint,
    open_run,
    publish,
)


def _checkpoint(run: Path, step: int, *, is_complete: bool = True) -> Path:
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text("{}" if is_complete else '{"global_st')
    return folder


def test_newest_checkpoint_is_the_last_complete_one(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    complete = [_checkpoint(tmp_path, step) for step in (9, 100)]
    _checkpoint(tmp_path, 200, is_complete=False)
    (tmp_path / "checkpoint-300").mkdir()
    assert newest_checkpoint(tmp_path) == complete[1]


def test_a_failed_run_is_removed_with_the_folders_made_for_it(tmp_path: Path) -> None:
    def run() -> None:
        with open_run(tmp_path / "recipe" / "time") as folder:
            (folder / "config.yaml").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert list(tmp_path.iterdir()) == []


def test_a_failed_run_with_a_checkpoint_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> None:
        with open_run(tmp_path / "run") as folder:
            _checkpoint(folder, 5)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run()
    assert newest_checkpoint(tmp_path / "run") is not None
    assert f"resume={tmp_path / 'run'}" in capsys.readouterr().err


def test_a_taken_name_and_a_finished_run_are_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").touch()
    with pytest.raises(ConfigError, match=r"is taken.*resume="), open_run(run):
        pass
    (run / "adapter").mkdir()
    with pytest.raises(ConfigError, match="has finished"), open_run(run, resume=True):
        pass
    assert (run / "adapter").is_dir()


def test_a_folder_in_which_no_run_began_is_free(tmp_path: Path) -> None:
    command = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom vglm.tuning.run_folder import open_run\n"
        "sys.addaudithook(lambda event, _: event == 'os.rename' and os.kill(os.getpid(), signal.SIGKILL))\n"
        f"with open_run(Path({str(tmp_path / 'run')!r}), {{'config.yaml': 'a: 1'}}): pass"
    )
    killed = run_program("-c", command)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert ".lock" in left
    assert "config.yaml" not in left
    with open_run(tmp_path / "run", {"config.yaml": "a: 2"}) as run:
        assert {path.name for path in run.iterdir()} == {".lock", "config.yaml"}
        with pytest.raises(ConfigError, match="is taken"), open_run(run):
            pass
    assert [path.name for path in run.iterdir()] == ["config.yaml"]


def test_a_folder_with_other_files_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"is taken: it holds notes\.txt"), open_run(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_that_is_about_to_begin_is_held(tmp_path: Path) -> None:
    with open_run(tmp_path / "run") as run:  # no config.yaml yet
        with pytest.raises(ConfigError, match="being trained by another process"), open_run(run):
            pass
        assert run.is_dir()


def test_an_unwritable_place_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WorkbenchError, match="cannot write to"), open_run(tmp_path / "file" / "run"):
        pass


def test_running_out_of_space_is_a_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    def run() -> None:
        with open_run(tmp_path / "run") as folder, new_folder(folder / "adapter") as adapter:
            write_text(adapter / "weights", "x" * 1_000_000)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(WorkbenchError, match=r"adapter.* cannot be written: File too large.*Make room"):
            run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_in_the_trainer_counts_as_well(tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match="No space left"), open_run(tmp_path / "run"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(WorkbenchError, match="iostream"), open_run(tmp_path / "run"):  # torch.save
        raise RuntimeError("basic_ios::clear: iostream error")
    with pytest.raises(OSError, match="Connection"), open_run(tmp_path / "run"):
        raise OSError(errno.ECONNREFUSED, "Connection refused")  # not about writing: not disguised


def test_only_numbered_checkpoints_are_resumed_from(tmp_path: Path) -> None:
    for name in ("checkpoint-best", "checkpoint-", "checkpoint-7.bak", "checkpoint-1e3", "checkpoint-" + "9" * 400):
        (tmp_path / name[:200]).mkdir()
        (tmp_path / name[:200] / "trainer_state.json").write_text("{}")
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "nowhere") is None
    checkpoint = _checkpoint(tmp_path, 3)
    assert newest_checkpoint(tmp_path) == checkpoint


def test_one_at_a_time_trains_in_a_folder(tmp_path: Path) -> None:
    resume = f"with open_run(Path({str(tmp_path)!r}), resume=True): print('in')"
    command = f"from pathlib import Path; from vglm.tuning.run_folder import open_run\n{resume}"
    with open_run(tmp_path, resume=True):
        second = run_program("-c", command)
        assert second.returncode == 1
        assert "is being trained by another process right now" in second.stderr
    assert list(tmp_path.iterdir()) == []
    assert run_program("-c", command).returncode == 0


def test_what_a_killed_process_left_is_swept_up(tmp_path: Path) -> None:
    _checkpoint(tmp_path, 3)
    (tmp_path / f".adapter.{os.getpid()}").mkdir()  # of the very same number, as in containers
    (tmp_path / f".adapter.{os.getpid()}" / "adapter_config.json").touch()
    (tmp_path / ".run.json.7").touch()
    (tmp_path / ".gitignore").touch()
    (tmp_path / ".checkpoint-1.0a1b.partial").mkdir()
    (tmp_path / ".checkpoint-1.0a1b.partial" / "trainer_state.json").touch()
    with open_run(tmp_path, {"config.yaml": "a: 1\n", "splits.json": lambda: {"a": 1}}, resume=True):
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {"checkpoint-3", ".gitignore", ".lock", "config.yaml", "splits.json"}


def test_processes_fail_together_where_the_main_one_cannot_write_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> dict[str, Any]:
        raise DataError("a picture is missing")

    sent: list[Any] = []
    processes = Processes.alone()
    monkeypatch.setattr(processes, "broadcast", lambda outcome: sent.append(outcome) or outcome)
    with pytest.raises(DataError), open_run(tmp_path / "run", {"splits.json": refuse}, processes=processes):
        pass
    outcomes = iter(sent)  # of taking the folder, and of its files
    monkeypatch.setattr(processes, "rank", 1)
    monkeypatch.setattr(processes, "broadcast", lambda _: next(outcomes))
    with pytest.raises(DataError), open_run(tmp_path / "run", {"splits.json": refuse}, processes=processes):
        pass
    assert list(outcomes) == list(tmp_path.iterdir()) == []


def test_a_result_is_never_removed(tmp_path: Path) -> None:
    def run() -> None:
        with open_run(tmp_path / "run") as folder:
            (folder / "adapter.unverified").mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["adapter.unverified"]
    with open_run(tmp_path / "run", resume=True) as folder:
        assert publish(folder / "adapter.unverified") == folder / "adapter"
    with pytest.raises(ConfigError, match="has finished"), open_run(tmp_path / "run", resume=True):
        pass


def test_a_request_to_terminate_cleans_up_as_well(tmp_path: Path) -> None:
    def run() -> None:
        with open_run(tmp_path / "run"):
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        run()
    assert caught.value.code == 143
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_data_facts_tell_what_was_trained_on(few_shot_folder: Path) -> None:
    facts = describe_data(load_dataset(few_shot_folder))
    assert (facts["train"], facts["test"], facts["retention"]) == (6, 6, 0)
    assert facts["trained_on_test"] == 6
    assert len(facts["train_images"]) == 6
    assert "dataset.json" in facts["files"]
    assert facts["plan"]["divided"] == "not at all: train and test are the same"
    assert [str(Leakage(**leak)) for leak in facts["leakage"]] == [
        "6 test samples are not independent of train: 6 pictures are in both (first: dataset.json#1)"
    ]
    json.dumps(facts)
