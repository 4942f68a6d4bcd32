import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from vglm.config import build, check_config
from vglm.config.aliases import rename
from vglm.data import image_checks, sources
from vglm.data.division import ByGroup, FewShot, KFold, LeaveOneOut
from vglm.data.hashing import hash_file
from vglm.data.images import image_sha256
from vglm.data.loading import count_folds, load_dataset
from vglm.data.outline import CLASSES_AT_MOST
from vglm.data.sample import Sample
from vglm.data.table import Selection
from vglm.errors import ConfigError, DataError


def write(root: Path, **splits: list[str | None]) -> Path:
    """A data set: each split's file asks about the pictures named; a name's first letter decides the colour."""
    root.mkdir(exist_ok=True)
    for split, names in splits.items():
        rows = [{"img": name, "prompt": f"{name}?", "label": "蓝天。"} for name in names]
        (root / f"{split}.json").write_text(json.dumps(rows), encoding="utf-8")
        for name in names:
            if name is not None:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (3, 2), (ord(Path(name).name[0]), 0, 0)).save(root / name)
    return root


def test_splits_of_a_folder(tmp_path: Path) -> None:
    root = write(tmp_path, train=["a.png", "b.png"], test=["c.png"], general=["c.png", None])
    splits = load_dataset(root, retention="general.json")
    assert [sample.id for sample in splits.train] == ["train.json#1", "train.json#2"]
    assert [sample.id for sample in splits.test] == ["test.json#1"]
    assert [sample.image for sample in splits.retention] == [root / "c.png", None]
    assert load_dataset(str(root)).retention == []


def test_files_are_hashed(tmp_path: Path) -> None:
    root = write(tmp_path, train=["images/a.png"], test=["images/b.png"])
    splits = load_dataset(root)
    assert splits.files == {
        name: hashlib.sha256((root / name).read_bytes()).hexdigest()
        for name in ("train.json", "test.json", "images/a.png", "images/b.png")
    }


def test_the_data_hash_is_of_every_byte_and_not_of_the_place(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, train=["a.png"], test=["b.png"]) for name in ("x", "y"))
    assert load_dataset(first).data_hash == load_dataset(second).data_hash
    Image.new("RGB", (3, 2), "white").save(second / "b.png")
    assert load_dataset(first).data_hash != load_dataset(second).data_hash


@pytest.mark.parametrize("as_file", [True, False])
def test_the_published_file_is_both_train_and_test(tmp_path: Path, as_file: bool) -> None:
    root = write(tmp_path, dataset=["a.png", "b.png"])
    splits = load_dataset(root / "dataset.json" if as_file else root)
    assert splits.train == splits.test
    assert set(splits.files) == {"dataset.json", "a.png", "b.png"}
    assert splits.trained_on_test() == splits.test


def test_a_picture_counts_as_seen_by_its_content(tmp_path: Path) -> None:
    root = write(tmp_path, train=["a.png", None], test=["b.png", "again.bmp", None])
    seen, text_only = load_dataset(root).trained_on_test()
    assert (seen.image, text_only.image) == (root / "again.bmp", None)


def test_words_alone_count_as_seen_only_if_they_are_the_same(tmp_path: Path) -> None:
    root = write(tmp_path, train=["a.png", None], test=[None])
    assert len(load_dataset(root).trained_on_test()) == 1
    (root / "test.json").write_text(json.dumps([{"prompt": "Another question?", "label": "蓝天。"}]))
    assert load_dataset(root).trained_on_test() == []


def test_image_hashes(tmp_path: Path) -> None:
    splits = load_dataset(write(tmp_path, train=["a.png"], test=["b.png", None]))
    assert splits.hash_images(splits.test) == [image_sha256(tmp_path / "b.png"), None]


def test_images_elsewhere(tmp_path: Path) -> None:
    root = write(tmp_path / "tables", train=["a.png"], test=["a.png"])
    (tmp_path / "pictures").mkdir()
    (root / "a.png").rename(tmp_path / "pictures" / "a.png")
    splits = load_dataset(root, image_dir="../pictures")
    assert set(splits.files) == {"train.json", "test.json", "../pictures/a.png"}


def test_skip_missing_is_passed_on(tmp_path: Path) -> None:
    root = write(tmp_path, train=["a.png", "b.png"], test=["c.png"])
    (root / "a.png").unlink()
    assert [sample.id for sample in load_dataset(root, skip_missing=True).train] == ["train.json#2"]
    with pytest.raises(DataError, match=r"train\.json: 1 of 2 rows"):
        load_dataset(root)


