"""Divide samples so that no study, patient or star is on both sides: the components of `dataset.division`.

    split_by_group(["2", "2", "861", "2577"], {"train": 0.5, "test": 0.5}, seed=1)
    {"train": [0, 1], "test": [2, 3]}

    ByGroup({"train": 0.8, "validation": 0.1, "test": 0.1})     one division, by group
    FewShot(shots=5, shot_seed=2)                               a nested subset of the training split
    KFold(folds=5, fold=0)                                      one fold is tested on, the others are trained on
    LeaveOneOut(fold=0)                                         one group is tested on

Everything here is a function of the seed and of names (groups, ids, strata), never of the order of rows or of a random
generator's state, so that the same data is divided alike on every machine and in every process.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vglm.errors import ConfigError, DataError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Pool:
    """The rows of a data set to divide, as columns.

    Attributes:
        ids: `Sample.id` of each row.
        groups: What must not be divided.
        strata: What is to be spread evenly; None for nothing.
        predefined: Split -> its rows, as the data itself says; empty where it does not.
        undivided: All rows but the retention set's.
    """

    ids: Sequence[str]
    groups: Sequence[str]
    strata: Sequence[str] | None
    predefined: Mapping[str, Sequence[int]]
    undivided: Sequence[int]

    @property
    def has_splits(self) -> bool:
        """Whether the data has its own splits for training, validation and test."""
        return bool(set(self.predefined) & set(SPLITS))

    def groups_of(self, rows: Sequence[int]) -> list[str]:
        """The groups of some rows."""
        return list(map(self.groups.__getitem__, rows))

    def strata_of(self, rows: Sequence[int]) -> list[str] | None:
        """The strata of some rows."""
        return None if self.strata is None else [self.strata[row] for row in rows]


@dataclass(frozen=True)
class Divided:
    """The outcome of a division.

    Attributes:
        rows: Split -> its rows.
        plan: How they came to be there, for `run.json`.
    """

    rows: dict[str, Sequence[int]]
    plan: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ByGroup:
    """Keep the splits that the data itself brings; divide other data by group.

    Attributes:
        fractions: Share of each split, for data that brings none: `{"train": 0.8, "validation": 0.1, "test": 0.1}`;
            None makes such data train and test at once.
        group: What must not be divided, see `vglm.data.grouping.find_groups`; inferred if None.
        stratify: What to spread evenly over the splits, see `vglm.data.grouping.find_strata`; inferred if None.
        seed: Of the division. It has no part in which shots are taken.

    Raises:
        ConfigError: The fractions are not shares of splits.
    """

    fractions: Mapping[str, float] | None = None
    group: str | None = None
    stratify: str | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        if unknown := set(self.fractions or {}) - set(SPLITS):
            raise ConfigError(
                f"dataset.division.fractions: there is no split {min(unknown)!r}; choose from {', '.join(SPLITS)}."
            )

    @property
    def is_by_group(self) -> bool:
        """Whether rows without splits are divided at all."""
        return bool(self.fractions)

    def divide(self, pool: Pool) -> Divided:
        """Put rows into splits.

        Args:
            pool: The rows.

        Returns:
            The rows of `train`, `validation`, `test` and `retention`; empty where there are none.

        Raises:
            ConfigError: The settings do not fit this data.
            DataError: There are too few groups, or no training samples to divide.
        """
        rows: dict[str, Sequence[int]] = {**dict.fromkeys((*SPLITS, "retention"), ()), **pool.predefined}
        if pool.has_splits:
            return Divided(rows, {"divided": "as the data says"})
        if not self.fractions:
            rows["train"] = rows["test"] = pool.undivided
            return Divided(rows, {"divided": "not at all: train and test are the same"})
        groups, strata = pool.groups_of(pool.undivided), pool.strata_of(pool.undivided)
        parts = split_by_group(groups, self.fractions, strata=strata, seed=self.seed)
        rows |= {name: [pool.undivided[index] for index in part] for name, part in parts.items()}
        return Divided(rows, {"divided": "by group", "fractions": dict(self.fractions), "seed": self.seed})


@dataclass(frozen=True, kw_only=True)
class FewShot(ByGroup):
    """Train on a few samples of the training split; the other splits are those of `ByGroup`.

    Attributes:
        shots: How many; a larger subset of the same `shot_seed` contains the smaller.
        shot_seed: Another one takes other shots.

    Raises:
        ConfigError: As `ByGroup`; or there are no shots.
    """

    shots: int
    shot_seed: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shots < 1:
            raise ConfigError(f"dataset.division.shots must be a positive integer, got {self.shots}.")

    def divide(self, pool: Pool) -> Divided:
        """Put rows into splits, see `ByGroup.divide`."""
        divided = super().divide(pool)
        train = divided.rows["train"]
        _refuse_empty(train, "few_shot", pool)
        if self.shots > len(train):
            raise ConfigError(
                f"dataset.division.shots must be from 1 to {len(train)}, the training split's size, got {self.shots}."
            )
        order = shot_order([pool.ids[row] for row in train], strata=pool.strata_of(train), seed=self.shot_seed)
        rows = {**divided.rows, "train": sorted(train[index] for index in order[: self.shots])}
        protocol = {"name": "few_shot", "shots": self.shots, "shot_seed": self.shot_seed}
        return Divided(rows, {**divided.plan, "protocol": protocol})


@dataclass(frozen=True, kw_only=True)
class LeaveOneOut(ByGroup):
    """Test on one group and train on the others.

    They are groups of the training split where the data sets a test split aside, which then stays untouched; else of
    everything. `fractions` count for nothing.

    Attributes:
        fold: Which group is tested on, counting from 0 in order of first appearance.

    Raises:
        ConfigError: As `ByGroup`.
    """

    fold: int

    @property
    def is_by_group(self) -> bool:
        """Yes."""
        return True

    def divide(self, pool: Pool) -> Divided:
        """Put rows into splits, see `ByGroup.divide`."""
        return _hold_out(pool, self.fold, None, "leave_one_out", self.seed)


@dataclass(frozen=True, kw_only=True)
class KFold(LeaveOneOut):
    """Test on one fold of groups and train on the others; otherwise as `LeaveOneOut`.

    Attributes:
        folds: Into how many folds the groups are divided.
        fold: Which of them is tested on, counting from 0.

    Raises:
        ConfigError: As `ByGroup`; or there are fewer than two folds.
    """

    folds: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_folds(self.folds)

    def divide(self, pool: Pool) -> Divided:
        """Put rows into splits, see `ByGroup.divide`."""
        return _hold_out(pool, self.fold, self.folds, "k_fold", self.seed)


def _hold_out(pool: Pool, fold: int, folds: int | None, name: str, seed: int) -> Divided:
    """Test on one fold."""
    rows = pool.predefined.get("train", ()) if pool.has_splits else pool.undivided
    _refuse_empty(rows, name, pool)
    groups = pool.groups_of(rows)
    numbers = fold_of_rows(groups, folds, strata=pool.strata_of(rows), seed=seed)
    count = max(numbers) + 1
    if not 0 <= fold < count:
        raise ConfigError(f"dataset.division.fold must be from 0 to {count - 1}, got {fold}.")
    parts = {
        "train": [row for row, number in zip(rows, numbers, strict=True) if number != fold],
        "test": [row for row, number in zip(rows, numbers, strict=True) if number == fold],
    }
    protocol = {"name": name, "fold": fold, "folds": count, "groups": len(set(groups))}
    plan = {"divided": f"fold {fold} of {count} by group", "seed": seed, "protocol": protocol}
    return Divided({"validation": (), "retention": (), **pool.predefined, **parts}, plan)


def _refuse_empty(rows: Sequence[int], name: str, pool: Pool) -> None:
    if not len(rows):
        raise DataError(f"{name} divides training samples, and there are none; only {', '.join(pool.predefined)}.")


def _check_folds(folds: int) -> None:
    if folds < 2:
        raise ConfigError(f"dataset.division.folds must be at least 2, got {folds}.")


# --- rules ------------------------------------------------------------------------------------------------------------


def split_by_group(
    groups: Sequence[str], fractions: Mapping[str, float], *, strata: Sequence[str] | None = None, seed: int = 1
) -> dict[str, list[int]]:
    """Divide rows into splits, a group as a whole.

    The groups are put in a seeded order, stratum after stratum, and assigned one by one to the split that is furthest
    below its share. No split thus exceeds its share of the rows by more than the largest group, and each stratum, its
    groups being neighbours in that order, is divided in the same proportions as far as they allow.

    Args:
        groups: The group of each row.
        fractions: Split name -> its share of the rows; the shares sum to 1.
        strata: What is to be spread evenly, such as the class of each row; nothing in particular if None.
        seed: Of the order. The same seed divides the same groups alike, in whatever order the rows come.

    Returns:
        Split name -> the indices of its rows, ascending. No split with a share above 0 is empty.

    Raises:
        ConfigError: The fractions are negative or do not sum to 1.
        DataError: There are fewer groups than splits.

    Source: the dealing rule is quota apportionment as in Tijdeman, "The chairman assignment problem" (1980).
    """
    shares = {name: share for name, share in fractions.items() if share > 0}
    if any(share < 0 for share in fractions.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise ConfigError(f"dataset.division.fractions must be at least 0 and sum to 1, got {dict(fractions)}.")
    dealt = _deal(groups, list(shares.values()), strata, seed)
    indices: dict[str, list[int]] = {name: [] for name in fractions}
    names = list(shares)
    for index, part in enumerate(dealt):
        indices[names[part]].append(index)
    return indices


def fold_of_rows(
    groups: Sequence[str], folds: int | None, *, strata: Sequence[str] | None = None, seed: int = 1
) -> list[int]:
    """Divide rows into equal folds, a group as a whole.

    Args:
        groups: The group of each row.
        folds: Number of folds; None makes each group a fold of its own, in order of first appearance: leave-one-out.
        strata: As in `split_by_group`.
        seed: As in `split_by_group`; of no effect on leave-one-out.

    Returns:
        The fold of each row, counting from 0. Every fold has rows.

    Raises:
        ConfigError: There are fewer than two folds.
        DataError: There are fewer groups than folds, or only one group.
    """
    if folds is None:
        numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
        if len(numbers) < 2:
            raise DataError(
                f"leave_one_out needs at least 2 groups, found {len(numbers)}. Check dataset.division.group."
            )
        return [numbers[group] for group in groups]
    _check_folds(folds)
    return _deal(groups, [1 / folds] * folds, strata, seed)


def shot_order(ids: Sequence[str], *, strata: Sequence[str] | None = None, seed: int = 1) -> list[int]:
    """Put rows in the order in which a few-shot subset takes them: the first k are the k-shot subset.

    Subsets of one seed are nested, because each is the beginning of the next. The strata take turns, so that every
    subset has the same number of rows of each, give or take one, until a stratum is used up.

    Args:
        ids: A name for each row; the order depends on the names, not on their order.
        strata: The class of each row; all alike if None.
        seed: Another seed gives another order.

    Returns:
        All indices.
    """
    turns: dict[str, int] = Counter()
    keyed: list[tuple[int, bytes, int]] = []
    for index in sorted(range(len(ids)), key=lambda index: _hash(seed, "row", ids[index])):
        stratum = "" if strata is None else strata[index]
        keyed.append((turns[stratum], _hash(seed, f"turn {turns[stratum]}", stratum), index))
        turns[stratum] += 1
    return [index for _, _, index in sorted(keyed)]


def _deal(groups: Sequence[str], shares: Sequence[float], strata: Sequence[str] | None, seed: int) -> list[int]:
    """The part of each row: groups in seeded order, each to the part furthest behind its share."""
    sizes = Counter(groups)
    if len(sizes) < len(shares):
        raise DataError(
            f"{len(sizes)} groups cannot be divided into {len(shares)} parts (groups with the same picture are one)."
            " Bring more groups, ask for fewer parts, or check dataset.division.group."
        )
    kinds: dict[str, set[str]] = defaultdict(set)
    for index, group in enumerate(groups):
        kinds[group].add("" if strata is None else strata[index])
    stratum = {group: "\0".join(sorted(names)) for group, names in kinds.items()}
    order = sorted(sizes, key=lambda group: (_hash(seed, "stratum", stratum[group]), _hash(seed, "group", group)))
    filled = [0] * len(shares)
    members: list[list[str]] = [[] for _ in shares]
    total = 0
    for group in order:
        total += sizes[group]
        part = max(range(len(shares)), key=lambda part: (shares[part] * total - filled[part], -part))
        filled[part] += sizes[group]
        members[part].append(group)
    for part in [part for part, member in enumerate(members) if not member]:
        richest = max(range(len(shares)), key=lambda other: (len(members[other]), -other))
        members[part].append(members[richest].pop())
    parts = {group: part for part, member in enumerate(members) for group in member}
    return [parts[group] for group in groups]


def _hash(seed: int, purpose: str, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{purpose}\0{name}".encode()).digest()
