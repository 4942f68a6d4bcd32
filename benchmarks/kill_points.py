"""Does every command that writes survive being killed at any moment?

    python benchmarks/kill_points.py --points 60 --seed 1
    python benchmarks/kill_points.py --points 20 --commands merge report

Every command first runs uninterrupted. Then it runs again and again from the same start, and each time gets SIGKILL:
before a file operation drawn by seed (open for writing, rename, remove, make, link), or at a moment drawn by seed.
Right after the kill each result must be absent, as before, or whole. Then the same command is given once more
(`resume=` where a training left a folder), and all files that count must be equal, byte for byte, to those of the
uninterrupted run; no other file may be left.

The commands run in forks of this process, which has imported everything, so that a point takes seconds. The model is
the shipped tiny one, the data six plain pictures.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
TIMEOUT_SECONDS = 600
WRITES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate", "shutil.rmtree"}
"""Audit events of operations that change a folder; `open` is one where its mode is not for reading."""

DONE = ("has finished", "exists already", "is not an empty folder")
"""What a command says that was killed when all was done."""

Hashes = dict[str, str]
"""Path below the folder -> hash of the file there."""


@dataclass(frozen=True)
class Case:
    """A command to kill.

    Attributes:
        name: For the table.
        command: `train`, `evaluate` or `vglm`, and arguments. Paths are relative to the folder it runs in.
        start: The folder's content before, see `Bench`.
        results: What must be whole or as before at any moment, by name.
        counts: Patterns of files that must be equal in the end.
        again: The command to give after a kill, if another than `command`.
        whole: Patterns of the files that must appear together, if others than those that count: scores are kept as they
            are computed.
        codes: Exit codes of success.
        beside: A second process of the same cache at the same time, which must not notice.
    """

    name: str
    command: Sequence[str]
    start: str
    results: Sequence[str]
    counts: Sequence[str]
    again: Callable[[Path], Sequence[str]] | None = None
    beside: Sequence[str] | None = None
    whole: Sequence[str] | None = None
    codes: Sequence[int] = (0,)


TRAIN = (
    *("train", "dataset=fewshot_background", "dataset.path=data", "trainer=debug", "trainer.max_steps=4"),
    *("trainer.per_device_train_batch_size=2", "trainer.save_steps=2", "trainer.save_total_limit=1"),
    *("trainer.disable_tqdm=true", "output_dir=run", "checkpoint_selection.score_samples=4"),
)
EVALUATE = ("evaluate", "run=run", "max_new_tokens=3", "batch_size=2", "image_use_samples=2")
TRAINED = ("run/adapter/*.safetensors", "run/log.jsonl", "run/forgetting.jsonl", "run/splits.json")
ANSWERS = ("*/*.jsonl", "metrics.json", "baselines.json", "images/*")
EVALUATED = tuple(f"run/evaluation/{pattern}" for pattern in ANSWERS)
REPORTED = ("run/evaluation/evaluation.json", "run/evaluation/metrics.json", "run/evaluation/report/*")
SCORED = ("metrics.names=[chrf]", "metrics.external.own.scores={arm}.jsonl", "metrics.external.own.signature=half")


def resume(folder: Path) -> Sequence[str]:
    """Go on with the run, where it left something to go on with."""
    return ("train", "resume=run") if (folder / "run" / "config.yaml").is_file() else TRAIN


CASES = (
    Case("train", TRAIN, "data", ["run/adapter"], TRAINED, resume),
    Case("resume", ("train", "resume=run"), "stopped", ["run/adapter"], TRAINED, resume),
    Case("evaluate", EVALUATE, "run", ["run/evaluation"], EVALUATED),
    Case(
        "report",
        ("vglm", "report", "run/evaluation"),
        *("answers", ["run/evaluation"], (*EVALUATED, *REPORTED)),
        whole=REPORTED,
    ),
    Case(
        "score",
        ("vglm", "score", "run/evaluation", *SCORED),
        *("answers", ["run/evaluation"], (*EVALUATED, *REPORTED)),
        whole=REPORTED,
    ),
    Case("merge", ("vglm", "merge", "run", "--output", "merged"), "run", ["merged"], ("merged/*",)),
    Case("convert", ("vglm", "convert", "model", "hf", "--to", "hf"), "model", ["hf"], ("hf/*",)),
    Case(
        "doctor",
        ("vglm", "doctor", "data", "--fix", "clean", "--output", "pages", "--workers", "1"),
        *("data", ["clean"], ("clean/*", "clean/images/*", "pages/*")),
        codes=(0, 1),  # 1: with warnings
    ),
    Case(
        "cache",
        (*EVALUATE, "output_dir=one", "image_use=false"),
        *("run", ["one", "two"], [f"{name}/{pattern}" for name in ("one", "two") for pattern in ANSWERS]),
        beside=(*EVALUATE, "output_dir=two", "image_use=false"),
    ),
)


# --- running and killing ----------------------------------------------------------------------------------------------


class Process:
    """A command in a fork of this process, that is killed at a moment or before a file operation.

    Args:
        command: See `Case`.
        folder: Where it runs; what it writes there counts.
        log: Gets what it prints.
        cache: The feature cache's folder.
        kill_before: Number of the file operation, from 1; 0 lets it run and counts.
    """

    def __init__(self, command: Sequence[str], folder: Path, log: Path, cache: Path, kill_before: int = 0) -> None:
        self.count = log.with_suffix(".count")
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                self._enter(folder, log, cache, kill_before)
                code = _run(command)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                self._note()
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def _enter(self, folder: Path, log: Path, cache: Path, kill_before: int) -> None:
        os.chdir(folder)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115 - until the end
        os.environ.update(ENVIRONMENT, VGLM_CACHE=str(cache))
        self.operations, own, watched = 0, os.getpid(), (str(folder), str(cache))

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            if event == "open" and len(arguments) == 3:
                is_write = bool(int(str(arguments[2] or 0)) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            else:
                is_write = event in WRITES
            if is_write and os.getpid() == own and os.path.abspath(str(arguments[0])).startswith(watched):
                self.operations += 1
                if self.operations == kill_before:
                    os.kill(own, signal.SIGKILL)

        sys.addaudithook(watch)

    def _note(self) -> None:
        self.count.write_text(str(getattr(self, "operations", 0)))

    def wait(self, seconds: float = TIMEOUT_SECONDS) -> int:
        """Its exit code, negative for a signal; it is killed when the time is over.

        Args:
            seconds: How long it may run.
        """
        end = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() >= end:
                os.kill(self.pid, signal.SIGKILL)
                return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            time.sleep(0.002)


def _run(command: Sequence[str]) -> int:
    name, *arguments = command
    try:
        if name == "vglm":
            from vglm.cli import main

            return main(arguments)
        import evaluate
        import train

        sys.argv = [f"{name}.py", *arguments]
        {"train": train, "evaluate": evaluate}[name].main()
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def load_libraries() -> None:
    """Import all that the commands need, once for all forks."""
    os.environ.update(ENVIRONMENT)
    sys.path.insert(0, str(REPOSITORY))
    import torch

    torch.set_num_threads(1)
    import vglm.evaluation.report.tracking

    import evaluate  # noqa: F401
    import train  # noqa: F401
    import vglm.data.doctor
    import vglm.evaluation.certificate
    import vglm.evaluation.pipeline
    import vglm.evaluation.predict.arms
    import vglm.evaluation.report
    import vglm.evaluation.score.scoring
    import vglm.evaluation.tracking
    import vglm.model.export
    import vglm.tuning.features
    import vglm.tuning.trainer  # noqa: F401


# --- what is left -----------------------------------------------------------------------------------------------------


def hash_files(folder: Path) -> Hashes:
    """All files below a folder, by their content; without a training's seconds and the times of evaluations."""
    hashes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.name == "log.jsonl":
                content = b"".join(line for line in content.splitlines() if b'"loss"' in line)
            elif path.suffix in (".json", ".html", ".md"):
                content = re.sub(rb"\d{4}-\d\d-\d\dT[\d:]+(\+[\d:]+)?", b"", content)
            if path.name == "evaluation.json":  # the hash over itself, and so over the time of scoring
                content = re.sub(rb'"sha256": "[0-9a-f]{64}"', b"", content)
            hashes[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()[:16]
    return hashes


def chosen(hashes: Hashes, patterns: Sequence[str]) -> Hashes:
    """Those of some patterns, a `*` standing for one name."""
    return {
        path: digest
        for path, digest in hashes.items()
        if any(len(Path(pattern).parts) == len(Path(path).parts) and Path(path).match(pattern) for pattern in patterns)
    }


def differences(hashes: Hashes, expected: Hashes) -> list[str]:
    """What is missing, too much or other, a few names each."""
    lines = []
    for title, paths in (
        ("missing", expected.keys() - hashes.keys()),
        ("left over", hashes.keys() - expected.keys()),
        ("other", {path for path in hashes.keys() & expected.keys() if hashes[path] != expected[path]}),
    ):
        if paths:
            lines.append(f"{title}: {', '.join(sorted(paths)[:3])}" + (f" +{len(paths) - 3}" if len(paths) > 3 else ""))
    return lines


class Bench:
    """A folder with everything that cases start from, and a folder to run them in.

    Args:
        root: An empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.starts = root / "starts"
        self.workspace = root / "workspace"  # always the same, for paths stand in the files
        self.cache = root / "cache"
        self.uninterrupted: dict[str, tuple[Hashes, int, float]] = {}

    def _make(self, name: str) -> None:
        """Make a start: data, a trained run, one that was stopped half-way, an evaluation, or a model."""
        if name == "data":
            self._fresh(None)
            _write_data(self.workspace / "data")
        elif name == "model":
            self._fresh(None)
            shutil.copytree(REPOSITORY / "data/visualglm_tiny", self.workspace / "model")
        elif name == "run":
            self._fresh("data")
            self._expect(TRAIN)
        elif name == "stopped":
            self._fresh("data")
            self._expect((*TRAIN, "trainer.save_total_limit=null"))
            run = self.workspace / "run"
            for left in ("adapter", "checkpoint-4"):
                shutil.rmtree(run / left)
            (run / "run.json").unlink()
            config = run / "config.yaml"
            config.write_text(config.read_text().replace("save_total_limit: null", "save_total_limit: 1"))
        elif name == "answers":
            self._fresh("run")
            self._expect((*EVALUATE, "image_use=false"))
            after = self.workspace / "run/evaluation/after/predictions.jsonl"
            records = [json.loads(line) for line in after.read_text("utf-8").splitlines()]
            for arm in ("before", "after"):
                scores = [{"id": record["id"], "split": record["split"], "score": 0.5} for record in records]
                (self.workspace / f"{arm}.jsonl").write_text("".join(f"{json.dumps(score)}\n" for score in scores))
            for record in records[::2]:
                record["prediction"] = record["reference"]  # so that a new report is another one
            after.write_text("".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records), "utf-8")
        shutil.copytree(self.workspace, self.starts / name)

    def _fresh(self, start: str | None) -> None:
        """An empty cache, and the workspace as a start has it."""
        if start is not None and not (self.starts / start).is_dir():
            self._make(start)
        shutil.rmtree(self.workspace, ignore_errors=True)
        shutil.rmtree(self.cache, ignore_errors=True)
        self.cache.mkdir(parents=True)
        shutil.copytree(self.starts / start, self.workspace) if start is not None else self.workspace.mkdir()

    def _process(self, command: Sequence[str], kill_before: int = 0, name: str = "log") -> Process:
        return Process(command, self.workspace, self.root / f"{name}.txt", self.cache, kill_before)

    def _expect(self, command: Sequence[str], codes: Sequence[int] = (0,)) -> int:
        process = self._process(command)
        if (code := process.wait()) not in codes:
            raise RuntimeError(f"{' '.join(command)} ended with {code}:\n{(self.root / 'log.txt').read_text()}")
        return int(process.count.read_text())

    def measure(self, case: Case) -> tuple[Hashes, int, float]:
        """Run a case uninterrupted: what it leaves, its file operations, its seconds."""
        if case.name not in self.uninterrupted:
            self._fresh(case.start)
            began = time.monotonic()
            operations = self._expect(case.command, case.codes)
            seconds = time.monotonic() - began
            if case.beside is not None:
                self._expect(case.beside)
            self.uninterrupted[case.name] = hash_files(self.workspace), operations, seconds
        return self.uninterrupted[case.name]

    def kill(self, case: Case, generator: random.Random) -> tuple[str, list[str]]:
        """Kill a case once, give its command again, and look.

        Returns:
            When it was killed, in words; and what is wrong, nothing if all is well.
        """
        expected, operations, seconds = self.measure(case)
        self._fresh(case.start)
        before = hash_files(self.workspace)
        by_operation = generator.random() < 0.7
        number, moment = generator.randint(1, operations), generator.uniform(0, seconds)
        when = f"operation {number} of {operations}" if by_operation else f"{moment:.2f} of {seconds:.2f} s"
        beside = None if case.beside is None else self._process(case.beside, name="beside")
        process = self._process(case.command, number if by_operation else 0)
        code = process.wait(TIMEOUT_SECONDS if by_operation else moment)
        wrong = []
        if beside is not None and (failure := beside.wait()):
            wrong.append(f"the process beside it ended with {failure}")
        if code != -signal.SIGKILL:
            when += f", ended with {code}"
        left = hash_files(self.workspace)
        for name in case.results:
            whole = case.counts if case.whole is None else case.whole
            now, old, new = (chosen(_below(files, name), whole) for files in (left, before, expected))
            is_held = any(path.startswith(f"{name.rpartition('/')[0]}/.".lstrip("/")) for path in left)  # beside it
            if (now and now not in (old, new)) or (old and not now and not is_held):
                wrong.append(f"{name} is half after the kill: {'; '.join(differences(now, new))}")
        again = case.command if case.again is None else case.again(self.workspace)
        repeated = self._process(again)
        code = repeated.wait()
        log = (self.root / "log.txt").read_text(errors="replace")
        if code not in case.codes and not any(text in log for text in DONE):
            wrong.append(f"given again it ended with {code}: {log.strip().splitlines()[-1][:200]}")
        after = hash_files(self.workspace)
        wrong += differences(chosen(after, case.counts), chosen(expected, case.counts))
        wrong += differences(dict.fromkeys(after, ""), dict.fromkeys(expected, ""))[:1] if not wrong else []
        return when, wrong


def _below(hashes: Hashes, name: str) -> Hashes:
    return {path: digest for path, digest in hashes.items() if path.startswith(f"{name}/")}


def _write_data(folder: Path) -> None:
    folder.mkdir()
    rows = []
    for name, colour in zip("红绿蓝黄白黑", ("red", "green", "blue", "yellow", "white", "black"), strict=True):
        Image.new("RGB", (30, 20), colour).save(folder / f"{colour}.png")
        rows.append({"img": f"{colour}.png", "prompt": "背景是什么颜色？", "label": f"{name}色。"})
    (folder / "dataset.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")


def kill_points(cases: Sequence[Case], points: int, seed: int, root: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Kill commands in turn.

    Args:
        cases: The commands.
        points: How many kills in all.
        seed: Of the moments.
        root: An empty folder to work in.

    Yields:
        The command's name, when it was killed, and what is wrong.
    """
    generator, bench = random.Random(seed), Bench(root)
    load_libraries()
    for number in range(points):
        case = cases[number % len(cases)]
        yield case.name, *bench.kill(case, generator)


def main() -> int:
    """Kill, print a table, and end with 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--points", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--commands", nargs="+", choices=[case.name for case in CASES])
    parsed = parser.parse_args()
    cases = [case for case in CASES if parsed.commands is None or case.name in parsed.commands]
    bad = 0
    with tempfile.TemporaryDirectory(prefix="vglm-kill-") as folder:
        for number, (name, when, wrong) in enumerate(kill_points(cases, parsed.points, parsed.seed, Path(folder)), 1):
            bad += bool(wrong)
            print(f"{number:3} {name:9} {when:32} {'; '.join(wrong) or 'ok'}", flush=True)
    print(f"{parsed.points - bad} of {parsed.points} ended as if nothing had happened")
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