def test_bad_pictures_are_all_named_before_training(tmp_path: Path) -> None:
    root = write(tmp_path, train=["a.png", "b.png", "c.png"], test=["d.png"])
    noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "a.png")
    (root / "a.png").write_bytes((root / "a.png").read_bytes()[:4000])
    (root / "c.png").write_text("no picture")
    with pytest.raises(
        DataError, match=r"(?s)train\.json: 2 of 3 rows.*json:1: .*a\.png is damaged.*json:3: .*c\.png is no picture"
    ):
        load_dataset(root)


def test_a_large_set_is_checked_by_its_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path, train=["a.png", "b.png"], test=["also.png"])
    monkeypatch.setattr(image_checks, "DECODED_AT_START", 2)
    splits = load_dataset(root)
    assert set(splits.files) == {"train.json", "test.json"}
    assert splits.trained_on_test() == splits.test
    (root / "b.png").write_text("no picture")
    with pytest.raises(DataError, match=r"(?s)train\.json: 1 of 2 rows.*json:2: .*b\.png is no picture"):
        load_dataset(root)


def test_a_data_set_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"data set .*none does not exist\. Expected a folder with train\.json and test\.json"
    ):
        load_dataset(tmp_path / "none")
    with pytest.raises(
        DataError,
        match=r"has no train\.json and no test\.json; it holds no JSON file\. Name its files in dataset\.train",
    ):
        load_dataset(tmp_path)
    write(tmp_path, train=["a.png"])
    with pytest.raises(DataError, match=r"has no test\.json; it holds train\.json"):
        load_dataset(tmp_path)
    with pytest.raises(DataError, match=r"other\.json does not exist"):
        load_dataset(write(tmp_path, test=["a.png"]), retention="other.json")


@pytest.mark.real_data
def test_the_published_set(real_data: Path) -> None:
    splits = load_dataset(real_data / "fewshot-background")
    assert len(splits.train) == len(splits.trained_on_test()) == 20
    assert len(splits.files) == 21
    assert len(set(splits.image_hashes.values())) == 20


# --- dividing ---------------------------------------------------------------------------------------------------------

THIRDS = {"train": 0.6, "validation": 0.2, "test": 0.2}


def write_studies(root: Path, studies: int, views: int = 2, **fields: object) -> Path:
    """One file about several views of each study, `<study>_<view>.png`."""
    root.mkdir(exist_ok=True)
    rows = []
    for study, view in product(range(studies), range(1, views + 1)):
        name = f"{study}_{view}.png"
        Image.new("RGB", (2, 2), (study, view, 0)).save(root / name)
        rows.append({"img": name, "prompt": "?", "label": f"report {study}", **fields})
    (root / "reports.json").write_text(json.dumps(rows), encoding="utf-8")
    return root / "reports.json"


def studies_of(samples: Sequence[Sample]) -> set[str]:
    return {str(sample.image).rpartition("/")[2].partition("_")[0] for sample in samples}


def test_one_file_is_divided_by_study(tmp_path: Path) -> None:
    path = write_studies(tmp_path, 10)
    splits = load_dataset(path, division=ByGroup(THIRDS, seed=3))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [12, 4, 4]
    parts = [studies_of(part) for part in (splits.train, splits.validation, splits.test)]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 10
    assert {sample.group for sample in splits.test} == parts[2]
    assert splits.leakage == []
    splits.refuse_leakage()
    assert splits.plan == {
        "group": "inferred from the pictures' names: the part before _",
        "left_out": {},
        "spread": "the answer",
        "divided": "by group",
        "fractions": THIRDS,
        "seed": 3,
    }
    again, other = (load_dataset(path, division=ByGroup(THIRDS, seed=seed)) for seed in (3, 4))
    assert again.test == splits.test
    assert other.test != splits.test
    assert again.record() == splits.record() != other.record()


def test_the_same_picture_under_two_names_is_not_divided(tmp_path: Path) -> None:
    root = write(tmp_path, rows=["a.png", "also.png", "another.png", "b.png", "c.png", "d.png"])
    for seed in range(8):
        splits = load_dataset(root / "rows.json", division=ByGroup({"train": 0.5, "test": 0.5}, seed=seed))
        assert (
            len({name for name in ("train", "test") for sample in getattr(splits, name) if sample.image.name[0] == "a"})
            == 1
        )
        assert splits.trained_on_test() == splits.leakage == []


