"""A run folder is whole, says what made it, and leaves nothing half-written."""

import errno
import json
import resource
from pathlib import Path

import pytest

from vglm.data.loading import load_splits
from vglm.errors import ConfigError, WorkbenchError
from vglm.tuning.run_folder import (
    describe_data,
    newest_checkpoint,
    open_run,
    whole_folder,
    write_json,
    write_text,
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
    with pytest.raises(ConfigError, match="is taken"), open_run(run):
        pass
    (run / "adapter").mkdir()
    with pytest.raises(ConfigError, match="has finished"), open_run(run, resume=True):
        pass
    assert (run / "adapter").is_dir()


def test_an_unwritable_place_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WorkbenchError, match="cannot write to"), open_run(tmp_path / "file" / "run"):
        pass


def test_running_out_of_space_is_a_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    def run() -> None:
        with open_run(tmp_path / "run") as folder, whole_folder(folder / "adapter") as adapter:
            write_text(adapter / "weights", "x" * 1_000_000)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(WorkbenchError, match=r"cannot write to .*File too large.*Free some space"):
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


def test_an_interrupted_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_json(path, {"问": 1})
    assert "问" in path.read_text(encoding="utf-8")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half \ud800")
    assert json.loads(path.read_text(encoding="utf-8")) == {"问": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_whole_folder_appears_at_the_end_or_not_at_all(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "adapter") as folder:
        (folder / "a").touch()
        assert not (tmp_path / "adapter").exists()
    assert (tmp_path / "adapter" / "a").exists()
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "model"):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_data_facts_tell_what_was_trained_on(few_shot_folder: Path) -> None:
    facts = describe_data(load_splits(few_shot_folder))
    assert (facts["train"], facts["test"], facts["probe"]) == (6, 6, 0)
    assert facts["trained_on_test"] == 6
    assert len(facts["train_images"]) == 6
    assert "dataset.json" in facts["files"]
    assert facts["plan"]["divided"] == "not at all: train and test are the same"
    assert facts["leakage"] == [
        "6 test samples are not independent of train: 0 groups and 6 pictures are in both (first: dataset.json#1)"
    ]
    json.dumps(facts)
