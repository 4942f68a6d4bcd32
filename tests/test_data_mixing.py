"""A mixture keeps its proportions everywhere, shows each part evenly, and is the same for every process and resume."""

import pickle
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vglm.data.mixing import Mixture, mix_splits
from vglm.data.sample import Sample, Turn
from vglm.data.splits import Splits
from vglm.errors import ConfigError
from vglm.worlds.pretraining import SceneDialogues


def samples(name: str, count: int) -> list[Sample]:
    return [Sample(f"{name}#{row}", f"{name}#{row}", None, (Turn("?", name),)) for row in range(count)]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 120), st.integers(0, 3))
def test_every_beginning_keeps_the_proportions(weights: list[int], length: int, seed: int) -> None:
    names = [f"part {number}" for number in range(len(weights))]
    parts = {name: samples(name, 7) for name in names}
    mixture = Mixture(parts, dict(zip(names, weights, strict=True)), length=length, seed=seed)
    assert len(mixture) == len(mixture.names) == length
    for beginning in range(1, length + 1):
        counts = Counter(mixture.names[:beginning])
        for name, weight in zip(names, weights, strict=True):
            assert abs(counts[name] - Fraction(weight, sum(weights)) * beginning) < 1 + Fraction(1, 10**9)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 60), st.integers(0, 3))
def test_each_part_is_gone_through_evenly(first: int, second: int, length: int, seed: int) -> None:
    parts = {"a": samples("a", first), "b": samples("b", second)}
    mixture = Mixture(parts, {"a": 2, "b": 1}, length=length, seed=seed)
    assert [sample.id.partition(":")[0] for sample in mixture] == mixture.names
    for name, size in (("a", first), ("b", second)):
        seen = [sample.id for sample in mixture if sample.answer == name]
        passes = [seen[start : start + size] for start in range(0, len(seen), size)]
        assert all(len(set(row_ids)) == len(row_ids) for row_ids in passes)
        assert all(set(one) >= set(other) for one, other in pairwise(passes))


def test_the_order_is_of_seed_and_weights_alone() -> None:
    parts = {"task": samples("task", 50), "replay": samples("replay", 30)}
    weights = {"task": 0.8, "replay": 0.2}
    mixture = Mixture(parts, weights, seed=5)
    again = Mixture(dict(parts), dict(weights), seed=5)
    ids = [sample.id for sample in mixture]
    assert [again[index].id for index in reversed(range(len(again)))] == ids[::-1]  # whoever asks, in whatever order
    assert [sample.id for sample in pickle.loads(pickle.dumps(mixture))] == ids
    assert [sample.id for sample in Mixture(parts, weights, seed=6)] != ids
    assert [sample.id for sample in mixture[3:9:2]] == ids[3:9:2]


def test_one_epoch_shows_each_task_sample_once() -> None:
    parts = {"task": samples("task", 40), "replay": samples("replay", 1000), "idle": samples("idle", 3)}
    mixture = Mixture(parts, {"task": 4, "replay": 1, "idle": 0})
    assert len(mixture) == 50
    counts = Counter(sample.id for sample in mixture if sample.answer == "task")
    assert counts == {f"task:task#{row}": 1 for row in range(40)}
    assert Counter(mixture.names) == {"task": 40, "replay": 10}


def test_mixtures_that_cannot_be() -> None:
    parts = {"a": samples("a", 2), "none": []}
    for weights, message in (
        ({"b": 1.0}, r"dataset\.weights: there is no 'b'; choose from a, none"),
        ({"a": -1.0}, "at least 0 and not all 0"),
        ({"a": 0.0}, "at least 0 and not all 0"),
        ({"none": 1.0}, "'none' has no training samples"),
    ):
        with pytest.raises(ConfigError, match=message):
            Mixture(parts, weights)
    with pytest.raises(ConfigError, match=r"dataset\.length must be at least 1"):
        Mixture(parts, {"a": 1.0}, length=0)
    with pytest.raises(ConfigError, match=r"dataset\.datasets is empty"):
        mix_splits({}, {})


def test_mixed_splits_are_tested_on_the_task_and_watched_for_leakage() -> None:
    def splits(name: str, train: list[Sample]) -> Splits:
        test, retention = samples(f"{name} test", 2), samples("retention", 1)
        return Splits(
            train=train, test=test, retention=retention, files={"f.json": name}, synthetic=f"drawn for {name}"
        )

    task, replay = splits("task", samples("task", 8)), splits("replay", samples("replay", 4))
    mixed = mix_splits({"task": task, "replay": replay}, {"task": 0.5, "replay": 0.5})
    assert (mixed.test, mixed.retention) == (task.test, task.retention)
    assert mixed.synthetic == "drawn for task"  # which is what is tested
    assert mixed.files == {"task/f.json": "task", "replay/f.json": "replay"}
    assert len(mixed.train) == 16
    assert mixed.leakage == []
    picture = Sample("p#1", "p", Path("/data/p.png"), (Turn("?", "!"),))
    leaking = mix_splits(
        {
            "task": Splits(train=task.train, test=[picture], retention=[], files={}),
            "replay": Splits(train=[picture], test=[], retention=[], files={}),
        },
        {"task": 0.9, "replay": 0.1},
    )
    assert [str(leak) for leak in leaking.leakage] == [
        "1 test samples are not independent of train: 1 pictures are in both (first: p#1)"
    ]


def test_dialogues_are_told_without_a_picture_being_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    mixture = Mixture({"a": SceneDialogues(50, seed=1), "b": SceneDialogues(9, seed=2)}, {"a": 1, "b": 2}, length=40)
    expected = [(sample.turns, sample.image is not None, sample.language) for sample in mixture]
    monkeypatch.setattr("vglm.worlds.pretraining.render", None)
    assert list(mixture.dialogues()) == expected