def test_rows_that_name_their_split_are_believed(tmp_path: Path) -> None:
    path = write_studies(tmp_path, 3, split="test")
    rows = json.loads(path.read_text())
    for row, split in zip(rows, ["train", "train", "train", "validation", "test", "test"], strict=True):
        row["split"] = split
    path.write_text(json.dumps(rows))
    splits = load_dataset(path, division=ByGroup(THIRDS))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [3, 1, 2]
    assert splits.plan["divided"] == "as the data says"
    assert [str(leak) for leak in splits.leakage] == [
        "1 validation samples are not independent of train: 1 groups are in both (first: reports.json#4)"
    ]
    del rows[5]["split"]
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"1 of 6 rows do not say which split they are in \(first: reports\.json#6\)"):
        load_dataset(path)
    path.write_text(json.dumps([{**row, "split": "test"} for row in rows]))
    splits = load_dataset(path, division=ByGroup({"test": 1.0}))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [0, 0, 6]
    with pytest.raises(DataError, match=r"no training samples; there are 6 in test\. It can be evaluated"):
        splits.refuse_leakage(allow=True)
    for division in (FewShot(shots=2), KFold(folds=2, fold=0)):
        with pytest.raises(DataError, match="divides training samples, and there are none; only test"):
            load_dataset(path, division=division)


def test_a_validation_file_and_a_training_file_alone(tmp_path: Path) -> None:
    root = write(tmp_path, train=["a.png", "b.png", "c.png", "d.png", "e.png"], validation=["f.png"], test=["g.png"])
    assert [sample.image for sample in load_dataset(root).validation] == [root / "f.png"]
    (root / "validation.json").rename(root / "dev.json")
    assert load_dataset(root).validation == []
    assert len(load_dataset(root, validation="dev.json").validation) == 1
    (root / "test.json").unlink()
    splits = load_dataset(root, division=ByGroup(THIRDS))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [3, 1, 1]


def test_leakage_is_refused_unless_it_is_allowed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write(tmp_path, train=["a.png", "b.png"], test=["also.png", "c.png"])
    splits = load_dataset(root)
    with pytest.raises(
        DataError,
        match=r"1 test samples are not independent of train: 1 pictures are in both "
        r"\(first: test\.json#1\)\. Take those samples out .* divide the data by group .* allow_leakage=true",
    ):
        splits.refuse_leakage()
    splits.refuse_leakage(allow=True)
    load_dataset(root, allow_leakage=True).refuse_leakage()
    assert caplog.text.count('will be stamped "LEAKED"') == 2


def test_missing_pictures_are_counted(tmp_path: Path) -> None:
    path = write_studies(tmp_path, 4)
    (tmp_path / "0_1.png").unlink()
    splits = load_dataset(path, skip_missing=True, division=ByGroup({"train": 0.5, "test": 0.5}))
    assert len(splits.train) + len(splits.test) == 7
    assert splits.plan["left_out"] == {"reports.json": 1}


# --- protocols --------------------------------------------------------------------------------------------------------


def test_few_shot_subsets_are_nested_and_share_the_test(tmp_path: Path) -> None:
    path = write_studies(tmp_path, 20)
    for shot_seed in (1, 2):
        smaller: set[str] = set()
        for shots in (1, 5, 10, 24):
            splits = load_dataset(path, division=FewShot(THIRDS, shots=shots, shot_seed=shot_seed))
            ids = {sample.id for sample in splits.train}
            assert len(ids) == len(splits.train) == shots
            assert smaller <= ids
            assert splits.test == load_dataset(path, division=ByGroup(THIRDS)).test
            assert splits.leakage == []
            smaller = ids
        assert splits.plan["protocol"] == {"name": "few_shot", "shots": 24, "shot_seed": shot_seed}
    with pytest.raises(ConfigError, match=r"division\.shots must be from 1 to 24, the training split's size, got 25"):
        load_dataset(path, division=FewShot(THIRDS, shots=25))
    with pytest.raises(ConfigError, match=r"division\.shots must be a positive integer, got 0"):
        FewShot(shots=0)


@pytest.mark.parametrize(("division", "count"), [(KFold(THIRDS, folds=3, fold=0), 3), (LeaveOneOut(THIRDS, fold=0), 7)])
def test_every_sample_is_tested_on_once(tmp_path: Path, division: LeaveOneOut, count: int) -> None:
    path = write_studies(tmp_path, 7)
    assert count_folds(path, division=division) == count
    tested: list[str] = []
    for fold in range(count):
        splits = load_dataset(path, division=replace(division, fold=fold))
        assert len(splits.train) + len(splits.test) == 14
        assert not studies_of(splits.train) & studies_of(splits.test)
        tested += [sample.id for sample in splits.test]
    assert sorted(tested) == sorted(sample.id for sample in load_dataset(path).test)
    with pytest.raises(ConfigError, match=rf"dataset\.division\.fold must be from 0 to {count - 1}, got {count}"):
        load_dataset(path, division=replace(division, fold=count))


