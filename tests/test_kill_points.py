"""A few of the moments at which `benchmarks/kill_points.py` kills the commands that write; it has them all."""

import os
import random
from pathlib import Path

import pytest
import torch

from benchmarks.kill_points import CASES, Bench, differences


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    if not hasattr(os, "fork") or torch.cuda.is_initialized():
        pytest.skip("the commands run in forks of this process, which a process with CUDA cannot have")
    return Bench(tmp_path_factory.mktemp("kill"))


@pytest.mark.parametrize("name", ["report", "score", "convert", "merge"])
def test_a_killed_command_goes_on_as_if_nothing_had_happened(bench: Bench, name: str) -> None:
    (case,) = (case for case in CASES if case.name == name)
    generator = random.Random(name)
    for _ in range(2 if name == "report" else 1):
        when, wrong = bench.kill(case, generator)
        assert not wrong, when


def test_what_is_left_over_or_missing_is_seen(tmp_path: Path) -> None:
    assert differences({"a": "1", "b": "2"}, {"a": "1", "b": "2"}) == []
    actual = differences({"a": "1", "b": "3", ".b.partial": "4"}, {"a": "1", "b": "2", "c": "5"})
    assert actual == ["missing: c", "left over: .b.partial", "other: b"]