def test_folds_leave_a_test_split_of_the_data_alone(tmp_path: Path) -> None:
    root = write(tmp_path, train=["a.png", "b.png", "c.png"], test=["d.png"], retention=["e.png"])
    splits = load_dataset(root, division=LeaveOneOut(fold=1), retention="retention.json")
    assert [sample.image.name for sample in splits.test] == ["b.png"]
    assert [sample.image.name for sample in splits.train] == ["a.png", "c.png"]
    assert [sample.image.name for sample in splits.retention] == ["e.png"]
    assert count_folds(root, division=LeaveOneOut(fold=0)) == 3


def test_however_many_answers_are_spread_evenly_when_asked_for(tmp_path: Path) -> None:
    count = 2 * (CLASSES_AT_MOST + 2)
    rows = [{"question": f"{row}?", "answer": f"report {row // 2}"} for row in range(count)]
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    division = ByGroup({"train": 0.5, "test": 0.5}, stratify="answer")
    splits = load_dataset(tmp_path / "rows.json", division=division)
    assert splits.plan["spread"] == "the answer"
    assert len({sample.answer for sample in splits.train}) == count // 2
    with pytest.raises(DataError, match=f"expected a field 'answer' in every row; {count} of {count} have none"):
        load_dataset(tmp_path / "rows.json", division=replace(division, group="answer"))


FORMER = {
    "fractions": ({"fractions": THIRDS, "seed": 3}, ByGroup(THIRDS, seed=3)),
    "group": ({"group": "picture", "stratify": "none"}, ByGroup(group="picture", stratify="none")),
    "few_shot": (
        {"fractions": THIRDS, "protocol": "few_shot", "shots": 5, "shot_seed": 2},
        FewShot(THIRDS, shots=5, shot_seed=2),
    ),
    "k_fold": ({"protocol": "k_fold", "folds": 3, "fold": 1, "seed": 4}, KFold(folds=3, fold=1, seed=4)),
    "leave_one_out": ({"protocol": "leave_one_out", "fold": 6}, LeaveOneOut(fold=6)),
}


@pytest.mark.parametrize("name", FORMER)
def test_configs_of_earlier_versions_divide_as_they_did(tmp_path: Path, name: str) -> None:
    settings, division = FORMER[name]
    path = write_studies(tmp_path, 9)
    target = "vglm.data.loading.load_splits"
    config = {"dataset": {"_target_": target, "path": str(path), "format": None, **settings}}
    current = OmegaConf.create(rename(config, "config.yaml"))
    check_config(current)
    former, now = build(current.dataset), load_dataset(path, division=division)
    assert former.record() == now.record()
    assert former.data_hash == now.data_hash


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"protocol": "few_shot"}, r"dataset\.division\.shots: .* requires it"),
        ({"protocol": "k_fold", "folds": 2}, r"dataset\.division\.fold: .* requires it"),
        ({"fraction": THIRDS}, r"dataset\.fraction: "),
    ],
)
def test_what_earlier_configs_had_to_say_is_still_required(settings: dict[str, object], message: str) -> None:
    dataset = {"_target_": "vglm.data.loading.load_splits", "path": "somewhere", **settings}
    with pytest.raises(ConfigError, match=message):
        check_config(OmegaConf.create(rename({"dataset": dataset}, "config.yaml")))


def test_the_same_data_has_the_same_hash_and_division_in_every_version(tmp_path: Path) -> None:
    """Runs of earlier versions are compared by them: the figures are those of the first version."""
    rows = [
        {"img": f"{row // 2 % 8}.ppm", "prompt": "?", "label": f"answer {row % 3}", "group": f"study {row // 2}"}
        for row in range(20)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    for name in range(8):
        (tmp_path / f"{name}.ppm").write_bytes(b"P6 2 1 255\n" + bytes([name] * 6))
    data = load_dataset(tmp_path / "rows.json", division=ByGroup(THIRDS, group="group", seed=3))
    assert data.data_hash == "ada9a270f7566e404f3455ca2fac05b3bdc7a95935bffe615261fd14928e5d79"
    assert {name: part["sha256"][:16] for name, part in data.record()["splits"].items()} == {
        "train": "19de6b8f47ddd89d",
        "validation": "aada5988a02d2442",
        "test": "30216ccdc488ebf9",
    }


# --- long files -------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of more than three rows count as long, and tables are kept here."""
    monkeypatch.setattr(sources, "LISTED_ROWS", 3)
    monkeypatch.setenv("VGLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tables"


def test_a_long_file_is_the_same_data_as_a_short_one(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_studies(tmp_path / "data", 10)
    long = load_dataset(path, division=ByGroup(THIRDS))
    assert isinstance(long.train, Selection)
    monkeypatch.setattr(sources, "LISTED_ROWS", 2000)
    monkeypatch.setenv("VGLM_CACHE", str(tmp_path / "another cache"))
    short = load_dataset(path, division=ByGroup(THIRDS))
    assert isinstance(short.train, list)
    for name in ("train", "validation", "test"):
        assert list(getattr(long, name)) == getattr(short, name)
    assert long.record() == short.record()
    assert (long.data_hash, long.leakage) == (short.data_hash, [])


def test_a_table_is_read_once_and_again_when_anything_changes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_studies(tmp_path / "data", 4)
    read: list[str] = []
    original = sources.read

    def counting(*arguments: Any, **options: Any) -> Any:
        read.append(str(arguments[0]))
        return original(*arguments, **options)

    monkeypatch.setattr(sources, "read", counting)
    first = load_dataset(path)
    assert load_dataset(path).train[5] == first.train[5]
    assert (len(read), len(list(cache.iterdir()))) == (1, 1)

    path.write_text(path.read_text().replace("report 0", "report zero"))
    assert load_dataset(path).train[0].answer == "report zero"
    assert len(read) == 2

    (path.parent / "3_2.png").unlink()  # not in the file's own hash
    with pytest.raises(DataError, match=r"1 of 8 rows cannot be used.*\n.*reports\.json:8: "):
        load_dataset(path)
    assert len(load_dataset(path, skip_missing=True).train) == 7
    Image.new("RGB", (2, 2)).save(path.parent / "3_2.png")
    assert len(load_dataset(path, skip_missing=True).train) == 8
    assert not [path for path in cache.iterdir() if path.name.startswith(".")]

    for table in cache.iterdir():
        table.write_bytes(b"damaged")
    assert len(load_dataset(path).train) == 8


def test_bad_rows_of_a_long_file_leave_nothing_behind(tmp_path: Path, cache: Path) -> None:
    path = write_studies(tmp_path / "data", 4)
    path.write_text(json.dumps([*json.loads(path.read_text()), {"prompt": "?"}, 3]))
    with pytest.raises(DataError, match=r"(?s)reports\.json: 2 of 10 rows cannot be used.*json:9: .*json:10: "):
        load_dataset(path)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_to_is_done_without(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_studies(tmp_path / "data", 4)
    rows = load_dataset(path).train
    monkeypatch.setenv("VGLM_CACHE", str(path))
    assert load_dataset(path).train == list(rows)
    assert caplog.text.count("are held in memory, as their table is not cached: ") == 1


def test_a_full_disk_does_not_stop_a_long_table(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    resource = pytest.importorskip("resource")
    path = write_studies(tmp_path / "data", 40)
    (path.parent / "3_2.png").unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))  # no file can grow beyond, as on a full disk
    try:
        without = load_dataset(path, skip_missing=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(without.train, list)
    assert list(cache.iterdir()) == []
    assert "reports.json are held in memory, as their table is not cached: " in caplog.text
    loaded = load_dataset(path, skip_missing=True)
    assert (list(loaded.train), loaded.plan["left_out"]) == (without.train, without.plan["left_out"])


def test_a_kept_table_that_was_changed_is_made_again(tmp_path: Path, cache: Path) -> None:
    path = write_studies(tmp_path / "data", 4)
    load_dataset(path)
    (table,) = cache.iterdir()
    content = table.read_bytes()
    table.write_bytes(content.replace(b"report 1", b"report 9"))
    assert load_dataset(path).train[2].answer == "report 1"
    assert table.read_bytes() == content


def test_a_large_file_is_told_apart_by_pieces(tmp_path: Path) -> None:
    path = tmp_path / "shard.tar"
    content = bytearray(np.random.default_rng(0).bytes(3 * 2**20))
    path.write_bytes(content)
    whole, pieces = hash_file(path), hash_file(path, 2**20)
    assert whole == hashlib.sha256(content).hexdigest() != pieces
    content[-1] ^= 1
    path.write_bytes(content)
    assert hash_file(path, 2**20) != pieces
    path.write_bytes(content + b"x")
    assert hash_file(path, 2**20) != pieces
